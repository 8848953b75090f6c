//! What the audit log may have lines about.

/// A kind of event.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Event {
    /// A client has registered for a storage.
    Register,
    /// A client was not let in, or not permitted what it wanted.
    Refused,
    /// A registered client has gone.
    Disconnect,
    /// A transaction was committed.
    Commit,
    /// A pack has ended.
    Pack,
    /// A command of the admin socket has changed something.
    Admin,
}

impl Event {
    pub const ALL: [Event; 6] =
        [Event::Register, Event::Refused, Event::Disconnect, Event::Commit, Event::Pack, Event::Admin];

    /// Its name in the configuration and in lines.
    pub fn name(self) -> &'static str {
        match self {
            Event::Register => "register",
            Event::Refused => "refused",
            Event::Disconnect => "disconnect",
            Event::Commit => "commit",
            Event::Pack => "pack",
            Event::Admin => "admin",
        }
    }
}

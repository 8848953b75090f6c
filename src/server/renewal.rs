//! The clients that are connected when a reload changes rules or listeners: what they lose, they lose at once.
//!
//! A client that registers during a reload misses no change: it is put into the list of its storage before it looks at
//! the rules a last time, and a reload changes the rules before it goes through the list.

use crate::base::level::WARNING;
use crate::base::sync::{Arc, Ordering};
use crate::server::Server;
use crate::server::client_log;
use crate::server::connection::{Connection, Registration};
use crate::server::rights::Rights;

/// The numbers of the clients that a change has concerned.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Renewed {
    /// They may do less than before.
    pub restricted: Vec<u64>,
    /// They may not even read any more, and were disconnected.
    pub ended: Vec<u64>,
    /// They could not connect now, as they are, and stay.
    pub staying: Vec<u64>,
}

/// What has become of one client.
enum Renewal {
    Same,
    Restricted,
    Ended,
}

impl Server {
    /// Has the rights of all clients follow from the policies as they are now.
    pub fn renew_rights(&self) -> Renewed {
        let mut renewed = Renewed::default();
        let mut clients: Vec<Arc<Connection>> =
            self.storages().flat_map(|hosted| hosted.connections()).collect();
        clients.sort_unstable_by_key(|connection| connection.id());
        for connection in clients {
            let id = connection.id();
            match renew_one(&connection) {
                Renewal::Ended => renewed.ended.push(id),
                Renewal::Restricted => renewed.restricted.push(id),
                Renewal::Same => {}
            }
            let stays =
                |registration: &Registration| !registration.policy.options().admits(&registration.client);
            if !renewed.ended.contains(&id) && connection.registration().is_some_and(stays) {
                renewed.staying.push(id);
            }
        }
        renewed
    }
}

/// Has the rights of a client follow from its policy as it is now.
pub(super) fn renew(connection: &Connection) {
    renew_one(connection);
}

fn renew_one(connection: &Connection) -> Renewal {
    let Some(Registration { storage, client, policy, read_only }) = connection.registration() else {
        return Renewal::Same;
    };
    let options = policy.options();
    let rights = options.rights(storage, client).filter(|_| options.serves(storage));
    let Some(rights) = rights else {
        let none = Rights { iterate: false, ..Rights::READING };
        connection.rights.set(none);
        let message = format_args!("may not read storage '{storage}' any more; the connection is closed");
        connection.peer.log(&client_log::DENIED, WARNING, message);
        connection.outbox.close("the rules do not permit it any more");
        return Renewal::Ended;
    };
    let before = connection.rights.set(rights);
    connection.can_write.store(!read_only && rights.write, Ordering::Relaxed);
    // One that has registered to read had nothing to lose.
    let counted =
        |rights: Rights| if *read_only { Rights { write: false, undo: false, ..rights } } else { rights };
    match counted(before).and(counted(rights)) == counted(before) {
        true => Renewal::Same,
        false => Renewal::Restricted,
    }
}

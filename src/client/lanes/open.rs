//! Opens a lane: dials, registers, and makes sure that it leads to the storage of the main link.

use std::time::Duration;

use crate::base::address::Address;
use crate::base::cancel::Cancel;
use crate::base::ids::Oid;
use crate::base::sync::{Arc, Mutex, rank};
use crate::client::ask::ask;
use crate::client::dial::{DialOptions, dial};
use crate::client::link::{self, EndCause, Link, LinkOptions, Receiver};
use crate::client::server_info::ServerInfo;
use crate::client::verify::ANSWER_MAX;
use crate::wire::answers::{Answer, AnswerError, Serialno, ServerPush};
use crate::wire::availability::Method;
use crate::wire::calls::Call;
use crate::wire::protocol::Generation;
use crate::wire::value::Value;

/// Upper bound on the time until a lane is connected. The server answers others.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Nothing comes on a lane without a call.
const LINGER: Duration = Duration::from_millis(100);

/// What a server says about stores before it answers vote. Before Z5.
pub type Serialnos = Arc<Mutex<Vec<(Oid, Serialno)>, rank::Serialnos>>;

/// A link on which a transaction can be sent.
#[derive(Clone)]
pub struct Lane {
    pub link: Link,
    pub serialnos: Serialnos,
}

/// How to open lanes.
pub struct LaneOptions {
    pub dial: DialOptions,
    /// The storage's name at the server.
    pub storage: String,
    /// `client-label`
    pub label: Option<String>,
    /// Name of the client, for the log.
    pub name: String,
    /// Logger.
    pub target: &'static str,
}

/// The server of the main link.
pub struct Sibling {
    pub address: Address,
    /// What `get_info` of the storage names as `instance`, which no other storage has.
    pub instance: String,
    /// As the main link is registered.
    pub read_only: bool,
    /// Gets what the server says of its storage.
    pub on_info: Box<dyn Fn(&Value) + Send + Sync>,
}

impl LaneOptions {
    pub(super) fn log(&self, what: &str) {
        log::info!(target: self.target, "{}: {what}", self.name);
    }
}

/// Takes what the server sends on a lane. Invalidations come on the main link.
struct LaneReceiver {
    serialnos: Serialnos,
    sibling: Arc<Sibling>,
}

impl Receiver for LaneReceiver {
    fn push(&self, _link: &Link, push: ServerPush<'_>) {
        match push {
            ServerPush::Serialnos(serialnos) => self.serialnos.lock().extend(serialnos),
            ServerPush::Info(info) => (self.sibling.on_info)(&info),
            _ => {}
        }
    }

    fn ended(&self, _link: &Link, _cause: &EndCause) {}
}

/// Opens a lane. `generation`: the protocol that it speaks; `None`: the newest. The error says why there is none.
pub fn open(
    options: &LaneOptions,
    sibling: &Arc<Sibling>,
    generation: Option<Generation>,
) -> Result<Lane, String> {
    let dialling = DialOptions { generation, time_max: TIME_MAX, ..options.dial.clone() };
    let dialled = dial(&sibling.address, &dialling, &Cancel::default()).map_err(|error| error.to_string())?;
    let serialnos: Serialnos = Arc::new(Mutex::<_, rank::Serialnos>::default());
    let receiver = LaneReceiver { serialnos: Arc::clone(&serialnos), sibling: Arc::clone(sibling) };
    let link_options = LinkOptions { linger: LINGER, ..LinkOptions::default() };
    let link = link::start(dialled, Arc::new(receiver), link_options).map_err(|error| error.to_string())?;
    match register(options, sibling, &link) {
        Ok(()) => Ok(Lane { link, serialnos }),
        Err(error) => {
            link.close();
            Err(error)
        }
    }
}

fn register(options: &LaneOptions, sibling: &Sibling, link: &Link) -> Result<(), String> {
    let call = Call::Register { storage: &options.storage, read_only: sibling.read_only };
    let done = |answer: &Answer<'_>| -> Result<(), AnswerError> { answer.done() };
    ask(link, &call, Some(ANSWER_MAX), done).map_err(|error| error.to_string())?;
    if let Some(label) = &options.label
        && link.wire().knows(Method::SetClientLabel)
    {
        link.send(&Call::SetClientLabel { label });
    }
    let info = ask(link, &Call::GetInfo, Some(ANSWER_MAX), |answer| answer.value());
    let info = ServerInfo::from_value(&info.map_err(|error| error.to_string())?);
    if info.instance.as_ref() != Some(&sibling.instance) {
        return Err(format!("{} is another server now", sibling.address));
    }
    ask(link, &Call::Quiet, Some(ANSWER_MAX), done).map_err(|error| error.to_string())
}

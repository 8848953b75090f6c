//! What a replica tells its primary: how far it has come.
//!
//! Two threads say it: the one that makes a transaction durable, at once, and another one at least each second and for
//! what nothing waits for. What is sent later is never less: it is looked up under the lock under which it is sent.

use super::link::Outgoing;
use super::member::MemberStorage;
use super::message::{Ack, Message};
use crate::base::sync::{Arc, Mutex, rank};

/// The sending direction of a replica's connection.
pub struct Acks {
    out: Mutex<AckSender, rank::ClusterAcks>,
}

struct AckSender {
    out: Outgoing,
    told: Ack,
}

impl Acks {
    pub fn new(out: Outgoing) -> Acks {
        Acks { out: Mutex::new(AckSender { out, told: Ack::default() }) }
    }

    /// Says how far this replica has come. Returns what it has said; `None`: the connection is over.
    fn send(&self, member: &MemberStorage) -> Option<Ack> {
        let mut sender = self.out.lock();
        let ack = member.progress.ack()?;
        sender.out.send(&Message::Ack(ack)).ok()?;
        sender.told = ack;
        Some(ack)
    }

    /// What was said last.
    fn told(&self) -> Ack {
        self.out.lock().told
    }
}

/// Acknowledges until the connection is over.
pub fn acknowledge(member: &Arc<MemberStorage>, acks: &Arc<Acks>) {
    let (of_thread, at_once) = (Arc::clone(member), Arc::clone(acks));
    // If it cannot be sent the connection ends, and who receives notices it.
    member.progress.acknowledge_by(Arc::new(move || {
        let _ = at_once.send(&of_thread);
    }));
    while member.progress.wait_for_ack(acks.told()).is_some() && acks.send(member).is_some() {}
}

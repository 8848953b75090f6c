//! Where a commit becomes visible: the storage calls this when transactions are durable.
//!
//! Under the lock of the members list the invalidations and the replies are queued, the storage installs the
//! transactions in its index, and their locks are given back
//! ([`Publication::publish`](crate::server::publish::Publication::publish) has the order and the argument). What may
//! take longer, log lines and sending, is done by the [`Delivery`] that the storage runs afterwards.

use std::sync::Weak;

use serde_json::Map;

use crate::base::ids::{Oid, Tid};
use crate::base::level::ERROR;
use crate::base::sync::Arc;
use crate::exceptions;
use crate::server::audit::Event;
use crate::server::client_log;
use crate::server::hosted::{Hosted, size_info};
use crate::server::publish::PublicationEntry;
use crate::server::registered::Registered;
use crate::server::transaction::finish::FinishTicket;
use crate::storage::{Committed, Delivery, Publisher, StorageError, Ticket};
use crate::wire::push::Push;

/// The publisher of a storage; holds no reference that would keep the storage open.
struct HostedPublisher(Weak<Hosted>);

/// Has a storage publish to its clients. To be called before there are any.
pub fn set_publisher(hosted: &Arc<Hosted>) {
    hosted.storage.set_publisher(Arc::new(HostedPublisher(Arc::downgrade(hosted))));
}

impl Publisher for HostedPublisher {
    fn publish(&self, group: Vec<Committed>, install: &mut dyn FnMut()) -> Delivery {
        let Some(hosted) = self.0.upgrade() else {
            install();
            return Box::new(|| ());
        };
        let mut tickets = Vec::with_capacity(group.len());
        let mut transactions = Vec::with_capacity(group.len());
        let (mut slow, mut audited) = (Vec::new(), Vec::new());
        for committed in group {
            let times = committed.times;
            let (transaction, mut ticket) = entry(committed);
            slow.extend(ticket.as_mut().and_then(|ticket| {
                let request = ticket.end_call(transaction.tid, times)?;
                Some((ticket.registered.clone(), request))
            }));
            audited.extend(ticket.as_mut().and_then(|ticket| {
                let facts = ticket.facts.take()?;
                Some((ticket.registered.clone(), transaction.tid, facts))
            }));
            transactions.push(transaction);
            tickets.extend(ticket);
        }
        let mut released = Vec::with_capacity(tickets.len());
        let outboxes = hosted.publication.publish(
            &transactions,
            |transaction, wire| {
                let mut frame = Vec::new();
                wire.push(&Push::Invalidate { tid: transaction.tid, oids: &transaction.oids }, &mut frame);
                frame
            },
            &mut || {
                install();
                for ticket in &mut tickets {
                    released.extend(ticket.take_locks().and_then(|locks| locks.release()));
                    // The client's next transaction may request locks from here on, even before the reply reaches the
                    // client.
                    ticket.registered.connection.transaction.end();
                }
            },
        );
        tickets.iter().for_each(|ticket| ticket.registered.count_commit(ticket.undoes));
        Box::new(move || {
            // Only now, when the next group can be written: the log may be slow.
            drop(released);
            drop(tickets);
            outboxes.iter().for_each(|outbox| outbox.flush());
            slow.into_iter().for_each(|(registered, request)| registered.note_slow(Some(request)));
            for (registered, tid, facts) in audited {
                let Registered { hosted, connection, .. } = &registered;
                if let Some(audit) = hosted.audit(Event::Commit) {
                    let add = |line: &mut Map<_, _>| facts.add_to(line, tid);
                    audit.note(Event::Commit, Some(&hosted.name), Some(connection), add);
                }
            }
        })
    }

    fn missed(&self, last: Tid, oids: Option<Vec<Oid>>, install: &mut dyn FnMut()) -> Delivery {
        let Some(hosted) = self.0.upgrade() else {
            install();
            return Box::new(|| ());
        };
        let outboxes = hosted.publication.restart(last, oids.map(Arc::from), install);
        Box::new(move || outboxes.iter().for_each(|outbox| outbox.flush()))
    }

    fn look_again(&self, why: &'static str) -> Delivery {
        let readers = self.0.upgrade().map(|hosted| hosted.refused_writers()).unwrap_or_default();
        Box::new(move || readers.iter().for_each(|connection| connection.outbox.close(why)))
    }

    fn disconnect(&self, why: &'static str) -> Delivery {
        let Some(hosted) = self.0.upgrade() else { return Box::new(|| ()) };
        let outboxes = hosted.publication.disconnect(why);
        Box::new(move || outboxes.iter().for_each(|outbox| outbox.flush()))
    }

    fn failed(&self, ticket: Ticket, error: StorageError) {
        let Ok(mut ticket) = ticket.downcast::<FinishTicket>() else { return };
        ticket.set_answered();
        let locks = ticket.take_locks();
        let connection = &ticket.registered.connection;
        match &error {
            // The storage has said why, once for all clients whose transactions were in the group.
            StorageError::Io { .. } | StorageError::Closed(_) => {
                let message = format_args!("A transaction was not finished: the storage failed");
                connection.peer.log(&client_log::TRANSACTIONS, ERROR, message);
            }
            _ => {
                let message = format_args!("Error finishing a transaction: {error}");
                connection.peer.log(&client_log::TRANSACTIONS, ERROR, message);
            }
        }
        if let StorageError::OutcomeUnknown(_) | StorageError::Disconnected(_) = &error {
            // The client, too, must not believe that the transaction has failed.
            drop(locks);
            connection.transaction.end();
            return connection.outbox.close("the outcome of its transaction is unknown");
        }
        let mut frame = Vec::new();
        let exception = exceptions::of_storage_error(&error);
        connection.wire().error_reply(ticket.reply_to.get(), &exception, &mut frame);
        // Before the reply: the client's next call must find no locks of its own.
        drop(locks);
        connection.transaction.end();
        connection.post(frame);
    }
}

/// A transaction as it is published, with the reply to its committer.
fn entry(committed: Committed) -> (PublicationEntry, Option<Box<FinishTicket>>) {
    let Committed { tid, oids, object_count, size, ticket, .. } = committed;
    let mut transaction = PublicationEntry { tid, oids: oids.into(), committer: 0, reply: Vec::new() };
    let Ok(mut ticket) = ticket.downcast::<FinishTicket>() else { return (transaction, None) };
    ticket.set_answered();
    let wire = ticket.registered.connection.wire();
    transaction.committer = ticket.registered.connection.id();
    wire.push(&Push::Info(size_info(object_count, size)), &mut transaction.reply);
    wire.tid_reply(ticket.reply_to.get(), tid, &mut transaction.reply);
    (transaction, Some(ticket))
}

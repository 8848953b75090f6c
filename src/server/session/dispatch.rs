//! What each request does: one table, and how its result is answered.

use crate::base::ids::Tid;
use crate::base::level::ERROR;
use crate::base::sync::Arc;
use crate::base::untrusted::Untrusted;
use crate::exceptions;
use crate::server::client_log;
use crate::server::registered::Registered;
use crate::server::replies::{reply_exactly, reply_frame};
use crate::server::session::Session;
use crate::server::session::description::Specification;
use crate::server::session::read::{Read, Wanted};
use crate::server::session::run::End;
use crate::server::session::transfers::Receiving;
use crate::server::session::undo::undone_tid;
use crate::server::slow::Step;
use crate::server::transaction::finish::{FinishRefused, finish};
use crate::server::transaction::state::Transaction;
use crate::server::transaction::undo::undo;
use crate::server::transaction::vote::vote;
use crate::wire::exception::PyException;
use crate::wire::protocol::UndoCall;
use crate::wire::push::Push;
use crate::wire::reply::LoadShape;
use crate::wire::request::{Call, OwnedMsgId, Request};
use crate::wire::value::Value;

/// The result of a request.
enum Answer {
    /// The reply, unless none is wanted.
    Value(Value),
    /// The reply has been queued, or will be.
    Given,
    Error(PyException),
}

impl From<Result<Value, PyException>> for Answer {
    fn from(result: Result<Value, PyException>) -> Answer {
        result.map_or_else(Answer::Error, Answer::Value)
    }
}

impl From<Result<(), PyException>> for Answer {
    fn from(result: Result<(), PyException>) -> Answer {
        result.map_or_else(Answer::Error, |()| Answer::Value(Value::None))
    }
}

impl Session {
    /// Answers one call.
    pub(super) fn dispatch(&mut self, call: Call<'_>) -> Result<(), End> {
        let Call { id, is_async, request } = call;
        let answer = match (&self.registered, request) {
            (_, Request::KeepAlive) => return Ok(()),
            (Some(registered), request) => {
                self.connection.requests.count(&request);
                // Reads go first: they are collected and answered together.
                match as_read(&id, request) {
                    Ok(read) => {
                        self.reads.read(registered, read);
                        return Ok(());
                    }
                    Err(request) => {
                        self.reads.flush(registered);
                        let registered = Arc::clone(registered);
                        let timed = timed(&request);
                        let call = timed.map(|(method, step)| (registered.begin_call(method), step));
                        let answer = self.dispatch_registered(&registered, &id.owned(), is_async, request)?;
                        self.answer(&id.owned(), is_async, answer)?;
                        if let Some((mut call, step)) = call {
                            call.mark(step, registered.hosted.clock.now());
                            registered.note_slow(registered.end_call(&call));
                        }
                        return Ok(());
                    }
                }
            }
            (None, request) => self.dispatch_unregistered(&id.owned(), request)?,
        };
        self.answer(&id.owned(), is_async, answer)
    }

    fn answer(&mut self, id: &OwnedMsgId, is_async: bool, answer: Answer) -> Result<(), End> {
        let wire = self.connection.wire();
        let mut frame = Vec::new();
        match answer {
            Answer::Given => return Ok(()),
            Answer::Value(_) if is_async => return Ok(()),
            Answer::Value(Value::None) => wire.none_reply(id.get(), &mut frame),
            Answer::Value(value) => wire.reply(id.get(), &value, &mut frame),
            Answer::Error(exception) => {
                if !exceptions::is_routine(&exception) || is_async {
                    let kind = if is_async { "async " } else { "" };
                    self.log(&client_log::CALLS, ERROR, format_args!("{kind}call raised {exception}"));
                }
                if is_async {
                    if wire.async_error_closes() {
                        return Err(End::Misbehaved);
                    }
                    self.refuse_vote(&exception);
                    return Ok(());
                }
                self.connection.put_error(id.get(), &exception, &mut frame);
            }
        }
        let outbox = &self.connection.outbox;
        outbox.send_own(outbox.place(), &frame);
        Ok(())
    }

    /// Before `register`: nothing but what leads to it.
    fn dispatch_unregistered(&mut self, id: &OwnedMsgId, request: Request<'_>) -> Result<Answer, End> {
        let knows_authentication = self.connection.wire().knows_authentication();
        Ok(match request {
            Request::Register { .. } if !self.identity.is_proved() => {
                let refused = Answer::Error(self.refuse_unauthenticated());
                if !knows_authentication {
                    self.answer(id, false, refused)?;
                    return Err(End::Misbehaved);
                }
                refused
            }
            Request::Register { storage, read_only } => match self.register(id, &storage, read_only) {
                Ok(()) => Answer::Given,
                Err(exception) => Answer::Error(exception),
            },
            Request::GetAuthProtocol if knows_authentication => self.auth_protocol(),
            Request::Malformed { method, exception } if method == "register" => Answer::Error(exception),
            Request::Other { name, args } => match self.authenticate(&name, &args) {
                Some(called) => {
                    self.answer(id, false, called.result.into())?;
                    if called.is_last {
                        return Err(End::Misbehaved);
                    }
                    // The reply itself is not signed: the client does not know yet that it has passed.
                    if let Some(key) = called.session_key {
                        self.use_session_key(&key);
                    }
                    Answer::Given
                }
                None => return Err(self.not_registered()),
            },
            _ => return Err(self.not_registered()),
        })
    }

    fn not_registered(&self) -> End {
        let message = format_args!("Invalid method: the client has not registered yet");
        self.log(&client_log::ENDED, ERROR, message);
        End::Misbehaved
    }

    /// The name of the authentication protocol; `None`: clients need no credentials.
    fn auth_protocol(&self) -> Answer {
        let name = self.demanded.as_ref().map(|demanded| Value::text(demanded.name.as_str()));
        Answer::Value(name.unwrap_or(Value::None))
    }

    /// Refuses a call for which the client lacks a right. The log has a line of its own for that, with a rate limit.
    fn refuse(
        &self,
        registered: &Registered,
        id: &OwnedMsgId,
        is_async: bool,
        right: &str,
        refused: &PyException,
    ) {
        if self.policy.has_rules_for(&registered.hosted.name) {
            self.log_denied(&registered.hosted, format_args!("has no right to {right}"));
        }
        if is_async {
            // The client learns of it at vote, whatever its generation does about errors of such calls.
            self.refuse_vote(refused);
            return;
        }
        let mut frame = Vec::new();
        self.connection.put_error(id.get(), refused, &mut frame);
        let outbox = &self.connection.outbox;
        outbox.send_own(outbox.place(), &frame);
    }

    /// Whether a client that has lost the right to write may end the transaction that it has begun before: an abort
    /// always, and a finish after the vote, which was promised to it.
    fn ends_what_was_permitted(&self, request: &Request<'_>) -> bool {
        let transaction = &self.connection.transaction;
        match request {
            Request::TpcAbort { id } => transaction.lock().id() == Some(id.as_ref()),
            Request::TpcFinish { id } => {
                let transaction = transaction.lock();
                transaction.id() == Some(id.as_ref()) && matches!(*transaction, Transaction::Voted { .. })
            }
            _ => false,
        }
    }

    fn dispatch_registered(
        &mut self,
        registered: &Registered,
        id: &OwnedMsgId,
        is_async: bool,
        request: Request<'_>,
    ) -> Result<Answer, End> {
        let connection = &self.connection;
        let hosted = &registered.hosted;
        let refused = registered.rights().refuse(&request);
        if let Some((right, refused)) = refused.filter(|_| !self.ends_what_was_permitted(&request)) {
            self.refuse(registered, id, is_async, right, &refused);
            return Ok(Answer::Given);
        }
        // A client may have been connected to another server of the same database, and know a newer state.
        if matches!(request, Request::LastTransaction | Request::Ping | Request::GetInvalidations { .. })
            && let Err(error) = hosted.storage.catch_up()
        {
            return Ok(Answer::Error(exceptions::of_storage_error(&error)));
        }
        Ok(match request {
            Request::Register { storage, read_only } => self.register(id, &storage, read_only).into(),
            Request::GetAuthProtocol => self.auth_protocol(),

            Request::GetInfo => Answer::Value(self.get_info(registered)),
            Request::GetSizeInfo => Answer::Value(hosted.size_info()),
            Request::GetExtensionMethods => Answer::Value(self.extension_methods(registered)),
            Request::LastTransaction => {
                reply_exactly(hosted, connection, |_, seen| {
                    reply_frame(connection, id, &Ok(seen.last_transaction().into()))
                });
                Answer::Given
            }
            Request::Ping => Answer::Value(Value::None),
            Request::ServerStatus => Answer::Value(hosted.status(Some(connection.wire()))),
            Request::SetClientLabel { label } => {
                connection.peer.set_label(&label);
                Answer::Value(Value::None)
            }
            Request::Quiet => {
                hosted.publication.quiet(connection.id());
                Answer::Value(Value::None)
            }
            Request::CancelPack { own_plan: true } => {
                hosted.pack_plan.cancel_of(connection.id());
                Answer::Value(Value::None)
            }
            Request::CancelPack { own_plan: false } => {
                connection.wait_for_room();
                self.cancel_pack(registered, id, !is_async);
                Answer::Given
            }
            // Reads alone, so it is for every client that may pack.
            Request::PlanPack { time } => {
                connection.wait_for_room();
                self.plan_pack(registered, time, id, !is_async);
                Answer::Given
            }
            Request::NewOid => {
                let oids = self.new_oids(registered, 1);
                oids.map(|oids| oids.first().map_or(Value::None, |&oid| oid.into())).into()
            }
            Request::NewOids { count } => {
                let oids = self.new_oids(registered, count);
                oids.map(|oids| Value::List(oids.into_iter().map(Value::from).collect())).into()
            }

            Request::GetInvalidations { tid } => {
                self.get_invalidations(registered, id, tid);
                Answer::Given
            }
            Request::ZeoVerify { oid, serial } => {
                self.begin_verifying(registered);
                self.verify(registered, oid, serial).into()
            }
            Request::Verify { oid, serial } => self.verify(registered, oid, serial).into(),
            Request::EndZeoVerify => {
                let mut frame = Vec::new();
                connection.wire().push(&Push::EndVerify, &mut frame);
                connection.outbox.send_own(connection.outbox.place(), &frame);
                self.end_verifying(registered);
                Answer::Value(Value::None)
            }

            Request::History { oid: Some(oid), count: Some(count) } => {
                self.history(registered, id, oid, usize::try_from(count).unwrap_or(0));
                Answer::Given
            }
            Request::History { oid: Some(oid), count: None } => {
                self.history_of_no_count(registered, oid).into()
            }
            Request::History { oid: None, .. } => {
                Answer::Error(PyException::new("ZODB.POSException", "POSKeyError", vec![Value::None]))
            }
            Request::RecordIternext { next } => {
                self.record_iternext(registered, id, next);
                Answer::Given
            }
            Request::ModifiedInVersion { .. } => Answer::Value(Value::text("")),
            Request::Versions { .. } => Answer::Value(Value::Tuple(Vec::new())),
            Request::VersionEmpty { .. } => Answer::Value(Value::Bool(true)),
            Request::VersionOperation { name } => Answer::Error(PyException::builtin(
                "NotImplementedError",
                format!("{name}: versions ended with ZODB 3.8"),
            )),

            Request::TpcBegin(begin) => {
                let begun = self.tpc_begin(registered, &begin);
                self.upload = Receiving::Nothing;
                begun.into()
            }
            Request::Store { oid, serial, data, id } => {
                registered.count_store(data.len());
                self.stage(registered, &id, "storea", |staged| staged.store(oid, serial, &data)).into()
            }
            Request::DeleteObject { oid, serial, id } => {
                registered.count_store(0);
                self.stage(registered, &id, "deleteObject", |staged| staged.delete(oid, serial)).into()
            }
            Request::Restore { oid, serial, data, prev_txn, id } => {
                registered.count_store(data.as_deref().map_or(0, <[u8]>::len));
                self.stage(registered, &id, "restorea", |staged| {
                    staged.restore(oid, serial, data.as_deref(), prev_txn)
                })
                .into()
            }
            Request::CheckCurrentSerial { oid, serial, id } => {
                let check = |staged: &mut crate::storage::Staged| {
                    staged.check_current(oid, serial);
                    Ok(())
                };
                self.stage(registered, &id, "checkCurrentSerialInTransaction", check).into()
            }
            Request::Vote { .. } | Request::TpcFinish { .. } | Request::TpcAbort { .. }
                if registered.read_only =>
            {
                Answer::Error(exceptions::read_only_error())
            }
            Request::Vote { id: transaction } => {
                connection.wait_for_room();
                match vote(registered, &transaction, id.clone()) {
                    Ok(()) => Answer::Given,
                    Err(exception) => Answer::Error(exception),
                }
            }
            Request::TpcFinish { id: transaction } => match finish(registered, &transaction, id.clone()) {
                Ok(()) => Answer::Given,
                Err(FinishRefused::Ignored) => Answer::Value(Value::None),
                Err(FinishRefused::Error(exception)) => Answer::Error(exception),
            },
            Request::TpcAbort { id: transaction } => {
                let is_open = connection.transaction.lock().id() == Some(transaction.as_ref());
                if is_open {
                    registered.abort();
                    self.upload = Receiving::Nothing;
                }
                Answer::Value(Value::None)
            }

            Request::IteratorStart { start, stop } => {
                let count_max = self.server.limits().iterators;
                self.iterators.start(hosted.storage.as_ref(), start, stop, count_max).into()
            }
            Request::IteratorNext { iterator } => self.iterators.next(iterator).into(),
            Request::IteratorRecordStart { iterator, tid } => {
                self.iterators.record_start(iterator, tid, self.server.limits().iterators).into()
            }
            Request::IteratorRecordNext { iterator } => {
                let (next, share) = self.iterators.record_next(registered, iterator);
                if share.is_some() {
                    self.answer(id, is_async, next.into())?;
                    self.connection.outbox.wait_until_sent();
                    return Ok(Answer::Given);
                }
                next.into()
            }
            Request::IteratorGc { iterators } => {
                self.iterators.forget(&iterators);
                Answer::Value(Value::None)
            }

            // A storage that cannot undo has nothing to show.
            Request::UndoLog { .. } | Request::UndoInfo { .. } if hosted.storage.undo().is_none() => {
                Answer::Value(Value::Tuple(Vec::new()))
            }
            Request::UndoLog { first, last } => {
                self.undo_log(registered, id, first, last, None);
                Answer::Given
            }
            Request::UndoInfo { first, last, specification } => match Specification::new(specification) {
                Ok(specification) => {
                    self.undo_log(registered, id, first, last, specification);
                    Answer::Given
                }
                Err(exception) => Answer::Error(exception),
            },
            Request::Undo { tid_id, id: transaction } => match connection.wire().undo_call() {
                UndoCall::Buffered => self.undo_buffered(registered, &transaction, &tid_id).into(),
                UndoCall::Answered if registered.read_only => Answer::Error(exceptions::read_only_error()),
                UndoCall::Answered => {
                    connection.wait_for_room();
                    match undo(registered, &transaction, || undone_tid(&tid_id), id.clone()) {
                        Ok(()) => Answer::Given,
                        Err(exception) => Answer::Error(exception),
                    }
                }
            },
            // As in Python's server, also for clients that may only read, and if the server is read-only.
            Request::Pack { time, wait } => {
                let wait = wait.unwrap_or(true);
                connection.wait_for_room();
                self.pack(registered, time, id, wait && !is_async);
                if wait { Answer::Given } else { Answer::Value(Value::None) }
            }
            Request::StoreBlobStart => self.store_blob_start(registered).into(),
            Request::StoreBlobChunk { chunk } => self.store_blob_chunk(&chunk).into(),
            Request::StoreBlobEnd { oid, serial, data, id } => {
                registered.count_store(data.len());
                self.store_blob_end(registered, oid, serial, &data, &id).into()
            }
            Request::StoreBlobShared { oid, serial, data, filename, id } => {
                registered.count_store(data.len());
                self.store_blob_shared(registered, oid, serial, &data, &filename, &id).into()
            }
            Request::SendBlob { oid, serial } => match self.send_blob(registered, id, oid, serial) {
                Ok(()) => Answer::Given,
                Err(exception) => Answer::Error(exception),
            },

            Request::Malformed { exception, .. } => Answer::Error(exception),
            Request::Other { name, args } => {
                // The protocol's methods may be listed among the extension methods; this client has passed already.
                let called = self.call_extension(registered, &name, &args);
                let called = called.or_else(|| Some(self.authenticate(&name, &args)?.result));
                match called {
                    Some(result) => result.into(),
                    None => {
                        let message = format_args!("Invalid method, '{}'", Untrusted(&name));
                        self.log(&client_log::ENDED, ERROR, message);
                        return Err(End::Misbehaved);
                    }
                }
            }

            // Taken care of by `as_read` and `dispatch`.
            Request::LoadBefore { .. }
            | Request::Load { .. }
            | Request::LoadEx { .. }
            | Request::ZeoLoad { .. }
            | Request::LoadSerial { .. }
            | Request::GetSerial { .. }
            | Request::GetTid { .. }
            | Request::KeepAlive => Answer::Given,
        })
    }
}

/// The calls that may read or write much in the session's thread, by their methods. Others are too short and too many,
/// or have their times taken where they are answered.
fn timed(request: &Request<'_>) -> Option<(&'static str, Step)> {
    Some(match request {
        Request::GetInvalidations { .. } => ("getInvalidations", Step::Read),
        Request::History { .. } => ("history", Step::Read),
        Request::RecordIternext { .. } => ("record_iternext", Step::Read),
        Request::IteratorStart { .. } => ("iterator_start", Step::Read),
        Request::IteratorNext { .. } => ("iterator_next", Step::Read),
        Request::IteratorRecordNext { .. } => ("iterator_record_next", Step::Read),
        Request::SendBlob { .. } => ("sendBlob", Step::Read),
        Request::StoreBlobEnd { .. } => ("storeBlobEnd", Step::Write),
        Request::StoreBlobShared { .. } => ("storeBlobShared", Step::Write),
        _ => return None,
    })
}

/// A read that is answered in a batch. `Err`: another request, given back.
fn as_read<'a>(id: &crate::wire::request::MsgId<'_>, request: Request<'a>) -> Result<Read, Request<'a>> {
    let (oid, wanted) = match request {
        Request::LoadBefore { oid, before } => (oid, Wanted::Before(before, LoadShape::Before)),
        Request::Load { oid } => (oid, Wanted::Before(Tid::MAX, LoadShape::Load)),
        Request::LoadEx { oid } => (oid, Wanted::Before(Tid::MAX, LoadShape::LoadEx)),
        Request::ZeoLoad { oid } => (oid, Wanted::Before(Tid::MAX, LoadShape::ZeoLoad)),
        Request::LoadSerial { oid, serial } => (oid, Wanted::Serial(serial)),
        Request::GetTid { oid } | Request::GetSerial { oid } => (oid, Wanted::Tid),
        other => return Err(other),
    };
    Ok(Read { id: id.owned(), oid, wanted })
}

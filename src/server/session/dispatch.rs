//! The one place that says what each request does.

use crate::base::ids::Tid;
use crate::exceptions;
use crate::server::hosted::LOG;
use crate::server::session::commit::{self, FinishRefused};
use crate::server::session::load::{Read, What, frame, reply_exactly};
use crate::server::session::run::End;
use crate::server::session::{Registered, Session};
use crate::server::stats::count;
use crate::wire::codec::LoadShape;
use crate::wire::exception::PyException;
use crate::wire::request::{Call, OwnedMsgId, Request};
use crate::wire::value::Value;

/// What a request has come to.
enum Answer {
    /// The reply, unless none is wanted.
    Value(Value),
    /// It has been queued, or will be.
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
    /// Answer one call.
    pub(super) fn dispatch(&mut self, call: Call<'_>) -> Result<(), End> {
        let Call { id, is_async, request } = call;
        let answer = match (&self.registered, request) {
            (_, Request::KeepAlive) => return Ok(()),
            (Some(on), request) => {
                // Reads go first: they are collected and answered together.
                match as_read(&id, request) {
                    Ok(read) => {
                        self.reads.read(&on.hosted, &self.connection, read);
                        return Ok(());
                    }
                    Err(request) => {
                        self.reads.flush(&on.hosted, &self.connection);
                        let on = on.clone();
                        self.registered(&on, &id.owned(), request)?
                    }
                }
            }
            (None, request) => self.unregistered(&id.owned(), request)?,
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
                    log::error!(
                        target: LOG,
                        "({}) {kind}call raised {}.{}{:?}",
                        self.connection.label(), exception.module, exception.name, exception.args
                    );
                }
                if is_async {
                    if wire.async_error_closes() {
                        return Err(End::Misbehaved);
                    }
                    self.refuse_vote(&exception);
                    return Ok(());
                }
                wire.error_reply(id.get(), &exception, &mut frame);
            }
        }
        let outbox = &self.connection.outbox;
        outbox.send_own(outbox.place(), &frame);
        Ok(())
    }

    /// Before `register`: nothing but what leads to it.
    fn unregistered(&mut self, id: &OwnedMsgId, request: Request<'_>) -> Result<Answer, End> {
        let knows_authentication = self.connection.wire().knows_authentication();
        Ok(match request {
            Request::Register { storage, read_only } => match self.register(id, &storage, read_only) {
                Ok(()) => Answer::Given,
                Err(exception) => Answer::Error(exception),
            },
            // `None`: clients need no credentials.
            Request::GetAuthProtocol if knows_authentication => Answer::Value(Value::None),
            Request::Malformed { method, exception } if method == "register" => Answer::Error(exception),
            _ => {
                let label = self.connection.label();
                log::error!(target: LOG, "({label}) Invalid method: the client has not registered yet");
                return Err(End::Misbehaved);
            }
        })
    }

    fn registered(&mut self, on: &Registered, id: &OwnedMsgId, request: Request<'_>) -> Result<Answer, End> {
        let connection = &self.connection;
        let hosted = &on.hosted;
        Ok(match request {
            Request::Register { storage, read_only } => self.register(id, &storage, read_only).into(),
            Request::GetAuthProtocol => Answer::Value(Value::None),

            Request::GetInfo => Answer::Value(self.get_info(on)),
            Request::GetSizeInfo => Answer::Value(hosted.size_info()),
            Request::GetExtensionMethods => Answer::Value(self.extension_methods(on)),
            Request::LastTransaction => {
                reply_exactly(hosted, connection, |_, seen| {
                    frame(connection, id, &Ok(seen.last_transaction().into()))
                });
                Answer::Given
            }
            Request::Ping => Answer::Value(Value::None),
            Request::ServerStatus => Answer::Value(hosted.status(Some(connection.wire()))),
            Request::SetClientLabel { label } => {
                connection.set_label(&label);
                Answer::Value(Value::None)
            }
            Request::NewOid => {
                let oids = self.new_oids(on, 1);
                oids.map(|oids| oids.first().map_or(Value::None, |&oid| oid.into())).into()
            }
            Request::NewOids { count } => {
                let oids = self.new_oids(on, count);
                oids.map(|oids| Value::List(oids.into_iter().map(Value::from).collect())).into()
            }

            Request::GetInvalidations { tid } => {
                self.get_invalidations(on, id, tid);
                Answer::Given
            }
            Request::ZeoVerify { oid, serial } => {
                self.begin_verifying(on);
                self.verify(on, oid, serial).into()
            }
            Request::Verify { oid, serial } => self.verify(on, oid, serial).into(),
            Request::EndZeoVerify => {
                connection.post_push(&crate::wire::push::Push::EndVerify);
                self.end_verifying(on);
                Answer::Value(Value::None)
            }

            Request::History { oid: Some(oid), count: Some(count) } => {
                self.history(on, id, oid, usize::try_from(count).unwrap_or(0));
                Answer::Given
            }
            Request::History { oid: Some(oid), count: None } => self.history_of_no_count(on, oid).into(),
            Request::History { oid: None, .. } => {
                Answer::Error(PyException::new("ZODB.POSException", "POSKeyError", vec![Value::None]))
            }
            Request::RecordIternext { next } => {
                self.record_iternext(on, id, next);
                Answer::Given
            }
            Request::ModifiedInVersion { .. } => Answer::Value(Value::text("")),
            Request::Versions { .. } => Answer::Value(Value::Tuple(Vec::new())),
            Request::VersionEmpty { .. } => Answer::Value(Value::Bool(true)),
            Request::VersionOperation { name } => Answer::Error(PyException::builtin(
                "NotImplementedError",
                format!("{name}: versions ended with ZODB 3.8"),
            )),

            Request::TpcBegin(begin) => self.tpc_begin(on, &begin).into(),
            Request::Store { oid, serial, data, id } => {
                count(&hosted.stats.stores);
                self.stage(on, &id, "storea", |staged| staged.store(oid, serial, &data)).into()
            }
            Request::DeleteObject { oid, serial, id } => {
                count(&hosted.stats.stores);
                self.stage(on, &id, "deleteObject", |staged| staged.delete(oid, serial)).into()
            }
            Request::Restore { oid, serial, data, prev_txn, id } => {
                count(&hosted.stats.stores);
                self.stage(on, &id, "restorea", |staged| {
                    staged.restore(oid, serial, data.as_deref(), prev_txn)
                })
                .into()
            }
            Request::CheckCurrentSerial { oid, serial, id } => {
                let check = |staged: &mut crate::storage::Staged| {
                    staged.check_current(oid, serial);
                    Ok(())
                };
                self.stage(on, &id, "checkCurrentSerialInTransaction", check).into()
            }
            Request::Vote { .. } | Request::TpcFinish { .. } | Request::TpcAbort { .. } if on.read_only => {
                Answer::Error(exceptions::read_only_error())
            }
            Request::Vote { id: transaction } => {
                match commit::vote(hosted, connection, &transaction, id.clone()) {
                    Ok(()) => Answer::Given,
                    Err(exception) => Answer::Error(exception),
                }
            }
            Request::TpcFinish { id: transaction } => {
                match commit::finish(hosted, connection, &transaction, id.clone()) {
                    Ok(()) => Answer::Given,
                    Err(FinishRefused::Ignored) => Answer::Value(Value::None),
                    Err(FinishRefused::Error(exception)) => Answer::Error(exception),
                }
            }
            Request::TpcAbort { id: transaction } => {
                let is_open = connection.transaction.lock().id() == Some(transaction.as_ref());
                if is_open {
                    commit::abort(hosted, connection);
                }
                Answer::Value(Value::None)
            }

            Request::IteratorStart { start, stop } => {
                self.iterators.start(hosted.storage.as_ref(), start, stop).into()
            }
            Request::IteratorNext { iterator } => self.iterators.next(iterator).into(),
            Request::IteratorRecordStart { iterator, tid } => {
                self.iterators.record_start(iterator, tid).into()
            }
            Request::IteratorRecordNext { iterator } => self.iterators.record_next(iterator).into(),
            Request::IteratorGc { iterators } => {
                self.iterators.forget(&iterators);
                Answer::Value(Value::None)
            }

            // A storage that cannot undo has nothing to show.
            Request::UndoLog { .. } | Request::UndoInfo { .. } => Answer::Value(Value::Tuple(Vec::new())),
            Request::Undo { .. } => not_yet("undo"),
            Request::Pack { .. } => not_yet("pack"),
            Request::StoreBlobStart | Request::StoreBlobChunk { .. } => not_yet("blobs"),
            Request::StoreBlobEnd { .. } | Request::StoreBlobShared { .. } => not_yet("blobs"),
            Request::SendBlob { .. } => not_yet("blobs"),

            Request::Auth { method, .. } => Answer::Error(PyException::builtin(
                "AttributeError",
                format!("{method}: no authentication is set up"),
            )),
            Request::Malformed { exception, .. } => Answer::Error(exception),
            Request::Other { name, .. } => match self.call_extension(on, &name) {
                Some(result) => result.into(),
                None => {
                    log::error!(target: LOG, "({}) Invalid method, '{name}'", self.connection.label());
                    return Err(End::Misbehaved);
                }
            },

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

/// Is it one of the reads that are answered in batches? Else it is given back.
fn as_read<'a>(id: &crate::wire::request::MsgId<'_>, request: Request<'a>) -> Result<Read, Request<'a>> {
    let (oid, what) = match request {
        Request::LoadBefore { oid, before } => (oid, What::Before(before, LoadShape::Before)),
        Request::Load { oid } => (oid, What::Before(Tid::MAX, LoadShape::Load)),
        Request::LoadEx { oid } => (oid, What::Before(Tid::MAX, LoadShape::LoadEx)),
        Request::ZeoLoad { oid } => (oid, What::Before(Tid::MAX, LoadShape::ZeoLoad)),
        Request::LoadSerial { oid, serial } => (oid, What::Serial(serial)),
        Request::GetTid { oid } | Request::GetSerial { oid } => (oid, What::Tid),
        other => return Err(other),
    };
    Ok(Read { id: id.owned(), oid, what })
}

fn not_yet(what: &str) -> Answer {
    Answer::Error(exceptions::unsupported(&format!("{what}: not supported by this server yet")))
}

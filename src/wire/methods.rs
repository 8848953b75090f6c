//! The methods that a client may call, as tables: name, names of the parameters, number of required ones, and the
//! [`Request`] made from the arguments. Methods of the current generations are in [`request`], methods of older ones
//! only in [`legacy_request`], methods with a version among their parameters in [`request_with_versions`].

use super::arguments::{Args, Refused, is_true, refused};
use super::protocol::UndoCall;
use super::request::Request;

/// A `match` over the names of methods. A wrong number of arguments is answered before the request is made.
macro_rules! methods {
    ($args:ident; $($name:literal $(if $known:expr)?, [$($parameter:literal),*], $required:literal => $request:expr;)* _ => $other:expr) => {
        match $args.method {
            $($name $(if $known)? => {
                $args.arity(&[$($parameter),*], $required)?;
                $request
            })*
            _ => $other,
        }
    };
}

/// The request for the method and its arguments; `None` if the peer's generation has no such method.
pub(super) fn request<'a>(args: &Args<'_, 'a>) -> Result<Option<Request<'a>>, Refused> {
    // In the order of frequency.
    Ok(Some(methods! {
        args;
        b"loadBefore", ["oid", "tid"], 2 => Request::LoadBefore { oid: args.oid(0)?, before: args.tid(1)? };
        b"storea" if !args.wire.knows_versions(), ["oid", "serial", "data", "id"], 4 =>
            Request::Store {
                oid: args.oid(0)?,
                serial: args.serial(1)?,
                data: args.bytes(2)?,
                id: args.txn_id(3)?,
            };
        b"vote", ["tid"], 1 => Request::Vote { id: args.txn_id(0)? };
        b"tpc_finish", ["id"], 1 => Request::TpcFinish { id: args.txn_id(0)? };
        b"tpc_begin", ["id", "user", "description", "ext", "tid", "status"], 4 =>
            Request::TpcBegin(args.tpc_begin()?);
        b"tpc_abort", ["tid"], 1 => Request::TpcAbort { id: args.txn_id(0)? };
        b"checkCurrentSerialInTransaction", ["oid", "serial", "id"], 3 =>
            Request::CheckCurrentSerial { oid: args.oid(0)?, serial: args.serial(1)?, id: args.txn_id(2)? };
        b"new_oids", ["n"], 0 => Request::NewOids { count: args.int_or(0, 100)? };
        b"getInvalidations", ["tid"], 1 => Request::GetInvalidations { tid: args.tid(0)? };
        b"ping" if !args.wire.knows_authentication(), [], 0 => Request::Ping;
        b"lastTransaction", [], 0 => Request::LastTransaction;
        b"register", ["storage_id", "read_only"], 2 =>
            Request::Register { storage: args.text(0)?, read_only: args.truth(1) };
        b"get_info", [], 0 => Request::GetInfo;
        b"server_status", [], 0 => Request::ServerStatus;
        b"set_client_label", ["label"], 1 => Request::SetClientLabel { label: args.text(0)? };
        b"runzeo_quiet", [], 0 => Request::Quiet;
        b"runzeo_cancel_pack", ["own_plan"], 0 =>
            Request::CancelPack { own_plan: !args.slots.is_empty() && args.truth(0) };
        b"runzeo_pack_plan", ["time"], 1 => Request::PlanPack { time: args.float(0)? };
        b"new_oid", [], 0 => Request::NewOid;
        b"getTid", ["oid"], 1 => Request::GetTid { oid: args.oid(0)? };
        b"loadSerial", ["oid", "serial"], 2 =>
            Request::LoadSerial { oid: args.oid(0)?, serial: args.tid(1)? };
        b"history" if !args.wire.knows_versions(), ["tid", "size"], 1 =>
            Request::History { oid: args.optional_oid(0)?, count: args.optional_int_or(1, 1) };
        b"record_iternext", ["next"], 0 => Request::RecordIternext { next: args.optional_oid(0)? };
        b"deleteObject", ["oid", "serial", "id"], 3 =>
            Request::DeleteObject { oid: args.oid(0)?, serial: args.serial(1)?, id: args.txn_id(2)? };
        b"restorea", ["oid", "serial", "data", "prev_txn", "id"], 5 =>
            Request::Restore {
                oid: args.oid(0)?,
                serial: args.tid(1)?,
                data: if args.is_none(2) { None } else { Some(args.bytes(2)?) },
                prev_txn: args.optional_tid(3)?,
                id: args.txn_id(4)?,
            };
        b"storeBlobStart", [], 0 => Request::StoreBlobStart;
        b"storeBlobChunk", ["chunk"], 1 => Request::StoreBlobChunk { chunk: args.bytes(0)? };
        b"storeBlobEnd" if !args.wire.knows_versions(), ["oid", "serial", "data", "id"], 4 =>
            Request::StoreBlobEnd {
                oid: args.oid(0)?,
                serial: args.serial(1)?,
                data: args.bytes(2)?,
                id: args.txn_id(3)?,
            };
        b"storeBlobShared" if !args.wire.knows_versions(), ["oid", "serial", "data", "filename", "id"], 5 =>
            Request::StoreBlobShared {
                oid: args.oid(0)?,
                serial: args.serial(1)?,
                data: args.bytes(2)?,
                filename: args.text(3)?,
                id: args.txn_id(4)?,
            };
        b"sendBlob", ["oid", "serial"], 2 => Request::SendBlob { oid: args.oid(0)?, serial: args.tid(1)? };
        b"pack", ["time", "wait"], 1 => {
            let wait = (args.slots.len() > 1).then(|| args.truth(1));
            Request::Pack { time: args.float(0)?, wait }
        };
        b"undoa", ["trans_id", "tid"], 2 => Request::Undo { tid_id: args.value(0)?, id: args.txn_id(1)? };
        b"undoLog", ["first", "last"], 2 => Request::UndoLog { first: args.int(0)?, last: args.int(1)? };
        b"undoInfo", ["first", "last", "spec"], 3 =>
            Request::UndoInfo { first: args.int(0)?, last: args.int(1)?, specification: args.value(2)? };
        b"iterator_start", ["start", "stop"], 2 =>
            Request::IteratorStart { start: args.optional_tid(0)?, stop: args.optional_tid(1)? };
        b"iterator_next", ["iid"], 1 => Request::IteratorNext { iterator: args.iterator(0)? };
        b"iterator_record_start", ["txn_iid", "tid"], 2 =>
            Request::IteratorRecordStart { iterator: args.iterator(0)?, tid: args.tid(1)? };
        b"iterator_record_next", ["iid"], 1 => Request::IteratorRecordNext { iterator: args.iterator(0)? };
        b"iterator_gc", ["iids"], 1 => Request::IteratorGc { iterators: args.ints(0)? };
        _ => match args.wire.knows_authentication() {
            true => return legacy_request(args),
            false => return Ok(None),
        }
    }))
}

/// Methods that only servers before ZEO 5 have.
fn legacy_request<'a>(args: &Args<'_, 'a>) -> Result<Option<Request<'a>>, Refused> {
    if args.wire.knows_versions()
        && let Some(request) = request_with_versions(args)?
    {
        return Ok(Some(request));
    }
    Ok(Some(methods! {
        args;
        b"getAuthProtocol", [], 0 => Request::GetAuthProtocol;
        b"getExtensionMethods", [], 0 => Request::GetExtensionMethods;
        b"get_size_info", [], 0 => Request::GetSizeInfo;
        b"loadEx", ["oid"], 1 => Request::LoadEx { oid: args.oid(0)? };
        b"load", ["oid", "version"], 1 => { args.no_version(1)?; Request::Load { oid: args.oid(0)? } };
        b"zeoVerify", ["oid", "s"], 2 => Request::ZeoVerify { oid: args.oid(0)?, serial: args.serial(1)? };
        b"verify", ["oid", "tid"], 2 => Request::Verify { oid: args.oid(0)?, serial: args.serial(1)? };
        b"endZeoVerify", [], 0 => Request::EndZeoVerify;
        b"undo" if args.wire.undo_call() == UndoCall::Answered, ["trans_id", "id"], 2 =>
            Request::Undo { tid_id: args.value(0)?, id: args.txn_id(1)? };
        _ => match args.method {
            b"undo" => return Err(refused("NotImplementedError", "")),
            _ => return Ok(None),
        }
    }))
}

/// Methods with a version among their parameters, which must be empty, and methods about versions.
fn request_with_versions<'a>(args: &Args<'_, 'a>) -> Result<Option<Request<'a>>, Refused> {
    Ok(Some(methods! {
        args;
        b"loadEx", ["oid", "version"], 1 => { args.no_version(1)?; Request::LoadEx { oid: args.oid(0)? } };
        b"storea", ["oid", "serial", "data", "version", "id"], 5 => {
            args.no_version(3)?;
            Request::Store {
                oid: args.oid(0)?,
                serial: args.serial(1)?,
                data: args.bytes(2)?,
                id: args.txn_id(4)?,
            }
        };
        b"storeBlobEnd", ["oid", "serial", "data", "version", "id"], 5 => {
            args.no_version(3)?;
            Request::StoreBlobEnd {
                oid: args.oid(0)?,
                serial: args.serial(1)?,
                data: args.bytes(2)?,
                id: args.txn_id(4)?,
            }
        };
        b"storeBlobShared", ["oid", "serial", "data", "filename", "version", "id"], 6 => {
            args.no_version(4)?;
            Request::StoreBlobShared {
                oid: args.oid(0)?,
                serial: args.serial(1)?,
                data: args.bytes(2)?,
                filename: args.text(3)?,
                id: args.txn_id(5)?,
            }
        };
        b"history", ["oid", "version", "size"], 2 => {
            if args.slots.get(1).is_some_and(|version| is_true(version.scalar)) {
                return Err(refused("ValueError", "Versions aren't supported."));
            }
            Request::History { oid: args.optional_oid(0)?, count: args.optional_int_or(2, 1) }
        };
        b"verify", ["oid", "version", "tid"], 3 =>
            { args.no_version(1)?; Request::Verify { oid: args.oid(0)?, serial: args.serial(2)? } };
        b"zeoVerify", ["oid", "s", "sv"], 2 =>
            { args.no_version(2)?; Request::ZeoVerify { oid: args.oid(0)?, serial: args.serial(1)? } };
        b"zeoLoad", ["oid"], 1 => Request::ZeoLoad { oid: args.oid(0)? };
        b"getSerial", ["oid"], 1 => Request::GetSerial { oid: args.oid(0)? };
        b"modifiedInVersion", ["oid"], 1 => Request::ModifiedInVersion { oid: args.oid(0)? };
        b"versions", ["max"], 0 => Request::Versions { max: args.optional_int_or(0, i64::MAX) };
        b"versionEmpty", ["version"], 1 => Request::VersionEmpty { version: args.bytes(0)? };
        _ => match args.method {
            b"commitVersion" => Request::VersionOperation { name: "commitVersion" },
            b"abortVersion" => Request::VersionOperation { name: "abortVersion" },
            _ => return Ok(None),
        }
    }))
}

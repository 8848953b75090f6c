//! Results that are too large for memory: rows are fetched in portions, and passed on one by one.

use std::ops::ControlFlow;

use bytes::BytesMut;
use postgres_protocol::message::{backend, frontend};

use super::batch::{Statement, bind, check_len};
use super::collect::Pieces;
use super::connection::{Connection, is_forgotten, not_fatal};
use super::error::{Lost, ServerError};
use super::rows::Row;
use super::session::unexpected;
use super::value::Value;

/// The portal from which rows are fetched.
const PORTAL: &str = "stream";
/// Portions that are asked for in advance, so that the server works while rows are used.
const AHEAD: usize = 2;

/// What has come of a stream.
#[derive(Default)]
struct StreamProgress {
    error: Option<ServerError>,
    /// There are no more rows.
    is_complete: bool,
    /// The receiver wants no more.
    is_enough: bool,
    /// The receiver has got a row.
    has_begun: bool,
}

impl StreamProgress {
    fn is_over(&self) -> bool {
        self.error.is_some() || self.is_complete || self.is_enough
    }

    fn is_forgotten(&self) -> bool {
        !self.has_begun && self.error.as_ref().is_some_and(is_forgotten)
    }
}

impl Connection {
    /// Runs a query, as one snapshot in a transaction of its own that only reads, and passes each row to `each` until
    /// it breaks. At most two portions of `rows_at_once` are on their way. The deadline is for each piece that arrives.
    /// Values that are too large for one message are an error 54000 (`program_limit_exceeded`).
    pub fn stream(
        &mut self,
        statement: &Statement,
        values: &[Value<'_>],
        rows_at_once: u32,
        each: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    ) -> Result<Result<(), ServerError>, Lost> {
        if let Err(too_large) = check_len(values) {
            return Ok(Err(ServerError::own(b"54000", too_large.to_string())));
        }
        let mut progress = self.try_stream(statement, values, rows_at_once, each)?;
        if progress.is_forgotten() {
            self.forget(statement.name());
            progress = self.try_stream(statement, values, rows_at_once, each)?;
        }
        Ok(progress.error.map_or(Ok(()), Err))
    }

    fn try_stream(
        &mut self,
        statement: &Statement,
        values: &[Value<'_>],
        rows_at_once: u32,
        each: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    ) -> Result<StreamProgress, Lost> {
        let (count, name) = (i32::try_from(rows_at_once.max(1)).unwrap_or(i32::MAX), statement.name());
        let mut out = BytesMut::new();
        let is_new = !self.is_prepared(name);
        if is_new {
            self.prepare(statement, name, &mut out);
        }
        frontend::query("begin isolation level repeatable read read only", &mut out).expect("a constant");
        bind(PORTAL, &name.to_string(), values, &mut out);
        for _ in 0..AHEAD {
            fetch(count, &mut out);
        }
        let mut progress = StreamProgress::default();
        // The answers to what was sent, each until the server is ready.
        if is_new {
            self.portion(&mut out, &mut progress, each)?;
            if progress.error.is_none() {
                self.note_prepared(name);
            }
        }
        self.portion(&mut out, &mut progress, each)?;
        let mut waiting = AHEAD;
        while waiting > 0 {
            self.portion(&mut out, &mut progress, each)?;
            waiting -= 1;
            if !progress.is_over() {
                fetch(count, &mut out);
                waiting += 1;
            }
        }
        let end = if progress.error.is_some() { "rollback" } else { "commit" };
        if let Err(error) = self.simple(end)? {
            progress.error.get_or_insert(error);
        }
        Ok(progress)
    }

    /// Sends what is to be sent, and takes what comes until the server is ready.
    fn portion(
        &mut self,
        out: &mut BytesMut,
        progress: &mut StreamProgress,
        each: &mut dyn FnMut(Row<'_>) -> ControlFlow<()>,
    ) -> Result<(), Lost> {
        self.exchange_slowly(Pieces::new(vec![out]), &mut |_, frame| {
            match frame.tag {
                backend::DATA_ROW_TAG => {
                    let row = Row::parse(frame.body())
                        .ok_or_else(|| Lost::protocol("a row that is shorter or longer than its values"))?;
                    if !progress.is_over() {
                        progress.has_begun = true;
                        progress.is_enough = each(row).is_break();
                    }
                }
                backend::COMMAND_COMPLETE_TAG => {
                    // Of `begin`, or of the query.
                    progress.is_complete |= !frame.body().starts_with(b"BEGIN");
                }
                backend::ERROR_RESPONSE_TAG => {
                    let error = not_fatal(frame)?;
                    progress.error.get_or_insert(error);
                }
                backend::READY_FOR_QUERY_TAG => return Ok(true),
                backend::PARSE_COMPLETE_TAG
                | backend::BIND_COMPLETE_TAG
                | backend::CLOSE_COMPLETE_TAG
                | backend::EMPTY_QUERY_RESPONSE_TAG
                | backend::PORTAL_SUSPENDED_TAG => {}
                tag => return Err(unexpected(tag)),
            }
            Ok(false)
        })?;
        out.clear();
        Ok(())
    }
}

/// Appends the messages that fetch a portion.
fn fetch(count: i32, out: &mut BytesMut) {
    frontend::execute(PORTAL, count, out).expect("a constant");
    frontend::sync(out);
}

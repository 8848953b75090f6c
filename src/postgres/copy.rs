//! COPY: much data from and to a table, in the format that the statement says.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::{backend, frontend};

use super::collect::Pieces;
use super::connection::{Connection, not_fatal};
use super::error::{Lost, ServerError};
use super::inbox::Frame;
use super::rows::Rows;
use super::session::{LOG, unexpected};

/// Upper bound on one message; longer pieces are sent in several.
const MESSAGE_LEN: usize = 16 << 20;
/// For the request to end a copy, if the connection has no deadline.
const CANCEL_TIME: Duration = Duration::from_secs(30);

/// How far a copy has come.
#[derive(Default)]
struct CopyProgress {
    /// The statement was a COPY in the wanted direction.
    is_open: bool,
    error: Option<ServerError>,
    rows: Rows,
}

impl CopyProgress {
    /// `true`: the statement has ended.
    fn take(&mut self, frame: Frame<'_>) -> Result<bool, Lost> {
        match frame.tag {
            backend::ERROR_RESPONSE_TAG => {
                let error = not_fatal(frame)?;
                self.error.get_or_insert(error);
            }
            backend::COMMAND_COMPLETE_TAG => {
                self.rows.complete(frame.body().strip_suffix(b"\0").unwrap_or(frame.body()));
            }
            backend::READY_FOR_QUERY_TAG => return Ok(true),
            // Of a statement that is no COPY.
            backend::ROW_DESCRIPTION_TAG | backend::DATA_ROW_TAG | backend::EMPTY_QUERY_RESPONSE_TAG
                if !self.is_open => {}
            tag => return Err(unexpected(tag)),
        }
        Ok(false)
    }

    /// The number of rows. `42601`, a syntax error, if the statement was no COPY in the wanted direction.
    fn result(self) -> Result<u64, ServerError> {
        match self.error {
            Some(error) => Err(error),
            None if self.is_open => Ok(self.rows.affected()),
            None => Err(ServerError::own(b"42601", "the statement is no COPY from stdin or to stdout")),
        }
    }
}

impl Connection {
    /// Runs `copy … from stdin`. `source` fills the buffer, which is empty, with the next piece; `Ok(false)` is the
    /// end of the data, and what is in the buffer then is still sent; `Err` gives up: nothing is stored, and the
    /// server's error has the text. Returns the number of rows. The deadline is for each piece.
    pub fn copy_in(
        &mut self,
        sql: &str,
        source: &mut dyn FnMut(&mut Vec<u8>) -> Result<bool, String>,
    ) -> Result<Result<u64, ServerError>, Lost> {
        let message = self.query(sql)?;
        let mut progress = CopyProgress::default();
        self.exchange(Pieces::new(vec![&message]), &mut |_, frame| match frame.tag {
            backend::COPY_IN_RESPONSE_TAG => {
                progress.is_open = true;
                Ok(true)
            }
            _ => progress.take(frame),
        })?;
        if !progress.is_open {
            return Ok(progress.result());
        }
        let mut piece = Vec::new();
        let mut goes_on = true;
        let mut last = BytesMut::new();
        frontend::copy_done(&mut last);
        while goes_on {
            piece.clear();
            match source(&mut piece) {
                Ok(more) => goes_on = more,
                Err(why) => {
                    goes_on = false;
                    piece.clear();
                    last.clear();
                    let why = why.replace('\0', "");
                    frontend::copy_fail(&why, &mut last).expect("a text without a zero byte");
                }
            }
            for part in piece.chunks(MESSAGE_LEN) {
                let mut header = [backend::COPY_DATA_TAG, 0, 0, 0, 0];
                let len = u32::try_from(part.len() + 4).expect("bounded");
                header[1..].copy_from_slice(&len.to_be_bytes());
                let pieces = Pieces::new(vec![&header, part]);
                // An error of the server ends the statement; it does not want the rest.
                if self.push(pieces, &mut |_, frame| progress.take(frame))? {
                    return Ok(progress.result());
                }
            }
        }
        self.exchange(Pieces::new(vec![&last]), &mut |_, frame| progress.take(frame))?;
        Ok(progress.result())
    }

    /// Runs `copy … to stdout`, and passes each piece of data (for text, a line) to `each`, until it breaks: then the
    /// server is asked to end the statement. Returns the number of rows, zero after a break. The deadline is for each
    /// piece.
    pub fn copy_out(
        &mut self,
        sql: &str,
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Result<u64, ServerError>, Lost> {
        let message = self.query(sql)?;
        let mut progress = CopyProgress::default();
        let mut is_enough = false;
        let mut take = |frame: Frame<'_>, each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>| match frame.tag {
            backend::COPY_OUT_RESPONSE_TAG => {
                progress.is_open = true;
                Ok(Some(false))
            }
            backend::COPY_DONE_TAG if progress.is_open => Ok(Some(false)),
            backend::COPY_DATA_TAG if progress.is_open => Ok(Some(each(frame.body()).is_break())),
            _ => progress.take(frame).map(|is_over| (!is_over).then_some(false)),
        };
        let mut is_over = false;
        self.exchange_slowly(Pieces::new(vec![&message]), &mut |_, frame| {
            let taken = take(frame, each)?;
            is_over = taken.is_none();
            is_enough = taken == Some(true);
            Ok(is_over || is_enough)
        })?;
        if is_over {
            return Ok(progress.result());
        }
        // Without the request everything would have to be read.
        if let Err(error) = self.cancel_token().cancel(self.deadline().unwrap_or(CANCEL_TIME)) {
            log::debug!(target: LOG, "a copy is read to its end, for its cancel failed: {error}");
        }
        self.exchange_slowly(Pieces::default(), &mut |_, frame| {
            Ok(take(frame, &mut |_| ControlFlow::Continue(()))?.is_none())
        })?;
        Ok(Ok(0))
    }
}

//! Puts the messages of the server together to the answers of a batch.

use std::mem;

use bytes::Buf;
use postgres_protocol::message::backend;

use super::error::{Lost, ServerError};
use super::inbox::Frame;
use super::rows::{Row, Rows};
use super::session::{error_of, unexpected};

/// Upper bound on the rows of all answers of a batch.
pub const ANSWERS_LEN_MAX: usize = 4 << 30;
/// What a row costs beside its bytes.
const ROW_COST: usize = size_of::<usize>();

/// What one group has brought: the rows of each of its executions, in their order, or the error that ended it.
pub type Answer = Result<Vec<Rows>, ServerError>;

/// The answers that have come until now.
#[derive(Debug)]
pub struct Collector {
    answers: Vec<Answer>,
    /// Number of executions in each group that was sent.
    expected: Vec<usize>,
    /// Of the group that is being answered.
    done: Vec<Rows>,
    rows: Rows,
    error: Option<ServerError>,
    /// Upper bound on the bytes of rows, and how many may still come.
    len_max: usize,
    left: usize,
    /// State of the transaction after the last group: idle, within one, within one that has failed.
    pub status: u8,
}

impl Collector {
    pub fn new(expected: Vec<usize>, len_max: usize) -> Collector {
        Collector {
            answers: Vec::new(),
            expected,
            done: Vec::new(),
            rows: Rows::default(),
            error: None,
            len_max,
            left: len_max,
            status: b'I',
        }
    }

    /// Whether all groups are answered.
    pub fn is_complete(&self) -> bool {
        self.answers.len() == self.expected.len()
    }

    pub fn into_answers(self) -> Vec<Answer> {
        self.answers
    }

    /// Takes the next message.
    pub fn take(&mut self, frame: Frame<'_>) -> Result<(), Lost> {
        match frame.tag {
            backend::DATA_ROW_TAG => self.row(frame.body())?,
            backend::PARSE_COMPLETE_TAG
            | backend::BIND_COMPLETE_TAG
            | backend::CLOSE_COMPLETE_TAG
            | backend::NO_DATA_TAG
            | backend::ROW_DESCRIPTION_TAG => {}
            backend::COMMAND_COMPLETE_TAG => {
                let tag =
                    frame.body().strip_suffix(b"\0").ok_or_else(|| Lost::protocol("a command's end"))?;
                self.rows.complete(tag);
                self.end_execution()?;
            }
            backend::EMPTY_QUERY_RESPONSE_TAG => self.end_execution()?,
            backend::ERROR_RESPONSE_TAG => {
                let error = error_of(frame)?;
                if error.is_fatal() {
                    return Err(Lost::by_server(&error));
                }
                self.error.get_or_insert(error);
            }
            backend::READY_FOR_QUERY_TAG => {
                self.status = *frame.body().first().ok_or_else(|| unexpected(frame.tag))?;
                self.end_group()?;
            }
            backend::COPY_IN_RESPONSE_TAG | backend::COPY_OUT_RESPONSE_TAG => {
                return Err(Lost::new("COPY cannot be part of a batch; it has calls of its own"));
            }
            tag => return Err(unexpected(tag)),
        }
        Ok(())
    }

    fn row(&mut self, body: &[u8]) -> Result<(), Lost> {
        Row::parse(body).ok_or_else(|| Lost::protocol("a row that is shorter or longer than its values"))?;
        self.left = self
            .left
            .checked_sub(body.len() + ROW_COST)
            .ok_or_else(|| Lost::new(format_args!("answers of more than {} bytes", self.len_max)))?;
        self.rows.push(body);
        Ok(())
    }

    fn end_execution(&mut self) -> Result<(), Lost> {
        if self.expected.get(self.answers.len()).is_none_or(|count| self.done.len() == *count) {
            return Err(Lost::protocol("more commands have ended than were sent"));
        }
        self.done.push(mem::take(&mut self.rows));
        Ok(())
    }

    fn end_group(&mut self) -> Result<(), Lost> {
        let done = mem::take(&mut self.done);
        self.rows = Rows::default();
        let answer = self.error.take().map_or(Ok(done), Err);
        let count = self.expected.get(self.answers.len()).copied();
        if answer.as_ref().is_ok_and(|done| Some(done.len()) != count) {
            return Err(Lost::protocol("a command without an answer"));
        }
        self.answers.push(answer);
        Ok(())
    }
}

/// The pieces that are sent, one behind the other.
#[derive(Debug, Default)]
pub struct Pieces<'a>(Vec<&'a [u8]>);

impl<'a> Pieces<'a> {
    pub fn new(pieces: Vec<&'a [u8]>) -> Pieces<'a> {
        let mut pieces: Vec<&[u8]> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        pieces.reverse();
        Pieces(pieces)
    }

    /// The bytes to send next; empty at the end.
    pub fn first(&self) -> &'a [u8] {
        self.0.last().copied().unwrap_or_default()
    }

    /// So many of them are sent.
    pub fn sent(&mut self, count: usize) {
        if let Some(last) = self.0.last_mut() {
            last.advance(count.min(last.len()));
            if last.is_empty() {
                self.0.pop();
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

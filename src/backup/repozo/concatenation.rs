//! The content of all parts of a chain, one after the other.

use std::io::Read;

use super::chain::ChainPart;
use super::content::{reader, unreadable};
use super::error::{RepozoError, Result};
use super::repository::Repository;
use crate::backup::copier::fill;

/// Reads the parts of a chain. An error says which part cannot be read.
pub struct Concatenation<'a> {
    repository: &'a Repository,
    parts: std::slice::Iter<'a, ChainPart>,
    current: Option<(&'a ChainPart, Box<dyn Read>, u64)>,
}

impl<'a> Concatenation<'a> {
    pub fn new(repository: &'a Repository, parts: &'a [ChainPart]) -> Concatenation<'a> {
        Concatenation { repository, parts: parts.iter(), current: None }
    }

    /// Fills the buffer, or reads to the end. `Err`: a part cannot be read, or does not have the length of its range.
    pub fn fill(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            let Some((part, content, left)) = &mut self.current else {
                let Some(part) = self.parts.next() else { break };
                self.current = Some((part, reader(self.repository, &part.file)?, part.end - part.start));
                continue;
            };
            let rest = buf.get_mut(done..).unwrap_or_default();
            let read =
                fill(&mut **content, rest).map_err(|error| unreadable(self.repository, &part.file, error))?;
            let is_end = read < rest.len();
            if read as u64 > *left || is_end && (read as u64) < *left {
                let path = self.repository.join(&part.file);
                let (path, len) = (path.display(), part.end - part.start);
                return Err(RepozoError::Damaged(format!("{path} does not have {len} bytes")));
            }
            *left -= read as u64;
            done += read;
            if is_end {
                self.current = None;
            }
        }
        Ok(done)
    }
}

//! Merges what comes on standard input, for tests that compare with Python (`compat-tests/resolve`).
//!
//! A case is three records, each behind its length (4 bytes, little endian): old, committed, new. The answer is a
//! letter and a text or record behind its length: `R` the merged record, `B` what BTreesConflictError is made of,
//! `E` another refusal, `U` a class that is not known. With `--time N` each case is merged N times, and the answer is
//! the time of one in nanoseconds (`T`).

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::time::Instant;

use runzeo::internal::conflict::native::{Merge, Refusal, merge};

fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let rounds: Option<u32> = match (args.next().as_deref(), args.next()) {
        (Some("--time"), Some(rounds)) => Some(rounds.parse().map_err(io::Error::other)?),
        _ => None,
    };
    let (mut input, mut output) = (BufReader::new(io::stdin().lock()), BufWriter::new(io::stdout().lock()));
    while let Some(old) = record(&mut input)? {
        let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let committed = record(&mut input)?.ok_or_else(end)?;
        let new = record(&mut input)?.ok_or_else(end)?;
        let (letter, payload) = match rounds {
            None => answer(merge(&old, &committed, &new)),
            Some(rounds) => {
                (b'T', fastest(rounds, || merge(&old, &committed, &new)).to_string().into_bytes())
            }
        };
        let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
        output.write_all(&[letter])?;
        output.write_all(&len.to_le_bytes())?;
        output.write_all(&payload)?;
        output.flush()?;
    }
    Ok(())
}

/// Nanoseconds of one call, in the fastest of some batches: others use the machine too.
fn fastest<T>(rounds: u32, call: impl Fn() -> T) -> u128 {
    let batch = (rounds / 50).max(1);
    let times = (0..rounds.div_ceil(batch)).map(|_| {
        let start = Instant::now();
        for _ in 0..batch {
            std::hint::black_box(call());
        }
        start.elapsed().as_nanos() / u128::from(batch)
    });
    times.min().unwrap_or(0)
}

fn answer(merge: Merge) -> (u8, Vec<u8>) {
    match merge {
        Merge::Resolved(record) => (b'R', record),
        Merge::Refused(Refusal::BTrees { positions: [p1, p2, p3], reason }) => {
            (b'B', format!("{p1} {p2} {p3} {}", reason.number()).into_bytes())
        }
        Merge::Refused(refusal) => (b'E', refusal.to_string().into_bytes()),
        Merge::Unknown(class) => (b'U', class.into_bytes()),
    }
}

/// The next record; `None` at the end of the input.
fn record(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    match input.read_exact(&mut len) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let mut record = vec![0; u32::from_le_bytes(len) as usize];
    input.read_exact(&mut record)?;
    Ok(Some(record))
}

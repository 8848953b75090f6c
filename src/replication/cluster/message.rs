//! The messages between the servers of a cluster. Each is a frame: a letter, and what follows it. Numbers have their
//! most significant byte first; a text or a list has its length in front.
//!
//! | from | letter | message | content |
//! |---|---|---|---|
//! | who connects | `h` | [`Hello`] | who it is, what it wants, what it has |
//! | | `p` | probes | transactions that it has, for a comparison |
//! | | `a` | [`Ack`] | how far it has come |
//! | who answers | `r` | [`Standing`] | its role and timelines: it cannot be followed, or was only asked |
//! | | `x` | refusal | why the other must not follow |
//! | | `c` | comparison | the two transactions between which it wants probes |
//! | | `s` | start | the last transaction that both have: what follows is later; what commits wait for |
//! | | `t` | transaction | its head, and the transaction before it |
//! | | `d` | record | of the transaction |
//! | | `b` | blob | its length; its bytes come in the next frames, `B` |
//! | | `e` | end | checksum of the frames of the transaction |
//! | | `n` | [`News`] | what is written and published, and how far behind the other is |
//! | | `k` | pack | it was packed to this time, as the bits of a float of seconds since 1970 |
//! | either | `z` | batch | frames, compressed |

use super::options::{Level, Role};
use super::position::Probe;
use super::state::{Id, NAME_MAX, Timeline, Timelines};
use crate::base::bytes::Reader;
use crate::base::ids::{Oid, Tid};
use crate::storage::TransactionMeta;

/// The first bytes of a [`Hello`]. They end with the version of the protocol.
const MAGIC: &[u8; 20] = b"runzeo replication 1";

/// What the side that connects says first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hello {
    /// The name of this server.
    pub name: String,
    /// `None`: it has not met its cluster yet.
    pub cluster: Option<Id>,
    pub timelines: Timelines,
    pub role: Role,
    /// What it wants to follow. `None`: it only asks for the role.
    pub follow: Option<Follow>,
}

/// What a replica wants, and has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Follow {
    pub storage: String,
    /// Its last transaction; `None`: it has none.
    pub last: Option<Probe>,
    pub has_blobs: bool,
    /// It also follows a replica.
    pub follows_replicas: bool,
    /// It wants compressed batches.
    pub compress: bool,
}

/// The role of a server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Standing {
    pub name: String,
    pub cluster: Option<Id>,
    pub timelines: Timelines,
    pub role: Role,
}

/// How far a replica has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ack {
    pub received: Tid,
    pub synced: Tid,
    pub published: Tid,
}

/// What the server has that is followed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct News {
    pub written: Tid,
    pub published: Tid,
    /// How far behind the replica is, as far as its acknowledgements tell.
    pub bytes: u64,
    pub transactions: u64,
    /// In milliseconds.
    pub time: u64,
}

/// A message. Its bytes are those of the frame, without a copy.
#[derive(Debug, PartialEq)]
pub enum Message<'a> {
    Hello(Hello),
    Probes(Vec<Probe>),
    Ack(Ack),
    Standing(Standing),
    Refusal(String),
    Comparison { low: Tid, high: Tid },
    Start { common: Tid, awaited: Option<Level>, standing: Standing },
    Transaction { tid: Tid, after: Tid, status: u8, meta: TransactionMeta },
    Record { oid: Oid, tid: Tid, data_txn: Option<Tid>, data: Option<&'a [u8]> },
    Blob { oid: Oid, len: u64 },
    BlobBytes(&'a [u8]),
    End { checksum: u32 },
    News(News),
    Pack { time: f64 },
    Batch(&'a [u8]),
}

/// Appends a message. What is longer than its length can say is cut; only names and reasons could be.
pub fn put(message: &Message<'_>, out: &mut Vec<u8>) {
    match message {
        Message::Hello(hello) => put_hello(hello, out),
        Message::Probes(probes) => {
            out.push(b'p');
            out.extend_from_slice(&(probes.len() as u32).to_be_bytes());
            probes.iter().for_each(|probe| put_probe(probe, out));
        }
        Message::Ack(Ack { received, synced, published }) => {
            out.push(b'a');
            put_tids(&[*received, *synced, *published], out);
        }
        Message::Standing(standing) => {
            out.push(b'r');
            put_standing(standing, out);
        }
        Message::Refusal(why) => {
            out.push(b'x');
            put_text(why, out);
        }
        Message::Comparison { low, high } => {
            out.push(b'c');
            put_tids(&[*low, *high], out);
        }
        Message::Start { common, awaited, standing } => {
            out.push(b's');
            put_tids(&[*common], out);
            out.push(match awaited {
                None => b'-',
                Some(Level::Received) => b'r',
                Some(Level::Synced) => b's',
                Some(Level::Published) => b'p',
            });
            put_standing(standing, out);
        }
        Message::Transaction { tid, after, status, meta } => {
            out.push(b't');
            put_tids(&[*tid, *after], out);
            out.push(*status);
            for part in [&meta.user, &meta.description, &meta.extension] {
                put_bytes(part, out);
            }
        }
        Message::Record { oid, tid, data_txn, data } => {
            out.push(b'd');
            out.extend_from_slice(&oid.to_bytes());
            put_tids(&[*tid, data_txn.unwrap_or(Tid::ZERO)], out);
            out.push(u8::from(data.is_some()));
            out.extend_from_slice(data.unwrap_or_default());
        }
        Message::Blob { oid, len } => {
            out.push(b'b');
            out.extend_from_slice(&oid.to_bytes());
            out.extend_from_slice(&len.to_be_bytes());
        }
        Message::BlobBytes(bytes) => {
            out.push(b'B');
            out.extend_from_slice(bytes);
        }
        Message::End { checksum } => {
            out.push(b'e');
            out.extend_from_slice(&checksum.to_be_bytes());
        }
        Message::News(News { written, published, bytes, transactions, time }) => {
            out.push(b'n');
            put_tids(&[*written, *published], out);
            [bytes, transactions, time]
                .iter()
                .for_each(|number| out.extend_from_slice(&number.to_be_bytes()));
        }
        Message::Pack { time } => {
            out.push(b'k');
            out.extend_from_slice(&time.to_bits().to_be_bytes());
        }
        Message::Batch(bytes) => {
            out.push(b'z');
            out.extend_from_slice(bytes);
        }
    }
}

fn put_hello(hello: &Hello, out: &mut Vec<u8>) {
    let Hello { name, cluster, timelines, role, follow } = hello;
    out.push(b'h');
    out.extend_from_slice(MAGIC);
    put_standing(
        &Standing { name: name.clone(), cluster: *cluster, timelines: timelines.clone(), role: *role },
        out,
    );
    let Some(Follow { storage, last, has_blobs, follows_replicas, compress }) = follow else {
        return out.push(0);
    };
    let flags = [(true, 1), (*has_blobs, 2), (*follows_replicas, 4), (*compress, 8), (last.is_some(), 16)];
    out.push(flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum());
    put_text(storage, out);
    last.iter().for_each(|probe| put_probe(probe, out));
}

fn put_standing(standing: &Standing, out: &mut Vec<u8>) {
    let Standing { name, cluster, timelines, role } = standing;
    put_text(name, out);
    out.extend_from_slice(&cluster.map_or(0, |id| id.0).to_be_bytes());
    out.push(match role {
        Role::Primary => b'p',
        Role::Replica => b'r',
    });
    out.extend_from_slice(&(timelines.iter().len() as u32).to_be_bytes());
    for Timeline { id, number, since, by } in timelines.iter() {
        out.extend_from_slice(&id.0.to_be_bytes());
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(&since.to_be_bytes());
        put_text(by, out);
    }
}

fn put_probe(probe: &Probe, out: &mut Vec<u8>) {
    put_tids(&[probe.tid], out);
    out.push(probe.status);
    out.extend_from_slice(&probe.digest);
}

fn put_tids(tids: &[Tid], out: &mut Vec<u8>) {
    tids.iter().for_each(|tid| out.extend_from_slice(&tid.to_bytes()));
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_bytes(text.as_bytes(), out);
}

/// At most 65535 bytes, as user, description and extension have.
fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let bytes = bytes.get(..usize::from(u16::MAX)).unwrap_or(bytes);
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

impl<'a> Message<'a> {
    /// The message in a frame. The error says what is wrong.
    pub fn parse(frame: &'a [u8]) -> Result<Message<'a>, String> {
        let mut reader = Reader::new(frame);
        let Some(letter) = reader.u8() else { return Err("an empty frame".into()) };
        let message = match letter {
            b'd' => parse_record(&mut reader),
            b'B' | b'z' => {
                let bytes = reader.take(reader.rest().len()).unwrap_or_default();
                Some(if letter == b'B' { Message::BlobBytes(bytes) } else { Message::Batch(bytes) })
            }
            _ => parse_short(letter, &mut reader),
        };
        match message {
            Some(message) if reader.is_empty() => Ok(message),
            Some(_) => Err(format!("a message '{}' that is too long", letter.escape_ascii())),
            None => Err(format!("a message '{}' that cannot be read", letter.escape_ascii())),
        }
    }
}

fn parse_record<'a>(reader: &mut Reader<'a>) -> Option<Message<'a>> {
    let (oid, tid) = (Oid(reader.u64_be()?), Tid(reader.u64_be()?));
    let data_txn = Some(Tid(reader.u64_be()?)).filter(|tid| *tid != Tid::ZERO);
    let has_data = flag(reader.u8()?)?;
    let data = reader.take(reader.rest().len())?;
    (has_data != data.is_empty()).then_some(Message::Record {
        oid,
        tid,
        data_txn,
        data: has_data.then_some(data),
    })
}

/// One without data.
fn parse_short<'a>(letter: u8, reader: &mut Reader<'a>) -> Option<Message<'a>> {
    let tid = |reader: &mut Reader<'a>| reader.u64_be().map(Tid);
    Some(match letter {
        b'h' => Message::Hello(parse_hello(reader)?),
        b'p' => {
            let count = reader.u32_be()?;
            Message::Probes((0..count).map(|_| parse_probe(reader)).collect::<Option<_>>()?)
        }
        b'a' => Message::Ack(Ack { received: tid(reader)?, synced: tid(reader)?, published: tid(reader)? }),
        b'r' => Message::Standing(parse_standing(reader)?),
        b'x' => Message::Refusal(text(reader, usize::from(u16::MAX))?),
        b'c' => Message::Comparison { low: tid(reader)?, high: tid(reader)? },
        b's' => Message::Start {
            common: tid(reader)?,
            awaited: match reader.u8()? {
                b'-' => None,
                b'r' => Some(Level::Received),
                b's' => Some(Level::Synced),
                b'p' => Some(Level::Published),
                _ => return None,
            },
            standing: parse_standing(reader)?,
        },
        b't' => Message::Transaction {
            tid: tid(reader)?,
            after: tid(reader)?,
            status: reader.u8().filter(|status| matches!(status, b' ' | b'p'))?,
            meta: TransactionMeta {
                user: bytes(reader)?.to_vec(),
                description: bytes(reader)?.to_vec(),
                extension: bytes(reader)?.to_vec(),
            },
        },
        b'b' => Message::Blob { oid: Oid(reader.u64_be()?), len: reader.u64_be()? },
        b'e' => Message::End { checksum: reader.u32_be()? },
        b'n' => Message::News(News {
            written: tid(reader)?,
            published: tid(reader)?,
            bytes: reader.u64_be()?,
            transactions: reader.u64_be()?,
            time: reader.u64_be()?,
        }),
        b'k' => {
            let time = f64::from_bits(reader.u64_be()?);
            time.is_finite().then_some(Message::Pack { time })?
        }
        _ => return None,
    })
}

fn parse_hello(reader: &mut Reader<'_>) -> Option<Hello> {
    (reader.take(MAGIC.len())? == MAGIC).then_some(())?;
    let Standing { name, cluster, timelines, role } = parse_standing(reader)?;
    let flags = reader.u8()?;
    let follow = match flags {
        0 => None,
        flags if flags & 1 == 1 && flags < 32 => Some(Follow {
            storage: text(reader, usize::from(u16::MAX))?,
            last: if flags & 16 != 0 { Some(parse_probe(reader)?) } else { None },
            has_blobs: flags & 2 != 0,
            follows_replicas: flags & 4 != 0,
            compress: flags & 8 != 0,
        }),
        _ => return None,
    };
    Some(Hello { name, cluster, timelines, role, follow })
}

fn parse_standing(reader: &mut Reader<'_>) -> Option<Standing> {
    let name = text(reader, NAME_MAX)?;
    let cluster = Some(reader.array().map(u128::from_be_bytes)?).filter(|id| *id != 0).map(Id);
    let role = match reader.u8()? {
        b'p' => Role::Primary,
        b'r' => Role::Replica,
        _ => return None,
    };
    let count = reader.u32_be()?;
    let timeline = |_| {
        Some(Timeline {
            id: Id(reader.array().map(u128::from_be_bytes)?),
            number: reader.u64_be()?,
            since: reader.u64_be()?,
            by: text(reader, NAME_MAX)?,
        })
    };
    let list = (0..count).map(timeline).collect::<Option<_>>()?;
    Some(Standing { name, cluster, timelines: Timelines::new(list), role })
}

fn parse_probe(reader: &mut Reader<'_>) -> Option<Probe> {
    Some(Probe { tid: Tid(reader.u64_be()?), status: reader.u8()?, digest: reader.array()? })
}

/// A text in one line: it is shown in logs and kept in a line of the state file.
fn text(reader: &mut Reader<'_>, len_max: usize) -> Option<String> {
    let text = std::str::from_utf8(bytes(reader)?).ok()?;
    (text.len() <= len_max && !text.contains(char::is_control)).then(|| text.into())
}

fn bytes<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = reader.u16_be()?;
    reader.take(len.into())
}

fn flag(byte: u8) -> Option<bool> {
    match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timelines() -> Timelines {
        let timeline =
            |number| Timeline { id: Id(7 + u128::from(number)), number, since: 5, by: "n ö".into() };
        Timelines::new((0..3).map(timeline).collect())
    }

    fn standing() -> Standing {
        Standing {
            name: "north".into(),
            cluster: Some(Id(u128::MAX)),
            timelines: timelines(),
            role: Role::Primary,
        }
    }

    fn messages() -> Vec<Message<'static>> {
        let probe = Probe { tid: Tid(9), status: b'p', digest: [3; 16] };
        let follow = Follow {
            storage: "1".into(),
            last: Some(probe.clone()),
            has_blobs: true,
            follows_replicas: false,
            compress: true,
        };
        let hello = |follow| {
            let (timelines, role) = (Timelines::default(), Role::Replica);
            Message::Hello(Hello { name: "s".into(), cluster: None, timelines, role, follow })
        };
        let meta =
            TransactionMeta { user: b"u".into(), description: vec![b'd'; 65535], extension: Vec::new() };
        let record = |data, data_txn| Message::Record { oid: Oid(1), tid: Tid(2), data_txn, data };
        vec![
            hello(None),
            hello(Some(follow.clone())),
            hello(Some(Follow { last: None, has_blobs: false, follows_replicas: true, ..follow })),
            Message::Probes(vec![probe; 3]),
            Message::Ack(Ack { received: Tid(3), synced: Tid(2), published: Tid(1) }),
            Message::Standing(standing()),
            Message::Refusal("another cluster".into()),
            Message::Comparison { low: Tid(1), high: Tid(5) },
            Message::Start { common: Tid::ZERO, awaited: Some(Level::Synced), standing: standing() },
            Message::Start { common: Tid(1), awaited: None, standing: standing() },
            Message::Transaction { tid: Tid(4), after: Tid(3), status: b' ', meta },
            record(Some(b"state"), None),
            record(None, Some(Tid(1))),
            Message::Blob { oid: Oid(1), len: 1 << 40 },
            Message::BlobBytes(b"bytes"),
            Message::BlobBytes(b""),
            Message::End { checksum: 0xfedc_ba98 },
            Message::News(News { written: Tid(2), published: Tid(1), bytes: 3, transactions: 4, time: 5 }),
            Message::Pack { time: 1.5e9 },
            Message::Batch(b"squeezed"),
        ]
    }

    #[test]
    fn what_is_put_is_parsed() {
        for message in messages() {
            let mut frame = Vec::new();
            put(&message, &mut frame);
            assert_eq!(Message::parse(&frame), Ok(message));
        }
    }

    #[test]
    fn a_part_or_more_than_a_message_is_refused() {
        for message in messages() {
            if matches!(message, Message::BlobBytes(_) | Message::Batch(_)) {
                continue;
            }
            let mut frame = Vec::new();
            put(&message, &mut frame);
            let is_record = matches!(message, Message::Record { data: Some(_), .. });
            let parts = if is_record { 0..26 } else { 0..frame.len() };
            for len in parts {
                assert!(Message::parse(&frame[..len]).is_err(), "{message:?} {len}");
            }
            frame.push(b'?');
            assert_eq!(Message::parse(&frame).is_err(), !is_record, "{message:?}");
        }
    }
}

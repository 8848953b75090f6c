//! For all input of a decoder, the allocated bytes and the work are proportional to the input's length.
//!
//! Memory is counted, not measured: an allocator adds up every byte that is requested while one input is decoded,
//! including bytes that are freed at once. Work is the processor time of this thread for an input and for one eight
//! times as long; quadratic work takes 64 times as long, and work that doubles with each level does not end.
//!
//! In its own test program, because the counting allocator belongs to the whole process.

use std::alloc::System;
use std::sync::Mutex;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use runzeo::internal::conflict::native::merge;
use runzeo::internal::pickle::Dialect;
use runzeo::internal::pickle::read::{Accept, read};
use runzeo::internal::pickle::record::{class_name, is_blob};
use runzeo::internal::pickle::refs::references;
use runzeo::internal::pickle::rewrite::rewrite;
use runzeo::internal::storage::file::parse_index;
use runzeo::internal::wire::answers::{AnswerError, FromServer};
use runzeo::internal::wire::protocol::{Encoding, Generation, Wire};
use runzeo::internal::wire::request::{MsgId, Request};
use runzeo::internal::wire::value::{Value, extension_dict};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Other tests would be counted too.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Bytes that may be requested for each byte of input: a value of one byte is a node with its place, in vectors that
/// double.
const PER_BYTE: usize = 800;
const AT_LEAST: usize = 200_000;
/// Factor that an input of eight times the length may take.
const LONGER: u32 = 24;
/// Further runs of what took too long.
const TRIES: usize = 3;
/// Shorter times are not compared.
const SHORT: Duration = Duration::from_millis(8);

type Decoder = fn(&[u8]);
/// Name, beginning, repeated part, end.
type Line = (&'static str, &'static [u8], &'static [u8], &'static [u8]);
type Long = fn(usize) -> Vec<u8>;

/// Every decoder of foreign bytes. The results do not matter here.
fn decoders() -> Vec<(&'static str, Decoder)> {
    fn decode(generation: Generation, encoding: Encoding, input: &[u8]) {
        let wire = Wire { generation, encoding };
        let Ok(call) = wire.decode(input) else { return };
        let mut out = Vec::new();
        match &call.request {
            Request::Malformed { exception, .. } => wire.error_reply(call.id, exception, &mut out),
            _ => wire.none_reply(call.id, &mut out),
        }
    }
    /// A reply, and an exception that is sent on.
    fn receive(generation: Generation, encoding: Encoding, input: &[u8]) {
        let wire = Wire { generation, encoding };
        let Ok(FromServer::Reply { answer, .. }) = wire.from_server(input) else { return };
        match answer.value() {
            Ok(_) => _ = answer.invalidations(),
            Err(AnswerError::Raised(exception)) => {
                wire.error_reply(MsgId::Int(1), &exception, &mut Vec::new())
            }
            Err(AnswerError::Broken(_)) => {}
        }
    }
    vec![
        ("read", |input| {
            let Ok(tree) = read(input, Accept::RECORD) else { return };
            let _ = Value::from_tree(&tree, tree.root());
            for dialect in [Dialect::Python2, Dialect::Python3] {
                let _ = rewrite(&tree, tree.root(), dialect);
            }
        }),
        ("message of Z5", |input| decode(Generation::Z5, Encoding::Pickle(Dialect::Python3), input)),
        ("message of Z4", |input| decode(Generation::Z4, Encoding::Pickle(Dialect::Python2), input)),
        ("message of Z308", |input| decode(Generation::Z308, Encoding::Pickle(Dialect::Python2), input)),
        ("message of M5", |input| decode(Generation::Z5, Encoding::Msgpack, input)),
        ("reply of Z5", |input| receive(Generation::Z5, Encoding::Pickle(Dialect::Python3), input)),
        ("reply of Z4", |input| receive(Generation::Z4, Encoding::Pickle(Dialect::Python2), input)),
        ("reply of M5", |input| receive(Generation::Z5, Encoding::Msgpack, input)),
        ("extension", |input| _ = extension_dict(input)),
        ("class", |input| _ = (class_name(input), is_blob(input))),
        ("references", |input| {
            let record = [b"cm\nC\n.", input].concat();
            let _ = references(&record, &mut Vec::new());
        }),
        ("conflict", |input| {
            let bucket = |state: &[u8]| [b"\x80\x03cBTrees.OOBTree\nOOBucket\nq\x00.", state].concat();
            let record = bucket(input);
            let _ = merge(&record, &record, &record);
            // One record has the first value changed, the other the last key.
            if let Some(first) = record.windows(4).position(|bytes| bytes == b"K\x07U\x01")
                && let Some(last) = record.windows(4).rposition(|bytes| bytes == b"\x07tt.")
            {
                let (mut committed, mut new) = (record.clone(), record.clone());
                committed[first + 1] = 8;
                new[last] = 8;
                let _ = merge(&record, &committed, &new);
            }
        }),
        ("index", |input| _ = parse_index(input)),
    ]
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// Gives every decoder an input of about `size`, and one eight times as long.
fn check(what: &str, size: usize, make: impl Fn(usize) -> Vec<u8>) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let inputs = [make(size), make(8 * size)];
    for (decoder, run) in decoders() {
        let measured = |input: &Vec<u8>| {
            let region = Region::new(ALLOCATOR);
            let begun = now();
            run(input);
            let took = now() - begun;
            let stats = region.change();
            let grown = usize::try_from(stats.bytes_reallocated).unwrap_or(0);
            let asked = stats.bytes_allocated + grown;
            let most = AT_LEAST + PER_BYTE * input.len();
            assert!(asked <= most, "{what}, {decoder}: {asked} bytes asked for to decode {}", input.len());
            took
        };
        let (short, mut long) = (measured(&inputs[0]), measured(&inputs[1]));
        // The system may charge a thread with work of its own: the least of some runs is what the decoder needs.
        for _ in 0..TRIES {
            if long > SHORT.max(short) * LONGER {
                long = long.min(measured(&inputs[1]));
            }
        }
        assert!(
            long <= SHORT.max(short) * LONGER,
            "{what}, {decoder}: {short:?} for {} bytes, {long:?} for {}",
            inputs[0].len(),
            inputs[1].len()
        );
    }
}

/// In protocols of pickle: 0 and 1 have no PROTO, 2 is Python 2's, 3 that of records of Python 3, 5 has frames as 4
/// has.
fn check_pickle(what: &str, size: usize, make: impl Fn(usize) -> Vec<u8>) {
    for protocol in [1u8, 2, 3, 5] {
        let head = if protocol < 2 { vec![] } else { vec![0x80, protocol] };
        check(&format!("{what}, protocol {protocol}"), size, |size| [&head[..], &make(size)].concat());
    }
}

/// The value as arguments of an unknown call, as a result, in an exception, as the extension of a transaction, as an
/// id, and as the state of a bucket. `value` leaves one value on the stack.
fn check_value(what: &str, size: usize, value: impl Fn(usize) -> Vec<u8>) {
    check_pickle(what, size, |size| [&value(size)[..], b"."].concat());
    check_pickle(&format!("{what}, as an argument"), size, |size| {
        [b"(K\x01I00\nU\x07unknown(", &value(size)[..], b"tt."].concat()
    });
    check_pickle(&format!("{what}, as an extension"), size, |size| {
        [b"(K\x01I01\nU\x09tpc_begin(K\x05U\x01uU\x01d}U\x01k", &value(size)[..], b"sNU\x01 tt."].concat()
    });
    check_pickle(&format!("{what}, as a result"), size, |size| {
        [b"(K\x01K\x00U\x06.reply", &value(size)[..], b"t."].concat()
    });
    check_pickle(&format!("{what}, in an exception"), size, |size| {
        [b"(K\x01K\x02U\x06.reply(cm\nC\ncm\nC\n(", &value(size)[..], b"tRtt."].concat()
    });
    check_pickle(&format!("{what}, as an id"), size, |size| {
        [b"(", &value(size)[..], b"I00\nU\x04ping)t."].concat()
    });
    check_pickle(&format!("{what}, in a bucket"), size, |size| {
        [b"((U\x01k", &value(size)[..], b"tt."].concat()
    });
}

fn get(index: usize) -> Vec<u8> {
    [b"j", &u32::try_from(index).expect("an index").to_le_bytes()[..]].concat()
}

fn put(index: usize) -> Vec<u8> {
    [b"r", &u32::try_from(index).expect("an index").to_le_bytes()[..]].concat()
}

#[test]
fn values_that_hold_the_one_before_twice() {
    for pair in [&b"\x86"[..], b"t"] {
        let mark: &[u8] = if pair == b"t" { b"(" } else { b"" };
        check_value("doubling tuples", 1000, |size| {
            let mut value = [b")", &put(0)[..]].concat();
            for level in 0..size / 20 {
                value.extend([mark, &get(level), &get(level), pair, &put(level + 1), b"0"].concat().iter());
                value.extend(get(level + 1));
                value.push(b'0');
            }
            [&value[..], &get(size / 20)].concat()
        });
    }
    check_value("doubling lists", 1000, |size| {
        let mut value = [b"]", &put(0)[..], b"0"].concat();
        for level in 0..size / 20 {
            value.extend([b"](", &get(level)[..], &get(level), b"e", &put(level + 1), b"0"].concat());
        }
        [&value[..], &get(size / 20)].concat()
    });
    check_value("doubling dicts", 1000, |size| {
        let mut value = [b"}", &put(0)[..], b"0"].concat();
        for level in 0..size / 25 {
            value.extend(
                [b"}(K\x01", &get(level)[..], b"K\x02", &get(level), b"u", &put(level + 1), b"0"].concat(),
            );
        }
        [&value[..], &get(size / 25)].concat()
    });
    check_value("doubling instances", 1000, |size| {
        let mut value = [b"cbuiltins\nset\n", &put(0)[..], b"0)", &put(1), b"0"].concat();
        for level in 1..size / 25 {
            let pair = [b"(", &get(level)[..], &get(level), b"t"].concat();
            value.extend([&get(0)[..], b"(", &pair, b"tR", &pair, b"b", &put(level + 1), b"0"].concat());
        }
        [&value[..], &get(size / 25)].concat()
    });
    check_value("dicts of dicts", 1000, |size| {
        let mut value = [b"cbuiltins\ndict\n", &put(0)[..], b"0}", &put(1), b"("].concat();
        value.extend(b"K\x01K\x01".repeat(size / 8));
        value.extend(b"u0");
        value.extend(
            [b"(", &[&get(0)[..], b"(", &get(1), b"tR"].concat().repeat(size / 13)[..], b"t"].concat(),
        );
        value
    });
}

#[test]
fn values_that_hold_a_long_one_many_times() {
    let strings: [(&str, Long); 5] = [
        ("bytes", |len| [b"T", &(len as u32).to_le_bytes()[..], &vec![b'x'; len]].concat()),
        ("text", |len| [b"X", &(len as u32).to_le_bytes()[..], &vec![b'x'; len]].concat()),
        ("text with escapes", |len| [b"V", &b"\\u0041".repeat(len / 6)[..], b"\n"].concat()),
        ("integers", |len| [b"\x8b", &(len as u32).to_le_bytes()[..], &vec![1; len]].concat()),
        ("lists", |len| [b"](", &b"N".repeat(len)[..], b"e"].concat()),
    ];
    for (what, long) in strings {
        check_value(&format!("{what} many times"), 2000, |size| {
            let (shared, gets) = ([&long(size / 2)[..], &put(0), b"0"].concat(), get(0).repeat(size / 12));
            [&shared[..], b"(", &gets, b"t"].concat()
        });
        // Also as many separate arguments.
        check_pickle(&format!("{what} as many arguments"), 2000, |size| {
            let shared = [&long(size / 2)[..], &put(0), b"0"].concat();
            [&shared[..], b"(K\x01I00\nU\x07unknown(", &get(0).repeat(size / 12), b"tt."].concat()
        });
    }
}

#[test]
fn values_that_hold_themselves() {
    check_value("a list in itself", 1000, |size| [b"]q\x00(h\x00", &b"N".repeat(size)[..], b"e"].concat());
    check_value("a dict in itself", 1000, |size| {
        [b"}q\x00(K\x01h\x00", &b"K\x01N".repeat(size / 3)[..], b"u"].concat()
    });
    // Each list contains the tuple that contains all of them, and more.
    check_value("a wide tuple in many of its lists", 2000, |size| {
        let lists = size / 40;
        let made: Vec<u8> = (0..lists).flat_map(|n| [b"]", &put(n)[..]].concat()).collect();
        let held: Vec<u8> = (0..lists).flat_map(get).collect();
        let filled: Vec<u8> = (0..lists).flat_map(|n| [&get(n)[..], &get(lists), b"a0"].concat()).collect();
        [b"(", &made[..], b"(", &held, &b"N".repeat(size / 2), b"t", &put(lists), &filled, b"t"].concat()
    });
}

#[test]
fn deep_nesting() {
    check_value("lists in lists", 1500, |size| [b"](".repeat(size / 3), b"e".repeat(size / 3)].concat());
    check_value("tuples of one", 1500, |size| [b"N".to_vec(), b"\x85".repeat(size)].concat());
    check_value("tuples with marks", 1500, |size| [b"(".repeat(size / 2), b"t".repeat(size / 2)].concat());
    check_value("dicts as values", 5000, |size| {
        [b"}K\x01".repeat(size / 4), b"}".to_vec(), b"s".repeat(size / 4)].concat()
    });
    check_value("states of states", 1500, |size| {
        let unit = b"cbuiltins\nset\n)R";
        let count = size / (unit.len() + 1);
        [unit.repeat(count), b"N".to_vec(), b"b".repeat(count)].concat()
    });
    check_pickle("marks", 1500, |size| b"(".repeat(size));
    check_pickle("duplicates", 1500, |size| [b"N".to_vec(), b"2".repeat(size), b".".to_vec()].concat());
    check_pickle("marks and pops", 1500, |size| b"(1".repeat(size / 2));
    check("arrays of one", 1500, |size| [b"\x91".repeat(size), b"\xc0".to_vec()].concat());
    check("maps of one", 1500, |size| [b"\x81\xc0".repeat(size / 2), b"\xc0".to_vec()].concat());
}

#[test]
fn lengths_that_are_not_there() {
    for opcode in [b"T", b"X", b"B", b"\x8b"] {
        for len in [1u32 << 20, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            check_pickle("a long string", 100, |size| {
                [&opcode[..], &len.to_le_bytes(), &b"x".repeat(size)].concat()
            });
        }
    }
    for opcode in [b"\x8d", b"\x8e", b"\x96", b"\x95"] {
        for len in [1u64 << 32, i64::MAX as u64, u64::MAX] {
            check_pickle("a very long string", 100, |size| {
                [&opcode[..], &len.to_le_bytes(), &b"x".repeat(size)].concat()
            });
        }
    }
    for format in [0xc4u8, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xd9, 0xda, 0xdb, 0xdc, 0xdd, 0xde, 0xdf] {
        check("a length of msgpack", 100, |size| {
            [
                &[0x94, 1, 0xc2, 0xa4],
                &b"ping"[..],
                &[0x91, format, 0xff, 0xff, 0xff, 0xff],
                &b"\xc0".repeat(size),
            ]
            .concat()
        });
        check("lengths in each other", 1000, |size| [format, 0xff, 0xff, 0xff, 0xff].repeat(size / 5));
    }
}

#[test]
fn long_numbers_and_lines() {
    let lines: [Line; 10] = [
        ("INT", b"I", b"9", b"\n"),
        ("a negative INT", b"I-", b"9", b"\n"),
        ("LONG", b"L", b"7", b"L\n"),
        ("FLOAT", b"F1.", b"3", b"\n"),
        ("a FLOAT that is none", b"F", b"x", b"\n"),
        ("STRING", b"S'", b"\\x41", b"'\n"),
        ("STRING of backslashes", b"S'", b"\\\\", b"'\n"),
        ("UNICODE", b"V", b"\\u20ac", b"\n"),
        ("a GLOBAL", b"c", b"m", b"\nname\n"),
        ("a persistent id", b"P", b"1", b"\n"),
    ];
    for (what, head, unit, tail) in lines {
        check_value(what, 1500, |size| [head, &unit.repeat(size / unit.len()), tail].concat());
    }
    check_value("many GLOBALs", 1500, |size| b"cmodule\nname\n0".repeat(size / 14));
    check_value("an instance by long names", 1500, |size| {
        [b"((i", &b"m".repeat(size / 2)[..], b"\n", &b"n".repeat(size / 2), b"\nt"].concat()
    });
    check_value("numbers of 400 digits", 1500, |size| {
        [b"(", &[b"I", &b"9".repeat(400)[..], b"\n"].concat().repeat(size / 402)[..], b"t"].concat()
    });
    // One long name for any number of classes.
    check_value("classes of names with escapes", 2000, |size| {
        let name = [b"V", &b"\\u0041".repeat(size / 12)[..], b"\n", &put(0), b"0"].concat();
        [&name[..], b"(", &[&get(0)[..], &get(0), b"\x93"].concat().repeat(size / 22), b"t"].concat()
    });
}

#[test]
fn the_memo() {
    for index in [255u32, 4096, 1 << 20, 1 << 31, u32::MAX] {
        check_value("one entry far away", 500, |size| {
            [b"(N", &[b"r", &index.to_le_bytes()[..]].concat()[..], &b"N".repeat(size), b"t"].concat()
        });
    }
    check_value("entries with gaps", 2000, |size| {
        let entry =
            |n: usize| [b"Nr", &((n as u32).wrapping_mul(5_000_011)).to_le_bytes()[..], b"0"].concat();
        [(0..size / 7).flat_map(entry).collect::<Vec<u8>>(), b"N".to_vec()].concat()
    });
    check_value("an entry beyond all numbers", 1000, |size| [b"Np", &b"9".repeat(size)[..], b"\n"].concat());
    check_value("entries of their own", 1500, |size| [b"N".to_vec(), b"\x94".repeat(size)].concat());
    check_value("the same entry again and again", 1500, |size| {
        [b"N".to_vec(), b"q\x01".repeat(size / 2)].concat()
    });
}

#[test]
fn duplicate_keys_and_what_is_filled_in_steps() {
    check_value("one key many times", 1200, |size| [b"}(", &b"K\x01N".repeat(size / 3)[..], b"u"].concat());
    check_value("one key in many steps", 1200, |size| [b"}".to_vec(), b"K\x01Ns".repeat(size / 4)].concat());
    check_value("a list in many steps", 1200, |size| [b"]".to_vec(), b"Na".repeat(size / 2)].concat());
    check_value("many states", 1200, |size| {
        [b"cbuiltins\nset\n)R".to_vec(), b"}b".repeat(size / 2)].concat()
    });
    check_value("a list of many steps in many places", 1200, |size| {
        let list = [b"]", &put(0)[..], &b"Na".repeat(size / 4), b"0"].concat();
        [&list[..], b"(", &get(0).repeat(size / 10), b"t"].concat()
    });
    check("a map of one key", 1200, |size| {
        let count = u32::try_from(size / 2).expect("a count");
        [b"\xdf", &count.to_be_bytes()[..], &b"\x01\xc0".repeat(size / 2)].concat()
    });
}

/// Names of code. In messages each of them is refused; in records they are only names.
#[test]
fn nothing_is_called() {
    let evil: [&[u8]; 12] = [
        b"cos\nsystem\n(U\x04truetR.",
        b"c__builtin__\neval\n(U\x011tR.",
        b"cbuiltins\nexec\n(U\x011tR.",
        b"cbuiltins\ngetattr\n(NU\x011tR.",
        b"(cos\nsystem\nU\x04trueo.",
        b"(U\x04trueios\nsystem\n.",
        b"\x80\x02cos\nsystem\nU\x04true\x85\x81.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02\x83\x01\x01.",
        b"\x80\x02\x84\x01\0\0\x7f)R.",
        b"U\x08\0\0\0\0\0\0\0\x01Q.",
    ];
    for evil in evil {
        let value = evil.strip_suffix(b".").expect("a STOP");
        let argument = [b"(K\x01I00\nU\x07unknown(", value, b"tt."].concat();
        for generation in [Generation::Z5, Generation::Z4, Generation::Z308] {
            let wire = Wire { generation, encoding: Encoding::Pickle(Dialect::Python2) };
            match wire.decode(&argument) {
                Err(_) => {}
                Ok(call) => assert!(
                    matches!(call.request, Request::Malformed { .. }),
                    "{} is taken for {:?}",
                    evil.escape_ascii(),
                    call.request
                ),
            }
        }
        check("code", 0, |_| evil.to_vec());
    }
}

#[test]
fn bytes_that_are_no_text() {
    for bad in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"] {
        check_value("text that is no UTF-8", 2000, |size| {
            let text = bad.repeat(size / bad.len());
            [b"X", &u32::try_from(text.len()).expect("a length").to_le_bytes()[..], &text].concat()
        });
        check("msgpack that is no UTF-8", 2000, |size| {
            let text = bad.repeat(size / bad.len());
            let len = u32::try_from(text.len()).expect("a length");
            [b"\x94\x01\xc2\xdb", &len.to_be_bytes()[..], &text, b"\x90"].concat()
        });
    }
}

/// Index files of older ZODBs: an instance's state may be in the memo, and occur twice in the next one.
#[test]
fn index_files_that_double() {
    check("states that double", 1000, |size| {
        let mut file = [b"}(U\x03posK\x64U\x08_buckets(NNb", &put(0)[..]].concat();
        for level in 0..size / 20 {
            file.extend([b"N(", &get(level)[..], &get(level), b"tb", &put(level + 1)].concat());
        }
        file.extend(b"tU\x05indexNu.");
        file
    });
    check("one bucket for many prefixes", 100_000, |size| {
        let count = size / 16;
        let positions = b"\0\0\0\0\0\x05".repeat(count);
        let len = u32::try_from(8 * count).expect("a length").to_le_bytes();
        let bucket = [b"T", &len[..], &vec![0; 2 * count], &positions, &put(0), b"N"].concat();
        let pairs = [b"U\x06\0\0\0\0\0\0", &get(0)[..]].concat().repeat(size / 26);
        [b"}(U\x03posK\x64U\x08_buckets(", &bucket[..], &pairs, b"lU\x05indexNu."].concat()
    });
}

/// A conflict between two changes of a bucket whose values are one long value, which is compared for each key.
#[test]
fn buckets_that_share_a_long_value() {
    let values: [Line; 3] =
        [("text", b"X", b"x", b""), ("integers", b"\x8b", b"\x01", b""), ("lists", b"](", b"Na", b"e")];
    for (what, head, unit, tail) in values {
        check(&format!("{what} in a bucket"), 100_000, |size| {
            let len = u32::try_from(size / 2).expect("a length").to_le_bytes();
            let len: &[u8] = if tail.is_empty() { &len } else { b"" };
            let mut state =
                [b"((U\x010K\x07U\x011", head, len, &unit.repeat(size / 2 / unit.len()), tail, &put(0)]
                    .concat();
            for key in 0..size / 32 {
                state.extend([b"U\x08", format!("2{key:07}").as_bytes(), &get(0)].concat());
            }
            [&state[..], b"U\x013K\x07tt."].concat()
        });
    }
}

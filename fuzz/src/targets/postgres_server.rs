//! A hostile PostgreSQL server: whatever it sends, a session ends or goes on, without a panic, and takes memory in
//! proportion to what was sent.
//!
//! The first byte of an input chooses what the client does after the login; the rest is what the server sends.

use std::io::Write;
use std::net::Shutdown;
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use runzeo::internal::postgres::{Batch, Connection, Dsn, Limits, Login, Row, Statement, Type, Value, Wake};

const LIMITS: Limits = Limits { message: 1 << 20, answers: 1 << 20 };
const LOAD: Statement = Statement { sql: "select $1", types: &[Type::Int8] };
const NEXT: Statement = Statement { sql: "select 1", types: &[] };

pub fn run(data: &[u8]) {
    let Some((&choice, sent)) = data.split_first() else { return };
    let (client, mut server) = UnixStream::pair().expect("two sockets");
    server.set_nonblocking(true).expect("a socket");
    // What does not fit into the buffer is cut off. Then the server closes its side.
    _ = server.write(sent);
    server.shutdown(Shutdown::Write).expect("a socket");
    let dsn = Dsn::parse("user=u password=p host=/x passfile=/x", &|_| None).expect("a connection string");
    let login = Login { application_name: "fuzz".into(), ..Login::default() };
    let mut connection = match Connection::over(client, &dsn, &login, LIMITS) {
        Ok(connection) => connection,
        Err(error) => return assert!(!error.to_string().is_empty() && !error.to_string().contains('\n')),
    };
    _ = (connection.server_version(), connection.backend_pid());
    let result = match choice % 6 {
        0 => batch(&mut connection, sent.len()),
        1 => connection.simple("select 1").map(drop),
        2 => connection.stream(&LOAD, &[Value::Int8(1)], 10, &mut |row| read(row)).map(drop),
        3 => connection
            .copy_in("copy t from stdin", &mut |piece| {
                piece.extend_from_slice(b"1\n");
                Ok(false)
            })
            .map(drop),
        4 => connection
            .copy_out("copy t to stdout", &mut |piece| {
                assert!(piece.len() <= sent.len());
                if piece.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .map(drop),
        _ => {
            let wake = Wake::new().expect("a descriptor");
            connection.wait(Duration::ZERO, &wake).map(|news| {
                let len: usize = news.iter().map(|one| one.channel.len() + one.payload.len()).sum();
                assert!(len <= sent.len());
            })
        }
    };
    if let Err(lost) = result {
        assert_eq!(connection.lost(), Some(&lost));
        assert_eq!(connection.simple("select 1").expect_err("lost"), lost);
    }
}

fn batch(connection: &mut Connection, sent: usize) -> Result<(), runzeo::internal::postgres::Lost> {
    let mut batch = Batch::new();
    batch.execute(&LOAD, &[Value::Int8(1)]).expect("small");
    batch.sync();
    batch.execute(&LOAD, &[Value::Null]).expect("small");
    batch.execute(&NEXT, &[]).expect("small");
    batch.sync();
    let answers = connection.run(&batch)?;
    assert_eq!(answers.len(), 2);
    let mut len = 0;
    for (answer, count) in answers.iter().zip([1, 2]) {
        match answer {
            Ok(done) => {
                assert_eq!(done.len(), count);
                for row in done.iter().flat_map(|rows| rows.iter()) {
                    len += (0..row.columns())
                        .filter_map(|column| row.bytes(column).expect("well formed"))
                        .map(<[u8]>::len)
                        .sum::<usize>();
                    _ = read(row);
                }
            }
            Err(error) => assert!(!error.to_string().contains('\n')),
        }
    }
    assert!(len <= sent);
    Ok(())
}

fn read(row: Row<'_>) -> ControlFlow<()> {
    for column in 0..row.columns() + 1 {
        _ = (row.int8(column), row.bool(column), row.text(column), row.oid(column), row.float8(column));
        _ = (row.int8s(column), row.required_bytes(column));
        if let Ok(Some(elements)) = row.elements(column) {
            assert!(elements.len() * 4 <= row.bytes(column).expect("a value").expect("not null").len());
        }
    }
    ControlFlow::Continue(())
}

/// A message of the server.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 4).expect("short");
    [&[tag][..], &len.to_be_bytes(), body].concat()
}

/// What a server says to a client that needs no password.
fn login() -> Vec<u8> {
    let status = b"server_version\x0015.4 (Debian)\0";
    let key = b"\0\0\x01\0\0\0\0\x09";
    [message(b'R', b"\0\0\0\0"), message(b'S', status), message(b'K', key), message(b'Z', b"I")].concat()
}

/// Messages, each by one character, which is its type for most.
fn dialogue(tags: &str) -> Vec<u8> {
    let row = b"\0\x03\0\0\0\x08\0\0\0\0\0\0\0\x07\xff\xff\xff\xff\0\0\0\x02hi".as_slice();
    let array =
        b"\0\x01\0\0\0\x1c\0\0\0\x01\0\0\0\0\0\0\0\x14\0\0\0\x01\0\0\0\x01\0\0\0\x04\0\0\0\x07".as_slice();
    let one = |tag: char| match tag {
        'Z' => message(b'Z', b"I"),
        'D' => message(b'D', row),
        'a' => message(b'D', array),
        'C' => message(b'C', b"SELECT 1\0"),
        'B' => message(b'C', b"BEGIN\0"),
        'E' => message(b'E', b"SERROR\0VERROR\0C42P01\0Mno table\0Ddetail\0Hhint\0Wline\n2\0\0"),
        'F' => message(b'E', b"SFATAL\0C57P01\0Mgone\0\0"),
        'A' => message(b'A', b"\0\0\x01\0news\0payload\0"),
        'N' => message(b'N', b"SNOTICE\0C00000\0Mhello\0\0"),
        'T' => message(b'T', b"\0\0"),
        'G' => message(b'G', b"\0\0\x01\0\0"),
        'H' => message(b'H', b"\0\0\x01\0\0"),
        'd' => message(b'd', b"1\n"),
        // Without content: 1, 2, 3, I, c, s.
        other => message(u8::try_from(other).expect("ASCII"), b""),
    };
    tags.chars().flat_map(one).collect()
}

pub fn seeds() -> Vec<Vec<u8>> {
    // What the client does, and what the server then says.
    let dialogues = [
        (0, "31Z31Z2DaCZ2DaCA2IZ"),
        (0, "31ZEZ2DaCZEZ"),
        (0, "31Z31Z2DCZEZ31Z2DC2DCZ"),
        (1, "TDNCZ"),
        (2, "31ZBZ2DsZCZCZ"),
        (3, "GCZ"),
        (3, "GEZ"),
        (4, "HdcCZ"),
        (5, "ANF"),
    ];
    let with_login = |(choice, tags): (u8, &str)| [&[choice], &login()[..], &dialogue(tags)].concat();
    let mut seeds: Vec<Vec<u8>> = dialogues.into_iter().map(with_login).collect();
    for asks in [
        message(b'R', b"\0\0\0\x03"),
        message(b'R', b"\0\0\0\x05salt"),
        [
            message(b'R', b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"),
            message(b'R', b"\0\0\0\x0br=x,s=AAAA,i=4096"),
            message(b'R', b"\0\0\0\x0cv=AAAA"),
        ]
        .concat(),
        message(b'R', b"\0\0\0\x07"),
        dialogue("E"),
    ] {
        seeds.push([&[0], &asks[..], &login()].concat());
    }
    seeds
}

//! Batches: groups, errors in the middle, statements that are forgotten, much data in both directions.

use runzeo::internal::postgres::{Batch, Statement, Type, Value};

use crate::support::postgres::PostgresServer;
use crate::{connect, one};

const ADD: Statement = Statement { sql: "insert into numbers values ($1)", types: &[Type::Int8] };
const COUNT: Statement = Statement { sql: "select count(*), min(n) from numbers", types: &[] };
const ECHO: Statement = Statement { sql: "select $1", types: &[Type::Bytea] };
const EVERYTHING: Statement = Statement {
    sql: "select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, null",
    types: &[
        Type::Bool,
        Type::Bytea,
        Type::Float8,
        Type::Int4,
        Type::Int8,
        Type::Oid,
        Type::Text,
        Type::BoolArray,
        Type::ByteaArray,
        Type::Int4Array,
        Type::Int8Array,
        Type::TextArray,
    ],
};

#[test]
fn values_of_all_types_go_there_and_back() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let mut connection = connect(&server);
    assert!(connection.backend_pid() > 0 && connection.server_version() >= 10);
    let batch = one(
        &EVERYTHING,
        &[
            Value::Bool(true),
            Value::Bytes(b"\0\xff"),
            Value::Float8(-1.25),
            Value::Int4(-7),
            Value::Int8(i64::MIN),
            Value::Oid(u32::MAX),
            Value::Text("größer"),
            Value::Bools(&[true, false]),
            Value::ByteArrays(&[Some(b"a"), None, Some(b"")]),
            Value::Int4s(&[1, -2]),
            Value::OptionalInt8s(&[Some(1 << 40), None]),
            Value::Texts(&["x", ""]),
        ],
    );
    for _ in 0..2 {
        let answers = connection.run(&batch).expect("a server");
        let rows = &answers[0].as_ref().expect("no error")[0];
        let row = rows.first().expect("a row");
        assert_eq!((rows.len(), rows.affected(), row.columns()), (1, 1, 13));
        assert_eq!(row.bool(0), Ok(Some(true)));
        assert_eq!(row.bytes(1), Ok(Some(&b"\0\xff"[..])));
        assert_eq!(row.float8(2), Ok(Some(-1.25)));
        assert_eq!(row.int8(3), Ok(Some(-7)));
        assert_eq!(row.int8(4), Ok(Some(i64::MIN)));
        assert_eq!(row.oid(5), Ok(Some(u32::MAX)));
        assert_eq!(row.text(6), Ok(Some("größer")));
        assert_eq!(row.elements(7), Ok(Some(vec![Some(&[1][..]), Some(&[0][..])])));
        assert_eq!(row.elements(8), Ok(Some(vec![Some(&b"a"[..]), None, Some(&b""[..])])));
        assert_eq!(row.int8s(9), Ok(Some(vec![1, -2])));
        assert_eq!(row.elements(10), Ok(Some(vec![Some(&(1i64 << 40).to_be_bytes()[..]), None])));
        assert!(row.int8s(10).is_err(), "an element is null");
        assert_eq!(row.elements(11), Ok(Some(vec![Some(&b"x"[..]), Some(&b""[..])])));
        assert_eq!(row.bytes(12), Ok(None));
        assert!(row.required_int8(12).is_err() && row.bytes(13).is_err() && row.int8(0).is_err());
    }
}

#[test]
fn an_error_ends_its_group_and_no_other() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let mut connection = connect(&server);
    let table = "create table numbers (n bigint primary key)";
    connection.simple(table).expect("a server").expect("a table");
    let again = connection.simple("select 1; create table numbers (n bigint); select 2").expect("a server");
    assert_eq!(again.expect_err("it exists").code.as_str(), "42P07");
    let mut batch = Batch::new();
    for group in [&[1, 2][..], &[3, 1, 4], &[5]] {
        for number in group {
            batch.execute(&ADD, &[Value::Int8(*number)]).expect("small");
        }
        batch.execute(&COUNT, &[]).expect("small");
        batch.sync();
    }
    let answers = connection.run(&batch).expect("a server");
    assert_eq!(answers.len(), 3);
    let first = answers[0].as_ref().expect("no error");
    assert_eq!((first.len(), first[0].affected(), first[0].len()), (3, 1, 0));
    assert_eq!(first[2].first().expect("a row").int8(0), Ok(Some(2)));
    let error = answers[1].as_ref().expect_err("a number twice");
    assert_eq!((error.code.as_str(), error.constraint.as_deref()), ("23505", Some("numbers_pkey")));
    assert!(!error.to_string().contains('\n') && error.to_string().contains("Key (n)=(1)"), "{error}");
    let third = answers[2].as_ref().expect("no error");
    assert_eq!(third[1].first().expect("a row").int8(0), Ok(Some(3)), "3 and 4 were not added");
}

#[test]
fn a_statement_that_cannot_be_prepared_says_why() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let mut connection = connect(&server);
    for _ in 0..2 {
        let mut batch = one(&ADD, &[Value::Int8(1)]);
        batch.execute(&ECHO, &[Value::Bytes(b"x")]).expect("small");
        batch.sync();
        let answers = connection.run(&batch).expect("a server");
        assert_eq!(answers[0].as_ref().expect_err("no table").code.as_str(), "42P01");
        assert!(answers[1].is_ok());
    }
    connection.simple("create table numbers (n bigint)").expect("a server").expect("a table");
    assert!(connection.run(&one(&ADD, &[Value::Int8(1)])).expect("a server")[0].is_ok());
}

#[test]
fn forgotten_statements_are_prepared_again() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let mut connection = connect(&server);
    connection.simple("create table numbers (n bigint)").expect("a server").expect("a table");
    let mut batch = one(&ADD, &[Value::Int8(1)]);
    batch.execute(&ECHO, &[Value::Null]).expect("small");
    batch.sync();
    let mut added = 0;
    for sql in ["select 1", "discard all", "deallocate all", "alter table numbers add column m text"] {
        connection.simple(sql).expect("a server").expect(sql);
        let answers = connection.run(&batch).expect("a server");
        assert!(answers.iter().all(Result::is_ok), "{sql}: {answers:?}");
        added += 1;
        let answers = connection.run(&one(&COUNT, &[])).expect("a server");
        let rows = &answers[0].as_ref().expect(sql)[0];
        assert_eq!(rows.first().expect("a row").int8(0), Ok(Some(added)), "{sql}");
    }
    // A plan with other columns.
    const ALL: Statement = Statement { sql: "select * from numbers", types: &[] };
    let columns = |connection: &mut runzeo::internal::postgres::Connection| {
        let answers = connection.run(&one(&ALL, &[])).expect("a server");
        answers[0].as_ref().expect("no error")[0].first().expect("a row").columns()
    };
    assert_eq!(columns(&mut connection), 2);
    connection.simple("alter table numbers drop column m").expect("a server").expect("altered");
    assert_eq!(columns(&mut connection), 1);
}

#[test]
fn much_data_goes_both_ways_at_once() {
    let Some(server) = PostgresServer::start(&[]) else { return };
    let mut connection = connect(&server);
    // More than all buffers between both sides: each would wait for the other if it only wrote.
    let large = vec![7u8; 5 << 20];
    let mut batch = Batch::new();
    for _ in 0..20 {
        batch.execute(&ECHO, &[Value::Bytes(&large)]).expect("small enough");
        batch.sync();
    }
    let answers = connection.run(&batch).expect("a server");
    assert_eq!(answers.len(), 20);
    for answer in answers {
        let rows = &answer.expect("no error")[0];
        assert!(rows.first().expect("a row").bytes(0) == Ok(Some(&large)));
    }
    assert!(connection.run(&Batch::new()).expect("nothing to do").is_empty());
}

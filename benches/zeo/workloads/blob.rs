//! Large blobs, up and down, one client.

use super::Setting;
use crate::client::{Client, Result, transaction_id};
use crate::meter::{Meter, process_kb};
use crate::outcome::Outcome;
use crate::records;
use crate::wire::Id8;
use std::time::{Duration, Instant};

const BLOB_LEN: usize = 64 << 20;
/// Length of the Python clients' chunks.
const CHUNK_LEN: usize = 59_000;
const TIMEOUT: Duration = Duration::from_secs(60);

pub fn up(setting: &Setting<'_>, outcome: &mut Outcome) -> Result<()> {
    let mut client = open(setting)?;
    let (started, meter) = (Instant::now(), Meter::start(setting.server.pid));
    let mut blobs = 0;
    while started.elapsed() < setting.measured {
        blobs += 1;
        store(&mut client, blobs)?;
    }
    report(setting, &meter, blobs, outcome);
    Ok(())
}

pub fn down(setting: &Setting<'_>, outcome: &mut Outcome) -> Result<()> {
    let mut client = open(setting)?;
    let (oid, serial) = store(&mut client, 1 << 20)?;
    let (started, meter) = (Instant::now(), Meter::start(setting.server.pid));
    let mut blobs = 0;
    while started.elapsed() < setting.measured {
        blobs += 1;
        fetch(&mut client, &oid, &serial)?;
    }
    report(setting, &meter, blobs, outcome);
    Ok(())
}

fn open(setting: &Setting<'_>) -> Result<Client> {
    let client = Client::open(setting.target())?;
    client.set_timeout(TIMEOUT)?;
    Ok(client)
}

fn report(setting: &Setting<'_>, meter: &Meter, blobs: u64, outcome: &mut Outcome) {
    let usage = meter.read();
    let megabytes = blobs as f64 * BLOB_LEN as f64 / 1e6;
    outcome.set("mb_s", megabytes / usage.elapsed);
    outcome.set("peak_mb", process_kb(setting.server.pid, "VmHWM") / 1024.0);
    usage.report(outcome, megabytes as u64);
}

/// Commits a new object with a blob.
fn store(client: &mut Client, number: u64) -> Result<(Id8, Id8)> {
    let oid = *client.new_oids(1)?.first().ok_or("no oid")?;
    let transaction = transaction_id((5 << 40) + number);
    let record = records::blob(client.dialect.is_python2());
    let chunk = vec![0x5a; CHUNK_LEN];
    client.queue_begin(transaction);
    client.out.call_async("storeBlobStart", 0);
    client.out.end();
    let mut left = BLOB_LEN;
    while left > 0 {
        let part = chunk.get(..left.min(CHUNK_LEN)).unwrap_or_default();
        client.out.call_async("storeBlobChunk", 1);
        client.out.byte_string(part);
        client.out.end();
        client.flush_if_large()?;
        left -= part.len();
    }
    client.out.call_async("storeBlobEnd", 4);
    client.out.byte_string(&oid);
    client.out.byte_string(&[0; 8]);
    client.out.byte_string(&record);
    client.out.int(transaction);
    client.out.end();
    if !client.vote(transaction)? {
        return Err("a conflict on a new blob".into());
    }
    Ok((oid, client.finish(transaction)?))
}

/// Loads a blob, which comes in chunks before the reply.
fn fetch(client: &mut Client, oid: &Id8, serial: &Id8) -> Result<()> {
    let id = client.begin("sendBlob", 2);
    client.out.byte_string(oid);
    client.out.byte_string(serial);
    client.out.end();
    client.flush()?;
    let mut received = 0;
    loop {
        let frame = client.receive()?;
        let message = client.message(frame.clone())?;
        if message.name == b"receiveBlobChunk" {
            received += message.byte_string_arguments()?.get(2).map_or(0, |chunk| chunk.len());
        } else if message.is_reply() {
            message.reply()?.map_err(|e| format!("sendBlob ({id}): {e}"))?;
            return if received == BLOB_LEN { Ok(()) } else { Err(format!("a blob of {received} bytes")) };
        } else {
            client.handle_pushed(frame)?;
        }
    }
}

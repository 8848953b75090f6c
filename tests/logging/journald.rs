//! What systemd's journal receives of a `<journal>` handler.

use std::fs::File;
use std::io::{IoSliceMut, Read, Seek};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{SealFlags, fcntl_get_seals};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::support::log::Log;
use runzeo::internal::logging::{Destination, JournalSetup};

fn destination(path: &Path) -> Destination {
    Destination::Journal(JournalSetup { path: path.to_path_buf(), identifier: "zeo-main".into() })
}

fn journal(path: &Path) -> UnixDatagram {
    let journal = UnixDatagram::bind(path).unwrap();
    journal.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    journal
}

fn receive(journal: &UnixDatagram) -> String {
    let mut buffer = [0; 10_000];
    let len = journal.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..len].to_vec()).unwrap()
}

#[test]
fn an_entry_is_a_datagram_with_fields() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let journal = journal(&path);
    let log = Log::open(destination(&path));
    log.info("StorageServer created RW");
    let entry = receive(&journal);
    let begin =
        "MESSAGE=StorageServer created RW\nPRIORITY=6\nSYSLOG_IDENTIFIER=zeo-main\nLOGGER=test\nTHREAD_NAME=";
    assert!(entry.starts_with(begin), "{entry}");
    assert_eq!(log.handle.lost(), 0);
}

/// More than a datagram takes: the entry comes as a file that nobody can change any more.
#[test]
fn a_large_entry_comes_as_a_sealed_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let journal = journal(&path);
    let log = Log::open(destination(&path));
    let large = "x".repeat(4 << 20);
    log.info(&large);
    assert_eq!(log.handle.lost(), 0);
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(&journal, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty()).unwrap();
    assert_eq!(received.bytes, 0);
    let mut files = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => files.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let mut file = File::from(files.next().expect("a file"));
    let seals = fcntl_get_seals(&file).unwrap();
    assert!(seals.contains(SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL));
    let mut entry = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut entry).unwrap();
    assert!(entry.starts_with(&format!("MESSAGE={large}\nPRIORITY=6\nSYSLOG_IDENTIFIER=zeo-main\n")));
    log.info("a small one goes on");
    assert!(receive(&journal).starts_with("MESSAGE=a small one goes on\n"));
}

#[test]
fn a_journal_that_starts_late_and_starts_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let log = Log::open(destination(&path));
    log.info("nobody hears it");
    assert_eq!(log.handle.lost(), 1);
    for round in 0..2 {
        let journal = journal(&path);
        log.info("heard");
        if round == 0 {
            let notice = receive(&journal);
            assert!(notice.starts_with("MESSAGE=1 log lines were lost here: "), "{notice}");
            assert!(notice.contains("\nPRIORITY=4\n"), "{notice}");
        }
        assert!(receive(&journal).starts_with("MESSAGE=heard\n"));
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_journal_that_does_not_read_delays_the_server_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let _journal = journal(&path);
    let log = Log::open(destination(&path));
    let begin = std::time::Instant::now();
    for _ in 0..5_000 {
        log.info(&"x".repeat(200));
    }
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    assert!(log.handle.lost() > 1_000);
}

//! What was sent is remembered: streams leave it out, prunes keep what is needed for that.

use std::collections::BTreeSet;
use std::io::BufReader;
use std::sync::Arc;

use crate::repository::site::{Heard, Site};
use crate::support::faulty::Fault;
use runzeo::internal::backup::repository::{
    BackupError, CreateOptions, Repository, RestoreOptions, SendRecords, Sending, Stamp, Stay, Target,
    receive, restore, verify,
};

const COMMAND: &str = "ssh elsewhere zeobackup receive -r /srv/backups";

/// A stream, and the backup in it.
struct Stream {
    stamp: Stamp,
    bytes: Vec<u8>,
}

fn records(repository: &Repository) -> SendRecords<'_> {
    SendRecords::of(repository, COMMAND)
}

/// What the server does before it starts the command.
fn begin(site: &Site) -> Result<Option<Stamp>, BackupError> {
    let repository = site.repository()?;
    let last = records(&repository).last(&Heard::default())?;
    let Some((stamp, manifest)) = records(&repository).next(last.as_ref(), &["1"], &Heard::default())? else {
        return Ok(None);
    };
    records(&repository).begin(&stamp, &manifest)?;
    Ok(Some(stamp))
}

/// Sends what is next, up to the command's exit.
fn stream(site: &Site) -> Result<Option<Stream>, BackupError> {
    let repository = site.repository()?;
    let last = records(&repository).last(&Heard::default())?;
    let next = records(&repository).next(last.as_ref(), &["1"], &Heard::default())?;
    let Some((stamp, manifest)) = next else { return Ok(None) };
    records(&repository).begin(&stamp, &manifest)?;
    let mut bytes = Vec::new();
    let mut sending = Sending::begin(&repository, last.map(|last| last.manifest), &mut bytes)?;
    sending.backup(&stamp, manifest)?;
    sending.end()?;
    Ok(Some(Stream { stamp, bytes }))
}

fn elsewhere(site: &Site) -> Repository {
    Repository::open_or_create(Arc::new(site.disk.clone()), &site.path("elsewhere")).unwrap()
}

/// Sends all that is new, to `elsewhere`.
fn send_all(site: &Site) -> Result<Vec<Stream>, BackupError> {
    let mut streams = Vec::new();
    while let Some(stream) = stream(site)? {
        receive(&elsewhere(site), &mut BufReader::new(&stream.bytes[..]))?;
        records(&site.repository()?).arrived()?;
        streams.push(stream);
    }
    Ok(streams)
}

/// The objects in a stream.
fn objects(stream: &Stream) -> Vec<String> {
    let mut rest = stream.bytes.as_slice();
    let mut found = Vec::new();
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
        let line = std::str::from_utf8(&rest[..end]).unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        rest = &rest[end + 1..];
        match words.as_slice() {
            ["end"] => return found,
            ["object", name, len] => {
                found.push(name.to_string());
                rest = &rest[len.parse::<usize>().unwrap()..];
            }
            ["backup", _, len] => rest = &rest[len.parse::<usize>().unwrap()..],
            _ => {}
        }
    }
}

fn until_next(site: &Site) {
    site.backup_with(&CreateOptions { stay: Stay::UntilNext, ..site.options() }).unwrap();
}

/// What has arrived is whole, and its newest backup restores the file as it is.
fn check(site: &Site, what: &str) {
    let repository = elsewhere(site);
    let verified = verify(&repository, &repository.backups().unwrap(), &Heard::default()).unwrap();
    assert!(verified.findings.is_empty(), "{what}: {:?}", verified.findings);
    let target = Target { name: "1".into(), path: site.path("There.fs"), blob_dir: Some(site.path("there")) };
    let options = RestoreOptions { stamp: None, until: None, targets: vec![target] };
    let restored = restore(&repository, &options, &Heard::default()).unwrap();
    assert!(site.bytes("There.fs") == site.bytes("Data.fs"), "{what}");
    assert_eq!(restored[0].blobs_missing, 0, "{what}");
}

fn names(repository: &Repository) -> Vec<String> {
    repository.backups().unwrap().iter().map(Stamp::file_name).collect()
}

/// Small segments are written again with others, backups are replaced, packs and prunes come in between, and sometimes
/// nothing can be sent for a while.
#[test]
fn no_object_is_sent_twice() {
    for seed in 0..3 {
        let site = Site::new(seed);
        let mut sent = BTreeSet::new();
        let mut blobs = 0;
        let mut tids = site.grow(8);
        for round in 0..12 {
            match round % 4 {
                3 => drop(site.backup().unwrap()),
                _ => until_next(&site),
            }
            if round % 5 == 4 {
                site.pack(tids[tids.len() / 2]);
            }
            if round % 3 != 1 {
                for stream in send_all(&site).unwrap() {
                    for object in objects(&stream) {
                        blobs += usize::from(object.ends_with(".blob"));
                        assert!(sent.insert(object.clone()), "{seed}, {round}: {object}");
                    }
                }
            }
            site.prune(1, false).unwrap();
            tids = site.grow(1 + round % 3);
        }
        until_next(&site);
        send_all(&site).unwrap();
        assert!(blobs > 5, "only {blobs} blobs");
        check(&site, &format!("{seed}"));
        assert!(stream(&site).unwrap().is_none());
    }
}

/// Nothing is locked while a backup is sent: others take its place, and what only it needed is removed.
#[test]
fn what_is_being_sent_is_not_pruned() {
    let site = Site::new(0);
    site.grow(6);
    until_next(&site);
    send_all(&site).unwrap();
    site.grow(2);
    until_next(&site);
    let stamp = begin(&site).unwrap().unwrap();
    let objects = site.objects();
    // Another database takes the place of this one.
    site.disk.put_in_place(&site.path("Data.fs"), b"FS30");
    site.backup().unwrap();
    assert!(!site.stamps().contains(&stamp));
    site.prune(1, false).unwrap();
    let now = site.objects();
    assert!(objects.iter().filter(|object| object.extension().is_some_and(|end| end == "blob")).count() > 1);
    assert!(objects.iter().all(|object| now.contains(object)), "something was removed");
    // When it has arrived, it may go.
    let repository = site.repository().unwrap();
    records(&repository).arrived().unwrap();
    assert!(site.prune(1, false).unwrap().objects > 0);
    site.assert_whole("the rest");
}

#[test]
fn backups_that_stay_are_all_sent_and_of_the_others_the_newest() {
    let site = Site::new(1);
    site.grow(2);
    // At first only the newest.
    site.backup().unwrap();
    site.grow(1);
    site.backup().unwrap();
    let first = send_all(&site).unwrap();
    assert_eq!(names(&elsewhere(&site)), names(&site.repository().unwrap())[1..]);
    assert_eq!(first.len(), 1);
    // Nothing could be sent for a while.
    for round in 0..4 {
        site.grow(1);
        until_next(&site);
        if round == 1 {
            site.grow(1);
            site.backup().unwrap();
        }
    }
    let stamps = site.stamps();
    let sent: Vec<Stamp> = send_all(&site).unwrap().into_iter().map(|stream| stream.stamp).collect();
    assert_eq!(sent, stamps[stamps.len() - 2..]);
    assert_eq!(names(&elsewhere(&site)), names(&site.repository().unwrap())[1..]);
    // Nothing has changed, and the backup is kept from now on: there, too, also if there is a later one already.
    for count in [1, 2] {
        site.backup().unwrap();
        assert_eq!(site.stamps().last().unwrap().stay(), Stay::Kept);
        if count == 2 {
            site.grow(1);
            until_next(&site);
        }
        assert_eq!(send_all(&site).unwrap().len(), count);
        assert_eq!(names(&elsewhere(&site)), names(&site.repository().unwrap())[1..]);
        site.grow(1);
        until_next(&site);
        send_all(&site).unwrap();
    }
    check(&site, "all");
}

/// Backups of other databases in the same repository are not this section's.
#[test]
fn only_backups_of_these_databases() {
    let site = Site::new(2);
    site.grow(2);
    site.backup().unwrap();
    let mut options = site.options();
    options.sources[0].name = "other".into();
    site.backup_with(&options).unwrap();
    let sent = send_all(&site).unwrap();
    assert_eq!(sent.iter().map(|stream| &stream.stamp).collect::<Vec<_>>(), [&site.stamps()[0]]);
    assert!(stream(&site).unwrap().is_none());
}

/// A record that cannot be read costs a stream of everything, and keeps no prune from working.
#[test]
fn a_damaged_record_is_as_none() {
    let site = Site::new(0);
    site.grow(4);
    site.backup().unwrap();
    let whole = objects(&send_all(&site).unwrap()[0]).len();
    let record = site.disk.paths().into_iter().find(|path| path.starts_with(site.path("repo/sent"))).unwrap();
    let mut bytes = site.disk.bytes(&record).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    site.disk.put(&record, &bytes);
    let repository = site.repository().unwrap();
    let heard = Heard::default();
    assert!(records(&repository).last(&heard).unwrap().is_none());
    assert!(heard.0.borrow()[0].contains("is damaged"), "{:?}", heard.0);
    site.grow(1);
    until_next(&site);
    site.prune(1, false).unwrap();
    let repository = site.repository().unwrap();
    let next = records(&repository).next(None, &["1"], &Heard::default()).unwrap().unwrap();
    let mut bytes = Vec::new();
    let mut sending = Sending::begin(&repository, None, &mut bytes).unwrap();
    sending.backup(&next.0, next.1).unwrap();
    sending.end().unwrap();
    assert!(objects(&Stream { stamp: next.0, bytes }).len() > whole);
}

/// The power fails at each call of the disk: what is remembered has arrived.
#[test]
fn stopped_anywhere_it_goes_on() {
    for n in 1.. {
        let site = Site::new(n % 3);
        site.grow(3);
        site.backup().unwrap();
        send_all(&site).unwrap();
        site.grow(2);
        until_next(&site);
        site.disk.fail_at(n, Fault::PowerCut);
        let result = send_all(&site);
        if !site.disk.fired() {
            assert_eq!(result.unwrap().len(), 1);
            assert!(n > 10, "only {n} calls");
            break;
        }
        let disk = site.disk.after_power_cut();
        let site = site.on(disk);
        site.prune(1, false).unwrap();
        send_all(&site).unwrap();
        check(&site, &format!("call {n}"));
    }
}

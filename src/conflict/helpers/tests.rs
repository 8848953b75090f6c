//! Helpers that work and helpers that fail, with a stand-in for ZODB: the new record says what its merge does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::pool::Pool;
use crate::base::cancel::Cancel;
use crate::base::clock::TimeSource;
use crate::base::ids::{Oid, Tid};
use crate::conflict::{HelperOptions, ThreeStates, Unresolved, User};

/// The stand-in: merges as the new state says.
const ZODB: &str = r#"
import logging, os, sys, time
class ConflictError(Exception): pass
class ConflictResolvingStorage(object):
    def tryToResolveConflict(self, oid, committed_serial, old_serial, new, committed=b''):
        what = new.rpartition(b'\n.')[2].partition(b' ')[0]
        if what == b'hang': time.sleep(1000)
        if what == b'spin':
            while True: pass
        if what == b'exit': os._exit(3)
        if what == b'print':
            print('noise on standard output'); sys.stdout.flush(); os.write(1, b'\0' * 5000)
            sys.stderr.write('noise on standard error\n'); sys.stdin.read()
        if what == b'eat':
            try: bytearray(1 << 40)
            except MemoryError: logging.getLogger('app').exception('no memory')
        if what == b'raise': raise SystemExit('told to')
        if what == b'refuse': raise ConflictError()
        if what == b'none': return None
        if what == b'new': return b'\x80\x05' + new
        if what == b'pid': return str(os.getpid()).encode()
        if what == b'uid':
            rights = [line.split()[1] for line in open('/proc/self/status') if line.startswith('CapEff')]
            return repr((os.getuid(), os.geteuid(), os.getgid(), os.getgroups(), rights)).encode()
        if what == b'path': return repr(sys.path[0]).encode()
        old = self.loadSerial(oid, old_serial)
        return b'|'.join([oid[-1:], old, self.loadSerial(oid, committed_serial), committed, new])
"#;

struct Site {
    _dir: tempfile::TempDir,
    interpreter: PathBuf,
}

/// An interpreter that finds the stand-in; `None` if there is no Python.
fn site(zodb: &str) -> Option<Site> {
    if !std::process::Command::new("python3").arg("--version").output().is_ok_and(|out| out.status.success())
    {
        eprintln!("SKIPPED: there is no python3");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let package = dir.path().join("ZODB");
    fs::create_dir(&package).unwrap();
    fs::write(package.join("__init__.py"), "").unwrap();
    fs::write(package.join("ConflictResolution.py"), zodb).unwrap();
    fs::write(package.join("POSException.py"), "from ZODB.ConflictResolution import ConflictError\n")
        .unwrap();
    let script = format!("#!/bin/sh\nPYTHONPATH={} exec python3 \"$@\"\n", dir.path().display());
    let interpreter = program(dir.path(), "python", &script);
    Some(Site { _dir: dir, interpreter })
}

fn program(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn pool(interpreter: &Path, count_max: usize, time_limit: Duration) -> Pool {
    let settings = HelperOptions { interpreter: interpreter.into(), ..HelperOptions::default() };
    Pool::with(settings, count_max, time_limit, TimeSource::SYSTEM).unwrap()
}

fn resolve(pool: &Pool, new: &[u8]) -> Result<Vec<u8>, Unresolved> {
    resolve_until(pool, new, &Cancel::default())
}

/// The record of an object of class `app.NAME`.
fn of_class(name: &str, what: &str) -> Vec<u8> {
    format!("capp\n{name}\n.{what}").into_bytes()
}

fn resolve_until(pool: &Pool, new: &[u8], cancel: &Cancel) -> Result<Vec<u8>, Unresolved> {
    pool.resolve(&ThreeStates {
        oid: Oid(u64::from(b'o')),
        read: Tid(1),
        committed_serial: Tid(2),
        old: b"old",
        committed: b"committed",
        new,
        cancel,
    })
}

#[test]
fn whatever_a_helper_does_costs_one_resolution() {
    let Some(site) = site(ZODB) else { return };
    let pool = pool(&site.interpreter, 1, Duration::from_secs(5));
    let merged = |new: &[u8]| Ok([b"o|old|committed|committed|", new].concat());
    assert_eq!(resolve(&pool, b"x"), merged(b"x"));
    let large = vec![b'y'; 3 << 20];
    assert_eq!(resolve(&pool, &large), merged(&large));
    let pid = resolve(&pool, b"pid");
    assert!(resolve(&pool, b"path").unwrap() != b"''", "imports from the server's directory");
    assert_eq!(resolve(&pool, b"print"), merged(b"print"));
    assert!(resolve(&pool, b"refuse").is_err());
    assert!(resolve(&pool, b"none").is_err());
    assert_eq!(resolve(&pool, b"raise").unwrap_err().reason, "SystemExit: told to");
    assert!(resolve(&pool, b"new pickles for old").unwrap_err().reason.contains("protocol 5"));
    assert_eq!(resolve(&pool, b"pid"), pid, "nothing of that costs the helper");

    for (what, why) in [(&b"exit"[..], "ended (exit status: 3)"), (b"eat", "")] {
        let before = resolve(&pool, b"pid");
        match resolve(&pool, what) {
            Ok(record) => assert_eq!(Ok(record), merged(what)),
            Err(unresolved) => assert!(unresolved.reason.contains(why), "{unresolved:?}"),
        }
        assert_ne!(resolve(&pool, b"pid"), before, "replaced");
    }

    // A helper that dies while idle causes no failed merge.
    let pid = String::from_utf8(resolve(&pool, b"pid").unwrap()).unwrap();
    let raw = pid.parse().ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
    let died = Instant::now();
    while !fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default().contains(") Z ") {
        assert!(died.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(resolve(&pool, b"x"), merged(b"x"));
}

#[test]
fn a_helper_that_hangs_is_given_up() {
    let Some(site) = site(ZODB) else { return };
    let pool = pool(&site.interpreter, 2, Duration::from_secs(2));
    for what in [&b"hang"[..], b"spin"] {
        let start = Instant::now();
        std::thread::scope(|scope| {
            let stuck = scope.spawn(|| resolve(&pool, what));
            // Other merges continue.
            assert!(resolve(&pool, b"pid").is_ok());
            let reason = stuck.join().unwrap().unwrap_err().reason;
            assert!(reason.contains("gave no answer within 2 s (signal: 9"), "{reason}");
        });
        assert!(start.elapsed() < Duration::from_secs(60));
        assert!(resolve(&pool, b"pid").is_ok());
    }
}

#[test]
fn nothing_is_left_of_a_stopped_pool() {
    let Some(site) = site(ZODB) else { return };
    let pool = pool(&site.interpreter, 1, ENDLESS);
    let pid = String::from_utf8(resolve(&pool, b"pid").unwrap()).unwrap();
    let start = Instant::now();
    std::thread::scope(|scope| {
        let stuck = scope.spawn(|| resolve(&pool, b"hang"));
        std::thread::sleep(Duration::from_millis(200));
        pool.stop();
        assert!(stuck.join().unwrap().is_err());
    });
    assert!(start.elapsed() < Duration::from_secs(60));
    assert!(!Path::new("/proc").join(pid).exists());
    assert_eq!(resolve(&pool, b"x").unwrap_err().reason, "the server stops");
}

#[test]
fn what_cannot_be_started_says_so_and_is_not_waited_for() {
    let Some(site) = site("import no_such_module") else { return };
    let dir = tempfile::tempdir().unwrap();
    let silent = program(dir.path(), "silent", "#!/bin/sh\nexec true\n");
    let cases = [
        (
            site.interpreter.clone(),
            "cannot import ZODB: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        (silent, "ended (exit status: 0)"),
        (dir.path().join("nowhere"), "cannot be started: No such file"),
    ];
    for (interpreter, why) in cases {
        let pool = pool(&interpreter, 4, ENDLESS);
        let start = Instant::now();
        let reason = resolve(&pool, b"x").unwrap_err().reason;
        assert!(reason.contains(why), "{reason}");
        assert!(resolve(&pool, b"x").unwrap_err().reason.contains(why));
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}

#[test]
fn a_failed_start_is_repeated_after_a_growing_delay() {
    let dir = tempfile::tempdir().unwrap();
    let starts = dir.path().join("starts");
    let script = format!("#!/bin/sh\necho >> {}\n", starts.display());
    let interpreter = program(dir.path(), "silent", &script);
    let settings = HelperOptions { interpreter, ..HelperOptions::default() };
    let clock = TimeSource::manual();
    let pool = Pool::with(settings, 1, Duration::from_secs(30), clock.clone()).unwrap();
    let count = || fs::read_to_string(&starts).unwrap_or_default().len();
    assert!(resolve(&pool, b"x").unwrap_err().reason.contains("ended"));
    assert_eq!(count(), 1);
    for (seconds, expected) in [(0, 1), (1, 2), (1, 2), (1, 3), (3, 3), (1, 4)] {
        clock.advance(Duration::from_secs(seconds));
        assert!(resolve(&pool, b"x").unwrap_err().reason.contains("ended"));
        assert_eq!(count(), expected);
    }
}

/// Longer than any test takes.
const ENDLESS: Duration = Duration::from_secs(3600);

/// When a client abandoned its transaction, the locks were kept until the helper's time limit.
#[test]
fn a_merge_that_nobody_waits_for_is_ended() {
    let Some(site) = site(ZODB) else { return };
    let pool = pool(&site.interpreter, 1, ENDLESS);
    let before = resolve(&pool, b"pid").unwrap();
    let (at_work, waits) = (Cancel::default(), Cancel::default());
    std::thread::scope(|scope| {
        let stuck = scope.spawn(|| resolve_until(&pool, &of_class("Shelf", "hang"), &at_work));
        while !pool.is_busy() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // One helper at a time for a class.
        let queued = scope.spawn(|| resolve_until(&pool, &of_class("Shelf", "pid"), &waits));
        std::thread::sleep(Duration::from_millis(50));
        waits.cancel();
        let reason = "the client has given up its transaction";
        assert_eq!(queued.join().unwrap().unwrap_err().reason, reason);
        assert!(!stuck.is_finished());
        at_work.cancel();
        assert_eq!(stuck.join().unwrap().unwrap_err().reason, reason);
    });
    assert_ne!(resolve(&pool, b"pid").unwrap(), before, "replaced");
    let old = String::from_utf8(before).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while Path::new("/proc").join(&old).exists() {
        assert!(Instant::now() < deadline, "the helper lives on");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(
        resolve_until(&pool, b"pid", &at_work).unwrap_err().reason,
        "the client has given up its transaction"
    );
}

/// Merges that hang occupied all helpers, and no other conflict was merged until their time limit.
#[test]
fn merges_of_one_class_that_hang_hold_up_no_other_class() {
    let Some(site) = site(ZODB) else { return };
    let pool = pool(&site.interpreter, 2, ENDLESS);
    let cancels: Vec<Cancel> = (0..5).map(|_| Cancel::default()).collect();
    std::thread::scope(|scope| {
        let stuck: Vec<_> = cancels
            .iter()
            .map(|cancel| scope.spawn(|| resolve_until(&pool, &of_class("Shelf", "hang"), cancel)))
            .collect();
        for _ in 0..3 {
            assert!(resolve(&pool, &of_class("Book", "pid")).is_ok());
        }
        assert!(stuck.iter().all(|stuck| !stuck.is_finished()));
        cancels.iter().for_each(Cancel::cancel);
        assert!(stuck.into_iter().all(|stuck| stuck.join().unwrap().is_err()));
    });
    assert!(resolve(&pool, &of_class("Shelf", "pid")).is_ok());
}

#[test]
fn helpers_run_as_another_user() {
    let Some(site) = site(ZODB) else { return };
    let user = User { name: "4321:1234".into(), uid: 4321, gid: 1234 };
    let settings =
        HelperOptions { interpreter: site.interpreter.clone(), user: Some(user), allowed: Vec::new() };
    // The other user needs access to the interpreter.
    fs::set_permissions(site._dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let pool = Pool::with(settings, 1, Duration::from_secs(30), TimeSource::SYSTEM).unwrap();
    match resolve(&pool, b"uid") {
        Ok(who) => {
            let expected = "(4321, 4321, 1234, [], ['0000000000000000'])";
            assert_eq!(
                String::from_utf8_lossy(&who),
                expected,
                "user, effective user, group, groups, capabilities"
            );
        }
        Err(unresolved) => {
            assert!(!rustix::process::geteuid().is_root(), "{unresolved:?}");
            assert!(unresolved.reason.contains("the server needs to be root"), "{unresolved:?}");
        }
    }
}

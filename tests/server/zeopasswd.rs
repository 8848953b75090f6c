//! The command `zeopasswd`: its changes to a password file, and the files that it leaves alone.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Exit code and stderr.
fn zeopasswd(dir: &Path, arguments: &[&str], input: &str) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_zeopasswd"))
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    // It may have ended already, without reading its input.
    let _ = child.stdin.take().expect("stdin").write_all(input.as_bytes());
    let done = child.wait_with_output().expect("wait");
    (done.status.code(), String::from_utf8(done.stderr).expect("text"))
}

const FILE: [&str; 4] = ["-p", "digest", "-f", "passwords"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&FILE[..], more].concat()
}

#[test]
fn users_come_change_and_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("passwords");
    let read = || fs::read_to_string(&file).expect("readable");
    let done = (Some(0), String::new());
    assert_eq!(zeopasswd(dir.path(), &with(&["-r", "Digest Realm", "foo", "bar"]), ""), done);
    // SHA-1 of "foo:Digest Realm:bar"
    let foo = "foo: 5b683080eb6cbcd793339cb364743f5adcfa88f3\n";
    assert_eq!(read(), format!("realm Digest Realm\n{foo}"));
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);

    assert_eq!(zeopasswd(dir.path(), &with(&["adam"]), "from the input\n"), done);
    assert!(read().starts_with("realm Digest Realm\nadam: ") && read().ends_with(foo));
    let before = read();
    assert_eq!(zeopasswd(dir.path(), &with(&["-c", "adam", "another"]), ""), done);
    assert_ne!(read(), before);
    assert_eq!(zeopasswd(dir.path(), &with(&["-d", "adam"]), ""), done);
    assert_eq!(read(), format!("realm Digest Realm\n{foo}"));
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1, "nothing is left behind");
}

#[test]
fn what_would_break_the_file_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    zeopasswd(dir.path(), &with(&["-r", "r", "foo", "bar"]), "");
    let file = dir.path().join("passwords");
    let before = fs::read(&file).expect("readable");
    for (arguments, input, code, says) in [
        (&["a:b", "x"] as &[&str], "", 1, "user 'a:b' contains a colon"),
        (&["a\nb", "x"], "", 1, "user 'a\\nb' contains a line break"),
        (&["", "x"], "", 1, "user '' is empty"),
        (
            &["foo", "x"],
            "",
            1,
            "user 'foo' exists already; use -c to change the password; passwords is unchanged",
        ),
        (&["-d", "nobody"], "", 1, "user 'nobody' does not exist"),
        (&["-c", "nobody", "x"], "", 1, "user 'nobody' does not exist"),
        (&["new", ""], "", 1, "the password is empty"),
        (&["new"], "\n", 1, "the password is empty"),
        (&["new"], "", 1, "no password: the input has ended"),
        (&["-r", "other", "new", "x"], "", 1, "passwords is for realm 'r', not 'other'"),
        (&["-r", "a\nb", "new", "x"], "", 2, "the realm contains a line break"),
        (&["-p", "sesame", "new", "x"], "", 2, "Option 'protocol' given more than once"),
        (&[], "", 2, "no user is given"),
        (&["-x"], "", 2, "Unrecognized option: 'x'"),
    ] {
        let (got, said) = zeopasswd(dir.path(), &with(arguments), input);
        assert_eq!(got, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
        assert_eq!(fs::read(&file).expect("readable"), before, "{arguments:?}");
    }
    let (code, said) = zeopasswd(dir.path(), &["-p", "sesame", "-f", "passwords", "a", "b"], "");
    assert!(code == Some(2) && said.contains("no authentication protocol 'sesame'; use 'digest'"), "{said}");

    fs::write(&file, "realm r\nfoo\n").expect("write");
    let (code, said) = zeopasswd(dir.path(), &with(&["new", "x"]), "");
    assert!(code == Some(1) && said.contains("line 2: there is no colon"), "{said}");
    fs::write(&file, "foo: 1\n").expect("write");
    let (code, said) = zeopasswd(dir.path(), &with(&["-r", "r", "new", "x"]), "");
    assert!(code == Some(1) && said.contains("is for no realm"), "{said}");
}

#[test]
fn the_server_s_configuration_says_where() {
    let dir = tempfile::tempdir().expect("a directory");
    let storage = "<filestorage>\npath Data.fs\n</filestorage>\n";
    let zeo = "<zeo>\naddress 8100\nauthentication-protocol digest\nauthentication-database conf-passwords\n\
               authentication-realm My Realm\n</zeo>\n";
    fs::write(dir.path().join("zeo.conf"), format!("{zeo}{storage}")).expect("write");
    fs::write(dir.path().join("open.conf"), format!("<zeo>\naddress 8100\n</zeo>\n{storage}"))
        .expect("write");
    assert_eq!(zeopasswd(dir.path(), &["-C", "zeo.conf", "foo", "bar"], ""), (Some(0), String::new()));
    let text = fs::read_to_string(dir.path().join("conf-passwords")).expect("readable");
    assert!(text.starts_with("realm My Realm\nfoo: "), "{text}");
    assert!(!dir.path().join("Data.fs").exists());
    for (arguments, says) in [
        (&["-C", "open.conf", "a", "b"] as &[&str], "open.conf does not specify an authentication-protocol"),
        (&["-C", "missing.conf", "a", "b"], "missing.conf"),
        (&["-C", "zeo.conf", "-f", "x", "a", "b"], "use either -C, or -p, -f and -r"),
    ] {
        let (code, said) = zeopasswd(dir.path(), arguments, "");
        assert!(code == Some(2) && said.contains(says), "{arguments:?}: {said}");
    }
}

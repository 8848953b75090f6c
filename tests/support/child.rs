//! A test of something that belongs to the process (logger, panic hook, signals, limits, current directory) runs its
//! program again, with that test alone.

use std::process::{Command, Stdio};

const CHILD: &str = "RUNZEO_TEST_CHILD";

/// Whether this is the process that [`child`] started.
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// This test program, with only the test of this full name (`module::name`), in which `is_child()` is true.
pub fn child(test: &str) -> Command {
    let program = std::env::current_exe().expect("this program");
    // A program that finds no test of that name succeeds.
    let list = Command::new(&program).args([test, "--exact", "--list"]).output().expect("start");
    let list = String::from_utf8(list.stdout).expect("text");
    assert_eq!(list.lines().next(), Some(&*format!("{test}: test")), "the test has another name");
    let mut command = Command::new(program);
    command.args([test, "--exact", "--nocapture"]).env(CHILD, "yes").env_remove("RUST_BACKTRACE");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

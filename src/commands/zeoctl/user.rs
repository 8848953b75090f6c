//! `user` of `<runner>`: the user that `zeoctl`, the manager and the program run as.

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use crate::config::zconfig::accounts::{Account, account, groups_of};

/// A user of this machine, from its name or number. An error is a message.
pub(super) fn find(text: &str) -> Result<Account, String> {
    account(text).ok_or_else(|| {
        let what = if text.bytes().all(|byte| byte.is_ascii_digit()) { "uid" } else { "username" };
        format!("{what} '{text}' not found")
    })
}

/// Becomes this user, with the groups that the user is in. No other thread may run. An error is a message.
pub(super) fn become_user(account: &Account) -> Result<(), String> {
    let euid = geteuid().as_raw();
    if euid != 0 {
        return match euid == account.uid {
            true => Ok(()),
            false => Err("only root can use -u USER to change users".into()),
        };
    }
    let failed = |error| format!("user '{}' cannot be taken: {error}", account.name);
    let groups: Vec<Gid> = groups_of(&account.name).into_iter().map(Gid::from_raw).collect();
    // These are of the only thread, and so of the process and of what it starts.
    set_thread_gid(Gid::from_raw(account.gid)).map_err(failed)?;
    set_thread_groups(&groups).map_err(failed)?;
    set_thread_uid(Uid::from_raw(account.uid)).map_err(failed)
}

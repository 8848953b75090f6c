//! Users and groups of this machine, as `/etc/passwd` and `/etc/group` have them.

use std::path::PathBuf;

/// The home directory of a user.
pub(super) fn home_of(user: &str) -> Option<PathBuf> {
    account_fields(0, user)?.get(5).map(PathBuf::from)
}

/// The fields of the first line of the user database that has this text in a field.
fn account_fields(index: usize, text: &str) -> Option<Vec<String>> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = users.lines().map(|line| line.split(':').map(String::from).collect::<Vec<_>>());
    fields.find(|fields| fields.get(index).is_some_and(|field| field == text))
}

/// A user of this machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// A user of this machine, from the user's name or number.
pub fn account(text: &str) -> Option<Account> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let fields = account_fields(if is_number { 2 } else { 0 }, text)?;
    let [name, _, uid, gid, ..] = fields.as_slice() else { return None };
    let account = Account { name: name.clone(), uid: uid.parse().ok()?, gid: gid.parse().ok()? };
    // For the system the largest number means "no id".
    Some(account).filter(|account| account.uid != u32::MAX && account.gid != u32::MAX)
}

/// The groups in whose lists a user is, in ascending order.
pub fn groups_of(user: &str) -> Vec<u32> {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let id = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let (id, members) = (fields.next()?, fields.next()?);
        members.split(',').any(|member| member == user).then(|| id.parse().ok())?
    };
    let mut ids: Vec<u32> = groups.lines().filter_map(id).filter(|id| *id != u32::MAX).collect();
    ids.sort_unstable();
    ids
}

/// The ids of a user of this machine and of its group, from the user's name or from both numbers.
pub fn user(text: &str) -> Result<(u32, u32), String> {
    let numbers = |uid: &str, gid: &str| Some((uid.parse().ok()?, gid.parse().ok()?));
    let found = match text.split_once(':') {
        Some((uid, gid)) => numbers(uid, gid),
        None => account_fields(0, text).and_then(|fields| numbers(fields.get(2)?, fields.get(3)?)),
    };
    match found {
        // For the system the largest number means "no id".
        Some((uid, gid)) if uid != u32::MAX && gid != u32::MAX => Ok((uid, gid)),
        _ => Err(format!(
            "there is no user '{text}' in /etc/passwd; give the numbers of a user that is defined elsewhere, such as 1001:1001"
        )),
    }
}

/// The id of a user of this machine, from the user's name or number.
pub fn uid(text: &str) -> Result<u32, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let found = match is_number {
        true => text.parse().ok(),
        false => account_fields(0, text).and_then(|fields| fields.get(2)?.parse().ok()),
    };
    found.filter(|uid| *uid != u32::MAX).ok_or_else(|| {
        format!(
            "there is no user '{text}' in /etc/passwd; give the number of a user that is defined elsewhere"
        )
    })
}

/// A group of this machine, from its name or its number: the text, and the id.
pub fn group(text: &str) -> Result<(String, u32), String> {
    let by_name = || {
        let groups = std::fs::read_to_string("/etc/group").ok()?;
        let mut fields = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let group = fields.find(|fields| fields.first() == Some(&text))?;
        group.get(2)?.parse().ok()
    };
    let found = if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { by_name() };
    match found {
        // For the system the largest number means "no id".
        Some(id) if id != u32::MAX => Ok((text.into(), id)),
        _ => Err(format!(
            "there is no group '{text}' in /etc/group; give the number of a group that is defined elsewhere, such as 1001"
        )),
    }
}

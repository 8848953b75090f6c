//! What the system says about the user of this process.

use std::path::PathBuf;

use rustix::process::geteuid;

/// The line of a user in the system's list, found by the text in this field.
fn account(field: usize, text: &str) -> Option<Vec<String>> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.into_iter().find(|fields| fields.get(field) == Some(&text))?;
    Some(found.into_iter().map(str::to_string).collect())
}

/// The name of the user.
pub fn user() -> Option<String> {
    account(2, &geteuid().as_raw().to_string())?.into_iter().next()
}

/// The user's directory: `HOME`, else of the list of users.
pub fn home(environment: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let home = environment("HOME").filter(|home| !home.is_empty());
    let home = home.or_else(|| account(2, &geteuid().as_raw().to_string())?.into_iter().nth(5));
    home.map(PathBuf::from)
}

/// The number of a user of this name.
pub fn uid_of(name: &str) -> Option<u32> {
    account(0, name)?.get(2)?.parse().ok()
}

//! `checkbtrees`: which trees are damaged.
//!
//! Python's tool prints the `repr` of each object that it reaches, which needs the application's classes, and what
//! their checks say. This is `zeofs trees`: all trees of the file, and only what is wrong.

use std::io::Write;

use super::super::selection::OpenedFile;
use super::super::trees;
use super::tool::Tool;
use crate::commands::subcommand::Trouble;

pub(super) const TOOL: Tool = Tool { name: "checkbtrees", usage: "FILE", main };

fn main(out: &mut dyn Write, arguments: &[String]) -> Result<u8, Trouble> {
    let [name] = arguments else { return Err(Trouble::Usage("expected one argument".into())) };
    trees::report(out, OpenedFile::open(name)?, &[], u64::MAX, false)
}

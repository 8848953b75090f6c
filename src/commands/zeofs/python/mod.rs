//! The tools of ZODB: under their names the program prints what they print, byte for byte where they work, so that
//! scripts go on; `checkbtrees` alone is another report. Where they crash, this program says what is wrong on stderr
//! and ends with status 1, as they do.
//!
//! Files of Python 2 (FS21) are printed as the tools of ZODB 4 on Python 2 do, those of Python 3 (FS30) as those of
//! ZODB 6 on Python 3.

mod analyze;
mod checkbtrees;
mod fsdump;
mod fsoids;
mod fsrecover;
mod fsrefs;
mod fstail;
mod fstest;
mod iterator;
mod tool;

use tool::Tool;

pub(super) const TOOLS: &[Tool] = &[
    fsdump::TOOL,
    fstail::TOOL,
    fstest::TOOL,
    analyze::TOOL,
    fsrefs::TOOL,
    fsoids::TOOL,
    fsrecover::TOOL,
    checkbtrees::TOOL,
];

/// The tool with this name, also if it has the name of a script (`fstail.py`).
pub(super) fn tool(name: &str) -> Option<&'static Tool> {
    let name = name.strip_suffix(".py").unwrap_or(name);
    TOOLS.iter().find(|tool| tool.name == name)
}

//! What `zeofs gc` says.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::json;

use super::super::text::{file_line, oid_repr};
use super::database::Database;
use super::delete::Deleted;
use crate::base::ids::Oid;
use crate::base::numbers::grouped;
use crate::base::untrusted::one_line;
use crate::commands::subcommand::Trouble;
use crate::inspect::garbage::{DanglingReference, Search};
use crate::inspect::record::class_of;

pub(super) struct Report<'a> {
    pub(super) databases: &'a [Database],
    pub(super) is_json: bool,
    /// Classes and references that are printed.
    pub(super) max: usize,
}

/// Garbage of the garbage in a database.
#[derive(Clone, Copy, Default)]
struct Garbage {
    objects: u64,
    bytes: u64,
}

impl Report<'_> {
    pub(super) fn found(&self, out: &mut dyn Write, search: &Search<'_>) -> Result<(), Trouble> {
        let mut classes: BTreeMap<(usize, String), u64> = BTreeMap::new();
        let mut all = Vec::new();
        for (number, database) in self.databases.iter().enumerate() {
            let mut sums = Garbage::default();
            let mut data = Vec::new();
            let file = &database.file.data;
            let mut next = search.next_garbage(number, Oid::ZERO);
            while let Some((oid, pos)) = next {
                let record = file.log().read_record(pos, Some(oid))?;
                file.data_of(pos, &record.header, record.back, &mut data)?;
                let (class, bytes) = (class_of(&data), record.header.record_len());
                sums = Garbage { objects: sums.objects + 1, bytes: sums.bytes + bytes };
                match self.is_json {
                    true => {
                        let (oid, tid) = (oid.to_string(), record.header.tid.to_string());
                        let name = &database.name;
                        let object = json!({
                            "kind": "garbage", "database": name, "oid": oid, "class": class, "tid": tid, "bytes": bytes,
                        });
                        writeln!(out, "{object}")?;
                    }
                    false => *classes.entry((number, class)).or_default() += 1,
                }
                next = search.next_garbage(number, Oid(oid.0.saturating_add(1)));
            }
            all.push(sums);
        }
        match self.is_json {
            true => self.json(out, search, &all)?,
            false => self.text(out, search, &all, classes)?,
        }
        Ok(())
    }

    fn json(&self, out: &mut dyn Write, search: &Search<'_>, all: &[Garbage]) -> io::Result<()> {
        let (count, dangling) = search.dangling();
        for DanglingReference { from, to } in dangling {
            let [from, to] = [from, to]
                .map(|(number, oid)| json!({"database": self.name(*number), "oid": oid.to_string()}));
            writeln!(out, "{}", json!({"kind": "dangling", "from": from, "to": to}))?;
        }
        for (number, sums) in all.iter().enumerate() {
            let value = json!({
                "kind": "database",
                "database": self.name(number),
                "objects": search.object_count(number),
                "garbage": sums.objects,
                "bytes": sums.bytes,
                "dangling": count,
            });
            writeln!(out, "{value}")?;
        }
        Ok(())
    }

    fn text(
        &self,
        out: &mut dyn Write,
        search: &Search<'_>,
        all: &[Garbage],
        classes: BTreeMap<(usize, String), u64>,
    ) -> io::Result<()> {
        for database in self.databases {
            writeln!(out, "{}: {}", database.name, file_line(&database.file))?;
        }
        writeln!(out, "\n{:<24} {:>14} {:>14} {:>16}", "DATABASE", "OBJECTS", "GARBAGE", "BYTES")?;
        for (number, sums) in all.iter().enumerate() {
            let [objects, garbage, bytes] =
                [search.object_count(number), sums.objects, sums.bytes].map(grouped);
            writeln!(out, "{:<24} {objects:>14} {garbage:>14} {bytes:>16}", self.name(number))?;
        }
        if !classes.is_empty() {
            writeln!(out, "\n{:>14}  GARBAGE OF CLASS", "OBJECTS")?;
        }
        let mut classes: Vec<_> = classes.into_iter().collect();
        classes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for ((number, class), count) in classes.iter().take(self.max) {
            let class = one_line(200, format_args!("{class}"));
            writeln!(out, "{:>14}  {}: {class}", grouped(*count), self.name(*number))?;
        }
        self.more(out, classes.len() as u64)?;
        let (count, dangling) = search.dangling();
        if count > 0 {
            writeln!(out, "\nDANGLING: {} references to objects that are not there", grouped(count))?;
        }
        for DanglingReference { from, to } in dangling.iter().take(self.max) {
            writeln!(out, "    {} refers to {}", self.object(*from), self.object(*to))?;
        }
        self.more(out, count)
    }

    fn more(&self, out: &mut dyn Write, count: u64) -> io::Result<()> {
        match count.saturating_sub(self.max as u64) {
            0 => Ok(()),
            more => writeln!(out, "    ... and {} more (-n N)", grouped(more)),
        }
    }

    pub(super) fn nothing_deleted(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.is_json {
            return Ok(());
        }
        writeln!(out, "\nnothing was deleted")
    }

    pub(super) fn deleted(&self, out: &mut dyn Write, deleted: &Deleted) -> io::Result<()> {
        if !self.is_json {
            writeln!(out)?;
        }
        for (number, (objects, transactions)) in deleted.counts.iter().enumerate() {
            let name = self.name(number);
            if self.is_json {
                let value = json!({"kind": "deleted", "database": name, "objects": objects, "transactions": transactions});
                writeln!(out, "{value}")?;
                continue;
            }
            let (objects, transactions) = (grouped(*objects), grouped(*transactions));
            writeln!(out, "deleted from {name}: {objects} objects; transactions: {transactions}")?;
        }
        for (number, oid, tid) in &deleted.revived {
            let object = self.object((*number, *oid));
            if self.is_json {
                let value = json!({"kind": "revived", "database": self.name(*number), "oid": oid.to_string(), "tid": tid.to_string()});
                writeln!(out, "{value}")?;
                continue;
            }
            writeln!(
                out,
                "REVIVED: while {object} was deleted, a reference to it was committed: undo transaction {tid}"
            )?;
        }
        Ok(())
    }

    fn name(&self, number: usize) -> &str {
        self.databases.get(number).map_or("", |database| &database.name)
    }

    fn object(&self, (number, oid): (usize, Oid)) -> String {
        format!("{} of {}", oid_repr(oid), self.name(number))
    }
}

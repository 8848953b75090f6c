//! `analyze FILE`: records and bytes of each class. The memory is about 16 bytes for each object.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write};

use super::super::selection::OpenedFile;
use super::iterator::PythonIterator;
use super::tool::Tool;
use crate::base::ids::Oid;
use crate::commands::subcommand::Trouble;
use crate::inspect::object_sums::{ObjectSums, ObjectTable};
use crate::inspect::record::{class_key, class_text};

pub(super) const TOOL: Tool = Tool { name: "analyze", usage: "FILE", main };

/// Width of the names of classes.
const NAME_LEN: usize = 46;

fn main(out: &mut dyn Write, arguments: &[String]) -> Result<u8, Trouble> {
    // As in Python, further arguments are ignored.
    let [name, ..] = arguments else { return Err(Trouble::Usage("no file is given".into())) };
    let file = OpenedFile::open(name)?;
    let mut analysis = Analysis::default();
    let mut transactions = PythonIterator::new(&file);
    let mut data = Vec::new();
    while let Some(mut txn) = transactions.next_transaction()? {
        analysis.transactions += 1;
        while let Some(record) = transactions.next_record(&mut txn, &mut data)? {
            analysis.records += 1;
            if record.has_data {
                analysis.record(record.header.oid, &data);
            }
        }
    }
    if analysis.report(out)? { Ok(0) } else { Err(Trouble::Failed(format!("{name} has no data"))) }
}

#[derive(Clone, Copy, Default)]
struct Sums {
    count: u64,
    bytes: u64,
}

#[derive(Default)]
struct Analysis {
    transactions: u64,
    records: u64,
    /// Of data.
    bytes: u64,
    /// Of each object the class, and the bytes of data in its newest record.
    objects: ObjectTable,
    classes: HashMap<Vec<u8>, u32>,
    sums: Vec<Sums>,
    current: Sums,
    old: Sums,
}

impl Analysis {
    fn record(&mut self, oid: Oid, data: &[u8]) {
        let len = data.len() as u64;
        self.bytes += len;
        let class = match self.objects.get(oid) {
            Some(ObjectSums { class, current: before, .. }) => {
                self.old.count += 1;
                self.old.bytes += before;
                self.current.bytes = self.current.bytes + len - before;
                class
            }
            None => {
                // As Python, which prints an error here.
                let Some(key) = class_key(data) else { return };
                self.current.count += 1;
                self.current.bytes += len;
                self.class(key)
            }
        };
        self.objects.set(ObjectSums { oid, records: 0, bytes: 0, class, current: len, packed: len, txn: 0 });
        if let Some(sums) = self.sums.get_mut(class as usize) {
            sums.count += 1;
            sums.bytes += len;
        }
    }

    /// The number of a class.
    fn class(&mut self, key: Cow<'_, [u8]>) -> u32 {
        if let Some(class) = self.classes.get(&*key) {
            return *class;
        }
        let class = u32::try_from(self.sums.len()).unwrap_or(u32::MAX);
        self.classes.insert(key.into_owned(), class);
        self.sums.push(Sums::default());
        class
    }

    /// False where Python divides by zero.
    fn report(&self, out: &mut dyn Write) -> io::Result<bool> {
        let bytes = self.bytes as f64;
        writeln!(out, "Processed {} records in {} transactions", self.records, self.transactions)?;
        if self.records == 0 {
            return Ok(false);
        }
        writeln!(out, "Average record size is {:7.2} bytes", bytes / self.records as f64)?;
        writeln!(out, "Average transaction size is {:7.2} bytes", bytes / self.transactions as f64)?;
        writeln!(out, "Types used:")?;
        let mut rule = |[name, count, total, percent, average]: [&str; 5]| {
            writeln!(out, "{name:<NAME_LEN$} {count:>7} {total:>9} {percent:>6} {average:>7}")
        };
        rule(["Class Name", "Count", "TBytes", "Pct", "AvgSize"])?;
        let line = |character: &str| [46, 7, 9, 5, 7].map(|width| character.repeat(width));
        rule(line("-").each_ref().map(String::as_str))?;
        let mut classes: Vec<(String, u32)> =
            self.classes.iter().map(|(key, class)| (class_text(key), *class)).collect();
        classes.sort();
        let mut percents = 0.0;
        for (name, class) in classes {
            let Sums { count, bytes: total } = self.sums.get(class as usize).copied().unwrap_or_default();
            let percent = total as f64 * 100.0 / bytes;
            percents += percent;
            let (name, average) = (shorten(&name, NAME_LEN), total as f64 / count as f64);
            writeln!(out, "{name:<NAME_LEN$} {count:>7} {total:>9} {percent:>5.1}% {average:>7.2}")?;
        }
        let mut rule = |[name, count, total, percent, average]: [&str; 5]| {
            writeln!(out, "{name:<NAME_LEN$} {count:>7} {total:>9} {percent:>6} {average:>7}")
        };
        rule(line("=").each_ref().map(String::as_str))?;
        let average = bytes / self.transactions as f64 / 1024.0;
        writeln!(
            out,
            "{:>NAME_LEN$} {:>7} {:>9} {:>6} {average:>6.2}k",
            "Total Transactions", self.transactions, " ", " "
        )?;
        let mut line = |name: &str, count: u64, total: u64, percent: f64| {
            let (average, total) = (total as f64 / count as f64, total / 1024);
            writeln!(out, "{name:>NAME_LEN$} {count:>7} {total:>8}k {percent:>5.1}% {average:>7.2}")
        };
        line("Total Records", self.records, self.bytes, percents)?;
        if self.current.count == 0 {
            return Ok(false);
        }
        line(
            "Current Objects",
            self.current.count,
            self.current.bytes,
            self.current.bytes as f64 * 100.0 / bytes,
        )?;
        if self.old.count > 0 {
            line("Old Objects", self.old.count, self.old.bytes, self.old.bytes as f64 * 100.0 / bytes)?;
        }
        Ok(true)
    }
}

/// The last parts of a name with dots, with dots in front, or its last characters.
fn shorten(name: &str, len: usize) -> String {
    if name.chars().count() <= len {
        return name.into();
    }
    let mut rest = name;
    while rest.chars().count() + 3 > len {
        match rest.split_once('.') {
            Some((_, behind)) => rest = behind,
            None => {
                let count = rest.chars().count();
                return rest.chars().skip(count.saturating_sub(len)).collect();
            }
        }
    }
    format!("...{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shortened_as_pythons_are() {
        // Python's shorten(s, 10).
        for (name, expected) in [
            ("a.b.cdefgh", "a.b.cdefgh"),
            ("aa.b.cdefgh", "...cdefgh"),
            ("aaaaa.b.c.d", "...b.c.d"),
            ("a.bcdefghijkl", "cdefghijkl"),
            ("abcdefghijklm", "defghijklm"),
        ] {
            assert_eq!(shorten(name, 10), expected, "{name}");
        }
    }
}

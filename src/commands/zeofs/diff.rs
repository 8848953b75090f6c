//! `zeofs diff`: what one file has and the other one has not.

use std::io::Write;

use getopts::{Matches, Options};
use serde_json::{Value, json};

use super::selection::OpenedFile;
use super::served::names::{self, Names};
use super::text::{file_line, oid_repr, shown, timestamp};
use crate::base::ids::Tid;
use crate::base::numbers::grouped;
use crate::base::untrusted::one_line;
use crate::commands::progress::Progress;
use crate::commands::subcommand::{FINDINGS, Subcommand, Trouble};
use crate::inspect::diff::{HistoryDiff, HistoryStep, ObjectDiff, ObjectDifference, Side, TxnDifference};
use crate::inspect::objects::Newest;
use crate::inspect::record::class_of;
use crate::inspect::walk::{FoundTxn, Walk};

pub(super) const COMMAND: Subcommand = Subcommand { name: "diff", options, help: HELP, run };

const HELP: &str = "\
[options] FILE FILE

Transactions that only one of the files has, or that differ; where the histories
part; and objects whose newest records differ.

      --objects     only the objects: for files of which one is packed
  -n, --max N       print at most N transactions, and N objects (default: 100)
  -C, --configure CONF  FILE is a storage of this configuration
      --json        a JSON object for each of them, then one with the sums
      --help        print this

Pointers and marks of packs are no difference. Deleted objects are like those
that never were. A pack with GC takes out what nothing refers to. Each FILE may
be a server, zeo://HOST:PORT?storage=NAME, or with -C the name of a <zeoclient>;
values of extensions are compared then, and not their bytes.
Exit status: 0 the files are the same; 1 one cannot be read; 2 the command line
is wrong; 4 they differ.
";

fn options(options: &mut Options) {
    names::options(options);
    options.optflag("", "objects", "").optopt("n", "max", "", "").optflag("", "json", "");
}

fn run(out: &mut dyn Write, matches: &Matches) -> Result<u8, Trouble> {
    let max = matches.opt_str("max").map_or(Ok(100), |text| {
        text.parse().map_err(|_| Trouble::Usage(format!("-n: '{text}' is not a number")))
    })?;
    let [a, b] = matches.free.as_slice() else { return Err(Trouble::Usage("give two files".into())) };
    let names = Names::of(matches)?;
    let [a, b] = [names.source(a)?, names.source(b)?];
    let files = [OpenedFile::fetched(a, Tid(u64::MAX))?, OpenedFile::fetched(b, Tid(u64::MAX))?];
    let is_json = matches.opt_present("json");
    if !is_json {
        for file in &files {
            writeln!(out, "{}", file_line(file))?;
        }
        writeln!(out)?;
    }
    let mut diff = Diff { out, files: &files, is_json, max, printed: 0, progress: progress(&files) };
    let mut sums = json!({"kind": "sums"});
    let mut are_same = true;
    if !matches.opt_present("objects") {
        are_same &= diff.history(&mut sums)?;
    }
    are_same &= diff.objects(&mut sums)?;
    if let Some(progress) = &mut diff.progress {
        progress.end();
    }
    if is_json {
        writeln!(diff.out, "{sums}")?;
    } else if are_same {
        writeln!(diff.out, "the same")?;
    }
    Ok(if are_same { 0 } else { FINDINGS })
}

/// The files are read three times.
fn progress(files: &[OpenedFile; 2]) -> Option<Progress> {
    Progress::on_terminal("diff", Some(total(files) * 3), true)
}

fn total(files: &[OpenedFile; 2]) -> u64 {
    files.iter().map(|file| file.data.end()).sum()
}

struct Diff<'a> {
    out: &'a mut dyn Write,
    files: &'a [OpenedFile; 2],
    is_json: bool,
    max: u64,
    /// Lines of the present list.
    printed: u64,
    progress: Option<Progress>,
}

impl Diff<'_> {
    fn show(&mut self, done: u64) {
        if let Some(progress) = &mut self.progress {
            progress.show(done);
        }
    }

    /// Whether the transactions are the same.
    fn history(&mut self, sums: &mut Value) -> Result<bool, Trouble> {
        let [a, b] = self.files;
        let by_values = a.of_server.is_some() || b.of_server.is_some();
        let mut steps = HistoryDiff::new(&a.data, &b.data, by_values);
        let (mut same, mut only, mut differing, mut damaged) = (0_u64, [0_u64; 2], 0_u64, 0_u64);
        let mut parting = None;
        while let Some(step) = steps.next_step()? {
            let first = match &step {
                HistoryStep::Same => {
                    same += 1;
                    None
                }
                HistoryStep::Only(side, txn) => {
                    only[*side as usize] += 1;
                    Some(txn.header.tid)
                }
                HistoryStep::Differs(txn, _) => {
                    differing += 1;
                    Some(txn.header.tid)
                }
                HistoryStep::Damage(..) => {
                    damaged += 1;
                    None
                }
            };
            parting = parting.or(first.map(|tid| (tid, same)));
            self.print_step(&step)?;
            self.show(steps.pos().iter().sum());
        }
        let are_same = parting.is_none() && damaged == 0;
        let more = self.end_list();
        if let Some(fields) = sums.as_object_mut() {
            fields.insert("same_transactions".into(), same.into());
            fields.insert("only_in_a".into(), only[0].into());
            fields.insert("only_in_b".into(), only[1].into());
            fields.insert("differing_transactions".into(), differing.into());
            fields.insert("damages".into(), damaged.into());
            fields.insert("parting".into(), parting.map(|(tid, _)| tid.to_string()).into());
        }
        if self.is_json {
            return Ok(are_same);
        }
        if more > 0 {
            writeln!(self.out, "... and {} more", grouped(more))?;
        }
        if let Some((tid, before)) = parting {
            let before = grouped(before);
            writeln!(
                self.out,
                "the histories part at {tid} of {}; the same before: {before}",
                timestamp(tid)
            )?;
        }
        let [only_a, only_b] = only.map(grouped);
        let (same, differing) = (grouped(same), grouped(differing));
        writeln!(
            self.out,
            "transactions: the same {same}, only in {} {only_a}, only in {} {only_b}, different {differing}",
            a.name, b.name
        )?;
        Ok(are_same)
    }

    fn print_step(&mut self, step: &HistoryStep) -> Result<(), Trouble> {
        let (side, txn, difference) = match step {
            HistoryStep::Same => return Ok(()),
            HistoryStep::Only(side, txn) => (Some(*side), txn, None),
            HistoryStep::Differs(txn, difference) => (None, txn, Some(difference)),
            HistoryStep::Damage(side, damage) => {
                if !self.is_printed() {
                    return Ok(());
                }
                let (file, pos, end) = (&self.files[*side as usize].name, damage.pos, damage.end);
                let what = &damage.what;
                match self.is_json {
                    true => {
                        let value = json!({"kind": "damage", "in": name(*side), "pos": pos, "end": end, "what": what});
                        writeln!(self.out, "{value}")?;
                    }
                    false => writeln!(
                        self.out,
                        "{file}: DAMAGED from {pos} to {end}: {}",
                        one_line(1000, format_args!("{what}"))
                    )?,
                }
                return Ok(());
            }
        };
        if self.is_printed() { self.print_transaction(side, txn, difference) } else { Ok(()) }
    }

    fn print_transaction(
        &mut self,
        side: Option<Side>,
        txn: &FoundTxn,
        difference: Option<&TxnDifference>,
    ) -> Result<(), Trouble> {
        let file = &self.files[side.unwrap_or(Side::A) as usize];
        let meta = Walk::from(&file.data, txn.pos).meta(txn)?;
        let tid = txn.header.tid;
        if self.is_json {
            let mut value = json!({
                "kind": "transaction",
                "in": side.map_or("both", name),
                "tid": tid.to_string(),
                "time": tid.to_iso(),
                "differs": difference.map(words),
            });
            if let (Some(pos), Some(fields)) = (file.shown_pos(txn.pos), value.as_object_mut()) {
                fields.insert("pos".into(), pos.into());
            }
            writeln!(self.out, "{value}")?;
            return Ok(());
        }
        let place = side.map_or_else(|| "different".into(), |_| format!("only in {}", file.name));
        write!(self.out, "{place}: {}  {tid}", timestamp(tid))?;
        match difference {
            Some(difference) => writeln!(self.out, "  {}", words(difference).join(", "))?,
            None => writeln!(
                self.out,
                "  user \"{}\", description \"{}\"",
                shown(&meta.user),
                shown(&meta.description)
            )?,
        }
        Ok(())
    }

    /// Whether the newest records are the same.
    fn objects(&mut self, sums: &mut Value) -> Result<bool, Trouble> {
        let [a, b] = self.files;
        let done = total(self.files);
        let a_newest = Newest::read(&a.data, &mut |pos| self.show(done + pos))?;
        let b_newest = Newest::read(&b.data, &mut |pos| self.show(done + a.data.end() + pos))?;
        let newest = [&a_newest, &b_newest];
        let mut objects = ObjectDiff::new([&a.data, &b.data], newest);
        let (mut only, mut other_data, mut other_tid) = ([0_u64; 2], 0_u64, 0_u64);
        while let Some(difference) = objects.next_difference()? {
            match difference.tids {
                [Some(_), None] => only[0] += 1,
                [None, _] => only[1] += 1,
                _ if difference.same_data => other_tid += 1,
                _ => other_data += 1,
            }
            if self.is_printed() {
                self.print_object(newest, &difference)?;
            }
            let before = if objects.pos().0 == Side::A { 0 } else { a.data.end() };
            self.show(2 * done + before + objects.pos().1);
        }
        let more = self.end_list();
        let same = objects.same;
        if let Some(fields) = sums.as_object_mut() {
            fields.insert("same_objects".into(), same.into());
            fields.insert("objects_only_in_a".into(), only[0].into());
            fields.insert("objects_only_in_b".into(), only[1].into());
            fields.insert("other_data".into(), other_data.into());
            fields.insert("other_tid".into(), other_tid.into());
        }
        let are_same = only == [0, 0] && other_data == 0 && other_tid == 0;
        if self.is_json {
            return Ok(are_same);
        }
        if more > 0 {
            writeln!(self.out, "... and {} more", grouped(more))?;
        }
        let [only_a, only_b, same, other_data] = [only[0], only[1], same, other_data].map(grouped);
        write!(
            self.out,
            "objects: the same {same}, only in {} {only_a}, only in {} {only_b}, different {other_data}",
            a.name, b.name
        )?;
        if other_tid > 0 {
            write!(self.out, ", the same data in another transaction {}", grouped(other_tid))?;
        }
        writeln!(self.out)?;
        Ok(are_same)
    }

    fn print_object(&mut self, newest: [&Newest; 2], difference: &ObjectDifference) -> Result<(), Trouble> {
        let oid = difference.oid;
        let from = usize::from(difference.tids[0].is_none());
        let mut data = Vec::new();
        let class = match difference.unreadable {
            true => None,
            false => newest[from].load(&self.files[from].data, oid, &mut data)?.map(|_| class_of(&data)),
        };
        if self.is_json {
            let [a, b] = difference.tids.map(|tid| tid.map(|tid| tid.to_string()));
            let value = json!({
                "kind": "object",
                "oid": oid.to_string(),
                "class": class,
                "a": a,
                "b": b,
                "same_data": difference.same_data,
                "unreadable": difference.unreadable,
            });
            writeln!(self.out, "{value}")?;
            return Ok(());
        }
        let class = class.map_or_else(String::new, |class| one_line(200, format_args!(" {class}")));
        write!(self.out, "{}{class}: ", oid_repr(oid))?;
        let of = |tid: Tid, file: &OpenedFile| format!("{} {tid} in {}", timestamp(tid), file.name);
        let [a, b] = self.files;
        match difference.tids {
            [Some(tid), None] => writeln!(self.out, "only in {}, of {} {tid}", a.name, timestamp(tid))?,
            [None, Some(tid)] => writeln!(self.out, "only in {}, of {} {tid}", b.name, timestamp(tid))?,
            [Some(x), Some(y)] if x == y && difference.unreadable => {
                writeln!(self.out, "cannot be read in one of the files, of {} {x}", timestamp(x))?;
            }
            [Some(x), Some(y)] if x == y => {
                writeln!(self.out, "different data in the same transaction {} {x}", timestamp(x))?;
            }
            [Some(x), Some(y)] => {
                let same = if difference.same_data { ", the same data" } else { "" };
                writeln!(self.out, "of {}, of {}{same}", of(x, a), of(y, b))?;
            }
            [None, None] => writeln!(self.out)?,
        }
        Ok(())
    }

    /// Whether one more line of the present list is printed.
    fn is_printed(&mut self) -> bool {
        self.printed += 1;
        self.printed <= self.max
    }

    /// How many lines were not printed.
    fn end_list(&mut self) -> u64 {
        std::mem::take(&mut self.printed).saturating_sub(self.max)
    }
}

fn name(side: Side) -> &'static str {
    match side {
        Side::A => "a",
        Side::B => "b",
    }
}

fn words(difference: &TxnDifference) -> Vec<String> {
    let TxnDifference { user, description, extension, records, oids, other_objects_from } = difference;
    let parts = [(*user, "user"), (*description, "description"), (*extension, "extension")];
    let mut words: Vec<String> =
        parts.into_iter().filter(|(differs, _)| *differs).map(|(_, word)| word.into()).collect();
    if *records > 0 {
        let named: Vec<String> = oids.iter().map(|oid| oid_repr(*oid)).collect();
        let more = if *records > oids.len() as u64 { " ..." } else { "" };
        words.push(format!("data of {} records: {}{more}", grouped(*records), named.join(" ")));
    }
    if let Some(oid) = other_objects_from {
        words.push(format!("other objects from {} on", oid_repr(*oid)));
    }
    words
}

//! What a pack would remove, in words and as JSON: for `zeofs pack-plan` and `zeopack --dry-run`.

use std::io::{self, Write};

use serde_json::json;

use super::text::{oid_repr, timestamp};
use crate::base::numbers::grouped;
use crate::base::untrusted::one_line;
use crate::storage::{Dangling, PackPlan, Removal};

/// Whether one of the packs would fail or be refused.
pub fn has_findings(plans: &[PackPlan]) -> bool {
    plans.iter().any(|plan| plan.dangling_count > 0 || plan.refusal.is_some())
}

/// Prints the plan of one pack, or those of one with garbage collection and one without, in this order. `with_blobs`:
/// these were looked for. `max`: dangling references that are named.
pub fn print(out: &mut dyn Write, plans: &[PackPlan], with_blobs: bool, max: usize) -> io::Result<()> {
    let Some(first) = plans.first() else { return Ok(()) };
    let alone = match (plans.len(), first.gc) {
        (1, true) => ", with garbage collection,",
        (1, false) => ", without garbage collection,",
        _ => "",
    };
    writeln!(out, "a pack to {} UTC{alone} would remove", timestamp(first.stop))?;
    print_table(out, first, plans, with_blobs)?;
    print_free(out, first, plans)?;
    for plan in plans {
        if let Some(refusal) = &plan.refusal {
            let gc = if plan.gc { "with" } else { "without" };
            let why = one_line(1000, format_args!("{refusal}"));
            writeln!(out, "\nthe pack {gc} GC would be REFUSED, and remove nothing: {why}")?;
        }
    }
    print_dangling(out, plans, max)
}

fn print_table(
    out: &mut dyn Write,
    first: &PackPlan,
    plans: &[PackPlan],
    with_blobs: bool,
) -> io::Result<()> {
    writeln!(out)?;
    let mut line = |name: &str, now: String, removed: &dyn Fn(&PackPlan) -> String| {
        write!(out, "{name:<16} {now:>18}")?;
        plans.iter().try_for_each(|plan| write!(out, " {:>18}", removed(plan)))?;
        writeln!(out)
    };
    // The second column has the only pack, or the one with garbage collection.
    let is_first = |plan: &PackPlan| std::ptr::eq(plan, first);
    line("", "OF NOW".into(), &|plan| if is_first(plan) { "REMOVED" } else { "WITHOUT GC" }.into())?;
    line("objects", grouped(first.objects.before), &|plan| grouped(plan.objects.removed))?;
    line("revisions", grouped(first.revisions.before), &|plan| grouped(plan.revisions.removed))?;
    line("transactions", grouped(first.transactions.before), &|plan| grouped(plan.transactions.removed))?;
    // A file can get longer: data takes the place of a back-pointer.
    line("bytes", grouped(first.size), &|plan| match plan.size.checked_sub(plan.size_after) {
        Some(freed) => grouped(freed),
        None => format!("-{}", grouped(plan.size_after - plan.size)),
    })?;
    if with_blobs {
        line("blobs (files)", String::new(), &|plan| grouped(plan.blobs))?;
        line("bytes of blobs", String::new(), &|plan| grouped(plan.blob_bytes))?;
    }
    Ok(())
}

/// What the pack needs beside the file.
fn print_free(out: &mut dyn Write, first: &PackPlan, plans: &[PackPlan]) -> io::Result<()> {
    write!(out, "\nthe packed file has {} bytes", grouped(first.size_after))?;
    if let Some(without) = plans.get(1) {
        write!(out, ", without GC {}", grouped(without.size_after))?;
    }
    match first.free {
        Some(free) => writeln!(out, "\non the disk of the file {} bytes are free", grouped(free)),
        None => writeln!(out, "\nhow many bytes are free beside the file is not known"),
    }
}

fn print_dangling(out: &mut dyn Write, plans: &[PackPlan], max: usize) -> io::Result<()> {
    let Some(plan) = plans.iter().find(|plan| plan.dangling_count > 0) else { return Ok(()) };
    writeln!(
        out,
        "\nthe pack with GC would FAIL, and remove nothing: {} references to objects that do not exist",
        grouped(plan.dangling_count)
    )?;
    for Dangling { from, to } in plan.dangling.iter().take(max) {
        match from {
            Some(from) => writeln!(out, "    {} refers to {}", oid_repr(*from), oid_repr(*to))?,
            None => writeln!(out, "    there is no root object")?,
        }
    }
    match plan.dangling_count.saturating_sub(max as u64) {
        0 => Ok(()),
        more => writeln!(out, "    ... and {} more (-n N)", grouped(more)),
    }
}

/// Prints a JSON object for each plan, then one for each dangling reference.
pub fn print_json(out: &mut dyn Write, plans: &[PackPlan], max: usize) -> io::Result<()> {
    for plan in plans {
        let of = |of: Removal| json!({"before": of.before, "removed": of.removed});
        let value = json!({
            "kind": "plan",
            "gc": plan.gc,
            "stop": plan.stop.to_string(),
            "objects": of(plan.objects),
            "revisions": of(plan.revisions),
            "transactions": of(plan.transactions),
            "size": plan.size,
            "size_after": plan.size_after,
            "blobs": plan.blobs,
            "blob_bytes": plan.blob_bytes,
            "dangling": plan.dangling_count,
            "refusal": plan.refusal,
            "free": plan.free,
        });
        writeln!(out, "{value}")?;
    }
    for Dangling { from, to } in plans.iter().flat_map(|plan| plan.dangling.iter().take(max)) {
        let from = from.map(|from| from.to_string());
        writeln!(out, "{}", json!({"kind": "dangling", "from": from, "to": to.to_string()}))?;
    }
    Ok(())
}

//! Tables in Markdown from outcomes: medians over the rounds with their range, then ratios to the first server.

use crate::clients::{OURS, RAW};
use crate::outcome::Outcome;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Key of a figure, its title, and whether its ratio between servers is meaningful.
type Figure = (&'static str, &'static str, bool);

const CACHED: &[Figure] = &[("loads_s", "loads/s", true), ("client_us", "client CPU µs/load", true)];

/// The figures of each kind of workload, the most important first. A kind is all workloads whose names start alike.
const FIGURES: &[(&str, &[Figure])] = &[
    (
        "read",
        &[
            ("loads_s", "loads/s", true),
            ("p50_us", "median µs", true),
            ("p99_us", "p99 µs", false),
            ("server_us", "server CPU µs/load", true),
            ("server_cores", "server cores", false),
            ("database_cores", "cores of PostgreSQL", false),
        ],
    ),
    (
        "commit",
        &[
            ("commits_s", "commits/s", true),
            ("p50_us", "median µs", true),
            ("p99_us", "p99 µs", false),
            ("longest_ms", "longest wait ms", false),
            ("longest_medians", "longest wait in medians", false),
            ("fair", "fair (1 = equal)", false),
            ("server_us", "server CPU µs/commit", true),
            ("database_cores", "cores of PostgreSQL", false),
            ("replica_cores", "cores of the replica", false),
        ],
    ),
    ("catch", &[("mb_s", "MB/s", true)]),
    (
        "contend",
        &[
            ("commits_s", "commits/s", true),
            ("conflicts", "conflicts/commit", false),
            ("fair", "fair (1 = equal)", false),
            ("longest_ms", "longest wait ms", false),
            ("longest_medians", "longest wait in medians", false),
        ],
    ),
    (
        "mixed",
        &[
            ("loads_s", "loads/s", true),
            ("commits_s", "commits/s", true),
            ("p99_us", "load p99 µs", false),
            ("commit_p50_us", "commit median µs", true),
            ("longest_ms", "longest commit ms", false),
        ],
    ),
    ("warm", CACHED),
    ("file", CACHED),
    (
        "cold",
        &[
            ("loads_s", "loads/s", true),
            ("client_us", "client CPU µs/load", true),
            ("p50_us", "median µs", false),
            ("p99_us", "p99 µs", false),
        ],
    ),
    (
        "commits",
        &[
            ("commits_s", "commits/s", true),
            ("client_us", "client CPU µs/commit", true),
            ("p50_us", "median µs", false),
        ],
    ),
    ("reconnect", &[("verified_ms", "verified after ms", true), ("kept", "kept (1 = all)", false)]),
    (
        "open",
        &[
            ("ended_ms", "after an orderly end: ms", true),
            ("ended_cpu_ms", "the same: CPU ms", true),
            ("ended_cold_ms", "the same from the disk: ms", true),
            ("killed_ms", "after a kill: ms", true),
            ("killed_cpu_ms", "the same: CPU ms", true),
            ("killed_cold_ms", "the same from the disk: ms", true),
            ("revisions", "revisions", false),
            ("ended_bytes", "memory: bytes/revision", false),
            ("killed_bytes", "memory after a kill: bytes/revision", false),
        ],
    ),
    (
        "through",
        &[
            ("loads_s", "loads/s", true),
            ("commits_s", "commits/s", true),
            ("p50_us", "median µs", false),
            ("server_us", "server CPU µs", false),
        ],
    ),
    (
        "fanout",
        &[
            ("last_p50_us", "last listener median µs", true),
            ("last_p99_us", "last listener p99 µs", false),
            ("after_p50_us", "last listener after the reply, median µs", true),
            ("after_p99_us", "last listener after the reply, p99 µs", false),
            ("reply_p50_us", "committer median µs", true),
            ("server_us", "server CPU µs/listener", true),
        ],
    ),
    ("connect", CONNECTIONS),
    ("burst", CONNECTIONS),
    (
        "start",
        &[
            ("answer_ms", "answers after ms", true),
            ("listen_ms", "listens after ms", false),
            ("scan_mb_s", "MB/s", false),
            ("start_cpu_s", "CPU s", true),
            ("rss_mb", "memory MB", false),
            ("peak_mb", "peak memory MB", false),
            ("object_bytes", "bytes/object", false),
        ],
    ),
    (
        "pack",
        &[
            ("mb_s", "MB/s", true),
            ("longest_ms", "longest commit ms", true),
            ("held_ms", "commits held ms", false),
            ("load_p99_us", "load p99 µs", false),
            ("more_mb", "memory MB more", false),
            ("kept", "kept of the file", false),
        ],
    ),
    (
        "beside",
        &[
            ("alone_s", "loads/s alone", false),
            ("loads_s", "loads/s beside", false),
            ("commits_s", "commits/s", false),
            ("taken", "taken of the CPU", false),
            ("kept", "kept of the rest", false),
        ],
    ),
    ("undolog", &[("calls_s", "calls/s", true), ("p50_us", "median µs", true)]),
    ("iterate", &[("mb_s", "MB/s", true), ("records_s", "records/s", true)]),
    (
        "blob",
        &[
            ("mb_s", "MB/s", true),
            ("server_us", "server CPU µs/MB", true),
            ("peak_mb", "peak memory MB", false),
        ],
    ),
    (
        "resolve",
        &[
            ("resolutions_s", "resolutions/s", true),
            ("server_us", "server CPU µs/plain and merged store", true),
        ],
    ),
    ("total", &[("total_cpu_s", "CPU s of a round", false), ("peak_mb", "peak memory MB", false)]),
];

const CONNECTIONS: &[Figure] = &[
    ("served", "served within 10 s", false),
    ("sessions", "sessions of the database", false),
    ("all_s", "all connected after s", true),
    ("kb_each", "memory KB/connection", false),
    ("server_us", "server CPU µs/connection", true),
];

/// The values of one server in one figure of one workload, by round.
type Rounds = Vec<(u32, f64)>;

/// All tables. The columns are in the order of `servers`; other servers come last.
pub fn tables(outcomes: &[Outcome], servers: &[&str]) -> String {
    let servers = labels(outcomes, servers);
    let rows = rows(outcomes, &servers);
    let Some(base) = servers.first() else { return "No results.\n".into() };
    let mut text = medians(&rows, &servers);
    if servers.len() > 1 {
        let _ = write!(text, "\nRatio to `{base}` within a round, median (lowest..highest).\n\n");
        let to_base = |row: &Row<'_>| {
            row.rounds.iter().skip(1).map(|rounds| spread(ratios(rounds, &row.rounds[0]))).collect()
        };
        ratio_table(&mut text, &rows, &servers[1..], to_base);
    }
    text + &others(outcomes) + &failures(outcomes)
}

/// All tables of clients: the ratios are those of this program's to each other client.
pub fn tables_of_clients(outcomes: &[Outcome]) -> String {
    let labels = labels(outcomes, &[OURS, RAW]);
    let rows = rows(outcomes, &labels);
    let mut text = medians(&rows, &labels);
    if labels.first() == Some(&OURS) && labels.len() > 1 {
        let _ =
            write!(text, "\n`{OURS}` divided by each other within a round, median (lowest..highest).\n\n");
        let of_ours = |row: &Row<'_>| {
            row.rounds.iter().skip(1).map(|rounds| spread(ratios(&row.rounds[0], rounds))).collect()
        };
        ratio_table(&mut text, &rows, &labels[1..], of_ours);
    }
    text + &others(outcomes) + &failures(outcomes)
}

/// All tables of databases: ratios to RelStorage, and to this program's server with a file. What PostgreSQL uses of
/// the machine is a figure of its own, so what other programs use is not told apart.
pub fn tables_of_databases(outcomes: &[Outcome]) -> String {
    use crate::postgres::{FILE, OURS, RELSTORAGE, TWO};
    let labels = labels(outcomes, &[RELSTORAGE, OURS, TWO, FILE]);
    let rows = rows(outcomes, &labels);
    let mut text = medians(&rows, &labels);
    for base in [RELSTORAGE, FILE] {
        let Some(at) = labels.iter().position(|label| *label == base) else { continue };
        let _ = write!(text, "\nRatio to `{base}` within a round, median (lowest..highest).\n\n");
        let to_base =
            |row: &Row<'_>| row.rounds.iter().map(|rounds| spread(ratios(rounds, &row.rounds[at]))).collect();
        ratio_table(&mut text, &rows, &labels, to_base);
    }
    text + &failures(outcomes)
}

/// All tables of replication: ratios to a server alone, and to a copy of the file.
pub fn tables_of_replication(outcomes: &[Outcome]) -> String {
    use crate::replication::{ALONE, ASYNCHRONOUS, COPY, SYNCHRONOUS};
    let labels = labels(outcomes, &[ALONE, ASYNCHRONOUS, SYNCHRONOUS, COPY]);
    let rows = rows(outcomes, &labels);
    let mut text = medians(&rows, &labels);
    for base in [ALONE, COPY] {
        let Some(at) = labels.iter().position(|label| *label == base) else { continue };
        let _ = write!(text, "\nRatio to `{base}` within a round, median (lowest..highest).\n\n");
        let to_base =
            |row: &Row<'_>| row.rounds.iter().map(|rounds| spread(ratios(rounds, &row.rounds[at]))).collect();
        ratio_table(&mut text, &rows, &labels, to_base);
    }
    text + &others(outcomes) + &failures(outcomes)
}

/// The labels of the outcomes, `first` first.
fn labels<'a>(outcomes: &'a [Outcome], first: &[&'a str]) -> Vec<&'a str> {
    let all = in_order(first.iter().copied().chain(outcomes.iter().map(|outcome| outcome.label.as_str())));
    all.into_iter().filter(|label| outcomes.iter().any(|outcome| outcome.label == *label)).collect()
}

fn medians(rows: &[Row<'_>], labels: &[&str]) -> String {
    let mut text = "Median over the rounds (lowest..highest).\n\n".to_string();
    head(&mut text, labels);
    for row in rows {
        let cells = row.rounds.iter().map(|rounds| spread(rounds.iter().map(|(_, value)| *value).collect()));
        line(&mut text, row, cells);
    }
    text
}

/// A table of the rows that compare, without those that have no ratio.
fn ratio_table(
    text: &mut String,
    rows: &[Row<'_>],
    labels: &[&str],
    cells: impl Fn(&Row<'_>) -> Vec<String>,
) {
    head(text, labels);
    for row in rows.iter().filter(|row| row.compares) {
        let ratios = cells(row);
        if ratios.iter().any(|ratio| ratio != "-") {
            line(text, row, ratios.into_iter());
        }
    }
}

/// What other programs used of the machine.
fn others(outcomes: &[Outcome]) -> String {
    let mut others: Vec<f64> = outcomes.iter().filter_map(|o| o.figures.get("others").copied()).collect();
    others.sort_by(f64::total_cmp);
    match (median(&others), others.last()) {
        (Some(middle), Some(worst)) => format!(
            "\nOther programs used {:.0} % of the machine while it was measured (median; at worst {:.0} %).\n",
            middle * 100.0,
            worst * 100.0
        ),
        _ => String::new(),
    }
}

/// The most important figures of an outcome, in one line.
pub fn headline(outcome: &Outcome) -> String {
    let shown = figures_of(&outcome.workload).iter().filter_map(|(key, title, _)| {
        let value = outcome.figures.get(*key)?;
        Some(format!("{} {title}", number(*value)))
    });
    shown.take(3).collect::<Vec<_>>().join(", ")
}

struct Row<'a> {
    workload: &'a str,
    title: &'static str,
    compares: bool,
    /// One for each server.
    rounds: Vec<Rounds>,
}

fn rows<'a>(outcomes: &'a [Outcome], servers: &[&str]) -> Vec<Row<'a>> {
    let mut rows = vec![];
    let workloads = in_order(outcomes.iter().map(|outcome| outcome.workload.as_str()));
    // `total` is shown last, even if later rounds have new workloads.
    let (total, others): (Vec<&str>, Vec<&str>) = workloads.into_iter().partition(|name| *name == "total");
    for workload in others.into_iter().chain(total) {
        for &(key, title, compares) in figures_of(workload) {
            let of = |server: &&str| -> Rounds {
                let found = outcomes.iter().filter(|o| o.workload == workload && o.label == **server);
                found.filter_map(|o| Some((o.round, *o.figures.get(key)?))).collect()
            };
            let rounds: Vec<Rounds> = servers.iter().map(of).collect();
            if rounds.iter().any(|rounds| !rounds.is_empty()) {
                rows.push(Row { workload, title, compares, rounds });
            }
        }
    }
    rows
}

fn figures_of(workload: &str) -> &'static [Figure] {
    let kind = workload.split('-').next().unwrap_or_default();
    FIGURES.iter().find(|(name, _)| *name == kind).map_or(&[], |(_, figures)| figures)
}

fn ratios(rounds: &Rounds, base: &Rounds) -> Vec<f64> {
    let ratio = |(round, value): &(u32, f64)| {
        let (_, base) = base.iter().find(|(other, base)| other == round && *base != 0.0)?;
        Some(value / base)
    };
    rounds.iter().filter_map(ratio).collect()
}

fn failures(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for outcome in outcomes {
        if let Some(failure) = &outcome.failure {
            let (round, workload, label) = (outcome.round, &outcome.workload, &outcome.label);
            let _ = writeln!(text, "- round {round}, {workload}, {label}: {failure}");
        }
    }
    if text.is_empty() { text } else { format!("\nFailures:\n\n{text}") }
}

fn head(text: &mut String, servers: &[&str]) {
    let _ = writeln!(text, "| workload | figure | {} |", servers.join(" | "));
    let _ = writeln!(text, "|---|---|{}", "--:|".repeat(servers.len()));
}

fn line(text: &mut String, row: &Row<'_>, cells: impl Iterator<Item = String>) {
    let cells: Vec<String> = cells.collect();
    let _ = writeln!(text, "| {} | {} | {} |", row.workload, row.title, cells.join(" | "));
}

/// `median (lowest..highest)`
fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    match (median(&values), values.as_slice()) {
        (Some(middle), [low, .., high]) => {
            format!("{} ({}..{})", number(middle), number(*low), number(*high))
        }
        (Some(middle), _) => number(middle),
        (None, _) => "-".into(),
    }
}

/// The median of sorted values.
fn median(sorted: &[f64]) -> Option<f64> {
    let (low, high) = (sorted.get((sorted.len().max(1) - 1) / 2)?, sorted.get(sorted.len() / 2)?);
    Some((low + high) / 2.0)
}

/// Three significant digits.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        x if x >= 100.0 => 0,
        x if x >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

fn in_order<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| seen.insert(*name)).collect()
}

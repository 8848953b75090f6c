//! The alerts and the dashboard of `contrib/`: they ask for metrics that there are, and `promtool` takes them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Served;

fn contrib(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib").join(name)
}

/// The words of a text that look like names of metrics of ours.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("zeo_") || word.starts_with("process_")).collect()
}

/// The names and labels of the table in docs/monitoring.md, which another test compares with the server's.
fn documented() -> (BTreeSet<String>, BTreeSet<String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring.md");
    let text = fs::read_to_string(path).unwrap();
    let (mut metrics, mut labels) = (BTreeSet::new(), BTreeSet::new());
    for row in text.lines().filter(|line| line.starts_with("| `zeo_") || line.starts_with("| `process_")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let name = cells[1].trim_matches('`');
        match cells[2] {
            "histogram" => {
                metrics.extend(["bucket", "sum", "count"].map(|suffix| format!("{name}_{suffix}")));
            }
            _ => drop(metrics.insert(name.to_string())),
        }
        labels.extend(cells[3].split(", ").map(|label| label.trim_matches('`').to_string()));
    }
    (metrics, labels)
}

#[test]
fn alerts_and_dashboard_ask_for_what_there_is() {
    let (metrics, mut labels) = documented();
    // Of Prometheus itself.
    labels.extend(["instance", "job", "le"].map(String::from));
    for file in ["prometheus/zeo-alerts.yml", "prometheus/zeo-alerts-test.yml", "grafana/zeo.json"] {
        let text = fs::read_to_string(contrib(file)).unwrap();
        let used = names(&text);
        assert!(used.len() > 10, "{file}: {used:?}");
        for name in used {
            assert!(metrics.contains(name), "{file}: there is no metric {name}");
        }
        // `sum by (a, b)`, and `$labels.a`.
        let groups = text.split(" by (").skip(1).filter_map(|rest| rest.split(')').next());
        let shown = text.split("$labels.").skip(1);
        let shown =
            shown.map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap());
        for label in groups.flat_map(|group| group.split(", ")).chain(shown) {
            assert!(labels.contains(label), "{file}: there is no label {label}");
        }
    }
}

#[test]
fn the_dashboard_is_whole() {
    let text = fs::read_to_string(contrib("grafana/zeo.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{}", panel["title"]);
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{} lies on another panel", panel["title"]);
            }
        }
        if panel["type"] != "row" {
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{}", panel["title"]);
            for target in targets {
                let query = target["expr"].as_str().unwrap();
                assert!(query.contains("$instance"), "{}: of all servers", panel["title"]);
                assert_eq!(query.matches('(').count(), query.matches(')').count(), "{query}");
            }
        }
    }
}

/// Alerts fire when they should, and not else; the server's text has the form that Prometheus wants.
#[test]
fn promtool_takes_them() {
    let promtool = |arguments: &[&str]| {
        let mut command = Command::new("promtool");
        command.args(arguments).current_dir(contrib("prometheus"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    if promtool(&["--version"]).output().is_err() {
        let _ = writeln!(std::io::stderr(), "\nSKIPPED: no promtool");
        return;
    }
    for arguments in [["check", "rules", "zeo-alerts.yml"], ["test", "rules", "zeo-alerts-test.yml"]] {
        let output = promtool(&arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let served = Served::start();
    let text = served.get("/metrics").body;
    let mut check = promtool(&["check", "metrics"]).spawn().unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

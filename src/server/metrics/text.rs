//! The text forms of metrics: OpenMetrics 1.0, and the older one of Prometheus (0.0.4). They differ in the names of
//! counters in the lines about them, and in the last line.
//!
//! A family is announced also if it has no samples at the moment, so that the text lists all that there are.

use std::fmt::Write;

use crate::base::histogram::Distribution;

/// Which form.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TextForm {
    OpenMetrics,
    Prometheus,
}

/// The kind of a family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FamilyKind {
    /// It only grows. The names of its samples end in `_total`.
    Counter,
    Gauge,
    Histogram,
    /// A gauge that is 1, whose labels say something. The names of its samples end in `_info`.
    Info,
}

/// The value of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Whole(u64),
    Real(f64),
}

/// Name and value of each label.
pub type Labels<'a> = [(&'a str, &'a str)];

/// Metrics as text, family by family.
#[derive(Debug)]
pub struct MetricsText {
    form: TextForm,
    text: String,
}

/// A family, for its samples.
#[derive(Debug)]
pub struct Family<'a> {
    out: &'a mut MetricsText,
    kind: FamilyKind,
    name: &'static str,
}

impl MetricsText {
    pub fn new(form: TextForm) -> MetricsText {
        MetricsText { form, text: String::new() }
    }

    /// Begins a family. `name` has no `_total` and no `_info`; `help` is one line.
    pub fn family(&mut self, kind: FamilyKind, name: &'static str, help: &str) -> Family<'_> {
        let (shown, type_name) = match (self.form, kind) {
            (TextForm::OpenMetrics, FamilyKind::Counter) => (name.to_string(), "counter"),
            (TextForm::OpenMetrics, FamilyKind::Info) => (name.to_string(), "info"),
            (TextForm::Prometheus, FamilyKind::Counter) => (format!("{name}_total"), "counter"),
            (TextForm::Prometheus, FamilyKind::Info) => (format!("{name}_info"), "gauge"),
            (_, FamilyKind::Gauge) => (name.to_string(), "gauge"),
            (_, FamilyKind::Histogram) => (name.to_string(), "histogram"),
        };
        // Writing to a String cannot fail.
        let _ = write!(self.text, "# HELP {shown} {help}\n# TYPE {shown} {type_name}\n");
        Family { out: self, kind, name }
    }

    /// The whole text.
    pub fn finish(mut self) -> String {
        if self.form == TextForm::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn sample(&mut self, name: &str, suffix: &str, labels: &Labels<'_>, more: Option<&str>, value: Number) {
        self.text.push_str(name);
        self.text.push_str(suffix);
        let mut before = '{';
        for (label, value) in labels {
            self.text.push(before);
            before = ',';
            let _ = write!(self.text, "{label}=\"");
            value.chars().for_each(|c| push_escaped(c, &mut self.text));
            self.text.push('"');
        }
        if let Some(bound) = more {
            self.text.push(before);
            before = ',';
            let _ = write!(self.text, "le=\"{bound}\"");
        }
        if before == ',' {
            self.text.push('}');
        }
        let _ = match value {
            Number::Whole(value) => writeln!(self.text, " {value}"),
            Number::Real(value) => writeln!(self.text, " {value}"),
        };
    }
}

impl Family<'_> {
    /// Adds a sample of a counter, a gauge or an info.
    pub fn add(&mut self, labels: &Labels<'_>, value: impl Into<Number>) {
        let suffix = match self.kind {
            FamilyKind::Counter => "_total",
            FamilyKind::Info => "_info",
            FamilyKind::Gauge | FamilyKind::Histogram => "",
        };
        self.out.sample(self.name, suffix, labels, None, value.into());
    }

    /// The same, if there is a value.
    pub fn add_if_known(&mut self, labels: &Labels<'_>, value: Option<impl Into<Number>>) {
        if let Some(value) = value {
            self.add(labels, value);
        }
    }

    /// Adds the buckets of a histogram. `in_one`: how many units of its values the unit of the family has.
    pub fn add_histogram(&mut self, labels: &Labels<'_>, distribution: &Distribution, in_one: f64) {
        let Distribution { bounds, counts, sum } = distribution;
        let bounds = bounds.iter().map(|bound| format!("{:?}", *bound as f64 / in_one));
        let mut total = 0;
        for (bound, count) in bounds.chain(["+Inf".to_string()]).zip(counts) {
            total += count;
            self.out.sample(self.name, "_bucket", labels, Some(&bound), Number::Whole(total));
        }
        self.out.sample(self.name, "_sum", labels, None, Number::Real(*sum as f64 / in_one));
        self.out.sample(self.name, "_count", labels, None, Number::Whole(total));
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Number {
        Number::Whole(value)
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Number {
        Number::Whole(value as u64)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Number {
        Number::Real(value)
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Number {
        Number::Whole(value.into())
    }
}

fn push_escaped(c: char, text: &mut String) {
    match c {
        '\\' => text.push_str("\\\\"),
        '"' => text.push_str("\\\""),
        '\n' => text.push_str("\\n"),
        c => text.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(form: TextForm) -> String {
        let mut text = MetricsText::new(form);
        text.family(FamilyKind::Info, "zeo_build", "The program.").add(&[("version", "1.0")], 1_u64);
        let mut loads = text.family(FamilyKind::Counter, "zeo_loads", "Loads.");
        loads.add(&[("storage", "a\"b\\c\nd")], u64::MAX);
        text.family(FamilyKind::Gauge, "zeo_lock_waiters", "Waiters.").add(&[], 2.5);
        let distribution =
            Distribution { bounds: &[100_000, 1_000_000_000], counts: vec![2, 0, 1], sum: 3_000_000_000 };
        let mut times = text.family(FamilyKind::Histogram, "zeo_sync_seconds", "Syncs.");
        times.add_histogram(&[("storage", "1")], &distribution, 1e9);
        text.family(FamilyKind::Gauge, "zeo_empty", "Nothing.").add_if_known(&[], None::<u64>);
        text.finish()
    }

    #[test]
    fn both_forms_are_as_they_should_be() {
        let openmetrics = r#"# HELP zeo_build The program.
# TYPE zeo_build info
zeo_build_info{version="1.0"} 1
# HELP zeo_loads Loads.
# TYPE zeo_loads counter
zeo_loads_total{storage="a\"b\\c\nd"} 18446744073709551615
# HELP zeo_lock_waiters Waiters.
# TYPE zeo_lock_waiters gauge
zeo_lock_waiters 2.5
# HELP zeo_sync_seconds Syncs.
# TYPE zeo_sync_seconds histogram
zeo_sync_seconds_bucket{storage="1",le="0.0001"} 2
zeo_sync_seconds_bucket{storage="1",le="1.0"} 2
zeo_sync_seconds_bucket{storage="1",le="+Inf"} 3
zeo_sync_seconds_sum{storage="1"} 3
zeo_sync_seconds_count{storage="1"} 3
# HELP zeo_empty Nothing.
# TYPE zeo_empty gauge
# EOF
"#;
        assert_eq!(example(TextForm::OpenMetrics), openmetrics);
        let prometheus = openmetrics
            .replace("HELP zeo_build ", "HELP zeo_build_info ")
            .replace("TYPE zeo_build info", "TYPE zeo_build_info gauge")
            .replace("HELP zeo_loads ", "HELP zeo_loads_total ")
            .replace("TYPE zeo_loads ", "TYPE zeo_loads_total ")
            .replace("# EOF\n", "");
        assert_eq!(example(TextForm::Prometheus), prometheus);
    }
}

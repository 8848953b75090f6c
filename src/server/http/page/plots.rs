//! Plots of the last hour, as SVG: an area below a line, with the highest value and the present one in words. They
//! are drawn in a frame of their own units, which the page stretches.

use super::html::{Coordinates, Html};
use super::words;
use crate::base::numbers::{grouped, size};

/// The time that a plot shows.
const SECONDS: f64 = 3600.0;
/// The frame: a sample each ten seconds is a unit wide.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 60.0;
/// Samples further apart than this many intervals are not joined.
const INTERVALS_MAX: f64 = 2.5;

/// What is plotted.
pub struct Plot<'a> {
    /// In the plural, such as `Commits`.
    pub title: &'static str,
    pub unit: Unit,
    /// The present.
    pub now: f64,
    pub interval: f64,
    /// Unix times and values, the newest last.
    pub samples: &'a [(f64, f64)],
}

/// What values are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unit {
    ASecond,
    /// Values are a second, and shown a minute: they are seldom.
    AMinute,
    BytesASecond,
    Count,
}

impl Unit {
    fn of(self, value: f64) -> f64 {
        let value = if value.is_finite() { value.max(0.0) } else { 0.0 };
        if self == Unit::AMinute { value * 60.0 } else { value }
    }

    fn shown(self, value: f64) -> String {
        match self {
            Unit::ASecond => format!("{}/s", words::rate(value)),
            Unit::AMinute => format!("{}/min", words::rate(value)),
            Unit::BytesASecond => format!("{}/s", size(value)),
            Unit::Count => grouped(value.round() as u64),
        }
    }
}

impl Plot<'_> {
    /// The figure.
    pub fn figure(&self) -> Html {
        let from = self.now - SECONDS;
        let points: Vec<(f64, f64)> = self
            .samples
            .iter()
            .filter(|(at, _)| (from..=self.now + self.interval).contains(at))
            .map(|&(at, value)| (at, self.unit.of(value)))
            .collect();
        let mut html = Html::default();
        html.raw("<figure class=\"plot\"><figcaption><span>").raw(self.title).raw("</span>");
        let Some(&(last_at, last)) = points.last() else {
            html.raw("<span class=\"now\">–</span></figcaption><p class=\"none\">no sample yet</p></figure>");
            return html;
        };
        let is_present = self.now - last_at < INTERVALS_MAX * self.interval;
        let present = if is_present { self.unit.shown(last) } else { "–".into() };
        let highest =
            points.iter().fold(points[0], |best, point| if point.1 > best.1 { *point } else { best });
        let top = round_up(highest.1);
        html.raw("<span class=\"now\">")
            .text(&present)
            .raw("</span></figcaption><svg role=\"img\" viewBox=\"0 0 360 60\"");
        html.raw(" preserveAspectRatio=\"none\"");
        let (high, when) = (self.unit.shown(highest.1), words::clock(highest.0));
        let said = format!("{} in the last hour: now {present}, highest {high} at {when}", self.title);
        html.attribute("aria-label", &said);
        html.raw("><path class=\"grid\" d=\"M0 .5H360M0 30H360\"/>");
        let (line, area) = self.paths(&points, top);
        html.raw("<path class=\"area\" d=\"").coordinates(&area).raw("\"/>");
        html.raw("<path class=\"line\" d=\"").coordinates(&line).raw("\"/></svg>");
        html.raw("<p class=\"axis\"><span>1 h ago</span><span>");
        if highest.1 > 0.0 {
            html.raw("highest ").text(&high).raw(" at ").text(&when);
        }
        html.raw("</span><span>now</span></p><span class=\"top\" aria-hidden=\"true\">");
        html.text(&self.unit.shown(top)).raw("</span></figure>");
        html
    }

    /// The line, and the area below it.
    fn paths(&self, points: &[(f64, f64)], top: f64) -> (Coordinates, Coordinates) {
        let (mut line, mut area) = (Coordinates::default(), Coordinates::default());
        for part in points.chunk_by(|one, next| next.0 - one.0 <= INTERVALS_MAX * self.interval) {
            let place = |&(at, value): &(f64, f64)| {
                let x = (1.0 - (self.now - at) / SECONDS) * WIDTH;
                (x.clamp(0.0, WIDTH), HEIGHT - 1.0 - value / top * (HEIGHT - 2.0))
            };
            let [first, .., last] = part else {
                // A point alone: a line without a length has round ends.
                if let [only] = part {
                    let (x, y) = place(only);
                    line.point('M', x, y);
                    line.point('L', x, y);
                }
                continue;
            };
            area.point('M', place(first).0, HEIGHT);
            for (index, (x, y)) in part.iter().map(place).enumerate() {
                line.point(if index == 0 { 'M' } else { 'L' }, x, y);
                area.point('L', x, y);
            }
            area.point('L', place(last).0, HEIGHT);
            area.close();
        }
        (line, area)
    }
}

/// The next larger one of 1, 2, 5, 10, 20, ...; 1 at least.
fn round_up(value: f64) -> f64 {
    let mut step = 1.0;
    while step < 1e300 {
        for factor in [1.0, 2.0, 5.0] {
            if value <= step * factor {
                return step * factor;
            }
        }
        step *= 10.0;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(samples: &[(f64, f64)]) -> String {
        let plot = Plot { title: "Commits", unit: Unit::ASecond, now: 10_000.0, interval: 10.0, samples };
        plot.figure().into_string()
    }

    /// The value of the attribute `d` of a path.
    fn path<'a>(figure: &'a str, class: &str) -> &'a str {
        let (_, rest) = figure.split_once(&format!("class=\"{class}\" d=\"")).expect(class);
        rest.split('"').next().expect("an end")
    }

    #[test]
    fn without_samples_it_says_so() {
        assert!(figure(&[]).contains("no sample yet"));
        assert!(figure(&[(6000.0, 1.0)]).contains("no sample yet"), "too old");
    }

    #[test]
    fn one_sample_is_a_point() {
        let shown = figure(&[(10_000.0, 4.0)]);
        assert_eq!((path(&shown, "line"), path(&shown, "area")), ("M360 12.6L360 12.6", ""));
        assert!(shown.contains("<span class=\"now\">4.0/s</span>"), "{shown}");
        assert!(
            shown.contains("aria-label=\"Commits in the last hour: now 4.0/s, highest 4.0/s at "),
            "{shown}"
        );
        assert!(shown.contains("<span class=\"top\" aria-hidden=\"true\">5.0/s</span>"), "{shown}");
    }

    #[test]
    fn gaps_are_not_joined_and_an_old_value_is_not_the_present() {
        let shown = figure(&[(9000.0, 0.0), (9010.0, 1.0), (9500.0, 1.0), (9510.0, 0.0)]);
        assert_eq!(path(&shown, "line"), "M260 59L261 1M310 1L311 59");
        assert_eq!(path(&shown, "area"), "M260 60L260 59L261 1L261 60ZM310 60L310 1L311 59L311 60Z");
        assert!(shown.contains("<span class=\"now\">–</span>"), "{shown}");
    }

    #[test]
    fn large_small_and_impossible_values_stay_in_the_frame() {
        let values = [0.0, 1e-9, 1e30, -5.0, f64::NAN, f64::INFINITY, f64::MAX];
        let samples: Vec<(f64, f64)> =
            values.iter().zip(0..).map(|(value, n)| (9900.0 + 10.0 * f64::from(n), *value)).collect();
        for unit in [Unit::ASecond, Unit::AMinute, Unit::BytesASecond, Unit::Count] {
            let plot = Plot { title: "Loads", unit, now: 10_000.0, interval: 10.0, samples: &samples[..6] };
            let shown = plot.figure().into_string();
            for point in path(&shown, "line").split(['M', 'L']).filter(|point| !point.is_empty()) {
                let (x, y) = point.split_once(' ').expect("two numbers");
                let (x, y): (f64, f64) = (x.parse().expect("a number"), y.parse().expect("a number"));
                assert!((0.0..=WIDTH).contains(&x) && (0.0..=HEIGHT).contains(&y), "{point}");
            }
        }
        assert_eq!(
            [0.0, 1.0, 1.1, 3.0, 10.0, 11.0, 700.0].map(round_up),
            [1.0, 1.0, 2.0, 5.0, 10.0, 20.0, 1000.0]
        );
        assert!(round_up(f64::MAX) >= f64::MAX);
    }

    #[test]
    fn an_hour_is_short() {
        let samples: Vec<(f64, f64)> =
            (0..360).map(|n| (6410.0 + 10.0 * f64::from(n), f64::from(n % 7))).collect();
        assert!(figure(&samples).len() < 9000, "{}", figure(&samples).len());
    }
}

//! Numbers and times in words.

use super::html::Html;
use crate::base::local_time::LocalTime;
use crate::base::numbers::{grouped, local, span};

/// `0`, `0.04`, `3.1`, `27`, `1,234`
pub fn rate(number: f64) -> String {
    match number {
        _ if !number.is_finite() || number <= 0.0 => "0".into(),
        _ if number < 0.1 => format!("{number:.2}"),
        _ if number < 10.0 => format!("{number:.1}"),
        _ => grouped(number.round() as u64),
    }
}

/// `1 client`, `1,234 clients`
pub fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count as u64), if count == 1 { one } else { many })
}

/// A time as it was long ago, with the exact one behind it: `12 s ago`.
pub fn ago(unix: f64, now: f64) -> Html {
    let passed = now - unix;
    let shown = if passed < 1.0 { "just now".into() } else { format!("{} ago", span(passed)) };
    time(unix, &shown)
}

/// A time that is to come: `in 3 h 20 min`.
pub fn ahead(unix: f64, now: f64) -> Html {
    let left = unix - now;
    let shown = if left < 1.0 { "due".into() } else { format!("in {}", span(left)) };
    time(unix, &shown)
}

/// For how long something has been going on.
pub fn since(unix: f64, now: f64) -> Html {
    time(unix, &span((now - unix).max(0.0)))
}

/// Time of day, `12:03:10`.
pub fn clock(unix: f64) -> String {
    let mut shown = String::new();
    LocalTime::at(unix as i64).format(c"%H:%M:%S", &mut shown);
    shown
}

/// With the exact time for programs, and for people who point at it.
fn time(unix: f64, shown: &str) -> Html {
    let mut exact = String::new();
    LocalTime::at(unix as i64).format(c"%Y-%m-%dT%H:%M:%S%z", &mut exact);
    let mut html = Html::default();
    html.raw("<time").attribute("datetime", &exact).attribute("title", &local(unix)).raw(">");
    html.text(shown).raw("</time>");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_short() {
        let rates = [
            (0.0, "0"),
            (-1.0, "0"),
            (f64::NAN, "0"),
            (f64::INFINITY, "0"),
            (0.04, "0.04"),
            (3.12, "3.1"),
            (9.99, "10.0"),
            (27.4, "27"),
            (1_234_567.0, "1,234,567"),
            (1e300, "18,446,744,073,709,551,615"),
        ];
        for (number, shown) in rates {
            assert_eq!(rate(number), shown);
        }
        assert_eq!((&*counted(1, "client", "clients"), &*counted(0, "a", "b")), ("1 client", "0 b"));
    }

    #[test]
    fn times_are_relative_and_exact_ones_are_behind_them() {
        let shown = |html: Html| html.into_string();
        let text = shown(ago(1_000_000_000.0, 1_000_000_150.0));
        assert!(
            text.starts_with("<time datetime=\"2001-09-0") && text.ends_with("\">2 min ago</time>"),
            "{text}"
        );
        assert!(shown(ago(100.0, 99.0)).contains(">just now<"));
        assert!(shown(ahead(200.0, 100.0)).contains(">in 100 s<"));
        assert!(shown(ahead(100.0, 200.0)).contains(">due<"));
        assert!(shown(since(100.0, 90.0)).contains(">0.0 s<"));
        // Whatever a clock or a file says.
        for unix in [f64::MAX, f64::MIN, f64::NAN] {
            assert!(shown(ago(unix, 0.0)).starts_with("<time datetime="));
        }
    }
}

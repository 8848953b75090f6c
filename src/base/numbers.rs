//! Numbers, sizes and times as people read them.

use super::local_time::LocalTime;

/// `1,234,567`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.4 GB`
pub fn size(bytes: f64) -> String {
    let units = ["KB", "MB", "GB", "TB"];
    let mut size = bytes;
    let mut unit = "bytes";
    for larger in units {
        if size < 1000.0 {
            break;
        }
        size /= 1000.0;
        unit = larger;
    }
    let digits = usize::from(unit != "bytes" && size < 100.0);
    format!("{size:.digits$} {unit}")
}

/// `0.3 s`, `25 min`, `3 h 20 min`, `12 days`
pub fn span(seconds: f64) -> String {
    match seconds {
        _ if seconds < 10.0 => format!("{seconds:.1} s"),
        _ if seconds < 120.0 => format!("{seconds:.0} s"),
        _ if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        _ if seconds < 2.0 * 86400.0 => {
            let minutes = (seconds / 60.0).round();
            format!("{:.0} h {:.0} min", (minutes / 60.0).floor(), minutes % 60.0)
        }
        _ => format!("{:.0} days", seconds / 86400.0),
    }
}

/// Local time, `2026-11-29 17:01:12`.
pub fn local(unix: f64) -> String {
    let mut shown = String::new();
    LocalTime::at(unix as i64).format(c"%Y-%m-%d %H:%M:%S", &mut shown);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn numbers_are_short() {
        let sizes = [
            (0.0, "0 bytes"),
            (999.0, "999 bytes"),
            (1000.0, "1.0 KB"),
            (2.5e9, "2.5 GB"),
            (4e17, "400000 TB"),
        ];
        for (bytes, shown) in sizes {
            assert_eq!(size(bytes), shown);
        }
        let spans =
            [(0.34, "0.3 s"), (119.0, "119 s"), (150.0, "2 min"), (12000.0, "3 h 20 min"), (1e6, "12 days")];
        for (seconds, shown) in spans {
            assert_eq!(span(seconds), shown);
        }
    }
}

//! Numbers as Python prints them.

/// `repr(x)` of Python: the shortest text that reads back as `x`.
pub fn repr(x: f64) -> String {
    if x != 0.0 && (x.abs() < 1e-4 || x.abs() >= 1e16) {
        return python_exponent(&format!("{x:e}"));
    }
    format!("{x:?}")
}

/// `%f`: `precision` digits after the point. `alternate` keeps a point without digits after it.
pub fn fixed(x: f64, precision: usize, alternate: bool) -> String {
    let point = if alternate && precision == 0 { "." } else { "" };
    format!("{x:.precision$}{point}")
}

/// `%e`.
pub fn exponential(x: f64, precision: usize, alternate: bool) -> String {
    let text = python_exponent(&format!("{x:.precision$e}"));
    if alternate && precision == 0 { text.replacen('e', ".e", 1) } else { text }
}

/// `%g`: `precision` significant digits, in the shorter of both forms, without trailing zeros unless `alternate`.
pub fn general(x: f64, precision: usize, alternate: bool) -> String {
    let precision = precision.max(1);
    let exponential_form = exponential(x, precision - 1, alternate);
    let Some((mantissa, exponent)) = exponential_form.split_once('e') else { return exponential_form };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let significant = i32::try_from(precision).unwrap_or(i32::MAX);
    if exponent < -4 || exponent >= significant {
        let mantissa = if alternate { mantissa } else { strip(mantissa) };
        return python_exponent(&format!("{mantissa}e{exponent}"));
    }
    let decimals = usize::try_from(significant - 1 - exponent).unwrap_or(0);
    let text = fixed(x, decimals, alternate);
    if alternate { text } else { strip(&text).to_string() }
}

/// The format of an empty presentation type with a precision: `%g`, but with a digit after the point.
pub fn general_with_point(x: f64, precision: usize, alternate: bool) -> String {
    let precision = precision.max(1);
    let text = general(x, precision, alternate);
    if text.contains('e') || text.contains('.') && !text.ends_with('.') {
        return text;
    }
    // The exponent form starts one digit earlier, so that the added digit stays within the precision.
    if text.trim_end_matches('.').len() < precision {
        return text.trim_end_matches('.').to_string() + ".0";
    }
    let text = exponential(x, precision - 1, alternate);
    match text.split_once('e') {
        Some((mantissa, exponent)) if !alternate => format!("{}e{exponent}", strip(mantissa)),
        _ => text,
    }
}

/// The digits before the point in groups of `by`, padded with zeros to a width of `width`.
pub fn group(digits: &str, separator: char, by: usize, width: usize) -> String {
    // Only decimal numbers (groups of 3) have a fraction or an exponent, where the groups end.
    let fraction = if by == 3 { digits.find(|c: char| !c.is_ascii_digit()) } else { None };
    let whole_len = fraction.unwrap_or(digits.len());
    let (whole, rest) = digits.split_at(whole_len);
    let width = width.saturating_sub(rest.len());
    let mut backwards: Vec<char> = Vec::with_capacity(whole_len * 4 / 3 + 1);
    let mut whole = whole.chars().rev();
    let mut count = 0;
    loop {
        let digit = match whole.next() {
            Some(digit) => digit,
            None if backwards.len() < width => '0',
            None => break,
        };
        if count > 0 && count % by == 0 {
            backwards.push(separator);
        }
        backwards.push(digit);
        count += 1;
    }
    backwards.iter().rev().collect::<String>() + rest
}

/// Rust writes `1e-5`, Python `1e-05`.
fn python_exponent(text: &str) -> String {
    let Some((mantissa, exponent)) = text.split_once('e') else { return text.to_string() };
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent.trim_start_matches('+')),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn strip(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

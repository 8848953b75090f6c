//! Shared by the `%` and the `{}` language: widths, precisions, alignment.

/// Appends `text`, padded to `width` characters.
pub fn pad(text: &str, width: usize, align: Align, fill: char, out: &mut String) {
    let missing = width.saturating_sub(text.chars().count());
    let before = match align {
        Align::Left => 0,
        Align::Right => missing,
        Align::Center => missing / 2,
    };
    out.extend(std::iter::repeat_n(fill, before));
    out.push_str(text);
    out.extend(std::iter::repeat_n(fill, missing - before));
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Align {
    Left,
    Right,
    Center,
}

/// Upper bound on widths and precisions, which cost memory for every line.
const WIDTH_MAX: usize = 10_000;

/// A run of digits at the start of `chars`; `None` if there is none.
pub fn digits(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, String> {
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        let longer = number.unwrap_or(0) * 10 + digit as usize;
        if longer > WIDTH_MAX {
            return Err(format!("a width or precision is above {WIDTH_MAX}"));
        }
        number = Some(longer);
    }
    Ok(number)
}

//! HTML as it is written. Markup is what stands in the program; everything else is escaped on its way in, so that no
//! label, path or name of a class can become markup.

use std::fmt;

use crate::base::untrusted::one_line;

/// Bytes after which a text is cut.
const TEXT_MAX: usize = 1000;

/// A piece of a page.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Html(String);

impl Html {
    /// Appends markup of the program.
    pub fn raw(&mut self, markup: &'static str) -> &mut Html {
        self.0.push_str(markup);
        self
    }

    /// Appends text, on one line: characters that act on the text around them are shown by their numbers.
    pub fn text(&mut self, text: &str) -> &mut Html {
        self.put(format_args!("{text}"))
    }

    /// As [`Html::text`], for what is put together.
    pub fn put(&mut self, text: fmt::Arguments<'_>) -> &mut Html {
        for c in one_line(TEXT_MAX, text).chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c => self.0.push(c),
            }
        }
        self
    }

    /// Appends an attribute, in the tag that is open.
    pub fn attribute(&mut self, name: &'static str, value: &str) -> &mut Html {
        self.raw(" ").raw(name).raw("=\"").text(value).raw("\"")
    }

    /// Appends coordinates of a picture: numbers, and the letters between them.
    pub fn coordinates(&mut self, coordinates: &Coordinates) -> &mut Html {
        self.0.push_str(&coordinates.0);
        self
    }

    /// Appends another piece.
    pub fn add(&mut self, other: &Html) -> &mut Html {
        self.0.push_str(&other.0);
        self
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

/// A path of SVG.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Coordinates(String);

impl Coordinates {
    /// A command, and the point that it leads to.
    pub fn point(&mut self, command: char, x: f64, y: f64) {
        debug_assert!(command.is_ascii_alphabetic() && x.is_finite() && y.is_finite());
        self.0.push(command);
        self.0.push_str(&short(x));
        self.0.push(' ');
        self.0.push_str(&short(y));
    }

    /// Back to where the part has begun.
    pub fn close(&mut self) {
        self.0.push('Z');
    }
}

/// With one digit behind the point, if there is one.
fn short(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup() {
        let mut html = Html::default();
        html.raw("<td")
            .attribute("title", "\" onclick='x' <")
            .raw(">")
            .text("<script>alert(1)</script> & &amp;");
        assert_eq!(
            html.into_string(),
            "<td title=\"&quot; onclick=&#39;x&#39; &lt;\">&lt;script&gt;alert(1)&lt;/script&gt; &amp; &amp;amp;"
        );
        let mut html = Html::default();
        html.text("a\0\u{7}\r\n\u{202e}b\u{2028}\u{85}");
        assert_eq!(html.into_string(), "a\\u{0}\\u{7}\\r\\n\\u{202e}b\\u{2028}\\u{85}");
        let mut html = Html::default();
        html.text(&"<".repeat(1 << 20));
        assert!(html.into_string().len() < 5 * TEXT_MAX);
    }

    #[test]
    fn coordinates_are_short() {
        let mut path = Coordinates::default();
        path.point('M', 0.0, 12.34);
        path.point('L', -0.01, 1e6);
        path.close();
        assert_eq!(path.0, "M0 12.3L-0 1000000Z");
    }
}

//! Tables: a bounded number of rows, and a line that says how many more there are.

use super::html::Html;
use super::words;
use crate::base::numbers::{grouped, size, span};

/// Rows of the longest table.
pub const ROWS_MAX: usize = 200;

/// A column; numbers stand on the right.
#[derive(Clone, Copy, Debug)]
pub enum Column {
    Text(&'static str),
    Number(&'static str),
}

/// A cell. Its text is escaped.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    content: Html,
    /// It may be broken into lines.
    is_long: bool,
    /// It is to be looked at.
    is_marked: bool,
}

/// A table that is being filled.
pub struct HtmlTable {
    id: &'static str,
    caption: &'static str,
    columns: &'static [Column],
    rows: Vec<Vec<Cell>>,
    hidden: usize,
    is_caption_seen: bool,
}

impl Cell {
    /// Text from anywhere.
    pub fn text(text: &str) -> Cell {
        let mut content = Html::default();
        content.raw("<bdi>").text(text).raw("</bdi>");
        Cell { content, ..Cell::default() }
    }

    /// Text that is read letter by letter, such as an object id.
    pub fn code(text: &str) -> Cell {
        let mut content = Html::default();
        content.raw("<code>").text(text).raw("</code>");
        Cell { content, ..Cell::default() }
    }

    pub fn count(count: u64) -> Cell {
        Cell::short(&grouped(count))
    }

    pub fn size(bytes: u64) -> Cell {
        Cell::short(&size(bytes as f64))
    }

    pub fn rate(a_second: f64) -> Cell {
        Cell::short(&words::rate(a_second))
    }

    /// A duration; empty if it is not known.
    pub fn span(seconds: Option<f64>) -> Cell {
        seconds.map_or_else(Cell::default, |seconds| Cell::short(&span(seconds)))
    }

    /// What the program has put together.
    pub fn html(content: Html) -> Cell {
        Cell { content, ..Cell::default() }
    }

    /// Text that must not be broken.
    pub fn short(text: &str) -> Cell {
        let mut content = Html::default();
        content.text(text);
        Cell { content, ..Cell::default() }
    }

    /// Text that may be long.
    pub fn long(text: &str) -> Cell {
        Cell { is_long: true, ..Cell::text(text) }
    }

    /// Marked, if it is to be looked at.
    pub fn marked_if(self, is_marked: bool) -> Cell {
        Cell { is_marked, ..self }
    }
}

/// The cell of a thing that may not be there.
pub fn or_empty<T>(value: Option<T>, cell: impl FnOnce(T) -> Cell) -> Cell {
    value.map_or_else(Cell::default, cell)
}

impl HtmlTable {
    /// `id`: of the page.
    pub fn new(id: &'static str, caption: &'static str, columns: &'static [Column]) -> HtmlTable {
        HtmlTable { id, caption, columns, rows: Vec::new(), hidden: 0, is_caption_seen: true }
    }

    /// The caption is hidden: the section's heading says the same. Screen readers still read the caption.
    pub fn below_heading(self) -> HtmlTable {
        HtmlTable { is_caption_seen: false, ..self }
    }

    /// Adds a row, or counts it if there are enough.
    pub fn row<const N: usize>(&mut self, cells: impl FnOnce() -> [Cell; N]) {
        debug_assert_eq!(N, self.columns.len(), "{}", self.caption);
        match self.rows.len() < ROWS_MAX {
            true => self.rows.push(cells().into()),
            false => self.hidden += 1,
        }
    }

    /// The table, or a sentence if it has no rows. It is one element in any case.
    pub fn or(&self, sentence: &'static str) -> Html {
        let mut html = Html::default();
        if self.rows.is_empty() {
            html.raw("<p class=\"none\">").raw(sentence).raw("</p>");
            return html;
        }
        // The region scrolls by itself, also by the keyboard; the page never scrolls sideways.
        html.raw("<div class=\"scroll\" role=\"region\" tabindex=\"0\"");
        html.attribute("id", self.id).attribute("aria-label", self.caption).raw("><table><caption");
        html.raw(if self.is_caption_seen { ">" } else { " class=\"unseen\">" })
            .raw(self.caption)
            .raw("</caption><thead><tr>");
        for column in self.columns {
            match column {
                Column::Text(title) => html.raw("<th scope=\"col\">").raw(title),
                Column::Number(title) => html.raw("<th scope=\"col\" class=\"number\">").raw(title),
            };
            html.raw("</th>");
        }
        html.raw("</tr></thead><tbody>");
        for row in &self.rows {
            self.put_row(row, &mut html);
        }
        html.raw("</tbody></table>");
        if self.hidden > 0 {
            html.raw("<p class=\"more\">and ").text(&grouped(self.hidden as u64));
            html.raw(" more: <a href=\"status.json\">status.json</a> has all of them</p>");
        }
        html.raw("</div>");
        html
    }

    fn put_row(&self, row: &[Cell], html: &mut Html) {
        html.raw("<tr>");
        for (index, (cell, column)) in row.iter().zip(self.columns).enumerate() {
            let (open, close) = match index {
                0 => ("<th scope=\"row\"", "</th>"),
                _ => ("<td", "</td>"),
            };
            let is_number = matches!(column, Column::Number(_));
            let classes = [("number", is_number), ("long", cell.is_long), ("marked", cell.is_marked)];
            let classes: Vec<&str> =
                classes.into_iter().filter_map(|(class, is)| is.then_some(class)).collect();
            html.raw(open);
            if !classes.is_empty() {
                html.attribute("class", &classes.join(" "));
            }
            html.raw(">").add(&cell.content).raw(close);
        }
        html.raw("</tr>");
    }
}

/// A bar of which a part is filled.
pub fn bar(part: f64) -> Html {
    let part = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
    let mut html = Html::default();
    html.raw("<svg class=\"bar\" aria-hidden=\"true\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\">");
    html.raw("<rect class=\"rest\" width=\"100\" height=\"10\"/><rect class=\"part\" height=\"10\"");
    html.attribute("width", &format!("{:.0}", part * 100.0)).raw("/></svg>");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[Column::Text("Name"), Column::Number("Loads")];

    #[test]
    fn a_table_is_bounded_and_escaped() {
        let mut table = HtmlTable::new("t", "Things", COLUMNS);
        assert_eq!(table.or("There are none.").into_string(), "<p class=\"none\">There are none.</p>");
        for number in 0..1234 {
            table.row(|| [Cell::text("<b>'\u{202e}"), Cell::count(number).marked_if(number == 0)]);
        }
        let text = table.or("").into_string();
        assert_eq!(text.matches("<tr>").count(), ROWS_MAX + 1);
        assert!(text.contains("<p class=\"more\">and 1,034 more"), "{text}");
        assert!(text.contains("<tr><th scope=\"row\"><bdi>&lt;b&gt;&#39;\\u{202e}</bdi></th>"), "{text}");
        assert!(
            text.contains("<td class=\"number marked\">0</td>")
                && text.contains("<td class=\"number\">1</td>")
        );
        assert!(text.contains("<caption>Things</caption>") && text.contains("aria-label=\"Things\""));
    }

    #[test]
    fn bars_stay_in_their_frame() {
        for (part, width) in [(0.5, "50"), (-1.0, "0"), (7.0, "100"), (f64::NAN, "0")] {
            assert!(bar(part).into_string().contains(&format!("width=\"{width}\"/></svg>")));
        }
    }
}

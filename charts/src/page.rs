//! One HTML file with charts and tables in it.

use std::fmt::Write as _;

const STYLE: &str = "body{font:15px/1.45 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.25rem .6rem;text-align:left}\
td.n{text-align:right}svg{max-width:100%;height:auto}p.note{color:#555}";

/// No script runs, and nothing is fetched, whatever text the page was given.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// Rows under a line of headings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// What the columns hold.
    pub heads: Vec<String>,
    /// What they hold.
    pub rows: Vec<Vec<String>>,
}

/// A page, built from the top.
#[derive(Debug, Clone)]
pub struct Page {
    html: String,
}

impl Page {
    /// A page with this title.
    #[must_use]
    pub fn new(title: &str) -> Self {
        let title = escape(title);
        let html = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\
             <title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
        );
        Self { html }
    }

    /// Begins a part.
    pub fn heading(&mut self, text: &str) {
        self.line("h2", "", text);
    }

    /// Adds a paragraph.
    pub fn text(&mut self, text: &str) {
        self.line("p", "", text);
    }

    /// Adds a remark.
    pub fn note(&mut self, text: &str) {
        self.line("p", " class=\"note\"", text);
    }

    /// Adds a chart, as this crate draws it.
    pub fn chart(&mut self, svg: &str) {
        self.html.push_str(svg);
        self.html.push('\n');
    }

    /// Adds a table. What looks like a number is set to the right.
    pub fn table(&mut self, table: &Table) {
        self.html.push_str("<table><tr>");
        for head in &table.heads {
            // Writing to a string does not fail.
            let _ = write!(self.html, "<th>{}</th>", escape(head));
        }
        self.html.push_str("</tr>\n");
        for row in &table.rows {
            self.html.push_str("<tr>");
            for cell in row {
                let class = if is_number(cell) { " class=\"n\"" } else { "" };
                let _ = write!(self.html, "<td{class}>{}</td>", escape(cell));
            }
            self.html.push_str("</tr>\n");
        }
        self.html.push_str("</table>\n");
    }

    /// The whole page.
    #[must_use]
    pub fn html(mut self) -> String {
        self.html.push_str("</body></html>\n");
        self.html
    }

    fn line(&mut self, tag: &str, attributes: &str, text: &str) {
        let _ = writeln!(self.html, "<{tag}{attributes}>{}</{tag}>", escape(text));
    }
}

fn is_number(cell: &str) -> bool {
    cell.starts_with(|first: char| first.is_ascii_digit() || first == '-')
        && cell.chars().all(|each| each.is_ascii_digit() || ".,-".contains(each))
}

/// Text that is never markup: container names and log lines are others' words.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for each in text.chars() {
        match each {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(each),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_words_are_never_markup() {
        let mut page = Page::new("a <b>");
        page.heading("\"c\"");
        page.text("<script>alert(1)</script>");
        page.table(&Table { heads: vec!["<i>".into()], rows: vec![vec!["</table>".into(), "1.5".into()]] });
        let html = page.html();
        assert!(!html.contains("<script") && !html.contains("<b>") && !html.contains("<i>"), "{html}");
        assert_eq!(html.matches("</table>").count(), 1);
        assert!(html.contains("<td class=\"n\">1.5</td>") && html.ends_with("</body></html>\n"), "{html}");
    }

    #[test]
    fn nothing_is_fetched() {
        let mut page = Page::new("a");
        page.chart("<svg></svg>");
        let html = page.html();
        for word in ["src=", "href=", "url(", "@import"] {
            assert!(!html.contains(word), "{word}");
        }
    }
}

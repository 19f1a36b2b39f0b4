//! Reports as web pages: one file each, without scripts and without anything from elsewhere, that read well in light
//! and in dark. The first line is the answer; then come figures, plots ([`plot`]) and the map ([`map`]) as inline SVG.

use std::fmt::Write as _;

pub mod map;
mod outline;
pub mod plot;

/// A page in the making.
#[derive(Debug)]
pub struct Page {
    title: String,
    answer: String,
    body: String,
}

impl Page {
    /// A page that begins with the answer.
    pub fn new(title: &str, answer: &str) -> Self {
        Self { title: escape(title), answer: escape(answer), body: String::new() }
    }

    /// The few figures that matter most: a value with its unit, and what it is.
    pub fn figures(&mut self, figures: &[(String, String)]) {
        self.body.push_str("<div class=\"figures\">");
        for (value, what) in figures {
            self.add(&format!("<div><b>{}</b><span>{}</span></div>", escape(value), escape(what)));
        }
        self.body.push_str("</div>\n");
    }

    /// A section with what explains it, and its content as HTML.
    pub fn section(&mut self, heading: &str, explanation: &str, content: &str) {
        self.add(&format!("<section><h2>{}</h2>\n", escape(heading)));
        if !explanation.is_empty() {
            self.add(&format!("<p>{}</p>\n", escape(explanation)));
        }
        self.add(content);
        self.body.push_str("</section>\n");
    }

    fn add(&mut self, html: &str) {
        self.body.push_str(html);
    }

    /// The whole page.
    pub fn finish(self) -> String {
        let Self { title, answer, body } = self;
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta name=\"viewport\" \
             content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>{STYLE}</style></head>\n\
             <body><main>\n<p class=\"answer\">{answer}</p>\n<h1>{title}</h1>\n{body}</main></body></html>\n"
        )
    }
}

/// A table; the first `names` columns are text, the others numbers.
pub fn table(heading: &[&str], names: usize, rows: &[Vec<String>]) -> String {
    let mut html = String::from("<div class=\"wide\"><table><thead><tr>");
    let class = |at: usize| if at < names { "" } else { " class=\"n\"" };
    for (at, cell) in heading.iter().enumerate() {
        put(&mut html, format_args!("<th{}>{}</th>", class(at), escape(cell)));
    }
    html.push_str("</tr></thead><tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        for (at, cell) in row.iter().enumerate() {
            put(&mut html, format_args!("<td{}>{}</td>", class(at), escape(cell)));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// Text that can stand in HTML and in an attribute.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Writing into a string can't fail.
fn put(html: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = html.write_fmt(what);
}

const STYLE: &str = "
:root{color-scheme:light dark;--page:#fcfcfb;--ink:#1b1b19;--soft:#5c5b57;--line:#e3e1dc;--land:#eceae4;\
--s1:#2a78d6;--s2:#eb6834;--s3:#1baf7a;--s4:#9a6fd0;--s5:#c99a00;--floor:#8a8984}
@media(prefers-color-scheme:dark){:root{--page:#161614;--ink:#f2f1ee;--soft:#a9a8a2;--line:#34332f;--land:#2a2926;\
--s1:#4f97ea;--s2:#ef7f52;--s3:#2cc48c;--s4:#b18be3;--s5:#dcb12f;--floor:#8f8e88}}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:1.5rem 1rem 4rem}
.answer{font-size:1.45rem;line-height:1.35;font-weight:600;margin:.5rem 0 1rem;text-wrap:pretty}
h1{font-size:1rem;font-weight:400;color:var(--soft);margin:0 0 1.5rem}
h2{font-size:1.15rem;margin:2.5rem 0 .25rem}
section>p{margin:.25rem 0 .75rem;color:var(--soft);max-width:46rem}
.figures{display:flex;flex-wrap:wrap;gap:.75rem}
.figures div{flex:1 1 9rem;border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}
.figures b{display:block;font-size:1.5rem;font-variant-numeric:tabular-nums}
.figures span{color:var(--soft);font-size:.85rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92rem}
th,td{padding:.3rem .9rem .3rem 0;text-align:left;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:500}
.n{text-align:right}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font:11px system-ui,sans-serif}
svg .name{fill:var(--ink);font-weight:600}
svg .halo{paint-order:stroke;stroke:var(--page);stroke-width:3px;stroke-linejoin:round}
.grid{stroke:var(--line);stroke-width:1}
.land{fill:var(--land)}
.curve{fill:none;stroke-width:2;stroke-linejoin:round}
.dashed{stroke-dasharray:5 4}
.legend{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;margin:.25rem 0 0;padding:0;list-style:none;font-size:.9rem}
.legend i{display:inline-block;width:1.4rem;height:0;border-top:3px solid;margin-right:.4rem;vertical-align:.25em}
details{margin-top:.75rem}summary{cursor:pointer;color:var(--soft)}
";

/// The colours of series, in their order.
pub(crate) const COLOURS: [&str; 6] =
    ["var(--s1)", "var(--s2)", "var(--s3)", "var(--s4)", "var(--s5)", "var(--soft)"];
/// That of what nobody can beat.
pub(crate) const FLOOR: &str = "var(--floor)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_write_does_not_become_markup() {
        let mut page = Page::new("a <b>", "x & y < z");
        page.section("<script>", "\"'", &table(&["<i>"], 1, &[vec!["<td>".to_owned()]]));
        page.figures(&[("1 <".to_owned(), ">".to_owned())]);
        let html = page.finish();
        for markup in ["<b> ", "<script>", "<i>", "<td><td>"] {
            assert!(!html.contains(markup), "{markup}");
        }
        assert!(html.contains("<p class=\"answer\">x &amp; y &lt; z</p>"));
        // Self-contained.
        assert!(!html.contains("http") && !html.contains("src=") && !html.contains("url("));
    }
}

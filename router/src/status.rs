//! The status page: the mesh as this router sees it, for an operator's eyes. It reloads itself and needs no script.

use std::fmt::{self, Display, Write};

use axum::response::{IntoResponse, Response};
use http::header;

use crate::geo;
use crate::nodes::Candidate;

const HEAD: &str = include_str!("status.html");

pub(crate) fn page(mut nodes: Vec<Candidate>) -> Response {
    nodes.sort_by(|a, b| (&a.region, &a.id).cmp(&(&b.region, &b.id)));
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, render(&nodes)).into_response()
}

fn render(nodes: &[Candidate]) -> String {
    let usable = nodes.iter().filter(|node| node.usable()).count();
    let mut page = HEAD.to_owned();
    // Writing to a string does not fail.
    let _ = write!(page, "<p>{usable} of {} nodes take clients.</p>", nodes.len());
    if !nodes.is_empty() {
        page.push_str(
            "<div class=scroll><table><thead><tr><th>Region<th>Node<th>Address<th>State<th>Load<th>Streams\
             <th>Version</tr></thead><tbody>",
        );
        nodes.iter().for_each(|node| row(&mut page, node));
        page.push_str("</tbody></table></div>");
    }
    page.push_str("</main></html>\n");
    page
}

fn row(page: &mut String, node: &Candidate) {
    let (class, state) = match node {
        Candidate { alive: false, .. } => ("bad", "gone"),
        Candidate { draining: true, .. } => ("wait", "draining"),
        Candidate { ready: false, .. } => ("wait", "not ready"),
        usable if usable.usable() => ("good", "ready"),
        _ => ("bad", "without a usable address"),
    };
    let city = geo::region(&node.region).map_or("", |region| region.city);
    let streams = node.streams.map_or_else(String::new, |(open, capacity)| format!("{open} of {capacity}"));
    let _ = write!(
        page,
        "<tr><td><b>{}</b> {}<td><code>{}</code><td>{}<td class={class}>{state}<td>{:.0} %<td>{streams}<td>{}</tr>",
        Escaped(&node.region),
        Escaped(city),
        Escaped(node.id.get(..8).unwrap_or(&node.id)),
        Escaped(&node.url),
        node.load * 100.0,
        Escaped(node.version.as_deref().unwrap_or("")),
    );
}

/// Text that other nodes wrote, safe within HTML.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::tests::node;

    #[test]
    fn the_page_tells_states_apart_and_escapes_what_nodes_say() {
        let nodes = [
            node("fra"),
            Candidate { draining: true, ..node("iad") },
            Candidate { alive: false, version: Some("<script>".into()), ..node("syd") },
        ];
        let page = render(&nodes);
        assert!(page.contains("1 of 3 nodes"));
        for state in [">ready<", ">draining<", ">gone<", "Frankfurt", "&lt;script&gt;"] {
            assert!(page.contains(state), "{state}");
        }
        assert!(!page.contains("<script>"));
        assert!(render(&[]).contains("0 of 0 nodes"));
    }
}

//! Markdown as people type it, rendered to HTML that is safe to put into a page.
//!
//! Two independent parts guard the reader: comrak renders GitHub's Markdown and escapes any HTML in it, and
//! ammonia then keeps only a short list of elements, attributes and URL schemes. Neither trusts the other.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use ammonia::{Builder, UrlRelative};
use comrak::Options;

/// The elements that a message may contain.
const ELEMENTS: [&str; 27] = [
    "a",
    "blockquote",
    "br",
    "code",
    "del",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "img",
    "input",
    "li",
    "ol",
    "p",
    "pre",
    "strong",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "tr",
    "ul",
];

/// Block quotes within block quotes beyond which a text is shown as it was typed. Each is one byte to type and costs
/// two elements; 16 KiB of them would take most of a second.
const MAX_QUOTES: usize = 16;

static OPTIONS: LazyLock<Options<'static>> = LazyLock::new(|| {
    let mut options = Options::default();
    options.extension.autolink = true;
    options.extension.strikethrough = true;
    options.extension.table = true;
    options.extension.tasklist = true;
    // In a chat, a line break that was typed is meant.
    options.render.hardbreaks = true;
    options.render.escape = true;
    options
});

static SANITIZER: LazyLock<Builder<'static>> = LazyLock::new(|| {
    let mut builder = Builder::empty();
    builder
        .tags(HashSet::from(ELEMENTS))
        .tag_attributes(HashMap::from([
            ("a", HashSet::from(["href", "title"])),
            ("code", HashSet::from(["class"])),
            ("img", HashSet::from(["src", "alt", "title"])),
            ("input", HashSet::from(["checked", "disabled", "type"])),
            ("ol", HashSet::from(["start"])),
            ("td", HashSet::from(["align"])),
            ("th", HashSet::from(["align"])),
        ]))
        .url_schemes(HashSet::from(["http", "https", "mailto", "xmpp"]))
        .url_relative(UrlRelative::Deny)
        .link_rel(Some("noopener noreferrer nofollow"))
        .clean_content_tags(HashSet::from(["script", "style"]))
        .attribute_filter(|element, attribute, value| match (element, attribute) {
            // A picture over plain HTTP would tell everyone on the way who reads what.
            ("img", "src") if !value.to_ascii_lowercase().starts_with("https://") => None,
            ("input", "type") if value != "checkbox" => None,
            ("code", "class") if !is_language(value) => None,
            _ => Some(value.into()),
        });
    builder
});

/// What was rendered in a writer's turn, where nothing should be.
#[cfg(test)]
pub(super) static BY_WRITERS: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());

/// Renders a message's body.
pub(super) fn render(body: &str) -> String {
    #[cfg(test)]
    if std::thread::current().name() == Some("store-writer") {
        BY_WRITERS.lock().expect("no panic").push(body.to_owned());
    }
    if is_plain(body) {
        return format!("<p>{}</p>\n", body.trim_end_matches(' '));
    }
    if quotes(body) > MAX_QUOTES {
        return format!("<pre>{}</pre>\n", ammonia::clean_text(body));
    }
    SANITIZER.clean(&comrak::markdown_to_html(body, &OPTIONS)).to_string()
}

/// Whether a text is a line that has nothing in it that means anything to Markdown or HTML, as most that is said in a
/// chat: it need not go through a parser for each.
fn is_plain(body: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || " ,.!?;:/%()-'".contains(c);
    body.starts_with(char::is_alphabetic)
        && body.chars().all(plain)
        && !body.contains("www.")
        && !body.contains("://")
}

/// Whether a class names the language of a code block.
fn is_language(class: &str) -> bool {
    class.strip_prefix("language-").is_some_and(|name| {
        (1..=32).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-#_.".contains(c))
    })
}

/// How many block quotes can be within each other: they are opened at the start of a line only, where list items can
/// be as well.
fn quotes(body: &str) -> usize {
    let opened = |line: &str| {
        line.chars()
            .take_while(|c| {
                matches!(c, '>' | '-' | '+' | '*' | '.' | ')') || c.is_ascii_digit() || c.is_whitespace()
            })
            .filter(|c| *c == '>')
            .count()
    };
    body.split(['\n', '\r']).map(opened).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn github_markdown_is_rendered() {
        for (body, part) in [
            ("hello, world", "<p>hello, world</p>\n"),
            ("**bold** and *thin*", "<strong>bold</strong> and <em>thin</em>"),
            ("~~gone~~", "<del>gone</del>"),
            ("see https://example.org/a?b=c&d", "<a href=\"https://example.org/a?b=c&amp;d\""),
            ("[a](https://example.org)", " rel=\"noopener noreferrer nofollow\""),
            ("| a | b |\n|---|--:|\n| 1 | 2 |", "<td align=\"right\">2</td>"),
            ("- [x] done", "type=\"checkbox\""),
            ("```rust\nfn a() {}\n```", "<code class=\"language-rust\">fn a() {}"),
            ("one\ntwo", "one<br>\ntwo"),
            ("> quoted", "<blockquote>"),
            ("![cat](https://example.org/cat.png)", "<img src=\"https://example.org/cat.png\" alt=\"cat\">"),
            ("1 < 2 && 3 > 2", "1 &lt; 2 &amp;&amp; 3 &gt; 2"),
        ] {
            let html = render(body);
            assert!(html.contains(part), "{body:?} gave {html:?}");
        }
    }

    /// The tags of some HTML, each as its name, its attributes' names, and their values.
    fn tags(html: &str) -> Vec<(String, Vec<String>, Vec<String>)> {
        let mut tags = Vec::new();
        let mut rest = html;
        while let Some(start) = rest.find('<') {
            rest = &rest[start + 1..];
            let (mut bare, mut values, mut quote) = (String::new(), Vec::<String>::new(), None);
            let mut end = rest.len();
            for (at, c) in rest.char_indices() {
                match quote {
                    Some(open) if c == open => quote = None,
                    Some(_) => values.last_mut().expect("a quote began it").push(c),
                    None if c == '>' => {
                        end = at;
                        break;
                    }
                    None if c == '"' || c == '\'' => {
                        quote = Some(c);
                        values.push(String::new());
                    }
                    None => bare.push(c.to_ascii_lowercase()),
                }
            }
            rest = &rest[end..];
            let mut words = bare
                .trim_start_matches('/')
                .split_whitespace()
                .map(|word| word.trim_end_matches('=').to_owned());
            tags.push((words.next().unwrap_or_default(), words.collect(), values));
        }
        tags
    }

    /// Whether some HTML holds what acts rather than shows.
    fn acts(html: &str) -> bool {
        tags(html).iter().any(|(name, attributes, values)| {
            !ELEMENTS.contains(&name.as_str())
                || attributes.iter().any(|name| name.starts_with("on") || name == "style" || name == "srcset")
                || values.iter().any(|value| {
                    let value = value.trim_start().to_ascii_lowercase();
                    ["javascript:", "vbscript:", "data:"].iter().any(|scheme| value.starts_with(scheme))
                })
                || name == "img" && values.iter().any(|value| value.starts_with("http:"))
        })
    }

    #[test]
    fn nothing_acts() {
        for body in [
            "<script>alert(1)</script>",
            "<SCRIPT SRC=https://example.org/x.js></SCRIPT>",
            "<img src=x onerror=alert(1)>",
            "<svg onload=alert(1)>",
            "[a](javascript:alert(1))",
            "[a](JaVaScRiPt:alert(1))",
            "[a](  javascript:alert(1))",
            "[a](java\tscript:alert(1))",
            "[a](&#106;avascript:alert(1))",
            "[a](data:text/html;base64,PHNjcmlwdD4=)",
            "![a](data:image/svg+xml;base64,PHN2Zz4=)",
            "![a](http://example.org/tracker.png)",
            "[a](vbscript:msgbox(1))",
            "<a href=\"javascript:alert(1)\">a</a>",
            "<javascript:alert(1)>",
            "![x](https://example.org/\"onerror=\"alert(1))",
            "[x](https://example.org \"a\\\" onmouseover=alert(1) b\")",
            "```\" onclick=\"alert(1)\nx\n```",
            "<p style=\"position:fixed\">x</p>",
            "<iframe src=https://example.org></iframe>",
            "<!--><script>alert(1)</script>-->",
            "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
        ] {
            let html = render(body);
            assert!(!acts(&html), "{body:?} gave {html:?}");
        }
        for bad in [
            "<p><script>x</script></p>",
            "<img src=\"https://a\" onerror=\"b\">",
            "<a href=\"javascript:a\">",
        ] {
            assert!(acts(bad), "the check of this test misses {bad}");
        }
    }

    #[test]
    fn a_link_that_is_refused_is_text() {
        assert!(!render("[a](javascript:alert(1))").contains("javascript"));
        assert!(!render("![a](http://example.org/a.png)").contains("src"));
        assert!(!render("[a](/v1/accounts/me)").contains("href=\"/v1"));
    }

    #[test]
    fn deep_nesting_is_cheap() {
        for part in [">", "> ", "- > ", "1. ", "- ", "*a **b ", "[a](", "![", "`a``", "<a ", "~~a *b ", "|a"]
        {
            let body = part.repeat(super::super::MAX_BODY / part.len());
            // On a stack of the size that the server's threads have.
            let render = std::thread::Builder::new().stack_size(2 << 20).spawn(move || render(&body).len());
            let length = render.expect("a thread").join().expect("no overflow");
            assert!(length < 1 << 20, "{part:?} gave {length} bytes");
        }
    }

    proptest! {
        #[test]
        fn a_plain_text_is_what_the_parser_would_make_of_it(body in r#"[a-zA-ZäßжあИ][a-z0-9À-ž ,.!?;:/%()'-]{0,40}|(www|http|ftp|mailto|xmpp|[ .:a-z0-9/()-]){0,20}"#) {
            if is_plain(&body) {
                let parsed = SANITIZER.clean(&comrak::markdown_to_html(&body, &OPTIONS)).to_string();
                prop_assert_eq!(render(&body), parsed);
            }
        }

        #[test]
        fn no_text_acts_or_panics(body in r#"[\\PC]{0,40}|([<>"'=()\[\]!`*_~|&#:;/a-z \n-]|script|onerror|javascript:|<img |src=){0,40}"#) {
            prop_assert!(!acts(&render(&body)));
        }
    }
}

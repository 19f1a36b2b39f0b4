//! What the router knows of the nodes: a snapshot, taken anew for each request, so that a node that dies or drains
//! is out of the next answer.

/// One node as the directory shows it. Fields that a node has not published yet have the careful value: not ready.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The node's id, as it prints.
    pub id: String,
    /// The region that the node says it is in.
    pub region: String,
    /// The base URL that clients reach it at, without a slash at the end.
    pub url: String,
    /// Whether the membership holds it for alive.
    pub alive: bool,
    /// Whether it says that it can serve.
    pub ready: bool,
    /// Whether it is being taken out of service.
    pub draining: bool,
    /// How busy it says it is, from 0 (idle) to 1 (full).
    pub load: f64,
    /// Event streams that are open and how many it takes, when it says so.
    pub streams: Option<(u64, u64)>,
    /// The version of the program that it runs, when it says so.
    pub version: Option<String>,
}

impl Candidate {
    /// Whether a client may be sent there.
    pub fn usable(&self) -> bool {
        self.alive && self.ready && !self.draining && is_base_url(&self.url)
    }
}

/// Whether a redirect may be built on it: a whole `http` or `https` URL without a query. What a node publishes ends
/// in a `Location` header, so nothing else gets through.
fn is_base_url(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
    })
}

/// Where the router gets its nodes from. The directory of the mesh is one; a closure is another, for tests and for
/// programs with a fixed list.
pub trait Nodes: Send + Sync + 'static {
    /// All nodes known at this moment, usable or not.
    fn snapshot(&self) -> Vec<Candidate>;
}

impl<F: Fn() -> Vec<Candidate> + Send + Sync + 'static> Nodes for F {
    fn snapshot(&self) -> Vec<Candidate> {
        self()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A node that is fine, for tests to spoil.
    pub(crate) fn node(region: &str) -> Candidate {
        Candidate {
            id: format!("node-{region}"),
            region: region.to_owned(),
            url: format!("http://{region}.example"),
            alive: true,
            ready: true,
            draining: false,
            load: 0.0,
            streams: None,
            version: None,
        }
    }

    #[test]
    fn only_whole_http_urls_are_redirected_to() {
        for good in ["http://127.0.0.1:8081", "https://fra.example", "http://[::1]:80/prefix"] {
            assert!(is_base_url(good), "{good}");
        }
        for bad in [
            "",
            "fra.example",
            "/path",
            "ftp://fra.example",
            "javascript:alert(1)",
            "http://a/?q=",
            "http://a b",
        ] {
            assert!(!is_base_url(bad), "{bad}");
        }
    }

    #[test]
    fn a_node_without_a_url_is_not_usable() {
        assert!(node("fra").usable());
        assert!(!Candidate { url: String::new(), ..node("fra") }.usable());
    }
}

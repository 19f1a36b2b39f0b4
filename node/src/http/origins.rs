//! Which web pages may call this node with a person's cookie: those of the cluster itself.

use std::net::IpAddr;

use crate::app::App;

/// The cluster's origins as they are now.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    known: Vec<String>,
    domain: Option<String>,
}

impl Origins {
    /// This node's own origin, those that the others publish, and all over TLS in the domain of the cookie: a page
    /// must not lose the cluster because its node has gone and is forgotten.
    #[must_use]
    pub fn of(app: &App) -> Self {
        let mut known: Vec<String> = origin_of(&app.config.public_url).into_iter().collect();
        if let Some(mesh) = &app.mesh {
            let published = mesh.directory().entries();
            known.extend(published.iter().filter_map(|entry| origin_of(entry.facts.get("url")?)));
        }
        let domain = app.config.cookie_domain.as_deref();
        let domain = domain.map(|domain| domain.trim_start_matches('.').to_ascii_lowercase());
        Self { known, domain: domain.filter(|domain| !domain.is_empty()) }
    }

    /// Whether a page of `origin` belongs to the cluster. `host` is the call's own Host header: a page that this
    /// very address served does, whatever name it was reached by.
    #[must_use]
    pub fn allows(&self, origin: &str, host: Option<&str>) -> bool {
        let Some(origin) = origin_of(origin) else { return false };
        self.known.contains(&origin)
            || self.domain.as_deref().is_some_and(|domain| is_in(&origin, domain))
            || host.is_some_and(|host| {
                let scheme = origin.split_once("://").map_or("http", |(scheme, _)| scheme);
                origin_of(&format!("{scheme}://{host}")).is_some_and(|own| own == origin)
            })
    }
}

/// Whether the origin is the domain or below it, over TLS.
fn is_in(origin: &str, domain: &str) -> bool {
    let Some(authority) = origin.strip_prefix("https://") else { return false };
    let host = authority.split_once(':').map_or(authority, |(host, _)| host);
    host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// `scheme://host[:port]` in lower case, without a port that the scheme implies. The names of this machine for itself
/// count as one: a node calls itself 127.0.0.1 where its page was opened at localhost.
fn origin_of(url: &str) -> Option<String> {
    let uri: axum::http::Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let mut host = uri.host()?.to_ascii_lowercase();
    if is_loopback(&host) {
        host = "localhost".to_owned();
    }
    Some(match (scheme.as_str(), uri.port_u16()) {
        (_, None) | ("https", Some(443)) | ("http", Some(80)) => format!("{scheme}://{host}"),
        (_, Some(port)) => format!("{scheme}://{host}:{port}"),
    })
}

fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(urls: &[&str]) -> Origins {
        Origins { known: urls.iter().filter_map(|url| origin_of(url)).collect(), domain: None }
    }

    #[test]
    fn pages_of_the_cluster_and_of_the_address_itself_belong() {
        let origins = origins(&["https://fra.chat.example/", "http://127.0.0.1:8081"]);
        assert!(origins.allows("https://fra.chat.example", None));
        assert!(origins.allows("https://FRA.chat.example:443", Some("iad.chat.example")));
        assert!(origins.allows("http://192.0.2.7:8081", Some("192.0.2.7:8081")));
        for foreign in [
            "https://chat.example",
            "http://fra.chat.example",
            "null",
            "",
            "http://127.0.0.1:8082",
            "https://127.0.0.1:8081",
        ] {
            assert!(!origins.allows(foreign, Some("fra.chat.example:1")), "{foreign}");
            assert!(!origins.allows(foreign, None), "{foreign}");
        }
    }

    #[test]
    fn pages_of_the_cookies_domain_belong() {
        let origins = Origins { domain: Some("chat.example".into()), ..Origins::default() };
        for own in ["https://chat.example", "https://fra.chat.example", "https://fra.chat.example:8443"] {
            assert!(origins.allows(own, None), "{own}");
        }
        for foreign in [
            "http://fra.chat.example",
            "https://badchat.example",
            "https://chat.example.org",
            "https://example",
        ] {
            assert!(!origins.allows(foreign, None), "{foreign}");
        }
    }

    #[test]
    fn this_machine_has_several_names() {
        let origins = origins(&["http://127.0.0.1:8081"]);
        for own in
            ["http://localhost:8081", "http://LOCALHOST:8081", "http://[::1]:8081", "http://127.0.0.2:8081"]
        {
            assert!(origins.allows(own, None), "{own}");
        }
        assert!(origins.allows("http://localhost:9000", Some("127.0.0.1:9000")));
        for foreign in
            ["http://localhost:8082", "http://localhost.example:8081", "http://127.0.0.1.example:8081"]
        {
            assert!(!origins.allows(foreign, Some("127.0.0.1:8081")), "{foreign}");
        }
    }
}

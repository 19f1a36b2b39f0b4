//! Which web pages may call this node with a person's cookie: those of the cluster itself.

use crate::app::App;

/// The cluster's origins as they are now.
#[derive(Debug, Clone)]
pub struct Origins(Vec<String>);

impl Origins {
    /// This node's own origin and those that the others publish.
    #[must_use]
    pub fn of(app: &App) -> Self {
        let mut origins: Vec<String> = origin_of(&app.config.public_url).into_iter().collect();
        if let Some(mesh) = &app.mesh {
            let published = mesh.directory().entries();
            origins.extend(published.iter().filter_map(|entry| origin_of(entry.facts.get("url")?)));
        }
        Self(origins)
    }

    /// Whether a page of `origin` belongs to the cluster. `host` is the call's own Host header: a page that this
    /// very address served does, whatever name it was reached by.
    #[must_use]
    pub fn allows(&self, origin: &str, host: Option<&str>) -> bool {
        let Some(origin) = origin_of(origin) else { return false };
        let own = origin.split_once("://").map(|(_, authority)| authority);
        self.0.contains(&origin) || (host.is_some() && own == host.map(str::to_ascii_lowercase).as_deref())
    }

    /// The origins.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// `scheme://host[:port]` in lower case, without a port that the scheme implies.
fn origin_of(url: &str) -> Option<String> {
    let uri: axum::http::Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let host = uri.host()?.to_ascii_lowercase();
    Some(match (scheme.as_str(), uri.port_u16()) {
        (_, None) | ("https", Some(443)) | ("http", Some(80)) => format!("{scheme}://{host}"),
        (_, Some(port)) => format!("{scheme}://{host}:{port}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_cluster_and_of_the_address_itself_belong() {
        let origins = Origins(vec!["https://fra.chat.example".into(), "http://127.0.0.1:8081".into()]);
        assert!(origins.allows("https://fra.chat.example", None));
        assert!(origins.allows("https://FRA.chat.example:443", Some("iad.chat.example")));
        assert!(origins.allows("http://localhost:8081", Some("localhost:8081")));
        for foreign in
            ["https://chat.example", "http://fra.chat.example", "null", "", "http://127.0.0.1:8082"]
        {
            assert!(!origins.allows(foreign, Some("fra.chat.example:1")), "{foreign}");
            assert!(!origins.allows(foreign, None), "{foreign}");
        }
    }
}

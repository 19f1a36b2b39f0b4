//! What the streams are opened at, and how: nodes, or another server for comparison.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use rustls::ClientConfig;
use serde_json::json;

/// A node, or the other server.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// Where it listens.
    pub(super) address: SocketAddr,
}

/// A space, or a channel of the other server.
#[derive(Debug, Clone)]
pub(super) struct Space {
    /// Its id.
    pub(super) id: String,
    /// Its members, the author of its messages first.
    pub(super) accounts: Vec<usize>,
}

/// What kind of server it is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    MyChat,
    /// Another one, with the paths of publishing and subscribing; `{}` in them stands for the channel.
    Other {
        publish: String,
        subscribe: String,
    },
}

/// Everything that clients have to know.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) kind: Kind,
    pub(super) servers: Vec<Server>,
    pub(super) spaces: Vec<Space>,
    /// The access token of each account, which change.
    pub(super) tokens: RwLock<Vec<Arc<str>>>,
    /// Where streams are opened, if not at the servers themselves: proxies in front of them.
    pub(super) fronts: Vec<SocketAddr>,
    /// The TLS of those proxies.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Target {
    /// Where the streams of a server are opened.
    pub(super) fn streams_at(&self, server: usize) -> SocketAddr {
        self.fronts.get(server).copied().unwrap_or(self.servers[server].address)
    }

    fn token(&self, account: usize) -> Arc<str> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        tokens.get(account).cloned().unwrap_or_default()
    }

    /// Whether a stream is there with the head of its answer; else it says when it is.
    pub(super) const fn is_live_at_once(&self) -> bool {
        matches!(self.kind, Kind::Other { .. })
    }

    /// The request for a stream of a space, by the `nth` of its readers.
    pub(super) fn subscribe(&self, server: usize, space: usize, nth: usize, cursor: Option<&str>) -> Vec<u8> {
        let Space { id, accounts } = &self.spaces[space];
        let host = self.servers[server].address;
        let resume = cursor.map(|cursor| format!("last-event-id: {cursor}\r\n")).unwrap_or_default();
        let (path, token) = match &self.kind {
            Kind::MyChat => {
                let token = self.token(accounts[nth % accounts.len()]);
                (format!("/v1/events?spaces={id}"), format!("authorization: Bearer {token}\r\n"))
            }
            Kind::Other { subscribe, .. } => (subscribe.replace("{}", id), String::new()),
        };
        format!("GET {path} HTTP/1.1\r\nhost: {host}\r\naccept: text/event-stream\r\n{token}{resume}\r\n")
            .into_bytes()
    }

    /// The request that posts a message.
    pub(super) fn post(&self, server: usize, space: usize, client_id: &str, text: &str) -> Vec<u8> {
        let Space { id, accounts } = &self.spaces[space];
        let host = self.servers[server].address;
        let (path, body, token) = match &self.kind {
            Kind::MyChat => (
                format!("/v1/spaces/{id}/messages"),
                json!({ "body": text, "client_id": client_id }).to_string(),
                format!("authorization: Bearer {}\r\n", self.token(accounts[0])),
            ),
            Kind::Other { publish, .. } => {
                (publish.replace("{}", id), json!({ "body": text }).to_string(), String::new())
            }
        };
        format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\n{token}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// The server at a URL, and the URL's path.
pub(super) fn server(url: &str) -> anyhow::Result<(Server, String)> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url} does not begin with http://"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut found = host.to_socket_addrs().with_context(|| format!("{url} can't be found"))?;
    let address = found.next().with_context(|| format!("{url} has no address"))?;
    Ok((Server { address }, format!("/{path}")))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::streams) fn target(kind: Kind) -> Target {
        let servers = vec![Server { address: ([127, 0, 0, 1], 80).into() }];
        let spaces = vec![Space { id: "s".to_owned(), accounts: vec![1, 0] }];
        Target {
            kind,
            servers,
            spaces,
            tokens: RwLock::new(vec!["zero".into(), "one".into()]),
            fronts: Vec::new(),
            tls: None,
        }
    }

    #[test]
    fn requests_are_whole() {
        let mychat = target(Kind::MyChat);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let stream = text(mychat.subscribe(0, 0, 3, Some("c")));
        assert!(stream.starts_with("GET /v1/events?spaces=s HTTP/1.1\r\nhost: 127.0.0.1:80\r\n"));
        assert!(stream.contains("Bearer zero\r\n") && stream.ends_with("last-event-id: c\r\n\r\n"));
        let post = text(mychat.post(0, 0, "id", "words"));
        assert!(post.contains("Bearer one\r\n") && post.contains("content-length: 33\r\n"), "{post}");
        let nchan = target(Kind::Other { publish: "/pub/{}".to_owned(), subscribe: "/sub/{}".to_owned() });
        assert!(text(nchan.subscribe(0, 0, 0, None)).starts_with("GET /sub/s HTTP/1.1\r\n"));
        assert!(text(nchan.post(0, 0, "id", "words")).starts_with("POST /pub/s HTTP/1.1\r\n"));
    }

    #[test]
    fn addresses_are_found() {
        let (found, path) = server("http://127.0.0.1:8081/pub/{}").expect("an address");
        assert_eq!((found.address, path.as_str()), (([127, 0, 0, 1], 8081).into(), "/pub/{}"));
        assert!(server("https://127.0.0.1").is_err());
    }
}

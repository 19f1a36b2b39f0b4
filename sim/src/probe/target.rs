//! The address of a node or router, taken apart.

use std::fmt;
use std::str::FromStr;

/// A base URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Whether there is TLS.
    pub(super) tls: bool,
    /// A name or an address; one of IPv6 without its brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// What comes before every path, without a slash at the end.
    pub(super) prefix: String,
}

/// The text is no base URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("give an http or https URL without a query, such as https://fra.chat.example")]
pub struct InvalidTarget;

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let uri: http::Uri = text.trim().parse().map_err(|_| InvalidTarget)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(InvalidTarget),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(InvalidTarget)?;
        let named = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if named || uri.query().is_some() || text.contains('#') {
            return Err(InvalidTarget);
        }
        Ok(Self {
            tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl Target {
    /// The host as it stands in a URL, with the port unless it is the usual one.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (text, host, port, shown) in [
            ("https://fra.chat.example/", "fra.chat.example", 443, "https://fra.chat.example"),
            ("http://127.0.0.1:8081", "127.0.0.1", 8081, "http://127.0.0.1:8081"),
            ("http://[::1]:80/chat/", "::1", 80, "http://[::1]/chat"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!((target.host.as_str(), target.port, target.to_string().as_str()), (host, port, shown));
        }
        for bad in [
            "fra.chat.example",
            "ftp://a",
            "http://",
            "https://a/?x=1",
            "https://me:secret@a",
            "https://a/#x",
            "",
        ] {
            assert_eq!(bad.parse::<Target>(), Err(InvalidTarget), "{bad}");
        }
    }
}

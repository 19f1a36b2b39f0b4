//! Where a call comes from.
//!
//! Behind a proxy every connection is the proxy's, which names its client in `X-Forwarded-For`. But so can anybody, and
//! proxies pass on what they were given: so the header is read from its end, and an entry counts only if the one who added it
//! is a proxy that the operator has named (`--trusted-proxy`).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use axum::{
    extract::ConnectInfo,
    http::{Extensions, HeaderMap, HeaderName},
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// What one customer of a provider gets of IPv6 at least, and can change the rest of as they like.
const SUBNET: u32 = 64;

/// A network by its first bits, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    bits: u32,
}

/// Why a text names no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It is neither an address nor one with a number of bits.
    #[error("not an address (10.1.2.3) or network (10.0.0.0/8, fd00::/8)")]
    Malformed,
    /// It is everybody.
    #[error("everybody would be in it")]
    Everybody,
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Malformed)?;
        // One of IPv4 in the form of IPv6 has all its bits, or its bits would count from elsewhere.
        let address = if bits.is_none() { address.to_canonical() } else { address };
        let most = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
        let bits = match bits {
            None => most,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most).ok_or(NetworkError::Malformed)?,
        };
        if bits == 0 {
            return Err(NetworkError::Everybody);
        }
        Ok(Self { first: first_of(address, bits), bits })
    }
}

impl Network {
    /// Whether the address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.first.is_ipv4() && first_of(address, self.bits) == self.first
    }
}

/// The first address of the network with the same first bits.
fn first_of(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(Ipv4Addr::BITS.saturating_sub(bits)).unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(Ipv6Addr::BITS.saturating_sub(bits)).unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & mask).into()
        }
    }
}

/// Whose call it is, for what is counted by source: an address of IPv4, or the subnet of one of IPv6. `None` without a
/// connection.
#[must_use]
pub fn source(trusted: &[Network], headers: &HeaderMap, extensions: &Extensions) -> Option<IpAddr> {
    let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(match client(trusted, headers, peer.ip()) {
        address @ IpAddr::V4(_) => address,
        address @ IpAddr::V6(_) => first_of(address, SUBNET),
    })
}

/// The last address on the way of a call for which only trusted proxies vouch.
fn client(trusted: &[Network], headers: &HeaderMap, peer: IpAddr) -> IpAddr {
    let mut client = peer.to_canonical();
    let lists = headers.get_all(FORWARDED_FOR).iter();
    let mut entries = lists.flat_map(|list| list.to_str().unwrap_or_default().split(',')).rev();
    while trusted.iter().any(|network| network.contains(client)) {
        match entries.next().and_then(|entry| entry_address(entry.trim())) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// An entry of `X-Forwarded-For`, which some proxies write with a port.
fn entry_address(entry: &str) -> Option<IpAddr> {
    let address = entry.parse().ok().or_else(|| Some(entry.parse::<SocketAddr>().ok()?.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        extract::Request,
        http::{HeaderValue, header},
    };
    use serde_json::json;

    use super::*;
    use crate::testing::TestNode;

    fn networks(all: &[&str]) -> Vec<Network> {
        all.iter().map(|network| network.parse().expect("a network")).collect()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn networks_are_read_or_refused() {
        for (network, inside, outside) in [
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("10.1.2.3/8", "10.255.0.1", "11.0.0.0"),
            ("172.16.0.0/12", "172.31.255.255", "172.32.0.0"),
            ("fd00::/8", "fdff::1", "fe00::"),
            ("::1", "::1", "0.0.0.1"),
            ("::ffff:10.1.2.3", "10.1.2.3", "::1"),
        ] {
            let network: Network = network.parse().expect("a network");
            assert!(network.contains(address(inside)) && !network.contains(address(outside)), "{network:?}");
        }
        for wrong in ["", "proxy.internal", "10.0.0.0/33", "10.0.0.0/", "10.0.0/8", "::/129", "10.0.0.0/-1"] {
            assert_eq!(wrong.parse::<Network>(), Err(NetworkError::Malformed), "{wrong}");
        }
        for all in ["0.0.0.0/0", "::/0"] {
            assert_eq!(all.parse::<Network>(), Err(NetworkError::Everybody));
        }
    }

    #[test]
    fn only_what_trusted_proxies_have_added_is_believed() {
        let trusted = networks(&["127.0.0.1", "10.0.0.0/8"]);
        let from = |peer: &str, lists: &[&str]| {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(FORWARDED_FOR, HeaderValue::from_str(list).expect("a value"));
            }
            let mut extensions = Extensions::new();
            extensions.insert(ConnectInfo(SocketAddr::new(address(peer), 1)));
            source(&trusted, &headers, &extensions).expect("a source").to_string()
        };
        for (peer, lists, expected) in [
            ("203.0.113.1", &["198.51.100.1"][..], "203.0.113.1"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.1, 203.0.113.1"], "203.0.113.1"),
            ("::ffff:127.0.0.1", &["203.0.113.1:999"], "203.0.113.1"),
            // Through two proxies.
            ("127.0.0.1", &["198.51.100.1, 203.0.113.1, 10.1.2.3"], "203.0.113.1"),
            ("127.0.0.1", &["198.51.100.1", "203.0.113.1", "10.1.2.3"], "203.0.113.1"),
            // What can't be read ends what is known.
            ("127.0.0.1", &["203.0.113.1, unknown"], "127.0.0.1"),
            ("127.0.0.1", &["203.0.113.1, \u{e9}"], "127.0.0.1"),
            ("127.0.0.1", &["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
            ("127.0.0.1", &["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::"),
            ("2001:db8:1:2:ffff::1", &[], "2001:db8:1:2::"),
        ] {
            assert_eq!(from(peer, lists), expected, "{peer} {lists:?}");
        }
        assert_eq!(source(&trusted, &HeaderMap::new(), &Extensions::new()), None);
    }

    #[tokio::test]
    async fn failed_sign_ins_count_for_the_client_of_a_trusted_proxy_and_else_for_the_peer() {
        let node = TestNode::with(|config| config.trusted_proxies = networks(&["127.0.0.1"]));
        let ada = node.sign_up("Ada").await;
        let sign_in = |peer: &str, client: &str| {
            let wrong = json!({ "email": ada.email, "password": "not her password" }).to_string();
            let call = Request::post("/v1/sessions").header(header::CONTENT_TYPE, "application/json");
            let call = call.header(FORWARDED_FOR, format!("198.51.100.7, {client}"));
            let call = call.extension(ConnectInfo(SocketAddr::new(address(peer), 1)));
            node.send(call.body(Body::from(wrong)).expect("a request"))
        };
        for _ in 0..10 {
            sign_in("127.0.0.1", "203.0.113.1").await.is_problem(401, "unauthorized");
            sign_in("203.0.113.9", "203.0.113.1").await.is_problem(401, "unauthorized");
        }
        sign_in("127.0.0.1", "203.0.113.1").await.is_problem(429, "rate_limited");
        sign_in("127.0.0.1", "203.0.113.2").await.is_problem(401, "unauthorized");
        // Whoever comes by themselves can't say that they are somebody else.
        sign_in("203.0.113.9", "203.0.113.2").await.is_problem(429, "rate_limited");
    }
}

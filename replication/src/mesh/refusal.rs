//! Handshakes that fail, told in words: the commonest mistake in setting up a cluster is a wrong key,
//! and TLS calls it "unknown issuer" on one side and sends an alert number to the other.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use metrics::counter;
use quinn::ConnectionError;
use tracing::{debug, warn};

/// A member that is refused tries again and again; its address is named at most this often.
const QUIET: Duration = Duration::from_secs(60);
/// How many addresses are remembered; beyond, the log is not limited, only counted.
const MOST_ADDRESSES: usize = 1024;

/// Why a handshake failed, as far as the certificates and protocols are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The peer's certificate comes from another authority, or it said so of ours.
    OtherCluster,
    /// A certificate is out of its time, so one of the clocks is wrong.
    Clock,
    /// The peer speaks another protocol or a version of the mesh that does not fit ours.
    OtherProtocol,
}

impl Refusal {
    /// What a broken connection says about the certificates, if anything.
    pub(crate) fn of(error: &ConnectionError) -> Option<Self> {
        let code = match error {
            ConnectionError::TransportError(error) => u64::from(error.code),
            ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
            ConnectionError::VersionMismatch => return Some(Self::OtherProtocol),
            _ => return None,
        };
        // TLS alerts (RFC 8446, section 6) are QUIC error codes from 0x100 on (RFC 9001, section 4.8).
        match code.checked_sub(0x100)? {
            // bad, unsupported, revoked or unknown certificate; unknown authority; access denied;
            // bad signature; no certificate at all
            42..=44 | 46 | 48 | 49 | 51 | 116 => Some(Self::OtherCluster),
            45 => Some(Self::Clock),
            // handshake failure, protocol version, no application protocol
            40 | 70 | 120 => Some(Self::OtherProtocol),
            _ => None,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::OtherCluster => "other_cluster",
            Self::Clock => "clock",
            Self::OtherProtocol => "other_protocol",
        }
    }
}

/// Who opened the connection that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    /// We dialed.
    Outgoing,
    /// The peer dialed.
    Incoming,
}

impl Direction {
    /// The direction as a metric's label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Outgoing => "outgoing",
            Self::Incoming => "incoming",
        }
    }
}

/// Reports refused handshakes, each address at most once a minute.
#[derive(Default)]
pub(crate) struct Refusals {
    last: Mutex<HashMap<(SocketAddr, &'static str), Instant>>,
}

impl Refusals {
    /// Counts and logs a handshake that failed.
    pub(crate) fn report(&self, peer: SocketAddr, direction: Direction, error: &ConnectionError) {
        let Some(refusal) = Refusal::of(error) else {
            counter!("mychat_mesh_handshakes_failed_total", "direction" => direction.label()).increment(1);
            debug!(%peer, direction = direction.label(), %error, "handshake failed");
            return;
        };
        counter!("mychat_mesh_handshakes_refused_total", "reason" => refusal.label()).increment(1);
        if !self.is_news(peer, refusal.label()) {
            return;
        }
        let direction = direction.label();
        match refusal {
            Refusal::OtherCluster => warn!(
                %peer, direction, %error,
                "refused: the peer holds another cluster key: that of another cluster, or one that is not accepted (any more)"
            ),
            Refusal::Clock => warn!(
                %peer, direction, %error,
                "refused: a certificate is not valid now; check the clocks of both machines"
            ),
            Refusal::OtherProtocol => warn!(
                %peer, direction, %error,
                "refused: the peer does not speak this version of the mesh protocol"
            ),
        }
    }

    /// Whether a line about this address was not logged lately, so that it is worth one now.
    pub(crate) fn is_news(&self, peer: SocketAddr, about: &'static str) -> bool {
        self.due(peer, about, Instant::now())
    }

    fn due(&self, peer: SocketAddr, about: &'static str, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let key = (peer, about);
        if last.get(&key).is_some_and(|then| now.duration_since(*then) < QUIET) {
            return false;
        }
        if last.len() >= MOST_ADDRESSES {
            last.retain(|_, then| now.duration_since(*then) < QUIET);
        }
        if last.len() < MOST_ADDRESSES {
            last.insert(key, now);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_named_once_a_minute() {
        let refusals = Refusals::default();
        let (one, other) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:1".parse().unwrap());
        let start = Instant::now();
        assert!(refusals.due(one, "cluster", start));
        assert!(!refusals.due(one, "cluster", start + QUIET / 2));
        assert!(refusals.due(other, "cluster", start));
        assert!(refusals.due(one, "clock", start));
        assert!(refusals.due(one, "cluster", start + QUIET));
    }

    #[test]
    fn memory_of_addresses_is_bounded() {
        let refusals = Refusals::default();
        let start = Instant::now();
        for port in 0..=u16::MAX {
            refusals.due(SocketAddr::from(([192, 0, 2, 1], port)), "cluster", start);
        }
        assert!(refusals.last.lock().unwrap().len() <= MOST_ADDRESSES);
    }
}

//! Congestion control between members: quinn's BBR, with a window that never gets too small for delayed
//! acknowledgements.
//!
//! BBR's own least window is 4 packets, and it goes there on a short path whenever it measures the round trip anew, at
//! the first bulk of each connection to begin with. Peers acknowledge every [`ACKNOWLEDGED`]th packet or after
//! [`ACKNOWLEDGED_AFTER`]: 4 packets wait for the delay then, what BBR sees of the bandwidth is 4 packets per delay
//! (half a megabyte a second, measured where a hundred went), and this keeps its window at 4 packets, for seconds. A window
//! of at least two acknowledgements' packets has none of it: one is always on its way.
//!
//! It takes nothing from a crowded path that others would not: 29 kB are what a common connection begins with twice
//! over (10 packets, RFC 6928), and a path on which less fits carries no cluster.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{BbrConfig, Controller, ControllerFactory, ControllerMetrics};
use quinn::{AckFrequencyConfig, VarInt};
use quinn_proto::RttEstimator;

/// Packets that a peer is asked to answer with one acknowledgement.
const ACKNOWLEDGED: u32 = 10;
/// How long it may keep one back that is due for fewer.
const ACKNOWLEDGED_AFTER: Duration = Duration::from_millis(10);
/// The least window, in packets of the path's size.
const LEAST_PACKETS: u64 = 2 * ACKNOWLEDGED as u64;

/// How often peers are asked to acknowledge (QUIC Acknowledgement Frequency, draft-ietf-quic-ack-frequency), instead of
/// every second packet: a stream of small commits is otherwise answered with half as many packets. A gap is still told at
/// once.
pub(super) fn acknowledgements() -> AckFrequencyConfig {
    let mut config = AckFrequencyConfig::default();
    config
        .ack_eliciting_threshold(VarInt::from_u32(ACKNOWLEDGED - 1))
        .max_ack_delay(Some(ACKNOWLEDGED_AFTER));
    config
}

/// Makes the controllers of connections.
///
/// BBR, although quinn calls its own experimental: on paths between continents Cubic and NewReno take every stray loss
/// for congestion, so that a few hundred small messages a second queue up for seconds (80 ms round trip, one packet in a
/// thousand lost), where BBR delivers them in one network delay. Its price is a longer queue on a path that is really
/// full.
pub(super) struct Control;

impl ControllerFactory for Control {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let inner = Arc::new(BbrConfig::default()).build(now, current_mtu);
        Box::new(Floored { inner, mtu: current_mtu })
    }
}

/// A controller whose window has a floor.
struct Floored {
    inner: Box<dyn Controller>,
    mtu: u16,
}

impl Floored {
    fn floor(&self) -> u64 {
        LEAST_PACKETS * u64::from(self.mtu)
    }
}

impl Controller for Floored {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu;
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window().max(self.floor())
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.inner.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self { inner: self.inner.clone_box(), mtu: self.mtu })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use quinn::congestion::NewRenoConfig;

    use super::*;

    #[test]
    fn the_window_holds_two_acknowledgements_of_packets_however_much_is_lost() {
        let now = Instant::now();
        let inner = Arc::new(NewRenoConfig::default()).build(now, 1_200);
        let mut control: Box<dyn Controller> = Box::new(Floored { inner, mtu: 1_200 });
        for _ in 0..20 {
            control.on_congestion_event(now + Duration::from_secs(1), now, true, 100_000);
        }
        assert_eq!(control.window(), 20 * 1_200);
        control.on_mtu_update(1_452);
        assert_eq!(control.window(), 20 * 1_452);
        let copy = control.clone_box();
        assert_eq!((copy.window(), copy.metrics().congestion_window), (20 * 1_452, 20 * 1_452));
    }

    #[test]
    fn a_larger_window_is_left_alone() {
        let control = Arc::new(Control).build(Instant::now(), 1_452);
        assert_eq!(control.window(), control.initial_window());
        assert!(control.window() > LEAST_PACKETS * 1_452);
    }
}

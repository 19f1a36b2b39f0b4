//! How `foca` is set up, and why.
//!
//! The aim is a wide-area network: round trips of 300 ms of which one packet in fifty is lost in each direction must
//! not make anybody suspect, and a member that crashed must be noticed within 5 s. A crash need not wait for a probe,
//! whose turn comes after a time that grows with the cluster: the lost connection raises the suspicion, at each
//! member, within about 4 s. Probes are for members that are stuck with their connections open.
//!
//! `tests/` measures both in virtual time.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Config, PeriodicParams};

/// The largest packet, in bytes: fits a QUIC datagram on any path, with room for kind and format.
const LARGEST_PACKET: usize = 1100;
/// When a probe or its answer is sent once more. With a round trip of 300 ms the answer to the second one still comes
/// before other members are asked to probe.
pub(super) const REPEAT: Duration = Duration::from_millis(250);
/// Others that are asked to probe a member.
pub(super) const HELPERS: usize = 3;
/// How often others are asked about a member whose connection broke, before it is judged.
pub(super) const INQUIRIES: u32 = 3;
/// The pause between.
pub(super) const INQUIRY: Duration = Duration::from_millis(600);
/// How long a member that does not answer probes is suspected before it is called down: longer than a member that is
/// cut off takes to find that out, so that it does not spread the death of all others.
pub(super) const SUSPICION: Duration = Duration::from_secs(10);

/// A probe waits for more than twice a 300 ms round trip, and a suspected member has many rounds of gossip to refute.
/// Gossip, announcements to members that are down and the number of repetitions are what bounds the packets a member
/// sends while others come and go: 4 every 300 ms, however many changes there are to tell.
pub(super) fn config() -> Config {
    let count = |number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
    let every = |millis, members| {
        Some(PeriodicParams { frequency: Duration::from_millis(millis), num_members: count(members) })
    };
    Config {
        probe_period: Duration::from_millis(2_000),
        probe_rtt: Duration::from_millis(800),
        num_indirect_probes: count(HELPERS),
        max_transmissions: NonZeroU8::new(10).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: SUSPICION,
        remove_down_after: Some(Duration::from_secs(6 * 3600)),
        max_packet_size: count(LARGEST_PACKET),
        notify_down_members: true,
        periodic_announce: every(10_000, 1),
        periodic_announce_to_down_members: every(5_000, 2),
        periodic_gossip: every(300, 4),
    }
}

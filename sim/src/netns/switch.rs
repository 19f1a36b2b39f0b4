//! All links together: packets in by the region that sent them, packets out at their time. No I/O and no clock, as in
//! [`link`](super::link).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::Ipv4Addr;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::link::{Link, Shape};

/// A place that packets come from and go to.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// The region's name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
}

/// The network between the regions.
pub struct Switch {
    ports: Vec<Port>,
    by_address: HashMap<Ipv4Addr, usize>,
    /// By sender and receiver.
    links: Vec<Vec<Link>>,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    order: u64,
    chance: StdRng,
    strays: u64,
}

/// A packet under way. The order decides between packets that come out at one time.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    due: Duration,
    order: u64,
    from: usize,
    to: usize,
    packet: Box<[u8]>,
}

/// A packet that comes out; to be settled with [`Switch::gave`].
pub struct Out {
    /// The sender's port.
    pub from: usize,
    /// The receiver's.
    pub to: usize,
    /// The packet.
    pub packet: Box<[u8]>,
}

impl Switch {
    /// A network between these ports; `shape` says what the link from one to another is like.
    pub fn new(ports: Vec<Port>, shape: impl Fn(usize, usize) -> Shape, seed: u64) -> Self {
        let by_address = ports.iter().enumerate().map(|(at, port)| (port.address, at)).collect();
        let row = |from| (0..ports.len()).map(|to| Link::new(shape(from, to))).collect();
        let links = (0..ports.len()).map(row).collect();
        Self {
            ports,
            by_address,
            links,
            under_way: BinaryHeap::new(),
            order: 0,
            chance: StdRng::seed_from_u64(seed),
            strays: 0,
        }
    }

    /// Takes an IP packet that a region sends. What is not IPv4 is passed over, as nothing here speaks it.
    pub fn take(&mut self, now: Duration, from: usize, packet: &[u8]) {
        let Some(destination) = destination(packet) else { return };
        let to = self.by_address.get(&destination).copied().filter(|to| *to != from);
        let Some(to) = to else {
            self.strays += 1;
            return;
        };
        if let Some(due) = self.links[from][to].take(now, packet.len() as u64, &mut self.chance) {
            self.order += 1;
            self.under_way.push(Reverse(UnderWay {
                due,
                order: self.order,
                from,
                to,
                packet: packet.into(),
            }));
        }
    }

    /// When the next packet comes out.
    pub fn next_due(&self) -> Option<Duration> {
        self.under_way.peek().map(|Reverse(next)| next.due)
    }

    /// The next packet that has come out by now.
    pub fn give(&mut self, now: Duration) -> Option<Out> {
        self.next_due().filter(|due| *due <= now)?;
        let Reverse(UnderWay { from, to, packet, .. }) = self.under_way.pop()?;
        Some(Out { from, to, packet })
    }

    /// Settles a packet that came out: the other end has taken it, or not.
    pub fn gave(&mut self, out: &Out, taken: bool) {
        self.links[out.from][out.to].gave(out.packet.len() as u64, taken);
    }

    /// The ports.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// The link from one port to another.
    pub fn link(&self, from: usize, to: usize) -> &Link {
        &self.links[from][to]
    }

    /// The same, to change it.
    pub fn link_mut(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from][to]
    }

    /// Packets for addresses that no region has.
    pub fn strays(&self) -> u64 {
        self.strays
    }
}

/// Where an IPv4 packet is to go (RFC 791).
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let four = packet.first().is_some_and(|byte| byte >> 4 == 4);
    let address: [u8; 4] = packet.get(16..20).filter(|_| four)?.try_into().ok()?;
    Some(Ipv4Addr::from(address))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::netns::units::Delay;

    pub(in crate::netns) fn switch(names: &[&str], delay_ms: u64) -> Switch {
        let port = |(at, name): (usize, &&str)| Port {
            name: (*name).to_owned(),
            address: Ipv4Addr::new(10, 0, 0, at as u8 + 1),
        };
        let delay = Delay(Duration::from_millis(delay_ms));
        Switch::new(
            names.iter().enumerate().map(port).collect(),
            |_, _| Shape { delay, ..Shape::default() },
            1,
        )
    }

    fn packet(to: u8, number: u16) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&[10, 0, 0, to]);
        packet[20..22].copy_from_slice(&number.to_be_bytes());
        packet
    }

    #[test]
    fn packets_go_where_they_are_addressed_to_when_they_are_due() {
        let mut switch = switch(&["a", "b", "c"], 10);
        switch.take(Duration::ZERO, 0, &packet(2, 7));
        switch.take(Duration::from_millis(1), 2, &packet(1, 8));
        assert_eq!(switch.next_due(), Some(Duration::from_millis(10)));
        assert!(switch.give(Duration::from_micros(9_999)).is_none());
        let out = switch.give(Duration::from_millis(10)).unwrap();
        assert_eq!((out.from, out.to, &out.packet[..]), (0, 1, &packet(2, 7)[..]));
        switch.gave(&out, true);
        assert!(switch.give(Duration::from_millis(10)).is_none());
        assert_eq!(switch.give(Duration::from_millis(11)).unwrap().to, 0);
        assert_eq!((switch.link(0, 1).counters().packets, switch.link(0, 1).held()), (1, 0));
    }

    #[test]
    fn what_nobody_has_asked_for_goes_nowhere() {
        let mut switch = switch(&["a", "b"], 0);
        for packet in [packet(9, 0), packet(1, 0), vec![], vec![0x45; 19], vec![0x60; 60]] {
            switch.take(Duration::ZERO, 0, &packet);
        }
        // An unknown address, and one's own; the rest is no IPv4.
        assert_eq!((switch.next_due(), switch.strays()), (None, 2));
    }

    proptest! {
        #[test]
        fn everything_comes_out_once_and_in_order(sent in prop::collection::vec((0..3_usize, 1..4_u8, 0..3_u64), 0..100)) {
            let mut switch = switch(&["a", "b", "c"], 5);
            let mut expected = BTreeSet::new();
            let mut now = Duration::ZERO;
            for (number, (from, to, gap)) in (0_u16..).zip(&sent) {
                now += Duration::from_millis(*gap);
                switch.take(now, *from, &packet(*to, number));
                if usize::from(*to) != *from + 1 {
                    expected.insert(number);
                }
            }
            let mut last = None;
            while let Some(out) = switch.give(now + Duration::from_millis(5)) {
                let number = u16::from_be_bytes([out.packet[20], out.packet[21]]);
                prop_assert!(expected.remove(&number) && last.is_none_or(|last| last < number));
                last = Some(number);
            }
            prop_assert!(expected.is_empty());
        }

        #[test]
        fn no_packet_is_a_panic(packet in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut switch = switch(&["a", "b"], 5);
            switch.take(Duration::ZERO, 1, &packet);
        }
    }
}

//! One direction between two regions: when a packet that enters now comes out, if it does.
//!
//! No I/O and no clock: times come in as durations since the start of the network. A packet first waits for the line
//! (the bandwidth; what waits is the queue, and a packet that does not fit is dropped at its tail), then travels for
//! the delay and up to the jitter more. Packets of one link keep their order, as they mostly do on real ways.

use std::time::Duration;

use rand::{Rng, RngExt};
use serde::Serialize;

use super::units::{Bandwidth, Bytes, Delay, Loss};

/// What a queue holds where nobody says: about what routers have for a hundred megabits.
pub const QUEUE: u64 = 1 << 20;
/// What one link holds in all, waiting and under way: half a gigabit a second over a way of half a second. It bounds
/// the memory; a packet beyond is dropped.
pub const HELD: u64 = 32 << 20;

/// What a link is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// What every packet takes.
    pub delay: Delay,
    /// What a packet takes longer, at most; evenly spread.
    pub jitter: Delay,
    /// The share of packets that never arrives.
    pub loss: Loss,
    /// How fast packets go onto the line.
    pub bandwidth: Bandwidth,
    /// How many bytes may wait for the line.
    pub queue: Bytes,
}

impl Default for Shape {
    fn default() -> Self {
        let none = Delay(Duration::ZERO);
        Self { delay: none, jitter: none, loss: Loss(0.0), bandwidth: Bandwidth(None), queue: Bytes(QUEUE) }
    }
}

/// One change to a shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// Another delay.
    Delay(Delay),
    /// Another jitter.
    Jitter(Delay),
    /// Another loss.
    Loss(Loss),
    /// Another bandwidth.
    Bandwidth(Bandwidth),
    /// Another queue.
    Queue(Bytes),
}

/// What became of packets so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Counters {
    /// Came out.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
    /// Lost by the share of the shape.
    pub lost: u64,
    /// Dropped as the link was cut.
    pub cut: u64,
    /// Dropped as the queue was full.
    pub full: u64,
    /// Refused at the other end, whose device was gone or down.
    pub refused: u64,
}

/// One direction between two regions.
#[derive(Debug, Clone)]
pub struct Link {
    shape: Shape,
    /// The shape of the topology, for going back to it.
    original: Shape,
    cut: bool,
    /// When the line has sent all that waits.
    line_free: Duration,
    /// When the latest packet comes out: no later one does before.
    latest: Duration,
    held: u64,
    counters: Counters,
}

impl Link {
    /// A link that is not cut.
    pub fn new(shape: Shape) -> Self {
        Self {
            shape,
            original: shape,
            cut: false,
            line_free: Duration::ZERO,
            latest: Duration::ZERO,
            held: 0,
            counters: Counters::default(),
        }
    }

    /// Takes a packet of `size` bytes, and says when it comes out; `None` when it is dropped, which is counted.
    pub fn take(&mut self, now: Duration, size: u64, chance: &mut impl Rng) -> Option<Duration> {
        if self.cut {
            self.counters.cut += 1;
            return None;
        }
        let loss = self.shape.loss.0;
        if loss > 0.0 && chance.random::<f64>() < loss {
            self.counters.lost += 1;
            return None;
        }
        if self.held + size > HELD || self.waiting(now) + size > self.shape.queue.0 {
            self.counters.full += 1;
            return None;
        }
        self.line_free = self.line_free.max(now);
        if let Some(bits) = self.shape.bandwidth.0 {
            self.line_free += Duration::from_secs_f64(size as f64 * 8.0 / bits as f64);
        }
        let jitter = self.shape.jitter.0.mul_f64(chance.random::<f64>());
        self.latest = self.latest.max(self.line_free + self.shape.delay.0 + jitter);
        self.held += size;
        Some(self.latest)
    }

    /// Bytes that wait for the line.
    fn waiting(&self, now: Duration) -> u64 {
        let busy = self.line_free.saturating_sub(now);
        self.shape.bandwidth.0.map_or(0, |bits| (busy.as_secs_f64() * bits as f64 / 8.0) as u64)
    }

    /// A packet that was taken has come out, and the other end has taken it or not.
    pub fn gave(&mut self, size: u64, taken: bool) {
        self.held = self.held.saturating_sub(size);
        if taken {
            self.counters.packets += 1;
            self.counters.bytes += size;
        } else {
            self.counters.refused += 1;
        }
    }

    /// Cuts the link, or joins it again. What is under way still arrives.
    pub fn cut(&mut self, cut: bool) {
        self.cut = cut;
    }

    /// Changes the shape, for packets that enter from now on. After a change of what they take they may overtake earlier
    /// ones, as with any change of a route; else one would wait out the longer delay before seeing the shorter.
    pub fn change(&mut self, change: Change) {
        match change {
            Change::Delay(delay) => (self.shape.delay, self.latest) = (delay, Duration::ZERO),
            Change::Jitter(jitter) => (self.shape.jitter, self.latest) = (jitter, Duration::ZERO),
            Change::Loss(loss) => self.shape.loss = loss,
            Change::Bandwidth(bandwidth) => {
                self.shape.bandwidth = bandwidth;
                // What waits was counted in time at the old speed.
                (self.line_free, self.latest) = (Duration::ZERO, Duration::ZERO);
            }
            Change::Queue(queue) => self.shape.queue = queue,
        }
    }

    /// Back to the topology: not cut, in the original shape.
    pub fn reset(&mut self) {
        self.cut = false;
        self.shape = self.original;
        (self.line_free, self.latest) = (Duration::ZERO, Duration::ZERO);
    }

    /// What it is like now.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Whether it is cut.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// What it holds.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// What became of packets.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn shape(delay: u64, jitter: u64) -> Shape {
        Shape { delay: Delay(ms(delay)), jitter: Delay(ms(jitter)), ..Shape::default() }
    }

    #[test]
    fn a_packet_takes_the_delay_and_a_cut_link_takes_none() {
        let mut chance = StdRng::seed_from_u64(1);
        let mut link = Link::new(shape(80, 0));
        assert_eq!(link.take(ms(5), 100, &mut chance), Some(ms(85)));
        link.cut(true);
        assert_eq!(link.take(ms(6), 100, &mut chance), None);
        link.gave(100, true);
        link.cut(false);
        assert_eq!(link.take(ms(7), 100, &mut chance), Some(ms(87)));
        let counters = link.counters();
        assert_eq!((counters.packets, counters.bytes, counters.cut, link.held()), (1, 100, 1, 100));
    }

    #[test]
    fn the_line_sends_one_packet_after_the_other_and_a_full_queue_drops_its_tail() {
        let mut chance = StdRng::seed_from_u64(1);
        // 1000 bytes take 8 ms; three of them may wait.
        let mut link =
            Link::new(Shape { bandwidth: Bandwidth(Some(1_000_000)), queue: Bytes(3_000), ..shape(10, 0) });
        let out: Vec<_> = (0..5).map(|_| link.take(ms(0), 1_000, &mut chance)).collect();
        assert_eq!(out, [Some(ms(18)), Some(ms(26)), Some(ms(34)), None, None]);
        // After two have left the line there is room for two.
        let out: Vec<_> = (0..3).map(|_| link.take(ms(16), 1_000, &mut chance)).collect();
        assert_eq!(out, [Some(ms(42)), Some(ms(50)), None]);
        assert_eq!(link.counters().full, 3);
        link.change(Change::Bandwidth(Bandwidth(None)));
        assert_eq!(link.take(ms(17), 1_000, &mut chance), Some(ms(27)));
    }

    #[test]
    fn a_shorter_delay_holds_at_once_and_a_reset_brings_back_the_topology() {
        let mut chance = StdRng::seed_from_u64(1);
        let mut link = Link::new(shape(20, 0));
        link.change(Change::Delay(Delay(ms(5_000))));
        assert_eq!(link.take(ms(0), 1, &mut chance), Some(ms(5_000)));
        link.change(Change::Delay(Delay(ms(10))));
        assert_eq!(link.take(ms(1), 1, &mut chance), Some(ms(11)));
        link.change(Change::Loss(Loss(1.0)));
        link.cut(true);
        link.reset();
        assert_eq!(link.take(ms(2), 1, &mut chance), Some(ms(22)));
        link.change(Change::Loss(Loss(1.0)));
        assert_eq!((link.take(ms(3), 1, &mut chance), link.counters().lost), (None, 1));
    }

    #[test]
    fn another_loss_or_queue_does_not_let_packets_overtake() {
        let mut chance = StdRng::seed_from_u64(1);
        let mut link = Link::new(shape(10, 0));
        link.change(Change::Delay(Delay(ms(50))));
        assert_eq!(link.take(ms(0), 100, &mut chance), Some(ms(50)));
        // A jitter that was drawn long before and one that is drawn short after it: the latest holds.
        link.latest = ms(80);
        link.change(Change::Loss(Loss(0.0)));
        link.change(Change::Queue(Bytes(10_000)));
        assert_eq!(link.take(ms(1), 100, &mut chance), Some(ms(80)));
        link.change(Change::Jitter(Delay(ms(0))));
        assert_eq!(link.take(ms(1), 100, &mut chance), Some(ms(51)));
    }

    proptest! {
        #[test]
        fn packets_keep_their_order_take_their_time_and_are_all_accounted_for(
            packets in prop::collection::vec((0..5_000_u64, 40..1_500_u64), 1..200),
            delay in 0..200_u64,
            jitter in 0..50_u64,
            loss in 0.0..0.5_f64,
            kbit in prop::option::of(100..100_000_u64),
            queue in 2_048..100_000_u64,
            seed: u64,
        ) {
            let mut chance = StdRng::seed_from_u64(seed);
            let mut link = Link::new(Shape {
                loss: Loss(loss),
                bandwidth: Bandwidth(kbit.map(|kbit| kbit * 1_000)),
                queue: Bytes(queue),
                ..shape(delay, jitter)
            });
            let (mut now, mut last, mut taken) = (Duration::ZERO, Duration::ZERO, Vec::new());
            for (gap, size) in &packets {
                now += Duration::from_micros(*gap);
                let Some(out) = link.take(now, *size, &mut chance) else { continue };
                prop_assert!(out >= now + ms(delay) && out >= last);
                let line = kbit.map_or(0.0, |kbit| queue as f64 * 8.0 / (kbit as f64 * 1e3));
                // Never later than after a full queue, and the jitter; a packet before may have had more of it.
                let latest = now + ms(delay + jitter) + Duration::from_secs_f64(line) + Duration::from_micros(1);
                prop_assert!(out <= latest.max(last), "{out:?} {latest:?}");
                last = out;
                taken.push(*size);
            }
            prop_assert_eq!(link.held(), taken.iter().sum::<u64>());
            taken.iter().for_each(|size| link.gave(*size, true));
            let counters = link.counters();
            prop_assert_eq!(link.held(), 0);
            prop_assert_eq!(counters.packets + counters.lost + counters.full, packets.len() as u64);
        }
    }
}

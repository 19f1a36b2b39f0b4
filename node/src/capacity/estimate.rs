//! From what a process uses to what it can carry.

use std::time::Duration;

/// What the kernel holds for a connection beside the process, in bytes (measured on Linux: 4.8 KB a socket).
pub const KERNEL_BYTES: f64 = 5_000.0;
/// What a stream takes as long as that has not been learned, in bytes.
pub const UNKNOWN_BYTES: f64 = 16_384.0;
/// What may be learned of it.
const SENSIBLE_BYTES: std::ops::RangeInclusive<f64> = 512.0..=262_144.0;
/// Streams from which on they say something of memory and processors; below, all else is larger.
const TELLING: usize = 1000;
/// The part of what is free that streams may take: queues of slow readers and bursts need room too.
pub const OF_MEMORY: f64 = 0.8;
/// The part of the processors that may be busy at the capacity.
pub const OF_PROCESSORS: f64 = 0.85;
/// Below this part of the processors being busy, nothing is said of how many streams they carry: too much of it has
/// nothing to do with streams.
const BUSY: f64 = 0.3;
/// Over how long the use of processors is averaged: for the capacity, where a burst of clients that come together must
/// not turn the next ones away, and for pressure.
const LONG: Duration = Duration::from_secs(15);
const SHORT: Duration = Duration::from_secs(2);
/// Pressure begins when so much of the processors is busy, or less of them, but turns come late; it ends below.
const PRESSED: f64 = 0.92;
const PRESSED_LATE: (f64, Duration) = (0.6, Duration::from_millis(100));
const RELIEVED: f64 = 0.75;
/// Deliveries a second from which on their cost is learned.
const MEASURABLE: f64 = 1000.0;

/// One look at the process. What the system does not tell is `None`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// When, since the first one.
    pub at: Duration,
    /// Streams that are open.
    pub open: usize,
    /// Events given to streams so far.
    pub delivered: u64,
    /// Time on processors so far.
    pub cpu: Option<Duration>,
    /// Memory of the process, in bytes.
    pub resident: Option<u64>,
    /// Memory that the process could still get, in bytes.
    pub free: Option<u64>,
    /// How late a turn came since the last look, at worst.
    pub late: Duration,
}

/// What ends first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Descriptors, or the operator's setting.
    Connections,
    /// Memory.
    Memory,
    /// Processors.
    Processors,
}

impl Bound {
    /// All that there are.
    pub const ALL: [Self; 3] = [Self::Connections, Self::Memory, Self::Processors];

    /// Its name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Memory => "memory",
            Self::Processors => "processors",
        }
    }
}

/// What is known of the node's capacity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Streams that it can carry.
    pub capacity: usize,
    /// What ends first.
    pub bound: Bound,
    /// How near the node is to what it can do: of streams or of time on processors, whichever is nearer. 1 is full.
    pub load: f64,
    /// Presence and typing have to wait.
    pub pressed: bool,
    /// What a stream takes in the process, in bytes, once learned.
    pub bytes_per_stream: Option<f64>,
    /// What a delivery takes, all work of the process included, in microseconds on a processor, once learned.
    pub micros_per_delivery: Option<f64>,
    /// The part of all processors that the process keeps busy.
    pub busy: f64,
    /// How late turns come, in milliseconds.
    pub late_ms: f64,
}

/// Learns from one look after the other.
#[derive(Debug)]
pub struct Estimator {
    /// No more than so many streams.
    ceiling: usize,
    processors: f64,
    last: Option<Sample>,
    /// What the process takes without streams, in bytes.
    base: Option<f64>,
    bytes_per_stream: Option<f64>,
    micros_per_delivery: Option<f64>,
    busy_long: f64,
    busy_short: f64,
    late: f64,
    pressed: bool,
}

impl Estimator {
    /// One that has seen nothing.
    pub fn new(ceiling: usize, processors: usize) -> Self {
        Self {
            ceiling,
            processors: processors.max(1) as f64,
            last: None,
            base: None,
            bytes_per_stream: None,
            micros_per_delivery: None,
            busy_long: 0.0,
            busy_short: 0.0,
            late: 0.0,
            pressed: false,
        }
    }

    /// Takes a look into account.
    pub fn look(&mut self, sample: Sample) -> Figures {
        self.memory(&sample);
        if let Some(last) = self.last {
            self.time(&last, &sample);
        }
        self.last = Some(sample);
        let late = self.late > PRESSED_LATE.1.as_secs_f64();
        let begins = self.busy_short > PRESSED || (self.busy_short > PRESSED_LATE.0 && late);
        let goes_on = self.pressed && self.busy_short > RELIEVED;
        self.pressed = begins || goes_on;
        self.figures(&sample)
    }

    fn memory(&mut self, sample: &Sample) {
        let Some(resident) = sample.resident.map(|bytes| bytes as f64) else { return };
        if sample.open < TELLING {
            // The latest, as caches fill in the beginning.
            let without = resident - sample.open as f64 * self.bytes_per_stream.unwrap_or_default();
            self.base = Some(without);
        } else if let Some(base) = self.base {
            let grown = (resident - base) / sample.open as f64;
            let grown = grown.clamp(*SENSIBLE_BYTES.start(), *SENSIBLE_BYTES.end());
            let before = self.bytes_per_stream.unwrap_or(grown);
            self.bytes_per_stream = Some(before + (grown - before) * 0.2);
        }
    }

    fn time(&mut self, last: &Sample, sample: &Sample) {
        let passed = sample.at.saturating_sub(last.at).as_secs_f64();
        if passed <= 0.0 {
            return;
        }
        let weight = |time: Duration| 1.0 - (-passed / time.as_secs_f64()).exp();
        self.late += (sample.late.as_secs_f64() - self.late) * weight(SHORT);
        let (Some(before), Some(now)) = (last.cpu, sample.cpu) else { return };
        let used = now.saturating_sub(before).as_secs_f64();
        let busy = (used / passed / self.processors).min(1.0);
        self.busy_long += (busy - self.busy_long) * weight(LONG);
        self.busy_short += (busy - self.busy_short) * weight(SHORT);
        let delivered = sample.delivered.saturating_sub(last.delivered) as f64;
        if delivered / passed >= MEASURABLE {
            let micros = used * 1e6 / delivered;
            let before = self.micros_per_delivery.unwrap_or(micros);
            self.micros_per_delivery = Some(before + (micros - before) * 0.2);
        }
    }

    fn figures(&self, sample: &Sample) -> Figures {
        let mut least = (self.ceiling, Bound::Connections);
        if let Some(free) = sample.free {
            let each = self.bytes_per_stream.unwrap_or(UNKNOWN_BYTES) + KERNEL_BYTES;
            let fits = sample.open + (free as f64 * OF_MEMORY / each) as usize;
            if fits < least.0 {
                least = (fits, Bound::Memory);
            }
        }
        if sample.open >= TELLING && self.busy_long > BUSY {
            let carries = (sample.open as f64 * OF_PROCESSORS / self.busy_long) as usize;
            if carries < least.0 {
                least = (carries, Bound::Processors);
            }
        }
        let (capacity, bound) = least;
        let filled = if capacity == 0 { 1.0 } else { sample.open as f64 / capacity as f64 };
        Figures {
            capacity,
            bound,
            load: filled.max(self.busy_long),
            pressed: self.pressed,
            bytes_per_stream: self.bytes_per_stream,
            micros_per_delivery: self.micros_per_delivery,
            busy: self.busy_short,
            late_ms: self.late * 1000.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// Looks once a second at a process with streams that take `bytes` each and keep `busy` of two processors busy.
    fn live(
        estimator: &mut Estimator,
        from: u64,
        seconds: u64,
        open: usize,
        bytes: u64,
        busy: f64,
    ) -> Figures {
        let mut cpu = Duration::from_secs(from * 10);
        let looks = (from..from + seconds).map(|second| {
            cpu += Duration::from_secs_f64(2.0 * busy);
            estimator.look(Sample {
                at: Duration::from_secs(second),
                open,
                delivered: second * 10_000,
                cpu: Some(cpu),
                resident: Some(GIB / 4 + open as u64 * bytes),
                free: Some(GIB),
                late: Duration::ZERO,
            })
        });
        looks.last().expect("some")
    }

    #[test]
    fn the_ceiling_holds_until_something_is_known() {
        let mut estimator = Estimator::new(500, 2);
        let figures = estimator.look(Sample::default());
        assert_eq!((figures.capacity, figures.bound), (500, Bound::Connections));
        assert!(!figures.pressed && figures.load == 0.0);
        assert_eq!(Estimator::new(0, 1).look(Sample::default()).load, 1.0);
    }

    #[test]
    fn what_a_stream_takes_is_learned() {
        let mut estimator = Estimator::new(1_000_000, 2);
        let before = live(&mut estimator, 0, 5, 0, 1000, 0.0);
        assert_eq!(before.bound, Bound::Memory);
        let learned = live(&mut estimator, 5, 60, 10_000, 1000, 0.1);
        let bytes = learned.bytes_per_stream.expect("learned");
        assert!((bytes - 1000.0).abs() < 50.0, "{bytes}");
        assert!(learned.capacity > 2 * before.capacity, "lighter than was feared");
        // It stays learned when the streams have gone.
        let after = live(&mut estimator, 65, 5, 10, 1000, 0.0);
        assert!(after.capacity > 2 * before.capacity);
    }

    #[test]
    fn busy_processors_bound_the_streams() {
        let mut estimator = Estimator::new(1_000_000, 2);
        live(&mut estimator, 0, 2, 0, 1000, 0.0);
        let half = live(&mut estimator, 2, 120, 5000, 1000, 0.5);
        assert_eq!(half.bound, Bound::Processors);
        assert!((8000..9000).contains(&half.capacity), "{}", half.capacity);
        assert!((half.load - 0.58).abs() < 0.03 && !half.pressed, "{}", half.load);
        let micros = half.micros_per_delivery.expect("learned");
        assert!((micros - 100.0).abs() < 1.0, "{micros}");
        let full = live(&mut estimator, 200, 120, 5000, 1000, 0.95);
        assert!(full.capacity < 5000 && full.pressed && full.load > 0.9);
        let idle = live(&mut estimator, 400, 120, 5000, 1000, 0.01);
        assert!(!idle.pressed && idle.bound == Bound::Memory);
    }

    #[test]
    fn a_burst_turns_nobody_away() {
        let mut estimator = Estimator::new(20_000, 2);
        live(&mut estimator, 0, 10, 5000, 1000, 0.1);
        let burst = live(&mut estimator, 10, 6, 10_000, 1000, 1.0);
        assert!(burst.pressed, "but presence waits");
        assert!(burst.capacity > 10_000, "{}", burst.capacity);
    }

    #[test]
    fn turns_that_come_late_without_work_are_somebody_elses_doing() {
        let mut estimator = Estimator::new(1000, 2);
        let mut look = |second: u64, cpu: f64| {
            estimator.look(Sample {
                at: Duration::from_secs(second),
                cpu: Some(Duration::from_secs_f64(cpu)),
                late: Duration::from_secs(1),
                ..Sample::default()
            })
        };
        for second in 0..20 {
            assert!(!look(second, 0.1 * second as f64).pressed);
        }
        let busy = (20..40).map(|second| look(second, 1.5 * second as f64)).last().expect("some");
        assert!(busy.pressed);
    }
}

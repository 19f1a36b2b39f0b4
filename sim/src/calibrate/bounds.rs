//! The formula: from what a stream, a delivery and a message cost to how many streams a machine carries.

use mychat_node::capacity::{OF_MEMORY, OF_PROCESSORS, UNKNOWN_BYTES};
use serde::Serialize;

/// What there is.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Machine {
    pub(super) processors: usize,
    /// Memory that a process could get, in bytes; none where the system does not tell.
    pub(super) free_bytes: Option<u64>,
    /// Streams for which there are descriptors.
    pub(super) connections: usize,
}

/// What it costs.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Measured {
    pub(super) streams: u32,
    /// In the node; none when there were too few streams to tell.
    pub(super) bytes_per_stream: Option<f64>,
    /// In the kernel.
    pub(super) kernel_bytes_per_stream: f64,
    /// Microseconds on a processor.
    pub(super) cpu_us_per_delivery: f64,
    pub(super) cpu_us_per_message: f64,
    pub(super) deliveries: u64,
    pub(super) broadcast_p99_ms: f64,
    pub(super) rooms_p99_ms: f64,
    /// How late the node's turns came at worst, on an average of two seconds.
    pub(super) loop_late_ms: f64,
}

/// What people do.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Use {
    /// Events a minute on each stream.
    pub(super) events_per_minute: f64,
    /// How many streams an event goes to.
    pub(super) readers: f64,
}

/// How many streams that allows, by what ends it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Bounds {
    pub(super) connections: f64,
    /// None where nothing is known of the memory.
    pub(super) memory: Option<f64>,
    pub(super) processors: f64,
}

impl Bounds {
    pub(super) fn of(machine: &Machine, measured: &Measured, usual: Use) -> Self {
        let each = measured.bytes_per_stream.unwrap_or(UNKNOWN_BYTES) + measured.kernel_bytes_per_stream;
        let event = measured.cpu_us_per_delivery + measured.cpu_us_per_message / usual.readers;
        let time = OF_PROCESSORS * machine.processors as f64 * 1e6;
        Self {
            connections: machine.connections as f64,
            memory: machine.free_bytes.map(|free| free as f64 * OF_MEMORY / each),
            processors: time / (usual.events_per_minute / 60.0 * event),
        }
    }

    /// The least of them, and its name.
    pub(super) fn least(&self) -> (u64, &'static str) {
        let all = [
            (Some(self.connections), "connections"),
            (self.memory, "memory"),
            (Some(self.processors), "processors"),
        ];
        let known = all.into_iter().filter_map(|(bound, name)| Some((bound?, name)));
        known
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map_or((0, "connections"), |(bound, name)| (bound as u64, name))
    }
}

/// Solves two equations: so many deliveries and so many messages took so many microseconds. Neither costs less than
/// nothing.
pub(super) fn solve([one, two]: [[f64; 3]; 2]) -> [f64; 2] {
    let determinant = one[0] * two[1] - two[0] * one[1];
    let all = |rows: [[f64; 3]; 2]| {
        let [deliveries, cpu] = [0, 2].map(|at| rows[0][at] + rows[1][at]);
        if deliveries > 0.0 { cpu / deliveries } else { 0.0 }
    };
    if determinant.abs() < 1.0 {
        return [all([one, two]), 0.0];
    }
    let delivery = (one[2] * two[1] - two[2] * one[1]) / determinant;
    let message = (one[0] * two[2] - two[0] * one[2]) / determinant;
    match (delivery > 0.0, message > 0.0) {
        (true, true) => [delivery, message],
        _ => [all([one, two]), 0.0],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(bytes: Option<f64>) -> Measured {
        Measured {
            streams: 10_000,
            bytes_per_stream: bytes,
            kernel_bytes_per_stream: 5000.0,
            cpu_us_per_delivery: 5.0,
            cpu_us_per_message: 100.0,
            deliveries: 1,
            broadcast_p99_ms: 1.0,
            rooms_p99_ms: 1.0,
            loop_late_ms: 1.0,
        }
    }

    #[test]
    fn what_ends_first_is_named() {
        let machine = Machine { processors: 2, free_bytes: Some(1_000_000_000), connections: 200_000 };
        let of = |events_per_minute, readers| {
            Bounds::of(&machine, &measured(Some(1000.0)), Use { events_per_minute, readers }).least()
        };
        // 1 GB × 0.8 ÷ 6,000 bytes.
        assert_eq!(of(0.1, 10.0), (133_333, "memory"));
        // 1.7 s a second ÷ (1 a second × 15 µs).
        assert_eq!(of(60.0, 10.0), (113_333, "processors"));
        let small = Machine { connections: 19_127, ..machine.clone() };
        let usual = Use { events_per_minute: 1.0, readers: 10.0 };
        assert_eq!(Bounds::of(&small, &measured(Some(1000.0)), usual).least(), (19_127, "connections"));
        let careful = Bounds::of(&machine, &measured(None), usual);
        assert_eq!(careful.least().1, "memory");
        assert!(careful.memory < Some(40_000.0), "a stream that is not known is taken to be large");
    }

    #[test]
    fn two_loads_tell_the_costs_of_deliveries_and_messages() {
        let load =
            |deliveries: f64, messages: f64| [deliveries, messages, deliveries * 6.0 + messages * 200.0];
        let [delivery, message] = solve([load(1_000_000.0, 100.0), load(60_000.0, 6000.0)]);
        assert!((delivery - 6.0).abs() < 1e-6 && (message - 200.0).abs() < 1e-6, "{delivery} {message}");
        // The same load twice tells only the sum.
        let [delivery, message] = solve([load(1000.0, 100.0), load(1000.0, 100.0)]);
        assert!((delivery - 26.0).abs() < 1e-6 && message == 0.0);
        assert_eq!(solve([[0.0; 3]; 2]), [0.0, 0.0]);
    }
}

//! What the system says of this process and of the machine. Linux tells all of it, other systems less.

use std::{fs::read_to_string, time::Duration};

pub use mychat_replication::memory::{free, resident};

/// Ticks a second in `/proc`, on every architecture that Linux runs on today.
const TICKS: f64 = 100.0;

/// Time that the process has spent on processors.
pub fn cpu() -> Option<Duration> {
    cpu_in(&read_to_string("/proc/self/stat").ok()?)
}

fn cpu_in(stat: &str) -> Option<Duration> {
    // The program's name, in parentheses, may have anything in it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_secs_f64((ticks()? + ticks()?) as f64 / TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_linux_are_read() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 3 4 20 0 9 0 100 1 2";
        assert_eq!(cpu_in(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_in("nonsense"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_everything() {
        assert!(cpu().is_some() && resident() > Some(1 << 20) && free().is_some());
    }
}

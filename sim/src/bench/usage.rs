//! What a process has used: time on processors, memory, and space on the disk.

use std::path::Path;

/// Ticks a second in `/proc`, on every architecture that Linux runs on today.
const TICKS: f64 = 100.0;

/// What a process has used; zero where the system does not tell (it tells on Linux).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Usage {
    /// Seconds on processors, in the program and in the kernel, of all threads.
    pub(crate) cpu: f64,
    /// Memory that it has now, in bytes.
    pub(crate) resident: u64,
    /// The most that it ever had, in bytes.
    pub(crate) peak: u64,
}

impl Usage {
    /// Of a process, or of this one.
    pub(crate) fn of(pid: Option<u32>) -> Self {
        let folder = pid.map_or_else(|| "/proc/self".to_owned(), |pid| format!("/proc/{pid}"));
        let read = |file: &str| std::fs::read_to_string(format!("{folder}/{file}")).unwrap_or_default();
        let status = read("status");
        Self { cpu: cpu(&read("stat")), resident: line(&status, "VmRSS:"), peak: line(&status, "VmHWM:") }
    }
}

/// User and system time out of `/proc/PID/stat`.
fn cpu(stat: &str) -> f64 {
    // The program's name, in parentheses, may have anything in it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / TICKS
}

/// A line of `/proc/PID/status` that counts kibibytes, in bytes.
fn line(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or_default()
        * 1024
}

/// Bytes of all files in a folder.
pub(crate) fn disk(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_linux_are_read() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 3 4 20 0 9 0 100 1 2";
        assert!((cpu(stat) - 3.0).abs() < 1e-9);
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t   12 kB\n";
        assert_eq!(
            (line(status, "VmRSS:"), line(status, "VmHWM:"), line(status, "VmSwap:")),
            (12 << 10, 2 << 20, 0)
        );
        assert!((cpu("") - 0.0).abs() < 1e-9);
    }
}

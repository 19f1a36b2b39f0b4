//! Many seeds on all processors, each in one thread from beginning to end.

use std::{
    ops::{ControlFlow, Range},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

/// Runs the seeds, until one of them says that it is enough.
pub fn each(seeds: Range<u64>, run: impl Fn(u64) -> ControlFlow<()> + Sync) {
    let (next, enough) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    enough.fetch_or(run(seed).is_break(), Ordering::Relaxed);
                }
            });
        }
    });
}

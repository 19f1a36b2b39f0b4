//! Since when a process runs, in a way that survives a clock that goes back.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Of two processes of one member the one with the larger generation counts. Milliseconds since 1970 at its start, or
/// more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub(super) u64);

impl Generation {
    /// By the clock alone; one that is set before 1970 counts as standing at 1970.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// By the clock and by what is kept in a file of this member's own: larger than that of the member's last process,
    /// which others would take for the younger one for hours if the clock has gone back meanwhile.
    pub fn next(file: &Path) -> io::Result<Self> {
        Self::after(file, Self::now())
    }

    fn after(file: &Path, now: Self) -> io::Result<Self> {
        let last: u64 = match std::fs::read_to_string(file) {
            // A damaged file says as much as none.
            Ok(text) => text.trim().parse().unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let next = Self(now.0.max(last.saturating_add(1)));
        let fresh = file.with_extension("new");
        std::fs::write(&fresh, format!("{}\n", next.0))?;
        std::fs::rename(&fresh, file)?;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_goes_back_gives_larger_generations_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("generation");
        let late = Generation::after(&file, Generation(1_000_000)).unwrap();
        let early = Generation::after(&file, Generation(5)).unwrap();
        let later = Generation::after(&file, Generation(2_000_000)).unwrap();
        assert_eq!((late.0, early.0, later.0), (1_000_000, 1_000_001, 2_000_000));
        std::fs::write(&file, "nonsense").unwrap();
        assert_eq!(Generation::after(&file, Generation(7)).unwrap(), Generation(7));
    }
}

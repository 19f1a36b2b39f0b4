//! Which networks there are on this machine: those that run, and what killed ones have left.
//!
//! A run has a number, that of its process, and a lock on a file of this name for as long as it lives. Whatever it
//! makes has the number in its name, so runs don't get into each other's way; and a number whose lock is free belongs
//! to nobody any more.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Where the locks and sockets are. It is empty after the machine has started, as all else that a run makes.
const FOLDER: &str = "/run/mychat-wan";
/// What the names of network namespaces begin with.
const PREFIX: &str = "mychat-wan-";
/// Where `ip netns` keeps the namespaces.
pub(super) const NAMESPACES: &str = "/run/netns";

/// This process's own run.
pub(super) struct Run {
    number: u32,
    folder: PathBuf,
    _lock: File,
}

/// Held while a run begins: so two of them do not choose the same addresses, and nobody clears away what is only
/// being made.
pub(super) struct Beginning(#[allow(dead_code, reason = "the lock is all there is to it")] File);

/// Waits until no other run begins.
pub(super) fn begin() -> anyhow::Result<Beginning> {
    begin_in(Path::new(FOLDER))
}

fn begin_in(folder: &Path) -> anyhow::Result<Beginning> {
    fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
    let all = File::create(folder.join("lock"))?;
    all.lock().with_context(|| format!("{} can't be locked", folder.display()))?;
    Ok(Beginning(all))
}

impl Run {
    /// Begins the run of this process.
    pub(super) fn start(_: &Beginning) -> anyhow::Result<Self> {
        Self::start_in(Path::new(FOLDER), std::process::id())
    }

    fn start_in(folder: &Path, number: u32) -> anyhow::Result<Self> {
        if is_alive(folder, number) {
            bail!("this process has a network already");
        }
        // It is locked before it has its name: whoever looks whether a run is alive takes its lock for a moment.
        let unnamed = folder.join(format!("{number}.new"));
        let file = File::create(&unnamed)?;
        file.lock()?;
        fs::rename(&unnamed, lock_of(folder, number))?;
        Ok(Self { number, folder: folder.to_owned(), _lock: file })
    }

    /// Its number.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// The name of a region's namespace.
    pub(super) fn namespace(&self, region: &str) -> String {
        format!("{PREFIX}{}-{region}", self.number)
    }

    /// The name of the device by which the machine itself takes part; the system allows 15 letters.
    pub(super) fn host_device(&self) -> String {
        format!("mcwan{}", self.number)
    }

    /// Where it takes orders.
    pub(super) fn socket(&self) -> PathBuf {
        socket_of(&self.folder, self.number)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_file(lock_of(&self.folder, self.number));
    }
}

/// The socket of a run: of the only one where no number is given.
pub(super) fn find(number: Option<u32>) -> anyhow::Result<PathBuf> {
    find_in(Path::new(FOLDER), number)
}

fn find_in(folder: &Path, number: Option<u32>) -> anyhow::Result<PathBuf> {
    let running: Vec<u32> = numbers(folder)?.into_iter().filter(|run| is_alive(folder, *run)).collect();
    let shown = || running.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    match (number, &running[..]) {
        (_, []) => bail!("no mychat sim wan runs on this machine"),
        (Some(number), _) if !running.contains(&number) => bail!("--run {number}: running are {}", shown()),
        (Some(number), _) | (None, &[number]) => Ok(socket_of(folder, number)),
        (None, _) => bail!("there are several, so name one with --run: {}", shown()),
    }
}

/// Removes what killed runs have left, and returns the namespaces among it, which are for the caller to remove.
pub(super) fn left_over(_: &Beginning) -> anyhow::Result<Vec<String>> {
    left_over_in(Path::new(FOLDER), Path::new(NAMESPACES))
}

fn left_over_in(folder: &Path, namespaces: &Path) -> anyhow::Result<Vec<String>> {
    for dead in numbers(folder)?.into_iter().filter(|number| !is_alive(folder, *number)) {
        clear(folder, dead)?;
    }
    let left = |name: &String| run_of(name).is_some_and(|number| !is_alive(folder, number));
    Ok(entries(namespaces)?.into_iter().filter(left).collect())
}

/// Removes a dead run's files. It may have ended by itself a moment ago, and taken them along.
fn clear(folder: &Path, dead: u32) -> io::Result<()> {
    let _ = fs::remove_file(socket_of(folder, dead));
    match fs::remove_file(lock_of(folder, dead)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The run that a namespace is of.
fn run_of(namespace: &str) -> Option<u32> {
    namespace.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

/// Whether somebody holds the lock.
fn is_alive(folder: &Path, number: u32) -> bool {
    // Without its file there is nobody; one that can't be read is not taken for dead.
    match File::open(lock_of(folder, number)) {
        Ok(file) => file.try_lock().is_err(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

fn numbers(folder: &Path) -> io::Result<Vec<u32>> {
    let number = |name: &String| name.strip_suffix(".lock")?.parse().ok();
    Ok(entries(folder)?.iter().filter_map(number).collect())
}

fn entries(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn lock_of(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number}.lock"))
}

fn socket_of(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number}.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_ends_while_another_one_begins_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        let run = Run::start_in(here, 41).unwrap();
        // The other one has seen the lock file, and then looks whether anybody holds it.
        let seen = numbers(here).unwrap();
        drop(run);
        assert!(seen == [41] && !is_alive(here, 41));
        clear(here, 41).unwrap();
    }

    #[test]
    fn runs_are_told_apart_and_dead_ones_are_cleared_away() {
        let folder = tempfile::tempdir().unwrap();
        let namespaces = tempfile::tempdir().unwrap();
        let (here, there) = (folder.path(), namespaces.path());
        assert!(find_in(here, None).unwrap_err().to_string().contains("no mychat sim wan"));
        let _beginning = begin_in(here).unwrap();
        let one = Run::start_in(here, 41).unwrap();
        assert!(Run::start_in(here, 41).is_err());
        assert_eq!(find_in(here, None).unwrap(), one.socket());
        let two = Run::start_in(here, 42).unwrap();
        assert!(find_in(here, None).unwrap_err().to_string().contains("--run"));
        assert_eq!(find_in(here, Some(42)).unwrap(), two.socket());
        assert!(find_in(here, Some(43)).is_err());
        // What a killed run leaves: files that nobody has locked.
        File::create(lock_of(here, 40)).unwrap();
        File::create(socket_of(here, 40)).unwrap();
        for name in
            [&one.namespace("fra"), "mychat-wan-40-fra", "mychat-wan-39-my-home", "mychat-wan-x-fra", "other"]
        {
            File::create(there.join(name)).unwrap();
        }
        let mut left = left_over_in(here, there).unwrap();
        left.sort_unstable();
        assert_eq!(left, ["mychat-wan-39-my-home", "mychat-wan-40-fra"]);
        assert!(!socket_of(here, 40).exists() && !lock_of(here, 40).exists() && lock_of(here, 41).exists());
        drop(two);
        assert_eq!(find_in(here, None).unwrap(), one.socket());
        assert!(one.host_device().len() <= 15 && one.number() == 41);
    }
}

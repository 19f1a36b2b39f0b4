//! `mychat cluster key`: makes a key, and takes the steps of replacing one. [`KeyFile`] makes a running server take them.

use std::{
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use mychat_replication::cluster::ClusterKey;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often a running server looks at its key file.
const LOOK: Duration = Duration::from_secs(2);

/// Which step to take; none makes the key of a new cluster.
#[derive(Debug, Args)]
#[command(
    after_help = "To replace the key of a running cluster, without a restart and without ending a session:
  1. mychat cluster key --rotate cluster.key   adds a new key, which is accepted and not used yet
  2. mychat cluster key --use cluster.key      uses the new key; the old one is still accepted
  3. mychat cluster key --drop cluster.key     accepts the old key no more
After each step, copy the file to all nodes and routers, and wait until each has logged that it took it
(within seconds, or at once on SIGHUP). Wait 10 minutes before the last step, until the access tokens that the old
key signed have ended; sessions that have not been used since step 2 have to sign in again after it.
A member that is left behind is refused after the last step, and both sides log why."
)]
pub struct Key {
    /// Add a new key to the file, accepted and not used yet: the first step.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["use_new", "drop_old"])]
    rotate: Option<PathBuf>,
    /// Use the new key of the file: the second step.
    #[arg(long = "use", value_name = "FILE", conflicts_with = "drop_old")]
    use_new: Option<PathBuf>,
    /// Remove the old key from the file: the last step.
    #[arg(long = "drop", value_name = "FILE")]
    drop_old: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Key) -> anyhow::Result<()> {
    let (file, step): (_, fn(&ClusterKey) -> _) = match (args.rotate, args.use_new, args.drop_old) {
        (Some(file), ..) => (file, ClusterKey::with_next),
        (_, Some(file), _) => (file, ClusterKey::with_next_used),
        (.., Some(file)) => (file, ClusterKey::without_old),
        _ => {
            println!("{}", ClusterKey::generate().to_text());
            return Ok(());
        }
    };
    let key = ClusterKey::read(&file)?;
    let key = step(&key).with_context(|| file.display().to_string())?;
    replace(&file, &key).with_context(|| format!("{}: can't be written", file.display()))?;
    let marks = key.marks();
    println!("{}: key {} is used; accepted: {}", file.display(), marks[0], marks.join(", "));
    Ok(())
}

/// Puts a new file in the old one's place, readable for its owner only.
fn replace(file: &Path, key: &ClusterKey) -> std::io::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let fresh = PathBuf::from(name);
    let mut written =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    writeln!(written, "{}", key.to_text())?;
    written.sync_all()?;
    std::fs::rename(&fresh, file)
}

/// The file that the key in use came from.
pub struct KeyFile {
    file: PathBuf,
    current: ClusterKey,
    asked: Signal,
}

impl KeyFile {
    /// From now on SIGHUP asks for a look at the file, and no longer ends the process.
    ///
    /// # Errors
    /// When the signal can't be caught.
    pub fn watch(file: PathBuf, current: ClusterKey) -> std::io::Result<Self> {
        Ok(Self { file, current, asked: signal(SignalKind::hangup())? })
    }

    /// Hands over what the file says whenever that changes. A file that can't be used is named in the log, and changes
    /// nothing.
    pub async fn follow(self, take: impl Fn(&ClusterKey) -> anyhow::Result<()>) {
        let Self { file, mut current, mut asked } = self;
        let mut complaint = String::new();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = asked.recv() => complaint.clear(),
            }
            let read = ClusterKey::read(&file).map_err(anyhow::Error::from).and_then(|key| {
                anyhow::ensure!(key.is_of_same_cluster(&current), "it is the key of another cluster");
                if key != current {
                    take(&key)?;
                    current = key;
                }
                Ok(())
            });
            match read {
                Ok(()) => complaint.clear(),
                Err(error) => {
                    let error = format!("{error:#}");
                    if error != complaint {
                        tracing::error!(file = %file.display(), error, "the cluster key file can't be used; the key stays as it is");
                        complaint = error;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_are_taken_in_order_in_a_file_of_its_owners() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("cluster.key");
        let old = ClusterKey::generate();
        std::fs::write(&file, old.to_text()).expect("written");
        let none = || Key { rotate: None, use_new: None, drop_old: None };
        let too_early = run(Key { use_new: Some(file.clone()), ..none() }).expect_err("too early");
        assert!(format!("{too_early:#}").contains("one key only"), "{too_early:#}");
        run(Key { rotate: Some(file.clone()), ..none() }).expect("the first step");
        assert!(run(Key { rotate: Some(file.clone()), ..none() }).is_err());
        run(Key { use_new: Some(file.clone()), ..none() }).expect("the second step");
        run(Key { drop_old: Some(file.clone()), ..none() }).expect("the last step");
        let new = ClusterKey::read(&file).expect("a key");
        assert!(new.is_of_same_cluster(&old) && new != old && new.marks().len() == 1);
        let mode = std::fs::metadata(&file).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

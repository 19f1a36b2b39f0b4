//! A disk that can be filled: a small file system in memory under the data folder of one node.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// Its size, which the database needs a part of.
const SIZE: &str = "48m";
const BALLAST: &str = "ballast";

/// The mounted file system. Dropping it unmounts it; the node must be gone by then.
pub(super) struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one, which only root may.
    pub(super) fn mount(at: &Path) -> anyhow::Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "disk-full mounts a small file system: run it as root");
        fs::create_dir_all(at)?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o"]).arg(format!("size={SIZE}")).arg("tmpfs").arg(at);
        let output = command.output().context("no program `mount`")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "disk-full needs to mount a small file system: {}", said.trim());
        Ok(Self { at: at.to_owned() })
    }

    /// Takes all room that is left.
    pub(super) fn fill(&self) -> anyhow::Result<()> {
        let mut ballast = File::options().create(true).append(true).open(self.at.join(BALLAST))?;
        for size in [1 << 20, 4096, 1] {
            let piece = vec![0; size];
            // The error is that the disk is full, which is what is wanted.
            while ballast.write_all(&piece).is_ok() {}
        }
        Ok(())
    }

    /// Gives the room back.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.at.join(BALLAST))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.at).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be unmounted", self.at.display());
        }
    }
}

//! A witness beside the database: whether the disk holds all that this node wrote, or has gone back in time.
//!
//! A database that comes back older than it was would use its version numbers again (invariant I2). Peers can say what
//! they know of the lost tail, but readers may know more than any peer: what was told to them and had not gone further.
//! So a small file beside the database says how far the own log went, in a way that says nothing any more once
//! somebody else has had a hand in it:
//!
//! | what happened | shows by |
//! | --- | --- |
//! | the machine or its volume was rolled back, or lost what it had not written | another boot of the machine |
//! | the folder is a copy | another inode |
//! | the file was overwritten in place by an older one | the kernel's time of the inode's last change, which nobody can set |
//! | the database alone was put back | a log that is shorter than the witness says |
//!
//! It is rewritten after each commit and never synced: the system's cache outlives the process, and with the machine
//! the witness is void anyway. One that can't be read or written, or that a machine without numbered boots has left,
//! vouches for nothing; a node then goes on under a new site id, which is always safe.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::log::{SiteId, Version};

/// What the record's first byte says.
const FORMAT: u8 = 1;
/// What a record takes at the most, in bytes.
const LONGEST: usize = 256;
/// How far the time in the record and the inode's may be apart, in milliseconds: the kernel's clock for files lags by a
/// few of them, and the clock may be set between the two readings.
const TOLERANCE: u64 = 1_000;
/// Where Linux says which boot this is.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Says what the log of a database reached, as long as nothing has happened to the disk.
pub trait Witness: Send {
    /// What was noted last, if that is certain: this site's log went up to this version.
    fn testimony(&self) -> Option<(SiteId, Version)>;
    /// The log of `site` is durable up to `head`. Called before anybody hears of it.
    fn note(&mut self, site: SiteId, head: Version);
}

/// A witness that vouches for nothing.
struct Silent;

impl Witness for Silent {
    fn testimony(&self) -> Option<(SiteId, Version)> {
        None
    }

    fn note(&mut self, _: SiteId, _: Version) {}
}

/// A witness that is a file.
struct Beside {
    file: File,
    here: Here,
    before: Option<Record>,
    failing: bool,
}

/// What a file is on this machine, as long as it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Here {
    boot: String,
    device: u64,
    inode: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    format: u8,
    here: Here,
    /// When it was written, in milliseconds since 1970.
    written: u64,
    site: [u8; 16],
    head: u64,
}

/// The witness of the database at `path`. It is kept in a file of the same name that ends in `.witness`.
pub fn beside(path: &Path) -> Box<dyn Witness> {
    let file = path.with_extension("witness");
    match Beside::open(&file, Path::new(BOOT)) {
        Ok(witness) => Box::new(witness),
        Err(error) => {
            tracing::warn!(%error, file = %file.display(), "nothing can vouch for this disk at the next start");
            Box::new(Silent)
        }
    }
}

impl Beside {
    fn open(path: &Path, boot: &Path) -> io::Result<Self> {
        let boot = std::fs::read_to_string(boot)?.trim().to_owned();
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        let metadata = file.metadata()?;
        let here = Here { boot, device: metadata.dev(), inode: metadata.ino() };
        let mut bytes = [0; LONGEST];
        let length = file.read_at(&mut bytes, 0)?;
        let before = postcard::take_from_bytes::<Record>(&bytes[..length]).ok().map(|(record, _)| record);
        let before = before.filter(|record| record.is_of(&here, changed_at(&metadata)));
        Ok(Self { file, here, before, failing: false })
    }

    fn write(&self, site: SiteId, head: Version) -> io::Result<()> {
        let written = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
        let record = Record {
            format: FORMAT,
            here: self.here.clone(),
            written: u64::try_from(written.as_millis()).map_err(io::Error::other)?,
            site: site.0,
            head: head.0,
        };
        let mut bytes = [0; LONGEST];
        let bytes = postcard::to_slice(&record, &mut bytes).map_err(io::Error::other)?;
        self.file.write_all_at(bytes, 0)
    }
}

impl Witness for Beside {
    fn testimony(&self) -> Option<(SiteId, Version)> {
        self.before.as_ref().map(|record| (SiteId(record.site), Version(record.head)))
    }

    fn note(&mut self, site: SiteId, head: Version) {
        let Err(error) = self.write(site, head) else {
            self.failing = false;
            return;
        };
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(%error, "the witness of this disk can't be written");
        }
        // What it says must not be taken for the last word.
        if let Err(error) = self.file.set_len(0) {
            tracing::error!(%error, "nor can it be emptied: a copy of this disk might pass for the disk");
        }
    }
}

impl Record {
    /// Whether it was written to this very file since the machine started, and the last to do so.
    fn is_of(&self, here: &Here, changed: u64) -> bool {
        self.format == FORMAT && self.here == *here && self.written.abs_diff(changed) <= TOLERANCE
    }
}

/// When the inode was changed last, in milliseconds since 1970.
fn changed_at(metadata: &std::fs::Metadata) -> u64 {
    let millis = metadata.ctime().saturating_mul(1_000).saturating_add(metadata.ctime_nsec() / 1_000_000);
    u64::try_from(millis).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const SITE: SiteId = SiteId([7; 16]);

    /// A folder with a witness that has noted version 5.
    fn noted() -> TempDir {
        let folder = TempDir::new().unwrap();
        open(&folder).note(SITE, Version(5));
        folder
    }

    fn open(folder: &TempDir) -> Beside {
        Beside::open(&folder.path().join("data.witness"), Path::new(BOOT)).unwrap()
    }

    #[test]
    fn it_says_what_was_noted_last() {
        let folder = TempDir::new().unwrap();
        assert_eq!(open(&folder).testimony(), None, "nothing was noted");
        let mut witness = open(&folder);
        witness.note(SITE, Version(1 << 40));
        witness.note(SITE, Version(5));
        drop(witness);
        assert_eq!(open(&folder).testimony(), Some((SITE, Version(5))));
        assert_eq!(open(&folder).testimony(), Some((SITE, Version(5))), "reading it changes nothing");
    }

    #[test]
    fn a_copy_vouches_for_nothing() {
        let folder = noted();
        let file = folder.path().join("data.witness");
        fs::copy(&file, folder.path().join("copy")).unwrap();
        fs::rename(folder.path().join("copy"), &file).unwrap();
        assert_eq!(open(&folder).testimony(), None);
    }

    #[test]
    fn another_boot_makes_it_void() {
        let folder = noted();
        let boot = folder.path().join("boot");
        fs::write(&boot, "another\n").unwrap();
        let opened = Beside::open(&folder.path().join("data.witness"), &boot).unwrap();
        assert_eq!(opened.testimony(), None);
    }

    #[test]
    fn what_is_written_over_it_in_place_vouches_for_nothing() {
        let folder = noted();
        let file = folder.path().join("data.witness");
        // As if the backup was of some time ago, which no test can wait for: the time within the record is older.
        let bytes = fs::read(&file).unwrap();
        let mut record: Record = postcard::from_bytes(&bytes).unwrap();
        record.written -= TOLERANCE * 5;
        fs::write(&file, postcard::to_allocvec(&record).unwrap()).unwrap();
        assert_eq!(open(&folder).testimony(), None);
    }

    #[test]
    fn rubbish_vouches_for_nothing() {
        let folder = noted();
        for rubbish in
            [&b""[..], b"\x01", &[0xff; 300], b"\x02aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
        {
            fs::write(folder.path().join("data.witness"), rubbish).unwrap();
            assert_eq!(open(&folder).testimony(), None, "{rubbish:?}");
        }
    }

    #[test]
    fn a_machine_without_numbered_boots_has_no_witness() {
        let folder = noted();
        assert!(
            Beside::open(&folder.path().join("data.witness"), &folder.path().join("none")).is_err(),
            "so nothing vouches for the disk"
        );
    }
}

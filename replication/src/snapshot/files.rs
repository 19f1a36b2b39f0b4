//! The files of snapshots, beside the database.
//!
//! | name | is | after a crash |
//! | --- | --- | --- |
//! | `DB-snapshot.partial`, `.note` | what was received so far, and of which snapshot | resumed |
//! | `DB-incoming` | a received database before it takes the place | removed |
//! | `DB-copy` | the copy of this database that is being packed | removed |
//! | `DB-copy-ID.zst` | the packed one, which is served to peers | removed |

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use super::wire::{Note, SnapshotId};
use crate::{
    replica::wire::{decode, encode},
    store::beside,
};

/// The names of the files of one database.
#[derive(Debug, Clone)]
pub struct Files {
    database: PathBuf,
}

impl Files {
    /// The files beside this database.
    pub fn of(database: &Path) -> Self {
        Self { database: database.to_owned() }
    }

    /// What was received so far.
    pub fn partial(&self) -> PathBuf {
        beside(&self.database, "-snapshot.partial")
    }

    fn note(&self) -> PathBuf {
        beside(&self.database, "-snapshot.note")
    }

    /// The received database.
    pub fn incoming(&self) -> PathBuf {
        beside(&self.database, "-incoming")
    }

    /// The copy of this database.
    pub fn copy(&self) -> PathBuf {
        beside(&self.database, "-copy")
    }

    /// The packed copy.
    pub fn packed(&self, id: SnapshotId) -> PathBuf {
        beside(&self.database, &format!("-copy-{id}.zst"))
    }

    /// Which snapshot was received in part, and how many bytes of it.
    pub fn received(&self) -> Option<(Note, u64)> {
        let note = decode::<Note>(&fs::read(self.note()).ok()?).ok()?;
        let length = fs::metadata(self.partial()).ok()?.len();
        (length <= note.header.size).then_some((note, length))
    }

    /// Begins to receive a snapshot: an empty file with a note. The note comes last, since a part without one is
    /// nothing.
    pub fn begin(&self, note: &Note) -> io::Result<()> {
        self.discard();
        fs::File::create(self.partial())?;
        let bytes = encode(note).map_err(io::Error::other)?;
        let written = beside(&self.note(), ".new");
        fs::write(&written, bytes)?;
        fs::rename(written, self.note())
    }

    /// Forgets what was received.
    pub fn discard(&self) {
        remove(&self.note());
        remove(&self.partial());
    }

    /// Removes a database and what SQLite puts beside it.
    pub fn remove_database(path: &Path) {
        for suffix in ["-wal", "-shm", "-journal", ""] {
            remove(&beside(path, suffix));
        }
    }

    /// Removes what a former life left and nobody can use.
    pub fn clean(&self) {
        Self::remove_database(&self.incoming());
        Self::remove_database(&self.copy());
        let (Some(folder), Some(name)) = (self.database.parent(), self.database.file_name()) else { return };
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            if is_packed(&entry.file_name(), name) {
                remove(&entry.path());
            }
        }
    }
}

fn is_packed(name: &OsStr, database: &OsStr) -> bool {
    let (Some(name), Some(database)) = (name.to_str(), database.to_str()) else { return false };
    name.strip_prefix(database).is_some_and(|rest| rest.starts_with("-copy-") && rest.ends_with(".zst"))
}

/// Removes a file that may not be there.
pub fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a file of a snapshot can't be removed");
    }
}

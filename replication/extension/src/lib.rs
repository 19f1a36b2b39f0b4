//! The cr-sqlite extension, embedded in the program and loadable into a rusqlite connection.
//!
//! cr-sqlite turns a table into a conflict-free replicated one: each write leaves a row in the virtual table
//! `crsql_changes`, and inserting such a row on another machine merges it. Its maintained fork is published as a
//! compiled library inside the crate `klukai-types`, which also pins an old rusqlite. So the build script takes
//! the library alone (see `build.rs` and `source/Cargo.toml`), checks its hash, and this crate embeds the bytes.
//!
//! Loading needs a file, so the first call of [`load`] in a process puts the library into an anonymous
//! file in memory (a private temporary file where the system has none) and later calls share it. This is the only crate of
//! the workspace that uses `unsafe`: for loading, and for settings of SQLite that a process makes once ([`configure`]).
#![deny(unsafe_op_in_unsafe_fn)]

mod page_cache;
#[cfg(test)]
mod testing;
mod write_ahead;

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::{Once, OnceLock},
};

use rusqlite::{Connection, LoadExtensionGuard};

const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/crsqlite.library"));

/// Why the extension could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library could not be written to a temporary file.
    #[error("cannot unpack the cr-sqlite extension into {folder}: {source}")]
    Unpack {
        /// Where it was to be written.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite refused the library.
    #[error("cannot load the cr-sqlite extension: {0}")]
    Load(#[from] rusqlite::Error),
}

/// Lets SQLite work without counting its memory, without searching its page cache at each commit (`page_cache`), and with
/// one call to the system for a transaction (`write_ahead`). To count, it takes one lock of the whole process at each
/// allocation, for which connections on different threads then wait for each other.
///
/// Call it before the first connection of the process is opened; later it has no effect.
pub fn configure() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the option takes one int. While another thread opens the first connection the calls are not safe by
        // SQLite's word, which is why every connection of this workspace is opened after them, behind the same `Once`.
        unsafe {
            let _ = rusqlite::ffi::sqlite3_config(rusqlite::ffi::SQLITE_CONFIG_MEMSTATUS, 0);
            page_cache::install();
            write_ahead::install();
        }
    });
}

/// Loads cr-sqlite into `connection`.
///
/// Costs about 0.1 ms, and some milliseconds the first time in a process. Call [`finalize`] before the connection
/// is closed.
///
/// # Errors
/// When the temporary folder is not writable or SQLite can't load the library.
pub fn load(connection: &Connection) -> Result<(), Error> {
    let path = unpacked()?;
    // SAFETY: the library is the one whose hash the build script checked, in a file that only this process's user
    // can write; extension loading is switched off again when the guard drops.
    unsafe {
        let _guard = LoadExtensionGuard::new(connection)?;
        connection.load_extension(path, Some("sqlite3_crsqlite_init"))?;
    }
    Ok(())
}

/// Releases the statements that the extension holds; without it closing the connection fails as busy.
///
/// # Errors
/// When the extension was not loaded into this connection.
pub fn finalize(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("SELECT crsql_finalize()", [], |_| Ok(()))
}

/// A path under which this process, and no other user, can read the library.
fn unpacked() -> Result<&'static Path, Error> {
    static FILE: OnceLock<Unpacked> = OnceLock::new();
    if FILE.get().is_none() {
        // Two threads may race to here; the loser's copy goes away with its value.
        let _ = FILE.set(Unpacked::new()?);
    }
    FILE.get().map(|file| file.path.as_path()).ok_or_else(|| Error::Unpack {
        folder: std::env::temp_dir(),
        source: std::io::Error::other("no file was kept"),
    })
}

/// The library as a file that lives as long as the process.
struct Unpacked {
    path: PathBuf,
    #[cfg(target_os = "linux")]
    _memory: std::fs::File,
    #[cfg(not(target_os = "linux"))]
    _file: tempfile::NamedTempFile,
}

impl Unpacked {
    /// In memory where the system can: nothing to clean up, and nothing that another user could put in its place.
    #[cfg(target_os = "linux")]
    fn new() -> Result<Self, Error> {
        use std::os::fd::AsRawFd;
        let unpack = |source| Error::Unpack { folder: PathBuf::from("memory"), source };
        let descriptor = rustix::fs::memfd_create("mychat-crsqlite", rustix::fs::MemfdFlags::CLOEXEC)
            .map_err(|e| unpack(e.into()))?;
        let mut memory = std::fs::File::from(descriptor);
        memory.write_all(LIBRARY).map_err(unpack)?;
        Ok(Self { path: format!("/proc/self/fd/{}", memory.as_raw_fd()).into(), _memory: memory })
    }

    #[cfg(not(target_os = "linux"))]
    fn new() -> Result<Self, Error> {
        let folder = std::env::temp_dir();
        let unpack = |source| Error::Unpack { folder: folder.clone(), source };
        let mut file =
            tempfile::Builder::new().prefix("mychat-crsqlite-").tempfile_in(&folder).map_err(unpack)?;
        file.write_all(LIBRARY).map_err(unpack)?;
        Ok(Self { path: file.path().to_path_buf(), _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_connection_knows_its_site() {
        configure();
        let connection = Connection::open_in_memory().expect("an in-memory database");
        load(&connection).expect("the extension loads");
        let site: Vec<u8> =
            connection.query_row("SELECT crsql_site_id()", [], |row| row.get(0)).expect("a site id");
        assert_eq!(site.len(), 16);
        finalize(&connection).expect("the extension lets go");
    }
}

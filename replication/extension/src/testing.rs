//! A folder for databases of one test.

use std::path::{Path, PathBuf};

/// Removed in the end, however the test ends.
pub struct Folder(PathBuf);

impl Folder {
    /// A new one, in a process whose SQLite is set up as a node's.
    pub fn new(name: &str) -> Self {
        crate::configure();
        let folder = std::env::temp_dir().join(format!("mychat-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

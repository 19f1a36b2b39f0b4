//! What was ever written, independent of the nodes: the judge of the invariants I2, I3 and I4.
//!
//! Every changed row has a content number that is never used twice, so two contents of one version show.
//!
//! # The limit that is known
//! A node whose disk went back in time can only learn that from a peer, if its witness vouches for the disk all the same
//! (as no real one should). When no peer that knows the lost tail has told it so before it settled, it writes a version a
//! second time. The history notes that a site is *tainted* then and judges its contents no more; the simulation counts
//! it, and fails if the node had been told, or if its witness told the truth.

use std::collections::{BTreeMap, BTreeSet};

use mychat_replication::log::{Frame, SiteId};

use crate::disk::{Rows, rows_of};

#[derive(Default)]
pub struct History {
    /// The content of each version.
    versions: BTreeMap<(SiteId, u64), Rows>,
    /// Versions that were on no disk any more after a disk went back. A frame of them may still be on its way.
    ghosts: BTreeMap<(SiteId, u64), Vec<Rows>>,
    /// The versions, ghosts among them, that wrote a row.
    writers: BTreeMap<(SiteId, u32), BTreeSet<u64>>,
    tainted: BTreeSet<SiteId>,
}

/// How a version that a node has just written relates to what was written before.
#[derive(Debug, PartialEq, Eq)]
pub enum Fresh {
    New,
    /// The version existed on a disk that has lost it, and on no other.
    ReusedUnseen,
    /// Others have the version with another content.
    Reused,
}

impl History {
    pub fn is_tainted(&self, site: SiteId) -> bool {
        self.tainted.contains(&site)
    }

    pub fn is_anything_tainted(&self) -> bool {
        !self.tainted.is_empty()
    }

    /// Whether nothing of `site` was ever lost or reused, so that its rows must be the same everywhere.
    pub fn is_whole(&self, site: SiteId) -> bool {
        let lost = self.ghosts.range((site, 0)..=(site, u64::MAX)).next().is_some();
        !lost && !self.is_tainted(site)
    }

    /// Judges the contents of `site` no more; says whether they were judged so far.
    pub fn taint(&mut self, site: SiteId) -> bool {
        self.tainted.insert(site)
    }

    pub fn written(&mut self, frame: &Frame) -> Fresh {
        let at = (frame.site, frame.version.0);
        for key in rows_of(frame).into_keys() {
            self.writers.entry((frame.site, key)).or_default().insert(at.1);
        }
        if self.versions.contains_key(&at) {
            return Fresh::Reused;
        }
        self.versions.insert(at, rows_of(frame));
        if self.ghosts.contains_key(&at) { Fresh::ReusedUnseen } else { Fresh::New }
    }

    /// Everything of `site` beyond `held` is on no disk any more. Says how many versions that are.
    pub fn lost(&mut self, site: SiteId, held: u64) -> usize {
        let gone: Vec<u64> =
            self.versions.range((site, held + 1)..=(site, u64::MAX)).map(|((_, v), _)| *v).collect();
        for version in &gone {
            if let Some(rows) = self.versions.remove(&(site, *version)) {
                self.ghosts.entry((site, *version)).or_default().push(rows);
            }
        }
        gone.len()
    }

    pub fn sites(&self) -> BTreeSet<SiteId> {
        self.versions.keys().map(|(site, _)| *site).collect()
    }

    /// The last version of `site` that is still on some disk.
    pub fn head(&self, site: SiteId) -> u64 {
        self.versions.range((site, 0)..=(site, u64::MAX)).next_back().map_or(0, |((_, version), _)| *version)
    }

    /// Judges a frame that was applied on top of version `held` (I2 and I3).
    pub fn applied(&mut self, frame: &Frame, held: u64) -> Result<(), String> {
        let (site, version) = (frame.site, frame.version.0);
        self.resurrect(site, held, version);
        if self.is_tainted(site) {
            return Ok(());
        }
        let none = Rows::new();
        let mut rows = rows_of(frame);
        let written = self.versions.get(&(site, version)).unwrap_or(&none);
        for (key, content) in &rows {
            if written.get(key) == Some(content) {
                continue;
            }
            let ghost = |rows: &Rows| rows.get(key) == Some(content);
            if self.ghosts.get(&(site, version)).is_some_and(|ghosts| ghosts.iter().any(ghost)) {
                // It was on its way when its writer lost it, and the writer has reused the version since.
                self.taint(site);
                return Ok(());
            }
            return Err(format!(
                "I2: {site:?} {version} row {key} is {content}, but was written as {written:?}"
            ));
        }
        for ((_, between), written) in self.versions.range((site, held + 1)..=(site, version)) {
            let present = if *between == version { std::mem::take(&mut rows) } else { Rows::new() };
            for key in written.keys().filter(|key| !present.contains_key(key)) {
                if !self.overwritten(site, *key, *between) {
                    return Err(format!(
                        "I3: {site:?} {held} to {version} leaves out row {key} of {between}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Versions that had been lost with a disk are on one again.
    pub fn resurrect(&mut self, site: SiteId, held: u64, version: u64) {
        let ghosts: Vec<u64> =
            self.ghosts.range((site, held + 1)..=(site, version)).map(|((_, v), _)| *v).collect();
        for ghost in ghosts {
            let at = (site, ghost);
            if !self.versions.contains_key(&at)
                && let Some(rows) = self.ghosts.get_mut(&at).and_then(Vec::pop)
            {
                self.versions.insert(at, rows);
            }
            if self.ghosts.get(&at).is_some_and(Vec::is_empty) {
                self.ghosts.remove(&at);
            }
        }
    }

    fn overwritten(&self, site: SiteId, key: u32, version: u64) -> bool {
        self.writers.get(&(site, key)).is_some_and(|versions| versions.range(version + 1..).next().is_some())
    }

    /// Judges what a disk holds of `site` up to version `held` (I4): each row has the last content that was written up
    /// to there, or an earlier state because a later version, which the upstream had already, has overwritten it.
    ///
    /// With `complete` every disk has everything, and only a version that was lost with a disk explains an earlier
    /// state; the number of those rows is returned.
    pub fn judge(
        &self,
        site: SiteId,
        held: u64,
        rows: &BTreeMap<u32, (u64, u64)>,
        complete: bool,
    ) -> Result<usize, String> {
        if self.is_tainted(site) {
            return Ok(0);
        }
        let mut expected: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for ((_, version), written) in self.versions.range((site, 0)..=(site, held)) {
            expected.extend(written.iter().map(|(key, content)| (*key, (*version, *content))));
        }
        for (key, (version, content)) in rows {
            if self.versions.get(&(site, *version)).and_then(|rows| rows.get(key)) != Some(content) {
                return Err(format!("I4: {site:?} has {content} of {version} as row {key}: never written"));
            }
        }
        let mut excused = 0;
        for (key, (version, _)) in expected.iter().filter(|(key, row)| rows.get(key) != Some(row)) {
            if !self.overwritten(site, *key, *version) {
                return Err(format!("I4: {site:?} up to {held} lacks row {key} of {version}"));
            }
            let lost =
                |later: &u64| !self.versions.get(&(site, *later)).is_some_and(|rows| rows.contains_key(key));
            if complete && !self.writers[&(site, *key)].range(version + 1..).any(lost) {
                return Err(format!("I4: {site:?}, complete at {held}, lacks row {key} of {version}"));
            }
            excused += usize::from(complete);
        }
        Ok(excused)
    }
}

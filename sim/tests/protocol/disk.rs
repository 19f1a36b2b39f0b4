//! A toy database: for each site a prefix of its log, kept the way that cr-sqlite keeps it. A row that is written
//! again vanishes from the version that wrote it before.

use std::{collections::BTreeMap, sync::Arc};

use mychat_replication::{
    NodeId,
    clock::Stamp,
    log::{
        Change, Frame, GroupId, Retirement, SiteId, Value, Version, VersionVector, key, retirement::TABLE,
    },
};

/// Rows by key, with the number that names their content.
pub type Rows = BTreeMap<u32, u64>;

/// A changed row of about `size` bytes.
pub fn change(key: u32, content: u64, size: usize) -> Change {
    let mut bytes = vec![0; size.max(8)];
    bytes[..8].copy_from_slice(&content.to_be_bytes());
    Change {
        table: "row".into(),
        key: key.to_be_bytes().to_vec(),
        column: "data".into(),
        value: Value::Blob(bytes),
        column_version: 1,
        causal_length: 1,
        sequence: 0,
    }
}

/// The row that retires a site.
pub fn retirement(site: SiteId, upto: u64, by: SiteId, node: NodeId) -> Change {
    let (key, data) = Retirement::row(site, Version(upto), by, node);
    Change {
        table: TABLE.into(),
        key: key::pack(&key),
        column: "data".into(),
        value: Value::Blob(data),
        column_version: 1,
        causal_length: 1,
        sequence: 0,
    }
}

fn key_of(change: &Change) -> u32 {
    u32::from_be_bytes(change.key.as_slice().try_into().expect("a key of four bytes"))
}

pub fn rows_of(frame: &Frame) -> Rows {
    let content = |change: &Change| {
        let bytes = change.value.as_blob().and_then(|bytes| bytes.first_chunk()).expect("a content number");
        u64::from_be_bytes(*bytes)
    };
    let rows = frame.changes.iter().filter(|change| &*change.table == "row");
    rows.map(|change| (key_of(change), content(change))).collect()
}

pub fn frame(site: SiteId, after: u64, version: u64, changes: Vec<Change>) -> Frame {
    let (after, version) = (Version(after), Version(version));
    Frame { group: GroupId::GLOBAL, site, after, version, stamp: Stamp::default(), changes }
}

#[derive(Clone, Debug, Default)]
struct Log {
    held: u64,
    frames: BTreeMap<u64, Arc<Frame>>,
    /// The version that wrote each row last.
    latest: BTreeMap<u32, u64>,
}

impl Log {
    fn insert(&mut self, frame: &Arc<Frame>) {
        let version = frame.version.0;
        for change in frame.changes.iter().filter(|change| &*change.table == "row") {
            if let Some(before) = self.latest.insert(key_of(change), version)
                && let Some(old) = self.frames.get_mut(&before)
            {
                Arc::make_mut(old).changes.retain(|row| row.table != change.table || row.key != change.key);
                if old.changes.is_empty() {
                    self.frames.remove(&before);
                }
            }
        }
        if !frame.changes.is_empty() {
            self.frames.insert(version, Arc::clone(frame));
        }
        self.held = version;
    }
}

/// What became of a frame that was to be applied.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    Duplicate,
    Gap,
}

#[derive(Clone, Debug)]
pub struct Disk {
    pub site: SiteId,
    opened_at: u64,
    logs: BTreeMap<SiteId, Log>,
}

impl Disk {
    pub fn new(site: SiteId) -> Self {
        Self { site, opened_at: 0, logs: BTreeMap::new() }
    }

    /// What happens when a process starts on it.
    pub fn open(&mut self) {
        self.opened_at = self.held(self.site);
    }

    pub fn held(&self, site: SiteId) -> u64 {
        self.logs.get(&site).map_or(0, |log| log.held)
    }

    pub fn vector(&self) -> VersionVector {
        self.logs.iter().map(|(site, log)| (*site, Version(log.held))).collect()
    }

    pub fn write(&mut self, changes: Vec<Change>) -> Arc<Frame> {
        let log = self.logs.entry(self.site).or_default();
        let frame = Arc::new(frame(self.site, log.held, log.held + 1, changes));
        log.insert(&frame);
        frame
    }

    /// Takes the frame if it follows what is held.
    pub fn apply(&mut self, frame: &Arc<Frame>) -> Outcome {
        let held = self.held(frame.site);
        if frame.version.0 <= held {
            Outcome::Duplicate
        } else if frame.after.0 > held {
            Outcome::Gap
        } else {
            self.logs.entry(frame.site).or_default().insert(frame);
            Outcome::Applied
        }
    }

    /// The retirements that it holds.
    pub fn retirements(&self) -> Vec<Retirement> {
        self.logs
            .values()
            .flat_map(|log| log.frames.values())
            .flat_map(|frame| Retirement::of(frame))
            .collect()
    }

    /// Consecutive frames from after `after` on, about `bytes` of them. Overwritten versions are left out.
    pub fn read(&self, site: SiteId, after: u64, bytes: usize) -> Vec<Arc<Frame>> {
        let mut frames = Vec::new();
        let Some(log) = self.logs.get(&site) else { return frames };
        let (mut at, mut read) = (after, 0);
        for (version, found) in log.frames.range(after + 1..) {
            let mut found = Arc::clone(found);
            if found.after.0 != at {
                Arc::make_mut(&mut found).after = Version(at);
            }
            (at, read) = (*version, read + found.size());
            frames.push(found);
            if read >= bytes {
                return frames;
            }
        }
        if at < log.held {
            frames.push(Arc::new(frame(site, at, log.held, Vec::new())));
        }
        frames
    }

    /// Goes on under the site id `new`: what was written since the process started goes over to it. Returns the moved
    /// frames.
    pub fn renew(&mut self, new: SiteId) -> Vec<Arc<Frame>> {
        let old = std::mem::replace(&mut self.site, new);
        let Some(log) = self.logs.get_mut(&old) else { return Vec::new() };
        let (shared, written) = (self.opened_at, log.held);
        let moved = log.frames.split_off(&(shared + 1));
        log.latest.retain(|_, version| *version <= shared);
        log.held = shared;
        if shared == 0 {
            self.logs.remove(&old);
        }
        let mut frames = Vec::new();
        if written > shared {
            let log = self.logs.entry(new).or_default();
            for (version, old) in moved {
                let moved = Arc::new(frame(new, log.held, version, old.changes.clone()));
                log.insert(&moved);
                frames.push(moved);
            }
            log.held = written;
        }
        self.opened_at = self.held(new);
        frames
    }

    /// The same disk as another node's, which goes on under the site id `site`.
    pub fn written_by(self, site: SiteId) -> Self {
        Self { site, opened_at: 0, logs: self.logs }
    }

    /// Each site, how much of it is held, and its rows with version and content.
    pub fn sites(&self) -> impl Iterator<Item = (SiteId, u64, BTreeMap<u32, (u64, u64)>)> {
        self.logs.iter().map(|(site, log)| {
            let mut rows = BTreeMap::new();
            for (version, frame) in &log.frames {
                rows.extend(rows_of(frame).into_iter().map(|(key, content)| (key, (*version, content))));
            }
            (*site, log.held, rows)
        })
    }
}

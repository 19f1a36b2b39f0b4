//! Every version that was ever written, with its content: the judge of I2 and I3, and the memory of what was
//! acknowledged (I1).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use mychat_replication::log::{Change, Frame, SiteId, VersionVector};

use super::{
    Rule, Verdict,
    rows::{self, Fact, Id},
};
use crate::virtual_time::trace;

/// A cell: table, key, column.
pub type Cell = (String, Vec<u8>, String);

/// A version.
pub type Place = (SiteId, u64);

/// What a version holds.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// The hash of each cell's value.
    pub cells: BTreeMap<Cell, u64>,
    /// What its rows mean, with their places in the version.
    pub facts: Vec<(u32, Fact)>,
    /// Sites that are written no more, and up to where they are held by whoever holds the version.
    pub retired: Vec<(SiteId, u64)>,
    /// No disk holds it any more.
    lost: bool,
}

impl Content {
    fn of(changes: &[Change]) -> Self {
        let mut content = Self::default();
        for change in changes {
            content.cells.insert(cell(change), trace::of(&rows::bytes(&change.value)));
            content.retired.extend(rows::retired(change));
            content.facts.extend(rows::fact(change).map(|fact| (change.sequence, fact)));
        }
        content
    }
}

/// What is known of the text of a message, or of the reactions to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    Text,
    Reactions,
}

/// What of which message a fact changes.
fn changes((_, fact): &(u32, Fact)) -> Option<(Id, Aspect)> {
    match fact {
        Fact::Edited { message } | Fact::Deleted { message } => Some((*message, Aspect::Text)),
        Fact::Reacted { message } => Some((*message, Aspect::Reactions)),
        _ => None,
    }
}

fn cell(change: &Change) -> Cell {
    (change.table.to_string(), change.key.clone(), change.column.to_string())
}

/// What became of a version that a node says it has written.
#[derive(Debug, PartialEq, Eq)]
pub enum Fresh {
    New,
    /// Its number was that of a version that is on no disk any more.
    Reused,
    /// Others hold something else under its number.
    Clash,
}

/// The books.
#[derive(Debug, Default)]
pub struct Ledger {
    versions: BTreeMap<Place, Content>,
    /// The versions that retire sites.
    retiring: BTreeSet<Place>,
    /// In how many versions a cell was written: more than one, and an older value may be gone.
    writes: BTreeMap<Cell, u32>,
    /// Messages that somebody took back.
    deleted: BTreeSet<Id>,
    /// Messages of which an edit or a deletion, or a reaction, went with the only disk that had it.
    unsaid: BTreeSet<(Id, Aspect)>,
    /// Memberships of which a change went so, and spaces of which the founding did.
    unmoved: BTreeSet<(Id, Option<Id>)>,
    /// Who has left a space at any time.
    left: BTreeSet<(Id, Id)>,
    /// What was answered with success.
    acknowledged: BTreeSet<Place>,
}

impl Ledger {
    /// A node has written a version.
    pub fn written(&mut self, frame: &Frame) -> Fresh {
        let content = Content::of(&frame.changes);
        let place = (frame.site, frame.version.0);
        let fresh = match self.versions.get(&place) {
            None => Fresh::New,
            Some(known) if known.cells == content.cells => return Fresh::New,
            Some(known) if known.lost => Fresh::Reused,
            Some(_) => return Fresh::Clash,
        };
        for cell in content.cells.keys() {
            *self.writes.entry(cell.clone()).or_default() += 1;
        }
        self.deleted.extend(content.facts.iter().filter_map(|(_, fact)| match fact {
            Fact::Deleted { message } => Some(*message),
            _ => None,
        }));
        self.left.extend(content.facts.iter().filter_map(|(_, fact)| match fact {
            Fact::Member { space, account, on: false, .. } => Some((*space, *account)),
            _ => None,
        }));
        if content.retired.is_empty() {
            self.retiring.remove(&place);
        } else {
            self.retiring.insert(place);
        }
        self.versions.insert(place, content);
        fresh
    }

    /// A node that held `held` of a site has merged a frame of it.
    pub fn merged(&mut self, frame: &Frame, held: u64) -> Verdict {
        let (site, version) = (frame.site, frame.version.0);
        if version <= held || frame.after.0 > held {
            let what = format!("{:?} {}..{version} of {site:?} was applied on {held}", (), frame.after);
            return Err((Rule::Prefix, what));
        }
        for change in &frame.changes {
            let Some(content) = self.versions.get_mut(&(site, version)) else {
                return Err((Rule::OneContent, format!("nobody wrote version {version} of {site:?}")));
            };
            content.lost = false;
            let hash = trace::of(&rows::bytes(&change.value));
            if content.cells.get(&cell(change)) != Some(&hash) {
                let what =
                    format!("version {version} of {site:?} came with {change:?}, which it does not hold");
                return Err((Rule::OneContent, what));
            }
        }
        for missing in held + 1..=version {
            let Some(content) = self.versions.get(&(site, missing)) else { continue };
            let has = |cell: &Cell| {
                missing == version && frame.changes.iter().any(|change| self::cell(change) == *cell)
            };
            if let Some(cell) = content.cells.keys().find(|cell| !self.is_overwritten(cell) && !has(cell)) {
                let what = format!("{cell:?} of version {missing} of {site:?} was left out of the log");
                return Err((Rule::Prefix, what));
            }
        }
        Ok(())
    }

    /// Whether a cell was written more than once: then only its last value must be somewhere.
    pub fn is_overwritten(&self, cell: &Cell) -> bool {
        self.writes.get(cell).is_some_and(|writes| *writes > 1)
    }

    /// A write was answered with success.
    pub fn acknowledge(&mut self, place: Place) {
        self.acknowledged.insert(place);
    }

    /// What was acknowledged, and did not go with the only disk that had it.
    pub fn acknowledged(&self) -> impl Iterator<Item = (Place, &Content)> {
        self.acknowledged
            .iter()
            .filter_map(|place| Some((*place, self.versions.get(place)?)))
            .filter(|(_, content)| !content.lost)
    }

    /// The last version of a site that was acknowledged.
    pub fn acknowledged_head(&self, site: SiteId) -> u64 {
        let of_site = self.acknowledged().filter(|(place, _)| place.0 == site);
        of_site.map(|(place, _)| place.1).max().unwrap_or(0)
    }

    /// A disk has gone back in time: what none of `disks` holds is lost. Says how much that is.
    pub fn lose(&mut self, disks: &[&VersionVector]) -> usize {
        let mut lost = 0;
        for ((site, version), content) in &mut self.versions {
            let held = disks.iter().any(|vector| vector.get(*site).0 >= *version);
            if !held && !std::mem::replace(&mut content.lost, true) {
                lost += 1;
                self.unsaid.extend(content.facts.iter().filter_map(changes));
                self.unmoved.extend(content.facts.iter().filter_map(|(_, fact)| match fact {
                    Fact::Founded { space } => Some((*space, None)),
                    Fact::Member { space, account, .. } => Some((*space, Some(*account))),
                    _ => None,
                }));
            }
        }
        lost
    }

    /// All that a holder of `vector` holds.
    pub fn held(&self, vector: &VersionVector) -> impl Iterator<Item = (Place, &Content)> {
        self.versions
            .iter()
            .filter(move |((site, version), _)| vector.get(*site).0 >= *version)
            .map(|(place, content)| (*place, content))
    }

    /// All that a holder of `vector` does not hold.
    pub fn lacked(&self, vector: &VersionVector) -> impl Iterator<Item = (Place, &Content)> {
        self.versions
            .iter()
            .filter(move |((site, version), _)| vector.get(*site).0 < *version)
            .map(|(place, content)| (*place, content))
    }

    /// The sites of which anything was ever written.
    pub fn sites(&self) -> impl Iterator<Item = SiteId> {
        let next = |after: Option<SiteId>| {
            let from = after.map_or(Bound::Unbounded, |site| Bound::Excluded((site, u64::MAX)));
            self.versions.range((from, Bound::Unbounded)).next().map(|((site, _), _)| *site)
        };
        std::iter::successors(next(None), move |site| next(Some(*site)))
    }

    /// What a version holds.
    pub fn content(&self, place: Place) -> Option<&Content> {
        self.versions.get(&place)
    }

    /// Which versions say of which sites up to where they are held.
    pub fn retirements(&self) -> impl Iterator<Item = (Place, (SiteId, u64))> {
        let contents = self.retiring.iter().filter_map(|place| Some((*place, self.versions.get(place)?)));
        contents.flat_map(|(place, content)| content.retired.iter().map(move |row| (place, *row)))
    }

    /// Whether an account never left a space, as far as anybody ever wrote.
    pub fn was_always_member(&self, space: Id, account: Id) -> bool {
        !self.left.contains(&(space, account))
    }

    /// Whether a change of a message was lost: whoever was told of it knows more than all nodes.
    pub fn has_lost_change(&self, message: &Id, of: Aspect) -> bool {
        self.unsaid.contains(&(*message, of))
    }

    /// Whether a change of a membership was lost, or the space: whoever was told of it knows more than all nodes.
    pub fn has_lost_membership(&self, space: Id, account: Id) -> bool {
        [None, Some(account)].iter().any(|of| self.unmoved.contains(&(space, *of)))
    }

    /// Whether somebody took a message back.
    pub fn is_deleted(&self, message: &Id) -> bool {
        self.deleted.contains(message)
    }
}

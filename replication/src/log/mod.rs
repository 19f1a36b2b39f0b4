//! What replicates: per site, a log of versions, each a set of changed cells.
//!
//! - [`SiteId`] and [`Version`] name one changeset for ever (invariant I2).
//! - [`VersionVector`] says how much of every site's log a node holds, as a gapless prefix (I3).
//! - [`Frame`] carries one version over the wire; [`stream`] is its format there, [`codec`] the one of a frame alone.
//! - [`retirement`] lets vectors leave out sites that are written no more.
//! - [`key`] packs a row's primary key the way cr-sqlite does.

mod frame;
mod vector;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use frame::{Change, Frame, Value};
pub use vector::VersionVector;

pub use crate::{
    codec::{self, stream},
    key,
    retirement::{self, Retirement, Retirements},
};

/// A replication group: the set of nodes that share one state. There is one so far, [`GroupId::GLOBAL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u16);

impl GroupId {
    /// The group that every node belongs to.
    pub const GLOBAL: Self = Self(0);
}

/// The origin of a log: one database for as long as its log is continuous.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SiteId(pub [u8; 16]);

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A position in a site's log; the first change has 1, and 0 stands for the empty prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

//! The version vector: a node's whole replication state.

use std::{cmp::Ordering, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use super::{SiteId, Version};

/// For each site the version up to which its log is held without a gap; sites at version 0 are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionVector(BTreeMap<SiteId, Version>);

impl VersionVector {
    /// The empty vector.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// How much of `site`'s log is held.
    #[must_use]
    pub fn get(&self, site: SiteId) -> Version {
        self.0.get(&site).copied().unwrap_or_default()
    }

    /// Raises `site` to `version`; a lower one changes nothing. Says whether it rose.
    pub fn advance(&mut self, site: SiteId, version: Version) -> bool {
        if version <= self.get(site) {
            return false;
        }
        self.0.insert(site, version);
        true
    }

    /// Sets `site` to exactly `version`.
    pub fn set(&mut self, site: SiteId, version: Version) {
        if version == Version(0) {
            self.0.remove(&site);
        } else {
            self.0.insert(site, version);
        }
    }

    /// Takes the larger version of each site: the least upper bound of both.
    pub fn merge(&mut self, other: &Self) {
        for (site, version) in other.iter() {
            self.advance(site, version);
        }
    }

    /// The smaller version of each site: the greatest lower bound of both.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        self.iter().map(|(site, version)| (site, version.min(other.get(site)))).collect()
    }

    /// Whether everything in `other` is held here.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(site, version)| self.get(site) >= version)
    }

    /// The sites and their versions, by site.
    pub fn iter(&self) -> impl Iterator<Item = (SiteId, Version)> + '_ {
        self.0.iter().map(|(site, version)| (*site, *version))
    }

    /// The number of sites.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartialOrd for VersionVector {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.covers(other), other.covers(self)) {
            (true, true) => Some(Ordering::Equal),
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            (false, false) => None,
        }
    }
}

impl FromIterator<(SiteId, Version)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (SiteId, Version)>>(entries: I) -> Self {
        let mut vector = Self::new();
        for (site, version) in entries {
            vector.advance(site, version);
        }
        vector
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vectors() -> impl Strategy<Value = VersionVector> {
        prop::collection::vec((0u8..6, 0u64..20), 0..8).prop_map(|entries| {
            entries.into_iter().map(|(site, version)| (SiteId([site; 16]), Version(version))).collect()
        })
    }

    proptest! {
        #[test]
        fn merge_is_a_least_upper_bound(a in vectors(), b in vectors(), c in vectors()) {
            let join = |x: &VersionVector, y: &VersionVector| { let mut z = x.clone(); z.merge(y); z };
            let ab = join(&a, &b);
            prop_assert!(ab.covers(&a) && ab.covers(&b));
            prop_assert_eq!(&ab, &join(&b, &a));
            prop_assert_eq!(join(&ab, &c), join(&a, &join(&b, &c)));
            prop_assert_eq!(join(&a, &a), a.clone());
            if c.covers(&a) && c.covers(&b) {
                prop_assert!(c.covers(&ab));
            }
        }
    }
}

//! Retired sites, and how vectors leave them out.
//!
//! A node whose disk went back in time goes on under a new site id; the old log never grows again. So that vectors do
//! not grow with each such id for ever, the node says so in the new log: a row of the table [`TABLE`] in version `at`
//! of site `by` says that whoever holds that version holds `site` up to `upto`. That is made true by a rule: such a
//! frame is applied only where the retired log is held that far (see [`Retirement::is_met`]); the writer of the row
//! itself does. The row is written once and stays.
//!
//! A vector that covers `by` up to `at` so says of `site` what it says itself, and can do without that entry:
//! [`Retirements::compact`] leaves it out, [`Retirements::expand`] puts it back. An entry that says something else
//! stays: a peer that was away may hold more of a lost tail than the writer of the row knew. Sites may retire one after
//! the other, so what is put back may put back more.
//!
//! What is read from a compact vector is never too much, but it is too little while the reader does not know a
//! retirement yet: it then lacks the version that says so, and is behind the vector in any case.
//!
//! Whoever keeps vectors elsewhere may leave the same entries out; [`crate::store::Store::retired`] has what a node knows.
//!
//! # The limit that is known
//! Of a log whose versions were written twice (see I2 in the crate's page), a version may vouch for something on one
//! node and not on another. A vector may then be read as more than is held of a retired site. Whoever asks for that log
//! gets nothing, and asks the next; nothing is applied out of order.

use std::collections::BTreeMap;

use crate::{
    NodeId, key,
    log::{Frame, SiteId, Value, Version, VersionVector},
};

/// The replicated table of retirements: keyed by the retired site, the site that says so, and the version up to which.
pub const TABLE: &str = "replication_retired";
/// The format of the table's packed column: this byte, then the node that wrote both logs.
const FORMAT: u8 = 1;

/// Says that whoever holds `by` up to `at` holds `site` up to `upto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Retirement {
    /// The site that is written no more.
    pub site: SiteId,
    /// How much of it the row vouches for.
    pub upto: Version,
    /// The site whose log says so.
    pub by: SiteId,
    /// In which version.
    pub at: Version,
    /// The node that wrote both.
    pub node: NodeId,
}

impl Retirement {
    /// The retirements that a frame says.
    pub fn of(frame: &Frame) -> impl Iterator<Item = Self> + '_ {
        let ours = frame.changes.iter().filter(|change| &*change.table == TABLE && &*change.column == "data");
        ours.filter_map(|change| {
            let data = change.value.as_blob()?;
            Self::read(&key::unpack(&change.key).ok()?, data, frame.site, frame.version)
        })
    }

    /// Reads a row; `None` for one of a later format.
    #[must_use]
    pub fn read(key: &[Value], data: &[u8], by: SiteId, at: Version) -> Option<Self> {
        let [Value::Blob(site), Value::Blob(_), Value::Integer(upto)] = key else { return None };
        let node = data.strip_prefix(&[FORMAT])?.first_chunk()?;
        let site = SiteId(site.as_slice().try_into().ok()?);
        Some(Self { site, upto: Version(u64::try_from(*upto).ok()?), by, at, node: NodeId(*node) })
    }

    /// The key and the packed column of the row in which the log of `by` says it.
    #[must_use]
    pub fn row(site: SiteId, upto: Version, by: SiteId, node: NodeId) -> (Vec<Value>, Vec<u8>) {
        let key = vec![Value::from(site.0), Value::from(by.0), Value::Integer(upto.0.cast_signed())];
        (key, [&[FORMAT], node.0.as_slice()].concat())
    }

    /// Whether a holder of `held` may apply a frame, as far as retirements go.
    #[must_use]
    pub fn all_met(frame: &Frame, held: &VersionVector) -> bool {
        Self::of(frame).all(|retirement| retirement.is_met(held))
    }

    /// Whether a holder of `held` may apply the frame that says this.
    #[must_use]
    pub fn is_met(&self, held: &VersionVector) -> bool {
        held.get(self.site) >= self.upto
    }
}

/// All that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retirements(BTreeMap<SiteId, Vec<Retirement>>);

impl Retirements {
    /// Takes note of a retirement.
    pub fn learn(&mut self, retirement: Retirement) {
        let said = self.0.entry(retirement.by).or_default();
        if !said.contains(&retirement) {
            said.push(retirement);
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Retirement> {
        self.0.values().flatten()
    }

    /// Those that a holder of `vector` vouches for.
    fn covered(&self, vector: &VersionVector) -> impl Iterator<Item = &Retirement> {
        self.iter().filter(|retirement| vector.get(retirement.by) >= retirement.at)
    }

    /// The vector without the entries that [`Retirements::expand`] puts back: whoever knows the same retirements reads
    /// the same vector from it, so covering and being covered stay what they are. `None` when nothing can be left out:
    /// such a vector is to be passed on as it is, and must not be expanded.
    #[must_use]
    pub fn compact(&self, vector: &VersionVector) -> Option<VersionVector> {
        let mut vouched = VersionVector::new();
        for retirement in self.covered(vector) {
            vouched.advance(retirement.site, retirement.upto);
        }
        let compact: VersionVector =
            vector.iter().filter(|(site, version)| vouched.get(*site) != *version).collect();
        // A node that applied a retirement before it knew this rule, or a log that was written twice, may not hold what
        // is vouched for.
        Some(compact).filter(|compact| compact.len() < vector.len() && self.expand(compact) == *vector)
    }

    /// The vector with the entries that [`Retirements::compact`] left out. What it says itself is left as it is.
    #[must_use]
    pub fn expand(&self, compact: &VersionVector) -> VersionVector {
        let mut vector = compact.clone();
        let mut said: Vec<SiteId> =
            self.0.keys().copied().filter(|by| compact.get(*by) > Version(0)).collect();
        while let Some(by) = said.pop() {
            let upto = vector.get(by);
            for retirement in self.0.get(&by).into_iter().flatten().filter(|known| known.at <= upto) {
                let stated = compact.get(retirement.site) > Version(0);
                if !stated && vector.advance(retirement.site, retirement.upto) {
                    said.push(retirement.site);
                }
            }
        }
        vector
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn site(number: u8) -> SiteId {
        SiteId([number; 16])
    }

    /// Sites 0 to 7; each retirement is said by a site of a larger number, as later logs say it of earlier ones.
    fn known() -> impl Strategy<Value = Retirements> {
        prop::collection::vec((0u8..7, 1u8..8, 1u64..9, 1u64..9), 0..12).prop_map(|rows| {
            let mut known = Retirements::default();
            for (retired, step, upto, at) in rows {
                let by = site((retired + step).min(7));
                let node = NodeId([9; 16]);
                known.learn(Retirement {
                    site: site(retired),
                    upto: Version(upto),
                    by,
                    at: Version(at),
                    node,
                });
            }
            known
        })
    }

    /// A vector that a node could have: it applied no retirement before what it retires.
    fn held(known: &Retirements, wanted: &[u64]) -> VersionVector {
        let mut vector: VersionVector = wanted
            .iter()
            .enumerate()
            .map(|(number, version)| (site(number as u8), Version(*version)))
            .collect();
        for by in (0..8).rev().map(site) {
            let covered: Vec<Retirement> =
                known.covered(&vector).filter(|retirement| retirement.by == by).copied().collect();
            for retirement in covered {
                vector.advance(retirement.site, retirement.upto);
            }
        }
        vector
    }

    proptest! {
        #[test]
        fn what_is_left_out_is_put_back(known in known(), wanted in prop::collection::vec(0u64..12, 8)) {
            let any = wanted.iter().enumerate().map(|(number, version)| (site(number as u8), Version(*version)));
            for vector in [held(&known, &wanted), any.collect()] {
                if let Some(compact) = known.compact(&vector) {
                    prop_assert!(compact.len() < vector.len());
                    prop_assert_eq!(known.expand(&compact), vector);
                }
            }
        }

        #[test]
        fn of_a_vector_that_holds_what_is_vouched_for_nothing_else_is_ever_read(
            known in known(),
            wanted in prop::collection::vec(0u64..12, 8),
        ) {
            let vector = held(&known, &wanted);
            prop_assert_eq!(known.expand(&vector), vector);
        }

        #[test]
        fn compact_vectors_cover_each_other_as_the_whole_ones_do(
            known in known(),
            a in prop::collection::vec(0u64..12, 8),
            b in prop::collection::vec(0u64..12, 8),
        ) {
            let (a, b) = (held(&known, &a), held(&known, &b));
            let read = |vector: &VersionVector| {
                known.compact(vector).map_or_else(|| vector.clone(), |compact| known.expand(&compact))
            };
            prop_assert_eq!(read(&a).covers(&read(&b)), a.covers(&b));
        }

        #[test]
        fn a_part_is_read_as_no_more_than_the_whole(known in known(), wanted in prop::collection::vec(0u64..12, 8), cut in 0usize..8) {
            let vector = held(&known, &wanted);
            let compact = known.compact(&vector).unwrap_or_else(|| vector.clone());
            let mut joined = VersionVector::new();
            for part in [compact.iter().take(cut).collect(), compact.iter().skip(cut).collect()] {
                let read = known.expand(&part);
                prop_assert!(vector.covers(&read), "{:?} of {:?}", read, vector);
                joined.merge(&read);
            }
            prop_assert_eq!(joined, vector);
        }
    }

    #[test]
    fn a_chain_of_retired_sites_leaves_the_last() {
        let mut known = Retirements::default();
        for number in 0..50 {
            known.learn(Retirement {
                site: site(number),
                upto: Version(3),
                by: site(number + 1),
                at: Version(1),
                node: NodeId([9; 16]),
            });
        }
        let vector: VersionVector = (0..=50).map(|number| (site(number), Version(3))).collect();
        let compact = known.compact(&vector).expect("all but the last can be left out");
        assert_eq!(compact.len(), 1);
        assert_eq!(known.expand(&compact), vector);
    }

    #[test]
    fn an_entry_beyond_the_retirement_stays() {
        let mut known = Retirements::default();
        let node = NodeId([9; 16]);
        known.learn(Retirement { site: site(1), upto: Version(5), by: site(2), at: Version(1), node });
        let vector: VersionVector = [(site(1), Version(7)), (site(2), Version(4))].into_iter().collect();
        assert_eq!(known.compact(&vector), None);
    }
}

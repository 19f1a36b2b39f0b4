//! How cursors leave out retired sites: see [`mychat_replication::retirement`] for the rule.
//!
//! A row in version `at` of site `by` retires a site at a version: whoever holds `by` so far holds that site so far, so
//! a cursor that has both need not name it. What a cursor **lists** is all the rest, and of each listed site also the
//! latest version, up to the cursor's, in which it retires others (`at`, 0 for none). Left out is what the list puts
//! back:
//!
//! - a row of a listed site counts when it is in that `at` or before it;
//! - a row of a site that is left out counts when the version that is put back for that site reaches it;
//! - a site that is listed has the version that is listed, be it 0; one that is not has the largest of the rows that
//!   count.
//!
//! So a node reads such a cursor exactly when it holds the listed sites up to their `at`: it then holds every row that
//! counted for the writer, and no other row counts, however much more or less than the writer it knows. Until then it
//! can't tell what was left out ([`Unreadable::Unknown`]). A check over what is put back guards against logs that were
//! written twice (the limits of I2) and frames that were set aside.

use mychat_replication::log::{Retirements, SiteId};

use super::{SitePrefix, Unreadable, prefix};

/// The retirements that a node knows, by the beginnings of ids.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Retired {
    /// Sites that are retired or retire others, by id.
    sites: Vec<SitePrefix>,
    /// Those that retire a site come before those by it.
    rows: Vec<Row>,
}

/// One retirement; the sites are places in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    by: usize,
    at: u64,
    site: usize,
    upto: u64,
}

/// A site that is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    pub site: SitePrefix,
    pub version: u64,
    /// In which of its versions it last retired others; 0 for in none.
    pub at: u64,
}

/// A cursor's sites without those that can be put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    /// By site.
    pub listed: Vec<Listed>,
    /// Over what was left out.
    pub check: u32,
}

impl Retired {
    /// Those in another form.
    #[must_use]
    pub fn of(known: &Retirements) -> Self {
        let both = |row: &mychat_replication::log::Retirement| [prefix(row.by), prefix(row.site)];
        let mut sites: Vec<SitePrefix> = known.iter().flat_map(both).collect();
        sites.sort_unstable();
        sites.dedup();
        let place = |site: SiteId| sites.binary_search(&prefix(site)).ok();
        let rows = known.iter().filter_map(|row| {
            let (by, site) = (place(row.by)?, place(row.site)?);
            (by != site).then_some(Row { by, at: row.at.0, site, upto: row.upto.0 })
        });
        let mut rows: Vec<Row> = rows.collect();
        let order = order(sites.len(), &rows);
        rows.sort_unstable_by_key(|row| (order[row.by], *row));
        Self { sites, rows }
    }

    /// The sites that are retired or retire others.
    pub fn sites(&self) -> &[SitePrefix] {
        &self.sites
    }

    /// A cursor's sites, by id, without those that [`Retired::put_back`] puts back; `None` when there are none.
    pub fn leave_out(&self, entries: &[(SitePrefix, u64)]) -> Option<Short> {
        let mut versions = vec![0; self.sites.len()];
        for (place, entry) in self.places(entries, |entry| entry.0) {
            versions[place] = entry.1;
        }
        let mut vouched = vec![0; self.sites.len()];
        let mut last = vec![0; self.sites.len()];
        for row in self.rows.iter().filter(|row| versions[row.by] >= row.at) {
            vouched[row.site] = row.upto.max(vouched[row.site]);
            last[row.by] = row.at.max(last[row.by]);
        }
        let is_left_out = |place: usize| vouched[place] > 0 && vouched[place] == versions[place];
        let mut listed: Vec<Listed> =
            entries.iter().map(|(site, version)| Listed { site: *site, version: *version, at: 0 }).collect();
        for (place, site) in self.sites.iter().enumerate() {
            let at = listed.binary_search_by_key(site, |entry| entry.site);
            match at {
                Ok(at) => listed[at].at = last[place],
                // Nothing is seen of a site of which something would be put back.
                Err(at) if vouched[place] > 0 => listed.insert(at, Listed { site: *site, version: 0, at: 0 }),
                Err(_) => {}
            }
        }
        let before = listed.len();
        let mut sites = self.sites.iter().enumerate().peekable();
        listed.retain(|entry| {
            while sites.next_if(|(_, site)| **site < entry.site).is_some() {}
            sites.next_if(|(_, site)| **site == entry.site).is_none_or(|(place, _)| !is_left_out(place))
        });
        if listed.len() == before {
            return None;
        }
        let left_out = (0..self.sites.len()).filter(|place| is_left_out(*place));
        let check = check(left_out.map(|place| (self.sites[place], versions[place])));
        let short = Short { listed, check };
        // Sites can't retire each other in a circle; should they all the same, nothing is left out.
        self.put_back(&short).is_ok_and(|whole| whole == entries).then_some(short)
    }

    /// What a list says, with all that was left out; by site.
    ///
    /// # Errors
    /// [`Unreadable::Unknown`] when it is not what was left out.
    pub fn put_back(&self, short: &Short) -> Result<Vec<(SitePrefix, u64)>, Unreadable> {
        let mut stated = vec![None; self.sites.len()];
        for (place, entry) in self.places(&short.listed, |entry| entry.site) {
            stated[place] = Some(entry.at);
        }
        let mut versions = vec![0; self.sites.len()];
        for row in &self.rows {
            let reached = stated[row.by].unwrap_or(versions[row.by]);
            if row.at <= reached && stated[row.site].is_none() {
                versions[row.site] = row.upto.max(versions[row.site]);
            }
        }
        let left_out =
            || (self.sites.iter().copied().zip(versions.iter().copied())).filter(|(_, version)| *version > 0);
        if check(left_out()) != short.check {
            return Err(Unreadable::Unknown);
        }
        let listed = short.listed.iter().map(|entry| (entry.site, entry.version));
        let mut whole: Vec<(SitePrefix, u64)> =
            listed.filter(|(_, version)| *version > 0).chain(left_out()).collect();
        whole.sort_unstable();
        Ok(whole)
    }

    /// Of things sorted by site, those whose sites are known here, with their places.
    fn places<'t, T>(
        &self,
        things: &'t [T],
        site: impl Fn(&T) -> SitePrefix,
    ) -> impl Iterator<Item = (usize, &'t T)> {
        let mut sites = self.sites.iter().enumerate().peekable();
        things.iter().filter_map(move |thing| {
            let wanted = site(thing);
            while sites.next_if(|(_, known)| **known < wanted).is_some() {}
            sites.next_if(|(_, known)| **known == wanted).map(|(place, _)| (place, thing))
        })
    }
}

/// The rank of each of so many sites: whoever retires one ranks before it. Those in a circle come last.
fn order(sites: usize, rows: &[Row]) -> Vec<usize> {
    let mut retired_by = vec![0usize; sites];
    let mut retires = vec![Vec::new(); sites];
    for row in rows {
        retired_by[row.site] += 1;
        retires[row.by].push(row.site);
    }
    let mut free: Vec<usize> = (0..sites).filter(|site| retired_by[*site] == 0).collect();
    let mut ranks = vec![sites; sites];
    let mut next = 0;
    while let Some(site) = free.pop() {
        ranks[site] = next;
        next += 1;
        for retired in &retires[site] {
            retired_by[*retired] -= 1;
            if retired_by[*retired] == 0 {
                free.push(*retired);
            }
        }
    }
    ranks
}

/// A check over sites, by id, and their versions.
fn check(sites: impl Iterator<Item = (SitePrefix, u64)>) -> u32 {
    let sum = sites.fold(0, |sum, (site, version)| {
        super::compact::mix(super::compact::mix(sum ^ u64::from_be_bytes(site)) ^ version)
    });
    (sum >> 32) as u32
}

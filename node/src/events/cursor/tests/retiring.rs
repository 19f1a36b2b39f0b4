//! Nodes that write, hear of each other in part, and go on under new sites; clients that go from one to another.

use std::collections::BTreeMap;

use mychat_replication::{
    NodeId,
    log::{Retirement, Retirements},
};

use super::*;

/// What happens next: what, and numbers that say to whom.
type Op = (u8, u8, u8, u8, u8);

#[derive(Clone)]
struct Node {
    /// The place of the site that it writes.
    site: usize,
    held: VersionVector,
}

/// A client, with its cursor as it is kept and what it has seen, by hand.
#[derive(Default)]
struct Client {
    text: Option<String>,
    seen: BTreeMap<SiteId, u64>,
    part: Option<(SiteId, u64, u32)>,
    /// After which version what it has seen of a site is in doubt.
    doubts: BTreeMap<SiteId, u64>,
}

impl Client {
    fn saw(&mut self, site: SiteId, version: u64) {
        let seen = self.seen.entry(site).or_default();
        *seen = version.max(*seen);
        if self.part.is_some_and(|(part, upto, _)| part == site && upto <= version) {
            self.part = None;
        }
        let reach = self.reach(site);
        if let Some(after) = self.doubts.get_mut(&site) {
            *after = version.max(*after);
            if *after >= reach {
                self.doubts.remove(&site);
            }
        }
    }

    fn reach(&self, site: SiteId) -> u64 {
        let part = self.part.filter(|(part, ..)| *part == site).map_or(0, |(_, version, _)| version);
        self.seen.get(&site).copied().unwrap_or(0).max(part)
    }

    fn told(&self, site: SiteId) -> u64 {
        let seen = self.seen.get(&site).copied().unwrap_or(0);
        self.doubts.get(&site).map_or(seen, |after| seen.min(*after))
    }

    /// It goes on at a node, which tells it what it lacks.
    fn comes_to(&mut self, held: &VersionVector) {
        if !held.iter().any(|(site, version)| self.told(site) < version.0) {
            return;
        }
        let sites: Vec<SiteId> = self.seen.keys().copied().chain(self.part.map(|(site, ..)| site)).collect();
        for site in sites {
            let held = held.get(site).0;
            if self.reach(site) > held {
                let after = self.doubts.entry(site).or_insert(held);
                *after = held.min(*after);
            }
        }
    }
}

#[derive(Default)]
struct World {
    nodes: Vec<Node>,
    /// Of each node, a copy of its disk to go back to.
    copies: Vec<Node>,
    clients: Vec<Client>,
    sites: Vec<SiteId>,
    /// What each version retires.
    rows: Vec<Retirement>,
    shortened: usize,
    doubted: usize,
}

impl World {
    fn new(nodes: usize) -> Self {
        let mut world = Self::default();
        for _ in 0..nodes {
            let site = world.new_site();
            world.nodes.push(Node { site, held: VersionVector::new() });
            world.clients.push(Client::default());
        }
        world.copies = world.nodes.clone();
        world
    }

    /// None has the mark of another one: marks grow only where a writer knows both.
    fn new_site(&mut self) -> usize {
        let known: Vec<(SitePrefix, u64)> = self.sites.iter().map(|site| (prefix(*site), 1)).collect();
        let known = Marked::of(&known, None);
        let mut rng = StdRng::seed_from_u64(self.sites.len() as u64);
        let mut site = SiteId(rng.random());
        while known.version(prefix(site)).is_some() {
            site = SiteId(rng.random());
        }
        self.sites.push(site);
        self.sites.len() - 1
    }

    /// Writes a version; one that retires a site, if one is named of which the node holds something.
    fn write(&mut self, node: usize, retire: Option<SiteId>) {
        let by = self.sites[self.nodes[node].site];
        let held = &mut self.nodes[node].held;
        let at = Version(held.get(by).0 + 1);
        if let Some(site) = retire.filter(|site| *site != by && held.get(*site) > Version(0)) {
            let row = Retirement { site, upto: held.get(site), by, at, node: NodeId([node as u8; 16]) };
            self.rows.push(row);
        }
        held.set(by, at);
    }

    fn renew(&mut self, node: usize) {
        let old = self.sites[self.nodes[node].site];
        self.nodes[node].site = self.new_site();
        self.write(node, Some(old));
    }

    /// One version of a site goes from a node to another one, if that holds what it retires.
    fn tell(&mut self, from: usize, to: usize, site: SiteId) -> bool {
        let next = Version(self.nodes[to].held.get(site).0 + 1);
        let held = &self.nodes[to].held;
        let met = self.rows.iter().filter(|row| row.by == site && row.at == next).all(|row| row.is_met(held));
        let goes = self.nodes[from].held.get(site) >= next && met;
        if goes {
            self.nodes[to].held.set(site, next);
        }
        goes
    }

    fn tell_all(&mut self, from: usize, to: usize) {
        while (0..self.sites.len()).any(|site| self.tell(from, to, self.sites[site])) {}
    }

    fn retired(&self, node: usize) -> Retired {
        let mut known = Retirements::default();
        let held = &self.nodes[node].held;
        self.rows.iter().filter(|row| held.get(row.by) >= row.at).for_each(|row| known.learn(*row));
        Retired::of(&known)
    }

    /// A client opens a stream with its cursor: it is read as exactly what was seen, or the node lacks a version
    /// that retires a site.
    fn read(&self, client: usize, node: usize) -> Result<Option<Cursor>, TestCaseError> {
        let Client { text, seen, part, doubts } = &self.clients[client];
        let Some(text) = text else { return Ok(Some(Cursor::default())) };
        let held = &self.nodes[node].held;
        match Cursor::read(text, held, &self.retired(node)) {
            Ok(cursor) => {
                for site in &self.sites {
                    let truth = seen.get(site).copied().unwrap_or(0);
                    prop_assert_eq!(cursor.seen(prefix(*site)), truth, "of {:?}", site);
                    let told = self.clients[client].told(*site);
                    prop_assert_eq!(cursor.told(prefix(*site)), told, "of {:?}", site);
                    let reach = self.clients[client].reach(*site);
                    prop_assert_eq!(cursor.doubts(prefix(*site), reach), doubts.contains_key(site));
                }
                let covered = seen.iter().all(|(site, version)| held.get(*site).0 >= *version)
                    && part.is_none_or(|(site, version, _)| held.get(site).0 >= version);
                prop_assert_eq!(cursor.is_covered_by(held), covered);
                if let Some((site, version, sequence)) = *part {
                    prop_assert!(cursor.has_seen(prefix(site), version, sequence));
                    prop_assert!(!cursor.has_seen(prefix(site), version, sequence + 1));
                }
                Ok(Some(cursor))
            }
            Err(Unreadable::Unknown) => {
                let lacks = self.rows.iter().any(|row| {
                    seen.get(&row.by).is_some_and(|seen| *seen >= row.at.0) && held.get(row.by) < row.at
                });
                prop_assert!(lacks, "the node holds all that retires anything");
                Ok(None)
            }
            Err(error) => Err(TestCaseError::fail(format!("{error}: {text}"))),
        }
    }

    /// A client takes some or all that a node has for it, and keeps the cursor that the node writes.
    fn take(&mut self, client: usize, node: usize, site: usize, steps: u8) -> Result<(), TestCaseError> {
        let Some(mut cursor) = self.read(client, node)? else { return Ok(()) };
        let held = self.nodes[node].held.clone();
        let me = &mut self.clients[client];
        cursor.comes_to(&held);
        me.comes_to(&held);
        let mut saw = |me: &mut Client, site: SiteId, version: u64| {
            cursor.advance(prefix(site), version);
            me.saw(site, version);
        };
        match steps % 5 {
            // All of it.
            0 => held.iter().for_each(|(site, version)| saw(me, site, version.0)),
            // All but one site's.
            3 => {
                let later = self.sites[site % self.sites.len()];
                let others = held.iter().filter(|(site, _)| *site != later);
                others.for_each(|(site, version)| saw(me, site, version.0));
            }
            // A little of one site: its client is far behind.
            1 | 2 => {
                let site = self.sites[site % self.sites.len()];
                let next = me.seen.get(&site).copied().unwrap_or(0) + u64::from(steps / 5);
                if next > 0 && next <= held.get(site).0 {
                    saw(me, site, next);
                }
            }
            // A version in part.
            _ => {
                let site = self.sites[site % self.sites.len()];
                let next = me.seen.get(&site).copied().unwrap_or(0) + 1;
                if next <= held.get(site).0 && me.part.is_none() {
                    me.part = Some((site, next, 3));
                    cursor = cursor.with_part(site, Version(next), 3);
                }
            }
        }
        let text = cursor.write(&self.retired(node));
        self.shortened += usize::from(Cursor::parse(&text).is_ok_and(|(_, check)| check.is_some()));
        self.doubted += usize::from(!cursor.doubts.is_empty());
        self.clients[client].text = Some(text);
        Ok(())
    }

    fn happens(&mut self, (what, a, b, c, steps): Op) -> Result<(), TestCaseError> {
        let of = |number: u8| usize::from(number) % self.nodes.len();
        let (node, other) = (of(a), of(b));
        match what {
            0 => self.write(node, None),
            1 => self.renew(node),
            2 => {
                // The disk goes back in time.
                self.nodes[node] = self.copies[node].clone();
                self.renew(node);
            }
            3 => self.copies[node] = self.nodes[node].clone(),
            4 => {
                let site = self.sites[usize::from(c) % self.sites.len()];
                // Only sites that nobody writes any more.
                if self.nodes.iter().all(|node| self.sites[node.site] != site) {
                    self.write(node, Some(site));
                }
            }
            5 | 6 => {
                self.tell(other, node, self.sites[usize::from(c) % self.sites.len()]);
            }
            7 => self.tell_all(other, node),
            8 => drop(self.read(other, node)?),
            _ => self.take(other, node, usize::from(c), steps)?,
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_cursor_is_read_as_what_was_seen_wherever_and_whenever_it_is_brought(
        nodes in 2usize..6,
        renewals in 0usize..45,
        ops in prop::collection::vec((0u8..12, any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>()), 0..150),
    ) {
        let mut world = World::new(nodes);
        for number in 0..renewals {
            world.write(number % nodes, None);
            world.renew(number % nodes);
        }
        for op in ops {
            world.happens(op)?;
            for client in 0..nodes {
                world.read(client, usize::from(op.1) % nodes)?;
            }
        }
        // Where all is known, every cursor can be read. What went with a disk is known nowhere.
        for _ in 0..2 {
            for from in 0..nodes {
                (0..nodes).for_each(|to| world.tell_all(from, to));
            }
        }
        for client in 0..nodes {
            let seen = &world.clients[client].seen;
            let lost = seen.iter().any(|(site, version)| world.nodes[0].held.get(*site).0 < *version);
            let cursor = world.read(client, 0)?;
            prop_assert!(lost || cursor.is_some());
        }
    }
}

#[test]
fn a_listed_site_is_told_apart_from_a_retired_one_with_the_same_mark() {
    let mut rng = StdRng::seed_from_u64(4);
    let mut known = Retirements::default();
    let mut vector: VersionVector = (0..26).map(|_| (SiteId(rng.random()), Version(7))).collect();
    let live: Vec<SiteId> = vector.iter().map(|(site, _)| site).collect();
    for by in live {
        let row = Retirement { site: twin(by), upto: Version(3), by, at: Version(2), node: NodeId([1; 16]) };
        vector.set(row.site, row.upto);
        known.learn(row);
    }
    let (cursor, known) = (Cursor::from(&vector), Retired::of(&known));
    let text = cursor.write(&known);
    assert!(text.len() < cursor.to_string().len());
    assert_eq!(Cursor::read(&text, &vector, &known), Ok(cursor));
}

#[test]
fn sites_that_retire_each_other_in_a_circle_are_named() {
    let sites: Vec<SiteId> = (0..30).map(|number| SiteId([number; 16])).collect();
    let mut known = Retirements::default();
    for number in 0..30 {
        let (site, by) = (sites[number], sites[(number + 1) % 30]);
        known.learn(Retirement { site, upto: Version(5), by, at: Version(5), node: NodeId([1; 16]) });
    }
    let vector: VersionVector = sites.iter().map(|site| (*site, Version(5))).collect();
    let (cursor, known) = (Cursor::from(&vector), Retired::of(&known));
    assert_eq!(Cursor::read(&cursor.write(&known), &vector, &known), Ok(cursor));
}

#[test]
fn the_histories_have_cursors_with_doubts() {
    let mut world = World::new(12);
    (0..12).for_each(|node| world.write(node, None));
    (1..12).for_each(|node| world.tell_all(node, 0));
    for node in 1..12 {
        world.take(0, 0, 0, 0).expect("a cursor");
        world.take(0, node, 0, 0).expect("a cursor");
    }
    assert_eq!(world.doubted, 0, "the others have nothing that it lacks");
    world.write(3, None);
    world.take(0, 3, 0, 0).expect("a cursor");
    assert_eq!(world.clients[0].doubts.len(), 11);
    // Here all of it is told again, but for one version.
    world.take(0, 0, 0, 0).expect("a cursor");
    assert_eq!((world.doubted, world.clients[0].doubts.len()), (2, 1));
    world.tell_all(3, 0);
    world.take(0, 0, 0, 0).expect("a cursor");
    assert_eq!((world.doubted, world.clients[0].doubts.len()), (2, 0));
}

#[test]
fn the_histories_have_cursors_that_leave_sites_out() {
    let mut world = World::new(3);
    for number in 0..40usize {
        world.renew(number % 3);
        for other in 0..3 {
            world.tell_all(number % 3, other);
        }
        world.take(0, number % 3, 0, 0).expect("a cursor");
    }
    assert!(world.shortened >= 15, "{} of 40", world.shortened);
}

#[test]
fn retired_sites_do_not_make_a_cursor_longer() {
    let mut rng = StdRng::seed_from_u64(200);
    let mut lengths = Vec::new();
    for retired in [0, 50, 200, 1000] {
        let mut known = Retirements::default();
        let mut vector = VersionVector::new();
        let mut live: Vec<SiteId> = (0..30).map(|_| SiteId(rng.random())).collect();
        for number in 0..retired {
            let (site, by) = (live[number % 30], SiteId(rng.random()));
            let upto = Version(rng.random_range(1 << 19..1 << 20));
            vector.set(site, upto);
            known.learn(Retirement { site, upto, by, at: Version(1), node: NodeId([1; 16]) });
            live[number % 30] = by;
        }
        live.iter().for_each(|site| vector.set(*site, Version(rng.random_range(1 << 19..1 << 20))));
        let known = Retired::of(&known);
        let cursor = Cursor::from(&vector);
        let text = cursor.write(&known);
        assert_eq!(Cursor::read(&text, &vector, &known), Ok(cursor.clone()));
        lengths.push((retired, text.len(), cursor.to_string().len()));
    }
    assert!(lengths.iter().all(|(_, length, _)| *length < 230), "{lengths:?}");
}

//! The connected peers: what each said of itself, who writes which site, and who relays for whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{Config, Now};
use crate::{
    NodeId,
    log::{SiteId, Version, VersionVector},
};

/// Versions that a relay may be behind what is held here, by its last heads. One that lacks more is itself catching up.
const RELAY_SLACK: u64 = 1000;

/// What a peer told of itself.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub rtt: Duration,
    pub region: Arc<str>,
    /// `None` until it sent some of its heads.
    pub site: Option<SiteId>,
    /// Whether all parts of its heads have come.
    pub answered: bool,
    /// Whether it understands heads that leave out retired sites.
    pub reads_compact: bool,
    pub heads: VersionVector,
    /// What it had shown when this node began to lack some of it, and when that was.
    lacking: Option<(Now, VersionVector)>,
}

/// All connected peers.
#[derive(Debug)]
pub(super) struct Peers {
    config: Config,
    by_id: BTreeMap<NodeId, Peer>,
    /// Who writes each site, of the connected.
    writers: BTreeMap<SiteId, NodeId>,
    /// The nodes of this node's region, itself among them.
    neighbours: BTreeSet<NodeId>,
}

impl Peers {
    pub fn new(config: Config) -> Self {
        let neighbours = BTreeSet::from([config.node]);
        Self { config, by_id: BTreeMap::new(), writers: BTreeMap::new(), neighbours }
    }

    pub fn get(&self, peer: NodeId) -> Option<&Peer> {
        self.by_id.get(&peer)
    }

    pub fn get_mut(&mut self, peer: NodeId) -> Option<&mut Peer> {
        self.by_id.get_mut(&peer)
    }

    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.by_id.iter().map(|(id, peer)| (*id, peer))
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.config.node
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn up(&mut self, id: NodeId, rtt: Duration, region: Arc<str>) {
        let unknown = || Peer {
            rtt,
            region: "".into(),
            site: None,
            answered: false,
            reads_compact: false,
            heads: VersionVector::new(),
            lacking: None,
        };
        let peer = self.by_id.entry(id).or_insert_with(unknown);
        (peer.rtt, peer.region) = (rtt, region);
        if peer.region == self.config.region {
            self.neighbours.insert(id);
        } else {
            self.neighbours.remove(&id);
        }
    }

    pub fn down(&mut self, id: NodeId) {
        self.neighbours.remove(&id);
        if let Some(site) = self.by_id.remove(&id).and_then(|peer| peer.site) {
            self.writes_no_more(id, site);
        }
    }

    /// Notes which site a peer writes; gives the one that it wrote before, if that was another.
    pub fn writes(&mut self, id: NodeId, site: SiteId) -> Option<SiteId> {
        // Of one that is gone a datagram may still come: it is not connected for that.
        let peer = self.by_id.get_mut(&id)?;
        self.writers.entry(site).or_insert(id);
        let before = peer.site.replace(site).filter(|before| *before != site)?;
        self.writes_no_more(id, before);
        Some(before)
    }

    fn writes_no_more(&mut self, id: NodeId, site: SiteId) {
        if self.writers.get(&site) == Some(&id) {
            self.writers.remove(&site);
        }
    }

    /// Who writes a site, if it is connected.
    pub fn writer(&self, site: SiteId) -> Option<NodeId> {
        self.writers.get(&site).copied()
    }

    /// The sites whose writer is connected.
    pub fn written(&self) -> impl Iterator<Item = SiteId> {
        self.writers.keys().copied()
    }

    /// Whether the cluster is so large that sites of other regions are followed through relays.
    pub fn relays(&self) -> bool {
        self.by_id.len() + 1 > self.config.relay_above
    }

    /// Whether a peer runs in this node's region.
    pub fn is_neighbour(&self, peer: NodeId) -> bool {
        self.neighbours.contains(&peer)
    }

    /// The node of this region through which a site of another region comes: the one whose id is nearest to the site's,
    /// so that each node relays for some of the sites. `None` when the site is to be followed from its writer: where
    /// there are no relays, within the region, and by the relay itself.
    pub fn relay(&self, site: SiteId, held: Version) -> Option<NodeId> {
        let writer = self.writer(site)?;
        if !self.relays() || self.is_neighbour(writer) {
            return None;
        }
        let keeps_up = |id: &&NodeId| {
            **id == self.config.node
                || self.get(**id).is_some_and(|peer| peer.heads.get(site).0 + RELAY_SLACK >= held.0)
        };
        let distance = |id: &&NodeId| u128::from_be_bytes(id.0) ^ u128::from_be_bytes(site.0);
        let nearest = *self.neighbours.iter().filter(keeps_up).min_by_key(distance)?;
        Some(nearest).filter(|relay| *relay != self.config.node)
    }

    /// Versions that `held` lacks of what a peer holds.
    pub fn behind(&self, peer: NodeId, held: &VersionVector) -> u64 {
        let lacks = |(site, version): (SiteId, Version)| version.0.saturating_sub(held.get(site).0);
        self.get(peer).map_or(0, |peer| peer.heads.iter().map(lacks).sum())
    }

    /// For how long something that a peer holds has been lacking.
    pub fn lag(&self, peer: NodeId, held: &VersionVector, now: Now) -> Duration {
        match self.get(peer).and_then(|peer| peer.lacking.as_ref()) {
            Some((since, shown)) if !held.covers(shown) => now.saturating_sub(*since),
            _ => Duration::ZERO,
        }
    }

    /// Notes since when something that a peer holds is lacking.
    pub fn note_lag(&mut self, id: NodeId, held: &VersionVector, now: Now) {
        let Some(peer) = self.by_id.get_mut(&id) else { return };
        if peer.lacking.as_ref().is_none_or(|(_, shown)| held.covers(shown)) {
            peer.lacking = (!held.covers(&peer.heads)).then(|| (now, peer.heads.clone()));
        }
    }
}

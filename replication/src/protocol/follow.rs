//! Upstreams: whom we get each site's log from, and the frames that wait to be applied.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{APPLY_SIZE, Action, Core, Now, Peer, StreamId};
use crate::{
    NodeId,
    log::{Frame, SiteId, Version, VersionVector},
};

/// How long nothing is followed after the database refused a batch (a full disk, say).
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// How long a peer that closed a stream is not asked for the same site again.
const CLOSED_PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Upstream {
    stream: StreamId,
    peer: NodeId,
    /// The version up to which frames came in, applied or waiting.
    received: Version,
}

#[derive(Debug)]
struct Waiting {
    stream: StreamId,
    frame: Arc<Frame>,
}

/// All upstreams by site, and what they sent.
#[derive(Debug, Default)]
pub(super) struct Following {
    upstreams: BTreeMap<SiteId, Upstream>,
    by_stream: BTreeMap<StreamId, SiteId>,
    /// In order of arrival; a site's frames follow each other.
    waiting: VecDeque<Waiting>,
    /// The streams and sizes of the batch that is being applied.
    applying: Option<Vec<(StreamId, usize)>>,
    /// Until when nothing, or not this site of this peer, is asked for.
    paused_until: Now,
    /// The driver wants nothing followed.
    on_hold: bool,
    avoid: BTreeMap<(NodeId, SiteId), Now>,
}

impl Following {
    /// Follows that start anew start from what is held; those under way are never behind it.
    pub fn held(&mut self, held: &VersionVector) {
        for (site, upstream) in &mut self.upstreams {
            upstream.received = upstream.received.max(held.get(*site));
        }
    }

    fn remove(&mut self, site: SiteId) -> Option<Upstream> {
        let upstream = self.upstreams.remove(&site)?;
        self.by_stream.remove(&upstream.stream);
        self.waiting.retain(|waiting| waiting.stream != upstream.stream);
        Some(upstream)
    }
}

impl Core {
    /// Makes sure that each site that someone holds more of is followed from the best peer there is.
    pub(super) fn choose_upstreams(&mut self, now: Now) {
        if self.following.on_hold || now < self.following.paused_until {
            return;
        }
        self.following.avoid.retain(|_, until| *until > now);
        let sites: BTreeSet<SiteId> = self
            .peers
            .values()
            .flat_map(|peer| peer.site.into_iter().chain(peer.heads.iter().map(|(site, _)| site)))
            .filter(|site| *site != self.site)
            .collect();
        for site in sites {
            let Some((peer, direct)) = self.best_upstream(site) else { continue };
            if let Some(current) = self.following.upstreams.get(&site) {
                let current = self.peers.get(&current.peer).filter(|_| current.peer != peer);
                let exhausted = |current: &Peer| current.heads.get(site) <= self.held.get(site);
                // The writer itself is back, or the peer that stands in for it has no more to give.
                if !current
                    .is_some_and(|current| current.site != Some(site) && (direct || exhausted(current)))
                {
                    continue;
                }
                self.unfollow(site);
            }
            self.follow(site, peer);
        }
    }

    /// The site's own node if it is connected; else the nearest peer that holds more than we do.
    fn best_upstream(&self, site: SiteId) -> Option<(NodeId, bool)> {
        let usable = |peer: &NodeId| !self.following.avoid.contains_key(&(*peer, site));
        let direct = self.peers.iter().find(|(id, peer)| peer.site == Some(site) && usable(id));
        if let Some((id, _)) = direct {
            return Some((*id, true));
        }
        let held = self.held.get(site);
        self.peers
            .iter()
            .filter(|(id, peer)| peer.heads.get(site) > held && usable(id))
            .min_by_key(|(id, peer)| (peer.rtt, **id))
            .map(|(id, _)| (*id, false))
    }

    fn follow(&mut self, site: SiteId, peer: NodeId) {
        let stream = self.new_stream();
        let after = self.held.get(site);
        self.following.by_stream.insert(stream, site);
        self.following.upstreams.insert(site, Upstream { stream, peer, received: after });
        self.actions.push(Action::Follow { stream, peer, site, after });
    }

    fn unfollow(&mut self, site: SiteId) {
        if let Some(upstream) = self.following.remove(site) {
            self.actions.push(Action::Unfollow { stream: upstream.stream });
        }
    }

    pub(super) fn hold_following(&mut self, hold: bool, now: Now) {
        self.following.on_hold = hold;
        if hold {
            let sites: Vec<SiteId> = self.following.upstreams.keys().copied().collect();
            for site in sites {
                self.unfollow(site);
            }
        } else {
            self.choose_upstreams(now);
        }
    }

    /// Forgets all streams from a peer that is gone.
    pub(super) fn upstream_lost(&mut self, peer: NodeId) {
        let sites: Vec<SiteId> = self
            .following
            .upstreams
            .iter()
            .filter(|(_, upstream)| upstream.peer == peer)
            .map(|(site, _)| *site)
            .collect();
        for site in sites {
            self.unfollow(site);
        }
        self.following.avoid.retain(|(avoided, _), _| *avoided != peer);
    }

    pub(super) fn upstream_closed(&mut self, stream: StreamId, now: Now) {
        let Some(site) = self.following.by_stream.get(&stream).copied() else { return };
        if let Some(upstream) = self.following.remove(site) {
            self.following.avoid.insert((upstream.peer, site), now + CLOSED_PAUSE);
        }
        self.choose_upstreams(now);
    }

    pub(super) fn received(&mut self, stream: StreamId, frame: Arc<Frame>, now: Now) {
        let Some(site) = self.following.by_stream.get(&stream).copied() else { return };
        let Some(upstream) = self.following.upstreams.get_mut(&site) else { return };
        if frame.site != site || frame.after > upstream.received {
            // Not what was asked for: ask again, from what is held.
            tracing::warn!(peer = %upstream.peer, %site, "a frame does not follow the one before; the log is asked for again");
            self.unfollow(site);
            self.choose_upstreams(now);
            return;
        }
        if frame.version <= upstream.received {
            self.actions.push(Action::Credit { stream, bytes: frame.size() });
            return;
        }
        upstream.received = frame.version;
        self.following.waiting.push_back(Waiting { stream, frame });
        self.apply_waiting();
    }

    /// Starts the next batch, unless one is under way.
    fn apply_waiting(&mut self) {
        if self.following.applying.is_some() || self.following.waiting.is_empty() {
            return;
        }
        let mut batch = Vec::new();
        let mut frames = Vec::new();
        let mut bytes = 0;
        while let Some(waiting) = self.following.waiting.front() {
            let size = waiting.frame.size();
            if !frames.is_empty() && bytes + size > APPLY_SIZE {
                break;
            }
            bytes += size;
            batch.push((waiting.stream, size));
            frames.push(Arc::clone(&waiting.frame));
            self.following.waiting.pop_front();
        }
        self.following.applying = Some(batch);
        self.actions.push(Action::Apply { frames });
    }

    pub(super) fn applied(&mut self, ok: bool, now: Now) {
        let batch = self.following.applying.take().unwrap_or_default();
        if !ok {
            // Everything is asked for again after a pause, from what the disk really holds.
            self.following.paused_until = now + REFUSED_PAUSE;
            let sites: Vec<SiteId> = self.following.upstreams.keys().copied().collect();
            for site in sites {
                self.unfollow(site);
            }
            return;
        }
        for (stream, bytes) in batch {
            let Some(site) = self.following.by_stream.get(&stream).copied() else { continue };
            self.actions.push(Action::Credit { stream, bytes });
            // Received but neither held nor waiting: the database found that it does not follow.
            let lost = self.following.upstreams.get(&site).is_some_and(|upstream| {
                upstream.received > self.held.get(site)
                    && !self.following.waiting.iter().any(|waiting| waiting.stream == stream)
            });
            if lost {
                self.unfollow(site);
            }
        }
        self.choose_upstreams(now);
        self.apply_waiting();
    }
}

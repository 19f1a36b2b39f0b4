//! Upstreams: the streams on which the sites' logs come in, and the frames that wait to be applied.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{APPLY_SIZE, Action, Core, Now, StreamId};
use crate::{
    NodeId,
    log::{Frame, Retirement, SiteId, Version, VersionVector},
};

/// How long nothing is followed after the database refused a batch (a full disk, say).
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of one site's frames in a batch while other sites' wait: a site that catches up holds up nobody's commits.
const SITE_QUANTUM: usize = APPLY_SIZE / 4;

#[derive(Debug)]
pub(super) struct Upstream {
    pub stream: StreamId,
    peer: NodeId,
    /// The version up to which frames came in, applied or waiting.
    received: Version,
    /// Those that wait to be applied, each following the one before.
    waiting: VecDeque<Arc<Frame>>,
    /// Since when a peer shows more than came in.
    lacking: Option<Now>,
    /// From when on something may be expected of it: its opening, later its last frame.
    expected: Now,
    patience: Duration,
}

impl Upstream {
    pub fn new(stream: StreamId, peer: NodeId, after: Version, patience: Duration, expected: Now) -> Self {
        let waiting = VecDeque::new();
        Self { stream, peer, received: after, waiting, lacking: None, expected, patience }
    }

    /// Whether it has let its patience pass with nothing to show for it, though others have more. One whose frames wait
    /// here is not late: we are.
    fn is_late(&self, held: Version, now: Now) -> bool {
        self.received <= held
            && self.lacking.is_some_and(|since| now >= since.max(self.expected) + self.patience)
    }
}

/// All upstreams by site, and what they sent.
#[derive(Debug, Default)]
pub(super) struct Following {
    upstreams: BTreeMap<SiteId, Upstream>,
    by_stream: BTreeMap<StreamId, SiteId>,
    /// The sites of which frames wait, each once, in their turn.
    turns: VecDeque<SiteId>,
    /// The sites whose next frame retires a log that is not held far enough. They have no turn.
    parked: BTreeSet<SiteId>,
    /// The streams and sizes of the batch that is being applied.
    applying: Option<BTreeMap<StreamId, usize>>,
}

impl Following {
    pub fn insert(&mut self, site: SiteId, upstream: Upstream) {
        self.by_stream.insert(upstream.stream, site);
        self.upstreams.insert(site, upstream);
    }

    pub fn remove(&mut self, site: SiteId) -> Option<Upstream> {
        let upstream = self.upstreams.remove(&site)?;
        self.by_stream.remove(&upstream.stream);
        self.turns.retain(|turn| *turn != site);
        self.parked.remove(&site);
        Some(upstream)
    }

    pub fn sites(&self) -> impl Iterator<Item = SiteId> {
        self.upstreams.keys().copied()
    }

    /// Whom a site is followed from.
    pub fn peer(&self, site: SiteId) -> Option<NodeId> {
        self.upstreams.get(&site).map(|upstream| upstream.peer)
    }

    /// Follows that start anew start from what is held; those under way are never behind it.
    pub fn held(&mut self, site: SiteId, version: Version) {
        if let Some(upstream) = self.upstreams.get_mut(&site) {
            upstream.received = upstream.received.max(version);
        }
    }

    /// A peer shows that it holds `version`.
    pub fn shown(&mut self, site: SiteId, version: Version, now: Now) {
        if let Some(upstream) = self.upstreams.get_mut(&site)
            && version > upstream.received
        {
            upstream.lacking.get_or_insert(now);
        }
    }

    /// The sites whose upstreams are late, with these and their patience.
    pub fn late(&self, held: &VersionVector, now: Now) -> Vec<(SiteId, NodeId, Duration)> {
        self.upstreams
            .iter()
            .filter(|(site, upstream)| upstream.is_late(held.get(**site), now))
            .map(|(site, upstream)| (*site, upstream.peer, upstream.patience))
            .collect()
    }

    /// The sites whose upstreams have had nothing to give for so long, and owe nothing.
    pub fn exhausted(&self, held: &VersionVector, now: Now, pause: Duration) -> Vec<SiteId> {
        let is_exhausted = |(site, upstream): &(&SiteId, &Upstream)| {
            upstream.received <= held.get(**site)
                && upstream.lacking.is_none()
                && now >= upstream.expected + pause
        };
        self.upstreams.iter().filter(is_exhausted).map(|(site, _)| *site).collect()
    }

    /// Gives a turn to the sites whose next frame may be applied by now.
    fn unpark(&mut self, held: &VersionVector) {
        let upstreams = &self.upstreams;
        let ready = |site: &SiteId| {
            upstreams
                .get(site)
                .and_then(|upstream| upstream.waiting.front())
                .is_none_or(|next| Retirement::all_met(next, held))
        };
        self.turns.extend(self.parked.extract_if(.., ready));
    }

    /// The next batch: the sites take turns, so that a long log does not hold up a short one.
    fn batch(&mut self, held: &VersionVector) -> (Vec<Arc<Frame>>, BTreeMap<StreamId, usize>) {
        self.unpark(held);
        let (mut frames, mut sizes, mut bytes) = (Vec::new(), BTreeMap::new(), 0);
        while let Some(site) = self.turns.pop_front() {
            let Some(upstream) = self.upstreams.get_mut(&site) else { continue };
            let mut taken = 0;
            while let Some(frame) = upstream.waiting.pop_front_if(|frame| {
                let size = frame.size();
                let fits = bytes + size <= APPLY_SIZE && taken + size <= SITE_QUANTUM;
                (frames.is_empty() || fits) && Retirement::all_met(frame, held)
            }) {
                taken += frame.size();
                bytes += frame.size();
                frames.push(frame);
            }
            if taken > 0 {
                *sizes.entry(upstream.stream).or_default() += taken;
            }
            let Some(next) = upstream.waiting.front() else { continue };
            if !Retirement::all_met(next, held) {
                self.parked.insert(site);
                continue;
            }
            if taken == 0 {
                // Its next frame does not fit: it is the first of the next batch.
                self.turns.push_front(site);
                break;
            }
            self.turns.push_back(site);
        }
        (frames, sizes)
    }
}

impl Core {
    /// Forgets all streams from a peer that is gone.
    pub(super) fn upstream_lost(&mut self, peer: NodeId) {
        let sites: Vec<SiteId> =
            self.following.sites().filter(|site| self.following.peer(*site) == Some(peer)).collect();
        for site in sites {
            self.unfollow(site);
            self.choosing.mark(site);
        }
        self.choosing.forget(peer);
    }

    pub(super) fn upstream_closed(&mut self, stream: StreamId, now: Now) {
        let Some(site) = self.following.by_stream.get(&stream).copied() else { return };
        if let Some(upstream) = self.following.remove(site) {
            self.choosing.avoid_closed(upstream.peer, site, now);
        }
        self.choose_upstreams(now);
    }

    /// Takes a frame if it follows what came before (I3), and applies it in its turn.
    pub(super) fn received(&mut self, stream: StreamId, frame: Arc<Frame>, now: Now) {
        let Some(site) = self.following.by_stream.get(&stream).copied() else { return };
        let Some(upstream) = self.following.upstreams.get_mut(&site) else { return };
        if frame.site != site || frame.after > upstream.received {
            // Not what was asked for: ask again, from what is held.
            tracing::warn!(peer = %upstream.peer, %site, "a frame does not follow the one before; the log is asked for again");
            self.unfollow(site);
            self.choosing.mark(site);
            self.choose_upstreams(now);
            return;
        }
        if frame.version <= upstream.received {
            self.tally.entry(upstream.peer).or_default().duplicates += 1;
            self.actions.push(Action::Credit { stream, bytes: frame.size() });
            return;
        }
        upstream.received = frame.version;
        (upstream.lacking, upstream.expected) = (None, now);
        if upstream.waiting.is_empty() {
            self.following.turns.push_back(site);
        }
        upstream.waiting.push_back(Arc::clone(&frame));
        let peer = upstream.peer;
        self.choosing.delivered(site);
        for retirement in Retirement::of(&frame) {
            self.retired_by(retirement, peer);
        }
        self.choose_upstreams(now);
        self.apply_waiting();
    }

    /// Starts the next batch, unless one is under way.
    fn apply_waiting(&mut self) {
        if self.following.applying.is_some() {
            return;
        }
        let (frames, sizes) = self.following.batch(&self.held);
        if !frames.is_empty() {
            self.following.applying = Some(sizes);
            self.actions.push(Action::Apply { frames });
        }
    }

    pub(super) fn applied(&mut self, ok: bool, now: Now) {
        let batch = self.following.applying.take().unwrap_or_default();
        if !ok {
            // Everything is asked for again after a pause, from what the disk really holds.
            self.choosing.pause(now + REFUSED_PAUSE);
            self.unfollow_all();
            return;
        }
        for (stream, bytes) in batch {
            let Some(site) = self.following.by_stream.get(&stream).copied() else { continue };
            self.actions.push(Action::Credit { stream, bytes });
            // Received but neither held nor waiting: the database found that it does not follow.
            let lost = self.following.upstreams.get(&site).is_some_and(|upstream| {
                upstream.received > self.held.get(site) && upstream.waiting.is_empty()
            });
            if lost {
                self.unfollow(site);
            }
            // What it had to give may be taken by now.
            self.choosing.mark(site);
        }
        self.choose_upstreams(now);
        self.apply_waiting();
    }
}

//! Whom each site's log is asked of.
//!
//! The choice for a site rests on: who writes it, who relays it, what the peers and this node hold of it, whom it is
//! followed from, and who is avoided. Whatever changes one of them **marks** the site, and only marked sites are looked
//! at; so the work goes with what changes, not with sites times peers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Action, Core, HEADS_PERIOD, Now, follow::Upstream};
use crate::{NodeId, log::SiteId};

/// How long a peer that closed a stream is not asked for the same site again.
const CLOSED_PAUSE: Duration = Duration::from_millis(500);
/// The first and the longest time for which an upstream may deliver nothing of what others show. It doubles with each
/// upstream that is left, and is the first again once one delivers; so even the slowest gets time enough in the end.
const PATIENCE: Duration = HEADS_PERIOD;
const MOST_PATIENCE: Duration = Duration::from_millis(6_400);
/// How many times its patience an upstream that was left for being late is not asked again.
const LATE_PAUSES: u32 = 8;
/// How long a log is followed of which nobody shows more, and whose writer is not connected. Most such logs have ended for good:
/// each restored disk leaves one behind, and a connection carries a bounded number of streams. One that goes on after
/// all is asked for with the next heads that show it.
const EXHAUSTED: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Choosing {
    marked: BTreeSet<SiteId>,
    /// Until when nothing is asked for: the database has refused a batch.
    paused_until: Now,
    /// The driver wants nothing followed.
    on_hold: bool,
    /// Who is not asked for which site, and until when.
    avoided: BTreeMap<(NodeId, SiteId), Now>,
    /// How long the next upstream of a site may deliver nothing, where that is not the first patience.
    patience: BTreeMap<SiteId, Duration>,
}

impl Choosing {
    pub fn mark(&mut self, site: SiteId) {
        self.marked.insert(site);
    }

    pub fn pause(&mut self, until: Now) {
        self.paused_until = until;
    }

    pub fn avoid_closed(&mut self, peer: NodeId, site: SiteId, now: Now) {
        self.avoided.insert((peer, site), now + CLOSED_PAUSE);
        self.mark(site);
    }

    /// An upstream delivers.
    pub fn delivered(&mut self, site: SiteId) {
        self.patience.remove(&site);
    }

    pub fn forget(&mut self, peer: NodeId) {
        self.avoided.retain(|(avoided, _), _| *avoided != peer);
    }
}

impl Core {
    /// Makes sure that each marked site that someone holds more of is followed from the best peer there is.
    pub(super) fn choose_upstreams(&mut self, now: Now) {
        if self.choosing.on_hold || now < self.choosing.paused_until {
            return;
        }
        while let Some(site) = self.choosing.marked.pop_first() {
            if site == self.site {
                self.unfollow(site);
            } else if let Some(peer) = self.better_upstream(site) {
                self.unfollow(site);
                self.follow(site, peer, now);
            }
        }
    }

    /// Time went on: who was avoided may be asked again, and who is late is left.
    pub(super) fn review_upstreams(&mut self, now: Now) {
        let over: Vec<_> =
            self.choosing.avoided.iter().filter(|(_, until)| **until <= now).map(|(who, _)| *who).collect();
        for who in over {
            self.choosing.avoided.remove(&who);
            self.choosing.mark(who.1);
        }
        for (site, peer, patience) in self.following.late(&self.held, now) {
            self.choosing.avoided.insert((peer, site), now + patience * LATE_PAUSES);
            if let Some(next) = self.preferred(site).or_else(|| self.nearest_with_more(site)) {
                tracing::debug!(%site, %peer, %next, "an upstream does not deliver what others hold; another is asked");
                self.choosing.patience.insert(site, (patience * 2).min(MOST_PATIENCE));
                self.unfollow(site);
                self.follow(site, next, now);
            } else {
                // Nobody else has it: the one that is late is the best there is.
                self.choosing.avoided.remove(&(peer, site));
            }
        }
        for site in self.following.exhausted(&self.held, now, EXHAUSTED) {
            if self.preferred(site).is_none() && self.nearest_with_more(site).is_none() {
                self.unfollow(site);
            }
        }
        self.choose_upstreams(now);
    }

    pub(super) fn hold_following(&mut self, hold: bool, now: Now) {
        self.choosing.on_hold = hold;
        if hold {
            self.unfollow_all();
        }
        self.choose_upstreams(now);
    }

    /// Gives up all streams, to ask for the logs again later.
    pub(super) fn unfollow_all(&mut self) {
        let sites: Vec<SiteId> = self.following.sites().collect();
        for site in sites {
            self.unfollow(site);
            self.choosing.mark(site);
        }
    }

    /// Everything that anybody holds: this node's vector is another one.
    pub(super) fn mark_all_shown(&mut self) {
        let shown = self.peers.iter().flat_map(|(_, peer)| peer.heads.iter().map(|(site, _)| site));
        self.choosing.marked.extend(shown);
    }

    /// Everything that a change of the members may touch.
    pub(super) fn mark_all(&mut self) {
        self.choosing.marked.extend(self.peers.written().chain(self.following.sites()));
    }

    /// Whom to follow instead of whom is followed now, if that is better.
    fn better_upstream(&self, site: SiteId) -> Option<NodeId> {
        let current = self.following.peer(site);
        match (self.preferred(site), current) {
            (Some(preferred), current) => Some(preferred).filter(|_| current != Some(preferred)),
            // The peer that stands in has more to give.
            (None, Some(current)) if self.has_more(current, site) => None,
            (None, _) => self.nearest_with_more(site),
        }
    }

    /// Who is to be followed whether or not it holds more by now, so that the next commit comes at once: the relay, or
    /// the site's own writer.
    fn preferred(&self, site: SiteId) -> Option<NodeId> {
        let relay = self.peers.relay(site, self.held.get(site));
        relay.into_iter().chain(self.peers.writer(site)).find(|peer| self.is_usable(*peer, site))
    }

    /// The nearest peer that holds more than this node.
    fn nearest_with_more(&self, site: SiteId) -> Option<NodeId> {
        let held = self.held.get(site);
        self.peers
            .iter()
            .filter(|(id, peer)| peer.heads.get(site) > held && self.is_usable(*id, site))
            .min_by_key(|(id, peer)| (!self.peers.is_neighbour(*id), peer.rtt, *id))
            .map(|(id, _)| id)
    }

    fn has_more(&self, peer: NodeId, site: SiteId) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.heads.get(site) > self.held.get(site))
    }

    fn is_usable(&self, peer: NodeId, site: SiteId) -> bool {
        !self.choosing.avoided.contains_key(&(peer, site))
    }

    fn follow(&mut self, site: SiteId, peer: NodeId, now: Now) {
        let stream = self.new_stream();
        let after = self.held.get(site);
        let patience = self.choosing.patience.get(&site).copied().unwrap_or(PATIENCE);
        // The request and its answer need a round trip before the first frame can be here.
        let rtt = self.peers.get(peer).map_or(Duration::ZERO, |peer| peer.rtt);
        self.following.insert(site, Upstream::new(stream, peer, after, patience, now + rtt));
        self.actions.push(Action::Follow { stream, peer, site, after });
    }

    pub(super) fn unfollow(&mut self, site: SiteId) {
        if let Some(upstream) = self.following.remove(site) {
            self.actions.push(Action::Unfollow { stream: upstream.stream });
        }
    }
}

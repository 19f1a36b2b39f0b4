//! Followers: the peers that we send a log to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Action, Core, SEND_WINDOW, StreamId};
use crate::{
    NodeId,
    log::{Frame, SiteId, Version},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Has been handed everything that is held; the next commit is pushed.
    Live,
    /// Lacks something, and waits until its window has room.
    Behind,
    /// Lacks something, and a piece is being read for it.
    Reading,
}

#[derive(Debug)]
struct Follower {
    peer: NodeId,
    site: SiteId,
    /// The version up to which frames were handed to the driver.
    at: Version,
    /// Bytes of them that the transport has not taken yet.
    unsent: usize,
    state: State,
}

/// The streams of one peer's followers, by their states.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Followers {
    /// They have everything; the next commit is pushed on them.
    pub live: usize,
    /// They lack something, and wait until their window has room.
    pub behind: usize,
    /// They lack something, and a piece of the log is being read for them.
    pub reading: usize,
    /// Bytes that the transport has not taken yet.
    pub unsent: usize,
}

/// All followers, by stream and by site.
#[derive(Debug, Default)]
pub(super) struct Serving {
    followers: BTreeMap<StreamId, Follower>,
    by_site: BTreeMap<SiteId, BTreeSet<StreamId>>,
}

impl Serving {
    pub fn remove(&mut self, stream: StreamId) {
        if let Some(follower) = self.followers.remove(&stream)
            && let Some(streams) = self.by_site.get_mut(&follower.site)
        {
            streams.remove(&stream);
            if streams.is_empty() {
                self.by_site.remove(&follower.site);
            }
        }
    }

    /// How all of them stand, by peer.
    pub fn by_peer(&self) -> BTreeMap<NodeId, Followers> {
        let mut peers = BTreeMap::<_, Followers>::new();
        for follower in self.followers.values() {
            let sum = peers.entry(follower.peer).or_default();
            sum.unsent += follower.unsent;
            *match follower.state {
                State::Live => &mut sum.live,
                State::Behind => &mut sum.behind,
                State::Reading => &mut sum.reading,
            } += 1;
        }
        peers
    }
}

impl Core {
    pub(super) fn open_follower(&mut self, stream: StreamId, peer: NodeId, site: SiteId, after: Version) {
        if site == self.site && after > self.held.get(site) {
            // The peer holds more of our own log than our disk does.
            self.lost_tail();
        }
        let follower = Follower { peer, site, at: after, unsent: 0, state: State::Live };
        self.serving.followers.insert(stream, follower);
        self.serving.by_site.entry(site).or_default().insert(stream);
        self.continue_follower(stream);
    }

    /// Hands a fresh commit to every follower that is live and has room; the others will read it.
    /// Afterwards one that lacks something is being read for, or goes on when its window empties: nobody looks for them.
    pub(super) fn push(&mut self, frame: &Arc<Frame>) {
        let Some(streams) = self.serving.by_site.get(&frame.site) else { return };
        let size = frame.size();
        let mut refused = Vec::new();
        for stream in streams {
            let Some(follower) = self.serving.followers.get_mut(stream) else { continue };
            if follower.state != State::Live || frame.version <= follower.at {
                continue;
            }
            // A single frame may exceed the window, or the follower would never get it.
            let room = follower.unsent == 0 || follower.unsent + size <= SEND_WINDOW;
            if frame.after <= follower.at && room {
                follower.at = frame.version;
                follower.unsent += size;
                self.actions.push(Action::Send { stream: *stream, frames: vec![Arc::clone(frame)] });
            } else {
                self.tally.entry(follower.peer).or_default().pushes_refused += 1;
                refused.push(*stream);
            }
        }
        for stream in refused {
            self.continue_follower(stream);
        }
    }

    pub(super) fn sent(&mut self, stream: StreamId, bytes: usize) {
        if let Some(follower) = self.serving.followers.get_mut(&stream) {
            follower.unsent = follower.unsent.saturating_sub(bytes);
            self.continue_follower(stream);
        }
    }

    pub(super) fn log_read(&mut self, stream: StreamId, frames: Vec<Arc<Frame>>) {
        let Some(follower) = self.serving.followers.get_mut(&stream) else { return };
        follower.state = State::Live;
        if let Some(last) = frames.last() {
            follower.at = follower.at.max(last.version);
            // The read may have been ahead of the news of a commit; what was read is held.
            self.held.advance(follower.site, follower.at);
            follower.unsent += frames.iter().map(|frame| frame.size()).sum::<usize>();
            self.actions.push(Action::Send { stream, frames });
        }
        self.continue_follower(stream);
    }

    /// After news that may have been missed: looks at every follower.
    pub(super) fn catch_up_followers(&mut self) {
        let streams: Vec<StreamId> = self.serving.followers.keys().copied().collect();
        for stream in streams {
            self.continue_follower(stream);
        }
    }

    /// Decides what a follower that is not being read for does next.
    fn continue_follower(&mut self, stream: StreamId) {
        let Some(follower) = self.serving.followers.get_mut(&stream) else { return };
        if follower.state == State::Reading {
            return;
        }
        if follower.at >= self.held.get(follower.site) {
            follower.state = State::Live;
        } else if follower.unsent <= SEND_WINDOW / 2 {
            follower.state = State::Reading;
            let (site, after) = (follower.site, follower.at);
            self.actions.push(Action::ReadLog { stream, site, after });
        } else {
            follower.state = State::Behind;
        }
    }
}

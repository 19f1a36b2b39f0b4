//! The hub's books: which streams are open, whose they are, and which spaces they follow.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use mychat_replication::{
    log::VersionVector,
    mutation::{self, Mutation},
};
use serde_json::json;

use super::{
    Cursor, Event, Item,
    cursor::prefix,
    queue::Queue,
    sees,
    steps::{Audience, FrameSteps, Step},
};
use crate::ids::{AccountId, SessionId, SpaceId};

/// What a stream is opened for.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// Whose stream.
    pub account: AccountId,
    /// Under which session.
    pub session: SessionId,
    /// The spaces that it is about; all that the account is a member of, if none are named.
    pub only: Option<BTreeSet<SpaceId>>,
    /// What the client has seen.
    pub cursor: Cursor,
}

struct Stream {
    subscription: Subscription,
    spaces: BTreeSet<SpaceId>,
    queue: Arc<Queue>,
    /// What the client has seen beyond what this node holds, until the node has it too.
    ahead: Option<Cursor>,
}

/// All open streams, and how far they have been told.
#[derive(Default)]
pub struct State {
    position: VersionVector,
    streams: HashMap<u64, Stream>,
    by_space: HashMap<SpaceId, HashSet<u64>>,
    by_account: HashMap<AccountId, HashSet<u64>>,
    audience: Arc<Audience>,
    next: u64,
}

impl State {
    /// Streams are told of what comes after `position`.
    pub fn new(position: VersionVector) -> Self {
        Self { position, ..Self::default() }
    }

    /// Everything up to here has been told.
    pub const fn position(&self) -> &VersionVector {
        &self.position
    }

    /// How many streams are open.
    pub fn open(&self) -> usize {
        self.streams.len()
    }

    /// Those who have streams open.
    pub fn audience(&self) -> Arc<Audience> {
        Arc::clone(&self.audience)
    }

    /// Moves on without telling anybody: there is nobody.
    pub fn skip_to(&mut self, vector: &VersionVector) {
        self.position.merge(vector);
    }

    /// Registers a stream; what happens from now on comes into its queue.
    pub fn add(&mut self, subscription: Subscription, spaces: BTreeSet<SpaceId>) -> (u64, Arc<Queue>) {
        self.next += 1;
        let id = self.next;
        let queue = Arc::new(Queue::default());
        let ahead = Some(subscription.cursor.clone()).filter(|cursor| !cursor.is_covered_by(&self.position));
        for space in &spaces {
            self.by_space.entry(*space).or_default().insert(id);
        }
        self.by_account.entry(subscription.account).or_default().insert(id);
        Arc::make_mut(&mut self.audience)
            .entry(subscription.account)
            .or_default()
            .insert(subscription.session);
        self.streams.insert(id, Stream { subscription, spaces, queue: Arc::clone(&queue), ahead });
        (id, queue)
    }

    /// Forgets a stream.
    pub fn remove(&mut self, id: u64) {
        let Some(stream) = self.streams.remove(&id) else { return };
        for space in &stream.spaces {
            self.leave(*space, id);
        }
        let account = stream.subscription.account;
        let Some(siblings) = self.by_account.get_mut(&account) else { return };
        siblings.remove(&id);
        if siblings.is_empty() {
            self.by_account.remove(&account);
        }
        let sessions = self
            .by_account
            .get(&account)
            .into_iter()
            .flatten()
            .filter_map(|id| self.streams.get(id))
            .map(|stream| stream.subscription.session)
            .collect::<BTreeSet<_>>();
        let audience = Arc::make_mut(&mut self.audience);
        if sessions.is_empty() {
            audience.remove(&account);
        } else {
            audience.insert(account, sessions);
        }
    }

    /// Tells what follows from a frame.
    pub fn tell(&mut self, frame: FrameSteps) {
        if frame.version <= self.position.get(frame.site) {
            return;
        }
        let last_event = frame.steps.iter().rposition(|step| matches!(step, Step::Event { .. }));
        for (at, step) in frame.steps.into_iter().enumerate() {
            match step {
                Step::Event { sequence, event } => {
                    let seen = |mut cursor: Cursor| {
                        cursor.merge(&self.position);
                        if Some(at) == last_event {
                            let skips = u64::from(mutation::is_on(Mutation::CursorSkips));
                            cursor.advance(prefix(frame.site), frame.version.0 + skips);
                            cursor
                        } else {
                            cursor.with_part(frame.site, frame.version, sequence)
                        }
                    };
                    let place = (frame.site, frame.version.0, sequence);
                    self.deliver(&event, place, &seen);
                }
                Step::Spaces { .. } if mutation::is_on(Mutation::StaleMembership) => {}
                Step::Spaces { account, spaces } => self.follow(account, &spaces),
                Step::Ended { session } => self.end_session(session),
            }
        }
        self.position.advance(frame.site, frame.version);
        let position = &self.position;
        for stream in self.streams.values_mut() {
            if stream.ahead.as_ref().is_some_and(|ahead| ahead.is_covered_by(position)) {
                stream.ahead = None;
            }
        }
    }

    fn deliver(
        &self,
        event: &Event,
        (site, version, sequence): (mychat_replication::log::SiteId, u64, u32),
        seen: &dyn Fn(Cursor) -> Cursor,
    ) {
        let mut shared: Option<Arc<Item>> = None;
        let mut delivered = 0u64;
        for id in self.readers(event) {
            let Some(stream) = self.streams.get(&id) else { continue };
            let Subscription { account, only, .. } = &stream.subscription;
            if !sees(event, *account, &stream.spaces, only.as_ref()) {
                continue;
            }
            let item = match &stream.ahead {
                // The usual case: every stream stands where the hub does, and gets the same bytes.
                None => Arc::clone(shared.get_or_insert_with(|| {
                    let id = seen(Cursor::default()).to_string();
                    Arc::new(Item::new(Some(id), event.kind, &event.data))
                })),
                Some(ahead) if ahead.has_seen(prefix(site), version, sequence) => continue,
                Some(ahead) => {
                    let id = seen(ahead.clone()).to_string();
                    Arc::new(Item::new(Some(id), event.kind, &event.data))
                }
            };
            stream.queue.push(&item);
            delivered += 1;
        }
        metrics::counter!("mychat_events_delivered_total").increment(delivered);
    }

    /// The streams that an event may be for, each once.
    fn readers(&self, event: &Event) -> Vec<u64> {
        let in_space = event.space.and_then(|space| self.by_space.get(&space));
        let named = event.accounts.iter().filter_map(|account| self.by_account.get(account)).flatten();
        let mut readers: Vec<u64> = in_space.into_iter().flatten().chain(named).copied().collect();
        if !event.accounts.is_empty() {
            readers.sort_unstable();
            readers.dedup();
        }
        readers
    }

    fn follow(&mut self, account: AccountId, spaces: &BTreeSet<SpaceId>) {
        let ids: Vec<u64> = self.by_account.get(&account).into_iter().flatten().copied().collect();
        for id in ids {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let before = std::mem::replace(&mut stream.spaces, spaces.clone());
            for space in spaces.difference(&before) {
                self.by_space.entry(*space).or_default().insert(id);
            }
            for space in before.difference(spaces) {
                self.leave(*space, id);
            }
        }
    }

    fn leave(&mut self, space: SpaceId, id: u64) {
        if let Some(streams) = self.by_space.get_mut(&space) {
            streams.remove(&id);
            if streams.is_empty() {
                self.by_space.remove(&space);
            }
        }
    }

    fn end_session(&self, session: SessionId) {
        for stream in self.streams.values().filter(|stream| stream.subscription.session == session) {
            stream.queue.push(&Arc::new(goodbye("session_ended", &[])));
            stream.queue.end();
        }
    }

    /// Something that is not kept: to the members of a space but the one it is about.
    pub fn tell_ephemeral(&self, space: SpaceId, about: AccountId, item: &Arc<Item>) {
        for id in self.by_space.get(&space).into_iter().flatten() {
            let Some(stream) = self.streams.get(id) else { continue };
            let wanted = stream.subscription.only.as_ref().is_none_or(|only| only.contains(&space));
            if wanted && stream.subscription.account != about {
                stream.queue.push(item);
            }
        }
    }

    /// The sign of life that also carries the cursor on, for those whose spaces are quiet.
    pub fn ping(&self) {
        let item = |cursor: Cursor| Arc::new(Item::new(Some(cursor.to_string()), "ping", &json!({})));
        let shared = item(Cursor::from(&self.position));
        for stream in self.streams.values() {
            match &stream.ahead {
                None => stream.queue.push(&shared),
                Some(ahead) => {
                    let mut cursor = ahead.clone();
                    cursor.merge(&self.position);
                    stream.queue.push(&item(cursor))
                }
            };
        }
    }

    /// Sends everybody elsewhere.
    pub fn end_all(&self, reason: &str, alternatives: &[String]) {
        let item = Arc::new(goodbye(reason, alternatives));
        for stream in self.streams.values() {
            stream.queue.push(&item);
            stream.queue.end();
        }
    }
}

/// The last event of a stream that the node ends.
pub fn goodbye(reason: &str, alternatives: &[String]) -> Item {
    Item::new(None, "goodbye", &json!({ "reason": reason, "alternatives": alternatives }))
}

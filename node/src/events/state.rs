//! The hub's books: which streams are open, whose they are, and which spaces they follow.
//!
//! A stream has a queue that its connection's task reads, until it settles: then a reactor has it (`reactor/`), and the
//! books keep its account and session only. Streams over HTTP/2 and on used connections stay with their queues, and so
//! does one whose client has seen more than this node, until the node has it too.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use mychat_replication::{
    log::{Frame, SiteId, Version, VersionVector},
    mutation::{self, Mutation},
};
use serde_json::json;

use super::{
    Comings, Cursor, Cursors, Event, Item, Only,
    audience::Audience,
    cursor::prefix,
    goodbye::goodbye,
    queue::Queue,
    reactor::{Reactors, Reader, Tell, Told},
    sees,
    steps::{self, FrameSteps, Reach, Step},
    told_as,
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
    pub only: Option<Only>,
    /// What the client has seen.
    pub cursor: Cursor,
}

struct Stream {
    reader: Reader,
    spaces: BTreeSet<SpaceId>,
    queue: Arc<Queue>,
    /// Where the client stands that has seen more than this node, until the node has it too.
    ahead: Option<Cursor>,
}

/// A stream that leaves its queue for a reactor.
pub struct Leaving {
    /// Who reads it.
    pub reader: Reader,
    /// The spaces that its account follows.
    pub spaces: BTreeSet<SpaceId>,
    /// What waits for it.
    pub items: Vec<Arc<Item>>,
    /// Whether it ends after that.
    pub ended: bool,
}

/// All open streams, and how far they have been told.
pub struct State {
    position: VersionVector,
    cursors: Cursors,
    streams: HashMap<u64, Stream>,
    by_space: HashMap<SpaceId, HashSet<u64>>,
    by_account: HashMap<AccountId, HashSet<u64>>,
    /// Those of the streams whose clients have seen more than this node.
    ahead: BTreeSet<u64>,
    audience: Arc<Audience>,
    comings: Arc<Comings>,
    deliveries: AtomicU64,
    settled: usize,
    reactors: Reactors,
    next: u64,
}

impl State {
    /// Streams are told of what comes after `position`.
    pub fn new(position: VersionVector, cursors: Cursors, reactors: Reactors) -> Self {
        Self {
            position,
            cursors,
            streams: HashMap::new(),
            by_space: HashMap::new(),
            by_account: HashMap::new(),
            ahead: BTreeSet::new(),
            audience: Arc::default(),
            comings: Arc::default(),
            deliveries: AtomicU64::new(0),
            settled: 0,
            reactors,
            next: 0,
        }
    }

    /// Everything up to here has been told.
    pub const fn position(&self) -> &VersionVector {
        &self.position
    }

    /// How many streams are open.
    pub fn open(&self) -> usize {
        self.streams.len() + self.settled
    }

    /// Those who have streams open.
    pub fn audience(&self) -> Arc<Audience> {
        Arc::clone(&self.audience)
    }

    /// How many events have been given to streams so far.
    pub fn deliveries(&self) -> u64 {
        self.deliveries.load(Ordering::Relaxed) + self.reactors.delivered()
    }

    /// Whose streams come and go.
    pub fn comings(&self) -> Arc<Comings> {
        Arc::clone(&self.comings)
    }

    /// Where settled streams are.
    pub const fn reactors(&self) -> &Reactors {
        &self.reactors
    }

    /// Moves on without telling anybody: there is nobody.
    pub fn skip_to(&mut self, vector: &VersionVector) {
        self.position.merge(vector);
    }

    /// Registers a stream; what happens from now on comes into its queue.
    pub fn add(&mut self, subscription: Subscription, spaces: BTreeSet<SpaceId>) -> (u64, Arc<Queue>) {
        self.next += 1;
        let id = self.next;
        let Subscription { account, session, only, mut cursor } = subscription;
        let queue = Arc::new(Queue::default());
        // Before anything comes from here, the client is told what the logs have.
        cursor.comes_to(&self.position);
        cursor.merge(&self.position);
        let ahead = (!cursor.is_covered_by(&self.position)).then_some(cursor);
        if ahead.is_some() {
            self.ahead.insert(id);
        }
        for space in &spaces {
            self.by_space.entry(*space).or_default().insert(id);
        }
        self.by_account.entry(account).or_default().insert(id);
        self.comings.note(account);
        self.audience.enter(account, session);
        let reader = Reader { account, session, only };
        self.streams.insert(id, Stream { reader, spaces, queue: Arc::clone(&queue), ahead });
        (id, queue)
    }

    /// Forgets a stream.
    pub fn remove(&mut self, id: u64) {
        if let Some(stream) = self.take(id) {
            self.audience.leave(stream.reader.account, stream.reader.session);
            self.comings.note(stream.reader.account);
        }
    }

    fn take(&mut self, id: u64) -> Option<Stream> {
        let stream = self.streams.remove(&id)?;
        self.ahead.remove(&id);
        for space in &stream.spaces {
            self.leave(*space, id);
        }
        let account = stream.reader.account;
        if let Some(siblings) = self.by_account.get_mut(&account) {
            siblings.remove(&id);
            if siblings.is_empty() {
                self.by_account.remove(&account);
            }
        }
        Some(stream)
    }

    /// Whether a stream can go to a reactor: its client has seen no more than this node.
    pub fn can_settle(&self, id: u64) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.ahead.is_none())
    }

    /// Takes a stream off its queue, for a reactor to which it has to be added before anything else is told.
    pub fn settle(&mut self, id: u64) -> Option<Leaving> {
        let stream = self.take(id)?;
        let (items, ended) = stream.queue.take();
        self.settled += 1;
        Some(Leaving { reader: stream.reader, spaces: stream.spaces, items: items.into(), ended })
    }

    /// Forgets settled streams that have gone.
    pub fn departed(&mut self, gone: &[(AccountId, SessionId)]) {
        self.settled = self.settled.saturating_sub(gone.len());
        for (account, session) in gone {
            self.audience.leave(*account, *session);
            self.comings.note(*account);
        }
    }

    /// Which of the next frames somebody here may hear of, each with whether.
    pub fn heard<'a>(&self, frames: impl Iterator<Item = &'a Arc<Frame>>) -> Vec<bool> {
        let mut changed = false;
        let heard = |frame: &'a Arc<Frame>| {
            let before = changed;
            steps::reach(frame).fold(before, |heard, reach| match reach {
                Reach::Space(space) => {
                    heard || self.by_space.contains_key(&space) || self.reactors.follow(space)
                }
                Reach::Account(account) => heard || self.audience.contains(account),
                Reach::Anybody => {
                    changed = true;
                    true
                }
            })
        };
        frames.map(heard).collect()
    }

    /// Tells what follows from a frame.
    pub fn tell(&mut self, frame: FrameSteps) {
        if frame.version <= self.position.get(frame.site) {
            return;
        }
        self.meet(frame.site, frame.version);
        let last_event = frame.steps.iter().rposition(|step| matches!(step, Step::Event { .. }));
        for (at, step) in frame.steps.into_iter().enumerate() {
            match step {
                Step::Event { sequence, told, event } => {
                    let seen = |mut cursor: Cursor| {
                        cursor.merge(&self.position);
                        if Some(at) == last_event {
                            let skips = u64::from(mutation::is_on(Mutation::CursorSkips));
                            cursor.advance(prefix(frame.site), frame.version.0 + skips);
                            cursor
                        } else if let Some(told) = told {
                            cursor.with_part(frame.site, frame.version, told)
                        } else {
                            cursor
                        }
                    };
                    let place = (frame.site, frame.version.0, sequence);
                    self.deliver(event, place, &seen);
                }
                Step::Spaces { .. } if mutation::is_on(Mutation::StaleMembership) => {}
                Step::Spaces { account, spaces } => self.follow(account, spaces),
                Step::Ended { account, session } => self.end_session(account, session),
            }
        }
        self.position.advance(frame.site, frame.version);
        let (position, streams) = (&self.position, &mut self.streams);
        self.ahead.retain(|id| {
            let Some(stream) = streams.get_mut(id) else { return false };
            let still = stream.ahead.as_mut().is_some_and(|cursor| {
                cursor.advance(prefix(frame.site), frame.version.0);
                !cursor.is_covered_by(position)
            });
            if !still {
                stream.ahead = None;
                stream.queue.nudge();
            }
            still
        });
    }

    /// What those clients have seen that this node has not is in doubt once they are told of this version.
    fn meet(&mut self, site: SiteId, version: Version) {
        if self.ahead.is_empty() {
            return;
        }
        let mut held = self.position.clone();
        held.advance(site, version);
        for id in &self.ahead {
            if let Some(cursor) = self.streams.get_mut(id).and_then(|stream| stream.ahead.as_mut())
                && cursor.told(prefix(site)) < version.0
            {
                cursor.doubt_beyond(&held);
            }
        }
    }

    fn deliver(&self, event: Event, place: (SiteId, u64, u32), seen: &dyn Fn(Cursor) -> Cursor) {
        let mut shared: Option<Arc<Item>> = None;
        let encode = || {
            let id = self.cursors.write(&seen(Cursor::default()));
            Arc::new(Item::new(Some(id), event.kind, &event.data))
        };
        let mut delivered = 0u64;
        for id in self.readers(&event) {
            let Some(stream) = self.streams.get(&id) else { continue };
            let Reader { account, only, .. } = &stream.reader;
            if !sees(&event, *account, &stream.spaces, only.as_deref()) {
                continue;
            }
            let item = match &stream.ahead {
                // The usual case: every stream stands where the hub does, and gets the same bytes.
                None => Arc::clone(shared.get_or_insert_with(encode)),
                Some(cursor) => {
                    let Some(kind) = told_as(&event, cursor, place) else { continue };
                    let id = self.cursors.write(&seen(cursor.clone()));
                    Arc::new(Item::new(Some(id), kind, &event.data))
                }
            };
            delivered += u64::from(stream.queue.push(&item));
        }
        metrics::counter!("mychat_events_delivered_total").increment(delivered);
        self.deliveries.fetch_add(delivered, Ordering::Relaxed);
        if self.settled > 0 {
            let wire = shared.unwrap_or_else(encode).wire.clone();
            let about = event.space.or(event.about);
            let told =
                Told { wire, space: event.space, about, accounts: event.accounts.into(), except: None };
            self.reactors.tell(&Tell::Event(told));
        }
    }

    /// The streams with queues that an event may be for, each once.
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

    fn follow(&mut self, account: AccountId, spaces: BTreeSet<SpaceId>) {
        self.comings.note(account);
        let ids: Vec<u64> = self.by_account.get(&account).into_iter().flatten().copied().collect();
        for id in ids {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let before = std::mem::replace(&mut stream.spaces, spaces.clone());
            for space in spaces.difference(&before) {
                self.by_space.entry(*space).or_default().insert(id);
            }
            for space in before.difference(&spaces) {
                self.leave(*space, id);
            }
        }
        self.reactors.tell(&Tell::Follow { account, spaces: Arc::new(spaces) });
    }

    fn leave(&mut self, space: SpaceId, id: u64) {
        if let Some(streams) = self.by_space.get_mut(&space) {
            streams.remove(&id);
            if streams.is_empty() {
                self.by_space.remove(&space);
            }
        }
    }

    fn end_session(&self, account: AccountId, session: SessionId) {
        let last = Arc::new(goodbye("session_ended", &[]));
        for id in self.by_account.get(&account).into_iter().flatten() {
            if let Some(stream) = self.streams.get(id)
                && stream.reader.session == session
            {
                stream.queue.revoke(&last);
            }
        }
        self.reactors.tell(&Tell::Ended { account, session, last: last.wire.clone() });
    }

    /// The spaces that a stream with a queue follows now.
    pub fn spaces_of(&self, id: u64) -> Option<&BTreeSet<SpaceId>> {
        self.streams.get(&id).map(|stream| &stream.spaces)
    }

    /// Something that is not kept: to the members of some spaces but the one it is about, each stream once. Spaces with
    /// more than `most` streams are passed over, and those who are slow do without.
    pub fn tell_ephemeral(
        &self,
        spaces: &BTreeSet<SpaceId>,
        about: AccountId,
        item: &Arc<Item>,
        most: usize,
    ) {
        let small = spaces.iter().filter_map(|space| Some((space, self.by_space.get(space)?)));
        let mut readers: Vec<u64> = small
            .filter(|(_, streams)| streams.len() <= most)
            .flat_map(|(space, streams)| streams.iter().map(move |stream| (space, *stream)))
            .filter(|(space, stream)| {
                self.streams
                    .get(stream)
                    .is_some_and(|stream| stream.reader.account != about && stream.reader.wants(**space))
            })
            .map(|(_, stream)| stream)
            .collect();
        readers.sort_unstable();
        readers.dedup();
        for stream in readers.iter().filter_map(|stream| self.streams.get(stream)) {
            stream.queue.offer(item);
        }
        if self.settled > 0 {
            let wire = item.wire.clone();
            let spaces = spaces.iter().copied().collect();
            self.reactors.tell(&Tell::Ephemeral { wire, spaces, about, most });
        }
    }

    /// The sign of life that also carries the cursor on, for those whose spaces are quiet: to the streams with queues.
    pub fn ping(&self) {
        let item =
            |cursor: &Cursor| Arc::new(Item::new(Some(self.cursors.write(cursor)), "ping", &json!({})));
        let shared = item(&Cursor::from(&self.position));
        for stream in self.streams.values() {
            match &stream.ahead {
                None => stream.queue.push(&shared),
                Some(cursor) => stream.queue.push(&item(cursor)),
            };
        }
    }

    /// The same to some of the settled streams; the next call is for the next ones.
    pub fn ping_settled(&self) {
        if self.settled > 0 {
            let id = self.cursors.write(&Cursor::from(&self.position));
            self.reactors.tell(&Tell::Ping(Item::new(Some(id), "ping", &json!({})).wire));
        }
    }

    /// Sends everybody elsewhere, each with one of the last words in turn.
    pub fn end_all(&self, last: &[Item]) {
        let items: Vec<Arc<Item>> = last.iter().cloned().map(Arc::new).collect();
        for (stream, item) in self.streams.values().zip(items.iter().cycle()) {
            stream.queue.push(item);
            stream.queue.end();
        }
        self.reactors.tell(&Tell::EndAll { last: last.iter().map(|item| item.wire.clone()).collect() });
    }
}

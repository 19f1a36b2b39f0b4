//! One reactor: a thread that waits on its sockets and on what the hub tells, and gives the one to the other.

use std::{
    collections::HashSet,
    io::{self, Read, Write},
    net::Shutdown,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use mio::{Events, Interest, Poll, Token, Waker, net::TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::{Departures, PING_SLOTS, Settling, Tell, streams::Streams};
use crate::ids::SpaceId;

/// Bytes of events that may wait for one reactor; the hub waits while there is more.
const INBOX: usize = 8 << 20;
/// The token that says that the hub has something.
const TOLD: Token = Token(usize::MAX);
/// How often the gauges are set.
const GAUGES: Duration = Duration::from_secs(1);
/// Spaces that an inbox may take for followed though they no longer are, beside as many as are.
const STALE_SPACES: usize = 64;

/// What a reactor is to do next.
pub enum Command {
    /// A stream comes.
    Add(Box<Settling>),
    /// Something is told.
    Tell(Tell),
    /// The streams are cut off.
    Cut,
    /// There is no hub any more.
    Stop,
}

#[derive(Default)]
struct Waiting {
    commands: Vec<Command>,
    bytes: usize,
    asleep: bool,
    /// The thread has ended.
    dead: bool,
    /// All spaces that a stream of the reactor follows, or will once it has taken what waits; and some that none does any
    /// more.
    spaces: HashSet<SpaceId>,
}

impl Waiting {
    /// Notes the spaces that streams follow once the reactor has taken this.
    fn note(&mut self, command: &Command) {
        match command {
            Command::Add(settling) => self.spaces.extend(&settling.spaces),
            Command::Tell(Tell::Follow { spaces, .. }) => self.spaces.extend(&**spaces),
            _ => {}
        }
    }

    /// Whether the reactor may have somebody for it; what it has to know of its streams counts.
    fn concerns(&self, command: &Command) -> bool {
        match command {
            Command::Tell(Tell::Event(event)) => {
                !event.accounts.is_empty() || event.space.is_some_and(|space| self.spaces.contains(&space))
            }
            Command::Tell(Tell::Ephemeral { spaces, .. }) => {
                spaces.iter().any(|space| self.spaces.contains(space))
            }
            _ => true,
        }
    }
}

/// What waits for a reactor. It is not woken for what none of its streams follows: a message costs the reactors that have
/// readers of its space, however many others there are.
pub struct Inbox {
    waiting: Mutex<Waiting>,
    waker: Waker,
    /// There is room again.
    pub room: Arc<Notify>,
}

impl Inbox {
    /// Puts a command in line; nothing comes of it when the reactor has ended.
    pub fn push(&self, command: Command) {
        let mut waiting = self.lock();
        if waiting.dead || !waiting.concerns(&command) {
            return;
        }
        waiting.note(&command);
        if let Command::Tell(Tell::Event(event)) = &command {
            waiting.bytes += event.wire.len();
        }
        waiting.commands.push(command);
        if std::mem::take(&mut waiting.asleep)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "a reactor can't be woken");
        }
    }

    /// How many of some spaces its streams follow, perhaps.
    pub fn follows<'a>(&self, spaces: impl IntoIterator<Item = &'a SpaceId>) -> usize {
        let waiting = self.lock();
        spaces.into_iter().filter(|space| waiting.spaces.contains(space)).count()
    }

    /// Forgets spaces that are not among the `followed`, once there are many. What is yet to be taken may be about others:
    /// then it waits for the next time.
    fn forget(&self, followed: impl ExactSizeIterator<Item = SpaceId>) {
        let mut waiting = self.lock();
        if waiting.commands.is_empty() && waiting.spaces.len() > 2 * followed.len() + STALE_SPACES {
            waiting.spaces = followed.collect();
        }
    }

    /// Whether the reactor has ended.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Whether the reactor is so far behind that the hub has to wait.
    pub fn is_full(&self) -> bool {
        self.lock().bytes > INBOX
    }

    /// Takes everything; says that the reactor sleeps if there is nothing and it `may_sleep`.
    fn take(&self, may_sleep: bool) -> Vec<Command> {
        let mut waiting = self.lock();
        waiting.asleep = may_sleep && waiting.commands.is_empty();
        if std::mem::take(&mut waiting.bytes) > INBOX {
            self.room.notify_one();
        }
        std::mem::take(&mut waiting.commands)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection and its place among those that the node takes.
pub struct Socket {
    tcp: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl Read for Socket {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.tcp.read(bytes)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.tcp.write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reactor's thread.
pub struct Shard {
    name: String,
    poll: Poll,
    inbox: Arc<Inbox>,
    departures: Departures,
    delivered: Arc<AtomicU64>,
    streams: Streams<Socket>,
    slot: usize,
    stopped: bool,
}

impl Drop for Shard {
    /// Also when it ends by a bug: the hub must not wait for it, nor the other reactors for the hub.
    fn drop(&mut self) {
        let mut waiting = self.inbox.lock();
        *waiting = Waiting { dead: true, ..Waiting::default() };
        drop(waiting);
        self.inbox.room.notify_one();
        if !self.stopped {
            tracing::error!(reactor = self.name, "a reactor has ended: its clients come back to the others");
        }
    }
}

impl Shard {
    /// Makes a reactor, which runs once its thread does.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn new(
        name: String,
        room: Arc<Notify>,
        departures: Departures,
        delivered: Arc<AtomicU64>,
    ) -> io::Result<(Self, Arc<Inbox>)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), TOLD)?;
        let inbox = Arc::new(Inbox { waiting: Mutex::default(), waker, room });
        let shard = Self {
            name,
            poll,
            inbox: Arc::clone(&inbox),
            departures,
            delivered,
            streams: Streams::default(),
            slot: 0,
            stopped: false,
        };
        Ok((shard, inbox))
    }

    /// Runs until there is no hub any more.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0; 16 << 10];
        let mut gauges_at = Instant::now();
        while !self.stopped {
            let commands = self.inbox.take(true);
            let patience = if commands.is_empty() { None } else { Some(Duration::ZERO) };
            for command in commands {
                self.obey(command);
            }
            self.streams.pass();
            self.reap();
            if gauges_at.elapsed() >= GAUGES {
                gauges_at = Instant::now();
                self.gauges();
                self.inbox.forget(self.streams.spaces());
            }
            match self.poll.poll(&mut events, patience) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, reactor = self.name, "sockets can't be waited for: the streams are cut off");
                    self.cut();
                    return;
                }
            }
            for event in events.iter().filter(|event| event.token() != TOLD) {
                let key = event.token().0 as u32;
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.streams.read(key, &mut scratch);
                }
                if event.is_writable() {
                    self.streams.write(key);
                }
            }
            self.reap();
        }
        self.cut();
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Add(settling) => self.add(*settling),
            Command::Tell(Tell::Event(event)) => self.streams.tell(&event),
            Command::Tell(Tell::Ephemeral { wire, spaces, about, most }) => {
                self.streams.tell_some(&wire, &spaces, about, most);
            }
            Command::Tell(Tell::Follow { account, spaces }) => self.streams.follow(account, &spaces),
            Command::Tell(Tell::Ended { account, session, last }) => {
                self.streams.end_session(account, session, &last);
            }
            Command::Tell(Tell::EndAll { last }) => self.streams.end_all(&last),
            Command::Tell(Tell::Ping(ping)) => self.ping(&ping),
            Command::Cut => self.cut(),
            Command::Stop => self.stopped = true,
        }
    }

    fn add(&mut self, settling: Settling) {
        let Settling { tcp, place, reader, spaces, first, ended } = settling;
        let (account, session) = (reader.account, reader.session);
        let socket = Socket { tcp: TcpStream::from_std(tcp), _place: place };
        let key = self.streams.add(socket, reader, &spaces, &first, ended);
        let Some(socket) = self.streams.socket(key) else { return };
        let token = Token(key as usize);
        let both = Interest::READABLE | Interest::WRITABLE;
        // What has come or has gone out before this is reported as the first event.
        if let Err(error) = self.poll.registry().register(&mut socket.tcp, token, both) {
            tracing::warn!(%error, "a connection can't be watched: its stream is cut off");
            self.streams.cut(key);
        }
        tracing::trace!(%account, %session, reactor = self.name, "a stream has settled");
    }

    fn ping(&mut self, ping: &Bytes) {
        self.slot = (self.slot + 1) % PING_SLOTS;
        self.streams.ping(self.slot, PING_SLOTS, ping);
    }

    /// Closes what is over, and takes it off the hub's books.
    fn reap(&mut self) {
        let over = self.streams.reap();
        if over.is_empty() {
            return;
        }
        for (socket, _) in &over {
            // Gone already, mostly; else the client is to see an end rather than a break.
            let _ = socket.tcp.shutdown(Shutdown::Write);
        }
        let gone = over.iter().map(|(_, reader)| (reader.account, reader.session)).collect();
        drop(over);
        (self.departures)(gone);
    }

    fn cut(&mut self) {
        self.streams.cut_all();
        self.reap();
    }

    fn gauges(&mut self) {
        let labels = [("reactor", self.name.clone())];
        let (streams, bytes) = self.streams.waiting();
        metrics::gauge!("mychat_events_waiting_streams", &labels).set(streams as f64);
        metrics::gauge!("mychat_events_waiting_bytes", &labels).set(bytes as f64);
        metrics::gauge!("mychat_events_streams", &labels).set(self.streams.len() as f64);
        let delivered = self.streams.take_delivered();
        metrics::counter!("mychat_events_delivered_total").increment(delivered);
        self.delivered.fetch_add(delivered, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use uuid::Uuid;

    use super::*;
    use crate::{events::reactor::Told, ids::AccountId};

    fn space(number: u128) -> SpaceId {
        SpaceId(Uuid::from_u128(number))
    }

    fn follow(spaces: impl IntoIterator<Item = u128>) -> Command {
        let spaces: BTreeSet<SpaceId> = spaces.into_iter().map(space).collect();
        Command::Tell(Tell::Follow { account: AccountId(Uuid::nil()), spaces: Arc::new(spaces) })
    }

    fn event(number: u128, accounts: &[AccountId]) -> Command {
        let wire = Bytes::from_static(b"event");
        let (space, accounts) = (Some(space(number)), accounts.into());
        Command::Tell(Tell::Event(Told { wire, space, about: space, accounts, except: None }))
    }

    fn ephemeral(number: u128) -> Command {
        let (wire, spaces) = (Bytes::from_static(b"event"), [space(number)].into());
        Command::Tell(Tell::Ephemeral { wire, spaces, about: AccountId(Uuid::nil()), most: 1 })
    }

    fn inbox() -> Arc<Inbox> {
        let made = Shard::new("0".to_owned(), Arc::default(), Arc::new(|_| {}), Arc::default());
        let (shard, inbox) = made.expect("descriptors");
        // It stays, for its inbox to live.
        std::mem::forget(shard);
        inbox
    }

    #[test]
    fn a_reactor_is_told_of_what_somebody_there_follows() {
        let inbox = inbox();
        let told = || inbox.take(true).len();
        inbox.push(event(1, &[]));
        inbox.push(ephemeral(1));
        assert_eq!(told(), 0);
        inbox.push(event(1, &[AccountId(Uuid::nil())]));
        assert_eq!(told(), 1, "the account may be there");
        inbox.push(follow([1, 2]));
        inbox.push(event(1, &[]));
        inbox.push(ephemeral(2));
        inbox.push(event(3, &[]));
        assert_eq!(told(), 3);
        assert_eq!(inbox.follows(&[space(1), space(2), space(3)]), 2);
    }

    #[test]
    fn spaces_are_forgotten_when_nothing_is_to_come_and_many_are_stale() {
        let inbox = inbox();
        let all = 0..u128::from(STALE_SPACES as u32) + 3;
        inbox.push(follow(all.clone()));
        inbox.forget([space(0)].into_iter());
        assert_eq!(inbox.follows(&[space(0), space(1)]), 2, "they are about to be followed");
        inbox.take(true);
        inbox.forget([space(0)].into_iter());
        assert_eq!(inbox.follows(&all.map(space).collect::<Vec<_>>()), 1);
        inbox.push(follow([1]));
        inbox.take(true);
        inbox.forget([].into_iter());
        assert_eq!(inbox.follows(&[space(0), space(1)]), 2, "so few are kept");
    }
}

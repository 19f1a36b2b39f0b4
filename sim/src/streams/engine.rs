//! The thread that reads: thousands of sockets, of which those are looked at that have something (epoll, by `mio`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{ErrorKind, Read};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::{
    client::{Client, News, Unusable},
    figures::{Board, Reading},
    mark,
    socket::Connection,
    target::Target,
    transcript::Transcript,
};

/// Bytes that are read at once; a socket that has more has its next turn after the others.
const BUFFER: usize = 256 << 10;
/// Sockets that are handled between two looks at the clock.
const EVENTS: usize = 4096;
/// The longest the thread sleeps.
const TURN: Duration = Duration::from_millis(20);
/// How long a connection may take from its beginning to its stream.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client and its connection.
struct Seat {
    client: Client,
    socket: Option<Connection>,
    server: usize,
    space: usize,
    /// Which of the readers of its space it is.
    nth: usize,
    state: State,
    /// When the present connection was begun, and whether its request has been sent.
    begun: Instant,
    asked: bool,
    /// Since when it has been without a stream: from its first try, or from the loss of the last one.
    without: Option<Instant>,
    /// The server of its last stream.
    home: Option<usize>,
    /// Its last stream was closed on purpose.
    left: bool,
    /// It stops reading once its stream has begun.
    stalls: bool,
    /// Its number among the clients of all threads.
    number: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It waits for its turn to connect.
    Waiting,
    Connecting,
    Live,
    /// It has a stream and does not read it.
    Stalled,
}

impl Seat {
    /// Whether it has a stream, or waits for one that it has asked for, and reads it.
    const fn reads(&self) -> bool {
        self.socket.is_some() && self.asked && !matches!(self.state, State::Stalled)
    }
}

/// The clients of one thread.
pub(super) struct Engine {
    target: Arc<Target>,
    board: Arc<Board>,
    poll: Poll,
    seats: Vec<Seat>,
    /// By space and server.
    transcripts: BTreeMap<(usize, usize), Transcript>,
    /// Who connects when.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    connecting: usize,
    most_connecting: usize,
    churn: Churn,
    reading: Reading,
    /// Which of the threads it is.
    thread: usize,
    buffer: Vec<u8>,
}

/// Streams that are closed on purpose.
struct Churn {
    each: Option<Duration>,
    next: Instant,
    at: usize,
}

/// One client of those that an engine is to have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) server: usize,
    pub(super) space: usize,
    pub(super) nth: usize,
    pub(super) stalls: bool,
    /// Its number among all clients.
    pub(super) number: usize,
}

impl Engine {
    pub(super) fn new(
        target: Arc<Target>,
        board: Arc<Board>,
        places: &[Place],
        most_connecting: usize,
        churn: f64,
        thread: usize,
    ) -> anyhow::Result<Self> {
        let now = Instant::now();
        let seats = places.iter().map(|place| Seat {
            client: Client::new(),
            socket: None,
            server: place.server,
            space: place.space,
            nth: place.nth,
            state: State::Waiting,
            begun: now,
            asked: false,
            without: None,
            home: None,
            left: false,
            stalls: place.stalls,
            number: place.number,
        });
        Ok(Self {
            target,
            board,
            poll: Poll::new()?,
            seats: seats.collect(),
            transcripts: BTreeMap::new(),
            due: (0..places.len()).map(|at| Reverse((now, at))).collect(),
            connecting: 0,
            most_connecting,
            churn: Churn {
                each: (churn > 0.0).then(|| Duration::from_secs_f64(1.0 / churn)),
                next: now,
                at: 0,
            },
            reading: Reading::default(),
            thread,
            buffer: vec![0; BUFFER],
        })
    }

    /// Reads until it is told to stop, and gives what it has found.
    pub(super) fn run(mut self) -> anyhow::Result<Reading> {
        let mut events = Events::with_capacity(EVENTS);
        // Sockets that had more than one buffer's worth, and whether their servers have closed them: the system says that
        // once only, so they are read to the end.
        let mut more: Vec<(usize, bool)> = Vec::new();
        let mut checked = Instant::now();
        while !self.board.stop.load(Relaxed) {
            self.connect();
            let turn = if more.is_empty() { TURN } else { Duration::ZERO };
            match self.poll.poll(&mut events, Some(turn)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            let closed = |event: &mio::event::Event| event.is_read_closed() || event.is_error();
            let ready: Vec<(usize, bool)> = std::mem::take(&mut more)
                .into_iter()
                .chain(events.iter().map(|event| (event.token().0, closed(event))))
                .collect();
            for (at, closed) in ready {
                if self.serve(at) || closed && self.seats[at].reads() {
                    more.push((at, closed));
                }
            }
            self.churn();
            if checked.elapsed() > Duration::from_millis(200) {
                checked = Instant::now();
                self.check();
            }
            // What was said of a connection that has been given up must not be taken to be of the next one in its seat.
            more.retain(|(at, _)| self.seats[*at].socket.is_some());
        }
        let posted: Vec<u32> = self.board.posted.iter().map(|posted| posted.load(Relaxed)).collect();
        for seat in self.seats.iter().filter(|seat| !seat.stalls) {
            let missing = seat.client.seen.missing(posted[seat.space]);
            let unsure = self.board.unsure.lock().unwrap_or_else(PoisonError::into_inner);
            let gaps = missing.filter(|number| !unsure.contains(&(seat.space, *number))).count();
            self.reading.gaps += gaps as u64;
            self.reading.clients_with_gaps += u64::from(gaps > 0);
        }
        Ok(self.reading)
    }

    /// Begins connections whose time has come, as many at once as is wanted.
    fn connect(&mut self) {
        let now = Instant::now();
        while self.connecting < self.most_connecting
            && let Some(Reverse((due, at))) = self.due.peek().copied()
            && due <= now
        {
            self.due.pop();
            let seat = &mut self.seats[at];
            let address = self.target.streams_at(seat.server);
            let opened = Connection::open(address, seat.number, seat.stalls, self.target.tls.as_ref());
            let registered = opened.and_then(|mut socket| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(socket.tcp(), Token(at), interest)?;
                Ok(socket)
            });
            self.connecting += 1;
            (seat.state, seat.begun, seat.asked) = (State::Connecting, now, false);
            seat.without.get_or_insert(now);
            match registered {
                Ok(socket) => seat.socket = Some(socket),
                Err(_) => self.lose(at, true),
            }
        }
    }

    /// Handles a socket that has something; `true` when it has still more.
    fn serve(&mut self, at: usize) -> bool {
        let seat = &mut self.seats[at];
        let Some(socket) = &mut seat.socket else { return false };
        if seat.asked {
            return self.read(at);
        }
        match socket.tcp().peer_addr() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => {
                // Not yet, or not at all.
                if !matches!(socket.tcp().take_error(), Ok(None)) {
                    self.lose(at, true);
                }
                return false;
            }
            Err(_) => {
                self.lose(at, true);
                return false;
            }
        }
        let (before, after) = (seat.home.unwrap_or(seat.server), seat.server);
        let empty = Transcript::default();
        let of = |server| self.transcripts.get(&(seat.space, server)).unwrap_or(&empty);
        let cursor = seat.client.begin(of(before), of(after));
        let request = self.target.subscribe(seat.server, seat.space, seat.nth, cursor.as_deref());
        let asked = socket.ask(&request);
        seat.asked = true;
        if asked.is_err() {
            self.lose(at, true);
        }
        false
    }

    fn read(&mut self, at: usize) -> bool {
        let seat = &mut self.seats[at];
        if seat.state == State::Stalled {
            return false;
        }
        let Some(socket) = &mut seat.socket else { return false };
        let length = match socket.read(&mut self.buffer) {
            Ok(0) => {
                self.lose(at, true);
                return false;
            }
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return false;
            }
            Err(_) => {
                self.lose(at, true);
                return false;
            }
        };
        // A buffer that was filled has more behind it; with TLS that can't be told.
        let more = length == self.buffer.len() || !socket.is_plain();
        self.hear(at, length) && more
    }

    /// Takes in what has been read; whether the stream goes on.
    fn hear(&mut self, at: usize, length: usize) -> bool {
        let seat = &mut self.seats[at];
        let now = mark::now();
        let transcript = self.transcripts.entry((seat.space, seat.server)).or_default();
        let (reading, board) = (&mut self.reading, &self.board);
        let mut live = self.target.is_live_at_once() && !seat.client.has_begun();
        let mut farewell = false;
        let measured = board.measures_from.load(Relaxed);
        let mut delivered = 0;
        let mut doubles = Vec::new();
        let mut latency = board.latency[self.thread].lock().unwrap_or_else(PoisonError::into_inner);
        let taken = seat.client.take(&self.buffer[..length], transcript, &mut |news| match news {
            News::Live => live = true,
            News::Message { mark, again } => {
                delivered += 1;
                if mark.posted >= measured {
                    latency.saturating_record(now.saturating_sub(mark.posted));
                }
                doubles.push((mark.number, again));
            }
            News::Goodbye => farewell = true,
            News::Reset => reading.resets += 1,
        });
        drop(latency);
        if delivered > 0 && board.event_bytes.load(Relaxed) == 0 {
            board.event_bytes.store(transcript.event_bytes(), Relaxed);
        }
        for (number, again) in doubles {
            if !seat.client.seen.take(number) && !again {
                reading.doubles += 1;
            }
        }
        board.delivered.fetch_add(delivered, Relaxed);
        if delivered > 0 {
            reading.last = now;
        }
        if live && seat.client.has_begun() && seat.state == State::Connecting {
            self.live(at);
        }
        match taken {
            Ok(()) if farewell => {
                self.reading.goodbyes += 1;
                self.lose(at, true);
                false
            }
            Ok(()) => true,
            Err(error) => {
                if let Unusable::Refused(status) = error {
                    *self.reading.refused.entry(status).or_default() += 1;
                }
                self.lose(at, true);
                false
            }
        }
    }

    fn live(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        self.connecting -= 1;
        let took = seat.without.take().unwrap_or(seat.begun).elapsed();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let killed = self.board.killed.load(Relaxed);
        let lost_at = mark::now().saturating_sub(micros);
        if killed > 0 && seat.home.is_some() && !seat.left && lost_at >= killed.saturating_sub(1000) {
            self.reading.survived.saturating_record(mark::now().saturating_sub(killed));
        }
        let times = match seat.home.replace(seat.server) {
            None => &mut self.reading.connected,
            Some(_) if seat.left => &mut self.reading.returned,
            Some(_) => &mut self.reading.resumed,
        };
        times.saturating_record(micros);
        self.board.live.fetch_add(1, Relaxed);
        seat.state = State::Live;
        if seat.stalls {
            seat.state = State::Stalled;
            if let Some(socket) = &mut seat.socket {
                // What it does not read any more must not wake the thread.
                let _ = self.poll.registry().deregister(socket.tcp());
            }
        }
    }

    /// A stream has ended, or did not come about: the client goes to the next server, after the pause that it was asked
    /// for.
    fn lose(&mut self, at: usize, elsewhere: bool) {
        let servers = self.target.servers.len();
        let seat = &mut self.seats[at];
        seat.socket = None;
        let now = Instant::now();
        let pause = Duration::from_millis(u64::from(seat.client.retry));
        match seat.state {
            State::Live | State::Stalled => {
                self.board.live.fetch_sub(1, Relaxed);
                (seat.without, seat.left) = (Some(now), !elsewhere);
                self.reading.lost += u64::from(elsewhere);
            }
            State::Connecting => {
                self.connecting -= 1;
                self.reading.failed += 1;
            }
            State::Waiting => {}
        }
        seat.state = State::Waiting;
        if elsewhere && servers > 1 {
            // Those of one server go to all others.
            seat.server = (seat.server + 1 + seat.number % (servers - 1)) % servers;
        }
        self.due.push(Reverse((now + pause, at)));
    }

    /// Closes a stream on purpose, when it is time.
    fn churn(&mut self) {
        let Some(each) = self.churn.each else { return };
        if self.board.measures_from.load(Relaxed) == u64::MAX {
            self.churn.next = Instant::now();
            return;
        }
        while self.churn.next <= Instant::now() {
            self.churn.next += each;
            for _ in 0..self.seats.len() {
                // A large step, prime to most numbers: neighbours share a space.
                self.churn.at = (self.churn.at + 7919) % self.seats.len();
                if self.seats[self.churn.at].state == State::Live {
                    self.lose(self.churn.at, false);
                    break;
                }
            }
        }
    }

    /// Gives up connections that take too long, and says how many clients have everything.
    fn check(&mut self) {
        for at in 0..self.seats.len() {
            let seat = &self.seats[at];
            if seat.state == State::Connecting && seat.begun.elapsed() > PATIENCE {
                self.lose(at, true);
            }
        }
        if self.board.ends.load(Relaxed) {
            let posted: Vec<u32> = self.board.posted.iter().map(|posted| posted.load(Relaxed)).collect();
            let behind = self
                .seats
                .iter()
                .filter(|seat| !seat.stalls && !seat.client.seen.has_all(posted[seat.space]));
            let behind = behind.count() as u64;
            self.board.behind[self.thread].store(behind, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::target::{Kind, tests::target};

    #[test]
    fn a_stream_that_is_lost_is_live_no_more_whether_it_was_read_or_not() {
        let place = Place { server: 0, space: 0, nth: 0, stalls: true, number: 0 };
        let board = Arc::new(Board::new(1, 1));
        let mut engine =
            Engine::new(Arc::new(target(Kind::MyChat)), Arc::clone(&board), &[place, place], 1, 0.0, 0)
                .expect("an engine");
        board.live.store(2, Relaxed);
        for (at, state) in [State::Live, State::Stalled].into_iter().enumerate() {
            engine.seats[at].state = state;
            engine.lose(at, true);
        }
        assert_eq!((board.live.load(Relaxed), engine.reading.lost), (0, 2));
    }
}

//! Streams against a model that gives every event to every stream one by one, over sockets that take a little at a time.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::{self, Read, Write},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::{
    Reactors,
    stream::Reader,
    streams::{Streams, Told},
};
use crate::{
    events::QUEUE_BYTES,
    ids::{AccountId, SessionId, SpaceId},
};

/// No wait in a test lasts longer.
const DEADLINE: Duration = Duration::from_secs(30);

fn account(number: u8) -> AccountId {
    AccountId(Uuid::from_u128(0x100 + u128::from(number)))
}

fn session(number: u8) -> SessionId {
    SessionId(Uuid::from_u128(0x200 + u128::from(number)))
}

fn space(number: u8) -> SpaceId {
    SpaceId(Uuid::from_u128(0x300 + u128::from(number)))
}

fn spaces(bits: u8) -> BTreeSet<SpaceId> {
    (0..4).filter(|number| bits >> number & 1 == 1).map(space).collect()
}

/// The system's side of a socket.
#[derive(Default)]
struct Line {
    written: Vec<u8>,
    room: usize,
    writes: usize,
    broken: bool,
    gone: bool,
}

#[derive(Clone, Default)]
struct Socket(Rc<RefCell<Line>>);

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut line = self.0.borrow_mut();
        if line.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let taken = bytes.len().min(line.room);
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        line.room -= taken;
        line.writes += 1;
        line.written.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        self.write(&all)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Socket {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        if self.0.borrow().gone { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }
}

/// What can happen.
#[derive(Debug, Clone)]
enum Step {
    Open { account: u8, session: u8, spaces: u8, only: Option<u8>, room: usize },
    Tell { space: Option<u8>, accounts: Vec<u8>, except: Option<u8>, size: usize },
    Pass,
    Follow { account: u8, spaces: u8 },
    EndSession { account: u8, session: u8 },
    Ping { slot: usize },
    Room { stream: usize, room: usize },
    Leave { stream: usize },
    Break { stream: usize },
}

fn steps() -> impl Strategy<Value = Step> {
    let room = prop_oneof![Just(usize::MAX), 0usize..2000];
    prop_oneof![
        3 => (0u8..4, 0u8..2, 0u8..16, prop::option::of(0u8..16), room.clone()).prop_map(
            |(account, session, spaces, only, room)| Step::Open { account, session, spaces, only, room }
        ),
        12 => (prop::option::weighted(0.9, 0u8..4), prop::collection::vec(0u8..4, 0..2),
            prop::option::weighted(0.1, 0u8..4), 1usize..300).prop_map(
            |(space, accounts, except, size)| Step::Tell { space, accounts, except, size }
        ),
        3 => Just(Step::Pass),
        2 => (0u8..4, 0u8..16).prop_map(|(account, spaces)| Step::Follow { account, spaces }),
        1 => (0u8..4, 0u8..2).prop_map(|(account, session)| Step::EndSession { account, session }),
        1 => (0usize..3).prop_map(|slot| Step::Ping { slot }),
        4 => (0usize..20, 0usize..2000).prop_map(|(stream, room)| Step::Room { stream, room }),
        1 => (0usize..20).prop_map(|stream| Step::Leave { stream }),
        1 => (0usize..20).prop_map(|stream| Step::Break { stream }),
    ]
}

/// A stream as the model has it.
struct Model {
    key: u32,
    line: Socket,
    reader: Reader,
    follows: BTreeSet<SpaceId>,
    expected: Vec<u8>,
    ended: bool,
    /// Its client has gone, or its connection is broken.
    lost: bool,
    reaped: bool,
}

#[derive(Default)]
struct World {
    streams: Streams<Socket>,
    models: Vec<Model>,
    told: usize,
}

impl World {
    fn open(&mut self, who: u8, of: u8, follows: u8, only: Option<u8>, room: usize) {
        let line = Socket::default();
        line.0.borrow_mut().room = room;
        let reader = Reader {
            account: account(who),
            session: session(of),
            only: only.map(|only| spaces(only).into_iter().collect()),
        };
        let first = Bytes::from(format!("<first {}>", self.models.len()));
        let (reader, follows) = (reader, spaces(follows));
        let key =
            self.streams.add(line.clone(), reader.clone(), &follows, std::slice::from_ref(&first), false);
        let expected = first.to_vec();
        self.models.push(Model {
            key,
            line,
            reader,
            follows,
            expected,
            ended: false,
            lost: false,
            reaped: false,
        });
    }

    fn tell(&mut self, about: Option<u8>, accounts: &[u8], except: Option<u8>, size: usize) {
        self.told += 1;
        let wire = Bytes::from(format!("<{}:{}>", self.told, "x".repeat(size)));
        let told = Told {
            wire: wire.clone(),
            space: about.map(space),
            about: about.map(space),
            accounts: accounts.iter().map(|number| account(*number)).collect(),
            except: except.map(account),
        };
        self.streams.tell(&told);
        for model in self.models.iter_mut().filter(|model| !model.ended) {
            let named = told.accounts.contains(&model.reader.account);
            let hears = match told.space {
                Some(space) => (named || model.follows.contains(&space)) && model.reader.wants(space),
                None => named,
            };
            if hears && told.except != Some(model.reader.account) {
                model.expected.extend_from_slice(&wire);
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Open { account, session, spaces, only, room } => {
                self.open(account, session, spaces, only, room);
            }
            Step::Tell { space, accounts, except, size } => self.tell(space, &accounts, except, size),
            Step::Pass => self.streams.pass(),
            Step::Follow { account: who, spaces: bits } => {
                self.streams.follow(account(who), &spaces(bits));
                for model in self.models.iter_mut().filter(|model| model.reader.account == account(who)) {
                    model.follows = spaces(bits);
                }
            }
            Step::EndSession { account: who, session: of } => {
                self.streams.end_session(account(who), session(of), &Bytes::from_static(b"<bye>"));
                let reader = |model: &Model| (model.reader.account, model.reader.session);
                for model in
                    self.models.iter_mut().filter(|model| reader(model) == (account(who), session(of)))
                {
                    if !std::mem::replace(&mut model.ended, true) {
                        model.expected.extend_from_slice(b"<bye>");
                    }
                }
            }
            Step::Ping { slot } => {
                self.streams.ping(slot, 3, &Bytes::from_static(b"<ping>"));
                for model in self.models.iter_mut().filter(|model| !model.ended && !model.reaped) {
                    if model.key as usize % 3 == slot {
                        model.expected.extend_from_slice(b"<ping>");
                    }
                }
            }
            Step::Room { stream, room } => self.with(stream, |streams, model| {
                model.line.0.borrow_mut().room = room;
                streams.write(model.key);
            }),
            Step::Leave { stream } => self.with(stream, |streams, model| {
                model.lost = true;
                model.line.0.borrow_mut().gone = true;
                streams.read(model.key, &mut [0; 16]);
            }),
            Step::Break { stream } => self.with(stream, |_, model| {
                model.lost = true;
                model.line.0.borrow_mut().broken = true;
            }),
        }
        self.reap();
    }

    fn with(&mut self, stream: usize, f: impl FnOnce(&mut Streams<Socket>, &mut Model)) {
        if let Some(model) = self.models.get_mut(stream)
            && !model.reaped
        {
            f(&mut self.streams, model);
        }
    }

    fn reap(&mut self) {
        for (socket, _) in self.streams.reap() {
            let model = self.models.iter_mut().find(|model| Rc::ptr_eq(&model.line.0, &socket.0));
            let model = model.expect("a stream that was opened");
            assert!(!model.reaped && (model.ended || model.lost), "a stream was dropped for no reason");
            (model.reaped, model.ended) = (true, true);
        }
    }

    /// Every socket takes everything: what has come out is what the model says.
    fn settle(mut self) {
        for number in 0..self.models.len() {
            self.step(Step::Room { stream: number, room: usize::MAX });
        }
        for model in &self.models {
            let line = model.line.0.borrow();
            if model.lost {
                assert!(model.expected.starts_with(&line.written));
            } else {
                assert_eq!(
                    String::from_utf8_lossy(&line.written),
                    String::from_utf8_lossy(&model.expected),
                    "the stream of {:?}",
                    model.reader
                );
                assert_eq!(model.reaped, model.ended, "a stream is forgotten when it has ended");
            }
        }
        let broken = self.models.iter().filter(|model| model.lost && !model.reaped).count();
        let open = self.models.iter().filter(|model| !model.reaped).count();
        assert_eq!(self.streams.len(), open, "{broken} of them are broken and not found out");
    }
}

proptest! {
    #[test]
    fn i6_every_stream_hears_what_it_may_in_order_and_once(all in prop::collection::vec(steps(), 0..120)) {
        let mut world = World::default();
        for step in all {
            world.step_without_pass(step);
        }
        world.settle();
    }
}

impl World {
    /// Most events are gathered for a while, so no stream is looked after in between.
    fn step_without_pass(&mut self, step: Step) {
        match step {
            Step::Tell { space, accounts, except, size } => self.tell(space, &accounts, except, size),
            Step::Open { account, session, spaces, only, room } => {
                self.open(account, session, spaces, only, room);
            }
            step => self.step(step),
        }
    }
}

#[test]
fn what_is_told_together_leaves_in_one_write() {
    let mut world = World::default();
    for _ in 0..3 {
        world.open(0, 0, 0b11, None, usize::MAX);
    }
    world.streams.pass();
    for number in 0..100u8 {
        world.tell(Some(number % 2), &[], None, 20);
    }
    world.streams.pass();
    for model in &world.models {
        // Its first event, and a hundred in a few calls: 64 pieces go into one.
        assert_eq!(model.line.0.borrow().writes, 3);
    }
    for _ in 0..100 {
        world.tell(Some(0), &[], None, 20);
    }
    world.streams.pass();
    assert!(world.models.iter().all(|model| model.line.0.borrow().writes == 4), "the lane's bytes at once");
    world.settle();
}

#[test]
fn i7_bounded_a_stalled_reader_costs_its_own_queue_and_ends_after_a_whole_event() {
    let mut world = World::default();
    world.open(0, 0, 1, None, 1000);
    world.open(1, 0, 1, None, usize::MAX);
    let mut pushed = 0;
    while pushed < 3 * QUEUE_BYTES {
        world.tell(Some(0), &[], None, 1000);
        pushed += 1000;
        world.streams.pass();
        assert!(world.streams.waiting().1 <= QUEUE_BYTES);
    }
    assert_eq!(world.streams.waiting().0, 1);
    let [stalled, other] = &world.models[..] else { panic!("two streams") };
    assert_eq!(other.line.0.borrow().written, other.expected);
    stalled.line.0.borrow_mut().room = usize::MAX;
    let (key, line) = (stalled.key, stalled.line.clone());
    world.streams.write(key);
    let gone = world.streams.reap();
    assert_eq!((gone.len(), world.streams.len()), (1, 1));
    let written = line.0.borrow().written.clone();
    assert!(written.len() > QUEUE_BYTES - 2000 && world.models[0].expected.starts_with(&written));
    assert!(written.ends_with(b">"), "it ends with a whole event");
}

#[test]
fn a_client_that_talks_without_end_is_cut_off() {
    struct Talker;
    impl Read for Talker {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
    }
    impl Write for Talker {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut streams = Streams::default();
    let reader = Reader { account: account(0), session: session(0), only: None };
    let key = streams.add(Talker, reader, &spaces(1), &[], false);
    streams.read(key, &mut [0; 4096]);
    assert_eq!(streams.reap().len(), 1);
}

#[test]
fn reactors_that_have_started_end_when_another_can_not() {
    let reactors = Reactors::new(Arc::new(|_| {}));
    let mut inboxes = Vec::new();
    let started = reactors.start_each(3, |number| {
        if number == 2 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let reactor = reactors.start_one(number)?;
        inboxes.push(Arc::clone(&reactor.inbox));
        Ok(reactor)
    });
    assert!(started.is_err() && reactors.all().is_empty());
    let end = Instant::now() + DEADLINE;
    while !inboxes.iter().all(|inbox| inbox.is_dead()) {
        assert!(Instant::now() < end, "they run for ever");
        std::thread::yield_now();
    }
    reactors.start().expect("descriptors and threads");
    assert!(!reactors.all().is_empty());
}

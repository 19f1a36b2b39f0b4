//! What a message costs to write, to read back and to merge, in databases of several sizes.
//!
//! In this process, with the store of a node: its schema and its local tables, its writer, its `synchronous = FULL`. The
//! messages of other sites are made from one that was really committed, with other ids, texts and client ids.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use indicatif::ProgressBar;
use mychat_node::derive::{Derived, schema};
use mychat_node::ids::{AccountId, MessageId, SpaceId};
use mychat_node::messages;
use mychat_replication::clock::Stamp;
use mychat_replication::log::{Change, Frame, GroupId, SiteId, Version, key};
use mychat_replication::store::{Store, StoreError};

use super::marker::{Template, mark};
use super::settings::GrowthArgs;
use super::sheet::{Better, Sheet, median};
use super::text::{body, scrambled};
use super::usage::Usage;

/// Messages of a frame while the database grows; frames that are merged in one transaction.
const FRAME: usize = 100;
const FRAMES: usize = 16;
/// Rounds in which everything is measured, at each size in turn; a time is the median of them, so that neither a disk's
/// pause nor a busy minute of the machine counts as growth.
const ROUNDS: usize = 11;
/// Versions of a round, of one message and of a hundred: few, so that the smallest database stays small.
const ONES: usize = 100;
const HUNDREDS: usize = 5;
/// Messages that are read back at a time.
const BACK: u64 = 10_000;
/// Bytes of a log that are asked for at a time.
const PIECE: usize = 64 << 10;
/// When the messages were sent: one a millisecond from here on.
const EPOCH: u64 = 1_735_689_600_000;

/// How it is done, for the report.
pub(super) fn method(args: &GrowthArgs) -> Vec<String> {
    vec![
        format!(
            "In this process, with a node's store (schema, local tables, fsync), messages of {} bytes with a client's \
             id ({}) from {} sites in {} spaces.",
            args.general.body_bytes,
            if args.scattered_client_ids { "scattered" } else { "sorted by time, as the web client's" },
            args.sites,
            args.spaces
        ),
        format!(
            "One database of each size; in each of {ROUNDS} rounds, at each in turn, beginning with another one: {ONES} \
             messages written and merged one to a version, each awaited, and {HUNDREDS} versions of {FRAME}; the {ONES} own ones read back one at a \
             time; and logs as for a node that lacks them, {BACK} messages of all sites in turn from the end and from the \
             middle, and as many of them as are one site's alone. Each reading begins after a commit, with no page at hand."
        ),
        "Time is the clock's, fsync and waiting included, per message, the median of the rounds; processor is that of the \
         whole process, the mean."
            .to_owned(),
        "Resident is what the process has more than before it opened the database.".to_owned(),
    ]
}

/// One run.
pub(super) async fn measure(args: &GrowthArgs, bar: &ProgressBar) -> anyhow::Result<Sheet> {
    ensure!(args.sizes.is_sorted_by(|a, b| a < b), "--sizes: each must be larger than the one before");
    let folder = args.general.temporary()?;
    let mut worlds = Vec::new();
    for size in &args.sizes {
        let path = folder.path().join(size.to_string()).join("mychat.db");
        worlds.push(World::of_size(path, *size, args, bar).await?);
    }
    bar.set_message("measuring");
    bar.set_length(ROUNDS as u64);
    bar.set_position(0);
    for _ in 0..ROUNDS {
        for world in &mut worlds {
            world.round().await?;
        }
        // The checkpoint that one leaves behind runs beside the next.
        worlds.rotate_left(1);
        bar.inc(1);
    }
    worlds.sort_by_key(|world| world.next);
    let columns: Vec<Vec<Figure>> = worlds.iter().map(World::figures).collect();
    for world in worlds {
        world.store.close().await;
    }
    Ok(sheet(&args.sizes, &columns))
}

fn sheet(sizes: &[u64], columns: &[Vec<Figure>]) -> Sheet {
    let mut sheet = Sheet::new(&[]);
    sheet.columns = sizes.iter().map(|size| format!("{size} messages")).collect();
    let Some((first, _)) = columns.split_first() else { return sheet };
    for (at, figure) in first.iter().enumerate() {
        let values: Vec<f64> = columns.iter().map(|column| column[at].value).collect();
        sheet.row(figure.name.clone(), figure.unit, Better::Lower, &values);
    }
    for (at, figure) in first.iter().enumerate() {
        let ratios: Vec<f64> = columns.iter().map(|column| column[at].value / figure.value).collect();
        sheet.row(format!("{}, to the smallest", figure.name), "×", Better::Lower, &ratios);
    }
    sheet
}

struct Figure {
    name: String,
    unit: &'static str,
    value: f64,
}

/// A store and what comes next in it.
struct World {
    store: Store,
    /// A packed message, and the change that carries one.
    data: Template,
    change: Change,
    spaces: Vec<SpaceId>,
    author: AccountId,
    size: usize,
    /// Whether client ids do not sort by time.
    scattered: bool,
    /// The other sites.
    sites: Vec<Log>,
    /// Whose turn it is.
    turn: usize,
    /// The number of the next message.
    next: u64,
    /// Bytes that the process took for it.
    resident: f64,
    /// What the rounds have measured so far.
    rounds: Vec<Vec<Measured>>,
}

/// One kind of work in one round.
struct Measured {
    name: &'static str,
    /// Of each message, in microseconds.
    time: f64,
    cpu: f64,
}

/// Another site's log, as far as it is held.
struct Log {
    site: SiteId,
    /// How many messages it has up to each version, from version 0 on.
    upto: Vec<u64>,
}

impl Log {
    fn messages(&self) -> u64 {
        self.upto.last().copied().unwrap_or_default()
    }

    fn head(&self) -> Version {
        Version(self.upto.len() as u64 - 1)
    }

    /// The last version after which there are so many messages.
    fn before(&self, messages: u64) -> Version {
        let earlier = self.messages().saturating_sub(messages);
        Version(self.upto.partition_point(|upto| *upto <= earlier) as u64 - 1)
    }
}

/// Where reading begins.
#[derive(Clone, Copy)]
enum Place {
    End,
    Middle,
}

impl World {
    /// A database with so many messages, which has been through one round that does not count.
    async fn of_size(path: PathBuf, size: u64, args: &GrowthArgs, bar: &ProgressBar) -> anyhow::Result<Self> {
        let before = Usage::of(None).resident;
        let store =
            tokio::task::spawn_blocking(move || Store::open(&path, &schema(), Box::new(Derived::default())))
                .await??;
        let mut world = Self::new(store, args).await?;
        bar.set_message("growing");
        bar.set_length(size);
        while world.next < size {
            world.grow().await?;
            bar.set_position(world.next);
        }
        world.round().await?;
        world.rounds.clear();
        world.resident = Usage::of(None).resident.saturating_sub(before) as f64;
        Ok(world)
    }

    async fn new(store: Store, args: &GrowthArgs) -> anyhow::Result<Self> {
        let uuid = |kind: u64, number: usize| {
            let random = scrambled(kind << 32 | number as u64);
            SpaceId::from_stamp(Stamp::from_millis(EPOCH), random)
        };
        let spaces: Vec<SpaceId> = (0..args.spaces).map(|number| uuid(1, number)).collect();
        let author = AccountId(uuid(2, 0).0);
        let size = args.general.body_bytes;
        let first = spaces.first().copied().context("no space")?;
        write(&store, vec![(first, Stamp::from_millis(EPOCH), body(size), mark(0))], author).await?;
        let change = store.read_log(store.site(), Version(0), PIECE).await?;
        let change = change.frames.into_iter().flat_map(|frame| frame.changes).next();
        let change = change.context("the first message is not in the log")?;
        let data = Template::new(change.value.as_blob().context("a message without data")?.to_vec());
        let sites =
            (1..args.sites).map(|number| Log { site: SiteId(*uuid(3, number).0.as_bytes()), upto: vec![0] });
        let scattered = args.scattered_client_ids;
        Ok(Self {
            store,
            data,
            change,
            spaces,
            author,
            size,
            scattered,
            sites: sites.collect(),
            turn: 0,
            next: 1,
            resident: 0.0,
            rounds: Vec::new(),
        })
    }

    /// The next message: its place and time, and its number, by which its client id sorts.
    fn message(&mut self) -> (SpaceId, Stamp, u64) {
        let number = self.next;
        self.next += 1;
        let random = scrambled(number);
        let space = self.spaces[usize::try_from(random >> 32).unwrap_or_default() % self.spaces.len()];
        let sorts_as = if self.scattered { random % 10_000_000_000 } else { number };
        (space, Stamp::from_millis(EPOCH + number), sorts_as)
    }

    /// The next frame of the site whose turn it is.
    fn frame(&mut self, messages: usize) -> Arc<Frame> {
        let changes = (0..messages).map(|sequence| {
            let (space, at, number) = self.message();
            let id = MessageId::from_stamp(at, scrambled(number));
            Change {
                key: key::pack(&[space.value(), id.value()]),
                value: self.data.varied(number).into(),
                sequence: u32::try_from(sequence).unwrap_or(u32::MAX),
                ..self.change.clone()
            }
        });
        let changes: Vec<Change> = changes.collect();
        self.turn = (self.turn + 1) % self.sites.len();
        let log = &mut self.sites[self.turn];
        let after = log.head();
        log.upto.push(log.messages() + messages as u64);
        Arc::new(Frame {
            group: GroupId::GLOBAL,
            site: log.site,
            after,
            version: log.head(),
            stamp: Stamp::default(),
            changes,
        })
    }

    async fn apply(&self, frames: Vec<Arc<Frame>>) -> anyhow::Result<()> {
        let count = frames.len();
        let applied = self.store.apply(frames).await?;
        ensure!(applied.applied == count && applied.quarantined == 0, "frames were not merged: {applied:?}");
        Ok(())
    }

    /// Adds frames of all other sites, and this site's share.
    async fn grow(&mut self) -> anyhow::Result<()> {
        for _ in 0..self.sites.len().div_ceil(FRAMES) {
            let frames = (0..FRAMES).map(|_| self.frame(FRAME)).collect();
            self.apply(frames).await?;
        }
        self.write(FRAME).await
    }

    async fn write(&mut self, messages: usize) -> anyhow::Result<()> {
        let size = self.size;
        let messages = (0..messages).map(|_| self.message());
        let messages = messages.map(|(space, at, number)| (space, at, body(size), mark(number))).collect();
        write(&self.store, messages, self.author).await
    }

    /// The medians and means of the rounds.
    fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (at, Measured { name, .. }) in self.rounds.first().into_iter().flatten().enumerate() {
            let times = self.rounds.iter().map(|round| round[at].time).collect();
            let cpu: f64 = self.rounds.iter().map(|round| round[at].cpu).sum();
            figures.push(Figure { name: format!("{name}, time"), unit: "µs", value: median(times) });
            let cpu = cpu / self.rounds.len() as f64;
            figures.push(Figure { name: format!("{name}, processor"), unit: "µs", value: cpu });
        }
        figures.push(Figure { name: "resident".to_owned(), unit: "MB", value: self.resident / 1e6 });
        figures
    }

    /// Does each kind of work once.
    async fn round(&mut self) -> anyhow::Result<()> {
        let mut round = Vec::new();
        let mut add = |name, messages: u64, (time, cpu): (Duration, f64)| {
            let each = 1e6 / messages as f64;
            round.push(Measured { name, time: time.as_secs_f64() * each, cpu: cpu * each });
        };
        let kinds = [
            ("write one a version", "merge one a version", ONES, 1),
            ("write hundred a version", "merge hundred a version", HUNDREDS, FRAME),
        ];
        for (written, merged, versions, messages) in kinds {
            let count = (versions * messages) as u64;
            let clock = Clock::start();
            for _ in 0..versions {
                self.write(messages).await?;
            }
            add(written, count, clock.stop());
            if messages == 1 {
                let clock = Clock::start();
                self.read_one_by_one(count).await?;
                add("read one version", count, clock.stop());
            }
            // Made before, so that only merging is timed.
            let frames: Vec<_> = (0..versions).map(|_| self.frame(messages)).collect();
            let clock = Clock::start();
            for frame in frames {
                self.apply(vec![frame]).await?;
            }
            add(merged, count, clock.stop());
        }
        let (all, each) = (self.sites.len(), BACK / self.sites.len() as u64);
        let kinds = [
            ("read the ends of all logs", all, Place::End),
            ("read the middles of all logs", all, Place::Middle),
            ("read the middle of one log alone", 1, Place::Middle),
        ];
        for (name, logs, from) in kinds {
            self.write(1).await?;
            let clock = Clock::start();
            let read = self.read_back(&self.sites[..logs], each, from).await?;
            add(name, read, clock.stop());
        }
        self.rounds.push(round);
        Ok(())
    }

    /// Reads the last versions of the own log, of one message each, one at a time: as for a peer that lacks just that.
    async fn read_one_by_one(&self, versions: u64) -> anyhow::Result<()> {
        let site = self.store.site();
        let head = self.store.vector().get(site).0;
        for after in head.saturating_sub(versions)..head {
            let read = self.store.read_log(site, Version(after), 1).await?;
            let changes = read.frames.first().map_or(0, |frame| frame.changes.len());
            ensure!(changes == 1, "version {} of the own log has {changes} changes", after + 1);
        }
        Ok(())
    }

    /// Reads about so many messages out of each of some logs, a piece of each in turn: as for a node that lacks them.
    async fn read_back(&self, logs: &[Log], each: u64, from: Place) -> anyhow::Result<u64> {
        let mut wanted: Vec<(&Log, Version, u64)> = logs
            .iter()
            .map(|log| {
                let left = match from {
                    Place::End => each,
                    Place::Middle => u64::midpoint(log.messages(), each),
                };
                (log, log.before(left), each)
            })
            .collect();
        let mut messages = 0;
        while !wanted.is_empty() {
            for (log, after, left) in &mut wanted {
                let read = self.store.read_log(log.site, *after, PIECE).await?;
                let last = read.frames.last().context("a log is shorter than what was merged")?;
                *after = last.version;
                let found = read.frames.iter().map(|frame| frame.changes.len() as u64).sum();
                messages += found;
                *left = if read.complete { 0 } else { left.saturating_sub(found) };
            }
            wanted.retain(|(_, _, left)| *left > 0);
        }
        Ok(messages)
    }
}

/// Writes messages as one job: space, time, text and client's id of each.
async fn write(
    store: &Store,
    messages: Vec<(SpaceId, Stamp, String, String)>,
    author: AccountId,
) -> anyhow::Result<()> {
    let written = store.write(move |batch| {
        for (space, at, body, client_id) in messages {
            messages::import(batch, space, author, at, body, client_id)?;
        }
        Ok::<_, StoreError>(())
    });
    Ok(written.await.map(drop)?)
}

/// Time and processor time from a moment on.
struct Clock {
    began: Instant,
    cpu: f64,
}

impl Clock {
    fn start() -> Self {
        Self { began: Instant::now(), cpu: Usage::of(None).cpu }
    }

    fn stop(self) -> (Duration, f64) {
        (self.began.elapsed(), Usage::of(None).cpu - self.cpu)
    }
}

//! What a message costs to write, to read back and to merge, in databases of several sizes.
//!
//! In this process, with the store of a node: its schema and its local tables, its writer, its `synchronous = FULL`. The
//! messages of other sites are made from one that was really committed, with other ids, texts and client ids.

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
use super::sheet::{Better, Sheet};
use super::text::{body, scrambled};
use super::usage::Usage;

/// Messages of a frame while the database grows; frames that are merged in one transaction.
const FRAME: usize = 100;
const FRAMES: usize = 16;
/// Rounds in which everything is measured; a time is the median of them, so that a disk's pause does not count as growth.
const ROUNDS: usize = 5;
/// Versions of a round, of one message and of a hundred.
const ONES: usize = 200;
const HUNDREDS: usize = 10;
/// Versions of a stretch that is read back.
const STRETCH: u64 = 50;
/// Bytes that are asked for when a log is read, as replication does.
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
            "At each size, in each of {ROUNDS} rounds: {ONES} messages written and merged one to a version, each awaited, \
             and {HUNDREDS} versions of {FRAME}; the {ONES} own ones read back one at a time, and 3 stretches of {STRETCH} \
             versions of each of 5 sites."
        ),
        "Time is the clock's, fsync and waiting included, per message, the median of the rounds; processor is that of the \
         whole process, the mean."
            .to_owned(),
        "Resident is what the process has after that.".to_owned(),
    ]
}

/// One run.
pub(super) async fn measure(args: &GrowthArgs, bar: &ProgressBar) -> anyhow::Result<Sheet> {
    ensure!(args.sizes.is_sorted_by(|a, b| a < b), "--sizes: each must be larger than the one before");
    let folder = args.general.temporary()?;
    let path = folder.path().join("mychat.db");
    let store =
        tokio::task::spawn_blocking(move || Store::open(&path, &schema(), Box::new(Derived))).await??;
    let mut world = World::new(store, args).await?;
    let mut columns = Vec::new();
    for size in &args.sizes {
        bar.set_message("growing");
        bar.set_length(*size);
        while world.next < *size {
            world.grow().await?;
            bar.set_position(world.next);
        }
        bar.set_message("measuring");
        columns.push(world.figures().await?);
    }
    world.store.close().await;
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
    /// The other sites, and what is held of each.
    sites: Vec<(SiteId, Version)>,
    /// Whose turn it is.
    turn: usize,
    /// The number of the next message.
    next: u64,
}

impl World {
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
        let sites = (1..args.sites).map(|number| (SiteId(*uuid(3, number).0.as_bytes()), Version(0)));
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
        let (site, held) = &mut self.sites[self.turn];
        let after = std::mem::replace(held, Version(held.0 + 1));
        Arc::new(Frame {
            group: GroupId::GLOBAL,
            site: *site,
            after,
            version: *held,
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

    async fn figures(&mut self) -> anyhow::Result<Vec<Figure>> {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push(self.round().await?);
        }
        let mut figures = Vec::new();
        for (at, (name, ..)) in rounds[0].iter().enumerate() {
            let mut times: Vec<f64> = rounds.iter().map(|round| round[at].1).collect();
            times.sort_by(f64::total_cmp);
            let cpu = rounds.iter().map(|round| round[at].2).sum::<f64>() / ROUNDS as f64;
            figures.push(Figure { name: format!("{name}, time"), unit: "µs", value: times[ROUNDS / 2] });
            figures.push(Figure { name: format!("{name}, processor"), unit: "µs", value: cpu });
        }
        let resident = Usage::of(None).resident as f64 / 1e6;
        figures.push(Figure { name: "resident".to_owned(), unit: "MB", value: resident });
        Ok(figures)
    }

    /// Time and processor time a message of each kind of work, in microseconds.
    async fn round(&mut self) -> anyhow::Result<Vec<(String, f64, f64)>> {
        let mut figures = Vec::new();
        let mut add = |name: String, messages: usize, (time, cpu): (Duration, f64)| {
            let each = 1e6 / messages as f64;
            figures.push((name, time.as_secs_f64() * each, cpu * each));
        };
        for (name, versions, messages) in [("one", ONES, 1), ("hundred", HUNDREDS, FRAME)] {
            let clock = Clock::start();
            for _ in 0..versions {
                self.write(messages).await?;
            }
            add(format!("write {name} a version"), versions * messages, clock.stop());
            if messages == 1 {
                let clock = Clock::start();
                self.read_one_by_one(versions).await?;
                add("read a log one version at a time".to_owned(), versions, clock.stop());
            }
        }
        for (name, versions, messages) in [("one", ONES, 1), ("hundred", HUNDREDS, FRAME)] {
            // Made before, so that only merging is timed.
            let frames: Vec<_> = (0..versions).map(|_| self.frame(messages)).collect();
            let clock = Clock::start();
            for frame in frames {
                self.apply(vec![frame]).await?;
            }
            add(format!("merge {name} a version"), versions * messages, clock.stop());
        }
        let clock = Clock::start();
        let read = self.read_back().await?;
        add("read a log".to_owned(), read, clock.stop());
        Ok(figures)
    }

    /// Reads the last versions of the own log, of one message each, one at a time: as for a peer that lacks just that.
    async fn read_one_by_one(&self, versions: usize) -> anyhow::Result<()> {
        let site = self.store.site();
        let head = self.store.vector().get(site).0;
        for after in head.saturating_sub(versions as u64)..head {
            let read = self.store.read_log(site, Version(after), 1).await?;
            let changes = read.frames.first().map_or(0, |frame| frame.changes.len());
            ensure!(changes == 1, "version {} of the own log has {changes} changes", after + 1);
        }
        Ok(())
    }

    /// Reads stretches out of some sites' logs: of old, middle and new versions.
    async fn read_back(&self) -> anyhow::Result<usize> {
        let mut messages = 0;
        for (site, held) in self.sites.iter().step_by(self.sites.len().div_ceil(5)) {
            for part in 0..3 {
                let mut after = Version(held.0.saturating_sub(STRETCH) * part / 2);
                let end = after.0 + STRETCH;
                while after.0 < end {
                    let read = self.store.read_log(*site, after, PIECE).await?;
                    let Some(last) = read.frames.last() else { break };
                    after = last.version;
                    messages += read.frames.iter().map(|frame| frame.changes.len()).sum::<usize>();
                }
            }
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

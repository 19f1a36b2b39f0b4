//! People who talk: messages on a schedule, and when each arrived at everybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use super::client::Http;
use super::person::{Arrivals, Person, Space};
use crate::population::City;

/// How many sign up at a time.
const SIGN_UPS: usize = 4;
/// The time between everybody's being there and the first message.
const LEAD: Duration = Duration::from_millis(300);
/// How long after the last answer the last deliveries may take.
const SETTLE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Nodes and a router that people talk over.
pub(super) trait System {
    /// Where the router answers.
    fn router(&self) -> String;
    /// Waits until all nodes hold the same.
    async fn agree(&self) -> anyhow::Result<()>;
}

/// One message of the schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Planned {
    /// When, from the start.
    pub(super) at: Duration,
    /// By whom.
    pub(super) from: usize,
}

/// The schedule: independent arrivals (exponential gaps) at `rate` a second. The senders come in rounds, in each of which
/// everybody has one turn in a random order: everybody sends equally often, and the weights are applied to the result.
pub(super) fn schedule(people: usize, rate: f64, duration: Duration, seed: u64) -> Vec<Planned> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut turns: Vec<usize> = (0..people).collect();
    let mut schedule = Vec::new();
    let mut at = Duration::ZERO;
    loop {
        turns.shuffle(&mut random);
        for from in &turns {
            let uniform: f64 = random.random_range(f64::MIN_POSITIVE..1.0);
            at += Duration::from_secs_f64(-uniform.ln() / rate);
            if at >= duration {
                return schedule;
            }
            schedule.push(Planned { at, from: *from });
        }
    }
}

/// What happened to one message, by the clock of this process and without the last mile.
pub(super) struct Spoken {
    pub(super) from: usize,
    /// From the start of the schedule.
    pub(super) planned: Duration,
    pub(super) left: Instant,
    pub(super) answered: Instant,
}

/// All that was seen.
pub(super) struct Heard {
    pub(super) people: Vec<Person>,
    /// By number.
    pub(super) messages: Vec<Spoken>,
    /// For each person, when each message arrived.
    pub(super) arrivals: Vec<Arrivals>,
    /// When the schedule began.
    pub(super) start: Instant,
}

/// Brings everybody in, lets them talk, and waits until everything has arrived.
pub(super) async fn hold(
    system: &impl System,
    cities: &[City],
    schedule: &[Planned],
    bar: &ProgressBar,
) -> anyhow::Result<Heard> {
    let http = Http::new()?;
    let (people, space) = gather(&system.router(), cities, &http, bar).await?;
    system.agree().await.context("the nodes do not come to know the same people")?;
    let arrived = Arc::new(AtomicU64::new(0));
    let mut listening = JoinSet::new();
    let mut arrivals = Vec::new();
    for person in &people {
        let own: Arrivals = schedule.iter().map(|_| std::sync::OnceLock::new()).collect();
        let listener = person.listen(&http, own.clone()).await?;
        listening.spawn(listener.run(arrived.clone()));
        arrivals.push(own);
    }
    bar.set_message("talking");
    bar.set_length(schedule.len() as u64);
    bar.set_position(0);
    let people = Arc::new(people);
    let start = Instant::now() + LEAD;
    let messages = speak(&http, &people, &space, schedule, start, bar).await?;
    let expected = (schedule.len() * people.len()) as u64;
    let deadline = Instant::now() + SETTLE;
    while arrived.load(Ordering::Relaxed) < expected {
        if let Some(ended) = listening.try_join_next() {
            return Err(ended?);
        }
        if Instant::now() >= deadline {
            let missing = expected - arrived.load(Ordering::Relaxed);
            bail!("{missing} of {expected} deliveries did not come within {} s", SETTLE.as_secs());
        }
        tokio::time::sleep(POLL).await;
    }
    listening.shutdown().await;
    let people = Arc::into_inner(people).context("somebody still speaks")?;
    Ok(Heard { people, messages, arrivals, start })
}

/// Everybody signs up where the router sends them, and joins one space.
async fn gather(
    router: &str,
    cities: &[City],
    http: &Http,
    bar: &ProgressBar,
) -> anyhow::Result<(Vec<Person>, Space)> {
    bar.set_message("signing up");
    bar.set_length(cities.len() as u64);
    let run = uuid::Uuid::now_v7().simple().to_string();
    // Collected first: the compiler can't name the lifetimes of a lazy map that is held across an await.
    let arriving: Vec<_> = cities.iter().map(|city| Person::arrive(http, router, city, &run)).collect();
    let people: Vec<Person> =
        stream::iter(arriving).buffered(SIGN_UPS).inspect(|_| bar.inc(1)).try_collect().await?;
    let first = people.first().context("there is nobody")?;
    let space = first.make_space(http).await.context("the space can't be made")?;
    let joining: Vec<_> = people[1..].iter().map(|person| person.join(http, &space)).collect();
    let () =
        stream::iter(joining).buffered(SIGN_UPS).try_collect().await.context("the space can't be joined")?;
    Ok((people, space))
}

/// Posts each message at its moment, whether or not earlier ones have been answered.
async fn speak(
    http: &Http,
    people: &Arc<Vec<Person>>,
    space: &Space,
    schedule: &[Planned],
    start: Instant,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<Spoken>> {
    let mut speaking = JoinSet::new();
    for (number, planned) in schedule.iter().copied().enumerate() {
        tokio::time::sleep_until((start + planned.at).into()).await;
        let (http, people, space) = (http.clone(), people.clone(), space.clone());
        speaking.spawn(async move {
            let (left, answered) = people[planned.from].post(&http, &space, number).await?;
            anyhow::Ok((number, Spoken { from: planned.from, planned: planned.at, left, answered }))
        });
        bar.inc(1);
    }
    let mut spoken = Vec::with_capacity(schedule.len());
    while let Some(one) = speaking.join_next().await {
        spoken.push(one?.context("a message was not taken")?);
    }
    spoken.sort_by_key(|(number, _)| *number);
    Ok(spoken.into_iter().map(|(_, spoken)| spoken).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_sends_equally_often_and_a_seed_decides() {
        let schedule = |seed| super::schedule(7, 100.0, Duration::from_secs(20), seed);
        let one = schedule(1);
        assert!((1_700..2_300).contains(&one.len()), "{}", one.len());
        assert!(one.windows(2).all(|pair| pair[0].at <= pair[1].at));
        let turns: Vec<usize> =
            (0..7).map(|who| one.iter().filter(|planned| planned.from == who).count()).collect();
        assert!(turns.iter().max().unwrap() - turns.iter().min().unwrap() <= 1, "{turns:?}");
        assert_eq!(one, schedule(1));
        assert_ne!(one, schedule(2));
    }
}

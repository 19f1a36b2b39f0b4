//! The stage of a scenario: a fresh cluster under load, with readers, and the means to disturb and to mend it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use indicatif::ProgressBar;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use super::args::{Options, Scenario};
use super::client::{Client, Failure, Heads};
use super::cluster::{Cluster, REGIONS};
use super::figures::Deliveries;
use super::ledger::{Fate, Ledger};
use super::load::{self, Load};
use super::reader::Reader;
use super::{clock, disk::SmallDisk};

/// How long a cluster may take to stand, or to stand again.
const HEALING: Duration = Duration::from_secs(90);
/// Beyond this, a healing is worth a line.
const SLOW: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// How often the progress is shown.
const SHOWING: Duration = Duration::from_millis(200);

pub(super) struct Stage {
    // In the order in which they have to go.
    pub(super) readers: Vec<Reader>,
    pub(super) load: Load,
    pub(super) cluster: Cluster,
    /// Of one node, for the scenario that fills it.
    pub(super) disk: Option<SmallDisk>,
    folder: Option<TempDir>,

    pub(super) client: Arc<Client>,
    pub(super) space: Uuid,
    pub(super) ledger: Ledger,
    pub(super) chance: StdRng,
    pub(super) bar: ProgressBar,
    /// How long the cluster took to be whole again, each time.
    pub(super) heals: Vec<Duration>,
    /// What is wrong so far.
    pub(super) wrong: Vec<String>,
    /// What is worth knowing besides.
    pub(super) notes: Vec<String>,
    /// Deliveries before and during each stall.
    pub(super) stalls: Vec<(Deliveries, Deliveries)>,
}

impl Stage {
    /// Sets a fresh one for a scenario.
    pub(super) async fn set(
        scenario: Scenario,
        options: &Options,
        mut chance: StdRng,
        bar: ProgressBar,
    ) -> anyhow::Result<Self> {
        bar.set_message("starting three nodes");
        let folder =
            tempfile::Builder::new().prefix(&format!("mychat-chaos-{}-", scenario.name())).tempdir()?;
        let mut cluster = Cluster::prepare(folder.path(), options.delay, &mut chance)?;
        let mut disk = None;
        match scenario {
            Scenario::DiskFull => disk = Some(SmallDisk::mount(&cluster.nodes[disk_node()].data)?),
            Scenario::Clock => clock::set(&mut cluster)?,
            _ => {}
        }
        cluster.start()?;
        let client = Arc::new(Client::new(cluster.nodes.iter().map(|node| node.url.clone()).collect())?);
        let space = furnish(&client, &mut cluster).await?;

        let reader = |home: Option<usize>, chance: &mut StdRng| {
            let name = match home {
                Some(home) => format!("the reader at {}", REGIONS[home]),
                None => "the reader that moves".to_owned(),
            };
            Reader::start(name, home, client.clone(), space, StdRng::seed_from_u64(chance.random()))
        };
        let homes = (0..REGIONS.len()).map(Some).chain([None]);
        let readers: Vec<Reader> = homes.map(|home| reader(home, &mut chance)).collect();
        let deadline = Instant::now() + HEALING;
        while readers.iter().any(|reader| reader.seen().streams == 0) {
            ensure!(Instant::now() < deadline, "no event stream begins");
            tokio::time::sleep(POLL).await;
        }
        let ledger = Ledger::new();
        let load = Load::start(client.clone(), space, ledger.clone(), options.rate);
        let folder = Some(folder);
        let (heals, wrong, notes, stalls) = Default::default();
        Ok(Self {
            readers,
            load,
            cluster,
            disk,
            folder,
            client,
            space,
            ledger,
            chance,
            bar,
            heals,
            wrong,
            notes,
            stalls,
        })
    }

    /// Leaves folder and logs where they are.
    pub(super) fn keep(&mut self) -> Option<PathBuf> {
        self.folder.take().map(TempDir::keep)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.cluster.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// Any of the nodes.
    pub(super) fn any(&mut self) -> usize {
        self.chance.random_range(0..REGIONS.len())
    }

    /// A pause of a random length.
    pub(super) async fn pause(&mut self, millis: std::ops::Range<u64>) -> anyhow::Result<()> {
        let millis = self.chance.random_range(millis);
        self.go_on(Duration::from_millis(millis)).await
    }

    /// Lets everything go on for a while, and watches that no node ends by itself.
    pub(super) async fn go_on(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            tokio::time::sleep((end - Instant::now()).min(SHOWING)).await;
            self.watch()?;
        }
        Ok(())
    }

    /// Shows the progress. Fails when a node has ended that should run.
    fn watch(&mut self) -> anyhow::Result<()> {
        let counts = self.ledger.counts();
        self.bar.set_message(format!("{} of {} acknowledged", counts.acknowledged, counts.posted));
        for node in &mut self.cluster.nodes {
            if let Some(status) = node.ended() {
                let said = node.lines_with(&["mychat:", "panicked"]).pop().unwrap_or_default();
                bail!("{} ended by itself with {status}: {said}", node.name);
            }
        }
        Ok(())
    }

    /// What each node holds; nothing for one that does not say.
    pub(super) async fn all_heads(&self) -> Vec<Option<Heads>> {
        let ask = async |node| Some(self.client.status(node).await?.heads);
        futures_util::future::join_all((0..REGIONS.len()).map(ask)).await
    }

    /// Waits until all nodes are ready and each holds what any of them held when the last one answered. Counts from
    /// `since`, when the disturbance ended.
    pub(super) async fn heal(&mut self, since: Instant) -> anyhow::Result<()> {
        let deadline = Instant::now() + HEALING;
        let (mut wanted, mut ready) = (None::<Heads>, Duration::MAX);
        let mut not_ready = Vec::new();
        loop {
            self.watch()?;
            not_ready.clear();
            for (node, name) in self.names().into_iter().enumerate() {
                if !self.client.is_ready(node).await {
                    not_ready.push(name);
                }
            }
            let all: Option<Vec<Heads>> = match not_ready.is_empty() {
                true => self.all_heads().await.into_iter().collect(),
                false => None,
            };
            if let Some(all) = &all {
                ready = ready.min(since.elapsed());
                let wanted = wanted.get_or_insert_with(|| union(all));
                if all.iter().all(|held| covers(held, wanted)) {
                    self.healed(since, ready);
                    return Ok(());
                }
            }
            if Instant::now() >= deadline {
                let seconds = HEALING.as_secs();
                if !not_ready.is_empty() {
                    bail!("not ready {seconds} s after the disturbance: {}", not_ready.join(", "));
                }
                bail!("not level {seconds} s after the disturbance: wanted {wanted:?}, held {all:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn healed(&mut self, since: Instant, ready: Duration) {
        let took = since.elapsed();
        self.heals.push(took);
        if took > SLOW {
            let at = self.ledger.time(since).as_secs_f64();
            let (ready, took) = (ready.as_secs_f64(), took.as_secs_f64());
            self.notes.push(format!(
                "slow to heal at {at:.0} s: ready after {ready:.1} s, level after {took:.1} s"
            ));
        }
    }

    /// Waits until the others hold all of a node's writes; nothing must be posted there meanwhile.
    pub(super) async fn handed_over(&mut self, node: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + HEALING;
        loop {
            self.watch()?;
            let all: Option<Vec<Heads>> = self.all_heads().await.into_iter().collect();
            if let Some(all) = all
                && all.iter().all(|held| covers(held, &all[node]))
            {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the others do not get what {} holds", REGIONS[node]);
            tokio::time::sleep(POLL).await;
        }
    }

    /// Posts one message at this node and no other.
    pub(super) async fn probe(&self, node: usize) -> Result<(), Failure> {
        let client_id = Uuid::now_v7();
        let number = self.ledger.post(client_id);
        self.ledger.attempt(number);
        let message = json!({ "body": load::body(number), "client_id": client_id.to_string() });
        let path = format!("/v1/spaces/{}/messages", self.space);
        match self.client.call(node, Method::POST, &path, Some(&message)).await {
            Ok(answer) => {
                let id = answer["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default();
                self.ledger.settle(number, Fate::Acknowledged { node, id, at: Instant::now() });
                Ok(())
            }
            Err(failure) => {
                let fate = match &failure {
                    Failure::Refused { .. } => Fate::Refused(failure.to_string()),
                    Failure::Silent(_) => Fate::Unanswered(failure.to_string()),
                };
                self.ledger.settle(number, fate);
                Err(failure)
            }
        }
    }
}

/// The node whose disk is small in the scenario that fills it.
pub(super) const fn disk_node() -> usize {
    1
}

/// Waits until the nodes stand, and makes an account and a space that all of them know.
async fn furnish(client: &Client, cluster: &mut Cluster) -> anyhow::Result<Uuid> {
    let deadline = Instant::now() + HEALING;
    for node in 0..REGIONS.len() {
        while !client.is_ready(node).await {
            let here = &mut cluster.nodes[node];
            if let Some(status) = here.ended() {
                let said = here.lines_with(&["mychat:"]).pop().unwrap_or_default();
                bail!("{} does not start, {status}: {said}", here.name);
            }
            ensure!(Instant::now() < deadline, "{} does not get ready", here.name);
            tokio::time::sleep(POLL).await;
        }
    }
    client.sign_up(0).await.context("nobody can sign up")?;
    let wish = json!({ "name": "Chaos", "visibility": "private" });
    let made =
        client.call(0, Method::POST, "/v1/spaces", Some(&wish)).await.context("no space can be made")?;
    let space: Uuid = made["id"].as_str().and_then(|id| id.parse().ok()).context("the space has no id")?;
    for (node, name) in REGIONS.iter().enumerate() {
        let path = format!("/v1/spaces/{space}");
        while let Err(failure) = client.call(node, Method::GET, &path, None).await {
            ensure!(Instant::now() < deadline, "{name} does not learn of the space: {failure}");
            tokio::time::sleep(POLL).await;
        }
        while client.status(node).await.is_none_or(|status| status.peers.len() + 1 < REGIONS.len()) {
            ensure!(Instant::now() < deadline, "{name} does not meet the others");
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(space)
}

fn union(all: &[Heads]) -> Heads {
    let mut union = Heads::new();
    for (site, version) in all.iter().flatten() {
        let known = union.entry(site.clone()).or_default();
        *known = (*known).max(*version);
    }
    union
}

fn covers(held: &Heads, wanted: &Heads) -> bool {
    wanted.iter().all(|(site, version)| held.get(site).is_some_and(|held| held >= version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_joined_and_compared() {
        let heads = |pairs: &[(&str, u64)]| -> Heads {
            pairs.iter().map(|(site, version)| ((*site).to_owned(), *version)).collect()
        };
        let (a, b) = (heads(&[("x", 3), ("y", 1)]), heads(&[("y", 2), ("z", 1)]));
        let both = union(&[a.clone(), b.clone()]);
        assert_eq!(both, heads(&[("x", 3), ("y", 2), ("z", 1)]));
        assert!(covers(&both, &a) && covers(&both, &b) && !covers(&a, &b) && !covers(&b, &a));
    }
}

//! What each scenario does in a round.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rand::RngExt;
use rand::seq::SliceRandom;

use super::args::{Options, Scenario};
use super::client::Failure;
use super::cluster::REGIONS;
use super::node::copy_folder;
use super::stage::{Stage, disk_node};
use super::{clock, figures};

/// How long a full disk, or one that has room again, may go unnoticed.
const NOTICING: Duration = Duration::from_secs(60);
/// How long a restored node that reaches nobody is left alone: longer than it waits for others.
const ALONE: Duration = Duration::from_secs(7);
/// The pause between two tries of a probe.
const PROBING: Duration = Duration::from_millis(100);
/// How long `flap` leaves a node frozen, and then thawed.
const FLAPPING: Duration = Duration::from_secs(1);

impl Stage {
    /// Carries out one round of a scenario, up to the cluster being whole again.
    pub(super) async fn round(
        &mut self,
        scenario: Scenario,
        options: &Options,
        round: u32,
    ) -> anyhow::Result<()> {
        let time = options.time(scenario);
        match scenario {
            Scenario::Kill => self.kill().await,
            Scenario::Partition => self.partition(time).await,
            Scenario::OneWay => self.one_way(time, round).await,
            Scenario::Loss => self.loss(time, options.loss).await,
            Scenario::DiskFull => self.disk_full(time).await,
            Scenario::Clock => self.clock(time, round).await,
            Scenario::Restore => self.restore(round).await,
            Scenario::Stall => self.stall(time).await,
            Scenario::Flap => self.flap(time).await,
            Scenario::Storm => self.storm().await,
            // The parts are run, not the whole.
            Scenario::All => Ok(()),
        }
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        self.pause(20..500).await?;
        let several = self.chance.random_range(0..20);
        let count = match several {
            0 => 3,
            1 => 2,
            _ => 1,
        };
        let mut order: Vec<usize> = (0..REGIONS.len()).collect();
        order.shuffle(&mut self.chance);
        let victims = &order[..count];
        for victim in victims {
            self.cluster.nodes[*victim].kill();
        }
        self.pause(0..400).await?;
        let since = Instant::now();
        for victim in victims {
            self.cluster.nodes[*victim].start()?;
        }
        // The next is sometimes killed before this one has caught up.
        if self.chance.random_range(0..4) == 0 {
            return self.pause(0..800).await;
        }
        self.heal(since).await
    }

    async fn partition(&mut self, time: Duration) -> anyhow::Result<()> {
        let victim = self.any();
        self.pause(200..1_000).await?;
        self.cluster.net.isolate(victim);
        let cut = Instant::now();
        self.go_on(time).await?;
        self.all_wrote(cut, "while they were apart");
        self.cluster.net.mend();
        self.heal(Instant::now()).await
    }

    async fn one_way(&mut self, time: Duration, round: u32) -> anyhow::Result<()> {
        let from = self.any();
        self.pause(200..1_000).await?;
        let others = [(from + 1) % REGIONS.len(), (from + 2) % REGIONS.len()];
        // In turn: it is not heard by one, not heard by all, and hears nobody.
        let (reached, hears) = match round % 3 {
            0 => (&others[..1], true),
            1 => (&others[..], true),
            _ => (&others[..], false),
        };
        for other in reached {
            match hears {
                true => self.cluster.net.cut(from, *other, true),
                false => self.cluster.net.cut(*other, from, true),
            }
        }
        let cut = Instant::now();
        self.go_on(time).await?;
        self.all_wrote(cut, "while one direction was cut");
        self.cluster.net.mend();
        self.heal(Instant::now()).await
    }

    async fn loss(&mut self, time: Duration, share: f64) -> anyhow::Result<()> {
        let lost = self.cluster.net.lost();
        self.cluster.net.lose(share);
        let since = Instant::now();
        self.go_on(time).await?;
        let until = Instant::now();
        self.all_wrote(since, "while datagrams were lost");
        let lost = self.cluster.net.lost() - lost;
        self.cluster.net.mend();
        self.heal(Instant::now()).await?;
        let figures = figures::deliveries(self, since, until, None);
        self.notes.push(format!("{lost} datagrams lost; delivery to another node meanwhile {figures}"));
        Ok(())
    }

    async fn disk_full(&mut self, time: Duration) -> anyhow::Result<()> {
        let victim = disk_node();
        let name = REGIONS[victim];
        self.pause(200..1_000).await?;
        let disk = self.disk.as_ref().context("no small disk")?;
        disk.fill()?;
        let full = Instant::now();
        let refusal = loop {
            match self.probe(victim).await {
                // There may be room left in what the database has taken already.
                Ok(()) if full.elapsed() < NOTICING => tokio::time::sleep(PROBING).await,
                Ok(()) => bail!("{name} goes on writing {} s after its disk was filled", NOTICING.as_secs()),
                Err(Failure::Refused { status: 503, code }) => break code,
                Err(failure) => bail!("{name} does not answer 503 with its disk full, but {failure}"),
            }
        };
        let noticed = full.elapsed();
        self.go_on(time).await?;
        let path = format!("/v1/spaces/{}/messages?limit=1", self.space);
        if let Err(failure) = self.client.call(victim, reqwest::Method::GET, &path, None).await {
            self.wrong.push(format!("{name} can't be read while its disk is full: {failure}"));
        }
        if let Some(disk) = &self.disk {
            disk.clear()?;
        }
        let clear = Instant::now();
        while let Err(failure) = self.probe(victim).await {
            if clear.elapsed() > NOTICING {
                bail!("{name} takes no write {} s after its disk has room: {failure}", NOTICING.as_secs());
            }
            tokio::time::sleep(PROBING).await;
        }
        self.notes.push(format!(
            "{name} refused writes (`{refusal}`) {:.1} s after its disk was full, and took them {:.1} s after it had room",
            noticed.as_secs_f64(),
            clear.elapsed().as_secs_f64()
        ));
        self.heal(clear).await
    }

    async fn clock(&mut self, time: Duration, round: u32) -> anyhow::Result<()> {
        if round > 0 {
            clock::set(&mut self.cluster)?;
            self.restart(&[clock::FAST, clock::SLOW]).await?;
        }
        let since = Instant::now();
        self.go_on(time).await?;
        self.all_wrote(since, "with clocks that differ");
        // Set right, which throws one clock back and the other forward.
        clock::correct(&mut self.cluster);
        self.restart(&[clock::FAST, clock::SLOW]).await?;
        let since = Instant::now();
        self.go_on(time / 2).await?;
        self.all_wrote(since, "after the clocks were set right");
        self.heal(Instant::now()).await
    }

    /// Stops nodes as an operator does, and starts them again, one after the other.
    async fn restart(&mut self, nodes: &[usize]) -> anyhow::Result<()> {
        for node in nodes {
            self.cluster.nodes[*node].stop().await?;
            let since = Instant::now();
            self.cluster.nodes[*node].start()?;
            self.heal(since).await?;
        }
        Ok(())
    }

    async fn restore(&mut self, round: u32) -> anyhow::Result<()> {
        let victim = self.any();
        let alone = round % 2 == 1;
        let (data, copy) =
            (self.cluster.nodes[victim].data.clone(), self.cluster.nodes[victim].data.with_extension("copy"));
        // The copy has a write-ahead log too, as after a power failure.
        self.pause(300..1_000).await?;
        self.cluster.nodes[victim].kill();
        copy_folder(&data, &copy)?;
        let since = Instant::now();
        self.cluster.nodes[victim].start()?;
        self.heal(since).await?;
        self.pause(500..2_000).await?;
        // What only this disk had would be lost with it, rightly.
        self.load.spare(victim, true);
        self.handed_over(victim).await?;
        let sites = self.sites(victim).await;
        self.cluster.nodes[victim].kill();
        std::fs::remove_dir_all(&data)?;
        std::fs::rename(&copy, &data)?;
        if alone {
            self.cluster.net.isolate(victim);
        }
        let mut since = Instant::now();
        self.cluster.nodes[victim].start()?;
        self.load.spare(victim, false);
        if round % 4 >= 2 {
            // It dies again while it finds out what it has lost, or while it takes a new site id.
            self.pause(if alone { 4_500..5_500 } else { 0..500 }).await?;
            self.cluster.nodes[victim].kill();
            since = Instant::now();
            self.cluster.nodes[victim].start()?;
        }
        if alone {
            self.go_on(ALONE).await?;
            self.cluster.net.mend();
            since = Instant::now();
        }
        self.heal(since).await?;
        // A site is told of once it has a version. A node that is too busy to say proves nothing.
        self.probe(victim).await.with_context(|| format!("{} takes no write", REGIONS[victim]))?;
        if let (Some(sites), Some(now)) = (sites, self.sites(victim).await)
            && now <= sites
        {
            let name = REGIONS[victim];
            self.wrong
                .push(format!("{name} went on under a site id whose versions others know: {sites} sites"));
        }
        Ok(())
    }

    /// How many sites' logs a node holds a part of.
    async fn sites(&self, node: usize) -> Option<usize> {
        Some(self.client.status(node).await?.heads.len())
    }

    async fn stall(&mut self, time: Duration) -> anyhow::Result<()> {
        let victim = self.any();
        // The others must have as much to do before as meanwhile.
        self.load.spare(victim, true);
        self.handed_over(victim).await?;
        let before = Instant::now();
        self.go_on(time).await?;
        let frozen = Instant::now();
        self.cluster.nodes[victim].freeze()?;
        self.go_on(time).await?;
        let thawed = Instant::now();
        self.cluster.nodes[victim].thaw()?;
        self.load.spare(victim, false);
        self.heal(thawed).await?;
        let before = figures::deliveries(self, before, frozen, Some(victim));
        let meanwhile = figures::deliveries(self, frozen, thawed, Some(victim));
        self.stalls.push((before, meanwhile));
        self.notes.push(format!(
            "{} frozen for {} s: delivery between the others before {before}, meanwhile {meanwhile}",
            REGIONS[victim],
            time.as_secs_f64(),
        ));
        Ok(())
    }

    async fn flap(&mut self, time: Duration) -> anyhow::Result<()> {
        let victim = self.any();
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.cluster.nodes[victim].freeze()?;
            self.go_on(FLAPPING).await?;
            self.cluster.nodes[victim].thaw()?;
            self.go_on(FLAPPING).await?;
        }
        self.heal(Instant::now()).await
    }

    /// Notes it as wrong when a node has taken nothing since then.
    fn all_wrote(&mut self, since: Instant, when: &str) {
        for (node, name) in REGIONS.iter().enumerate() {
            if self.ledger.acknowledged_by(node, since) == 0 {
                self.wrong.push(format!("{name} has acknowledged nothing {when}"));
            }
        }
    }
}

//! Several things at once: what a fault leaves behind meets the next one.

use std::time::Instant;

use rand::RngExt;

use super::cluster::REGIONS;
use super::stage::Stage;

/// Faults in one round.
const STRIKES: u32 = 6;

/// What the nodes suffer at the moment.
#[derive(Default)]
struct Suffering {
    dead: [bool; REGIONS.len()],
    frozen: [bool; REGIONS.len()],
}

impl Stage {
    /// Strikes a few times without waiting for the cluster to be whole, then mends everything.
    pub(super) async fn storm(&mut self) -> anyhow::Result<()> {
        let mut now = Suffering::default();
        for _ in 0..STRIKES {
            self.strike(&mut now).await?;
            self.pause(100..1_500).await?;
        }
        let since = Instant::now();
        self.cluster.net.mend();
        for node in 0..REGIONS.len() {
            self.wake(node, &mut now)?;
        }
        self.heal(since).await
    }

    async fn strike(&mut self, now: &mut Suffering) -> anyhow::Result<()> {
        let node = self.any();
        let other = (node + self.chance.random_range(1..REGIONS.len())) % REGIONS.len();
        match self.chance.random_range(0..10) {
            0 | 1 => {
                self.cluster.nodes[node].kill();
                (now.dead[node], now.frozen[node]) = (true, false);
            }
            2 if !now.dead[node] => {
                self.cluster.nodes[node].freeze()?;
                now.frozen[node] = true;
            }
            3 => self.cluster.net.cut(node, other, true),
            4 => self.cluster.net.isolate(node),
            5 => self.cluster.net.lose(0.2),
            6 => self.cluster.net.mend(),
            7 if !now.dead[node] && !now.frozen[node] => {
                self.cluster.nodes[node].stop().await?;
                now.dead[node] = true;
            }
            _ => self.wake(node, now)?,
        }
        Ok(())
    }

    fn wake(&mut self, node: usize, now: &mut Suffering) -> anyhow::Result<()> {
        if std::mem::take(&mut now.dead[node]) {
            self.cluster.nodes[node].start()?;
        }
        if std::mem::take(&mut now.frozen[node]) {
            self.cluster.nodes[node].thaw()?;
        }
        Ok(())
    }
}

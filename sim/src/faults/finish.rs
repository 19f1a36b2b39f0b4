//! Looking at databases on the way and at the end: when everything has come to rest, all nodes must hold the same, all
//! that was acknowledged, and every client must have got everything.

use super::{
    oracle::{Rule, audit},
    world::{Happening, World},
};
use crate::virtual_time::{Time, millis, seconds};

/// How long everything may take to come to rest.
const PATIENCE: Time = seconds(180);
/// How long after the last commit everybody who reads has been told of it.
const TELLING: Time = seconds(1);

impl World {
    /// Judges one database, while things go wrong.
    pub fn audit(&mut self, number: usize) {
        let Some(process) = &self.nodes[number].process else { return };
        let read = audit::read(&process.store);
        self.stage.count("database judged");
        match read {
            Ok(holding) => {
                let verdict = holding.judge(&self.ledger);
                self.judge(|| format!("node {number}"), verdict);
            }
            Err(error) => self.stage.object(Rule::Prefix, format!("node {number}: {error}")),
        }
    }

    /// Looks whether everything has come to rest.
    pub fn poll(&mut self) {
        let healed = self.healed.unwrap_or_default();
        if self.stage.now() > healed + PATIENCE {
            let what = self.unrest().unwrap_or_default();
            return self
                .stage
                .object(Rule::Level, format!("{what}, {PATIENCE:?} after everything was mended"));
        }
        if let Some(what) = self.unrest() {
            self.stage.say(|| format!("no rest yet: {what}"));
            return self.stage.after(millis(500), Happening::Poll);
        }
        let behind = (0..self.nodes.len()).find(|node| self.has_old_release(*node));
        if let Some(node) = behind {
            self.upgrade_last(node);
            return self.stage.after(millis(500), Happening::Poll);
        }
        self.judge_all();
        self.done = true;
    }

    /// Whether others run a newer release than this node.
    fn has_old_release(&self, node: usize) -> bool {
        !self.nodes[node].upgraded
            && !self.stage.seats[node].left
            && self.nodes.iter().zip(&self.stage.seats).any(|(node, seat)| node.upgraded && !seat.left)
    }

    /// What has not come to rest.
    fn unrest(&self) -> Option<String> {
        let running = || self.nodes.iter().enumerate().filter(|(number, _)| !self.stage.seats[*number].left);
        let first = running().next().map(|(_, node)| &node.vector)?;
        for (number, node) in running() {
            let Some(process) = &self.stage.seats[number].process else {
                return Some(format!("node {number} is down"));
            };
            if !process.core.is_settled() {
                return Some(format!("node {number} is not settled"));
            }
            if self.is_waiting(number) {
                return Some(format!("node {number} waits for its disk"));
            }
            if node.vector != *first {
                return Some(format!("node {number} holds {:?}, another {first:?}", node.vector));
            }
        }
        if self.stage.now() < self.last_busy + TELLING {
            return Some("something has just been written".to_owned());
        }
        (0..self.people.len())
            .find(|client| !self.is_up_to_date(*client))
            .map(|client| format!("client {client} is not up to date"))
    }

    fn judge_all(&mut self) {
        let mut holdings = Vec::new();
        for number in 0..self.nodes.len() {
            let Some(process) = &self.nodes[number].process else { continue };
            let read = audit::read(&process.store);
            match read {
                Ok(holding) => holdings.push((number, holding)),
                Err(error) => self.stage.object(Rule::Prefix, format!("node {number}: {error}")),
            }
        }
        for (number, holding) in &holdings {
            let verdict = holding
                .judge(&self.ledger)
                .and_then(|()| holding.has_acknowledged(&self.ledger))
                .and_then(|()| holding.equals(&holdings[0].1));
            self.judge(|| format!("node {number} in the end"), verdict);
            self.stage.trace.number(holding.hash());
        }
        if let Some((_, holding)) = holdings.first() {
            self.judge_clients(&holding.messages);
        }
        let acknowledged = self.ledger.acknowledged().count() as u64;
        self.stage.count_by("acknowledged version found on every node", acknowledged);
    }
}

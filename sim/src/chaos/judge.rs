//! The judgement, once everything is mended and nothing is posted any more: whether the nodes hold what they have
//! acknowledged, once, all the same, and whether the readers saw it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::history::{self, History};
use super::ledger::{Entry, Fate, Ledger};
use super::load;
use super::reader::Reader;
use super::stage::Stage;

/// How long the nodes may take to hold the same.
const AGREEMENT: Duration = Duration::from_secs(120);
/// How long the histories may take to be read.
const READING: Duration = Duration::from_secs(120);
/// How long the readers may take, after that, to see everything.
const SEEING: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
/// How often a node may have to join again; the faults here give a reason a few dozen times at most.
const REJOINING: usize = 100;
/// How many of a kind are named.
const NAMED: usize = 5;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Acknowledged messages that a node lacks, summed over the nodes.
    pub(super) lost: u64,
    /// Messages that a node lists more than once, summed over the nodes.
    pub(super) doubled: u64,
    /// Acknowledged messages that a reader did not see, summed over the readers.
    pub(super) unseen: u64,
    /// Messages that a reader saw again, summed over the readers.
    pub(super) repeated: u64,
    pub(super) vectors_equal: bool,
    pub(super) hashes_equal: bool,
    /// Everything that is wrong, in words.
    pub(super) wrong: Vec<String>,
}

/// Judges; the load has been stopped.
pub(super) async fn judge(stage: &mut Stage) -> Verdict {
    let mut verdict = Verdict::default();
    verdict.agreement(stage).await;
    verdict.histories(stage).await;
    verdict.readers(stage).await;
    verdict.processes(stage);
    verdict
}

impl Verdict {
    fn say(&mut self, what: String) {
        self.wrong.push(what);
    }

    /// Names some of a kind, and how many more there are.
    fn list(&mut self, what: &str, which: &[String]) {
        for one in which.iter().take(NAMED) {
            self.wrong.push(format!("{what}: {one}"));
        }
        if which.len() > NAMED {
            self.wrong.push(format!("{what}: and {} more", which.len() - NAMED));
        }
    }

    async fn agreement(&mut self, stage: &Stage) {
        let deadline = Instant::now() + AGREEMENT;
        loop {
            let all = stage.all_heads().await;
            let first = all[0].as_ref();
            self.vectors_equal = first.is_some() && all.iter().all(|heads| heads.as_ref() == first);
            if self.vectors_equal {
                return;
            }
            if Instant::now() >= deadline {
                let shown: Vec<String> =
                    all.iter().zip(stage.names()).map(|(heads, name)| format!("{name} {heads:?}")).collect();
                return self.say(format!(
                    "the vectors differ {} s after everything was mended: {}",
                    AGREEMENT.as_secs(),
                    shown.join("; ")
                ));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn histories(&mut self, stage: &Stage) {
        let (names, entries) = (stage.names(), stage.ledger.entries());
        let deadline = Instant::now() + READING;
        let mut hashes = HashSet::new();
        for (node, name) in names.iter().enumerate() {
            match history::read(&stage.client, node, stage.space, deadline).await {
                Ok(history) => {
                    self.history(name, &names, &history, &entries, &stage.ledger);
                    hashes.insert(history.hash.clone());
                }
                Err(error) => self.say(format!("the history can't be read from {name}: {error}")),
            }
        }
        self.hashes_equal = hashes.len() == 1;
        if hashes.len() > 1 {
            self.say("the histories differ between the nodes".into());
        }
    }

    fn history(
        &mut self,
        name: &str,
        names: &[String],
        history: &History,
        entries: &[Entry],
        ledger: &Ledger,
    ) {
        let (mut lost, mut doubled, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
        for (number, entry) in entries.iter().enumerate() {
            let rows = history.messages.get(&entry.client_id).map(Vec::as_slice).unwrap_or_default();
            if rows.len() > 1 {
                let ids: Vec<String> = rows.iter().map(|row| row.id.to_string()).collect();
                doubled.push(format!("#{number} (client id {}) as {}", entry.client_id, ids.join(" and ")));
            }
            if let Some(row) = rows.first()
                && row.body.as_str() != Some(load::body(number).as_str())
            {
                wrong.push(format!("#{number} has the body {}", row.body));
            }
            let Fate::Acknowledged { node, id, at } = &entry.fate else { continue };
            let what = || {
                let at = ledger.time(*at).as_secs_f64();
                format!(
                    "#{number} (client id {}), acknowledged by {} at {at:.3} s as {id}",
                    entry.client_id, names[*node]
                )
            };
            match rows.first() {
                None => lost.push(what()),
                // With one attempt there is no twin that it could have become one with.
                Some(row) if entry.attempts == 1 && row.id != *id => {
                    wrong.push(format!("{} is {}", what(), row.id))
                }
                Some(_) => {}
            }
        }
        let known: HashSet<_> = entries.iter().map(|entry| entry.client_id).collect();
        wrong.extend(history.messages.iter().filter(|(id, _)| !known.contains(id)).map(|(_, rows)| {
            format!("{} was never posted", rows.first().map(|row| row.id).unwrap_or_default())
        }));
        if !history.ordered {
            self.say(format!("{name} lists messages out of order, or one twice"));
        }
        self.lost += lost.len() as u64;
        self.doubled += doubled.len() as u64;
        self.list(&format!("lost on {name}"), &lost);
        self.list(&format!("doubled on {name}"), &doubled);
        self.list(&format!("wrong on {name}"), &wrong);
    }

    async fn readers(&mut self, stage: &Stage) {
        let (names, entries) = (stage.names(), stage.ledger.entries());
        let deadline = Instant::now() + SEEING;
        for reader in &stage.readers {
            let unseen = loop {
                let unseen = unseen(reader, &entries);
                if unseen.is_empty() || Instant::now() >= deadline {
                    break unseen;
                }
                tokio::time::sleep(POLL).await;
            };
            let seen = reader.seen();
            self.unseen += unseen.len() as u64;
            self.repeated += seen.repeated.len() as u64;
            self.list(&format!("never seen by {}", reader.name), &unseen);
            self.list(&format!("seen again by {}", reader.name), &seen.repeated);
            if let Some(node) = seen.resets.first() {
                let times = seen.resets.len();
                self.say(format!(
                    "{} was told {times} times to start anew, first by {}",
                    reader.name, names[*node]
                ));
            }
        }
    }

    /// A node that ended by itself, and panics that were survived.
    fn processes(&mut self, stage: &mut Stage) {
        self.wrong.append(&mut stage.wrong);
        for node in &stage.cluster.nodes {
            let panics = node.lines_with(&["panicked at"]);
            self.list(&format!("{} panicked", node.name), &panics);
            let rejoined = node.lines_with(&["it joins again"]).len();
            if rejoined > REJOINING {
                self.say(format!(
                    "{} was given up by the others and joined again {rejoined} times",
                    node.name
                ));
            }
        }
    }
}

fn unseen(reader: &Reader, entries: &[Entry]) -> Vec<String> {
    let seen = reader.seen();
    let acknowledged = |entry: &Entry| matches!(entry.fate, Fate::Acknowledged { .. });
    let missing =
        |(_, entry): &(usize, &Entry)| acknowledged(entry) && !seen.first.contains_key(&entry.client_id);
    let missing = entries.iter().enumerate().filter(missing);
    missing.map(|(number, entry)| format!("#{number} (client id {})", entry.client_id)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use uuid::Uuid;

    use super::super::history::Row;
    use super::*;

    const NAMES: [&str; 3] = ["fra", "iad", "syd"];

    /// A ledger of three messages that `fra` has acknowledged, and the history that has just these.
    fn sound() -> (Ledger, HashMap<Uuid, Vec<Row>>) {
        let (ledger, mut messages) = (Ledger::new(), HashMap::new());
        for number in 0..3 {
            let (client_id, id) =
                (Uuid::from_u128(10 + number as u128), Uuid::from_u128(20 + number as u128));
            assert_eq!(ledger.post(client_id), number);
            ledger.attempt(number);
            ledger.settle(number, Fate::Acknowledged { node: 0, id, at: Instant::now() });
            let (author, sent_at) = (serde_json::Value::Null, String::new());
            let row =
                Row { id, author, body: load::body(number).into(), sent_at, client_id: Some(client_id) };
            messages.insert(client_id, vec![row]);
        }
        (ledger, messages)
    }

    fn judged(ledger: &Ledger, messages: HashMap<Uuid, Vec<Row>>) -> Verdict {
        let mut verdict = Verdict::default();
        let history = History { messages, count: 3, ordered: true, hash: String::new() };
        verdict.history("iad", &NAMES.map(str::to_owned), &history, &ledger.entries(), ledger);
        verdict
    }

    #[test]
    fn what_is_as_acknowledged_is_right() {
        let (ledger, messages) = sound();
        assert_eq!(judged(&ledger, messages).wrong, Vec::<String>::new());
    }

    #[test]
    fn what_is_not_is_named() {
        let second = Uuid::from_u128(11);
        let (ledger, mut messages) = sound();
        messages.remove(&second);
        let verdict = judged(&ledger, messages);
        assert_eq!((verdict.lost, verdict.doubled, verdict.wrong.len()), (1, 0, 1));
        for part in ["lost on iad", "#1", "acknowledged by fra", &Uuid::from_u128(21).to_string()] {
            assert!(verdict.wrong[0].contains(part), "{} lacks {part}", verdict.wrong[0]);
        }

        let (ledger, mut messages) = sound();
        let rows = messages.get_mut(&second).unwrap();
        rows.push(Row { id: Uuid::from_u128(99), ..rows[0].clone() });
        let verdict = judged(&ledger, messages);
        assert_eq!((verdict.lost, verdict.doubled), (0, 1));

        let (ledger, mut messages) = sound();
        messages.get_mut(&second).unwrap()[0].body = "something else".into();
        messages.get_mut(&Uuid::from_u128(12)).unwrap()[0].id = Uuid::from_u128(98);
        let stranger = messages[&second].clone();
        messages.insert(Uuid::from_u128(77), stranger);
        assert_eq!(judged(&ledger, messages).wrong.len(), 3);
    }
}

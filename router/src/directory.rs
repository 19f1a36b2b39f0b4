//! The directory of the mesh as a source of nodes.

use mychat_replication::Role;
use mychat_replication::directory::{Directory, Entry};

use crate::nodes::{Candidate, Nodes};

impl Nodes for Directory {
    fn snapshot(&self) -> Vec<Candidate> {
        let nodes = self.entries().into_iter().filter(|entry| entry.role == Role::Node);
        nodes.map(Candidate::from_entry).collect()
    }
}

impl Candidate {
    /// A candidate from what a node publishes of itself. Anything unreadable counts as not published.
    fn from_entry(entry: Entry) -> Self {
        let fact = |name: &str| entry.facts.get(name).map(String::as_str);
        let number = |name: &str| fact(name).and_then(|value| value.parse::<u64>().ok());
        let load = fact("load").and_then(|value| value.parse::<f64>().ok()).filter(|load| load.is_finite());
        Self {
            id: entry.node.to_string(),
            url: fact("url").unwrap_or_default().trim_end_matches('/').to_owned(),
            alive: entry.alive,
            ready: fact("ready") == Some("true"),
            draining: fact("draining") == Some("true"),
            load: load.unwrap_or(0.0).clamp(0.0, 1.0),
            streams: number("streams_open").zip(number("streams_capacity")),
            version: fact("version").map(str::to_owned),
            region: entry.region,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mychat_replication::NodeId;

    use super::*;

    fn entry(facts: &[(&str, &str)]) -> Entry {
        let facts: BTreeMap<_, _> =
            facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mesh = ([127, 0, 0, 1], 4000).into();
        Entry { node: NodeId([7; 16]), role: Role::Node, region: "fra".into(), mesh, alive: true, facts }
    }

    #[test]
    fn what_a_node_publishes_becomes_a_candidate() {
        let facts = [
            ("url", "http://fra.example/"),
            ("ready", "true"),
            ("draining", "false"),
            ("load", "0.25"),
            ("streams_open", "3"),
            ("streams_capacity", "100"),
        ];
        let candidate = Candidate::from_entry(entry(&facts));
        assert!(candidate.usable());
        assert_eq!((candidate.url.as_str(), candidate.load), ("http://fra.example", 0.25));
        assert_eq!(candidate.streams, Some((3, 100)));
        assert!(!Candidate::from_entry(Entry { alive: false, ..entry(&facts) }).usable());
    }

    #[test]
    fn what_is_missing_or_unreadable_is_taken_with_care() {
        assert!(!Candidate::from_entry(entry(&[])).usable());
        assert!(!Candidate::from_entry(entry(&[("url", "http://fra.example"), ("ready", "yes")])).usable());
        for (load, taken) in [("NaN", 0.0), ("-3", 0.0), ("7", 1.0), ("", 0.0), ("inf", 0.0)] {
            assert_eq!(Candidate::from_entry(entry(&[("load", load)])).load, taken, "{load}");
        }
    }
}

//! The order in which nodes are offered to a client: a pure function of the nodes and of where the client is.
//!
//! Each usable node gets a score in milliseconds, and the lowest is best:
//!
//! - the **round trip** to expect (see [`crate::geo`]); a node whose region is on no map, or a client of whom nothing
//!   is known, counts as [`UNKNOWN_RTT_MS`];
//! - a **penalty for load**: nothing up to [`FREE_LOAD`], then rising as the square to [`FULL_LOAD_MS`] at load 1. So
//!   a node that fills up first loses the clients that have another one nearby, and those far from all others last.
//!
//! Scores are compared in steps of [`STEP_MS`]: nodes within one step serve equally well, and the less loaded (in
//! tenths) wins, then the nearer. Small changes of load or RTT therefore seldom change the order. A client that is
//! already connected should move only for a gain of at least 20 % and 15 ms that it has measured itself, and not in
//! the middle of a stream; the router does not know where it is connected.

use serde::Serialize;

use crate::geo::{self, Point};
use crate::nodes::Candidate;

/// The load up to which a node is as good as idle.
pub const FREE_LOAD: f64 = 0.5;
/// What a full node's load counts for, in milliseconds of round trip.
pub const FULL_LOAD_MS: f64 = 100.0;
/// What an unknown distance counts for, in milliseconds: more than any known round trip.
pub const UNKNOWN_RTT_MS: f64 = 400.0;
/// The step in which scores are compared, in milliseconds.
pub const STEP_MS: f64 = 5.0;

/// Where a client is, as far as the router can tell.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// In or near this region.
    Region(String),
    /// At these coordinates.
    Point(Point),
    /// Anywhere.
    Unknown,
}

impl Place {
    /// The coordinates, when there are any.
    pub fn point(&self) -> Option<Point> {
        match self {
            Place::Region(code) => geo::region(code).map(|region| region.point),
            Place::Point(point) => Some(*point),
            Place::Unknown => None,
        }
    }

    fn rtt_ms(&self, region: &str) -> Option<f64> {
        match self {
            Place::Region(code) => geo::rtt_ms(code, region),
            Place::Point(point) => geo::rtt_from_point_ms(*point, region),
            Place::Unknown => None,
        }
    }
}

/// A node that a client may use, as `GET /v1/route` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    /// The node's id.
    pub id: String,
    /// The node's region.
    pub region: String,
    /// The base URL to use.
    pub url: String,
    /// The round trip to expect in milliseconds; `null` when the client's or the node's place is unknown.
    pub estimated_rtt_ms: Option<f64>,
    /// How busy the node is, 0 to 1.
    pub load: f64,
    /// One sentence for people: why it stands where it stands.
    pub why: String,
}

/// What a load costs, in milliseconds of round trip.
pub fn load_penalty_ms(load: f64) -> f64 {
    let above = (load - FREE_LOAD).max(0.0) / (1.0 - FREE_LOAD);
    FULL_LOAD_MS * above * above
}

/// The usable nodes, best first. Empty when there is none.
pub fn rank(candidates: &[Candidate], client: &Place) -> Vec<Choice> {
    let mut ranked: Vec<_> = candidates
        .iter()
        .filter(|candidate| candidate.usable())
        .map(|candidate| {
            let rtt = client.rtt_ms(&candidate.region);
            let score = rtt.unwrap_or(UNKNOWN_RTT_MS) + load_penalty_ms(candidate.load);
            (score, rtt, candidate)
        })
        .collect();
    ranked.sort_by(|(score_a, _, a), (score_b, _, b)| {
        let step = |score: &f64| (score / STEP_MS).floor();
        let tenth = |load: f64| (load * 10.0).round();
        step(score_a)
            .total_cmp(&step(score_b))
            .then_with(|| tenth(a.load).total_cmp(&tenth(b.load)))
            .then_with(|| score_a.total_cmp(score_b))
            .then_with(|| a.id.cmp(&b.id))
    });
    ranked.into_iter().map(|(_, rtt, candidate)| choice(candidate, rtt, client)).collect()
}

fn choice(candidate: &Candidate, rtt: Option<f64>, client: &Place) -> Choice {
    Choice {
        id: candidate.id.clone(),
        region: candidate.region.clone(),
        url: candidate.url.clone(),
        estimated_rtt_ms: rtt.map(|ms| (ms * 10.0).round() / 10.0),
        load: candidate.load,
        why: why(candidate, rtt, client),
    }
}

fn why(candidate: &Candidate, rtt: Option<f64>, client: &Place) -> String {
    let region = &candidate.region;
    let name =
        geo::region(region).map_or_else(|| region.clone(), |known| format!("{} ({region})", known.city));
    let distance = match (rtt, client) {
        (Some(_), Place::Region(own)) if own.eq_ignore_ascii_case(region) => {
            format!("{name} is the client's own region")
        }
        (Some(ms), _) => format!("{name} is about {ms:.0} ms away"),
        (None, Place::Unknown) => format!("{name}: the client's place is not known, so load decides"),
        (None, _) => format!("{name}: the distance is not known"),
    };
    let percent = candidate.load * 100.0;
    let penalty = load_penalty_ms(candidate.load);
    match penalty >= 0.5 {
        true => format!("{distance}; its load of {percent:.0} % counts as {penalty:.0} ms more"),
        false => format!("{distance}; load {percent:.0} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::tests::node;

    fn regions(choices: &[Choice]) -> Vec<&str> {
        choices.iter().map(|choice| choice.region.as_str()).collect()
    }

    fn three() -> Vec<Candidate> {
        vec![node("fra"), node("iad"), node("syd")]
    }

    #[test]
    fn a_client_that_names_its_region_gets_it_first_and_then_the_nearest() {
        let ranked = rank(&three(), &Place::Region("syd".into()));
        assert_eq!(regions(&ranked), ["syd", "iad", "fra"]);
        assert_eq!(ranked[0].estimated_rtt_ms, Some(geo::WITHIN_REGION_MS));
        assert!(ranked[0].why.contains("own region"), "{}", ranked[0].why);
        // A region without a node of its own.
        assert_eq!(regions(&rank(&three(), &Place::Region("ams".into()))), ["fra", "iad", "syd"]);
    }

    #[test]
    fn coordinates_choose_the_near_node() {
        let wollongong = Place::Point(Point::new(-34.42, 150.89).unwrap());
        assert_eq!(regions(&rank(&three(), &wollongong))[0], "syd");
        let boston = Place::Point(Point::new(42.36, -71.06).unwrap());
        assert_eq!(regions(&rank(&three(), &boston)), ["iad", "fra", "syd"]);
    }

    #[test]
    fn dead_draining_and_unready_nodes_are_never_offered() {
        let spoil: [fn(&mut Candidate); 4] =
            [|c| c.alive = false, |c| c.ready = false, |c| c.draining = true, |c| c.url.clear()];
        for spoil in spoil {
            let mut nodes = three();
            spoil(&mut nodes[2]);
            assert_eq!(regions(&rank(&nodes, &Place::Region("syd".into()))), ["iad", "fra"]);
            nodes.iter_mut().for_each(spoil);
            assert!(rank(&nodes, &Place::Unknown).is_empty());
        }
    }

    #[test]
    fn a_loaded_node_loses_clients_who_have_another_nearby_but_not_those_who_do_not() {
        let mut nodes = vec![node("fra"), node("ams"), node("syd")];
        assert_eq!(regions(&rank(&nodes, &Place::Region("fra".into())))[0], "fra");
        nodes[0].load = 0.9;
        let ranked = rank(&nodes, &Place::Region("fra".into()));
        assert_eq!(regions(&ranked), ["ams", "fra", "syd"]);
        assert!(ranked[1].why.contains("90 % counts as 64 ms"), "{}", ranked[1].why);
        nodes[2].load = 1.0;
        assert_eq!(regions(&rank(&nodes, &Place::Region("syd".into())))[0], "syd");
    }

    #[test]
    fn equal_scores_are_decided_by_load_then_by_id() {
        let mut nodes = vec![node("fra"), node("fra"), node("fra")];
        for (candidate, (id, load)) in nodes.iter_mut().zip([("b", 0.3), ("c", 0.1), ("a", 0.3)]) {
            candidate.id = id.to_owned();
            candidate.load = load;
        }
        let order: Vec<_> =
            rank(&nodes, &Place::Region("fra".into())).into_iter().map(|choice| choice.id).collect();
        assert_eq!(order, ["c", "a", "b"]);
    }

    #[test]
    fn regions_on_no_map_come_last_unless_the_client_is_there() {
        let nodes = vec![node("lab"), node("syd"), node("fra")];
        let ranked = rank(&nodes, &Place::Region("fra".into()));
        assert_eq!(regions(&ranked), ["fra", "syd", "lab"]);
        assert_eq!(ranked[2].estimated_rtt_ms, None);
        assert_eq!(regions(&rank(&nodes, &Place::Region("lab".into())))[0], "lab");
    }

    #[test]
    fn without_a_place_load_decides() {
        let mut nodes = three();
        nodes[0].load = 0.4;
        nodes[1].load = 0.2;
        nodes[2].load = 0.3;
        assert_eq!(regions(&rank(&nodes, &Place::Unknown)), ["iad", "syd", "fra"]);
    }
}

//! Which set of regions serves people best: the search.
//!
//! A set is judged by the chosen percentile of the metric: of deliveries over all pairs of people, each pair counted by
//! the product of its weights, or of acknowledgements over all people. Everybody goes where the router would send them. Up to [`EXACT_SETS`] sets of one size all
//! are looked at; a set is given up as soon as more weight lies above the best one found so far than the percentile
//! allows, so the result is exact. Beyond that the search is an approximation: the best set of one less is extended by
//! the region that helps most, and then regions are swapped for others for as long as that helps.

use mychat_router::geo::Region;
use mychat_router::nodes::Candidate;
use mychat_router::ranking::{Place, rank};

use super::Metric;
use crate::model::LatencyModel;
use crate::population::City;

/// How many sets of one size are looked at, at most, to be exact.
pub(super) const EXACT_SETS: u64 = 30_000;

/// People, regions that may be used, and the ways between all of them.
pub(super) struct Terrain {
    /// For each city its weight, as a share of all people; the heaviest cities first, so that bad sets show early.
    shares: Vec<f64>,
    /// For each city, the regions in the order of the router.
    preferences: Vec<Vec<usize>>,
    /// Half of the round trip between a city's people and a region.
    access: Vec<Vec<f64>>,
    /// Half of the round trip between two regions.
    between: Vec<Vec<f64>>,
    /// What the nodes themselves take.
    own_ms: f64,
    metric: Metric,
    /// What percentile counts, as a share.
    share: f64,
}

/// A set of regions, by their places among the candidates, and what it achieves.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) set: Vec<usize>,
    pub(super) ms: f64,
    /// Whether no other set of this size is better.
    pub(super) exact: bool,
}

impl Terrain {
    pub(super) fn new(
        cities: &[City],
        candidates: &[&Region],
        model: &LatencyModel,
        own_ms: f64,
        (metric, share): (Metric, f64),
    ) -> Self {
        let mut cities: Vec<&City> = cities.iter().collect();
        cities.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        let everybody: f64 = cities.iter().map(|city| city.weight).sum();
        let access = |city: &&City| {
            candidates.iter().map(|region| model.access_ms(city, region) / 2.0).collect::<Vec<f64>>()
        };
        let between = |a: &&Region| {
            let way = |b: &&Region| if a.code == b.code { 0.0 } else { model.between_ms(a, b) / 2.0 };
            candidates.iter().map(way).collect::<Vec<f64>>()
        };
        Self {
            shares: cities.iter().map(|city| city.weight / everybody).collect(),
            preferences: cities.iter().map(|city| preferences(city, candidates)).collect(),
            access: cities.iter().map(access).collect(),
            between: candidates.iter().map(between).collect(),
            own_ms,
            metric,
            share,
        }
    }

    fn candidates(&self) -> usize {
        self.between.len()
    }

    /// The percentile that this set achieves, or `None` as soon as it is clear that it is not below `best`.
    fn judge(&self, metric: Metric, set: &[usize], best: f64) -> Option<f64> {
        let homes = self.homes(set);
        // What may lie at or above the best so far; beyond it the percentile is not below.
        let mut allowance = (1.0 - self.share) * (1.0 + 1e-9);
        let mut waits = Vec::new();
        let mut take = |ms: f64, weight: f64| {
            if ms >= best {
                allowance -= weight;
            }
            waits.push((ms, weight));
            allowance >= 0.0
        };
        for (from, home) in homes.iter().enumerate() {
            let sent = self.access[from][*home] + self.own_ms;
            if metric == Metric::Acknowledgement {
                if !take(sent + self.access[from][*home], self.shares[from]) {
                    return None;
                }
                continue;
            }
            for (to, other) in homes.iter().enumerate() {
                let ms = sent + self.between[*home][*other] + self.access[to][*other];
                if !take(ms, self.shares[from] * self.shares[to]) {
                    return None;
                }
            }
        }
        Some(percentile(waits, self.share)).filter(|ms| *ms < best)
    }

    /// The percentile of either metric that this set achieves.
    pub(super) fn achieves(&self, metric: Metric, set: &[usize]) -> f64 {
        self.judge(metric, set, f64::INFINITY).unwrap_or(f64::INFINITY)
    }

    /// For each city the region of the set that the router sends it to.
    fn homes(&self, set: &[usize]) -> Vec<usize> {
        let first = |order: &Vec<usize>| order.iter().copied().find(|region| set.contains(region));
        // A set is never empty, and every order has all regions.
        self.preferences.iter().filter_map(first).collect()
    }

    /// The best sets of 1, 2, … regions; `each` hears of every set that was looked at.
    pub(super) fn best_of_each_size(
        &self,
        most: usize,
        exact_sets: u64,
        mut each: impl FnMut(),
    ) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        for size in 1..=most.min(self.candidates()) {
            let best = if sets(self.candidates(), size) <= exact_sets {
                self.exhaustive(size, &mut each)
            } else {
                let smaller = found.last().map(|found| found.set.clone()).unwrap_or_default();
                self.greedy(smaller, &mut each)
            };
            found.push(best);
        }
        found
    }

    fn exhaustive(&self, size: usize, each: &mut impl FnMut()) -> Found {
        let mut best = Found { set: Vec::new(), ms: f64::INFINITY, exact: true };
        let mut set: Vec<usize> = (0..size).collect();
        loop {
            each();
            if let Some(ms) = self.judge(self.metric, &set, best.ms) {
                best = Found { set: set.clone(), ms, exact: true };
            }
            // The next set in order: the last place that can still move on does, and those after it follow closely.
            let last = self.candidates() - size;
            let Some(place) = (0..size).rev().find(|place| set[*place] < last + place) else { return best };
            set[place] += 1;
            for after in place + 1..size {
                set[after] = set[after - 1] + 1;
            }
        }
    }

    fn greedy(&self, smaller: Vec<usize>, each: &mut impl FnMut()) -> Found {
        let mut best = Found { set: Vec::new(), ms: f64::INFINITY, exact: false };
        let mut consider = |set: Vec<usize>, best: &mut Found| {
            each();
            if let Some(ms) = self.judge(self.metric, &set, best.ms) {
                *best = Found { set, ms, exact: false };
                return true;
            }
            false
        };
        for more in (0..self.candidates()).filter(|region| !smaller.contains(region)) {
            let set = smaller.iter().copied().chain([more]).collect();
            consider(set, &mut best);
        }
        let mut helped = true;
        while helped {
            helped = false;
            for place in 0..best.set.len() {
                for other in 0..self.candidates() {
                    if !best.set.contains(&other) {
                        let mut set = best.set.clone();
                        set[place] = other;
                        helped |= consider(set, &mut best);
                    }
                }
            }
        }
        best.set.sort_unstable();
        best
    }
}

/// The regions in the order in which the router offers idle nodes there to somebody in this city.
fn preferences(city: &City, candidates: &[&Region]) -> Vec<usize> {
    let node = |(at, region): (usize, &&Region)| Candidate {
        id: format!("{at:04}"),
        region: region.code.to_owned(),
        url: "http://node.example".to_owned(),
        alive: true,
        ready: true,
        draining: false,
        load: 0.0,
        streams: None,
        version: None,
    };
    let nodes: Vec<Candidate> = candidates.iter().enumerate().map(node).collect();
    let ranked = rank(&nodes, &Place::Point(city.point));
    ranked.into_iter().filter_map(|choice| choice.id.parse().ok()).collect()
}

/// For each city, in the order given, the place of the region in `used` that the router sends it to.
pub(super) fn homes(cities: &[City], used: &[&Region]) -> Vec<usize> {
    cities.iter().filter_map(|city| preferences(city, used).first().copied()).collect()
}

/// How many sets of this size there are; at most a large number.
fn sets(of: usize, size: usize) -> u64 {
    (0..size.min(of - size))
        .fold(1_u64, |sets, step| sets.saturating_mul((of - step) as u64) / (step as u64 + 1))
}

/// The smallest value that this share of the weight (1 in all) does not exceed.
fn percentile(mut ways: Vec<(f64, f64)>, share: f64) -> f64 {
    // Halving again and again finds it without sorting everything.
    let mut wanted = share * ways.iter().map(|(_, weight)| weight).sum::<f64>() * (1.0 - 1e-12);
    let mut part = &mut ways[..];
    while part.len() > 1 {
        let middle = part.len() / 2;
        part.select_nth_unstable_by(middle, |a, b| a.0.total_cmp(&b.0));
        let (lower, upper) = part.split_at_mut(middle);
        let below: f64 = lower.iter().map(|(_, weight)| weight).sum();
        part = if below >= wanted {
            lower
        } else {
            wanted -= below;
            upper
        };
    }
    part.first().map_or(0.0, |(ms, _)| *ms)
}

#[cfg(test)]
mod tests {
    use mychat_router::geo;
    use proptest::prelude::*;

    use super::*;
    use crate::population;
    use crate::weighted::{Distribution, Sample};

    fn terrain(cities: &[City], share: f64) -> Terrain {
        let candidates: Vec<&Region> = geo::regions().iter().collect();
        Terrain::new(cities, &candidates, &LatencyModel::default(), 5.0, (Metric::Delivery, share))
    }

    #[test]
    fn the_best_single_region_is_the_best_of_all() {
        let world = population::world(20.0).unwrap();
        let terrain = terrain(&world, 0.95);
        let best = terrain.best_of_each_size(2, EXACT_SETS, || ());
        let each: Vec<f64> = (0..19).map(|region| terrain.achieves(Metric::Delivery, &[region])).collect();
        assert_eq!(best[0].ms, each.iter().copied().fold(f64::INFINITY, f64::min));
        let mut pairs = f64::INFINITY;
        for a in 0..19 {
            for b in a + 1..19 {
                pairs = pairs.min(terrain.achieves(Metric::Delivery, &[a, b]));
            }
        }
        assert_eq!((best[1].ms, best[1].exact), (pairs, true));
        assert_eq!(best[1].ms, terrain.achieves(Metric::Delivery, &best[1].set));
    }

    #[test]
    fn the_approximation_comes_close_to_the_exact_answer() {
        let world = population::world(20.0).unwrap();
        let terrain = terrain(&world[..30], 0.95);
        let exact = terrain.best_of_each_size(3, EXACT_SETS, || ());
        let quick = terrain.best_of_each_size(3, 0, || ());
        for (exact, quick) in exact.iter().zip(&quick) {
            assert!(exact.exact && !quick.exact);
            assert!(quick.ms >= exact.ms && quick.ms <= exact.ms * 1.1, "{exact:?} {quick:?}");
        }
    }

    #[test]
    fn sets_are_counted() {
        assert_eq!([sets(19, 1), sets(19, 5), sets(19, 18), sets(4, 4)], [19, 11_628, 19, 1]);
        let world = population::world(20.0).unwrap();
        let mut seen = 0;
        terrain(&world[..2], 0.5).best_of_each_size(3, EXACT_SETS, || seen += 1);
        assert_eq!(seen, 19 + 171 + 969);
    }

    proptest! {
        #[test]
        fn percentiles_agree_with_the_sorted_ones(
            ways in prop::collection::vec((0.0..1e3, 1e-3..1.0), 1..60), share in 0.01..1.0,
        ) {
            let sorted: Distribution =
                ways.iter().map(|(value, weight)| Sample { value: *value, weight: *weight }).collect();
            prop_assert_eq!(percentile(ways, share), sorted.quantile(share));
        }
    }
}

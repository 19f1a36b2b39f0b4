//! From what was heard to the report.
//!
//! The nodes are on this machine, so the clock sees a message leave and arrive at the doors of the nodes. The ways
//! between the people and these doors are added here: half a round trip of the model on either side, which is what a
//! delay line without loss would do, on connections that are open already.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use mychat_router::geo::{self, Region};

use super::conversation::Heard;
use super::report::{CURVE, CityPair, Computed, Inhabitant, LatencyReport, RegionPair, RegionTiming, Timing};
use crate::model::{LatencyModel, floor_rtt_ms};
use crate::population::City;
use crate::weighted::{Distribution, Sample};

/// What the report needs besides what was heard.
pub(super) struct Setting<'a> {
    pub(super) regions: &'a [String],
    pub(super) cities: &'a [City],
    pub(super) model: &'a LatencyModel,
    pub(super) backbone: String,
    pub(super) rate: f64,
    /// What was planned before this does not count.
    pub(super) warm_up: Duration,
}

/// One delivery.
struct Delivery {
    from: usize,
    to: usize,
    ms: f64,
    /// What of it is not the way.
    own_ms: f64,
    weight: f64,
}

struct Acknowledgement {
    from: usize,
    ms: f64,
    own_ms: f64,
    weight: f64,
}

/// Makes the report.
pub(super) fn analyse(heard: &Heard, setting: &Setting<'_>) -> anyhow::Result<LatencyReport> {
    let cities = setting.cities;
    let homes = heard
        .people
        .iter()
        .map(|person| geo::region(&person.choice.region).context("the router offers a region on no map"))
        .collect::<anyhow::Result<Vec<&Region>>>()?;
    let access: Vec<f64> =
        cities.iter().zip(&homes).map(|(city, home)| setting.model.access_ms(city, home)).collect();
    let ways = Ways { model: setting.model, homes: &homes, access: &access };
    let (deliveries, acknowledgements) = samples(heard, setting, &ways)?;
    let own_local = deliveries.iter().filter(|delivery| homes[delivery.from].code == homes[delivery.to].code);
    let own_local = distribution(own_local, |delivery| delivery.own_ms, |delivery| delivery.weight);
    let own_ack = distribution(&acknowledgements, |one| one.own_ms, |one| one.weight);
    let central = centrals(setting, own_local.quantile(0.5), own_ack.quantile(0.5));
    let own = distribution(&deliveries, |one| one.own_ms, |one| one.weight);
    let same = computed(setting.regions.join(", "), cities, &ways, own.quantile(0.5), own_ack.quantile(0.5));
    let delivery = timing(
        distribution(&deliveries, |one| one.ms, |one| one.weight),
        pairs(cities, |a, b| floor_rtt_ms(a.point, b.point) / 2.0),
    );
    let floor = cities
        .iter()
        .zip(&homes)
        .map(|(city, home)| Sample { value: floor_rtt_ms(city.point, home.point), weight: city.weight });
    let acknowledgement =
        timing(distribution(&acknowledgements, |one| one.ms, |one| one.weight), floor.collect());
    let late = heard
        .messages
        .iter()
        .map(|spoken| Sample { value: ms(heard.start + spoken.planned, spoken.left), weight: 1.0 });
    let people = cities.iter().zip(&heard.people).zip(&access).map(|((city, person), rtt_ms)| Inhabitant {
        city: city.clone(),
        region: person.choice.region.clone(),
        router_rtt_ms: person.choice.estimated_rtt_ms,
        rtt_ms: *rtt_ms,
    });
    let mut report = LatencyReport {
        answer: String::new(),
        regions: setting.regions.to_vec(),
        backbone: setting.backbone.clone(),
        messages: acknowledgements.len(),
        rate: setting.rate,
        people: people.collect(),
        own_share: own.summary(),
        computed: same,
        own_share_of_acknowledgement: own_ack.summary(),
        by_region: by_region(&deliveries, &homes),
        acknowledgement_by_region: acknowledgement_by_region(&acknowledgements, &homes, cities),
        by_city_pair: by_city_pair(&deliveries, cities),
        delivery,
        acknowledgement,
        central,
        real_processes: None,
        late_p99: late.collect::<Distribution>().quantile(0.99),
    };
    report.answer = answer(&report);
    Ok(report)
}

/// The ways that messages take.
struct Ways<'a> {
    model: &'a LatencyModel,
    homes: &'a [&'a Region],
    access: &'a [f64],
}

impl Ways<'_> {
    /// The part outside of the nodes.
    fn to_doors(&self, from: usize, to: usize) -> f64 {
        (self.access[from] + self.access[to]) / 2.0
    }

    /// The part that the emulated network takes: none at the same node.
    fn between_nodes(&self, from: usize, to: usize) -> f64 {
        let (from, to) = (self.homes[from], self.homes[to]);
        if from.code == to.code { 0.0 } else { self.model.between_ms(from, to) / 2.0 }
    }
}

fn samples(
    heard: &Heard,
    setting: &Setting<'_>,
    ways: &Ways<'_>,
) -> anyhow::Result<(Vec<Delivery>, Vec<Acknowledgement>)> {
    let counting =
        || heard.messages.iter().enumerate().filter(|(_, spoken)| spoken.planned >= setting.warm_up);
    let mut sent = vec![0.0; setting.cities.len()];
    counting().for_each(|(_, spoken)| sent[spoken.from] += 1.0);
    // Somebody who never spoke would be missing from the weights.
    let silent = sent.iter().filter(|sent| **sent == 0.0).count();
    ensure!(
        silent == 0,
        "{silent} of {} cities have sent nothing that counts: raise --rate or --duration",
        sent.len()
    );
    let (mut deliveries, mut acknowledgements) = (Vec::new(), Vec::new());
    for (number, spoken) in counting() {
        let from = spoken.from;
        let weight = setting.cities[from].weight / sent[from];
        let own_ms = ms(spoken.left, spoken.answered);
        acknowledgements.push(Acknowledgement { from, ms: own_ms + ways.access[from], own_ms, weight });
        for (to, arrivals) in heard.arrivals.iter().enumerate() {
            let arrived = arrivals[number].get().context("a delivery is missing")?;
            let between = ms(spoken.left, *arrived);
            deliveries.push(Delivery {
                from,
                to,
                ms: between + ways.to_doors(from, to),
                own_ms: between - ways.between_nodes(from, to),
                weight: weight * setting.cities[to].weight,
            });
        }
    }
    Ok((deliveries, acknowledgements))
}

/// Signed: an event may be seen before the answer to what caused it.
fn ms(from: Instant, to: Instant) -> f64 {
    match to.checked_duration_since(from) {
        Some(after) => after.as_secs_f64() * 1e3,
        None => -((from - to).as_secs_f64() * 1e3),
    }
}

fn distribution<'a, T: 'a>(
    of: impl IntoIterator<Item = &'a T>,
    value: impl Fn(&T) -> f64,
    weight: impl Fn(&T) -> f64,
) -> Distribution {
    of.into_iter().map(|one| Sample { value: value(one), weight: weight(one) }).collect()
}

/// The distribution over all pairs of people.
pub(crate) fn pairs(cities: &[City], value: impl Fn(&City, &City) -> f64) -> Distribution {
    let all = cities.iter().flat_map(|a| cities.iter().map(move |b| (a, b)));
    all.map(|(a, b)| Sample { value: value(a, b), weight: a.weight * b.weight }).collect()
}

fn timing(measured: Distribution, floor: Distribution) -> Timing {
    Timing {
        measured: measured.summary(),
        floor: floor.summary(),
        curve: measured.curve(CURVE),
        floor_curve: floor.curve(CURVE),
    }
}

/// What one server in each known region would give the same people: the model's ways, and what a node takes here.
fn centrals(setting: &Setting<'_>, own_ms: f64, own_ack_ms: f64) -> Vec<Computed> {
    let one = |region: &&Region| {
        let access: Vec<f64> =
            setting.cities.iter().map(|city| setting.model.access_ms(city, region)).collect();
        let homes = vec![*region; access.len()];
        let ways = Ways { model: setting.model, homes: &homes, access: &access };
        computed(region.code.to_owned(), setting.cities, &ways, own_ms, own_ack_ms)
    };
    let mut all: Vec<Computed> = geo::regions().iter().collect::<Vec<_>>().iter().map(one).collect();
    all.sort_by(|a, b| a.delivery.p95.total_cmp(&b.delivery.p95));
    all
}

/// What the ways and a fixed time for the nodes come to.
fn computed(name: String, cities: &[City], ways: &Ways<'_>, own_ms: f64, own_ack_ms: f64) -> Computed {
    let everybody = || cities.iter().enumerate();
    let deliveries = everybody().flat_map(|(from, a)| {
        everybody().map(move |(to, b)| Sample {
            value: ways.to_doors(from, to) + ways.between_nodes(from, to) + own_ms,
            weight: a.weight * b.weight,
        })
    });
    let delivery: Distribution = deliveries.collect();
    let acknowledgement: Distribution = everybody()
        .map(|(at, city)| Sample { value: ways.access[at] + own_ack_ms, weight: city.weight })
        .collect();
    Computed {
        region: name,
        delivery: delivery.summary(),
        acknowledgement: acknowledgement.summary(),
        curve: delivery.curve(CURVE),
        acknowledgement_curve: acknowledgement.curve(CURVE),
    }
}

fn by_region(deliveries: &[Delivery], homes: &[&Region]) -> Vec<RegionPair> {
    let mut pairs: BTreeMap<(&str, &str), Vec<&Delivery>> = BTreeMap::new();
    for delivery in deliveries {
        pairs.entry((homes[delivery.from].code, homes[delivery.to].code)).or_default().push(delivery);
    }
    let row = |((from, to), part): ((&str, &str), Vec<&Delivery>)| RegionPair {
        from: from.to_owned(),
        to: to.to_owned(),
        delivery: distribution(part, |one| one.ms, |one| one.weight).summary(),
    };
    pairs.into_iter().map(row).collect()
}

fn acknowledgement_by_region(
    acknowledgements: &[Acknowledgement],
    homes: &[&Region],
    cities: &[City],
) -> Vec<RegionTiming> {
    let everybody: f64 = cities.iter().map(|city| city.weight).sum();
    let mut regions: BTreeMap<&str, Vec<&Acknowledgement>> = BTreeMap::new();
    for one in acknowledgements {
        regions.entry(homes[one.from].code).or_default().push(one);
    }
    let row = |(region, part): (&str, Vec<&Acknowledgement>)| {
        let here = cities.iter().zip(homes).filter(|(_, home)| home.code == region);
        RegionTiming {
            region: region.to_owned(),
            share: here.map(|(city, _)| city.weight).sum::<f64>() / everybody,
            acknowledgement: distribution(part, |one| one.ms, |one| one.weight).summary(),
        }
    };
    regions.into_iter().map(row).collect()
}

fn by_city_pair(deliveries: &[Delivery], cities: &[City]) -> Vec<CityPair> {
    let everybody: f64 = cities.iter().map(|city| city.weight).sum();
    let mut pairs: BTreeMap<(usize, usize), Vec<&Delivery>> = BTreeMap::new();
    for delivery in deliveries {
        pairs.entry((delivery.from, delivery.to)).or_default().push(delivery);
    }
    let row = |((from, to), part): ((usize, usize), Vec<&Delivery>)| {
        let (from, to) = (&cities[from], &cities[to]);
        CityPair {
            from: from.name.clone(),
            to: to.name.clone(),
            share: from.weight * to.weight / everybody / everybody,
            delivery: distribution(part, |one| one.ms, |one| one.weight).summary(),
            floor_ms: floor_rtt_ms(from.point, to.point) / 2.0,
        }
    };
    pairs.into_iter().map(row).collect()
}

fn answer(report: &LatencyReport) -> String {
    let (delivery, acknowledgement) = (&report.delivery, &report.acknowledgement.measured);
    let nodes = match &report.regions[..] {
        [only] => format!("With one node in {only}"),
        several => format!("With nodes in {}", several.join(", ")),
    };
    let mut text = format!(
        "{nodes}, 95 % of messages are acknowledged within {:.0} ms and on the other's screen within {:.0} ms (half \
         within {:.0} ms)",
        acknowledgement.p95, delivery.measured.p95, delivery.measured.p50
    );
    if let Some(best) = report.central.first().filter(|best| report.regions != [best.region.clone()]) {
        text.push_str(&format!(
            "; the best single server ({}) would need {:.0} and {:.0} ms",
            best.region, best.acknowledgement.p95, best.delivery.p95
        ));
    }
    text.push_str(&format!(". Light in fibre alone needs {:.0} ms for the delivery.", delivery.floor.p95));
    text
}

//! Runs over real nodes.

use indicatif::ProgressDrawTarget;

use super::*;
use crate::population;

fn experiment(regions: &[&str], users: &str) -> Experiment {
    Experiment {
        regions: regions.iter().map(|region| (*region).to_owned()).collect(),
        cities: population::parse(users, 10.0).unwrap(),
        model: LatencyModel::default(),
        backbone: "test".to_owned(),
        rate: 40.0,
        duration: Duration::from_secs(4),
        seed: 1,
    }
}

async fn measured(experiment: &Experiment) -> LatencyReport {
    let progress = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
    measure(experiment, &progress).await.unwrap()
}

const USERS: &str = "city,lat,lon,weight,last_mile_ms\nBerlin,52.5,13.4,3,8\nBoston,42.4,-71.1,1,30\n";

#[tokio::test(flavor = "multi_thread")]
async fn people_go_where_the_router_sends_them_and_nothing_beats_the_way() {
    let experiment = experiment(&["fra", "iad"], USERS);
    let report = measured(&experiment).await;
    let homes: Vec<_> = report.people.iter().map(|person| person.region.as_str()).collect();
    assert_eq!(homes, ["fra", "iad"]);
    let fra_iad = experiment.model.between_ms(geo::region("fra").unwrap(), geo::region("iad").unwrap());
    let way = (report.people[0].rtt_ms + report.people[1].rtt_ms + fra_iad) / 2.0;
    assert_eq!(report.by_city_pair.len(), 4);
    for pair in &report.by_city_pair {
        let least = if pair.from == pair.to { pair.floor_ms } else { way };
        // Timers never fire early; what is allowed here is rounding.
        assert!(pair.delivery.p50 >= least - 0.1, "{pair:?} {way}");
    }
    assert!((report.by_city_pair.iter().map(|pair| pair.share).sum::<f64>() - 1.0).abs() < 1e-9);
    assert!(report.own_share.p50 > 0.0 && report.delivery.floor.p95 < report.delivery.measured.p95);
    assert_eq!(report.central.len(), geo::regions().len());
    assert!(
        report.answer.contains("fra, iad") && report.answer.contains("single server"),
        "{}",
        report.answer
    );
    let page = page::page(&report);
    assert!(page.contains("Berlin") && page.contains("light in fibre") && !page.contains("NaN"));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["by_city_pair"][1]["to"], "Boston");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_server_is_what_was_computed_for_one() {
    let experiment = experiment(&["iad"], USERS);
    let report = measured(&experiment).await;
    let computed = report.central_in("iad").unwrap();
    assert!((computed.delivery.p95 - report.computed.delivery.p95).abs() < 1e-6);
    // Both have the same ways, so they differ by no more than what the nodes took here.
    let (computed, measured, own) =
        (computed.delivery.p50, report.delivery.measured.p50, report.own_share.p99);
    assert!((computed - measured).abs() <= own + 1.0, "{computed} {measured} {own}");
}

#[tokio::test]
async fn too_much_and_twice_the_same_are_refused() {
    let progress = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
    for (experiment, says) in [
        (experiment(&["fra", "fra"], USERS), "each region once"),
        (
            Experiment {
                rate: 2000.0,
                duration: Duration::from_secs(600),
                cities: population::world(1.0).unwrap(),
                ..experiment(&["fra"], USERS)
            },
            "lower --rate",
        ),
    ] {
        let error = measure(&experiment, &progress).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

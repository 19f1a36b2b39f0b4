//! Plans, and one that is checked by real nodes.

use indicatif::ProgressDrawTarget;

use super::*;
use crate::population;

fn args(slo: &str, most: u16, candidates: &[&str]) -> PlanArgs {
    PlanArgs {
        slo: slo.parse().unwrap(),
        metric: Metric::Delivery,
        world: WorldArgs { users: None, population: None, last_mile: 20.0, rtt: "published".to_owned() },
        max_regions: most,
        candidates: candidates.iter().map(|code| (*code).to_owned()).collect(),
        own: 3.0,
        check_duration: 4,
        no_check: true,
        html: None,
        json: None,
    }
}

fn plan(args: &PlanArgs, cities: &[City]) -> PlanReport {
    let progress = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
    search(args, cities, &LatencyModel::default(), "test".to_owned(), &progress).unwrap()
}

const TWO_COASTS: &str = "city,lat,lon,weight,last_mile_ms\nLondon,51.5,-0.1,1,5\nSydney,-33.9,151.2,1,5\n";

#[test]
fn the_smallest_set_that_is_enough_is_the_answer() {
    let cities = population::parse(TWO_COASTS, 5.0).unwrap();
    // Half of the pairs are in the same city: with a region in each these are fast.
    let report = plan(&args("p50=20ms", 3, &["fra", "lhr", "syd", "iad"]), &cities);
    assert_eq!(report.meets, Some(2));
    let chosen = report.chosen().unwrap();
    assert_eq!((chosen.regions.as_slice(), chosen.exact), (&["lhr".to_owned(), "syd".to_owned()][..], true));
    assert_eq!(chosen.homes, ["lhr", "syd"]);
    assert!(
        report.answer.starts_with("2 regions are needed for p50 of send to delivery within 20 ms: lhr, syd"),
        "{}",
        report.answer
    );
    assert!(report.question.floor_ms > 0.0 && report.question.floor_ms <= chosen.ms);
    let page = page::page(&report);
    assert!(page.contains(&report.answer) && page.contains("<circle"));
}

#[test]
fn acknowledgements_need_a_region_near_everybody() {
    let cities = population::parse(TWO_COASTS, 5.0).unwrap();
    let mut args = args("p95=15ms", 3, &["lhr", "syd", "iad"]);
    args.metric = Metric::Acknowledgement;
    let report = plan(&args, &cities);
    assert_eq!(report.chosen().unwrap().regions, ["lhr", "syd"]);
    assert!(report.steps[0].acknowledgement_ms > 200.0 && report.steps[1].acknowledgement_ms < 15.0);
    assert_eq!((report.steps[1].ms, report.question.floor_ms), (report.steps[1].acknowledgement_ms, 5.0));
    assert!(report.answer.contains("of send to acknowledgement within 15 ms: lhr, syd"), "{}", report.answer);
}

#[test]
fn what_cannot_be_met_says_so() {
    let cities = population::parse(TWO_COASTS, 5.0).unwrap();
    let report = plan(&args("p95=60ms", 2, &[]), &cities);
    assert_eq!((report.meets, report.steps.len()), (None, 2));
    assert!(
        report.answer.starts_with("No set of up to 2 regions gives p95 of send to delivery within 60 ms"),
        "{}",
        report.answer
    );
    let twice = args("p95=60ms", 2, &["fra", "fra"]);
    assert!(candidates(&twice.candidates).unwrap_err().to_string().contains("once"));
}

#[tokio::test(flavor = "multi_thread")]
async fn real_nodes_show_what_was_planned() {
    let cities = population::parse(TWO_COASTS, 5.0).unwrap();
    let mut report = plan(&args("p95=200ms", 2, &["lhr", "syd"]), &cities);
    let regions = report.chosen().unwrap().regions.clone();
    let experiment = Experiment {
        regions,
        cities,
        model: LatencyModel::default(),
        backbone: "test".to_owned(),
        rate: CHECK_RATE,
        duration: Duration::from_secs(4),
        seed: 1,
    };
    let progress = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
    let run = latency::measure(&experiment, &progress).await.unwrap();
    report.checked_by(&run);
    let check = report.check.as_ref().unwrap();
    // The way is the same, so what differs is what the nodes took here.
    let least = check.modelled_ms - report.question.own_ms - 0.1;
    assert!(check.measured_ms >= least, "{check:?}");
    assert!(report.answer.contains("Real nodes there showed"), "{}", report.answer);
    assert!(report.to_string().contains("Checked with"));
}

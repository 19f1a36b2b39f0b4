//! The report as a page.

use super::report::cells;
use super::{CityPair, Computed, LatencyReport, Timing};
use crate::page::map::map;
use crate::page::plot::{Axis, cdf, plot};
use crate::page::{COLOURS, FLOOR, Page, table};

/// How many pairs of cities are shown of each kind; the JSON has all.
const PAIRS: usize = 15;

pub(super) fn page(report: &LatencyReport) -> String {
    let mut page = Page::new("MyChat: how long messages take", &report.answer);
    let (delivery, acknowledgement) = (&report.delivery.measured, &report.acknowledgement.measured);
    page.figures(&[
        (format!("{:.0} ms", delivery.p50), "send to delivery, median".to_owned()),
        (format!("{:.0} ms", delivery.p95), "send to delivery, p95".to_owned()),
        (format!("{:.0} ms", acknowledgement.p95), "send to acknowledgement, p95".to_owned()),
        (format!("{:.0} ms", report.delivery.floor.p95), "light in fibre, delivery p95".to_owned()),
    ]);
    let cities: Vec<_> = report.people.iter().map(|person| person.city.clone()).collect();
    let homes: Vec<&str> = report.people.iter().map(|person| person.region.as_str()).collect();
    page.section(
        "Who is served from where",
        "Each disc is a city, by its number of people, with a line to the region that the router sends it to.",
        &map(&cities, &homes, &report.regions),
    );
    page.section(
        "Send to delivery",
        "The share of messages that are on the other's screen within this time; pairs of people count by how many \
         people they stand for.",
        &delivery_curves(report),
    );
    page.section(
        "Send to acknowledgement",
        "The share of messages whose sender knows within this time that they are safely stored.",
        &acknowledgement_curves(report),
    );
    let heading = ["milliseconds", "delivery p50", "p95", "p99", "acknowledgement p50", "p95", "p99"];
    page.section(
        "Compared",
        &report.warning().unwrap_or_default(),
        &table(&heading, 1, &report.comparison()),
    );
    regions(&mut page, report);
    city_pairs(&mut page, report);
    method(&mut page, report);
    page.finish()
}

/// Where the axis of a plot of several curves must reach.
fn longest<'a>(curves: impl IntoIterator<Item = &'a Vec<f64>>) -> f64 {
    // The last thousandth would only squeeze the rest.
    let ends = curves.into_iter().filter_map(|curve| curve.get(curve.len().saturating_sub(2)).copied());
    ends.fold(1.0, f64::max)
}

fn share_axis() -> Axis {
    Axis { label: "share of messages".to_owned(), end: 100.0, step: 25.0, unit: " %" }
}

fn delivery_curves(report: &LatencyReport) -> String {
    curves(report, &report.delivery, "light in fibre", |central| &central.curve)
}

fn acknowledgement_curves(report: &LatencyReport) -> String {
    let floor = "light in fibre to the same node and back";
    curves(report, &report.acknowledgement, floor, |central| &central.acknowledgement_curve)
}

fn curves(
    report: &LatencyReport,
    timing: &Timing,
    floor: &str,
    of: impl Fn(&Computed) -> &Vec<f64>,
) -> String {
    let mut series =
        vec![cdf(&format!("nodes in {}", report.regions.join(", ")), COLOURS[0], false, &timing.curve)];
    for (central, colour) in report.candidates().into_iter().zip(&COLOURS[1..]) {
        series.push(cdf(&format!("one server in {}", central.region), colour, false, of(central)));
    }
    series.push(cdf(floor, FLOOR, true, &timing.floor_curve));
    let all = report.candidates().into_iter().map(of).chain([&timing.curve]);
    plot(&series, &Axis::up_to(longest(all), "milliseconds", ""), &share_axis(), Some((95.0, "95 %")))
}

fn regions(page: &mut Page, report: &LatencyReport) {
    let rows: Vec<_> = report
        .by_region
        .iter()
        .map(|pair| {
            let mut row = vec![pair.from.clone(), pair.to.clone()];
            row.extend(cells(&pair.delivery));
            row
        })
        .collect();
    let delivery = table(&["sent at", "read at", "p50", "p95", "p99"], 2, &rows);
    let rows: Vec<_> = report
        .acknowledgement_by_region
        .iter()
        .map(|timing| {
            let mut row = vec![timing.region.clone(), format!("{:.0} %", timing.share * 100.0)];
            row.extend(cells(&timing.acknowledgement));
            row
        })
        .collect();
    let acknowledgement = table(&["node", "people", "acknowledgement p50", "p95", "p99"], 1, &rows);
    page.section("By region", "Milliseconds, last mile included.", &(delivery + &acknowledgement));
}

fn city_pairs(page: &mut Page, report: &LatencyReport) {
    let mut pairs: Vec<&CityPair> = report.by_city_pair.iter().collect();
    pairs.sort_by(|a, b| b.share.total_cmp(&a.share));
    let heading = ["from", "to", "p50", "p95", "light", "messages"];
    let row = |pair: &&CityPair| {
        let [p50, p95, _] = cells(&pair.delivery);
        let light = format!("{:.0}", pair.floor_ms);
        vec![pair.from.clone(), pair.to.clone(), p50, p95, light, pair.delivery.samples.to_string()]
    };
    let rows: Vec<_> = pairs.iter().filter(|pair| pair.from != pair.to).take(PAIRS).map(row).collect();
    let most = table(&heading, 2, &rows);
    page.section(
        "Where most people are",
        "The pairs of cities with the most people, in milliseconds.",
        &most,
    );
    pairs.sort_by(|a, b| b.delivery.p50.total_cmp(&a.delivery.p50));
    let rows: Vec<_> = pairs.iter().take(PAIRS).map(row).collect();
    page.section("The slowest pairs", "By the median, in milliseconds.", &table(&heading, 2, &rows));
    let rows: Vec<_> = report
        .people
        .iter()
        .map(|person| {
            vec![
                person.city.name.clone(),
                person.region.clone(),
                format!("{:.1}", person.city.weight),
                format!("{:.0}", person.rtt_ms),
                person.router_rtt_ms.map_or_else(String::new, |ms| format!("{ms:.0}")),
            ]
        })
        .collect();
    let heading = ["city", "node", "people", "round trip with last mile", "what the router expects"];
    let people = table(&heading, 2, &rows);
    page.section(
        "All cities",
        "",
        &format!("<details><summary>{} cities</summary>{people}</details>", rows.len()),
    );
}

fn method(page: &mut Page, report: &LatencyReport) {
    let text = format!(
        "{} messages at {:.0} a second between people in {} cities, over real nodes, a real router, QUIC and databases in \
         one process; the distances are emulated. Ways between regions: {}. Other ways are modelled from distance. What \
         MyChat and the machine took themselves was {:.1} ms of a delivery in the median and {:.1} ms at p99; the figures \
         for a single server are computed with the same model and the median of that. Messages left at most {:.1} ms late \
         (p99) by the schedule. Connections are open beforehand, and nothing is lost on the way.",
        report.messages,
        report.rate,
        report.people.len(),
        report.backbone,
        report.own_share.p50,
        report.own_share.p99,
        report.late_p99
    );
    let real = report.real_processes.as_ref().map(|real| format!(" {}", real.sentence()));
    page.section("How this was measured", &(text + &real.unwrap_or_default()), "");
}

//! The plan as a page.

use super::{Metric, PlanReport, Question, Step};
use crate::page::map::map;
use crate::page::plot::{Axis, Series, plot};
use crate::page::{COLOURS, FLOOR, Page, table};

pub(super) fn page(report: &PlanReport) -> String {
    let mut page = Page::new("MyChat: where nodes are needed", &report.answer);
    let p = format!("p{}", report.question.slo.percentile);
    let chosen = report.chosen();
    let mut figures = Vec::new();
    if let Some(chosen) = chosen {
        figures.push((chosen.regions.len().to_string(), format!("regions: {}", chosen.regions.join(", "))));
        figures
            .push((format!("{:.0} ms", chosen.ms), format!("{}, {p}, by the model", report.question.metric)));
    }
    if let Some(check) = &report.check {
        figures.push((format!("{:.0} ms", check.measured_ms), format!("{p} over real nodes there")));
    }
    let beyond = format!("{p} of {}", floor_name(report.question.metric));
    figures.push((format!("{:.0} ms", report.question.floor_ms), beyond));
    page.figures(&figures);
    if let Some(chosen) = chosen {
        let homes: Vec<&str> = chosen.homes.iter().map(String::as_str).collect();
        page.section(
            "The best set",
            "Each disc is a city, by its number of people, with a line to the region that the router would send it to.",
            &map(&report.question.cities, &homes, &chosen.regions),
        );
    }
    page.section(
        "More regions, less waiting",
        &format!("{p} of both waits for the set of each size that is best for {}.", report.question.metric),
        &curve(report, &p),
    );
    let heading = ["regions", "best set", "objective met", "search", "delivery ms", "acknowledgement ms"];
    page.section("The sets", "", &table(&heading, 4, &report.rows()));
    page.section("How this was found", &method(report), "");
    page.finish()
}

fn floor_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Delivery => "light in fibre with the last miles",
        Metric::Acknowledgement => "the last mile alone",
    }
}

fn curve(report: &PlanReport, p: &str) -> String {
    let Question { metric, slo, floor_ms, .. } = &report.question;
    let most = report.steps.len() as f64;
    let of = |name: &str, colour: &'static str, value: fn(&Step) -> f64| Series {
        name: format!("{p} of {name}"),
        colour,
        dashed: false,
        points: report.steps.iter().map(|step| (step.regions.len() as f64, value(step))).collect(),
        marked: true,
    };
    let series = [
        of("send to delivery", COLOURS[0], |step| step.delivery_ms),
        of("send to acknowledgement", COLOURS[1], |step| step.acknowledgement_ms),
        Series {
            name: floor_name(*metric).to_owned(),
            colour: FLOOR,
            dashed: true,
            points: vec![(0.0, *floor_ms), (most, *floor_ms)],
            marked: false,
        },
    ];
    let x = Axis { label: "number of regions".to_owned(), end: most, step: 1.0, unit: "" };
    let heights = report.steps.iter().map(|step| step.delivery_ms.max(step.acknowledgement_ms));
    let y = Axis::up_to(heights.fold(slo.ms, f64::max), "milliseconds", "");
    plot(&series, &x, &y, Some((slo.ms, &slo.to_string())))
}

fn method(report: &PlanReport) -> String {
    let mut text = format!(
        "Everybody goes where the router would send them, everybody talks to everybody, and a pair of people counts by \
         the product of their weights. Ways between regions: {}. Other ways are modelled from distance; MyChat itself was \
         taken to need {:.0} ms.",
        report.question.backbone, report.question.own_ms
    );
    text.push_str(match report.steps.iter().all(|step| step.exact) {
        true => " All sets of each size were compared.",
        false => {
            " Where the table says approximate, the best smaller set was extended by the region that helps most, and \
             regions were swapped for as long as that helped."
        }
    });
    if let Some(check) = &report.check {
        text.push_str(&format!(
            " As a check, {} messages went over real nodes in these regions with emulated distances: {:.1} ms against \
             {:.1} ms modelled ({:+.1} %).",
            check.messages, check.measured_ms, check.modelled_ms, check.differs_percent
        ));
    }
    text
}

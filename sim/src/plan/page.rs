//! The plan as a page.

use super::PlanReport;
use crate::page::map::map;
use crate::page::plot::{Axis, Series, plot};
use crate::page::{COLOURS, FLOOR, Page, table};

pub(super) fn page(report: &PlanReport) -> String {
    let mut page = Page::new("MyChat: where nodes are needed", &report.answer);
    let p = format!("p{}", report.slo.percentile);
    let chosen = report.chosen();
    let mut figures = Vec::new();
    if let Some(chosen) = chosen {
        figures.push((chosen.regions.len().to_string(), format!("regions: {}", chosen.regions.join(", "))));
        figures.push((format!("{:.0} ms", chosen.ms), format!("send to delivery, {p}, by the model")));
    }
    if let Some(check) = &report.check {
        figures.push((format!("{:.0} ms", check.measured_ms), format!("{p} over real nodes there")));
    }
    let beyond = format!("{p} of light in fibre with the last miles");
    figures.push((format!("{:.0} ms", report.floor_with_last_mile_ms), beyond));
    page.figures(&figures);
    if let Some(chosen) = chosen {
        let homes: Vec<&str> = chosen.homes.iter().map(String::as_str).collect();
        page.section(
            "The best set",
            "Each disc is a city, by its number of people, with a line to the region that the router would send it to.",
            &map(&report.cities, &homes, &chosen.regions),
        );
    }
    page.section(
        "More regions, less waiting",
        &format!("{p} of send to delivery for the best set of each size."),
        &curve(report, &p),
    );
    let heading = ["regions", "best set", "objective met", "search", "ms"];
    page.section("The sets", "", &table(&heading, 4, &report.rows()));
    page.section("How this was found", &method(report), "");
    page.finish()
}

fn curve(report: &PlanReport, p: &str) -> String {
    let most = report.steps.len() as f64;
    let points = report.steps.iter().map(|step| (step.regions.len() as f64, step.ms)).collect();
    let floor = report.floor_with_last_mile_ms;
    let series = [
        Series { name: format!("{p} of the best set"), colour: COLOURS[0], dashed: false, points, marked: true },
        Series {
            name: "light in fibre and the last mile".to_owned(),
            colour: FLOOR,
            dashed: true,
            points: vec![(0.0, floor), (most, floor)],
            marked: false,
        },
    ];
    let x = Axis { label: "number of regions".to_owned(), end: most, step: 1.0, unit: "" };
    let highest = report.steps.iter().map(|step| step.ms).fold(report.slo.ms, f64::max);
    plot(&series, &x, &Axis::up_to(highest, "milliseconds", ""), Some((report.slo.ms, &report.slo.to_string())))
}

fn method(report: &PlanReport) -> String {
    let mut text = format!(
        "Everybody goes where the router would send them, everybody talks to everybody, and a pair of people counts by \
         the product of their weights. Ways between regions: {}. Other ways are modelled from distance; MyChat itself was \
         taken to need {:.0} ms.",
        report.backbone, report.own_ms
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

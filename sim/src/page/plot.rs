//! Plots as SVG: curves over a grid, with a legend below.

use super::{escape, put};

/// One curve.
#[derive(Debug, Clone)]
pub struct Series {
    /// What the legend says.
    pub name: String,
    /// Its colour in CSS.
    pub colour: &'static str,
    /// Whether its line is dashed.
    pub dashed: bool,
    /// Its points, x ascending.
    pub points: Vec<(f64, f64)>,
    /// Whether the points are marked.
    pub marked: bool,
}

/// An axis.
#[derive(Debug, Clone)]
pub struct Axis {
    /// What it shows.
    pub label: String,
    /// Where it ends; it begins at 0.
    pub end: f64,
    /// Distance of the grid's lines.
    pub step: f64,
    /// What stands after a number.
    pub unit: &'static str,
}

impl Axis {
    /// An axis with round steps up to `largest` at least.
    pub fn up_to(largest: f64, label: &str, unit: &'static str) -> Self {
        let rough = (largest / 6.0).max(1e-9);
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(power * 10.0);
        Self { label: label.to_owned(), end: (largest / step).ceil().max(1.0) * step, step, unit }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let count = (self.end / self.step).round() as u32;
        let step = self.step;
        (0..=count).map(move |tick| f64::from(tick) * step)
    }
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 46.0;

/// The curves over both axes; `mark` is a value of y that is drawn as a line with its name.
pub fn plot(series: &[Series], x: &Axis, y: &Axis, mark: Option<(f64, &str)>) -> String {
    let across = |value: f64| LEFT + value.clamp(0.0, x.end) / x.end * (WIDTH - LEFT - RIGHT);
    let up = |value: f64| HEIGHT - BOTTOM - value.clamp(0.0, y.end) / y.end * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} against {}\">\n",
        escape(&y.label),
        escape(&x.label)
    );
    for tick in x.ticks() {
        let at = across(tick);
        put(&mut svg, format_args!("<path class=\"grid\" d=\"M{at:.1} {TOP}V{:.1}\"/>", HEIGHT - BOTTOM));
        put(
            &mut svg,
            format_args!(
                "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}{}</text>\n",
                HEIGHT - BOTTOM + 16.0,
                x.unit
            ),
        );
    }
    for tick in y.ticks() {
        let at = up(tick);
        put(&mut svg, format_args!("<path class=\"grid\" d=\"M{LEFT} {at:.1}H{:.1}\"/>", WIDTH - RIGHT));
        let (x, y_text) = (LEFT - 6.0, at + 4.0);
        put(
            &mut svg,
            format_args!("<text x=\"{x}\" y=\"{y_text:.1}\" text-anchor=\"end\">{tick}{}</text>\n", y.unit),
        );
    }
    put(
        &mut svg,
        format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 8.0,
            escape(&x.label)
        ),
    );
    if let Some((value, name)) = mark {
        let at = up(value);
        put(
            &mut svg,
            format_args!(
                "<path class=\"curve dashed\" stroke=\"var(--ink)\" d=\"M{LEFT} {at:.1}H{:.1}\"/><text class=\"name \
                 halo\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                WIDTH - RIGHT,
                WIDTH - RIGHT - 4.0,
                at - 6.0,
                escape(name)
            ),
        );
    }
    for one in series {
        let points: Vec<(f64, f64)> = one.points.iter().map(|(px, py)| (across(*px), up(*py))).collect();
        let path: Vec<String> = points.iter().map(|(px, py)| format!("{px:.1} {py:.1}")).collect();
        let dashed = if one.dashed { " dashed" } else { "" };
        put(
            &mut svg,
            format_args!(
                "<path class=\"curve{dashed}\" stroke=\"{}\" d=\"M{}\"/>\n",
                one.colour,
                path.join("L")
            ),
        );
        for (px, py) in points.iter().filter(|_| one.marked) {
            put(
                &mut svg,
                format_args!("<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"4\" fill=\"{}\"/>\n", one.colour),
            );
        }
    }
    svg.push_str("</svg>\n");
    svg + &legend(series)
}

fn legend(series: &[Series]) -> String {
    let mut html = String::from("<ul class=\"legend\">");
    for one in series {
        let style = if one.dashed { "dashed" } else { "solid" };
        put(
            &mut html,
            format_args!(
                "<li><i style=\"border-top-style:{style};border-color:{}\"></i>{}</li>",
                one.colour,
                escape(&one.name)
            ),
        );
    }
    html.push_str("</ul>\n");
    html
}

/// The cumulative distribution from values at equal steps of share.
pub fn cdf(name: &str, colour: &'static str, dashed: bool, curve: &[f64]) -> Series {
    let steps = curve.len().saturating_sub(1).max(1) as f64;
    let points = curve.iter().enumerate().map(|(at, value)| (*value, at as f64 / steps * 100.0)).collect();
    Series { name: name.to_owned(), colour, dashed, points, marked: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_round_and_long_enough() {
        for (largest, end, step) in
            [(287.0, 300.0, 50.0), (6.0, 6.0, 1.0), (100.0, 100.0, 20.0), (0.0, 1e-9, 1e-9)]
        {
            let axis = Axis::up_to(largest, "", "");
            assert!((axis.end - end).abs() < 1e-6 && (axis.step - step).abs() < 1e-6, "{largest}: {axis:?}");
            assert!(axis.end >= largest);
        }
    }

    #[test]
    fn curves_stay_inside() {
        let series = [cdf("a & b", "red", false, &[0.0, 50.0, 400.0])];
        let svg =
            plot(&series, &Axis::up_to(100.0, "ms", ""), &Axis::up_to(100.0, "%", " %"), Some((95.0, "p95")));
        assert!(svg.contains("M52.0 284.0L378.0 148.0L704.0 12.0"), "{svg}");
        assert!(svg.contains("a &amp; b") && svg.contains(">p95<"));
    }
}

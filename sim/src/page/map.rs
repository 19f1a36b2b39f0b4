//! The world with cities and regions, as SVG in the plain cylindrical projection (a degree is as long either way).

use mychat_router::geo::{self, Point};

use super::outline::LAND;
use super::{COLOURS, escape, put};
use crate::population::City;

/// Pixels a degree.
const SCALE: f64 = 2.0;
/// The map's upper and lower edge: nobody lives beyond.
const NORTH: f64 = 78.0;
const SOUTH: f64 = -57.0;
/// The radius of the city with the most people.
const LARGEST: f64 = 9.0;

fn at(point: Point) -> (f64, f64) {
    ((point.lon() + 180.0) * SCALE, (NORTH - point.lat().clamp(SOUTH, NORTH)) * SCALE)
}

/// The map: each city as a disc by its weight in the colour of the region that serves it, with a line there.
///
/// `homes` has a region's code for each city; `regions` are drawn with their names, and others of the map's regions as
/// small rings.
pub fn map(cities: &[City], homes: &[&str], regions: &[String]) -> String {
    let (width, height) = (360.0 * SCALE, (NORTH - SOUTH) * SCALE);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"Map of the cities and the regions\">\n"
    );
    for outline in LAND {
        let path: Vec<String> = outline
            .iter()
            .filter_map(|(lat, lon)| Point::new(f64::from(*lat), f64::from(*lon)))
            .map(|point| {
                let (x, y) = at(point);
                format!("{x} {y}")
            })
            .collect();
        put(&mut svg, format_args!("<path class=\"land\" d=\"M{}Z\"/>\n", path.join("L")));
    }
    for lat in [-30.0, 0.0, 30.0, 60.0] {
        put(&mut svg, format_args!("<path class=\"grid\" d=\"M0 {}H{width}\"/>", (NORTH - lat) * SCALE));
    }
    for lon in (-150..180).step_by(30) {
        put(
            &mut svg,
            format_args!("<path class=\"grid\" d=\"M{} 0V{height}\"/>", f64::from(lon + 180) * SCALE),
        );
    }
    svg.push('\n');
    let most = cities.iter().map(|city| city.weight).fold(f64::MIN_POSITIVE, f64::max);
    for (city, home) in cities.iter().zip(homes) {
        let colour = colour(regions, home);
        let (x, y) = at(city.point);
        if let Some(region) = geo::region(home) {
            let (to_x, to_y) = at(region.point);
            put(&mut svg, format_args!("{}\n", way(colour, (x, y), (to_x, to_y), width)));
        }
        let radius = (city.weight / most).sqrt() * LARGEST;
        put(
            &mut svg,
            format_args!(
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{:.1}\" fill=\"{colour}\" \
                 fill-opacity=\".55\"><title>{} → {}</title></circle>\n",
                radius.max(1.5),
                escape(&city.name),
                escape(home)
            ),
        );
    }
    for region in geo::regions() {
        let (x, y) = at(region.point);
        if regions.iter().any(|used| used == region.code) {
            let colour = colour(regions, region.code);
            put(
                &mut svg,
                format_args!(
                    "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\" fill=\"{colour}\" stroke=\"var(--page)\" \
                     stroke-width=\"1.5\"/><text class=\"name halo\" x=\"{:.1}\" y=\"{:.1}\">{}</text>\n",
                    x - 4.5,
                    y - 4.5,
                    x + 8.0,
                    y - 5.0,
                    region.code
                ),
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn colour(regions: &[String], code: &str) -> &'static str {
    let place = regions.iter().position(|region| region == code);
    place.map_or("var(--soft)", |place| COLOURS[place % COLOURS.len()])
}

/// A line from a city to its region, the short way round: over the edge when that is nearer.
fn way(colour: &str, from: (f64, f64), to: (f64, f64), width: f64) -> String {
    let line = |from: (f64, f64), to: (f64, f64)| {
        format!(
            "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"{colour}\" stroke-opacity=\".45\"/>",
            from.0, from.1, to.0, to.1
        )
    };
    let across = to.0 - from.0;
    if across.abs() <= width / 2.0 {
        return line(from, to);
    }
    let turn = -across.signum() * width;
    // What is outside of the picture is not seen.
    line(from, (to.0 + turn, to.1)) + &line((from.0 - turn, from.1), to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::population;

    #[test]
    fn everybody_is_on_the_map() {
        let world = population::world(20.0).unwrap();
        let homes: Vec<&str> = world.iter().map(|_| "fra").collect();
        let svg = map(&world, &homes, &["fra".to_owned(), "syd".to_owned()]);
        assert_eq!(svg.matches("<circle").count(), world.len());
        assert_eq!(svg.matches("<rect").count(), 2);
        for code in [">fra<", ">syd<", "Auckland → fra"] {
            assert!(svg.contains(code), "{code}");
        }
    }

    #[test]
    fn ways_go_over_the_edge_when_that_is_shorter() {
        assert_eq!(way("c", (10.0, 5.0), (200.0, 5.0), 720.0).matches("<path").count(), 1);
        let over = way("c", (10.0, 5.0), (700.0, 5.0), 720.0);
        assert!(over.contains("M10.0 5.0L-20.0 5.0") && over.contains("M730.0 5.0L700.0 5.0"), "{over}");
    }
}

//! Geography: the regions that MyChat knows, the round trips measured between them, and what to assume for a
//! place of which only the coordinates are known.
//!
//! The router ranks nodes with it, and the simulation takes its WAN delays from it. All of it is pure: two tables
//! are read once from CSV files in this folder, everything else is arithmetic.
//!
//! A round trip is estimated in this order:
//! 1. between two known regions: the table (`rtt.csv`);
//! 2. from a place that is near a known region (its *anchor*, at most [`ANCHOR_KM`] away): the way to the anchor by
//!    the model, plus the table from there. Cables do not follow great circles (Johannesburg to São Paulo takes four
//!    times what the distance suggests), and the table knows it;
//! 3. from anywhere else: the model alone, see [`modelled_rtt_ms`].

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use serde::Serialize;

/// Signals travel in fibre at about two thirds of the speed of light: this many kilometres a millisecond.
pub const FIBRE_KM_PER_MS: f64 = 200.0;
/// How much longer than the great circle a long way is: the median of the published pairs over [`LONG_KM`].
pub const INFLATION: f64 = 1.65;
/// From this distance on (km), detours are what costs; below it, the fixed cost of routers and access is.
pub const LONG_KM: f64 = 1_000.0;
/// What is added to a round trip shorter than [`LONG_KM`], in milliseconds.
pub const SHORT_EXTRA_MS: f64 = 4.0;
/// A round trip within one region, in milliseconds: between zones of a provider it is about this.
pub const WITHIN_REGION_MS: f64 = 1.0;
/// A place at most this far (km) from a known region is taken to reach the world through it.
pub const ANCHOR_KM: f64 = 500.0;

const EARTH_RADIUS_KM: f64 = 6_371.0;

/// One region that can hold nodes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Region {
    /// The short code that nodes and clients use, such as `fra`.
    pub code: &'static str,
    /// The city that gives the region its coordinates.
    pub city: &'static str,
    /// The ISO 3166 code of the country, two capital letters.
    pub country: &'static str,
    /// Where it is.
    #[serde(flatten)]
    pub point: Point,
}

/// A place on earth, in degrees. Always valid: latitude within ±90, longitude within ±180.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    lat: f64,
    lon: f64,
}

impl Point {
    /// A place from degrees of latitude (north is positive) and longitude (east is positive); `None` when either is
    /// out of range or not a number.
    pub fn new(lat: f64, lon: f64) -> Option<Point> {
        ((-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lon)).then_some(Point { lat, lon })
    }

    /// Degrees of latitude.
    pub fn lat(&self) -> f64 {
        self.lat
    }

    /// Degrees of longitude.
    pub fn lon(&self) -> f64 {
        self.lon
    }

    /// Great-circle distance in kilometres (haversine, which keeps its precision for near places).
    pub fn distance_km(&self, other: Point) -> f64 {
        let half_lat = (other.lat - self.lat).to_radians() / 2.0;
        let half_lon = (other.lon - self.lon).to_radians() / 2.0;
        let a = half_lat.sin().powi(2)
            + self.lat.to_radians().cos() * other.lat.to_radians().cos() * half_lon.sin().powi(2);
        2.0 * EARTH_RADIUS_KM * a.min(1.0).sqrt().asin()
    }
}

/// All known regions, sorted by code.
pub fn regions() -> &'static [Region] {
    static REGIONS: OnceLock<Vec<Region>> = OnceLock::new();
    REGIONS.get_or_init(|| {
        let mut regions: Vec<Region> = rows(include_str!("regions.csv")).filter_map(parse_region).collect();
        regions.sort_by_key(|region| region.code);
        regions
    })
}

/// The region with this code; capital letters are taken as small ones.
pub fn region(code: &str) -> Option<&'static Region> {
    regions().iter().find(|region| region.code.eq_ignore_ascii_case(code))
}

/// The typical round trip between two regions in milliseconds: from the table; [`WITHIN_REGION_MS`] for a region and
/// itself; the model when the table lacks the pair. `None` when a region is unknown (unless they are the same).
pub fn rtt_ms(a: &str, b: &str) -> Option<f64> {
    if a.eq_ignore_ascii_case(b) {
        return Some(WITHIN_REGION_MS);
    }
    let (a, b) = (region(a)?, region(b)?);
    let pair = if a.code < b.code { (a.code, b.code) } else { (b.code, a.code) };
    match round_trips().get(&pair) {
        Some(rtt) => Some(*rtt),
        None => Some(modelled_rtt_ms(a.point.distance_km(b.point))),
    }
}

/// The pairs of regions for which a round trip (ms) is published, each once, in the order of the table. The rest of
/// the table is modelled.
pub fn published_rtts() -> impl Iterator<Item = (&'static str, &'static str, f64)> {
    let published = rows(include_str!("rtt.csv")).filter(|row| row.last() != Some(&"modelled"));
    published.filter_map(parse_round_trip).map(|((a, b), rtt)| (a, b, rtt))
}

/// Half of the typical round trip between two regions: what the simulation delays each datagram by. `None` when a
/// region is unknown.
pub fn one_way(a: &str, b: &str) -> Option<Duration> {
    rtt_ms(a, b).map(|ms| Duration::from_secs_f64(ms / 2_000.0))
}

/// The round trip in milliseconds that a distance in kilometres suggests: there and back in fibre, times
/// [`INFLATION`] from [`LONG_KM`] on, plus [`SHORT_EXTRA_MS`] below.
pub fn modelled_rtt_ms(km: f64) -> f64 {
    let straight = km / FIBRE_KM_PER_MS * 2.0;
    if km < LONG_KM { straight + SHORT_EXTRA_MS } else { straight * INFLATION }
}

/// The round trip in milliseconds to expect between a place and a region; `None` when the region is unknown.
pub fn rtt_from_point_ms(from: Point, to: &str) -> Option<f64> {
    let to = region(to)?;
    let anchor = regions()
        .iter()
        .map(|anchor| (anchor, anchor.point.distance_km(from)))
        .filter(|(_, km)| *km <= ANCHOR_KM)
        .min_by(|a, b| a.1.total_cmp(&b.1));
    match anchor {
        Some((anchor, km)) if anchor.code != to.code => {
            rtt_ms(anchor.code, to.code).map(|onward| modelled_rtt_ms(km) + onward)
        }
        _ => Some(modelled_rtt_ms(from.distance_km(to.point))),
    }
}

fn round_trips() -> &'static BTreeMap<(&'static str, &'static str), f64> {
    static ROUND_TRIPS: OnceLock<BTreeMap<(&'static str, &'static str), f64>> = OnceLock::new();
    ROUND_TRIPS.get_or_init(|| rows(include_str!("rtt.csv")).filter_map(parse_round_trip).collect())
}

/// The rows of an embedded table. Comments and the heading do not parse as numbers where numbers must be, so the
/// row parsers drop them; the tests check that every other row is there.
fn rows(csv: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    csv.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(',').collect())
}

fn parse_region(row: Vec<&'static str>) -> Option<Region> {
    let [code, city, country, lat, lon] = row[..] else { return None };
    Some(Region { code, city, country, point: Point::new(lat.parse().ok()?, lon.parse().ok()?)? })
}

fn parse_round_trip(row: Vec<&'static str>) -> Option<((&'static str, &'static str), f64)> {
    let [a, b, rtt, _source] = row[..] else { return None };
    let pair = if a < b { (a, b) } else { (b, a) };
    Some((pair, rtt.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(code: &str) -> Point {
        region(code).unwrap().point
    }

    #[test]
    fn the_tables_are_whole() {
        assert_eq!(regions().len(), 19);
        assert_eq!(round_trips().len(), 19 * 18 / 2);
        assert_eq!(published_rtts().count(), 136);
        for a in regions() {
            for b in regions().iter().filter(|b| a.code < b.code) {
                assert!(round_trips().contains_key(&(a.code, b.code)), "{}-{}", a.code, b.code);
            }
        }
    }

    #[test]
    fn the_table_is_symmetric() {
        assert_eq!(rtt_ms("fra", "syd"), rtt_ms("syd", "fra"));
        assert_eq!(rtt_ms("FRA", "fra"), Some(WITHIN_REGION_MS));
        assert_eq!(rtt_ms("fra", "nowhere"), None);
        assert_eq!(
            one_way("fra", "iad").unwrap() * 2,
            Duration::from_secs_f64(rtt_ms("fra", "iad").unwrap() / 1e3)
        );
    }

    #[test]
    fn distances_are_those_of_an_atlas() {
        let fra_syd = point("fra").distance_km(point("syd"));
        assert!((16_300.0..16_700.0).contains(&fra_syd), "{fra_syd}");
        let lhr_cdg = point("lhr").distance_km(point("cdg"));
        assert!((330.0..360.0).contains(&lhr_cdg), "{lhr_cdg}");
        // Across the date line, and between the poles.
        let (east, west) = (Point::new(0.0, 179.9).unwrap(), Point::new(0.0, -179.9).unwrap());
        assert!(east.distance_km(west) < 30.0);
        let (north, south) = (Point::new(90.0, 0.0).unwrap(), Point::new(-90.0, 77.0).unwrap());
        assert!((north.distance_km(south) - 20_015.0).abs() < 1.0);
    }

    #[test]
    fn coordinates_out_of_range_are_refused() {
        for (lat, lon) in [(90.1, 0.0), (-91.0, 0.0), (0.0, 180.5), (f64::NAN, 0.0), (0.0, f64::INFINITY)] {
            assert_eq!(Point::new(lat, lon), None, "{lat} {lon}");
        }
    }

    #[test]
    fn the_model_adds_a_fixed_cost_to_short_ways_and_stretches_long_ones() {
        assert_eq!(modelled_rtt_ms(0.0), 4.0);
        assert_eq!(modelled_rtt_ms(500.0), 9.0);
        assert_eq!(modelled_rtt_ms(10_000.0), 165.0);
    }

    #[test]
    fn a_place_near_a_region_reaches_others_as_that_region_does() {
        let pretoria = Point::new(-25.7479, 28.2293).unwrap();
        let by_table = rtt_ms("jnb", "gru").unwrap();
        let estimate = rtt_from_point_ms(pretoria, "gru").unwrap();
        assert!(estimate > by_table && estimate < by_table + 6.0, "{estimate} for {by_table}");
        // Nothing known is near Perth, so distance decides.
        let perth = Point::new(-31.9523, 115.8613).unwrap();
        let km = perth.distance_km(point("sin"));
        assert_eq!(rtt_from_point_ms(perth, "sin"), Some(modelled_rtt_ms(km)));
    }
}

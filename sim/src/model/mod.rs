//! How long the way between two places takes: the latency model.
//!
//! ```text
//! person ── last mile ── city ═══ backbone ═══ region ═══ backbone ═══ region … city ── last mile ── person
//! ```
//!
//! A round trip over the backbone is `base + inflation · floor`, where the *floor* is what light in fibre needs along
//! the great circle and back. Cables follow coasts and straits, and some parts of the world are reached by few of them:
//! a way from one continent to another has the mean of both continents' *detours* added to the inflation. The
//! constants ([`Constants::FITTED`]) are fitted on published round trips ([`fit`]); `mychat sim calibrate` shows how
//! well they do on pairs that were held out.
//!
//! Between two regions a figure that somebody has measured beats the model, so it is taken where there is one
//! ([`Backbone`]): the published ones that the router's map holds, or one's own of a file. A city within
//! [`geo::ANCHOR_KM`] of a known region goes out through it, as the router also has it. No round trip is ever below the
//! floor.

use std::time::Duration;

use mychat_router::geo::{self, Point, Region};

use crate::population::City;

pub mod calibrate;
mod constants;
pub mod fit;
mod matrix;

pub use constants::{Constants, Continent};
pub use matrix::{Backbone, Matrix, MatrixError};

/// The round trip that light in fibre needs along the great circle, in milliseconds.
pub fn floor_rtt_ms(a: Point, b: Point) -> f64 {
    a.distance_km(b) / geo::FIBRE_KM_PER_MS * 2.0
}

/// The model with its source for the ways between regions.
#[derive(Debug, Clone, Default)]
pub struct LatencyModel {
    backbone: Backbone,
}

impl LatencyModel {
    /// A model with this source.
    pub fn new(backbone: Backbone) -> Self {
        Self { backbone }
    }

    /// The round trip between two regions, in milliseconds.
    pub fn between_ms(&self, a: &Region, b: &Region) -> f64 {
        if a.code == b.code {
            return geo::WITHIN_REGION_MS;
        }
        let known = self.backbone.rtt_ms(a.code, b.code);
        known
            .unwrap_or_else(|| Constants::FITTED.rtt_ms(a.point, b.point))
            .max(floor_rtt_ms(a.point, b.point))
    }

    /// The round trip between two places of which nothing is known but where they are, in milliseconds.
    pub fn between_places_ms(&self, a: Point, b: Point) -> f64 {
        Constants::FITTED.rtt_ms(a, b).max(floor_rtt_ms(a, b))
    }

    /// The time that the emulated network takes from one region to another; nothing for a region on no map.
    pub fn one_way(&self, a: &str, b: &str) -> Duration {
        match (geo::region(a), geo::region(b)) {
            (Some(a), Some(b)) => Duration::from_secs_f64(self.between_ms(a, b) / 2_000.0),
            _ => Duration::ZERO,
        }
    }

    /// The round trip between a person in a city and a region, last mile included, in milliseconds.
    pub fn access_ms(&self, city: &City, region: &Region) -> f64 {
        let backbone = match nearest_region(city.point) {
            Some((anchor, km)) if km <= geo::ANCHOR_KM => {
                let inland = floor_rtt_ms(city.point, anchor.point) * Constants::FITTED.inflation;
                inland + self.between_ms(anchor, region)
            }
            _ => Constants::FITTED.rtt_ms(city.point, region.point),
        };
        city.last_mile_ms + backbone.max(floor_rtt_ms(city.point, region.point))
    }
}

/// The known region that is nearest to a place, and how far (km) it is.
pub fn nearest_region(point: Point) -> Option<(&'static Region, f64)> {
    let distances = geo::regions().iter().map(|region| (region, region.point.distance_km(point)));
    distances.min_by(|a, b| a.1.total_cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn city(lat: f64, lon: f64, last_mile_ms: f64) -> City {
        City { name: "x".to_owned(), point: Point::new(lat, lon).unwrap(), weight: 1.0, last_mile_ms }
    }

    fn region(code: &str) -> &'static Region {
        geo::region(code).unwrap()
    }

    #[test]
    fn what_was_measured_beats_the_model() {
        let (gru, jnb) = (region("gru"), region("jnb"));
        assert_eq!(LatencyModel::default().between_ms(gru, jnb), 321.0);
        let modelled = LatencyModel::new(Backbone::Modelled).between_ms(gru, jnb);
        assert!((100.0..220.0).contains(&modelled), "{modelled}");
        let own: Matrix = "gru,jnb,123".parse().unwrap();
        let own = LatencyModel::new(Backbone::Measured(own));
        assert_eq!(own.between_ms(jnb, gru), 123.0);
        // The file says nothing of the other pairs.
        assert_eq!(
            own.between_ms(region("fra"), jnb),
            LatencyModel::default().between_ms(region("fra"), jnb)
        );
        assert_eq!(own.one_way("gru", "jnb"), Duration::from_micros(61_500));
        assert_eq!(own.one_way("gru", "atlantis"), Duration::ZERO);
    }

    #[test]
    fn a_city_near_a_region_goes_out_through_it() {
        let model = LatencyModel::default();
        let pretoria = city(-25.75, 28.23, 10.0);
        let through = model.access_ms(&pretoria, region("gru"));
        assert!((331.0..335.0).contains(&through), "{through}");
        let home = model.access_ms(&pretoria, region("jnb"));
        assert!((11.0..13.0).contains(&home), "{home}");
        // Nothing known is near Perth.
        let perth = city(-31.95, 115.86, 0.0);
        let modelled = Constants::FITTED.rtt_ms(perth.point, region("sin").point);
        assert_eq!(model.access_ms(&perth, region("sin")), modelled);
    }

    proptest! {
        #[test]
        fn nothing_is_faster_than_light_in_fibre_and_ways_are_symmetric(
            a in (-90.0..90.0, -180.0..180.0), b in (-90.0..90.0, -180.0..180.0), last_mile in 0.0..100.0,
        ) {
            let (from, to) = (Point::new(a.0, a.1).unwrap(), Point::new(b.0, b.1).unwrap());
            let floor = floor_rtt_ms(from, to);
            let there = Constants::FITTED.rtt_ms(from, to);
            prop_assert!(there >= floor);
            prop_assert_eq!(there, Constants::FITTED.rtt_ms(to, from));
            let person = city(a.0, a.1, last_mile);
            for backbone in [Backbone::Published, Backbone::Modelled] {
                let model = LatencyModel::new(backbone);
                for region in geo::regions() {
                    let least = last_mile + floor_rtt_ms(from, region.point);
                    prop_assert!(model.access_ms(&person, region) >= least);
                }
            }
        }

        #[test]
        fn farther_on_the_same_continent_takes_longer(km in 1.0..3_000.0_f64, more in 1.0..2_000.0_f64) {
            let fitted = &Constants::FITTED;
            let rtt = |km: f64| fitted.of_floor(km / geo::FIBRE_KM_PER_MS * 2.0, Continent::Europe, Continent::Europe);
            prop_assert!(rtt(km + more) > rtt(km));
        }

        #[test]
        fn regions_are_as_far_one_way_as_the_other(a in 0..19_usize, b in 0..19_usize) {
            let (a, b) = (&geo::regions()[a], &geo::regions()[b]);
            let model = LatencyModel::default();
            prop_assert_eq!(model.between_ms(a, b), model.between_ms(b, a));
            prop_assert!(model.between_ms(a, b) >= floor_rtt_ms(a.point, b.point));
        }
    }
}

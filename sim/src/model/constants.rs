//! The form of the model for the backbone, and its constants.

use mychat_router::geo::Point;
use serde::Serialize;

use super::{floor_rtt_ms, nearest_region};

/// Parts of the world that are reached by different cables. A place belongs to that of the region nearest to it, as
/// it goes out that way: so Bogotá counts to North America, and Cairo to Europe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Continent {
    /// Europe, the Near East and the north of Africa.
    Europe,
    /// North and Central America.
    NorthAmerica,
    /// South America.
    SouthAmerica,
    /// Africa south of the Sahara.
    Africa,
    /// India and its neighbours.
    SouthAsia,
    /// East and Southeast Asia.
    EastAsia,
    /// Australia and the Pacific.
    Oceania,
}

impl Continent {
    /// All of them, in the order of [`Constants::detours`].
    pub const ALL: [Continent; 7] = [
        Continent::Europe,
        Continent::NorthAmerica,
        Continent::SouthAmerica,
        Continent::Africa,
        Continent::SouthAsia,
        Continent::EastAsia,
        Continent::Oceania,
    ];

    /// That of a place.
    pub fn of(point: Point) -> Continent {
        match nearest_region(point).map_or("", |(region, _)| region.country) {
            "US" | "CA" => Continent::NorthAmerica,
            "BR" => Continent::SouthAmerica,
            "ZA" => Continent::Africa,
            "IN" => Continent::SouthAsia,
            "JP" | "HK" | "SG" => Continent::EastAsia,
            "AU" => Continent::Oceania,
            _ => Continent::Europe,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Continent::Europe => "Europe",
            Continent::NorthAmerica => "North America",
            Continent::SouthAmerica => "South America",
            Continent::Africa => "Africa",
            Continent::SouthAsia => "South Asia",
            Continent::EastAsia => "East Asia",
            Continent::Oceania => "Oceania",
        }
    }
}

/// The constants of the model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Constants {
    /// What every way costs: routers and the ends, in milliseconds.
    pub base_ms: f64,
    /// How much longer the cable is than the great circle, within a continent.
    pub inflation: f64,
    /// What a continent adds to the inflation of ways to others; less than zero where the cables are straighter.
    pub detours: [f64; Continent::ALL.len()],
}

impl Constants {
    /// What fitting gives on the published round trips that are not held out; a test compares.
    pub const FITTED: Constants = Constants {
        base_ms: 5.48988,
        inflation: 1.54583,
        detours: [0.22362, -0.34012, 0.41657, 0.47174, 0.35314, 0.00912, -0.29671],
    };

    /// The round trip between two places, in milliseconds.
    pub fn rtt_ms(&self, a: Point, b: Point) -> f64 {
        self.of_floor(floor_rtt_ms(a, b), Continent::of(a), Continent::of(b))
    }

    /// The round trip over a way of which light in fibre needs `floor` milliseconds.
    pub(super) fn of_floor(&self, floor: f64, a: Continent, b: Continent) -> f64 {
        let factors: f64 =
            terms(floor, a, b).iter().zip(self.factors()).map(|(term, factor)| term * factor).sum();
        factors.max(floor)
    }

    fn factors(&self) -> [f64; TERMS] {
        std::array::from_fn(|at| match at {
            0 => self.base_ms,
            1 => self.inflation,
            _ => self.detours[at - 2],
        })
    }

    /// From the factors of [`terms`].
    pub(super) fn from_factors(factors: [f64; TERMS]) -> Self {
        let [base_ms, inflation, detours @ ..] = factors;
        Self { base_ms, inflation, detours }
    }
}

/// How many constants there are.
pub(super) const TERMS: usize = 2 + Continent::ALL.len();

/// What the constants are multiplied with, one after the other, to make a round trip: the model is linear in them.
pub(super) fn terms(floor: f64, a: Continent, b: Continent) -> [f64; TERMS] {
    let mut terms = [0.0; TERMS];
    (terms[0], terms[1]) = (1.0, floor);
    if a != b {
        for end in [a, b] {
            terms[2 + end as usize] = floor / 2.0;
        }
    }
    terms
}

//! The people of whom a simulation is about: in which cities, how many, and how far from the net's backbone.
//!
//! They come from a file of one's own or are the large cities of the world (`world.csv`, which names its source).
//! Columns of a file, in any order, by its heading: `city`, `lat`, `lon` (degrees), `weight` (how many people, in any
//! unit) and, if wanted, `last_mile_ms` (the round trip between a person and the backbone in that city). Lines that
//! begin with `#` are comments. Cells hold no commas; one may stand in double quotes.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use mychat_router::geo::Point;
use serde::Serialize;

/// The round trip between a person and the backbone in their city when nothing better is known, in milliseconds: an
/// assumption that lies between fibre (a few) and mobile networks (30 to 50).
pub const LAST_MILE_MS: f64 = 20.0;
/// More cities than anyone can read about, and each is a client of the simulation.
pub const MOST_CITIES: usize = 400;
/// The longest last mile that is believed: two hops by a geostationary satellite.
const LONGEST_LAST_MILE_MS: f64 = 2_000.0;

/// People in one place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct City {
    /// Its name, unique among the people.
    pub name: String,
    /// Where it is.
    #[serde(flatten)]
    pub point: Point,
    /// How many people, in whatever unit the source has.
    pub weight: f64,
    /// The round trip between a person and the backbone, in milliseconds.
    pub last_mile_ms: f64,
}

/// What is wrong with a table of people.
#[derive(Debug, thiserror::Error)]
pub enum PopulationError {
    /// It can't be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The heading lacks a column.
    #[error("line {line}: the heading has no column {column}; needed are city, lat, lon and weight")]
    NoColumn {
        /// Counted from 1.
        line: usize,
        /// Its name.
        column: &'static str,
    },
    /// A cell is not what its column holds.
    #[error("line {line}, column {column}: {problem}")]
    Cell {
        /// Counted from 1.
        line: usize,
        /// Its name.
        column: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Too few or too many.
    #[error("there must be from 1 to {MOST_CITIES} cities with people in them, but there are {0}")]
    Count(usize),
}

/// The large cities of the world.
pub fn world(last_mile_ms: f64) -> Result<Vec<City>, PopulationError> {
    parse(include_str!("world.csv"), last_mile_ms)
}

/// The people in a file; `last_mile_ms` holds where the file does not say.
pub fn read(file: &Path, last_mile_ms: f64) -> Result<Vec<City>, PopulationError> {
    let text = std::fs::read_to_string(file)
        .map_err(|source| PopulationError::Read { file: file.to_owned(), source })?;
    parse(&text, last_mile_ms)
}

/// Reads a table of people.
pub fn parse(text: &str, last_mile_ms: f64) -> Result<Vec<City>, PopulationError> {
    let mut lines = text
        .lines()
        .zip(1..)
        .map(|(line, number)| (number, line.trim_start_matches('\u{feff}').trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let Some((number, heading)) = lines.next() else { return Err(PopulationError::Count(0)) };
    let columns = Columns::of(number, heading)?;
    let mut names = HashSet::new();
    let mut cities = Vec::new();
    for (line, text) in lines {
        let row = Row { line, cells: cells(text) };
        let name = row.text(columns.city, "city")?.to_owned();
        if !names.insert(name.clone()) {
            return Err(row.error("city", format!("{name} stands there twice")));
        }
        let lat = row.number(columns.lat, "lat", -90.0, 90.0)?;
        let lon = row.number(columns.lon, "lon", -180.0, 180.0)?;
        let point = Point::new(lat, lon).ok_or_else(|| row.error("lat", "no place on earth".to_owned()))?;
        let weight = row.number(columns.weight, "weight", 0.0, 1e12)?;
        let last_mile_ms = match columns.last_mile {
            Some(at) if row.cells.get(at).is_some_and(|cell| !cell.is_empty()) => {
                row.number(at, "last_mile_ms", 0.0, LONGEST_LAST_MILE_MS)?
            }
            _ => last_mile_ms,
        };
        if weight > 0.0 {
            cities.push(City { name, point, weight, last_mile_ms });
        }
    }
    match cities.len() {
        1..=MOST_CITIES => Ok(cities),
        count => Err(PopulationError::Count(count)),
    }
}

/// Where the columns stand.
struct Columns {
    city: usize,
    lat: usize,
    lon: usize,
    weight: usize,
    last_mile: Option<usize>,
}

impl Columns {
    fn of(line: usize, heading: &str) -> Result<Self, PopulationError> {
        let names = cells(heading);
        let find = |column: &str| names.iter().position(|name| name.eq_ignore_ascii_case(column));
        let needed = |column| find(column).ok_or(PopulationError::NoColumn { line, column });
        Ok(Self {
            city: needed("city")?,
            lat: needed("lat")?,
            lon: needed("lon")?,
            weight: needed("weight")?,
            last_mile: find("last_mile_ms"),
        })
    }
}

fn cells(line: &str) -> Vec<&str> {
    line.split(',').map(|cell| cell.trim().trim_matches('"').trim()).collect()
}

struct Row<'a> {
    line: usize,
    cells: Vec<&'a str>,
}

impl Row<'_> {
    fn text(&self, at: usize, column: &'static str) -> Result<&str, PopulationError> {
        match self.cells.get(at) {
            Some(cell) if !cell.is_empty() => Ok(cell),
            _ => Err(self.error(column, "there is nothing".to_owned())),
        }
    }

    fn number(&self, at: usize, column: &'static str, from: f64, to: f64) -> Result<f64, PopulationError> {
        let text = self.text(at, column)?;
        match text.parse::<f64>() {
            Ok(number) if (from..=to).contains(&number) => Ok(number),
            _ => Err(self.error(column, format!("{text:?} is not a number from {from} to {to}"))),
        }
    }

    fn error(&self, column: &'static str, problem: String) -> PopulationError {
        PopulationError::Cell { line: self.line, column, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_world_is_whole() {
        let world = world(LAST_MILE_MS).unwrap();
        assert_eq!(world.len(), 81);
        let people: f64 = world.iter().map(|city| city.weight).sum();
        assert!((700.0..900.0).contains(&people), "{people} million");
        for (name, code) in [("Tokyo", "nrt"), ("Mumbai", "bom"), ("Sydney", "syd"), ("Sao Paulo", "gru")] {
            let city = world.iter().find(|city| city.name == name).unwrap();
            let region = mychat_router::geo::region(code).unwrap();
            assert!(city.point.distance_km(region.point) < 50.0, "{name}");
        }
    }

    #[test]
    fn columns_are_found_by_their_names() {
        let text = "# mine\nlon, last_mile_ms ,weight,City,lat\n\n8.7,5,30,\"Frankfurt\",50.1\n2.4,,10,Paris,48.9\n\
                    0,1,0,Nobody,0\n";
        let cities = parse(text, 33.0).unwrap();
        let seen: Vec<_> =
            cities.iter().map(|city| (city.name.as_str(), city.weight, city.last_mile_ms)).collect();
        assert_eq!(seen, [("Frankfurt", 30.0, 5.0), ("Paris", 10.0, 33.0)]);
    }

    #[test]
    fn errors_name_the_line_and_the_column() {
        for (text, says) in [
            ("city,lat,lon\n", "line 1: the heading has no column weight"),
            ("city,lat,lon,weight\n\nBerlin,52.5,x,1\n", "line 3, column lon: \"x\""),
            (
                "city,lat,lon,weight\nBerlin,99,1,1\n",
                "line 2, column lat: \"99\" is not a number from -90 to 90",
            ),
            ("city,lat,lon,weight\nBerlin,5,1\n", "line 2, column weight: there is nothing"),
            ("city,lat,lon,weight\nA,5,1,NaN\n", "line 2, column weight"),
            ("city,lat,lon,weight\nA,5,1,-1\n", "line 2, column weight"),
            ("city,lat,lon,weight,last_mile_ms\nA,5,1,1,9999\n", "line 2, column last_mile_ms"),
            ("city,lat,lon,weight\nA,5,1,1\nA,6,1,1\n", "line 3, column city: A stands there twice"),
            ("", "there are 0"),
            ("city,lat,lon,weight\nA,5,1,0\n", "there are 0"),
        ] {
            let error = parse(text, 1.0).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}

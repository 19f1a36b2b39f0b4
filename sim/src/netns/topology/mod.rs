//! What a wide-area network is to look like: regions, the links between them, and what runs there.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use mychat_router::geo::{self, Point};
use toml::Spanned;

mod file;
mod placeholders;
mod subnet;
#[cfg(test)]
mod tests;

pub use subnet::Subnet;

use self::file::{File, LinkEntry, RegionEntry};
use super::link::Shape;
use super::units::Delay;
use crate::model::{Backbone, LatencyModel};

/// The name of the machine itself among the regions, when it is connected.
pub const HOST: &str = "host";
/// More regions than anyone deploys to; every pair has two links.
const MOST_REGIONS: usize = 100;

/// A wide-area network and what runs on it.
#[derive(Debug, Clone)]
pub struct Topology {
    subnet: Subnet,
    /// Whether somebody chose it; else it may be another one.
    subnet_given: bool,
    regions: Vec<Region>,
    host: bool,
    /// By sender and receiver.
    shapes: Vec<Vec<Shape>>,
    processes: Vec<Process>,
}

#[derive(Debug, Clone)]
struct Region {
    name: String,
    /// The address that somebody chose.
    given: Option<Ipv4Addr>,
}

/// Something that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// In which region, by number; in each where there is none.
    pub region: Option<usize>,
    /// The program and its arguments, with placeholders.
    pub command: Vec<String>,
}

/// What is wrong with a topology.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// It can't be read.
    #[error("it can't be read: {0}")]
    Read(#[from] std::io::Error),
    /// A line is not right.
    #[error("line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
}

/// A problem and where it is in the text.
type Wrong = (Range<usize>, String);

impl Topology {
    /// Reads a file. Round trips that it names are looked for beside it.
    pub fn read(file: &Path) -> Result<Self, TopologyError> {
        Self::parse(&std::fs::read_to_string(file)?, file.parent().unwrap_or(Path::new("")))
    }

    /// Reads a file's text; `folder` is where the files are that it names.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, TopologyError> {
        let parsed = toml::from_str::<File>(text).map_err(|error| {
            let problem = error.message().trim().replace('\n', ": ");
            (error.span().unwrap_or(0..0), problem)
        });
        parsed.and_then(|file| Self::build(&file, folder)).map_err(|(place, problem)| {
            let before = text.as_bytes().iter().take(place.start);
            TopologyError::Line { line: 1 + before.filter(|byte| **byte == b'\n').count(), problem }
        })
    }

    /// Regions of the router's map with the model's ways between them, and the machine itself right beside each.
    pub fn of_regions(regions: &[String], model: &LatencyModel) -> Self {
        let shape =
            |from: &String, to: &String| Shape { delay: Delay(model.one_way(from, to)), ..Shape::default() };
        Self {
            subnet: Subnet::usual(0),
            subnet_given: false,
            regions: regions.iter().map(|name| Region { name: name.clone(), given: None }).collect(),
            host: true,
            shapes: regions.iter().map(|from| regions.iter().map(|to| shape(from, to)).collect()).collect(),
            processes: Vec::new(),
        }
    }

    fn build(file: &File, folder: &Path) -> Result<Self, Wrong> {
        let names = names(&file.region)?;
        let given = file.network.as_ref().map(|network| *network.get_ref());
        let subnet = given.unwrap_or(Subnet::usual(0));
        if names.len() > subnet.room() {
            let place = file.network.as_ref().map_or(0..0, Spanned::span);
            let problem = format!("{} regions, but {} addresses in {subnet}", names.len(), subnet.room());
            return Err((place, problem));
        }
        let regions = regions(&file.region, given, subnet)?;
        let shapes = shapes(file, &names, folder)?;
        let mut processes = Vec::new();
        for entry in &file.process {
            if entry.get_ref().command.first().is_none_or(String::is_empty) {
                return Err((entry.span(), "command: give a program and its arguments".to_owned()));
            }
            let region = entry.get_ref().region.as_ref().map(|region| number(region, &names)).transpose()?;
            processes.push(Process { region, command: entry.get_ref().command.clone() });
        }
        Ok(Self { subnet, subnet_given: given.is_some(), regions, host: file.host, shapes, processes })
    }

    /// The names of the regions.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.regions.iter().map(|region| region.name.as_str())
    }

    /// The address of a region.
    pub fn address(&self, region: usize) -> Ipv4Addr {
        self.regions[region].given.unwrap_or_else(|| self.subnet.nth(region))
    }

    /// The link from one region to another.
    pub fn shape(&self, from: usize, to: usize) -> Shape {
        self.shapes[from][to]
    }

    /// Whether the machine itself takes part, without a delay to anybody.
    pub fn host(&self) -> bool {
        self.host
    }

    /// What runs.
    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// Lets this run in each region too.
    pub fn run_everywhere(&mut self, command: Vec<String>) {
        self.processes.push(Process { region: None, command });
    }

    /// All addresses.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Takes another range of addresses if nobody chose this one; says whether.
    pub fn move_to(&mut self, subnet: Subnet) -> bool {
        if !self.subnet_given {
            self.subnet = subnet;
        }
        !self.subnet_given
    }
}

fn names(entries: &[Spanned<RegionEntry>]) -> Result<HashMap<String, usize>, Wrong> {
    let mut names = HashMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let name = &entry.get_ref().name;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let sound = (1..=32).contains(&name.get_ref().len()) && name.get_ref().chars().all(plain);
        let problem = match name.get_ref().as_str() {
            HOST => "host is the name of this machine; call the region otherwise".to_owned(),
            other if !sound => format!("{other:?}: a region's name is 1 to 32 of a-z, 0-9 and -"),
            other if names.insert(other.to_owned(), at).is_some() => format!("region {other} is there twice"),
            _ => continue,
        };
        return Err((name.span(), problem));
    }
    match names.len() {
        0 => Err((0..0, "there is no [[region]]".to_owned())),
        count if count > MOST_REGIONS => {
            Err((entries[MOST_REGIONS].span(), format!("{count} regions; {MOST_REGIONS} are possible")))
        }
        _ => Ok(names),
    }
}

fn regions(
    entries: &[Spanned<RegionEntry>],
    given: Option<Subnet>,
    subnet: Subnet,
) -> Result<Vec<Region>, Wrong> {
    let mut taken = HashMap::new();
    let mut regions = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let RegionEntry { name, address, .. } = entry.get_ref();
        let place = address.as_ref().map_or_else(|| name.span(), Spanned::span);
        let address = address.as_ref().map(|address| *address.get_ref());
        if let Some(address) = address {
            match given {
                None => {
                    return Err((place, "give network too, as the regions' addresses come from it".into()));
                }
                Some(subnet) if !subnet.has(address) => {
                    return Err((place, format!("{address} is not for a region in {subnet}")));
                }
                Some(_) => {}
            }
        }
        if let Some(other) = taken.insert(address.unwrap_or_else(|| subnet.nth(at)), name.get_ref()) {
            let address = address.unwrap_or_else(|| subnet.nth(at));
            return Err((place, format!("{} and {other} both have {address}", name.get_ref())));
        }
        regions.push(Region { name: name.get_ref().clone(), given: address });
    }
    Ok(regions)
}

fn number(region: &Spanned<String>, names: &HashMap<String, usize>) -> Result<usize, Wrong> {
    names.get(region.get_ref()).copied().ok_or_else(|| {
        let mut known: Vec<_> = names.keys().map(String::as_str).collect();
        known.sort_unstable();
        (region.span(), format!("there is no region {:?}, only {}", region.get_ref(), known.join(", ")))
    })
}

/// The links that are named, over the defaults, over the model.
fn shapes(file: &File, names: &HashMap<String, usize>, folder: &Path) -> Result<Vec<Vec<Shape>>, Wrong> {
    let count = names.len();
    let usual = file.defaults.over(Shape::default());
    let mut shapes = vec![vec![usual; count]; count];
    let mut set: HashMap<(usize, usize, &'static str), usize> = HashMap::new();
    for (number, entry) in file.link.iter().enumerate() {
        let settings = entry.get_ref().settings();
        if settings.keys().next().is_none() {
            let problem = "it sets nothing: give delay, jitter, loss, bandwidth or queue";
            return Err((entry.span(), problem.to_owned()));
        }
        for (from, to) in ends(entry, names)? {
            shapes[from][to] = settings.over(shapes[from][to]);
            for key in settings.keys() {
                if set.insert((from, to, key), number).is_some() {
                    return Err((entry.span(), format!("the {key} of this link has been set before")));
                }
            }
        }
    }
    let model = model(file, folder)?;
    let places = file.region.iter().map(place).collect::<Result<Vec<_>, Wrong>>()?;
    for from in 0..count {
        for to in (0..count).filter(|to| *to != from) {
            if file.defaults.delay.is_some() || set.contains_key(&(from, to, "delay")) {
                continue;
            }
            let one_way = model_ms(&model, &places[from], &places[to]).ok_or_else(|| {
                let unknown = if places[from].point.is_none() { from } else { to };
                let name = &file.region[unknown].get_ref().name;
                let problem = format!(
                    "{} is not on the router's map, so give its lat and lon, or the delay of each of its links",
                    name.get_ref()
                );
                (name.span(), problem)
            })?;
            shapes[from][to].delay = Delay(Duration::from_secs_f64(one_way / 2e3));
        }
    }
    Ok(shapes)
}

/// The directions that a link stands for.
fn ends(entry: &Spanned<LinkEntry>, names: &HashMap<String, usize>) -> Result<Vec<(usize, usize)>, Wrong> {
    let LinkEntry { between, from, to, .. } = entry.get_ref();
    let (from, to, both) = match (between, from, to) {
        (Some(between), None, None) => match &between.get_ref()[..] {
            [a, b] => (a, b, true),
            _ => return Err((between.span(), "between: give two regions".to_owned())),
        },
        (None, Some(from), Some(to)) => (from, to, false),
        _ => {
            let problem =
                "give between = [\"a\", \"b\"] for both directions, or from = \"a\" and to = \"b\" for one";
            return Err((entry.span(), problem.to_owned()));
        }
    };
    let (a, b) = (number(from, names)?, number(to, names)?);
    if a == b {
        return Err((to.span(), format!("{} and itself", to.get_ref())));
    }
    Ok(if both { vec![(a, b), (b, a)] } else { vec![(a, b)] })
}

fn model(file: &File, folder: &Path) -> Result<LatencyModel, Wrong> {
    let Some(rtt) = &file.rtt else { return Ok(LatencyModel::default()) };
    let source = match rtt.get_ref().as_str() {
        known @ ("published" | "model") => known.to_owned(),
        name => folder.join(name).to_string_lossy().into_owned(),
    };
    let backbone: Backbone = source.parse().map_err(|error| (rtt.span(), format!("rtt: {error}")))?;
    Ok(LatencyModel::new(backbone))
}

/// Where a region is, as far as one knows.
struct Place {
    on_map: Option<&'static geo::Region>,
    point: Option<Point>,
}

fn place(entry: &Spanned<RegionEntry>) -> Result<Place, Wrong> {
    let region = entry.get_ref();
    match (region.lat, region.lon) {
        (None, None) => {
            let on_map = geo::region(region.name.get_ref());
            Ok(Place { on_map, point: on_map.map(|region| region.point) })
        }
        (Some(lat), Some(lon)) => match Point::new(lat, lon) {
            Some(point) => Ok(Place { on_map: None, point: Some(point) }),
            None => Err((entry.span(), format!("lat {lat}, lon {lon} is no place on earth"))),
        },
        _ => Err((entry.span(), "give both lat and lon".to_owned())),
    }
}

/// The round trip by the model.
fn model_ms(model: &LatencyModel, from: &Place, to: &Place) -> Option<f64> {
    match (from.on_map, to.on_map) {
        (Some(from), Some(to)) => Some(model.between_ms(from, to)),
        _ => Some(model.between_places_ms(from.point?, to.point?)),
    }
}

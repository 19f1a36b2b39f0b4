//! Orders that change the network while it runs, and what it answers.
//!
//! ```text
//! partition fra iad,syd   cut both directions; partition fra -> iad only one; partition fra from all others
//! heal                    join everything again, or heal fra iad
//! delay fra iad 80ms      also jitter, loss, bandwidth, queue; fra -> iad for one direction
//! reset                   back to the topology
//! status                  what the links are like and what became of packets
//! ```

use super::link::{Change, Link};
use super::switch::Switch;
use super::topology::HOST;

mod status;
#[cfg(test)]
mod tests;

pub use status::Status;

/// What the orders are.
pub const HELP: &str = "\
A and B are regions, several with commas, or * for all regions; A B means both directions, A -> B that one, A alone
both directions to all other regions. host is this machine; it is meant only where it is named.
 partition A [B]       cut; what is under way still arrives
 heal [A [B]]          join what was cut
 delay A [B] 80ms      one way, for packets from now on
 jitter A [B] 5ms      what a packet takes longer at most
 loss A [B] 2%         the share that is lost
 bandwidth A [B] 10mbit    a second, or none for no limit
 queue A [B] 256KiB    what may wait for the bandwidth; more is dropped
 reset [A [B]]         back to the topology
 status [json]         links, packets, drops
 stop                  end the processes and remove the network";

/// An order.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Cut links.
    Partition(Ends),
    /// Join links.
    Heal(Ends),
    /// Change links.
    Change(Ends, Change),
    /// Back to the topology.
    Reset(Ends),
    /// Say how it is.
    Status {
        /// For programs.
        json: bool,
    },
    /// Say what orders there are.
    Help,
    /// End it all.
    Stop,
}

/// Which links.
#[derive(Debug, Clone, PartialEq)]
pub struct Ends {
    from: Group,
    to: Group,
    both: bool,
}

/// Some regions.
#[derive(Debug, Clone, PartialEq)]
enum Group {
    /// All regions and the machine itself.
    Everybody,
    /// All regions. The machine itself watches, and is meant only where it is named.
    Regions,
    Names(Vec<String>),
}

impl std::str::FromStr for Order {
    type Err = String;

    /// Reads a line.
    fn from_str(line: &str) -> Result<Self, String> {
        let spaced = line.replace("->", " -> ").replace('→', " -> ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let Some((verb, rest)) = words.split_first() else { return Err("help shows the orders".to_owned()) };
        let all = Ends { from: Group::Everybody, to: Group::Everybody, both: true };
        let some = |rest: &[&str]| if rest.is_empty() { Ok(all) } else { ends(verb, rest) };
        Ok(match (*verb, rest) {
            ("partition", rest) => Order::Partition(ends(verb, rest)?),
            ("heal", rest) => Order::Heal(some(rest)?),
            ("reset", rest) => Order::Reset(some(rest)?),
            ("status", []) => Order::Status { json: false },
            ("status", ["json"]) => Order::Status { json: true },
            ("help", []) => Order::Help,
            ("stop", []) => Order::Stop,
            ("status" | "help" | "stop", _) => return Err(format!("{verb} takes nothing more")),
            ("delay" | "jitter" | "loss" | "bandwidth" | "queue", rest) => {
                let Some((value, rest)) = rest.split_last() else {
                    return Err(format!("{verb}: of which link, and how much? (help shows the orders)"));
                };
                let change = match *verb {
                    "delay" => Change::Delay(value.parse()?),
                    "jitter" => Change::Jitter(value.parse()?),
                    "loss" => Change::Loss(value.parse()?),
                    "bandwidth" => Change::Bandwidth(value.parse()?),
                    _ => Change::Queue(value.parse()?),
                };
                Order::Change(ends(verb, rest)?, change)
            }
            (other, _) => return Err(format!("there is no order {other:?}; help shows them")),
        })
    }
}

fn ends(verb: &str, words: &[&str]) -> Result<Ends, String> {
    let (from, to, both) = match words {
        [from] if *from != "->" => (from, &"*", true),
        [from, "->", to] => (from, to, false),
        [from, to] if *from != "->" && *to != "->" => (from, to, true),
        _ => return Err(format!("{verb}: of which link? {verb} A B, {verb} A -> B or {verb} A")),
    };
    let group = |text: &str| match text {
        "*" => Group::Regions,
        names => Group::Names(names.split(',').map(str::to_owned).collect()),
    };
    Ok(Ends { from: group(from), to: group(to), both })
}

impl Group {
    fn ports(&self, switch: &Switch) -> Result<Vec<usize>, String> {
        let region = |at: &usize| switch.ports()[*at].name != HOST;
        let names = match self {
            Group::Everybody => return Ok((0..switch.ports().len()).collect()),
            Group::Regions => return Ok((0..switch.ports().len()).filter(region).collect()),
            Group::Names(names) => names,
        };
        let find = |name: &String| {
            let known =
                || switch.ports().iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ");
            let at = switch.ports().iter().position(|port| port.name == *name);
            at.ok_or_else(|| format!("there is no region {name:?}, only {}", known()))
        };
        names.iter().map(find).collect()
    }
}

impl Ends {
    /// The directions, each once.
    fn links(&self, switch: &Switch) -> Result<Vec<(usize, usize)>, String> {
        let (from, to) = (self.from.ports(switch)?, self.to.ports(switch)?);
        let mut links = Vec::new();
        for (a, b) in from.iter().flat_map(|a| to.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b) {
            links.push((a, b));
            if self.both {
                links.push((b, a));
            }
        }
        links.sort_unstable();
        links.dedup();
        if links.is_empty() { Err("that is no link: a region and itself".to_owned()) } else { Ok(links) }
    }
}

/// Carries out an order, and says what has been done. [`Order::Stop`] is for whoever holds the network.
///
/// # Errors
/// Names a region that is not there; nothing has changed then.
pub fn carry_out(order: &Order, switch: &mut Switch) -> Result<String, String> {
    let done = match order {
        Order::Partition(ends) => each(ends, switch, |link| link.cut(true))?,
        Order::Heal(ends) => each(ends, switch, |link| link.cut(false))?,
        Order::Reset(ends) => each(ends, switch, Link::reset)?,
        Order::Change(ends, change) => each(ends, switch, |link| link.change(*change))?,
        Order::Status { json: false } => return Ok(Status::of(switch).to_string()),
        Order::Status { json: true } => {
            return serde_json::to_string(&Status::of(switch)).map_err(|error| error.to_string());
        }
        Order::Help => return Ok(HELP.to_owned()),
        Order::Stop => return Ok("stopping".to_owned()),
    };
    let what = match order {
        Order::Partition(_) => "cut",
        Order::Heal(_) => "joined",
        Order::Reset(_) => "as in the topology",
        _ => "changed",
    };
    Ok(format!("{what}: {done}"))
}

/// Does something to each of the links, and names them.
fn each(ends: &Ends, switch: &mut Switch, mut change: impl FnMut(&mut Link)) -> Result<String, String> {
    let links = ends.links(switch)?;
    links.iter().for_each(|(from, to)| change(switch.link_mut(*from, *to)));
    let name = |at: usize| switch.ports()[at].name.as_str();
    Ok(links
        .iter()
        .map(|(from, to)| format!("{} -> {}", name(*from), name(*to)))
        .collect::<Vec<_>>()
        .join(", "))
}

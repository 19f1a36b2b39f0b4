//! The flags of `mychat sim streams`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// What to load, and how.
#[derive(Debug, Clone, Args)]
pub struct StreamsArgs {
    /// The nodes; clients are spread over them, and go to the next one when theirs is gone [example: --nodes
    /// http://127.0.0.1:8081 http://127.0.0.1:8082]
    #[arg(long, value_name = "URL", num_args = 1.., value_delimiter = ',', required_unless_present = "peer")]
    pub nodes: Vec<String>,

    /// Event streams held open at the same time
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub clients: u32,

    /// Messages a second, over all spaces; 0 posts none, and only holds the streams
    #[arg(long, value_name = "R", default_value_t = 10.0, value_parser = rate)]
    pub rate: f64,

    /// Spaces that the clients and messages are spread over; each stream is about one of them
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub spaces: u32,

    /// Accounts that the streams belong to [default: as many as spaces, 16 at most]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub accounts: Option<u32>,

    /// For how long messages are posted [example: --duration 60s]
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    pub duration: Duration,

    /// Bytes of the text of each message
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u32).range(64..=16_000))]
    pub size: u32,

    /// How many of a hundred clients stop reading once their stream has begun [example: --stalled 1%]
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0, value_parser = percent)]
    pub stalled: f64,

    /// Streams that are closed each second, and come back with their cursor
    #[arg(long, value_name = "N", default_value_t = 0.0, value_parser = rate)]
    pub churn: f64,

    /// Connections that are being made at the same time
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub connecting: u32,

    /// Threads that read
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,

    /// Messages that are posted at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub posting: u32,

    /// How long to wait at the end until every client has everything
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    pub settle: Duration,

    /// Server processes on this machine, whose time on processors and memory is reported (Linux) [example: --pid 4711]
    #[arg(long, value_name = "PID", num_args = 1.., value_delimiter = ',')]
    pub pid: Vec<u32>,

    /// Post nothing: hold the streams, and report what each takes in the memory of the servers of --pid
    #[arg(long, conflicts_with_all = ["until_p99", "kill", "peer"])]
    pub idle: bool,

    /// Open the streams over TLS at these proxies, one for each of the nodes; certificates are not checked, and all calls
    /// go to the nodes themselves [example: --tls 127.0.0.1:8443]
    #[arg(long, value_name = "ADDR", num_args = 1.., value_delimiter = ',', conflicts_with = "peer")]
    pub tls: Vec<String>,

    /// Raise the rate step by step, from --rate on, until the 99th percentile of post to event is above this [example:
    /// --until-p99 1s]
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with_all = ["kill", "peer", "marks"])]
    pub until_p99: Option<Duration>,

    /// How long each of these steps is
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time)]
    pub step: Duration,

    /// Kill this process (SIGKILL), a node of this machine, in the middle of the run, and time the failover [example: --kill
    /// 4711]
    #[arg(long, value_name = "PID", conflicts_with = "peer")]
    pub kill: Option<u32>,

    /// Open the streams at the first so many of the nodes; the others are for those whose node is gone [default: at all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub homes: Option<u32>,

    /// Print a line of figures each time this long has passed, for runs of hours [example: --marks 5m]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub marks: Option<Duration>,

    /// Compare with another server: this program starts a node, that server, a bare loop of send(2), and one that syncs
    /// each message to the disk before, and loads each in turn with the same number of equally long events
    #[arg(long, value_name = "SERVER", conflicts_with = "nodes")]
    pub peer: Option<Peer>,

    /// Only load a server of that kind which runs already: where it publishes by POST and subscribes by GET; {} stands for
    /// the channel [example: --peer-url http://127.0.0.1:8090/pub/{} http://127.0.0.1:8090/sub/{}]
    #[arg(long, value_name = "URL", num_args = 2, requires = "peer")]
    pub peer_url: Vec<String>,

    /// How often each server of a comparison has its turn; medians are reported
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,

    /// Worker processes of the other server [default: one for each processor]
    #[arg(long, value_name = "N", requires = "peer", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: Option<u32>,

    /// Also write the report to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Another server of event streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// nchan, a module of nginx (on Debian: `apt install nginx libnginx-mod-nchan`).
    Nchan,
}

impl StreamsArgs {
    /// The defaults, as the flags have them.
    pub(crate) fn of_nodes(nodes: Vec<String>) -> Self {
        Self {
            nodes,
            clients: 1000,
            rate: 10.0,
            spaces: 1,
            accounts: None,
            duration: Duration::from_secs(30),
            size: 200,
            stalled: 0.0,
            churn: 0.0,
            connecting: 256,
            threads: 1,
            posting: 16,
            settle: Duration::from_secs(30),
            pid: Vec::new(),
            idle: false,
            tls: Vec::new(),
            until_p99: None,
            step: Duration::from_secs(5),
            kill: None,
            homes: None,
            marks: None,
            peer: None,
            peer_url: Vec::new(),
            rounds: 3,
            workers: None,
            json: None,
        }
    }

    /// Whether nothing is posted.
    pub(super) fn is_silent(&self) -> bool {
        self.idle || self.rate == 0.0
    }

    /// How many accounts there are.
    pub(super) fn account_count(&self) -> usize {
        self.accounts.unwrap_or(self.spaces.min(16)) as usize
    }

    /// How many clients don't read.
    pub(super) fn stalled_count(&self) -> u32 {
        (f64::from(self.clients) * self.stalled / 100.0).round() as u32
    }
}

/// How often a second: never, or so that the time between two can be counted.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate == 0.0 || (1e-6..=1e6).contains(&rate) => Ok(rate),
        _ => Err("it must be 0, or a number from 0.000001 to 1000000".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("it must be a number from 0 to 100".to_owned()),
    }
}

/// Seconds, or a number with one of the units ms, s, m, h.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("it must be a time, such as 30s or 5m".to_owned()),
    };
    let number = digits.parse::<f64>().map_err(|_| "it must be a time, such as 30s or 5m".to_owned())?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        args: StreamsArgs,
    }

    fn parse(line: &str) -> Result<StreamsArgs, String> {
        Program::try_parse_from(line.split(' '))
            .map(|program| program.args)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn flags_are_read() {
        let args =
            parse("x --nodes http://a:1 http://b:2 --clients 10000 --rate 2.5 --stalled 1% --duration 5m")
                .expect("good flags");
        assert_eq!((args.nodes.len(), args.clients, args.stalled_count()), (2, 10_000, 100));
        assert_eq!((args.duration, args.account_count()), (Duration::from_secs(300), 1));
        let args = parse("x --peer nchan --peer-url http://a/pub/{} http://a/sub/{}").expect("good flags");
        assert_eq!((args.peer, args.peer_url.len()), (Some(Peer::Nchan), 2));
    }

    #[test]
    fn the_defaults_are_those_of_the_flags() {
        let parsed = parse("x --nodes http://a:1").expect("good flags");
        assert_eq!(
            format!("{parsed:?}"),
            format!("{:?}", StreamsArgs::of_nodes(vec!["http://a:1".to_owned()]))
        );
    }

    #[test]
    fn bad_flags_are_refused_by_name() {
        for (line, name) in [
            ("x", "--nodes"),
            ("x --nodes http://a:1 --rate=-1", "--rate"),
            ("x --nodes http://a:1 --churn 1e12", "--churn"),
            ("x --nodes http://a:1 --churn 1e-30", "--churn"),
            ("x --nodes http://a:1 --stalled 101", "--stalled"),
            ("x --nodes http://a:1 --duration soon", "--duration"),
            ("x --peer nchan --nodes http://a:1", "--nodes"),
            ("x --nodes http://a:1 --idle --kill 4", "--idle"),
            ("x --nodes http://a:1 --clients 0", "--clients"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(name), "{error}");
        }
    }
}

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

    /// How many of a hundred clients stop reading once their stream has begun
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

    /// Load another server in place of nodes, for comparison
    #[arg(long, value_name = "SERVER", requires = "peer_url")]
    pub peer: Option<Peer>,

    /// Where that server publishes by POST and subscribes by GET; {} stands for the channel [example: --peer-url
    /// http://127.0.0.1:8090/pub/{} http://127.0.0.1:8090/sub/{}]
    #[arg(long, value_name = "URL", num_args = 2, requires = "peer")]
    pub peer_url: Vec<String>,

    /// Also write the report to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Another server of event streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// nchan, a module of nginx: a location with `nchan_publisher`, and one with `nchan_subscriber eventsource`.
    Nchan,
}

impl StreamsArgs {
    /// How many accounts there are.
    pub(super) fn account_count(&self) -> usize {
        self.accounts.unwrap_or(self.spaces.min(16)) as usize
    }

    /// How many clients don't read.
    pub(super) fn stalled_count(&self) -> u32 {
        (f64::from(self.clients) * self.stalled / 100.0).round() as u32
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        _ => Err("it must be a number, 0 or more".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
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
            parse("x --nodes http://a:1 http://b:2 --clients 10000 --rate 2.5 --stalled 1 --duration 5m")
                .expect("good flags");
        assert_eq!((args.nodes.len(), args.clients, args.stalled_count()), (2, 10_000, 100));
        assert_eq!((args.duration, args.account_count()), (Duration::from_secs(300), 1));
        let args = parse("x --peer nchan --peer-url http://a/pub/{} http://a/sub/{}").expect("good flags");
        assert_eq!((args.peer, args.peer_url.len()), (Some(Peer::Nchan), 2));
    }

    #[test]
    fn bad_flags_are_refused_by_name() {
        for (line, name) in [
            ("x", "--nodes"),
            ("x --nodes http://a:1 --rate=-1", "--rate"),
            ("x --nodes http://a:1 --stalled 101", "--stalled"),
            ("x --nodes http://a:1 --duration soon", "--duration"),
            ("x --peer nchan", "--peer-url"),
            ("x --nodes http://a:1 --clients 0", "--clients"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(name), "{error}");
        }
    }
}

//! MyChat beside another server and the bare loops of send(2): each in turn, several rounds, the same number of equally long
//! events.

use std::fmt;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use indicatif::MultiProgress;
use serde::Serialize;

use super::{args::StreamsArgs, limits, report::Report, run_one, servers::Own};
use crate::bench::sheet::median;

/// What the other servers' events have around the text, in bytes: `id`, `data` and the members of the JSON.
const AROUND_NCHAN: u64 = 36;
const AROUND_LOOP: u64 = 19;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum System {
    #[serde(rename = "mychat")]
    MyChat,
    Nchan,
    SendLoop,
    /// Which also brings each message to the disk.
    DurableLoop,
}

impl System {
    const ALL: [Self; 4] = [Self::MyChat, Self::Nchan, Self::SendLoop, Self::DurableLoop];

    const fn name(self) -> &'static str {
        match self {
            Self::MyChat => "MyChat",
            Self::Nchan => "nchan",
            Self::SendLoop => "send(2) loop",
            Self::DurableLoop => "send(2) loop with fsync",
        }
    }
}

/// All rounds.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    rounds: Vec<Turn>,
    medians: Vec<Medians>,
}

/// One server's turn.
#[derive(Debug, Serialize)]
struct Turn {
    system: System,
    report: Report,
}

/// Of one server.
#[derive(Debug, Clone, Serialize)]
struct Medians {
    system: System,
    event_bytes: f64,
    /// Seconds on processors for a million deliveries.
    cpu_s_per_million: f64,
    p50_ms: f64,
    p99_ms: f64,
    deliveries_per_s: f64,
    bytes_per_stream: f64,
}

/// Starts each server in turn, and loads it.
pub(super) async fn run(args: &StreamsArgs, progress: &MultiProgress) -> anyhow::Result<Comparison> {
    limits::raise(args.clients)?;
    let workers = args.workers.unwrap_or_else(|| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        u32::try_from(processors).unwrap_or(1)
    });
    let mut rounds: Vec<Turn> = Vec::new();
    let mut event_bytes = 0;
    for round in 1..=args.rounds {
        for system in System::ALL {
            progress.suspend(|| eprintln!("round {round} of {}: {}", args.rounds, system.name()));
            let own = match system {
                System::MyChat => Own::node(args.clients).await,
                System::Nchan => Own::nchan(args.clients, workers).await,
                System::SendLoop => Own::send_loop(args.clients, false).await,
                System::DurableLoop => Own::send_loop(args.clients, true).await,
            };
            let own = own.with_context(|| format!("{} can't be started", system.name()))?;
            let mut turn = StreamsArgs { pid: own.pids(), ..args.clone() };
            let around = match system {
                System::MyChat => None,
                System::Nchan => Some(AROUND_NCHAN),
                System::SendLoop | System::DurableLoop => Some(AROUND_LOOP),
            };
            if let Some(around) = around {
                turn.size = u32::try_from(event_bytes - around).unwrap_or(turn.size);
                turn.peer_url =
                    ["pub", "sub"].map(|path| format!("http://{}/{path}/{{}}", own.address)).to_vec();
            } else {
                (turn.peer, turn.nodes) = (None, vec![format!("http://{}", own.address)]);
            }
            let report = run_one(&turn, progress).await.with_context(|| system.name().to_owned())?;
            own.stop().await?;
            if system == System::MyChat {
                event_bytes = report.event_bytes.max(100);
            }
            rounds.push(Turn { system, report });
        }
    }
    let medians = System::ALL.map(|system| medians(system, &rounds));
    Ok(Comparison { rounds, medians: medians.to_vec() })
}

fn medians(system: System, rounds: &[Turn]) -> Medians {
    let of = |figure: fn(&Report) -> f64| {
        let turns = rounds.iter().filter(|turn| turn.system == system);
        median(turns.map(|turn| figure(&turn.report)).collect())
    };
    Medians {
        system,
        event_bytes: of(|report| report.event_bytes as f64),
        cpu_s_per_million: of(|report| report.server_cpu_us_per_delivery.unwrap_or(f64::NAN)),
        p50_ms: of(|report| report.delivery_ms.p50),
        p99_ms: of(|report| report.delivery_ms.p99),
        deliveries_per_s: of(|report| report.deliveries_per_s),
        bytes_per_stream: of(|report| report.server_bytes_per_stream.unwrap_or(f64::NAN)),
    }
}

impl Comparison {
    /// What must not be: of MyChat, since the others do not promise it.
    pub(super) fn faults(&self) -> Vec<String> {
        let mine = self.rounds.iter().filter(|turn| turn.system == System::MyChat);
        mine.flat_map(|turn| turn.report.faults()).collect()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Turn { report, .. }) = self.rounds.first() {
            writeln!(
                f,
                "{} streams in {} spaces, {:.1} messages/s; medians of {} rounds",
                report.streams,
                report.spaces,
                report.posted_per_s,
                self.rounds.len() / self.medians.len().max(1)
            )?;
        }
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header([
            "",
            "event bytes",
            "CPU s per million",
            "deliveries per CPU s",
            "p50 ms",
            "p99 ms",
            "deliveries/s",
            "bytes per idle stream",
        ]);
        let mine = self.medians.first().map_or(f64::NAN, |medians| medians.cpu_s_per_million);
        for medians in &self.medians {
            table.add_row([
                medians.system.name().to_owned(),
                format!("{:.0}", medians.event_bytes),
                format!("{:.2}", medians.cpu_s_per_million),
                format!(
                    "{:.0} (MyChat: ×{:.2})",
                    1e6 / medians.cpu_s_per_million,
                    medians.cpu_s_per_million / mine
                ),
                format!("{:.1}", medians.p50_ms),
                format!("{:.1}", medians.p99_ms),
                format!("{:.0}", medians.deliveries_per_s),
                format!("{:.0}", medians.bytes_per_stream),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")
    }
}

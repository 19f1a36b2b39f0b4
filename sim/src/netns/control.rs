//! How orders come in while a network runs: lines of the standard input, and a socket for `mychat sim wan-ctl`.
//!
//! On the socket one line is an order; the answer is `ok` or `error` on a line, and then what there is to say.

use std::io::{BufRead, Read};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::runs;

/// The longest order, in bytes.
const ORDER: u64 = 4_096;
/// How long somebody may take to say it, or the run to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Orders that wait; whoever has another one waits too.
const WAITING: usize = 16;

/// An order that somebody has given, and where the answer goes.
pub(super) struct Asked {
    pub(super) order: String,
    pub(super) answer: oneshot::Sender<Result<String, String>>,
}

/// All orders, in the order in which they come.
pub(super) type Orders = mpsc::Receiver<Asked>;

/// Takes orders from a socket and from the standard input.
pub(super) fn listen(socket: &Path) -> anyhow::Result<Orders> {
    let (sender, orders) = mpsc::channel(WAITING);
    // A socket that a killed run of the same number has left.
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).with_context(|| format!("{}: no socket", socket.display()))?;
    restrict(socket)?;
    tokio::spawn(accept(listener, sender.clone()));
    // A thread of its own, which nobody waits for: reading can't be ended.
    std::thread::Builder::new().name("orders".to_owned()).spawn(move || read_lines(&sender))?;
    Ok(orders)
}

/// Only whoever may make a network may steer it.
fn restrict(socket: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(())
}

fn read_lines(orders: &mpsc::Sender<Asked>) {
    let mut input = std::io::stdin().lock();
    loop {
        let line = match next_line(&mut input) {
            Ok(Some(Ok(line))) => line,
            Ok(Some(Err(problem))) => {
                eprintln!("mychat: {problem}");
                continue;
            }
            // Text that is none ends it, as the end does; the socket is still there.
            Ok(None) | Err(_) => return,
        };
        if line.trim().is_empty() {
            continue;
        }
        let (answer, answered) = oneshot::channel();
        if orders.blocking_send(Asked { order: line, answer }).is_err() {
            return;
        }
        match answered.blocking_recv() {
            Ok(Ok(text)) => println!("{text}"),
            Ok(Err(problem)) => eprintln!("mychat: {problem}"),
            Err(_) => return,
        }
    }
}

/// The next line, or that it is too long for an order, when it has been passed over; `None` at the end.
fn next_line(input: &mut impl BufRead) -> std::io::Result<Option<Result<String, String>>> {
    let mut line = String::new();
    if input.by_ref().take(ORDER).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    if line.len() as u64 == ORDER && !line.ends_with('\n') {
        input.skip_until(b'\n')?;
        return Ok(Some(Err(too_long())));
    }
    Ok(Some(Ok(line)))
}

async fn accept(listener: UnixListener, orders: mpsc::Sender<Asked>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let serving = serve(stream, orders.clone());
                tokio::spawn(async move {
                    // Whoever has gone away or says nothing needs no answer.
                    let _ = tokio::time::timeout(PATIENCE, serving).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no order can be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, orders: mpsc::Sender<Asked>) -> std::io::Result<()> {
    let (from, mut to) = stream.into_split();
    let mut order = String::new();
    BufReader::new(from.take(ORDER)).read_line(&mut order).await?;
    let text = match carried_out(order, &orders).await {
        Ok(text) => format!("ok\n{text}\n"),
        Err(problem) => format!("error\n{problem}\n"),
    };
    to.write_all(text.as_bytes()).await?;
    to.shutdown().await
}

/// What the run answers.
async fn carried_out(order: String, orders: &mpsc::Sender<Asked>) -> Result<String, String> {
    // What is left of a longer one would mean something else.
    if order.len() as u64 >= ORDER {
        return Err(too_long());
    }
    let stopping = || "it is stopping".to_owned();
    let (answer, answered) = oneshot::channel();
    orders.send(Asked { order, answer }).await.map_err(|_| stopping())?;
    answered.await.unwrap_or_else(|_| Err(stopping()))
}

fn too_long() -> String {
    format!("an order has less than {ORDER} bytes")
}

/// The settings of `mychat sim wan-ctl`.
#[derive(Debug, Clone, Args)]
pub struct ControlArgs {
    /// The network, by the number that it shows when it starts; not needed when there is only one.
    #[arg(long, value_name = "N")]
    run: Option<u32>,
    /// The order.
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true, value_name = "ORDER")]
    order: Vec<String>,
}

/// Gives an order to a running network and prints the answer.
pub async fn run(args: ControlArgs) -> anyhow::Result<()> {
    let socket = runs::find(args.run)?;
    let order = args.order.join(" ");
    let asking = ask(&socket, &order);
    let answer = tokio::time::timeout(2 * PATIENCE, asking).await.context("no answer comes")??;
    println!("{answer}");
    Ok(())
}

async fn ask(socket: &Path, order: &str) -> anyhow::Result<String> {
    // With its line's end it has one byte more.
    ensure!((order.len() as u64) < ORDER - 1, too_long());
    let stream = UnixStream::connect(socket).await;
    let mut stream = stream.with_context(|| format!("{} can't be reached", socket.display()))?;
    stream.write_all(format!("{order}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.trim_end().split_once('\n') {
        Some(("ok", text)) => Ok(text.to_owned()),
        Some(("error", problem)) => bail!("{problem}"),
        _ => bail!("no answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_passed_over() {
        let long = "x".repeat(3 * ORDER as usize);
        let text = format!("status\n{long}\nheal");
        let mut input = text.as_bytes();
        let mut next = || next_line(&mut input).unwrap();
        assert_eq!(next(), Some(Ok("status\n".to_owned())));
        assert_eq!(next(), Some(Err(too_long())));
        assert_eq!(next(), Some(Ok("heal".to_owned())));
        assert_eq!(next(), None);
    }

    #[tokio::test]
    async fn orders_are_answered_over_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("x.sock");
        let (sender, mut orders) = mpsc::channel(WAITING);
        tokio::spawn(accept(UnixListener::bind(&socket).unwrap(), sender));
        let answering = tokio::spawn(async move {
            while let Some(asked) = orders.recv().await {
                let answer = match asked.order.trim() {
                    "status" => Ok("two\nlines".to_owned()),
                    other => Err(format!("no {other}")),
                };
                asked.answer.send(answer).unwrap();
            }
        });
        assert_eq!(ask(&socket, "status").await.unwrap(), "two\nlines");
        assert_eq!(ask(&socket, "fly").await.unwrap_err().to_string(), "no fly");
        let long = "x".repeat(ORDER as usize);
        assert!(ask(&socket, &long).await.unwrap_err().to_string().contains("4096"));
        // Somebody else may not look at the length: half of the order is not carried out.
        let mut raw = UnixStream::connect(&socket).await.unwrap();
        raw.write_all(long.as_bytes()).await.unwrap();
        let mut answer = String::new();
        raw.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "error\nan order has less than 4096 bytes\n");
        answering.abort();
        assert!(answering.await.unwrap_err().is_cancelled());
        assert_eq!(ask(&socket, "status").await.unwrap_err().to_string(), "it is stopping");
    }
}

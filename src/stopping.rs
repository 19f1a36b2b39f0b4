//! When to stop: on Ctrl-C or SIGTERM; at the second of them at once.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for the first signal. From then on a second one ends the process without further ado.
pub async fn asked() -> anyhow::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        eprintln!("mychat: stopped at once");
        std::process::exit(130);
    });
    Ok(())
}

//! The connections: accepting, limits and the orderly stop. What is said on them is `http.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tower::ServiceExt;

/// How often a client of HTTP/2 has to show that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Pause after a failed accept: these fail when descriptors run out, and trying at once would only burn the CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits of the server.
pub(crate) struct Limits {
    /// Connections at a time. Further ones wait in the kernel's queue, and are refused there when that is full.
    pub(crate) connections: usize,
    /// How long a client may take for the head of a request, idle time before it included.
    pub(crate) head: Duration,
    /// How long (on Linux) a client may leave what was sent to it unacknowledged, or take nothing of it.
    pub(crate) unacknowledged: Duration,
    /// How long open requests may go on after the stop was asked for; then they are cut.
    pub(crate) grace: Duration,
}

/// Serves until `shutdown` resolves and the open requests have ended or their grace is over.
pub(crate) async fn run(
    listener: TcpListener,
    app: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = std::pin::pin!(shutdown);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            (slot, stream, peer) = accept(&listener, &slots) => {
                if let Err(error) = prepare(&stream, limits.unacknowledged) {
                    tracing::debug!(%peer, %error, "a connection was gone at once");
                }
                let serving = serve_connection(stream, peer, app.clone(), graceful.watcher(), limits.head);
                connections.spawn(async move {
                    let _slot = slot;
                    serving.await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    if tokio::time::timeout(limits.grace, graceful.shutdown()).await.is_err() {
        tracing::info!(open = connections.len(), "closing connections that are still busy");
    }
    connections.shutdown().await;
}

/// The next connection, once there is room for one. Cancelling it loses none.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (Option<OwnedSemaphorePermit>, TcpStream, SocketAddr) {
    // The semaphore is never closed, so this is always a permit.
    let slot = slots.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (slot, stream, peer),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Sets what a connection needs of the system.
fn prepare(stream: &TcpStream, unacknowledged: Duration) -> std::io::Result<()> {
    // Redirects are single small writes, and events must not wait to be merged.
    stream.set_nodelay(true)?;
    // The stream of a client that has vanished, or reads no more, would stay open at its node too.
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(unacknowledged))?;
    #[cfg(not(target_os = "linux"))]
    let _ = unacknowledged;
    Ok(())
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    watcher: Watcher,
    head: Duration,
) {
    let first = Arc::new(Notify::new());
    let asked = Arc::clone(&first);
    let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
        asked.notify_one();
        request.extensions_mut().insert(ConnectInfo(peer));
        app.clone().oneshot(request.map(Body::new))
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE);
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    // The server itself waits for ever for the bytes by which it tells the versions of HTTP apart.
    let silent = async {
        if tokio::time::timeout(head, first.notified()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = watcher.watch(connection) => {
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "a connection ended early");
            }
        }
        () = silent => tracing::debug!(%peer, "a connection without a request is closed"),
    }
}

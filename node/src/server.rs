//! [`Node`]: a running node. Opens the database, joins the other nodes, serves HTTP, and goes out of service cleanly.

mod calls;
mod takeover;

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, PoisonError},
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use mychat_replication::{
    cluster::ClusterKey,
    mesh::MeshError,
    store::{OpenError, Store, StoreError},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tower::Service;

use self::calls::Calls;
use crate::{
    app::App,
    cluster::{Cluster, Joining},
    config::{Listen, NodeConfig},
    derive::{Derived, schema},
    erasure,
    events::turns::Turns,
    http,
};

/// The database's file in the data folder.
const DATABASE: &str = "mychat.db";
/// How long a connection that gets no more calls may take to read the answers to those that it has made.
const LAST_ANSWERS: Duration = Duration::from_secs(300);
/// How long (on Linux) a client may leave what was sent to it unacknowledged: one that has vanished without a word is found by the
/// pings of its stream, at the latest this long after one.
const UNACKNOWLEDGED: Duration = Duration::from_secs(40);
/// The pause after the system could not give a connection, which goes on for as long as it is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that may wait in the system's queue; the system may allow fewer.
const WAITING_CONNECTIONS: i32 = 4096;
/// The largest head of a call, and what is read ahead of a body, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database can't be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The node has to go on under a new site id, and the disk refuses.
    #[error("the disk may be an older copy, and the node can't go on under a new site id: {0}")]
    Renewal(#[from] StoreError),
    /// The HTTP address can't be used.
    #[error("cannot serve HTTP at {at}: {source}")]
    Http {
        /// The address.
        at: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The other nodes can't be joined.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The configuration has been used for another node.
    #[error("the configuration has no HTTP address left: it starts one node only")]
    Used,
}

/// A running node.
pub struct Node {
    app: App,
    http: SocketAddr,
    /// No new calls.
    stop: CancellationToken,
    serving: JoinHandle<()>,
    /// None when it runs alone.
    cluster: Option<Cluster>,
}

impl Node {
    /// Starts a node; when it returns, calls are answered.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        // Before the first metric is recorded, or it is lost.
        http::node_info::recorder();
        let listener = bind(&config).await?;
        let http =
            listener.local_addr().map_err(|source| StartError::Http { at: "its address".into(), source })?;
        let path = config.data.join(DATABASE);
        let derived = Derived::default();
        let standings = derived.standings();
        let store = tokio::task::spawn_blocking(move || Store::open(&path, &schema(), Box::new(derived)))
            .await
            .map_err(|error| StartError::Http { at: http.to_string(), source: error.into() })??;

        let mesh = config.mesh.lock().unwrap_or_else(PoisonError::into_inner).take();
        let joining = match mesh {
            Some(mesh) => Some(Joining::start(mesh, &store).await?),
            None => None,
        };
        if joining.is_none() && store.was_in_doubt() {
            // With others, replication sees to it.
            store.renew_site().await?;
        }
        let app = App::new(store, standings, Arc::new(config), joining.as_ref().map(Joining::mesh));
        // With others it depends on what they say.
        app.condition.set_ready(joining.is_none());
        let cluster = joining.map(|joining| joining.join(&app));

        let stop = CancellationToken::new();
        let expiring = http::expiry::run(app.store.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(expiring));
        tokio::spawn(stop.clone().run_until_cancelled_owned(erasure::run(app.clone())));
        tokio::spawn(stop.clone().run_until_cancelled_owned(http::node_info::upkeep()));
        let serving = tokio::spawn(serve(listener, http::router(app.clone()), app.clone(), stop.clone()));
        tracing::info!(node = %app.node(), region = app.config.region, %http, url = app.config.public_url, "the node serves");
        Ok(Self { app, http, stop, serving, cluster })
    }

    /// The node's parts.
    #[must_use]
    pub const fn app(&self) -> &App {
        &self.app
    }

    /// Takes another value of the cluster's key: the next step of its rotation. Sessions and connections go on.
    ///
    /// # Errors
    /// When no certificate can be made with it; then nothing has changed.
    pub fn rekey(&self, key: &ClusterKey) -> Result<(), MeshError> {
        if let Some(mesh) = &self.app.mesh {
            mesh.rekey(key)?;
        }
        self.app.keys.rekey(key);
        Ok(())
    }

    /// Where HTTP is served.
    #[must_use]
    pub const fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// Goes out of service: says so, lets calls that are under way end, for [`crate::config::Limits::drain`] at most, and closes the
    /// database.
    pub async fn shutdown(self) {
        self.app.condition.drain();
        self.app.events.end_all("draining", &self.app.alternatives());
        self.stop.cancel();
        if self.serving.await.is_err() {
            tracing::error!("the HTTP server had failed");
        }
        if let Some(cluster) = self.cluster {
            cluster.leave().await;
        }
        self.app.store.close().await;
        tracing::info!(node = %self.app.node(), "the node has stopped");
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.app.node()).field("http", &self.http).finish_non_exhaustive()
    }
}

async fn bind(config: &NodeConfig) -> Result<TcpListener, StartError> {
    let listen = config.http.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or(StartError::Used)?;
    match listen {
        Listen::Address(at) => TcpListener::bind(at)
            .await
            .and_then(lengthen)
            .map_err(|source| StartError::Http { at: at.to_string(), source }),
        Listen::Socket(socket) => socket
            .set_nonblocking(true)
            .and_then(|()| TcpListener::from_std(socket))
            .and_then(lengthen)
            .map_err(|source| StartError::Http { at: "the given socket".into(), source }),
    }
}

/// Lets many clients wait in the system's queue: when a node dies, its clients come to the others together.
fn lengthen(listener: TcpListener) -> std::io::Result<TcpListener> {
    socket2::SockRef::from(&listener).listen(WAITING_CONNECTIONS)?;
    Ok(listener)
}

/// Takes connections until `stop`, then waits for what is under way.
async fn serve(listener: TcpListener, router: Router, app: App, stop: CancellationToken) {
    let limits = app.config.limits;
    let places = Arc::new(Semaphore::new(limits.connections));
    let turns = Turns::default();
    let (server, kill) = (Arc::new(server(limits.idle)), CancellationToken::new());
    while let Some((stream, peer, place)) = accept(&listener, &places, &stop).await {
        let (router, server, turns) = (router.clone(), Arc::clone(&server), turns.clone());
        let (idle, stop, kill) = (limits.idle, stop.clone(), kill.clone());
        tokio::spawn(async move {
            let calls = Calls::none();
            let last = ending(&calls, idle, &stop);
            let first = tokio::select! {
                first = takeover::first_call(stream, peer, place, &router, &turns, last, &stop) => first,
                () = kill.cancelled() => return,
            };
            match first {
                // In a task of its own, so that a stream's task is no larger than it has to be.
                Ok(Some((stream, place))) => {
                    tokio::spawn(async move {
                        let _place = place;
                        let last = ending(&calls, idle, &stop);
                        tokio::select! {
                            () = answer(&server, router, stream, peer, &calls, last) => {}
                            () = kill.cancelled() => {}
                        }
                    });
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%peer, %error, "a connection broke"),
            }
        });
    }
    drop(listener);
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    if tokio::time::timeout(limits.drain, places.acquire_many(all)).await.is_err() {
        tracing::warn!("some calls did not end in time and are cut off");
    }
    kill.cancel();
    app.events.cut();
}

/// Waits until a connection should get no more calls.
async fn ending(calls: &Calls, idle: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = calls.none_for(idle) => {}
        () = stop.cancelled() => {}
    }
}

/// Answers the calls of a connection, one after the other or many at once, those that come before `last` is there.
async fn answer(
    server: &auto::Builder<TokioExecutor>,
    router: Router,
    stream: TcpStream,
    peer: SocketAddr,
    calls: &Calls,
    last: impl Future<Output = ()>,
) {
    let counted = calls.clone();
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let (call, answered) = (counted.begin(), router.clone().call(request));
        async move { Ok::<_, Infallible>(answered.await?.map(|body| call.until_taken(body))) }
    });
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = last => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(LAST_ANSWERS, connection).await.unwrap_or_else(|late| Err(late.into()))
        }
    };
    if let Err(error) = ended {
        // Clients go away and send what is no HTTP: nothing to do about either.
        tracing::debug!(%peer, %error, "a connection broke");
    }
}

/// The next connection; none once the node stops. While all places are taken, clients wait in the system's queue.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    stop: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let next = async {
        let place = Arc::clone(places).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    if let Err(error) = prepare(&stream) {
                        tracing::debug!(%peer, %error, "a connection was gone at once");
                    }
                    return Some((stream, peer, place));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        next = next => next,
        () = stop.cancelled() => None,
    }
}

/// Sets what a connection of ours needs of the system.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    // Small events must not wait for more to come.
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

/// HTTP/1.1 and HTTP/2 on one port, with bounds on what a client can make it hold.
fn server(idle: Duration) -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(idle).max_buf_size(MAX_HEAD);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(128)
        .max_header_list_size(MAX_HEAD as u32);
    server
}

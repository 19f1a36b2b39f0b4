//! Makes connections: to the seeds for ever, and to each member for as long as it is up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use quinn::Connection;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::endpoint::{canonical, reachable};
use super::links::{self, Goodbye};
use super::peers::{Install, Unwanted};
use super::refusal::Direction;
use super::shared::Shared;
use super::{greeting, tls};
use crate::identity::NodeId;
use crate::membership::Member;

/// How long the handshake and the greeting may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// When to look again at a seed that turned out to be this member: its name may come to mean another.
const MYSELF: Duration = Duration::from_secs(30);
/// A connection that lived this long was a success.
const STABLE: Duration = Duration::from_secs(5);

/// Why an attempt to connect gave no connection.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("it is this member itself")]
    Myself,
    #[error("another process has this member's node id")]
    Double,
    #[error("there is a connection to {0} already")]
    Connected(NodeId),
    #[error("a younger process has the peer's node id")]
    Outdated,
    #[error("no answer in time")]
    Silence,
    #[error("{0}")]
    Failed(String),
}

/// Keeps a connection to whoever answers at a seed's address.
pub(crate) async fn seed(shared: Arc<Shared>, seed: String) {
    let mut backoff = Backoff::default();
    loop {
        match try_seed(&shared, &seed).await {
            Ok(connection) => sleep(outlive(&connection, &mut backoff).await).await,
            Err(DialError::Myself) => sleep(MYSELF).await,
            Err(error) => {
                let pause = backoff.pause();
                if backoff.is_first() {
                    info!(%seed, %error, "cannot reach a seed yet; trying on");
                } else {
                    debug!(%seed, %error, ?pause, "cannot reach a seed");
                }
                sleep(pause).await;
            }
        }
    }
}

/// The connection to whoever listens at a seed's address, new or already there.
async fn try_seed(shared: &Arc<Shared>, seed: &str) -> Result<Connection, DialError> {
    let addrs = tokio::net::lookup_host(seed).await.map_err(failed)?;
    let mut last = DialError::Failed("the name has no address that this member can send to".to_owned());
    for addr in addrs.map(canonical).filter(|addr| reachable(shared.local, *addr)) {
        if addr == shared.me.addr || addr == shared.local {
            last = DialError::Myself;
            continue;
        }
        if let Some(connection) = shared.peers.at(addr).and_then(|node| shared.peers.outgoing(node)) {
            return Ok(connection);
        }
        match dial(shared, addr).await {
            Ok((_, connection)) => return Ok(connection),
            Err(DialError::Connected(node)) => match shared.peers.outgoing(node) {
                Some(connection) => return Ok(connection),
                None => last = DialError::Connected(node),
            },
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Keeps a connection to a member for as long as it is up, and tries at least once if it is not.
/// There is one such task for each member.
pub(crate) fn keep(shared: &Arc<Shared>, node: NodeId) {
    if shared.cancel.is_cancelled() || !dialing(shared).insert(node) {
        return;
    }
    let keeping = shared.clone();
    shared.spawn(async move {
        let mut backoff = Backoff::default();
        loop {
            if let Some(connection) = keeping.peers.outgoing(node) {
                sleep(outlive(&connection, &mut backoff).await).await;
            } else if let Err(error) = try_member(&keeping, node).await {
                if forget(&keeping, node) {
                    return;
                }
                debug!(%node, %error, "cannot reach a member");
                sleep(backoff.pause()).await;
            }
        }
    });
}

/// Waits until a connection closes; returns how long to wait before the next. One that closes soon, time
/// and again, is not dialed at full speed.
async fn outlive(connection: &Connection, backoff: &mut Backoff) -> Duration {
    let since = Instant::now();
    connection.closed().await;
    if since.elapsed() > STABLE {
        backoff.reset();
    }
    backoff.pause()
}

/// Ends the task for a member that is not up. The lock makes sure that it is not just coming up.
fn forget(shared: &Shared, node: NodeId) -> bool {
    let mut dialing = dialing(shared);
    !shared.membership.is_up(node) && dialing.remove(&node)
}

fn dialing(shared: &Shared) -> std::sync::MutexGuard<'_, std::collections::HashSet<NodeId>> {
    shared.dialing.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

async fn try_member(shared: &Arc<Shared>, node: NodeId) -> Result<(), DialError> {
    let Some(member) = shared.membership.member(node) else {
        return Err(DialError::Failed("its address is not known".to_owned()));
    };
    match dial(shared, member.addr).await {
        Ok((reached, _)) if reached.node == node => Ok(()),
        Ok((reached, _)) => Err(DialError::Failed(format!("{} is at its address", reached.node))),
        Err(DialError::Connected(reached)) if reached == node => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes a new connection to a connected member and puts it in the old one's place, which stays until then.
pub(crate) async fn again(shared: &Arc<Shared>, member: &Member) -> bool {
    match dial_as(shared, member.addr, true).await {
        Ok((reached, _)) => reached.node == member.node,
        Err(error) => {
            debug!(node = %member.node, %error, "cannot make a connection anew");
            false
        }
    }
}

async fn dial(shared: &Arc<Shared>, addr: SocketAddr) -> Result<(Member, Connection), DialError> {
    dial_as(shared, addr, false).await
}

/// Connects, greets and enters the connection into the table.
async fn dial_as(
    shared: &Arc<Shared>,
    addr: SocketAddr,
    replaces: bool,
) -> Result<(Member, Connection), DialError> {
    counter!("mychat_mesh_dials_total").increment(1);
    let result = connect(shared, addr, replaces).await;
    if matches!(result, Err(DialError::Failed(_) | DialError::Silence)) {
        counter!("mychat_mesh_dials_failed_total").increment(1);
    }
    result
}

async fn connect(
    shared: &Arc<Shared>,
    addr: SocketAddr,
    replaces: bool,
) -> Result<(Member, Connection), DialError> {
    let (config, era) = shared.client_config();
    let connecting = shared.endpoint.connect_with(config, addr, tls::SERVER_NAME).map_err(failed)?;
    let (connection, member) = timeout(PATIENCE, async {
        let connection = connecting.await.map_err(|error| {
            shared.refusals.report(addr, Direction::Outgoing, &error);
            failed(error)
        })?;
        match greeting::dial(&connection, &shared.me).await {
            Ok(member) => Ok((connection, member)),
            Err(error) => {
                match connection.close_reason() {
                    Some(reason) => shared.refusals.report(addr, Direction::Outgoing, &reason),
                    None if shared.refusals.is_news(addr, "greeting") => {
                        warn!(peer = %addr, %error, "turned away from a peer");
                    }
                    None => {}
                }
                Goodbye::Greeting.close(&connection);
                Err(failed(error))
            }
        }
    })
    .await
    .map_err(|_| DialError::Silence)??;
    if member.node == shared.me.node {
        Goodbye::Myself.close(&connection);
        if member.generation == shared.me.generation {
            return Err(DialError::Myself);
        }
        if shared.refusals.is_news(addr, "double") {
            warn!(peer = %addr, node = %member.node, "another process has this member's node id");
        }
        return Err(DialError::Double);
    }
    match links::hold(shared, &member, &connection, Direction::Outgoing, Install { era, replaces }) {
        Ok(()) => Ok((member, connection)),
        Err(Unwanted::Duplicate) => Err(DialError::Connected(member.node)),
        Err(Unwanted::Outdated) => Err(DialError::Outdated),
    }
}

fn failed(error: impl std::fmt::Display) -> DialError {
    DialError::Failed(error.to_string())
}

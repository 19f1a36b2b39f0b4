//! Takes connections in.

use std::sync::Arc;
use std::time::Duration;

use quinn::Incoming;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::endpoint::canonical;
use super::greeting;
use super::links::{self, Goodbye};
use super::refusal::Direction;
use super::shared::Shared;

/// Handshakes that may go on at once; more are refused, and their dialers come back.
const MOST_HANDSHAKES: usize = 256;
/// How long the handshake and the greeting may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Accepts connections until the endpoint is closed.
pub(crate) async fn run(shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(MOST_HANDSHAKES));
    while let Some(incoming) = shared.endpoint.accept().await {
        // Under pressure an address must first prove that it can receive.
        if handshakes.available_permits() < MOST_HANDSHAKES / 2 && incoming.may_retry() {
            let _ = incoming.retry();
            continue;
        }
        let Ok(permit) = handshakes.clone().try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let accepting = shared.clone();
        shared.spawn(async move {
            let peer = canonical(incoming.remote_address());
            if timeout(PATIENCE, accept(&accepting, incoming)).await.is_err() {
                debug!(%peer, "an incoming connection did not greet in time");
            }
            drop(permit);
        });
    }
}

async fn accept(shared: &Arc<Shared>, incoming: Incoming) {
    let addr = canonical(incoming.remote_address());
    let connection = match incoming.await {
        Ok(connection) => connection,
        Err(error) => return shared.refusals.report(addr, Direction::Incoming, &error),
    };
    let member = match greeting::accept(&connection, &shared.me).await {
        Ok(member) => member,
        Err(error) => {
            if let Some(reason) = connection.close_reason() {
                return shared.refusals.report(addr, Direction::Incoming, &reason);
            }
            if shared.refusals.is_news(addr, "greeting") {
                warn!(peer = %addr, %error, "turned a peer away");
            }
            return Goodbye::Greeting.close(&connection);
        }
    };
    if member.node == shared.me.node {
        // Our own greeting is on its way: the dialer sees whom it reached, and closes.
        let _ = connection.closed().await;
        return;
    }
    // The dialer closes what it does not want; `hold` says why if it is us who do not.
    let _ = links::hold(shared, &member, &connection, Direction::Incoming, shared.install());
}

//! The turns of calls for streams that are answered on the short way (`server/takeover.rs`).
//!
//! What a call needs while it is answered is large, so of thousands of clients that come together few are answered at a
//! time, and the others wait for their turn with no more than a socket and a small task. A call that has to wait for what
//! another node has written gives its turn back meanwhile: else a few clients that are ahead of this node, or say so,
//! would hold up everybody.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::Extensions;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::http::Problem;

/// Calls that are answered at a time.
const ANSWERED: usize = 32;
/// Calls that have begun, and wait for another node's rows or for a turn after that.
const AWAY: usize = 1024;
/// How long a call waits for its turn before its client is sent elsewhere.
const PATIENCE: Duration = Duration::from_secs(10);

/// Gives calls their turns; clones share them.
#[derive(Clone)]
pub struct Turns {
    turns: Arc<Semaphore>,
    away: Arc<Semaphore>,
    patience: Duration,
}

impl Default for Turns {
    fn default() -> Self {
        Self::of(ANSWERED, AWAY, PATIENCE)
    }
}

impl Turns {
    fn of(answered: usize, away: usize, patience: Duration) -> Self {
        Self { turns: Arc::new(Semaphore::new(answered)), away: Arc::new(Semaphore::new(away)), patience }
    }

    /// Waits for a turn; first come, first served.
    ///
    /// # Errors
    /// 503 when that takes too long.
    pub async fn next(&self) -> Result<Turn, Problem> {
        let permit = self.take().await?;
        Ok(Turn(Arc::new(Held { turns: self.clone(), permit: Mutex::new(Some(permit)) })))
    }

    async fn take(&self) -> Result<OwnedSemaphorePermit, Problem> {
        match timeout(self.patience, Arc::clone(&self.turns).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Problem::unavailable("too many streams are being opened")),
        }
    }
}

/// In a request that is answered on the short way: its turn, which it has until the last clone is dropped.
#[derive(Clone)]
pub struct Turn(Arc<Held>);

struct Held {
    turns: Turns,
    /// None while the call is away.
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Held {
    fn set(&self, permit: Option<OwnedSemaphorePermit>) {
        *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }
}

/// In a request that got no turn: what its client is to be told, in the way that it can hear.
#[derive(Debug, Clone)]
pub struct NoTurn(pub Problem);

/// Waits, within the call with these extensions, for what others do. Its turn goes to another call meanwhile, if it has one.
///
/// # Errors
/// 503 when too many wait so, or the call gets no turn after it.
pub async fn away<T>(call: &Extensions, wait: impl Future<Output = T>) -> Result<T, Problem> {
    let Some(Turn(held)) = call.get() else { return Ok(wait.await) };
    let busy = |_| Problem::unavailable("too many clients wait for what this node has not heard of yet");
    let _place = held.turns.away.try_acquire().map_err(busy)?;
    held.set(None);
    let waited = wait.await;
    held.set(Some(held.turns.take().await?));
    Ok(waited)
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use axum::{body::Body, extract::Request, http::header};
    use uuid::Uuid;

    use super::*;
    use crate::{
        events::tests::cursor_of_elsewhere,
        ids::{AccountId, SessionId},
        testing::{Person, TestNode},
    };

    /// No wait in a test lasts longer.
    const DEADLINE: Duration = Duration::from_secs(30);

    fn call(who: &Person, cursor: &str, turn: Turn) -> Request {
        let request = Request::builder().uri(format!("/v1/events?poll=0&cursor={cursor}"));
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", who.token));
        request.extension(turn).body(Body::empty()).expect("a request")
    }

    #[tokio::test]
    async fn a_call_that_waits_for_other_nodes_holds_nobody_up() {
        let node = TestNode::start();
        let ada = node.sign_up("Ada").await;
        // Somebody who signed up at a node of which this one has heard nothing.
        let (account, session) = (AccountId(Uuid::from_u128(1)), SessionId(Uuid::from_u128(2)));
        let new = Person { token: node.app.keys.access_token(account, session), ..ada.clone() };
        let turns = Turns::of(1, 2, DEADLINE);
        for (who, cursor, status) in [(&ada, cursor_of_elsewhere(), 200), (&new, String::new(), 503)] {
            let turn = turns.next().await.expect("a turn");
            let mut waiting = std::pin::pin!(node.send(call(who, &cursor, turn)));
            let other = tokio::select! {
                answer = waiting.as_mut() => panic!("it was answered first: {answer:?}"),
                other = turns.next() => other.expect("a turn"),
            };
            drop(other);
            assert_eq!(waiting.await.status, status);
        }
        assert_eq!((turns.turns.available_permits(), turns.away.available_permits()), (1, 2));
    }

    #[tokio::test]
    async fn i7_bounded_whoever_gets_no_turn_in_time_is_told_so() {
        let turns = Turns::of(1, 1, Duration::from_millis(1));
        let turn = turns.next().await.expect("a turn");
        assert_eq!(turns.next().await.err().map(|problem| problem.code), Some("unavailable"));
        let (mut first, mut second) = (Extensions::new(), Extensions::new());
        first.insert(turn);
        let mut waiting = std::pin::pin!(away(&first, pending::<()>()));
        let next = tokio::select! {
            _ = waiting.as_mut() => panic!("it waits for ever"),
            next = turns.next() => next.expect("the turn that was given back"),
        };
        second.insert(next.clone());
        let refused = away(&second, ready(())).await.err();
        assert_eq!(refused.map(|problem| problem.code), Some("unavailable"));
        assert_eq!(turns.turns.available_permits(), 0, "it has its turn still");
    }

    #[tokio::test]
    async fn a_client_without_a_turn_is_told_in_the_way_that_it_can_hear() {
        let node = TestNode::start();
        let refused = |accept: &str| {
            let request = Request::builder().uri("/v1/events").header(header::ACCEPT, accept);
            let request = request.extension(NoTurn(Problem::unavailable("too many")));
            node.send(request.body(Body::empty()).expect("a request"))
        };
        refused("*/*").await.is_problem(503, "unavailable");
        let goodbye = refused("text/event-stream").await;
        assert_eq!(goodbye.status, 200);
        assert!(goodbye.text.starts_with("retry: ") && goodbye.text.contains("event: goodbye\n"));
    }
}

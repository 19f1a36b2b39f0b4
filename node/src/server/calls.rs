//! The calls of a connection that are under way. A connection without one for too long is ended: hyper itself bounds the
//! head of an HTTP/1 call, but neither the wait for the first bytes, by which it tells the versions of HTTP apart, nor how
//! long a client of HTTP/2 holds a connection open that it does not use.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, sleep_until};

/// The calls of one connection; clones are of the same.
#[derive(Clone)]
pub struct Calls(Arc<Mutex<State>>);

struct State {
    under_way: usize,
    /// When the last one ended, or the connection came.
    none_since: Instant,
}

impl Calls {
    /// Those of a connection that has come just now.
    pub fn none() -> Self {
        Self(Arc::new(Mutex::new(State { under_way: 0, none_since: Instant::now() })))
    }

    /// Counts a call, for as long as what is given back lives.
    pub fn begin(&self) -> UnderWay {
        self.lock().under_way += 1;
        UnderWay(self.clone())
    }

    /// Waits until there has been none for so long.
    pub async fn none_for(&self, patience: Duration) {
        loop {
            let now = Instant::now();
            let until = {
                let state = self.lock();
                let since = if state.under_way == 0 { state.none_since } else { now };
                since + patience
            };
            if until <= now {
                return;
            }
            // It is looked at again rather than moved with each call, which would cost each call something.
            sleep_until(until).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is under way.
pub struct UnderWay(Calls);

impl UnderWay {
    /// The body of the call's answer: the call is under way until all of it has been taken.
    pub const fn until_taken<B>(self, body: B) -> Answer<B> {
        Answer { body, _call: self }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.under_way -= 1;
        state.none_since = Instant::now();
    }
}

/// The body of an answer.
pub struct Answer<B> {
    body: B,
    _call: UnderWay,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! Reads what a client still sends after its call has been refused.
//!
//! A call can be answered before its body has arrived: it is too large, or the caller may not call at all. If the
//! connection were closed on what is under way, the client's system would report a broken connection, and the answer
//! would be lost with it. So the rest is read and dropped, up to a bound.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};

/// The most that is read and dropped, in bytes. Whoever sends more than that loses the connection. Many clients look for an
/// answer only when all is sent.
const MAX_REST: usize = 128 << 20;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A body that can be taken back from whom it was given to.
#[derive(Clone)]
struct Shared(Arc<Mutex<Inner>>);

struct Inner {
    body: Body,
    begun: bool,
    ended: bool,
}

impl Shared {
    fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Inner { body, begun: false, ended: false })))
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.begun = true;
        let polled = Pin::new(&mut inner.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) || inner.body.is_end_stream() {
            inner.ended = true;
        }
        polled
    }

    /// Whether the body has been asked for, and whether it has come to its end.
    fn progress(&self) -> (bool, bool) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.begun, inner.ended)
    }
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        self.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).body.size_hint()
    }
}

/// The body of a call that is under way.
pub struct Rest {
    body: Shared,
    /// Such a client has not sent its body, and does not until somebody reads it.
    waits: bool,
}

/// Keeps hold of the call's body, if it has one, beside whoever reads it.
pub fn hold(request: Request) -> (Request, Option<Rest>) {
    if request.body().is_end_stream() {
        return (request, None);
    }
    let waits = request.headers().contains_key(header::EXPECT);
    let (head, body) = request.into_parts();
    let body = Shared::new(body);
    (Request::from_parts(head, Body::new(body.clone())), Some(Rest { body, waits }))
}

impl Rest {
    /// Reads what nobody has read, before the answer goes out.
    pub async fn read(self, response: &mut Response) {
        let (begun, ended) = self.body.progress();
        let nothing_comes = ended || (self.waits && !begun);
        // Whose time was up has been waited for long enough.
        let late = response.status() == StatusCode::REQUEST_TIMEOUT;
        if !nothing_comes && (late || tokio::time::timeout(PATIENCE, drop_rest(&self.body)).await != Ok(true))
        {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Reads to the end; `false` when that is too far.
async fn drop_rest(body: &Shared) -> bool {
    let mut size = 0;
    loop {
        match std::future::poll_fn(|cx| body.poll(cx)).await {
            Some(Ok(frame)) => size += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) => return false,
            None => return true,
        }
        if size > MAX_REST {
            return false;
        }
    }
}

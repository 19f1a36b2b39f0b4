//! What is done around every call: it is counted and timed, bounded in time, and a bug in it stays its own.

use std::{any::Any, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::Problem;
use crate::app::App;

/// Counts and times the call. The log has the route and the status: never the query, the headers or the body, which
/// may hold what is nobody's business.
pub async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let began = Instant::now();
    let response = next.run(request).await;
    let (status, took) = (response.status(), began.elapsed());
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let labels = [
        ("node", app.node().to_string()),
        ("method", known(&method).to_owned()),
        ("route", route.to_owned()),
        ("status", status.as_u16().to_string()),
    ];
    metrics::counter!("mychat_http_calls_total", &labels).increment(1);
    metrics::histogram!("mychat_http_call_seconds", &labels[..3]).record(took.as_secs_f64());
    // Whoever asks for readiness is told; that it takes a while after a start is no failure.
    if status.is_server_error() && route != "/readyz" {
        tracing::warn!(%method, route, %status, ?took, "a call failed");
    } else {
        tracing::debug!(%method, route, %status, ?took, "a call");
    }
    response
}

/// The method's name, if it is one of HTTP's own: a client can make up others without end.
fn known(method: &Method) -> &str {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::PATCH
        | Method::DELETE
        | Method::OPTIONS => method.as_str(),
        _ => "other",
    }
}

/// The headers that every answer carries, unless its handler has set its own.
pub async fn common_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Ends a call whose body does not arrive or whose answer does not begin in time. Streams go on for longer: their
/// answer has begun.
pub async fn deadline(State(app): State<App>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(app.config.limits.call, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            Problem::with(StatusCode::REQUEST_TIMEOUT, "timeout", "the call took too long").into_response()
        }
    }
}

/// The last resort: a panic in a handler is a bug, which its caller is told of, and nobody else notices.
// The type is the one that the layer wants.
#[allow(clippy::needless_pass_by_value)]
pub fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let what = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(what, "a handler panicked");
    Problem::with(StatusCode::INTERNAL_SERVER_ERROR, "internal", "a bug in this node: its log says more")
        .into_response()
}

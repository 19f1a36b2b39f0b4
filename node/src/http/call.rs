//! What is done around every call: it is counted and timed, a bug in it stays its own, its answer gets the headers that
//! every answer carries, and it is bounded in time.
//!
//! All of it is one layer. A layer of its own for each would copy what is below it and allocate a future, every time:
//! together that was a sixth of the processor time of a node that takes messages.

use std::{any::Any, convert::Infallible, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, header, request},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use tower::{Layer, ServiceExt, service_fn};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::{Problem, after, drain, durability, gate, tally::Tally, write};
use crate::app::App;

/// What the layer needs: a handle, of which every call gets one.
#[derive(Clone)]
pub struct Around(Arc<Parts>);

struct Parts {
    app: App,
    cors: CorsLayer,
    tally: Tally,
}

impl Around {
    pub fn new(app: App) -> Self {
        Self(Arc::new(Parts { cors: cors(app.clone()), tally: Tally::of(app.node()), app }))
    }
}

/// Pages of the cluster's other nodes may call this one, with the cookie.
fn cors(app: App) -> CorsLayer {
    let known = move |origin: &HeaderValue, call: &request::Parts| {
        let host = call.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        origin.to_str().is_ok_and(|origin| app.origins().allows(origin, host))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(known))
        .allow_credentials(true)
        .allow_headers(AllowHeaders::mirror_request())
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .expose_headers([
            write::CURSOR,
            durability::REGIONS,
            after::BEHIND,
            HeaderName::from_static("retry-after"),
        ])
        .max_age(std::time::Duration::from_secs(600))
}

/// Passes a call on to its handler, and does around it what is done around all.
pub async fn around(State(around): State<Around>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let began = Instant::now();
    let parts = &*around.0;
    let answered = AssertUnwindSafe(from_anywhere(parts, request, next)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|panic| panicked(panic.as_ref()));
    add_headers(&mut response);
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    observe(&parts.tally, &method, route, response.status(), began);
    response
}

/// Answers the call, also to pages of other origins: what they may know of the answer is said where one asks.
async fn from_anywhere(parts: &Parts, request: Request, next: Next) -> Response {
    let asked = request.headers().contains_key(header::ORIGIN) || request.method() == Method::OPTIONS;
    let (request, rest) = drain::hold(request);
    let mut response = if asked {
        let inner =
            service_fn(async |request| Ok::<_, Infallible>(in_time(&parts.app, request, next.clone()).await));
        match parts.cors.layer(inner).oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    } else {
        let mut response = in_time(&parts.app, request, next).await;
        // Whoever keeps it must not give it to a page of another origin, which is to be told that it may read it.
        if response.headers().contains_key(header::CACHE_CONTROL) {
            response.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
        }
        response
    };
    if let Some(rest) = rest {
        rest.read(&mut response).await;
    }
    response
}

/// Ends a call whose body does not arrive or whose answer does not begin in time. Streams go on for longer: their
/// answer has begun.
async fn in_time(app: &App, request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(app.config.limits.call, with_data(app, request, next)).await;
    let late = || Problem::with(StatusCode::REQUEST_TIMEOUT, "timeout", "the call took too long");
    answered.unwrap_or_else(|_| Err(late())).unwrap_or_else(Problem::into_response)
}

/// Answers the call once there is the data that it is about.
async fn with_data(app: &App, request: Request, next: Next) -> Result<Response, Problem> {
    gate::check(app, request.uri())?;
    after::wait(app, request, next).await
}

/// Counts and times the call. The log has the route and the status: never the query, the headers or the body, which
/// may hold what is nobody's business.
fn observe(tally: &Tally, method: &Method, route: &str, status: StatusCode, began: Instant) {
    let took = began.elapsed();
    tally.count(known(method), route, status, took);
    // Whoever asks for readiness is told; that it takes a while after a start is no failure.
    if status.is_server_error() && route != "/readyz" {
        tracing::warn!(%method, route, %status, ?took, "a call failed");
    } else {
        tracing::debug!(%method, route, %status, ?took, "a call");
    }
}

/// The method's name, if it is one of HTTP's own: a client can make up others without end.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Adds the headers that every answer carries, unless its handler has set its own.
fn add_headers(response: &mut Response) {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// The last resort: a panic in a handler is a bug, which its caller is told of, and nobody else notices.
fn panicked(panic: &(dyn Any + Send)) -> Response {
    let what = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(what, "a handler panicked");
    Problem::with(StatusCode::INTERNAL_SERVER_ERROR, "internal", "a bug in this node: its log says more")
        .into_response()
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware, routing::get};

    use super::*;
    use crate::testing::TestNode;

    /// Of the node itself: see [`TestNode`].
    const OWN: &str = "http://127.0.0.1:8081";
    const FOREIGN: &str = "https://elsewhere.example";

    fn call(method: Method, path: &str, headers: &[(HeaderName, &str)]) -> Request {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        request.body(Body::empty()).expect("a request")
    }

    #[tokio::test]
    async fn pages_of_the_cluster_may_read_answers_and_others_may_not() {
        let node = TestNode::start();
        for (origin, allowed) in [(OWN, Some(OWN)), (FOREIGN, None)] {
            let answer = node.send(call(Method::GET, "/v1/node", &[(header::ORIGIN, origin)])).await;
            assert_eq!(answer.status, StatusCode::OK);
            let told = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
            assert_eq!(told(header::ACCESS_CONTROL_ALLOW_ORIGIN), allowed);
            assert_eq!(told(header::ACCESS_CONTROL_ALLOW_CREDENTIALS), Some("true"));
            let exposed = told(header::ACCESS_CONTROL_EXPOSE_HEADERS).unwrap_or_default();
            assert!(exposed.contains("mychat-cursor"), "{exposed}");
            assert!(told(header::VARY).is_some_and(|vary| vary.contains("origin")));
        }
        let asks = [
            (header::ORIGIN, OWN),
            (header::ACCESS_CONTROL_REQUEST_METHOD, "PATCH"),
            (header::ACCESS_CONTROL_REQUEST_HEADERS, "idempotency-key"),
        ];
        let answer = node.send(call(Method::OPTIONS, "/v1/spaces", &asks)).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], OWN);
        assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_HEADERS], "idempotency-key");
        let methods = answer.headers[header::ACCESS_CONTROL_ALLOW_METHODS].to_str().unwrap_or_default();
        assert!(methods.contains("PATCH"), "{methods}");
    }

    #[tokio::test]
    async fn an_answer_that_may_be_kept_says_that_it_varies_with_the_origin() {
        let node = TestNode::start();
        let page = node.send(call(Method::GET, "/", &[])).await;
        assert_ne!(page.headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(page.headers[header::VARY], "origin");
        let data = node.send(call(Method::GET, "/v1/node", &[])).await;
        assert_eq!(data.headers[header::CACHE_CONTROL], "no-store");
        assert_eq!(data.headers.get(header::VARY), None);
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_the_next_call_too() {
        let node = TestNode::start();
        let app = Router::new().route("/", get(async || -> StatusCode { panic!("a bug") }));
        let around = Around::new(node.app.clone());
        let app = app.layer(middleware::from_fn_with_state(around, super::around));
        for headers in [&[][..], &[(header::ORIGIN, OWN)]] {
            let answer = app.clone().oneshot(call(Method::GET, "/", headers)).await.expect("never fails");
            assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
            assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        }
    }
}

//! The HTTP face: the routes of all domains put together, and what holds for every call.
//!
//! From the outside in, a call passes: the log and metrics of calls, the catch for panics, the headers that every
//! answer carries, the reading of what is left of its body, CORS, the deadline, the gate before data that has not caught
//! up, the wait for `MyChat-After`, and then its route. A handler gets what it needs through extractors that answer with
//! problem documents themselves: [`Caller`], [`Body`], [`Query`], [`Path`], [`Write`].

mod after;
mod body;
mod call;
mod caller;
mod drain;
mod durability;
pub mod expiry;
mod gate;
pub mod node_info;
mod openapi;
pub mod origins;
mod page;
mod problem;
mod web;
pub mod write;

#[cfg(test)]
mod tests;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderName, HeaderValue, Method, StatusCode, request},
    middleware,
};
use serde::Serialize;
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, AllowOrigin, CorsLayer},
};

pub use body::{Body, Path, Query};
pub use caller::{Caller, bearer, check};
pub use page::{DEFAULT_LIMIT, Items, MAX_LIMIT, Page, invalid_cursor};
pub use problem::Problem;
pub use write::{Outcome, Reply, Write};

use crate::app::App;

/// The largest body that calls accept, in bytes, unless they say otherwise.
pub const MAX_BODY: usize = 256 << 10;

/// All routes with everything around them.
pub fn router(app: App) -> Router {
    let around = ServiceBuilder::new()
        .layer(middleware::from_fn_with_state(app.clone(), call::observe))
        .layer(CatchPanicLayer::custom(call::panicked))
        .layer(middleware::from_fn(call::common_headers))
        .layer(middleware::from_fn(drain::rest))
        .layer(cors(app.clone()))
        .layer(middleware::from_fn_with_state(app.clone(), call::deadline))
        .layer(middleware::from_fn_with_state(app.clone(), gate::data))
        .layer(middleware::from_fn_with_state(app.clone(), after::wait))
        .layer(DefaultBodyLimit::max(MAX_BODY));
    Router::new()
        .merge(node_info::routes())
        .merge(openapi::routes())
        .merge(web::routes())
        .merge(crate::keys::http::routes())
        .merge(crate::accounts::http::routes())
        .merge(crate::admin::http::routes())
        .merge(crate::spaces::http::routes())
        .merge(crate::messages::http::routes())
        .merge(crate::notifications::http::routes())
        .merge(crate::events::http::routes())
        .merge(crate::presence::http::routes())
        .fallback(async || Problem::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            Problem::with(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this path has no such method",
            )
        })
        .layer(around)
        .with_state(app)
}

/// Pages of the cluster's other nodes may call this one, with the cookie.
fn cors(app: App) -> CorsLayer {
    let known = move |origin: &HeaderValue, call: &request::Parts| {
        let host = call.headers.get(axum::http::header::HOST).and_then(|host| host.to_str().ok());
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

/// A resource as JSON.
///
/// # Errors
/// 500 for a type with a map whose keys are no strings; there is none.
pub fn json<T: Serialize>(value: &T) -> Result<serde_json::Value, Problem> {
    serde_json::to_value(value).map_err(|error| {
        tracing::error!(%error, "a resource has no JSON form");
        Problem::unavailable("the answer can't be written")
    })
}

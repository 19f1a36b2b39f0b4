//! The HTTP face: the routes of all domains put together, and what holds for every call.
//!
//! From the outside in, a call passes: the log and metrics of calls, the catch for panics, the headers that every
//! answer carries, the reading of what is left of its body, CORS, the deadline, the gate before data that has not caught
//! up, the wait for `MyChat-After` (all of them in `call.rs`), and then its route. A handler gets what it needs through extractors that answer with
//! problem documents themselves: [`Caller`], [`Body`], [`Query`], [`Path`], [`Write`].

mod after;
mod body;
mod call;
mod caller;
mod drain;
mod durability;
pub mod expiry;
mod gate;
pub(crate) mod kept;
pub mod node_info;
mod openapi;
pub mod origins;
mod page;
mod problem;
mod source;
mod tally;
mod web;
pub mod write;

#[cfg(test)]
mod tests;

use axum::{Router, extract::DefaultBodyLimit, http::StatusCode, middleware};
use serde::Serialize;

pub use body::{Body, Path, Query};
pub use caller::{Caller, admit, bearer, check};
pub use page::{DEFAULT_LIMIT, Items, MAX_LIMIT, Page, invalid_cursor};
pub use problem::Problem;
pub use source::{Network, NetworkError, source};
pub use write::{Outcome, Reply, Write};

use crate::app::App;

/// The largest body that calls accept, in bytes, unless they say otherwise.
pub const MAX_BODY: usize = 256 << 10;

/// All routes with everything around them.
pub fn router(app: App) -> Router {
    let around = middleware::from_fn_with_state(call::Around::new(app.clone()), call::around);
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
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(around)
        .with_state(app)
}

/// A resource as JSON.
///
/// # Errors
/// 500 for a type with a map whose keys are no strings; there is none.
pub fn json<T: Serialize>(value: &T) -> Result<serde_json::Value, Problem> {
    serde_json::to_value(value).map_err(no_json)
}

/// A resource as the text of its JSON.
///
/// # Errors
/// As [`json`].
pub fn json_text<T: Serialize>(value: &T) -> Result<String, Problem> {
    serde_json::to_string(value).map_err(no_json)
}

// Given to `map_err`.
#[allow(clippy::needless_pass_by_value)]
fn no_json(error: serde_json::Error) -> Problem {
    tracing::error!(%error, "a resource has no JSON form");
    Problem::unavailable("the answer can't be written")
}

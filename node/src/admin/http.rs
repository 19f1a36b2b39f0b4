//! The routes of operators.

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    response::Response,
    routing::post,
};

use super::{
    Operator,
    import::{self, Import, Imported},
};
use crate::{
    app::App,
    http::{Body, Problem, Reply, json, write},
};

/// The largest portion of an import, in bytes.
const MAX_IMPORT: usize = 4 << 20;

/// The routes.
pub fn routes() -> Router<App> {
    Router::new().route("/v1/admin/import", post(import_lines).layer(DefaultBodyLimit::max(MAX_IMPORT)))
}

/// The OpenAPI document of these routes.
#[derive(utoipa::OpenApi)]
#[openapi(paths(import_lines))]
pub struct Docs;

/// Imports lines of another system's log into a space.
#[utoipa::path(post, path = "/v1/admin/import", tag = "admin", request_body = Import, security(("bearer" = [])),
    responses((status = 200, description = "what became of the lines", body = Imported)))]
async fn import_lines(
    State(app): State<App>,
    _: Operator,
    Body(wish): Body<Import>,
) -> Result<Response, Problem> {
    let report = import::import(&app, wish).await?;
    Ok(write::with_cursor(Reply::ok(json(&report)?), &app.store.vector()))
}

//! The routes of operators.

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::Response,
    routing::{post, put},
};

use super::{
    Operator,
    import::{self, Import, Imported},
};
use crate::{
    app::App,
    http::{Body, Problem, Reply, write},
};

/// The largest portion of an import, in bytes.
const MAX_IMPORT: usize = 4 << 20;

/// The routes.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/admin/import", post(import_lines).layer(DefaultBodyLimit::max(MAX_IMPORT)))
        .route("/v1/admin/drain", put(drain).delete(undrain))
}

/// The OpenAPI document of these routes.
#[derive(utoipa::OpenApi)]
#[openapi(paths(import_lines, drain, undrain))]
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
    Ok(write::with_cursor(Reply::ok(&report)?, write::cursor(&app, &app.store.vector())))
}

/// Takes the node out of service: it sends its clients to other nodes, and goes on replicating.
#[utoipa::path(put, path = "/v1/admin/drain", tag = "admin", security(("bearer" = [])),
    responses((status = 204, description = "it is out of service")))]
async fn drain(State(app): State<App>, _: Operator) -> StatusCode {
    if !app.condition.is_draining() {
        tracing::info!("an operator takes the node out of service");
        app.condition.drain();
        app.events.end_all("draining", &app.alternatives());
    }
    StatusCode::NO_CONTENT
}

/// Takes the node back into service.
#[utoipa::path(delete, path = "/v1/admin/drain", tag = "admin", security(("bearer" = [])),
    responses((status = 204, description = "it takes clients again")))]
async fn undrain(State(app): State<App>, _: Operator) -> StatusCode {
    tracing::info!("an operator takes the node back into service");
    app.condition.undrain();
    StatusCode::NO_CONTENT
}

//! The call on read marks.

use axum::{Router, extract::State, response::Response, routing::put};
use mychat_replication::store::Batch;
use serde::Deserialize;

use super::store;
use crate::{
    app::App,
    http::{Body, Caller, Path, Problem, Reply, Write},
    ids::{MessageId, SpaceId},
    messages, spaces,
};

/// The routes.
pub fn routes() -> Router<App> {
    Router::new().route("/v1/spaces/{space}/read", put(read))
}

/// The OpenAPI document of these routes.
#[derive(utoipa::OpenApi)]
#[openapi(paths(read))]
pub struct Docs;

/// How far the caller has read.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
struct ReadUpTo {
    /// The latest message that was read.
    #[schema(value_type = String, format = Uuid)]
    message: MessageId,
}

/// Marks the space as read up to a message; a mark never moves back.
#[utoipa::path(put, path = "/v1/spaces/{space}/read", tag = "notifications", params(("space" = String, Path)),
    request_body = ReadUpTo, responses((status = 204, description = "the mark is there, or behind it"),
        (status = 404, description = "no such space or message")))]
async fn read(
    State(app): State<App>,
    caller: Caller,
    Path(space): Path<SpaceId>,
    write: Write,
    Body(up_to): Body<ReadUpTo>,
) -> Result<Response, Problem> {
    let account = caller.account;
    let job = move |batch: &mut Batch<'_>| {
        let db = batch.connection();
        spaces::require_member(db, space, account)?;
        let message = messages::canonical(db, space, up_to.message)?
            .ok_or_else(|| Problem::not_found("there is no such message"))?;
        // The mark is on a place in the history, so that of a duplicate counts as it is.
        store::read(batch, account, space, message.max(up_to.message))?;
        Ok(Reply::no_content())
    };
    write.run(&app, Some(&caller), job).await
}

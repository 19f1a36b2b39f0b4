//! `MyChat-After`: a client that has moved here from another node names what it has seen, and is not shown less.

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use mychat_replication::log::VersionVector;
use tokio::time::{Instant, timeout_at};

use super::{Problem, invalid_cursor};
use crate::{
    app::{App, CATCH_UP},
    events::Cursor,
};

const AFTER: HeaderName = HeaderName::from_static("mychat-after");
/// Says that the answer may lack something that the client has seen.
pub const BEHIND: HeaderName = HeaderName::from_static("mychat-behind");

/// Holds the call back until this node has everything that the cursor has, for a while.
pub async fn wait(State(app): State<App>, request: Request, next: Next) -> Result<Response, Problem> {
    let Some(cursor) = request.headers().get(AFTER) else { return Ok(next.run(request).await) };
    let known = app.store.vector();
    let cursor =
        cursor.to_str().ok().and_then(|text| Cursor::read(text, &known).ok()).ok_or_else(invalid_cursor)?;
    let covered = covers(&app, &cursor).await;
    let mut response = next.run(request).await;
    if !covered {
        response.headers_mut().insert(BEHIND, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Whether this node has all that the cursor has, waiting [`CATCH_UP`] at most.
async fn covers(app: &App, cursor: &Cursor) -> bool {
    let deadline = Instant::now() + CATCH_UP;
    let mut commits = app.store.commits();
    loop {
        let vector: &VersionVector = &app.store.vector();
        if cursor.is_covered_by(vector) {
            return true;
        }
        match timeout_at(deadline, commits.recv()).await {
            Ok(Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_))) => {}
            Ok(Err(tokio::sync::broadcast::error::RecvError::Closed)) | Err(_) => return false,
        }
    }
}

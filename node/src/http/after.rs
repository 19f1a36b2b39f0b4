//! `MyChat-After`: a client that has moved here from another node names what it has seen, and is not shown less.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use tokio::time::{Instant, timeout_at};

use super::{Problem, invalid_cursor};
use crate::{
    app::{App, CATCH_UP},
    events::Unreadable,
};

const AFTER: HeaderName = HeaderName::from_static("mychat-after");
/// Says that the answer may lack something that the client has seen.
pub const BEHIND: HeaderName = HeaderName::from_static("mychat-behind");

/// Holds the call back until this node has everything that the cursor has, for a while.
pub async fn wait(app: &App, request: Request, next: Next) -> Result<Response, Problem> {
    let Some(cursor) = request.headers().get(AFTER) else { return Ok(next.run(request).await) };
    let cursor = cursor.to_str().map_err(|_| invalid_cursor())?;
    let covered = covers(app, cursor).await.map_err(|_| invalid_cursor())?;
    let mut response = next.run(request).await;
    if !covered {
        response.headers_mut().insert(BEHIND, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Whether this node has all that the cursor has, waiting [`CATCH_UP`] at most. A cursor that leaves out what this node
/// does not know to be retired names versions that it has not.
async fn covers(app: &App, cursor: &str) -> Result<bool, Unreadable> {
    let deadline = Instant::now() + CATCH_UP;
    let mut commits = app.store.commits();
    let mut wanted = None;
    loop {
        if wanted.is_none() {
            wanted = match app.events.cursors().read(cursor) {
                Ok(read) => Some(read),
                Err(Unreadable::Unknown) => None,
                Err(Unreadable::Malformed) => return Err(Unreadable::Malformed),
            };
        }
        if wanted.as_ref().is_some_and(|wanted| wanted.is_covered_by(&app.store.vector())) {
            return Ok(true);
        }
        match timeout_at(deadline, commits.recv()).await {
            Ok(Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_))) => {}
            Ok(Err(tokio::sync::broadcast::error::RecvError::Closed)) | Err(_) => return Ok(false),
        }
    }
}

//! Nothing is served from a database that has not caught up yet.
//!
//! A node that has just started may lack what others have shown to its clients, and one that takes a snapshot is about
//! to get another database. Until it has caught up for the first time, and while a snapshot comes, calls for data are
//! answered with 503, so that clients go to another node; what a node says of itself is answered always.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};

use super::{Problem, node_info::why_not_ready};
use crate::app::App;

/// Calls below `/v1` that need no data.
const WITHOUT_DATA: [&str; 2] = ["/v1/node", "/v1/openapi.json"];

/// Lets a call for data through once there is data.
pub async fn data(State(app): State<App>, request: Request, next: Next) -> Result<Response, Problem> {
    let path = request.uri().path();
    let needs_data = path.starts_with("/v1/") && !WITHOUT_DATA.contains(&path);
    if needs_data && !app.condition.has_data() {
        return Err(Problem::unavailable(why_not_ready(&app)));
    }
    Ok(next.run(request).await)
}

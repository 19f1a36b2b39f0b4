//! Nothing is served from a database that is still empty or about to be replaced.
//!
//! A new node would say of every account and space that there is none, and one that takes a snapshot lacks so much that
//! it might as well. Calls for data are then answered with 503, so that clients go to another node; what a node says of
//! itself is answered always. A node that was away for a while serves what it has at once: clients hold cursors, and
//! are told when it is behind them.

use axum::http::Uri;

use super::Problem;
use crate::app::App;

/// Calls below `/v1` that need no data.
const WITHOUT_DATA: [&str; 2] = ["/v1/node", "/v1/openapi.json"];

/// Refuses a call for data while there is none.
pub fn check(app: &App, uri: &Uri) -> Result<(), Problem> {
    let path = uri.path();
    let needs_data = path.starts_with("/v1/") && !WITHOUT_DATA.contains(&path);
    if needs_data && !app.condition.has_data() {
        let why = app.condition.unready().unwrap_or_else(|| "the node is starting".to_owned());
        return Err(Problem::unavailable(why));
    }
    Ok(())
}

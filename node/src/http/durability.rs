//! `MyChat-Durability`: how many other regions must have a write on their disks before it is answered.
//!
//! The write itself is durable here before the wait begins, and goes to the other nodes in any case; each of them says
//! at once when it has it on its disk. `MyChat-Durable-Regions` names those that have, this node's own first, also
//! where they are too few: that answer is a 503, and the write stands. Sent again under its idempotency key (or a
//! message's `client_id`) it is not written twice, but waited for anew.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use mychat_replication::{
    log::{SiteId, Version, VersionVector},
    store::Written,
};

use super::{Problem, write::cursor};
use crate::app::{App, Heads};

const DURABILITY: HeaderName = HeaderName::from_static("mychat-durability");
/// The header that names the regions in which a write is durable.
pub const REGIONS: HeaderName = HeaderName::from_static("mychat-durable-regions");
/// How long an answer waits for other regions.
const PATIENCE: Duration = Duration::from_secs(5);

/// Of how many other regions a node must have the write.
///
/// # Errors
/// 400 for anything but `local` and `regions=N`.
pub fn wanted(headers: &HeaderMap) -> Result<usize, Problem> {
    let mut values = headers.get_all(DURABILITY).iter();
    let Some(value) = values.next() else { return Ok(0) };
    let parsed = match (value.to_str().unwrap_or_default(), values.next()) {
        ("local", None) => Some(0),
        (value, None) => value
            .strip_prefix("regions=")
            .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|number| number.parse().ok())
            .filter(|number| (1..=64).contains(number)),
        (_, Some(_)) => None,
    };
    parsed.ok_or_else(|| {
        Problem::invalid_header("MyChat-Durability must be: local, or regions=N with N from 1 to 64")
    })
}

/// What the other nodes must have.
enum Wanted {
    /// This node's log up to the write.
    Own(SiteId, Version),
    /// Everything that is held here: the write was a repeat of one that may have been made at any node.
    All(Arc<VersionVector>),
}

impl Wanted {
    fn is_in(&self, held: &VersionVector) -> bool {
        match self {
            Self::Own(site, version) => held.get(*site) >= *version,
            Self::All(vector) => held.covers(vector),
        }
    }
}

/// Waits until nodes of `count` other regions have the write; the header that names the regions.
///
/// # Errors
/// 503 after [`PATIENCE`], with the same header and the write's cursor.
pub async fn reached<T>(app: &App, written: &Written<T>, count: usize) -> Result<HeaderValue, Problem> {
    let wanted = match written.end {
        Some((site, version)) => Wanted::Own(site, version),
        None => Wanted::All(Arc::clone(&written.vector)),
    };
    let heads = app.heads();
    let waiting = async {
        let Some(heads) = &heads else { return };
        let mut changes = heads.changes();
        while regions(app, &**heads, &wanted).len() < count {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waiting).await.is_ok();
    let others = heads.map(|heads| regions(app, &*heads, &wanted)).unwrap_or_default();
    let all: Vec<&str> =
        std::iter::once(app.config.region.as_str()).chain(others.iter().map(String::as_str)).collect();
    let named = HeaderValue::from_str(&all.join(",")).unwrap_or(HeaderValue::from_static(""));
    if in_time && others.len() >= count {
        return Ok(named);
    }
    let reached = if others.is_empty() {
        "no other region".to_owned()
    } else {
        others.into_iter().collect::<Vec<_>>().join(", ")
    };
    let problem = Problem::unavailable(format!(
        "{count} other regions were to have the write; {reached} confirmed it in time. It is durable here, pending, \
         and goes on to them: sent again with the same Idempotency-Key or client_id it is not made twice"
    ));
    let problem = problem.header(REGIONS, named);
    Err(match cursor(app, &written.vector) {
        Some(cursor) => problem.header(super::write::CURSOR, cursor),
        None => problem,
    })
}

/// The other regions of which a connected node has it.
fn regions(app: &App, heads: &dyn Heads, wanted: &Wanted) -> BTreeSet<String> {
    let peers = app.mesh.as_ref().map(|mesh| mesh.peers()).unwrap_or_default();
    peers
        .into_iter()
        .filter(|peer| peer.region != app.config.region)
        .filter(|peer| heads.of(peer.node).is_some_and(|held| wanted.is_in(&held)))
        .map(|peer| peer.region)
        .collect()
}

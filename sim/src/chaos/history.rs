//! What a node holds: the whole history of the space, read through the API.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use reqwest::Method;
use ring::digest;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::client::Client;

/// Messages a page, the most that the API gives.
const PAGE: usize = 200;
const PAUSE: Duration = Duration::from_millis(200);

/// The history as one node tells it.
pub(super) struct History {
    /// The messages by client id, in the order of the list: more than one when it is doubled.
    pub(super) messages: HashMap<Uuid, Vec<Row>>,
    pub(super) count: u64,
    /// Whether the list is in the order of the ids.
    pub(super) ordered: bool,
    /// A SHA-256 over the messages in their order, in hexadecimal.
    pub(super) hash: String,
}

/// What of a message must be the same everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Row {
    pub(super) id: Uuid,
    pub(super) author: Value,
    pub(super) body: Value,
    pub(super) sent_at: String,
    pub(super) client_id: Option<Uuid>,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Row>,
    next: Option<String>,
}

/// Reads everything from one node; an error says why that was not possible.
pub(super) async fn read(
    client: &Client,
    node: usize,
    space: Uuid,
    deadline: Instant,
) -> Result<History, String> {
    let mut history = History { messages: HashMap::new(), count: 0, ordered: true, hash: String::new() };
    let mut hash = digest::Context::new(&digest::SHA256);
    let (mut cursor, mut last) = (None::<String>, Uuid::nil());
    loop {
        let page = page(client, node, space, cursor.as_deref(), deadline).await?;
        for row in page.items {
            // Each field with its length before it, so that no two histories hash alike by moving a boundary.
            for field in
                [row.id.to_string(), row.author.to_string(), row.body.to_string(), row.sent_at.clone()]
            {
                hash.update(&(field.len() as u64).to_be_bytes());
                hash.update(field.as_bytes());
            }
            history.ordered &= last < row.id;
            history.count += 1;
            last = row.id;
            history.messages.entry(row.client_id.unwrap_or_default()).or_default().push(row);
        }
        if page.next.is_none() {
            history.hash = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            return Ok(history);
        }
        if page.next == cursor {
            return Err("the history pages in a circle".into());
        }
        cursor = page.next;
    }
}

async fn page(
    client: &Client,
    node: usize,
    space: Uuid,
    cursor: Option<&str>,
    deadline: Instant,
) -> Result<Page, String> {
    let mut path = format!("/v1/spaces/{space}/messages?limit={PAGE}&order=asc");
    if let Some(cursor) = cursor {
        // A cursor is opaque and may need escaping.
        let mut url = reqwest::Url::parse("http://node/").map_err(|error| error.to_string())?;
        url.query_pairs_mut().append_pair("cursor", cursor);
        path = format!("{path}&{}", url.query().unwrap_or_default());
    }
    loop {
        match client.call(node, Method::GET, &path, None).await {
            Ok(page) => return serde_json::from_value(page).map_err(|error| error.to_string()),
            Err(failure) if Instant::now() >= deadline => return Err(failure.to_string()),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

//! Whether every node holds the same: the whole history of the space, read from each through the API.

use std::collections::HashSet;
use std::time::Instant;

use anyhow::{Context, bail};
use ring::digest;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::api::{Api, Call, CallError};
use super::people::Account;

/// Messages a page, the most that the API gives.
const PAGE: usize = 200;
/// The pause before a page is asked for again.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

/// The history of the space as one node tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct History {
    pub(super) ids: HashSet<Uuid>,
    /// The client ids of the messages.
    pub(super) client_ids: HashSet<Uuid>,
    /// Messages with the client id of an earlier one, which should have become one with it.
    pub(super) twins: u64,
    /// How many messages it lists; more than `ids` when one is listed twice.
    pub(super) messages: u64,
    /// A SHA-256 over the messages in their order, in hexadecimal.
    pub(super) hash: String,
}

impl History {
    /// Whether it has the line that was answered with this id, be it under the id that another node gave it.
    pub(super) fn has(&self, id: &Uuid, client_id: &Uuid) -> bool {
        self.ids.contains(id) || self.client_ids.contains(client_id)
    }
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Row>,
    next: Option<String>,
}

/// What of a message must be the same everywhere.
#[derive(Deserialize)]
struct Row {
    id: Uuid,
    author: Value,
    body: Value,
    sent_at: String,
    client_id: Option<String>,
}

/// Reads everything from one node.
pub(super) async fn read(
    api: &Api,
    node: usize,
    reader: &Account,
    space: Uuid,
    deadline: Instant,
) -> anyhow::Result<History> {
    let mut history = Collector::new();
    let mut cursor: Option<String> = None;
    loop {
        let path = page_path(space, cursor.as_deref())?;
        let page = page(api, node, reader, &path, deadline).await?;
        page.items.iter().for_each(|row| history.add(row));
        match page.next {
            None => return Ok(history.finish()),
            Some(next) if cursor.as_ref() == Some(&next) || page.items.is_empty() => {
                bail!("{} pages in a circle", api.nodes[node].url)
            }
            Some(next) => cursor = Some(next),
        }
    }
}

/// The path of one page; a cursor is opaque and may need escaping.
fn page_path(space: Uuid, cursor: Option<&str>) -> anyhow::Result<String> {
    let mut url = reqwest::Url::parse("http://node/")?;
    url.set_path(&format!("/v1/spaces/{space}/messages"));
    url.query_pairs_mut().append_pair("limit", &PAGE.to_string()).append_pair("order", "asc");
    if let Some(cursor) = cursor {
        url.query_pairs_mut().append_pair("cursor", cursor);
    }
    Ok(format!("{}?{}", url.path(), url.query().unwrap_or_default()))
}

async fn page(
    api: &Api,
    node: usize,
    reader: &Account,
    path: &str,
    deadline: Instant,
) -> anyhow::Result<Page> {
    let what = || format!("the history can't be read from {}", api.nodes[node].url);
    let mut token = reader.token(api, deadline).await.with_context(what)?;
    loop {
        let call = Call::get(path).token(&token);
        match api.call(node, call).await {
            Ok(answer) => return serde_json::from_value(answer.body).with_context(what),
            Err(error) if Instant::now() + PAUSE >= deadline => return Err(error).with_context(what),
            Err(CallError::Refused { status: 401, .. }) => {
                token = reader.another_token(api, &token, deadline).await.with_context(what)?;
            }
            Err(error @ CallError::Refused { .. }) => return Err(error).with_context(what),
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Collector {
    history: History,
    hash: digest::Context,
}

impl Collector {
    fn new() -> Self {
        let (ids, client_ids) = (HashSet::new(), HashSet::new());
        let history = History { ids, client_ids, twins: 0, messages: 0, hash: String::new() };
        Self { history, hash: digest::Context::new(&digest::SHA256) }
    }

    /// Each field with its length before it, so that no two histories hash alike by moving a boundary.
    fn add(&mut self, row: &Row) {
        let client_id: Option<Uuid> = row.client_id.as_deref().and_then(|id| id.parse().ok());
        if self.history.ids.insert(row.id)
            && let Some(client_id) = client_id
        {
            self.history.twins += u64::from(!self.history.client_ids.insert(client_id));
        }
        self.history.messages += 1;
        let fields = [row.id.to_string(), row.author.to_string(), row.body.to_string(), row.sent_at.clone()];
        for field in fields {
            self.hash.update(&(field.len() as u64).to_be_bytes());
            self.hash.update(field.as_bytes());
        }
    }

    fn finish(self) -> History {
        let hash = self.hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        History { hash, ..self.history }
    }
}

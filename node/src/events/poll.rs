//! The long poll, for networks that buffer streams: the same events and cursors, a call at a time.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Item, stream::Stream};

/// What a poll gives.
#[derive(Serialize, utoipa::ToSchema)]
pub struct Polled {
    events: Vec<Polled1>,
    cursor: String,
}

/// An event in it.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = PolledEvent)]
struct Polled1 {
    id: Option<String>,
    event: &'static str,
    #[schema(value_type = Object)]
    data: Box<RawValue>,
}

impl From<&Item> for Polled1 {
    fn from(item: &Item) -> Self {
        let data = RawValue::from_string(item.data.clone()).unwrap_or_else(|_| RawValue::NULL.to_owned());
        Self { id: item.id.clone(), event: item.kind, data }
    }
}

/// Waits until there is something to tell, or `patience` is over; `first` comes in front. `caught_up` is the cursor of a
/// client that nothing has happened for.
pub async fn poll(mut stream: Stream, caught_up: String, first: Vec<Item>, patience: Duration) -> Response {
    let mut events: Vec<Polled1> = first.iter().map(Polled1::from).collect();
    let missed = stream.missed().await.unwrap_or_default();
    let mut latest = missed.iter().rev().find_map(|item| item.id.clone());
    events.extend(missed.iter().map(|item| Polled1::from(item.as_ref())));
    if events.is_empty() {
        let began = tokio::time::Instant::now();
        // A ping is nothing to wake a client for, but it carries the cursor on.
        while events.is_empty() {
            let left = patience.saturating_sub(began.elapsed());
            let Ok(Some(items)) = tokio::time::timeout(left, stream.next()).await else { break };
            latest = items.iter().rev().find_map(|item| item.id.clone()).or(latest);
            events.extend(
                items.iter().filter(|item| item.kind != "ping").map(|item| Polled1::from(item.as_ref())),
            );
        }
    }
    let cursor = latest.unwrap_or(caught_up);
    axum::Json(Polled { events, cursor }).into_response()
}

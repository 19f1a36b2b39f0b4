//! A reader of `GET /v1/events`.

use mychat_sim::sse::Parser;
use serde_json::Value;
use tokio::time::timeout;

use super::{Account, Client, PATIENCE};

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub kind: String,
    pub data: Value,
    /// The id in force, from which `Last-Event-ID` resumes.
    pub id: String,
}

/// An open stream.
pub struct Events {
    response: reqwest::Response,
    parser: Parser,
    /// Where the reader stands: the id of the last event that was taken.
    pub cursor: String,
}

impl Events {
    /// Opens a stream and takes its `ready`.
    pub async fn open(node: &Client, reader: &Account, cursor: Option<&str>) -> Self {
        let (events, ready) = Self::open_at(node, reader, cursor, "/v1/events").await;
        assert_eq!(ready.kind, "ready", "{ready:?}");
        events
    }

    /// Opens a stream at a path with a query, and takes its first event.
    pub async fn open_at(node: &Client, reader: &Account, cursor: Option<&str>, path: &str) -> (Self, Event) {
        let mut request = node.open(path).bearer_auth(&reader.token).header("accept", "text/event-stream");
        if let Some(cursor) = cursor {
            request = request.header("last-event-id", cursor);
        }
        let mut events = Self::of(request).await;
        let first = events.next().await.expect("a stream begins with an event");
        (events, first)
    }

    /// The stream that answers a request.
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
        let response =
            timeout(PATIENCE, request.send()).await.expect("an answer in time").expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        Self { response, parser: Parser::new(), cursor: String::new() }
    }

    /// How long the server wants a browser to wait before it comes back.
    pub fn retry(&self) -> Option<std::time::Duration> {
        self.parser.retry()
    }

    /// The next event; none when the stream has ended or broken.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.parser.next_event() {
                self.cursor.clone_from(&event.id);
                let data = serde_json::from_str(&event.data)
                    .unwrap_or_else(|error| panic!("{error}: {:?} in {}", event.data, event.kind));
                return Some(Event { kind: event.kind, data, id: event.id });
            }
            // A ping comes well within the deadline, so silence is a fault.
            let piece =
                timeout(PATIENCE, self.response.chunk()).await.expect("a stream is never silent for long");
            match piece {
                Ok(Some(bytes)) => self.parser.push(&bytes).expect("events of a sensible size"),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The next event of a kind, passing over others.
    pub async fn until(&mut self, kind: &str) -> Event {
        let found = async {
            loop {
                let event = self.next().await.unwrap_or_else(|| panic!("the stream ended before {kind:?}"));
                if event.kind == kind {
                    return event;
                }
            }
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no {kind:?} in time"))
    }
}

//! One simulated person: sent to a node by the router, signed up there, a member of the space, reading its events.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use reqwest::{Method, Response};
use serde::Deserialize;
use serde_json::json;

use super::client::{Choice, Http};
use crate::population::City;
use crate::sse::{Event, Parser};

/// How long each step of the preparation may take.
pub(super) const STEP: Duration = Duration::from_secs(60);

/// When each message arrived at one person, by its number. Each place is filled once.
pub(super) type Arrivals = Arc<[OnceLock<Instant>]>;

/// A space that everybody joins, and the cursor of its making.
#[derive(Debug, Clone)]
pub(super) struct Space {
    pub(super) id: String,
    pub(super) made: Option<String>,
}

/// Somebody in a city.
pub(super) struct Person {
    /// Where the router sent them.
    pub(super) choice: Choice,
    token: String,
}

impl Person {
    /// Asks the router and signs up at its node.
    pub(super) async fn arrive(http: &Http, router: &str, city: &City, run: &str) -> anyhow::Result<Self> {
        let choice = http.route(router, city.point.lat(), city.point.lon()).await?;
        let wish = json!({
            "email": format!("{:016x}.{run}@latency.example", rand::random::<u64>()),
            "password": format!("{:032x}", rand::random::<u128>()),
            "name": format!("Somebody in {}", city.name),
        });
        let url = format!("{}/v1/accounts", choice.url);
        let answer = http.call(Method::POST, &url, None, &wish, None, Instant::now() + STEP).await;
        let answer = answer.with_context(|| format!("signing up in {} failed", city.name))?;
        let token = answer.body["token"].as_str().context("signing up gave no token")?.to_owned();
        Ok(Self { choice, token })
    }

    /// Makes the space that everybody joins.
    pub(super) async fn make_space(&self, http: &Http) -> anyhow::Result<Space> {
        let wish = json!({ "name": "latency", "visibility": "public" });
        let url = format!("{}/v1/spaces", self.choice.url);
        let answer =
            http.call(Method::POST, &url, Some(&self.token), &wish, None, Instant::now() + STEP).await?;
        let id = answer.body["id"].as_str().context("the new space has no id")?.to_owned();
        Ok(Space { id, made: answer.cursor })
    }

    /// Joins the space, once the person's node has heard of it.
    pub(super) async fn join(&self, http: &Http, space: &Space) -> anyhow::Result<()> {
        let url = format!("{}/v1/spaces/{}/members/me", self.choice.url, space.id);
        let (wish, after) = (json!({ "role": "member" }), space.made.as_deref());
        http.call(Method::PUT, &url, Some(&self.token), &wish, after, Instant::now() + STEP).await?;
        Ok(())
    }

    /// Posts a message; returns when it left and when its answer was there, as the node's side of the last mile sees
    /// it.
    pub(super) async fn post(
        &self,
        http: &Http,
        space: &Space,
        number: usize,
    ) -> anyhow::Result<(Instant, Instant)> {
        let url = format!("{}/v1/spaces/{}/messages", self.choice.url, space.id);
        let text = format!("Message {number}: how long does this take from here to everybody else?");
        let left = Instant::now();
        http.post(&url, &self.token, &text, &number.to_string()).await?;
        Ok((left, Instant::now()))
    }

    /// Opens the event stream and waits until it has begun.
    pub(super) async fn listen(&self, http: &Http, arrivals: Arrivals) -> anyhow::Result<Listener> {
        let response = http.events(&self.choice.url, &self.token).await?;
        let mut listener = Listener { response, parser: Parser::new(), arrivals };
        let begun = async {
            loop {
                if listener.next().await?.iter().any(|event| event.kind == "ready") {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::time::timeout(STEP, begun).await.context("no event stream begins")??;
        Ok(listener)
    }
}

/// An open event stream.
pub(super) struct Listener {
    response: Response,
    parser: Parser,
    arrivals: Arrivals,
}

/// What is read of a message.
#[derive(Deserialize)]
struct Message {
    client_id: Option<String>,
}

impl Listener {
    /// Notes when messages arrive, and counts them, until it is dropped or the stream ends, which is a failure.
    pub(super) async fn run(mut self, arrived: Arc<AtomicU64>) -> anyhow::Error {
        loop {
            let events = match self.next().await {
                Ok(events) => events,
                Err(error) => return error,
            };
            let now = Instant::now();
            for event in events {
                if event.kind != "message.created" {
                    continue;
                }
                let message = serde_json::from_str::<Message>(&event.data).ok();
                let number = message.and_then(|message| message.client_id?.parse::<usize>().ok());
                if let Some(place) = number.and_then(|number| self.arrivals.get(number))
                    && place.set(now).is_ok()
                {
                    arrived.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// What comes next, in one piece.
    async fn next(&mut self) -> anyhow::Result<Vec<Event>> {
        let Some(piece) = self.response.chunk().await? else { bail!("an event stream has ended") };
        self.parser.push(&piece)?;
        Ok(std::iter::from_fn(|| self.parser.next_event()).collect())
    }
}

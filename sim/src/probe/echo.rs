//! Post to own event: a throw-away account with a space of its own posts, and waits for its own message to come back
//! on its event stream. At the end messages, space and account are removed again, also after a failure.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::link::{Link, Trust, within};
use super::target::Target;
use crate::sse::{Event, Parser};

/// The pause between an echo and the next message.
const PAUSE: Duration = Duration::from_millis(20);

/// The times of one message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Echo {
    /// Until the answer of the post.
    pub(super) acknowledged: Duration,
    /// Until the own event.
    pub(super) seen: Duration,
}

/// Somebody for the time of the probe.
struct Guest {
    calls: Link,
    token: String,
}

/// Posts this many messages, one after the other.
pub(super) async fn echoes(
    target: &Target,
    trust: &Trust,
    count: usize,
    bar: &ProgressBar,
) -> anyhow::Result<Vec<Echo>> {
    let mut guest = Guest::arrive(target, trust).await?;
    let space = guest.make_space().await;
    let echoes = match &space {
        Ok(space) => tokio::select! {
            echoes = guest.talk(target, trust, space, count, bar) => echoes,
            // Whoever breaks it off leaves nothing behind either.
            _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        },
        Err(error) => Err(anyhow::anyhow!("{error:#}")),
    };
    let left = guest.leave(space.as_deref().ok()).await;
    let echoes = echoes?;
    left.context("the throw-away account could not be removed")?;
    Ok(echoes)
}

impl Guest {
    async fn arrive(target: &Target, trust: &Trust) -> anyhow::Result<Self> {
        let mut calls = Link::open(target, trust).await?;
        let wish = json!({
            "email": format!("probe-{:032x}@probe.example", rand::random::<u128>()),
            "password": format!("{:032x}", rand::random::<u128>()),
            "name": "Probe",
        });
        let answer = calls.call(Method::POST, "/v1/accounts", None, Some(&wish)).await?;
        let token = answer["token"].as_str().context("signing up gave no token")?.to_owned();
        Ok(Self { calls, token })
    }

    async fn call(&mut self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        self.calls.call(method, path, Some(&self.token), body).await
    }

    async fn make_space(&mut self) -> anyhow::Result<String> {
        let wish = json!({ "name": "probe", "visibility": "private" });
        let space = self.call(Method::POST, "/v1/spaces", Some(&wish)).await?;
        Ok(space["id"].as_str().context("the new space has no id")?.to_owned())
    }

    async fn talk(
        &mut self,
        target: &Target,
        trust: &Trust,
        space: &str,
        count: usize,
        bar: &ProgressBar,
    ) -> anyhow::Result<Vec<Echo>> {
        let mut stream = Link::open(target, trust).await?;
        let mut events = Events::open(&mut stream, &self.token).await?;
        let path = format!("/v1/spaces/{space}/messages");
        let mut echoes = Vec::with_capacity(count);
        for number in 0..count {
            let mark = format!("probe-{number}");
            let message = json!({ "body": "How long does this take?", "client_id": mark });
            let begun = Instant::now();
            let post = async {
                self.call(Method::POST, &path, Some(&message)).await?;
                anyhow::Ok(begun.elapsed())
            };
            let seen = async {
                within("no event came", events.until_marked(&mark)).await?;
                anyhow::Ok(begun.elapsed())
            };
            // The event may come before the answer.
            let (acknowledged, seen) = tokio::try_join!(post, seen)?;
            echoes.push(Echo { acknowledged, seen });
            bar.inc(1);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(echoes)
    }

    /// Removes everything. Each part is tried whatever became of the others.
    async fn leave(&mut self, space: Option<&str>) -> anyhow::Result<()> {
        let mut result = Ok(());
        if let Some(space) = space {
            let messages = format!("/v1/spaces/{space}/messages?since=1970-01-01T00:00:00Z");
            for path in [messages, format!("/v1/spaces/{space}")] {
                result = result.and(self.call(Method::DELETE, &path, None).await.map(drop));
            }
        }
        let account = self.call(Method::DELETE, "/v1/accounts/me?mode=erase", None).await.map(drop);
        result.and(account)
    }
}

/// An open event stream.
struct Events {
    body: Incoming,
    parser: Parser,
}

impl Events {
    async fn open(link: &mut Link, token: &str) -> anyhow::Result<Self> {
        let response = link.send(Method::GET, "/v1/events", Some(token), None).await?;
        if !response.status().is_success() {
            bail!("no event stream: {}", response.status());
        }
        let mut events = Self { body: response.into_body(), parser: Parser::new() };
        within("no event stream begins", async { events.until(|event| event.kind == "ready").await }).await?;
        Ok(events)
    }

    async fn until_marked(&mut self, mark: &str) -> anyhow::Result<()> {
        self.until(|event| {
            event.kind == "message.created"
                && serde_json::from_str::<Value>(&event.data)
                    .is_ok_and(|message| message["client_id"] == mark)
        })
        .await
    }

    /// Reads on until such an event; what else comes in between is passed over.
    async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> anyhow::Result<()> {
        loop {
            while let Some(event) = self.parser.next_event() {
                if wanted(&event) {
                    return Ok(());
                }
                if event.kind == "goodbye" {
                    bail!("the node ends its event streams: {}", event.data);
                }
            }
            let Some(frame) = self.body.frame().await else { bail!("the event stream has ended") };
            if let Ok(piece) = frame?.into_data() {
                self.parser.push(&piece)?;
            }
        }
    }
}

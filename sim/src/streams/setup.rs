//! The accounts and spaces that streams need, made at the first node, and known to all.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Client, Method};
use rustls::ClientConfig;
use serde_json::{Value, json};

use super::{
    args::StreamsArgs,
    socket::any_certificate,
    target::{Kind, Space, Target, server},
};

/// Calls that are under way at the same time: enough for the server to commit several together.
const AT_ONCE: usize = 32;
/// Accounts that are made at the same time: their passwords' hashes are what takes long.
const ACCOUNTS_AT_ONCE: usize = 4;
/// How long one call may take.
const CALL: Duration = Duration::from_secs(30);
/// How often the other nodes are asked whether they know everything, and the pause before each time but the first: a
/// node that is not ready says so at once.
const TRIES: usize = 60;
const PAUSE: Duration = Duration::from_millis(250);
/// How often access tokens are made anew; they are good for 15 minutes.
const REFRESH: Duration = Duration::from_secs(5 * 60);

/// Accounts' refresh tokens, by which their streams get new access tokens.
pub(super) struct Sessions {
    http: Client,
    base: Vec<String>,
    refresh: Vec<String>,
}

/// Makes what is needed. Nothing of it is deleted afterwards.
pub(super) async fn nodes(args: &StreamsArgs) -> anyhow::Result<(Target, Sessions)> {
    let servers = args.nodes.iter().map(|url| Ok(server(url)?.0)).collect::<anyhow::Result<Vec<_>>>()?;
    let http = Client::builder().timeout(CALL).build()?;
    let base: Vec<String> = args.nodes.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
    let (accounts, spaces) = (args.account_count(), args.spaces as usize);
    let run: u64 = rand::random();
    let made: Vec<(String, String, String)> = stream::iter(0..accounts)
        .map(|number| sign_up(&http, &base[0], run, number))
        .buffered(ACCOUNTS_AT_ONCE)
        .try_collect()
        .await
        .context("accounts can't be made")?;
    let member_of = |space: usize| -> Vec<usize> {
        match spaces < accounts {
            true => (space..accounts).step_by(spaces).collect(),
            false => vec![space % accounts],
        }
    };
    let (http_ref, base_ref, made_ref) = (&http, &base[0], &made);
    let spaces: Vec<Space> = stream::iter(0..spaces)
        .map(async |number| {
            let accounts = member_of(number);
            let owner = &made_ref[accounts[0]].1;
            let wish = json!({ "name": format!("load {run:x} {number}") });
            let space =
                call(http_ref, Method::POST, &format!("{base_ref}/v1/spaces"), owner, Some(wish)).await?.0;
            let id = space["id"].as_str().context("a space without an id")?.to_owned();
            for member in &accounts[1..] {
                let url = format!("{base_ref}/v1/spaces/{id}/members/{}", made_ref[*member].0);
                call(http_ref, Method::PUT, &url, owner, Some(json!({ "role": "member" }))).await?;
            }
            anyhow::Ok(Space { id, accounts })
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
        .context("spaces can't be made")?;
    // What is written last, with nothing beside it, has a cursor that covers everything before it.
    let wish = Some(json!({ "name": "Load 0" }));
    let (_, cursor) =
        call(&http, Method::PATCH, &format!("{}/v1/accounts/me", base[0]), &made[0].1, wish).await?;
    for node in &base[1..] {
        await_cursor(&http, node, &made[0].1, &cursor).await?;
    }
    let tokens = made.iter().map(|(_, token, _)| Arc::from(token.as_str())).collect();
    let refresh = made.into_iter().map(|(_, _, refresh)| refresh).collect();
    let (fronts, tls) = fronts(args)?;
    let target = Target { kind: Kind::MyChat, servers, spaces, tokens: RwLock::new(tokens), fronts, tls };
    Ok((target, Sessions { http, base, refresh }))
}

/// Where streams are opened over TLS, and with what.
fn fronts(args: &StreamsArgs) -> anyhow::Result<(Vec<SocketAddr>, Option<Arc<ClientConfig>>)> {
    if args.tls.is_empty() {
        return Ok((Vec::new(), None));
    }
    ensure!(
        args.tls.len() == args.nodes.len(),
        "--tls takes as many addresses as --nodes, in the same order"
    );
    let resolve = |text: &String| {
        let found = text.to_socket_addrs().ok().and_then(|mut found| found.next());
        found.with_context(|| format!("--tls {text}: not an address (host:port)"))
    };
    Ok((args.tls.iter().map(resolve).collect::<anyhow::Result<_>>()?, Some(any_certificate()?)))
}

/// Channels of another server, which need no making: where it publishes and subscribes.
pub(super) fn other(args: &StreamsArgs, [publish, subscribe]: [&str; 2]) -> anyhow::Result<Target> {
    ensure!(
        publish.contains("{}") && subscribe.contains("{}"),
        "--peer-url: {{}} must stand for the channel"
    );
    let ((at, publish), (also_at, subscribe)) = (server(publish)?, server(subscribe)?);
    ensure!(at.address == also_at.address, "--peer-url: both must be at one server");
    let run: u64 = rand::random();
    let spaces =
        (0..args.spaces).map(|number| Space { id: format!("load-{run:x}-{number}"), accounts: vec![0] });
    Ok(Target {
        kind: Kind::Other { publish, subscribe },
        servers: vec![at],
        spaces: spaces.collect(),
        tokens: RwLock::default(),
        fronts: Vec::new(),
        tls: None,
    })
}

impl Sessions {
    /// Makes access tokens anew before they end, for ever. What fails once is tried in time for the old one to hold.
    pub(super) async fn keep(mut self, target: Arc<Target>) {
        loop {
            tokio::time::sleep(REFRESH).await;
            for (account, refresh) in self.refresh.iter_mut().enumerate() {
                match refreshed(&self.http, &self.base, refresh).await {
                    Ok((token, next)) => {
                        let mut tokens = target.tokens.write().unwrap_or_else(PoisonError::into_inner);
                        tokens[account] = token.into();
                        *refresh = next;
                    }
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), account, "no new access token");
                    }
                }
            }
        }
    }
}

/// An access token and the next refresh token, of the first node that gives them.
async fn refreshed(http: &Client, nodes: &[String], refresh: &str) -> anyhow::Result<(String, String)> {
    let mut why = anyhow::anyhow!("there is no node");
    for node in nodes {
        let wish = json!({ "refresh_token": refresh });
        match call(http, Method::POST, &format!("{node}/v1/sessions/refresh"), "", Some(wish)).await {
            Ok((answer, _)) => return Ok((text(&answer["token"])?, text(&answer["refresh_token"])?)),
            Err(error) => why = error,
        }
    }
    Err(why)
}

fn text(value: &Value) -> anyhow::Result<String> {
    value.as_str().map(str::to_owned).context("an account without a token")
}

/// Makes an account: its id, access token and refresh token.
async fn sign_up(
    http: &Client,
    base: &str,
    run: u64,
    number: usize,
) -> anyhow::Result<(String, String, String)> {
    let wish = json!({
        "email": format!("load-{run:x}-{number}@load.example"),
        "password": format!("measured {run:x}, not kept"),
        "name": format!("Load {number}"),
    });
    let (answer, _) = call(http, Method::POST, &format!("{base}/v1/accounts"), "", Some(wish)).await?;
    Ok((text(&answer["account"]["id"])?, text(&answer["token"])?, text(&answer["refresh_token"])?))
}

/// Waits until a node holds what a cursor has.
async fn await_cursor(http: &Client, base: &str, token: &str, cursor: &str) -> anyhow::Result<()> {
    let mut said = String::new();
    for _ in 0..TRIES {
        let request = http.get(format!("{base}/v1/accounts/me")).bearer_auth(token);
        let answer = request.header("mychat-after", cursor).send().await?;
        if answer.status().is_success() && !answer.headers().contains_key("mychat-behind") {
            return Ok(());
        }
        said = answer.status().to_string();
        tokio::time::sleep(PAUSE).await;
    }
    bail!("{base} does not hold what was written at the first node (it says {said}): are they one cluster?")
}

/// A call, its answer and its cursor.
async fn call(
    http: &Client,
    method: Method,
    url: &str,
    token: &str,
    body: Option<Value>,
) -> anyhow::Result<(Value, String)> {
    let mut request = http.request(method, url);
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.with_context(|| url.to_owned())?;
    let status = answer.status();
    let cursor = answer.headers().get("mychat-cursor").and_then(|value| value.to_str().ok());
    let cursor = cursor.unwrap_or_default().to_owned();
    let text = answer.text().await?;
    ensure!(status.is_success(), "{url} was answered with {status}: {text}");
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? };
    Ok((body, cursor))
}

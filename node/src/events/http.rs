//! `GET /v1/events`: the stream as server-sent events, or by long poll.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::BytesMut;
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;

use super::{
    Item, Only, Unreadable,
    backlog::{Backlog, is_too_far_behind},
    goodbye::{goodbye, retry, retry_line},
    handover::{CanTakeOver, Handover, joined},
    poll::{Polled, poll},
    state::Subscription,
    stream::Stream,
    turns::{NoTurn, away},
};
use crate::{
    app::{App, CATCH_UP},
    http::{Caller, Problem, Query, invalid_cursor},
    ids::SpaceId,
};

/// The longest poll; shorter than the deadline of calls.
const MAX_POLL: u64 = 25;

/// The routes of events.
pub fn routes() -> Router<App> {
    Router::new().route("/v1/events", get(events))
}

/// The part of the OpenAPI document that describes them.
#[derive(utoipa::OpenApi)]
#[openapi(paths(events))]
pub struct Docs;

#[derive(Debug, Default, Deserialize)]
struct Wish {
    spaces: Option<String>,
    cursor: Option<String>,
    poll: Option<u64>,
}

/// How a client wants to be told what goes wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// With a status, as a program can read it.
    Status,
    /// By a `goodbye` in the stream: a browser's EventSource gives up for ever at any other status than 200.
    Goodbye,
}

/// One stream of everything that happens in the caller's spaces, resumable at any node by `Last-Event-ID` or `cursor`.
/// With `poll` (seconds, 25 at most) the answer is `{events, cursor}` as soon as there is something.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(("spaces" = Option<String>, Query, description = "ids, separated by commas: only these spaces"),
        ("cursor" = Option<String>, Query, description = "where to go on; Last-Event-ID counts more"),
        ("poll" = Option<u64>, Query, description = "long poll, for that many seconds")),
    responses((status = 200, description = "events",
        content((String = "text/event-stream"), (Polled = "application/json")))))]
async fn events(State(app): State<App>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let wish = Query::<Wish>::from_request_parts(&mut parts, &app).await;
    let polls = wish.as_ref().is_ok_and(|wish| wish.0.poll.is_some());
    let manners = manners(&parts.headers, polls);
    let answer = async {
        if let Some(NoTurn(problem)) = parts.extensions.get() {
            metrics::counter!("mychat_events_refused_streams_total").increment(1);
            return Err(problem.clone());
        }
        let caller = Caller::from_request_parts(&mut parts, &app).await?;
        answer(&app, caller, wish?.0, &parts, manners).await
    };
    match (answer.await, manners) {
        (Ok(response), _) => response,
        (Err(problem), Manners::Status) => {
            let alternatives = alternatives(&app, &problem);
            problem.alternatives(alternatives).into_response()
        }
        (Err(problem), Manners::Goodbye) => {
            let alternatives = alternatives(&app, &problem);
            let unavailable = problem.status == StatusCode::SERVICE_UNAVAILABLE;
            let drains = unavailable && app.condition.is_draining();
            let last = goodbye(if drains { "draining" } else { problem.code }, &alternatives);
            let retry = retry_line(retry(app.condition.open_streams()));
            sse(Body::from([retry.as_bytes(), &last.wire].concat()))
        }
    }
}

/// Where the client may go instead.
fn alternatives(app: &App, problem: &Problem) -> Vec<String> {
    if problem.status == StatusCode::SERVICE_UNAVAILABLE { app.alternatives() } else { Vec::new() }
}

fn manners(headers: &HeaderMap, polls: bool) -> Manners {
    let fetch = headers.get("mychat-client").is_some_and(|client| client == "fetch");
    let streams = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/event-stream"));
    if streams && !fetch && !polls { Manners::Goodbye } else { Manners::Status }
}

async fn answer(
    app: &App,
    caller: Caller,
    wish: Wish,
    call: &Parts,
    manners: Manners,
) -> Result<Response, Problem> {
    if app.condition.is_draining() {
        return Err(Problem::unavailable("the node is going out of service"));
    }
    if app.capacity.is_full(app.condition.open_streams()) {
        metrics::counter!("mychat_events_refused_streams_total").increment(1);
        return Err(Problem::unavailable("the node has as many streams as it can carry"));
    }
    let only = wish.spaces.as_deref().map(parse_spaces).transpose()?.map(Only::from_iter);
    let given = call
        .headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok())
        .or(wish.cursor.as_deref())
        .filter(|cursor| !cursor.is_empty());
    // A stream begins after everything that has been answered with success so far: the hub may be a moment behind.
    let cursors = app.events.cursors();
    let given = match given {
        Some(text) => Some(match cursors.read(text) {
            Err(Unreadable::Unknown) => away(&call.extensions, cursors.read_within(text, CATCH_UP)).await?,
            read => read,
        }),
        None => None,
    };
    let (mut cursor, mut reset) = match given {
        None => (cursors.now(), false),
        Some(Ok(cursor)) => (cursor, false),
        // A node far behind where the client has been: what it has missed can't be told here.
        Some(Err(Unreadable::Unknown)) => {
            metrics::counter!("mychat_events_unknown_cursors_total").increment(1);
            (cursors.now(), true)
        }
        // An EventSource would give up over a status; told to start over, it goes on.
        Some(Err(Unreadable::Malformed)) if manners == Manners::Goodbye => (cursors.now(), true),
        Some(Err(Unreadable::Malformed)) => return Err(invalid_cursor()),
    };
    // Before the stream is registered: what a client has seen that begins anew is no matter any more.
    if is_too_far_behind(&cursor, &app.store.vector()) {
        (cursor, reset) = (cursors.now(), true);
    }
    let subscription = Subscription {
        account: caller.account,
        session: caller.session,
        only: only.clone(),
        cursor: cursor.clone(),
    };
    let opened = app.events.open(subscription).await?;
    let start = cursors.write(&cursor);
    let caught_up = cursor.clone();
    let (recent, account) = (app.events.recent(), caller.account);
    let backlog = Some(Backlog::new(recent, cursors.clone(), account, only, cursor, &opened.position));
    let mut first = Vec::new();
    if reset {
        first.push(Item::new(Some(start.clone()), "reset", &json!({ "cursor": start })));
    }
    let stream = Stream::new(backlog, opened);
    match wish.poll {
        Some(seconds) => {
            let caught_up = cursors.write(&stream.caught_up(caught_up));
            Ok(poll(stream, caught_up, first, Duration::from_secs(seconds.min(MAX_POLL))).await)
        }
        None => {
            let retry = retry(app.condition.open_streams());
            first.insert(0, ready(app, &start, retry));
            let mut head = BytesMut::from(retry_line(retry).as_bytes());
            for item in &first {
                head.extend_from_slice(&item.wire);
            }
            let head = head.freeze();
            if call.extensions.get::<CanTakeOver>().is_none() {
                return Ok(sse(body(head, stream)));
            }
            let mut response = sse(Body::empty());
            response.extensions_mut().insert(Handover::new(head, stream));
            Ok(response)
        }
    }
}

fn parse_spaces(list: &str) -> Result<BTreeSet<SpaceId>, Problem> {
    list.split(',')
        .map(str::trim)
        .filter(|id| !id.is_empty())
        .map(|id| {
            id.parse().map_err(|_| Problem::invalid_query(format!("spaces: {id:?} is no id of a space")))
        })
        .collect()
}

fn ready(app: &App, cursor: &str, retry: u64) -> Item {
    let data = json!({
        "node": app.node(),
        "region": app.config.region,
        "cursor": cursor,
        "retry": retry,
    });
    Item::new(Some(cursor.to_owned()), "ready", &data)
}

fn body(head: Bytes, stream: Stream) -> Body {
    Body::from_stream(stream::unfold((Some(head), stream), async |(head, mut stream)| {
        if let Some(head) = head {
            return Some((Ok::<_, std::convert::Infallible>(head), (None, stream)));
        }
        let items = stream.next().await?;
        Some((Ok(joined(&items)), (None::<Bytes>, stream)))
    }))
}

fn sse(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that buffer would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

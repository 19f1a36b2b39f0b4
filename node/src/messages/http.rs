//! The calls on messages, their history and reactions.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, put},
};
use mychat_replication::store::Batch;
use serde::Deserialize;
use serde_json::json;

use super::{
    call::{self, Draft, Posted, Text},
    history::{self, Order, Span},
    mention,
    purge::Range,
    resource::{self, Message},
    rules,
};
use crate::{
    app::App,
    http::{Body, Caller, Items, Page, Path, Problem, Query, Reply, Write},
    ids::{MessageId, SpaceId},
    spaces,
};

/// The routes.
pub fn routes() -> Router<App> {
    let routes = Router::new()
        .route("/v1/spaces/{space}/messages", get(list).post(send).delete(delete_range))
        .route("/v1/spaces/{space}/messages/{message}", get(show).patch(edit).delete(delete))
        .route("/v1/spaces/{space}/messages/{message}/reactions/{emoji}", put(react).delete(unreact));
    #[cfg(feature = "next")]
    let routes = routes.merge(crate::next::routes());
    routes
}

/// The OpenAPI document of these routes.
#[derive(utoipa::OpenApi)]
#[openapi(paths(send, list, show, edit, delete, delete_range, react, unreact), components(schemas(Order)))]
pub struct Docs;

/// A new message.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
struct NewMessage {
    /// Markdown, at most 16 KiB.
    body: String,
    /// The client's own id of the message: sending it again, at any node, is no second message.
    client_id: Option<String>,
    /// The message that this one answers.
    #[schema(value_type = Option<String>)]
    reply_to: Option<MessageId>,
    /// The message whose thread this one is in.
    #[schema(value_type = Option<String>)]
    thread: Option<MessageId>,
    /// Must be absent or empty: files can't be attached yet.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    attachments: Option<Vec<serde_json::Value>>,
}

/// Sends a message, which is durable when it is answered.
///
/// A `client_id` that the caller has used in the space before is answered with that message, also with 201.
#[utoipa::path(post, path = "/v1/spaces/{space}/messages", tag = "messages", params(("space" = String, Path)),
    request_body = NewMessage, responses((status = 201, description = "the message", body = Message),
        (status = 413, description = "the text is too long")))]
async fn send(
    State(app): State<App>,
    caller: Caller,
    Path(space): Path<SpaceId>,
    write: Write,
    Body(new): Body<NewMessage>,
) -> Result<Response, Problem> {
    rules::body(&new.body)?;
    new.client_id.as_deref().map(rules::client_id).transpose()?;
    if new.attachments.is_some_and(|files| !files.is_empty()) {
        return Err(rules::no_attachments());
    }
    let author = caller.account;
    // Everything that takes long is done before the writer's turn.
    let draft = Draft {
        author,
        text: prepare(&app, new.body).await?,
        client_id: new.client_id,
        reply_to: new.reply_to,
        thread: new.thread,
        random: rand::random(),
    };
    let known = Arc::new(OnceLock::new());
    let found = Arc::clone(&known);
    let job = move |batch: &mut Batch<'_>| match call::send(batch, space, draft)? {
        Posted::New(message) => Reply::created(&message),
        Posted::Known(id) => {
            let _ = found.set(id);
            Err(rules::sent_before())
        }
    };
    let answer = write.clone().run(&app, Some(&caller), job).await;
    let Some(id) = known.get().copied() else { return answer };
    // Shown after the writer's turn, and then answered, and kept, as if that had been done in it.
    let message =
        app.store.read(move |db| resource::resource(db, space, id)?.ok_or_else(rules::no_message)).await?;
    write.run(&app, Some(&caller), move |_| Reply::created(&message)).await
}

/// Bodies from this size on are rendered where they hold up nobody else, in bytes.
const LONG_BODY: usize = 2 << 10;

/// Makes of a body what takes long.
async fn prepare(app: &App, body: String) -> Result<Text, Problem> {
    let mentions = if mention::handles(&body).is_empty() {
        Vec::new()
    } else {
        let (keys, text) = (app.keys.clone(), body.clone());
        app.store.read(move |db| Ok::<_, Problem>(mention::accounts(db, &keys, &text)?)).await?
    };
    if body.len() < LONG_BODY {
        return Ok(Text::new(body, mentions));
    }
    tokio::task::spawn_blocking(move || Text::new(body, mentions))
        .await
        .map_err(|_| Problem::unavailable("the text could not be rendered"))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct HistoryQuery {
    /// Messages sent from then on: RFC 3339, or a date for its midnight in UTC.
    since: Option<String>,
    /// Messages sent before then.
    until: Option<String>,
    /// Items on the page, 1 to 200; 50 when absent.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Oldest first (`asc`, when absent) or latest first.
    order: Option<Order>,
}

/// The history of the space, for its members; those who have not joined a public space get 403.
#[utoipa::path(get, path = "/v1/spaces/{space}/messages", tag = "messages",
    params(("space" = String, Path), HistoryQuery),
    responses((status = 200, description = "a page of messages, tombstones among them", body = Items<Message>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(space): Path<SpaceId>,
    Query(query): Query<HistoryQuery>,
) -> Result<axum::Json<Items<Message>>, Problem> {
    let page = Page::new(query.limit, query.cursor);
    let (limit, seen) = (page.limit()?, page.after::<MessageId>()?);
    let time = |name, text: Option<&str>| text.map(|text| history::millis(name, text)).transpose();
    let span = Span::of(time("since", query.since.as_deref())?, time("until", query.until.as_deref())?);
    let order = query.order.unwrap_or_default();
    let span = seen.map_or(span, |seen| span.behind(seen, order));
    let messages = app
        .store
        .read(move |db| {
            spaces::require_member(db, space, caller.account)?;
            Ok::<_, Problem>(history::page(db, space, span, order, limit)?)
        })
        .await?;
    Ok(axum::Json(messages))
}

/// One message, or its tombstone.
#[utoipa::path(get, path = "/v1/spaces/{space}/messages/{message}", tag = "messages",
    params(("space" = String, Path), ("message" = String, Path)),
    responses((status = 200, description = "the message", body = Message)))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Path((space, message)): Path<(SpaceId, MessageId)>,
) -> Result<axum::Json<Message>, Problem> {
    let message = app
        .store
        .read(move |db| {
            spaces::require_member(db, space, caller.account)?;
            resource::resource(db, space, message)?.ok_or_else(rules::no_message)
        })
        .await?;
    Ok(axum::Json(message))
}

/// A new text.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
struct NewBody {
    /// Markdown, at most 16 KiB.
    body: String,
}

/// Changes the text of one's own message.
#[utoipa::path(patch, path = "/v1/spaces/{space}/messages/{message}", tag = "messages",
    params(("space" = String, Path), ("message" = String, Path)), request_body = NewBody,
    responses((status = 200, description = "the message as it is now", body = Message),
        (status = 403, description = "somebody else's"), (status = 409, description = "it is deleted")))]
async fn edit(
    State(app): State<App>,
    caller: Caller,
    Path((space, message)): Path<(SpaceId, MessageId)>,
    write: Write,
    Body(new): Body<NewBody>,
) -> Result<Response, Problem> {
    rules::body(&new.body)?;
    let by = caller.account;
    let text = prepare(&app, new.body).await?;
    let job = move |batch: &mut Batch<'_>| Reply::ok(&call::edit(batch, space, message, by, text)?);
    write.run(&app, Some(&caller), job).await
}

/// Deletes a message, which leaves a tombstone: its author, or an owner or admin of the space.
#[utoipa::path(delete, path = "/v1/spaces/{space}/messages/{message}", tag = "messages",
    params(("space" = String, Path), ("message" = String, Path)),
    responses((status = 204, description = "its text is gone"), (status = 403, description = "somebody else's")))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path((space, message)): Path<(SpaceId, MessageId)>,
    write: Write,
) -> Result<Response, Problem> {
    let by = caller.account;
    let job = move |batch: &mut Batch<'_>| {
        call::delete(batch, space, message, by)?;
        Ok(Reply::no_content())
    };
    write.run(&app, Some(&caller), job).await
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct RangeQuery {
    /// Messages sent from then on: RFC 3339, or a date for its midnight in UTC.
    #[param(required)]
    since: Option<String>,
    /// Messages sent before then; up to now when absent.
    until: Option<String>,
}

/// How long the answer to a governance deletion is held back until the texts are overwritten: after that it goes on
/// without the caller, to whom they are gone as soon as it is stated.
const PURGE_PATIENCE: Duration = Duration::from_secs(5);

/// Governance deletion: the texts of a range of time are gone on every node. For owners.
#[utoipa::path(delete, path = "/v1/spaces/{space}/messages", tag = "messages",
    params(("space" = String, Path), RangeQuery),
    responses((status = 200, description = "`{deleted}`: how many messages of this node were deleted")))]
async fn delete_range(
    State(app): State<App>,
    caller: Caller,
    Path(space): Path<SpaceId>,
    write: Write,
    Query(range): Query<RangeQuery>,
) -> Result<Response, Problem> {
    let since =
        range.since.ok_or_else(|| Problem::invalid_query("since is missing: from when on to delete"))?;
    let since = history::millis("since", &since)?;
    let until = range.until.map(|until| history::millis("until", &until)).transpose()?;
    let range = Range { space, by: caller.account, since, until };
    // To count takes long, which is not for the writer's turn.
    let deleted = app
        .store
        .read(move |db| {
            range.check(db)?;
            Ok::<_, Problem>(range.count(db)?)
        })
        .await?;
    let job = move |batch: &mut Batch<'_>| {
        range.check(batch.connection())?;
        range.state(batch);
        Reply::ok(&json!({ "deleted": deleted }))
    };
    // In a task of its own, so that the texts are overwritten also when the caller does not wait for the answer.
    let erasure = app.erasure.clone();
    let stating = tokio::spawn(async move {
        let answer = write.run(&app, Some(&caller), job).await;
        // Without success, too: where only other regions lack the fact, it stands.
        (answer, app.erasure.ask(space))
    });
    let (answer, ticket) =
        stating.await.map_err(|_| Problem::unavailable("the range could not be deleted"))?;
    let answer = answer?;
    erasure.done(ticket, PURGE_PATIENCE).await;
    Ok(answer)
}

/// Puts a reaction of the caller to a message.
#[utoipa::path(put, path = "/v1/spaces/{space}/messages/{message}/reactions/{emoji}", tag = "messages",
    params(("space" = String, Path), ("message" = String, Path), ("emoji" = String, Path)),
    responses((status = 204, description = "it is there"), (status = 409, description = "the message is deleted")))]
async fn react(
    State(app): State<App>,
    caller: Caller,
    Path((space, message, emoji)): Path<(SpaceId, MessageId, String)>,
    write: Write,
) -> Result<Response, Problem> {
    rules::emoji(&emoji)?;
    let account = caller.account;
    let job = move |batch: &mut Batch<'_>| {
        call::react(batch, space, message, account, &emoji)?;
        Ok(Reply::no_content())
    };
    write.run(&app, Some(&caller), job).await
}

/// Takes a reaction of the caller away.
#[utoipa::path(delete, path = "/v1/spaces/{space}/messages/{message}/reactions/{emoji}", tag = "messages",
    params(("space" = String, Path), ("message" = String, Path), ("emoji" = String, Path)),
    responses((status = 204, description = "it is not there")))]
async fn unreact(
    State(app): State<App>,
    caller: Caller,
    Path((space, message, emoji)): Path<(SpaceId, MessageId, String)>,
    write: Write,
) -> Result<Response, Problem> {
    rules::emoji(&emoji)?;
    let account = caller.account;
    let job = move |batch: &mut Batch<'_>| {
        call::unreact(batch, space, message, account, &emoji)?;
        Ok(Reply::no_content())
    };
    write.run(&app, Some(&caller), job).await
}

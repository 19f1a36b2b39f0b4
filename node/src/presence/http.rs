//! The calls on typing and presence.

use std::collections::BTreeSet;

use axum::{
    Json, Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use serde::Serialize;
use serde_json::json;

use super::MOST_READERS;
use crate::{
    app::App,
    http::{
        Caller, Items, Page, Path, Problem, Query, Reply,
        write::{cursor, with_cursor},
    },
    ids::{AccountId, SpaceId},
    spaces,
};

/// The routes.
pub fn routes() -> Router<App> {
    Router::new().route("/v1/spaces/{space}/typing", post(typing)).route("/v1/presence", get(online))
}

/// The OpenAPI document of these routes.
#[derive(utoipa::OpenApi)]
#[openapi(paths(typing, online))]
pub struct Docs;

/// Says that the caller is typing: passed on to the members who are there, never stored.
///
/// Others hear of the same person in the same space at most every 2.5 seconds, so clients should not call more often
/// than every 3 while somebody types.
#[utoipa::path(post, path = "/v1/spaces/{space}/typing", tag = "presence", params(("space" = String, Path)),
    responses((status = 202, description = "it is passed on, unless it was just now")))]
async fn typing(
    State(app): State<App>,
    caller: Caller,
    Path(space): Path<SpaceId>,
) -> Result<Response, Problem> {
    app.store.read(move |db| spaces::require_member(db, space, caller.account).map(drop)).await?;
    app.presence.typing(space, caller.account);
    // Nothing is written, so what is held now is all that there is to see.
    let seen = cursor(&app, &app.store.vector());
    Ok(with_cursor(Reply::accepted(&json!({}))?, seen))
}

/// Somebody's presence; also the data of `presence` events.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Present {
    /// Who.
    #[schema(value_type = String, format = Uuid)]
    account: AccountId,
    /// Whether any node holds a stream of theirs.
    online: bool,
}

/// Who is online of the people whom the caller shares spaces with.
///
/// Spaces with more than 200 members are left out; their lists of members say who is online. Read it after `ready` of a
/// stream on the same node: a node knows of the people of other nodes who share a space with somebody that has a stream
/// here.
#[utoipa::path(get, path = "/v1/presence", tag = "presence", params(Page),
    responses((status = 200, description = "a page of people who are online", body = Items<Present>)))]
async fn online(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Json<Items<Present>>, Problem> {
    let (limit, after) = (page.limit()?, page.after::<AccountId>()?);
    let people = app
        .store
        .read(move |db| {
            let mut people = BTreeSet::new();
            for space in spaces::spaces_of(db, caller.account)? {
                let members = spaces::some_members_of(db, space, MOST_READERS + 1)?;
                if members.len() <= MOST_READERS {
                    people.extend(members);
                }
            }
            people.remove(&caller.account);
            Ok::<_, Problem>(people)
        })
        .await?;
    let online = app.presence.online(people);
    let following = online.into_iter().filter(|account| after.is_none_or(|after| *account > after));
    let items = following.take(limit + 1).map(|account| Present { account, online: true }).collect();
    Ok(Json(Items::cut(items, limit, |last: &Present| last.account.to_string())))
}

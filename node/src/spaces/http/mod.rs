//! The calls on spaces; those on members and invitations are in `members`.

mod members;

use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use mychat_replication::store::Batch;
use rusqlite::Connection;
use serde::{Deserialize, Deserializer};

use super::{
    Role, Space, Visibility,
    facts::{self, Setting},
    query, resource, rules, succession,
};
use crate::{
    accounts,
    app::App,
    http::{Body, Caller, Items, Page, Path, Problem, Query, Reply, Write},
    ids::{AccountId, SpaceId},
};

/// The routes.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/spaces", get(list).post(create))
        .route("/v1/spaces/direct", post(direct))
        .route("/v1/spaces/{space}", get(show).patch(change).delete(delete))
        .merge(members::routes())
}

/// The OpenAPI document of these routes.
#[derive(utoipa::OpenApi)]
#[openapi(paths(
    list,
    create,
    direct,
    show,
    change,
    delete,
    members::list,
    members::put,
    members::remove,
    members::invite,
    members::accept
))]
pub struct Docs;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// `public` lists the spaces that the caller can join; without it the caller's own are listed.
    visibility: Option<Visibility>,
    /// Items on the page, 1 to 200; 50 when absent.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// The caller's spaces, or with `visibility=public` those that the caller has not joined and can join.
#[utoipa::path(get, path = "/v1/spaces", tag = "spaces", params(ListQuery),
    responses((status = 200, description = "a page of spaces, by age", body = Items<Space>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<Items<Space>>, Problem> {
    let page = Page::new(query.limit, query.cursor);
    let (limit, after) = (page.limit()?, page.after::<SpaceId>()?);
    let open = match query.visibility {
        None => false,
        Some(Visibility::Public) => true,
        Some(_) => return Err(Problem::invalid_query("visibility can only be: public")),
    };
    let account = caller.account;
    let spaces = app
        .store
        .read(move |db| {
            let ids = if open {
                query::open_after(db, account, after, limit + 1)?
            } else {
                query::own_after(db, account, after, limit + 1)?
            };
            let mut spaces = Vec::with_capacity(ids.len());
            for id in ids {
                spaces.extend(resource::resource(db, id, Some(account))?);
            }
            Ok::<_, Problem>(Items::cut(spaces, limit, |last| last.id.to_string()))
        })
        .await?;
    Ok(axum::Json(spaces))
}

/// A new space.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
struct NewSpace {
    /// 1 to 100 characters.
    name: String,
    /// At most 1000 characters.
    topic: Option<String>,
    /// `private` when absent.
    visibility: Option<Visibility>,
    /// For how many days messages are kept; for ever when absent.
    retention_days: Option<u32>,
}

/// Founds a space, which the caller owns.
#[utoipa::path(post, path = "/v1/spaces", tag = "spaces", request_body = NewSpace,
    responses((status = 201, description = "the space", body = Space)))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    write: Write,
    Body(new): Body<NewSpace>,
) -> Result<Response, Problem> {
    let name = rules::name(&new.name)?;
    let topic = rules::topic(new.topic.as_deref().unwrap_or_default())?;
    let visibility = rules::open_or_private(new.visibility.unwrap_or(Visibility::Private))?;
    let retention_days = rules::retention(new.retention_days)?;
    let account = caller.account;
    let job = move |batch: &mut Batch<'_>| {
        let id = SpaceId::from_stamp(batch.stamp(), rand::random());
        facts::found(batch, id, account, visibility, name.clone(), topic.clone());
        if retention_days.is_some() {
            facts::change(batch, id, account, Setting::RetentionDays(retention_days));
        }
        let current = query::Current {
            id,
            visibility,
            name,
            topic,
            retention_days,
            created: id.stamp(),
            creator: Some(account),
        };
        let space = Space { role: Some(Role::Owner), ..resource::described(current) };
        Reply::created(&space)
    };
    write.run(&app, Some(&caller), job).await
}

/// Whom to talk to.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
struct NewDirect {
    /// The others; the caller may be among them or not.
    #[schema(value_type = Vec<String>)]
    accounts: Vec<AccountId>,
}

/// The direct conversation of the caller and the accounts: there is one for each set, whoever asks where.
#[utoipa::path(post, path = "/v1/spaces/direct", tag = "spaces", request_body = NewDirect,
    responses((status = 201, description = "it has begun", body = Space),
        (status = 200, description = "it was there already", body = Space)))]
async fn direct(
    State(app): State<App>,
    caller: Caller,
    write: Write,
    Body(new): Body<NewDirect>,
) -> Result<Response, Problem> {
    if new.accounts.is_empty() || new.accounts.len() > rules::MAX_DIRECT {
        return Err(Problem::invalid_body(format!("accounts must name 1 to {} accounts", rules::MAX_DIRECT)));
    }
    let mut all = new.accounts;
    all.push(caller.account);
    all.sort_unstable();
    all.dedup();
    await_accounts(&app, &all).await?;
    let account = caller.account;
    let job = move |batch: &mut Batch<'_>| {
        let id = facts::direct_id(&all);
        let db = batch.connection();
        if let Some(space) = resource::resource(db, id, Some(account))?.filter(|space| space.role.is_some()) {
            return Reply::ok(&space);
        }
        let others: Vec<AccountId> =
            all.iter().copied().filter(|other| all.len() == 1 || *other != account).collect();
        let name = resource::names(db, &others)?;
        let created = facts::found_direct(batch, all, account);
        let current = query::Current {
            id,
            visibility: Visibility::Direct,
            name,
            topic: String::new(),
            retention_days: None,
            created,
            creator: None,
        };
        let space = Space { role: Some(Role::Member), ..resource::described(current) };
        Reply::created(&space)
    };
    write.run(&app, Some(&caller), job).await
}

/// One space, if the caller is a member or it is public.
#[utoipa::path(get, path = "/v1/spaces/{space}", tag = "spaces", params(("space" = String, Path)),
    responses((status = 200, description = "the space", body = Space),
        (status = 404, description = "none that the caller may know of")))]
async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(space): Path<SpaceId>,
) -> Result<axum::Json<Space>, Problem> {
    let space = app
        .store
        .read(move |db| {
            if !query::visible(db, space, caller.account)? {
                return Err(rules::no_space());
            }
            resource::resource(db, space, Some(caller.account))?.ok_or_else(rules::no_space)
        })
        .await?;
    Ok(axum::Json(space))
}

/// Settings to change; what is absent stays.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
struct Changes {
    name: Option<String>,
    /// `null` or empty takes it away.
    #[serde(default, deserialize_with = "given")]
    topic: Option<Option<String>>,
    /// `public` or `private`.
    visibility: Option<Visibility>,
    /// `null` keeps messages for ever.
    #[serde(default, deserialize_with = "given")]
    retention_days: Option<Option<u32>>,
}

/// Tells a field that is `null` from one that is absent.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Changes settings of the space; for its owners and admins.
#[utoipa::path(patch, path = "/v1/spaces/{space}", tag = "spaces", params(("space" = String, Path)),
    request_body = Changes, responses((status = 200, description = "the space as it is now", body = Space)))]
async fn change(
    State(app): State<App>,
    caller: Caller,
    Path(space): Path<SpaceId>,
    write: Write,
    Body(wanted): Body<Changes>,
) -> Result<Response, Problem> {
    let name = wanted.name.as_deref().map(rules::name).transpose()?;
    let topic = wanted.topic.map(|topic| rules::topic(topic.as_deref().unwrap_or_default())).transpose()?;
    let visibility = wanted.visibility.map(rules::open_or_private).transpose()?;
    let retention = wanted.retention_days.map(rules::retention).transpose()?;
    let account = caller.account;
    let job = move |batch: &mut Batch<'_>| {
        let db = batch.connection();
        rules::require_admin(db, space, account)?;
        let mut now = resource::resource(db, space, Some(account))?.ok_or_else(rules::no_space)?;
        let mut settings = Vec::new();
        if let Some(name) = name.filter(|name| *name != now.name) {
            settings.push(Setting::Name(name.clone()));
            now.name = name;
        }
        if let Some(topic) = topic.filter(|topic| *topic != now.topic) {
            settings.push(Setting::Topic(topic.clone()));
            now.topic = topic;
        }
        if let Some(visibility) = visibility.filter(|visibility| *visibility != now.visibility) {
            settings.push(Setting::Visibility(visibility));
            now.visibility = visibility;
        }
        if let Some(days) = retention.filter(|days| *days != now.retention_days) {
            settings.push(Setting::RetentionDays(days));
            now.retention_days = days;
        }
        succession::confirm(batch, space, account)?;
        for setting in settings {
            facts::change(batch, space, account, setting);
        }
        Reply::ok(&now)
    };
    write.run(&app, Some(&caller), job).await
}

/// Deletes the space for everybody; for its owners and admins.
#[utoipa::path(delete, path = "/v1/spaces/{space}", tag = "spaces", params(("space" = String, Path)),
    responses((status = 204, description = "it is gone")))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(space): Path<SpaceId>,
    write: Write,
) -> Result<Response, Problem> {
    let account = caller.account;
    let job = move |batch: &mut Batch<'_>| {
        rules::require_admin(batch.connection(), space, account)?;
        facts::change(batch, space, account, Setting::Deleted);
        Ok(Reply::no_content())
    };
    write.run(&app, Some(&caller), job).await
}

/// Waits a moment for accounts that this node has not heard of.
async fn await_accounts(app: &App, wanted: &[AccountId]) -> Result<(), Problem> {
    let wanted = wanted.to_vec();
    let all = move |db: &Connection| {
        for account in &wanted {
            if !accounts::exists(db, *account)? {
                return Ok(None);
            }
        }
        Ok(Some(()))
    };
    app.await_rows(all).await?.ok_or_else(rules::no_account)
}

//! The routes of accounts: signing up, profiles, finding people, preferences, closing.

use std::collections::BTreeSet;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::get,
};
use mychat_replication::store::Batch;
use serde::{Deserialize, Deserializer};

use super::{
    Account, HANDLE, PublicAccount, by_handle,
    closing::{self, Mode},
    export,
    password::Secret,
    preferences::{self, Preferences},
    profile, public_profile, rules,
    sessions::{self, http::SignedIn},
    store::{self, Field},
};
use crate::{
    app::App,
    claims,
    http::{Body, Caller, Items, Path, Problem, Query, Reply, Write, json},
    ids::AccountId,
    keys::Keys,
};

/// The routes.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/accounts", get(find).post(sign_up))
        .route("/v1/accounts/me", get(me).patch(change).delete(close))
        .route("/v1/accounts/me/export", get(export))
        .route("/v1/accounts/me/preferences", get(get_preferences).put(put_preferences))
        .route("/v1/accounts/{id}", get(by_id))
        .merge(sessions::http::routes())
}

/// The OpenAPI document of these routes.
#[derive(utoipa::OpenApi)]
#[openapi(
    paths(sign_up, find, me, change, close, by_id, export, get_preferences, put_preferences),
    components(schemas(Mode))
)]
pub struct Docs;

/// What it takes to sign up.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct SignUp {
    email: String,
    #[schema(value_type = String, format = Password, min_length = 8, max_length = 1024)]
    password: Secret,
    name: String,
}

/// Makes an account and signs it in.
#[utoipa::path(post, path = "/v1/accounts", tag = "accounts", request_body = SignUp, responses(
    (status = 201, description = "made, and signed in", body = SignedIn),
    (status = 409, description = "`conflict`: the address has an account"),
    (status = 429, description = "`rate_limited`: too many sign up at the moment")))]
async fn sign_up(
    State(app): State<App>,
    write: Write,
    headers: HeaderMap,
    Body(wish): Body<SignUp>,
) -> Result<Response, Problem> {
    let (email, name) = (rules::email(&wish.email)?, rules::name(&wish.name)?);
    rules::password(wish.password.bytes())?;
    let hash = app.passwords.hash(wish.password).await?;
    let (keys, device) = (app.keys.clone(), sessions::http::device(&app, &headers));
    let outcome = write
        .outcome(&app, None, move |batch| {
            if store::by_email(batch.connection(), &keys, &email)?.is_some() {
                return Err(Problem::conflict("there is an account with this e-mail address"));
            }
            let handle = free_handle(batch, &keys, &name, &BTreeSet::new())?;
            let account = store::found(batch, false);
            store::state_unique(batch, &keys, account, Field::Email, email);
            store::state(batch, account, Field::Name, Some(name));
            if let Some(handle) = handle {
                store::state_unique(batch, &keys, account, Field::Handle, handle);
            }
            store::set_password(batch, account, &hash);
            let session = sessions::begin(batch, account, device);
            sessions::http::begun(batch, account, session)
        })
        .await?;
    sessions::http::answer(&app, &headers, outcome).await
}

/// A handle for somebody of this name that nobody has claimed; none when chance finds none.
///
/// `taken` are those that the batch claims already, which does not show its own rows.
///
/// # Errors
/// What the database says.
pub(crate) fn free_handle(
    batch: &Batch<'_>,
    keys: &Keys,
    name: &str,
    taken: &BTreeSet<String>,
) -> Result<Option<String>, Problem> {
    const TRIES: usize = 8;
    let stem = rules::handle_of(name);
    for attempt in 0..TRIES {
        let handle = match attempt {
            0 => stem.clone(),
            _ => format!("{stem}-{:04}", rand::random_range(0..10_000)),
        };
        if !taken.contains(&handle)
            && claims::owner(batch.connection(), HANDLE, keys.claim(HANDLE, &handle))?.is_none()
        {
            return Ok(Some(handle));
        }
    }
    Ok(None)
}

/// How to find an account.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Find {
    /// The account's handle.
    handle: String,
}

/// Finds an account by its handle.
#[utoipa::path(get, path = "/v1/accounts", tag = "accounts", params(Find), security(("bearer" = [])),
    responses((status = 200, description = "none or one", body = Items<PublicAccount>)))]
async fn find(
    State(app): State<App>,
    _: Caller,
    Query(Find { handle }): Query<Find>,
) -> Result<axum::Json<Items<PublicAccount>>, Problem> {
    let keys = app.keys.clone();
    let found = app
        .store
        .read(move |db| {
            let Some(id) = by_handle(db, &keys, &handle)? else { return Ok::<_, Problem>(None) };
            Ok(public_profile(db, id)?)
        })
        .await?;
    Ok(axum::Json(Items::all(found.into_iter().collect())))
}

/// The caller's own account.
#[utoipa::path(get, path = "/v1/accounts/me", tag = "accounts", security(("bearer" = [])),
    responses((status = 200, description = "the account", body = Account)))]
async fn me(State(app): State<App>, caller: Caller) -> Result<axum::Json<Account>, Problem> {
    let account = app.store.read(move |db| Ok::<_, Problem>(profile(db, caller.account)?)).await?;
    account.map(axum::Json).ok_or_else(unknown)
}

/// An account: its public part, or all of it when it is the caller's own.
#[utoipa::path(get, path = "/v1/accounts/{id}", tag = "accounts", security(("bearer" = [])),
    params(("id" = String, Path, description = "the account's id")),
    responses((status = 200, description = "the account", body = PublicAccount), (status = 404, description = "`not_found`")))]
async fn by_id(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<AccountId>,
) -> Result<axum::Json<serde_json::Value>, Problem> {
    let account = app.store.read(move |db| Ok::<_, Problem>(profile(db, id)?)).await?.ok_or_else(unknown)?;
    Ok(axum::Json(if id == caller.account { json(&account)? } else { json(&PublicAccount::from(account))? }))
}

fn unknown() -> Problem {
    Problem::not_found("there is no such account")
}

/// A change of the profile: absent fields stay, `null` removes.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
pub struct Change {
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    name: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    handle: Option<Option<String>>,
    /// The address to sign in with from then on; it can't be removed.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    email: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    phone: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    address: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    avatar: Option<Option<String>>,
}

/// Tells a field that is `null` from one that is absent.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Change {
    /// The fields that are given, checked.
    fn checked(self) -> Result<Vec<(Field, Option<String>)>, Problem> {
        if self.name == Some(None) {
            return Err(Problem::invalid_body("name can't be removed"));
        }
        if self.email == Some(None) {
            return Err(Problem::invalid_body("email can't be removed"));
        }
        type Rule = fn(&str) -> Result<String, Problem>;
        let given: [(Field, Option<Option<String>>, Rule); 6] = [
            (Field::Name, self.name, rules::name),
            (Field::Handle, self.handle, rules::handle),
            (Field::Email, self.email, rules::email),
            (Field::Phone, self.phone, rules::phone),
            (Field::Address, self.address, rules::address),
            (Field::Avatar, self.avatar, rules::avatar),
        ];
        let given =
            given.into_iter().filter_map(|(field, value, rule)| value.map(|value| (field, value, rule)));
        given.map(|(field, value, rule)| Ok((field, value.as_deref().map(rule).transpose()?))).collect()
    }
}

/// Changes the caller's profile.
#[utoipa::path(patch, path = "/v1/accounts/me", tag = "accounts", request_body = Change, security(("bearer" = [])),
    responses((status = 200, description = "the account as it is now", body = Account),
        (status = 409, description = "`conflict`: the handle or the e-mail address is taken")))]
async fn change(
    State(app): State<App>,
    caller: Caller,
    write: Write,
    Body(change): Body<Change>,
) -> Result<Response, Problem> {
    let changes = change.checked()?;
    let keys = app.keys.clone();
    let job = move |batch: &mut Batch<'_>| {
        let mut account = profile(batch.connection(), caller.account)?.ok_or_else(unknown)?;
        for (field, value) in changes {
            let slot = match field {
                Field::Name => &mut account.name,
                Field::Handle => &mut account.handle,
                Field::Email => &mut account.email,
                Field::Phone => &mut account.phone,
                Field::Address => &mut account.address,
                Field::Avatar => &mut account.avatar,
                Field::State => continue,
            };
            if *slot != value {
                let old = std::mem::replace(slot, value.clone());
                restate(batch, &keys, caller.account, field, old, value)?;
            }
        }
        Reply::ok(&account)
    };
    write.run(&app, Some(&caller), job).await
}

/// States a new value of a field; a handle or an e-mail address is claimed, and the one before given up.
fn restate(
    batch: &mut Batch<'_>,
    keys: &Keys,
    id: AccountId,
    field: Field,
    old: Option<String>,
    new: Option<String>,
) -> Result<(), Problem> {
    let taken = match field {
        Field::Handle => "the handle is taken",
        Field::Email => "there is an account with this e-mail address",
        _ => {
            store::state(batch, id, field, new);
            return Ok(());
        }
    };
    let kind = field.as_str();
    if let Some(new) = &new {
        let owner = claims::owner(batch.connection(), kind, keys.claim(kind, new))?;
        if owner.is_some_and(|owner| owner != id.0) {
            return Err(Problem::conflict(taken));
        }
    }
    if let Some(old) = old {
        store::release(batch, keys, id, field, &old);
    }
    match new {
        Some(new) => store::state_unique(batch, keys, id, field, new),
        None => store::state(batch, id, field, None),
    }
    Ok(())
}

/// How to close an account.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Close {
    /// `deactivate` keeps the account's data, `erase` removes what is personal.
    mode: Mode,
}

/// Closes the caller's account and ends its sessions. Its messages stay.
///
/// A space that has no other active owner passes to its member with the highest role, of several to the one who has been a
/// member the longest.
#[utoipa::path(delete, path = "/v1/accounts/me", tag = "accounts", params(Close), security(("bearer" = [])),
    responses((status = 202, description = "done here, and on its way to every node")))]
async fn close(
    State(app): State<App>,
    caller: Caller,
    write: Write,
    Query(Close { mode }): Query<Close>,
) -> Result<Response, Problem> {
    let mut response = write
        .run(&app, Some(&caller), move |batch| {
            closing::close(batch, caller.account, mode)?;
            Reply::accepted(&serde_json::json!({ "id": caller.account, "mode": mode }))
        })
        .await?;
    sessions::http::forget_cookie(&app, &mut response);
    Ok(response)
}

/// Everything that is held on the caller's account: profile, preferences, sessions, memberships and read marks, and what it
/// has written and reacted to in every space that it ever was a member of.
#[utoipa::path(get, path = "/v1/accounts/me/export", tag = "accounts", security(("bearer" = [])),
    responses((status = 200, description = "one JSON document"),
        (status = 429, description = "another export of this account is under way")))]
async fn export(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    let document = export::document(&app.exports, &app.store, caller).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], document).into_response())
}

/// The caller's preferences.
#[utoipa::path(get, path = "/v1/accounts/me/preferences", tag = "accounts", security(("bearer" = [])),
    responses((status = 200, description = "the preferences", body = Preferences)))]
async fn get_preferences(State(app): State<App>, caller: Caller) -> Result<axum::Json<Preferences>, Problem> {
    let preferences =
        app.store.read(move |db| Ok::<_, Problem>(preferences::current(db, caller.account)?)).await?;
    Ok(axum::Json(preferences))
}

/// Replaces the caller's preferences; absent fields get their defaults.
#[utoipa::path(put, path = "/v1/accounts/me/preferences", tag = "accounts", request_body = Preferences,
    security(("bearer" = [])), responses((status = 200, description = "the preferences", body = Preferences)))]
async fn put_preferences(
    State(app): State<App>,
    caller: Caller,
    write: Write,
    Body(wish): Body<Preferences>,
) -> Result<Response, Problem> {
    wish.check()?;
    let job = move |batch: &mut Batch<'_>| {
        preferences::state(batch, caller.account, &wish);
        Reply::ok(&wish)
    };
    write.run(&app, Some(&caller), job).await
}

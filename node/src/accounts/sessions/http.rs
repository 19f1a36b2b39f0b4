//! The routes of sessions: signing in and out, and new tokens for old.

use axum::{
    Router,
    extract::State,
    http::{Extensions, HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use mychat_replication::{log::SiteId, store::Batch};
use serde::{Deserialize, Serialize};

use super::{Device, Refreshed, Session};
use crate::{
    accounts::{
        Account, EMAIL, is_active,
        password::Secret,
        profile, rules,
        store::{by_email, password_hash},
    },
    app::App,
    http::{Body, Caller, Items, Outcome, Page, Path, Problem, Query, Reply, Write, source},
    ids::{AccountId, SessionId},
    keys::{ACCESS_SECONDS, cookie},
};

/// The longest name of a client that is kept, in characters.
const MAX_CLIENT: usize = 200;

/// The routes.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/sessions", get(list).post(sign_in))
        .route("/v1/sessions/refresh", post(refresh))
        .route("/v1/sessions/{id}", delete(end))
        .route("/v1/sso", get(providers))
}

/// The OpenAPI document of these routes.
#[derive(utoipa::OpenApi)]
#[openapi(paths(sign_in, refresh, list, end, providers))]
pub struct Docs;

/// Who has signed in, and the tokens to go on with.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct SignedIn {
    account: Account,
    #[serde(flatten)]
    tokens: Tokens,
}

/// Tokens.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Tokens {
    /// For the `Authorization: Bearer` header.
    token: String,
    /// To get the next tokens with; good once.
    refresh_token: String,
    /// How long `token` is good, in seconds.
    expires_in: u64,
}

/// What the account's and session's rows are called while the answer has no tokens yet; only this is kept for repeats.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    account: AccountId,
    session: SessionId,
    /// The node's that did it: a repeat at another node gives the same refresh token, since two are good for one use only.
    /// Nodes of before did not keep it.
    site: Option<SiteId>,
}

/// The reply of a job that has signed somebody in, for [`answer`].
pub(crate) fn begun(batch: &Batch<'_>, account: AccountId, session: SessionId) -> Result<Reply, Problem> {
    let begun = Begun { account, session, site: Some(batch.site()) };
    Reply::created(&begun)
}

/// Answers with the account and its tokens, and for the web client with the cookie.
pub(crate) async fn answer(
    app: &App,
    headers: &HeaderMap,
    mut outcome: Outcome,
) -> Result<Response, Problem> {
    let lost = || Problem::unavailable("the session can't be read back");
    let body = outcome.reply.body.take().unwrap_or_default();
    let Begun { account, session, site } = serde_json::from_str(&body).map_err(|_| lost())?;
    let profile =
        app.store.read(move |db| Ok::<_, Problem>(profile(db, account)?)).await?.ok_or_else(lost)?;
    let first = super::first_refresh(account, session, site.unwrap_or_else(|| app.store.site()));
    let tokens = tokens(app, account, session, app.keys.refresh_token(&first));
    outcome.reply.body = Some(crate::http::json_text(&SignedIn { account: profile, tokens })?);
    let mut response = outcome.into_response();
    if headers.get("mychat-client").is_some_and(|client| client.as_bytes() == b"web")
        && let Some(line) = cookie::set(&app.config, &app.keys.cookie(Caller { account, session }))
    {
        response.headers_mut().append(header::SET_COOKIE, line);
    }
    Ok(response)
}

fn tokens(app: &App, account: AccountId, session: SessionId, refresh_token: String) -> Tokens {
    Tokens { token: app.keys.access_token(account, session), refresh_token, expires_in: ACCESS_SECONDS }
}

/// Takes the cookie away from a browser whose session has ended.
pub(crate) fn forget_cookie(app: &App, response: &mut Response) {
    if let Some(line) = cookie::clear(&app.config) {
        response.headers_mut().append(header::SET_COOKIE, line);
    }
}

/// What a call tells about the device that it comes from.
pub(crate) fn device(app: &App, headers: &HeaderMap) -> Device {
    let client = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    Device {
        region: app.config.region.clone(),
        client: client.map(|agent| agent.chars().take(MAX_CLIENT).collect()),
    }
}

/// What it takes to sign in.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct SignIn {
    email: String,
    #[schema(value_type = String, format = Password)]
    password: Secret,
}

/// Signs in.
#[utoipa::path(post, path = "/v1/sessions", tag = "sessions", request_body = SignIn, responses(
    (status = 201, description = "signed in", body = SignedIn),
    (status = 401, description = "`unauthorized`: the address or the password is wrong"),
    (status = 403, description = "`account_inactive`: the account has been closed"),
    (status = 429, description = "`rate_limited`: too many failures for this address, or too many at the moment")))]
async fn sign_in(
    State(app): State<App>,
    write: Write,
    headers: HeaderMap,
    extensions: Extensions,
    Body(SignIn { email, password }): Body<SignIn>,
) -> Result<Response, Problem> {
    let email = rules::email(&email)?;
    let attempt = app.keys.claim(EMAIL, &email);
    let source = source(&app.config.trusted_proxies, &headers, &extensions);
    app.throttle
        .attempt(attempt, source)
        .map_err(|seconds| Problem::rate_limited("too many failed sign-ins for this address", seconds))?;
    let keys = app.keys.clone();
    let known = app
        .store
        .read(move |db| {
            let Some(account) = by_email(db, &keys, &email)? else { return Ok::<_, Problem>(None) };
            Ok(password_hash(db, account)?.map(|hash| (account, hash)))
        })
        .await?;
    let (account, hash) = known.unzip();
    let right = app.passwords.verify(password, hash).await;
    // A call that could not be checked was no failure.
    if right.as_ref().is_ok_and(|right| *right) || right.is_err() {
        app.throttle.forgive(attempt, source);
    }
    let (Some(account), true) = (account, right?) else {
        return Err(Problem::unauthorized("the e-mail address or the password is wrong"));
    };
    let device = device(&app, &headers);
    let outcome = write
        .outcome(&app, None, move |batch| {
            if is_active(batch.connection(), account)? != Some(true) {
                return Err(Problem::with(
                    StatusCode::FORBIDDEN,
                    "account_inactive",
                    "the account has been closed",
                ));
            }
            let session = super::begin(batch, account, device);
            begun(batch, account, session)
        })
        .await?;
    answer(&app, &headers, outcome).await
}

/// What it takes to get new tokens.
#[derive(Deserialize, utoipa::ToSchema)]
pub struct RefreshWish {
    refresh_token: String,
}

/// Gives new tokens for a refresh token. Each is good once: a spent one ends the session, since two have had it.
#[utoipa::path(post, path = "/v1/sessions/refresh", tag = "sessions", request_body = RefreshWish, responses(
    (status = 200, description = "new tokens", body = Tokens),
    (status = 401, description = "`unauthorized`: the token is spent or none of this cluster, or the session has ended")))]
async fn refresh(
    State(app): State<App>,
    write: Write,
    headers: HeaderMap,
    Body(RefreshWish { refresh_token }): Body<RefreshWish>,
) -> Result<Response, Problem> {
    let invalid = || Problem::unauthorized("the refresh token is not valid: sign in again");
    let token = app.keys.verify_refresh(&refresh_token).ok_or_else(invalid)?;
    let known = move |db: &rusqlite::Connection| {
        let known =
            super::is_known(db, token.account, token.session)? && is_active(db, token.account)?.is_some();
        Ok(known.then_some(()))
    };
    if app.await_rows(known).await?.is_none() {
        return Err(Problem::unavailable("this node has not heard of the session yet"));
    }
    let (device, keys) = (device(&app, &headers), app.keys.clone());
    let job = move |batch: &mut Batch<'_>| {
        Ok(match super::refresh(batch, token, device)? {
            // The new token itself is not kept for repeats, but what it is made of.
            Refreshed::Next(next) => Reply::ok(&(next.generation, next.site))?,
            // The session's end has to be written, so these are answers and not errors of the job.
            Refreshed::Spent | Refreshed::Ended => Reply::bare(StatusCode::UNAUTHORIZED),
        })
    };
    let mut outcome = write.outcome(&app, None, job).await?;
    if outcome.reply.status != StatusCode::OK {
        return Err(invalid());
    }
    let body = outcome.reply.body.take().unwrap_or_default();
    let (generation, site) = serde_json::from_str(&body).map_err(|_| invalid())?;
    let next = keys.refresh_token(&crate::keys::refresh::Refresh { generation, site, ..token });
    outcome.reply.body = Some(crate::http::json_text(&tokens(&app, token.account, token.session, next))?);
    Ok(outcome.into_response())
}

/// The caller's sessions that have not ended, the newest first.
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions", params(Page), security(("bearer" = [])),
    responses((status = 200, description = "a page of sessions", body = Items<Session>)))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<axum::Json<Items<Session>>, Problem> {
    let (limit, after) = (page.limit()?, page.after::<SessionId>()?);
    let mut sessions =
        app.store.read(move |db| Ok::<_, Problem>(super::list(db, caller.account, caller.session)?)).await?;
    sessions.retain(|session| after.is_none_or(|after| session.id < after));
    Ok(axum::Json(Items::cut(sessions, limit, |last| last.id.to_string())))
}

/// Ends one of the caller's sessions; `current` is the one that calls.
#[utoipa::path(delete, path = "/v1/sessions/{id}", tag = "sessions", security(("bearer" = [])),
    params(("id" = String, Path, description = "the session's id, or `current`")),
    responses((status = 204, description = "ended"), (status = 404, description = "`not_found`")))]
async fn end(
    State(app): State<App>,
    caller: Caller,
    write: Write,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let unknown = || Problem::not_found("there is no such session");
    let session: SessionId =
        if id == "current" { caller.session } else { id.parse().map_err(|_| unknown())? };
    let job = move |batch: &mut Batch<'_>| {
        if session != caller.session && !super::is_known(batch.connection(), caller.account, session)? {
            return Err(unknown());
        }
        super::end(batch, caller.account, session);
        Ok(Reply::no_content())
    };
    let mut response = write.run(&app, Some(&caller), job).await?;
    if session == caller.session {
        forget_cookie(&app, &mut response);
    }
    Ok(response)
}

/// The identity providers that one can sign in with: none are set up.
#[utoipa::path(get, path = "/v1/sso", tag = "sessions", responses((status = 200, description = "the providers")))]
async fn providers() -> Response {
    axum::Json(serde_json::json!({ "items": [], "next": null })).into_response()
}

//! Who calls: the account and session behind a bearer token or the session cookie.

use axum::{
    extract::FromRequestParts,
    http::{Extensions, HeaderMap, StatusCode, header, request::Parts},
};

use super::problem::Problem;
use crate::{
    accounts::{self, Standing},
    app::App,
    events::turns::away,
    ids::{AccountId, SessionId},
    keys::cookie,
};

/// A signed-in account. Extracting one refuses everybody else with a problem document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The account.
    pub account: AccountId,
    /// The session, by which it can be ended.
    pub session: SessionId,
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let caller = match bearer(&parts.headers)? {
            Some(token) => {
                app.keys.verify_access(token).map_err(|error| Problem::unauthorized(error.to_string()))?
            }
            None => {
                let cookie = cookie::find(&parts.headers)
                    .ok_or_else(|| Problem::unauthorized("the call needs a token: sign in first"))?;
                let caller = app
                    .keys
                    .verify_cookie(cookie)
                    .ok_or_else(|| Problem::unauthorized("the session cookie is not valid"))?;
                if !parts.method.is_safe() {
                    refuse_foreign_page(&parts.headers, app)?;
                }
                caller
            }
        };
        check(app, caller, &parts.extensions).await?;
        Ok(caller)
    }
}

/// The token of an `Authorization: Bearer` header.
///
/// # Errors
/// 401 for a header of another scheme.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| Some(token.trim()))
        .ok_or_else(|| Problem::unauthorized("the Authorization header must be: Bearer TOKEN"))
}

/// A browser attaches the cookie to any page's call, and names the page in `Origin`: only pages of this cluster may
/// change things.
fn refuse_foreign_page(headers: &HeaderMap, app: &App) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if app.origins().allows(origin, host) {
        return Ok(());
    }
    Err(Problem::with(StatusCode::FORBIDDEN, "forbidden_origin", "calls from this page are not accepted"))
}

/// Whether the session still stands, waiting a moment for an account that this node has not heard of yet, within the call
/// with these extensions.
///
/// # Errors
/// 401 when the session has ended or the account is not active; 503 while this node does not know it.
pub async fn check(app: &App, caller: Caller, call: &Extensions) -> Result<(), Problem> {
    let Caller { account, session } = caller;
    if app.standings.is_good(account, session) {
        return Ok(());
    }
    let epoch = app.standings.epoch();
    let look = move |db: &rusqlite::Connection| accounts::standing(db, account, session);
    let standing = match app.store.glance(move |db| Ok::<_, Problem>(look(db)?)).await? {
        None => away(call, app.await_rows(look)).await??,
        known => known,
    };
    admit(standing)?;
    app.standings.remember(account, session, epoch);
    Ok(())
}

/// Whether a session of this standing may call.
///
/// # Errors
/// As [`check`].
pub fn admit(standing: Option<Standing>) -> Result<(), Problem> {
    match standing {
        Some(Standing::Good) => Ok(()),
        Some(Standing::Ended) => Err(Problem::unauthorized("the session has ended: sign in again")),
        Some(Standing::Inactive) => Err(Problem::unauthorized("the account is not active")),
        None => Err(Problem::unavailable("this node has not heard of the account yet")),
    }
}

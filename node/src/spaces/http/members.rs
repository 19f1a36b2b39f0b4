//! The calls on the members of spaces and on invitations.

use axum::{
    Router,
    body::HttpBody,
    extract::{FromRequest, Request, State},
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use mychat_replication::store::Batch;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    super::{
        Member, Role, Space,
        invitation::{self, Invitation},
        membership, query, rules,
    },
    await_accounts,
};
use crate::{
    accounts,
    app::App,
    http::{Body, Caller, Items, Page, Path, Problem, Query, Reply, Write},
    ids::{AccountId, SpaceId},
    timestamp,
};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/spaces/{space}/members", get(list))
        .route("/v1/spaces/{space}/members/{account}", axum::routing::put(put).delete(remove))
        .route("/v1/spaces/{space}/invitations", post(invite))
        .route("/v1/invitations/{token}/accept", post(accept))
}

/// The members of the space, and who of them is online; for its members.
#[utoipa::path(get, path = "/v1/spaces/{space}/members", tag = "spaces", params(("space" = String, Path), Page),
    responses((status = 200, description = "a page of members", body = Items<Member>)))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(space): Path<SpaceId>,
    Query(page): Query<Page>,
) -> Result<axum::Json<Items<Member>>, Problem> {
    let (limit, after) = (page.limit()?, page.after::<AccountId>()?);
    let mut members = app
        .store
        .read(move |db| {
            rules::require_member(db, space, caller.account)?;
            let mut members = Vec::new();
            for (account, role, since) in query::members_after(db, space, after, limit + 1)? {
                members.push(Member::new(db, account, role, since)?);
            }
            Ok::<_, Problem>(Items::cut(members, limit, |last| last.account.to_string()))
        })
        .await?;
    for member in &mut members.items {
        member.online = app.presence.of(space, member.account);
    }
    Ok(axum::Json(members))
}

/// The role to set.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
pub(super) struct NewRole {
    /// Absent: a member keeps the role, others become members.
    role: Option<Role>,
}

/// Joins a public space (`me`), adds somebody, or sets a role.
///
/// Owners and admins add and change others; only an owner makes or changes an owner. Anybody may lower their own
/// role, but the last owner stays one: 409 `last_owner`.
#[utoipa::path(put, path = "/v1/spaces/{space}/members/{account}", tag = "spaces",
    params(("space" = String, Path), ("account" = String, Path, description = "an account's id, or `me`")),
    request_body = Option<NewRole>,
    responses((status = 200, description = "the member", body = Member),
        (status = 201, description = "the new member", body = Member)))]
pub(super) async fn put(
    State(app): State<App>,
    caller: Caller,
    Path((space, account)): Path<(SpaceId, String)>,
    write: Write,
    Optional(new): Optional<NewRole>,
) -> Result<Response, Problem> {
    let account = member_id(&account, caller.account)?;
    if account != caller.account {
        // Only whom the space would let in: otherwise anybody could make a node wait for accounts that don't exist.
        app.store.read(move |db| rules::require_admin(db, space, caller.account).map(drop)).await?;
        await_accounts(&app, &[account]).await?;
    }
    let job = move |batch: &mut Batch<'_>| membership::put(batch, space, caller.account, account, new.role);
    write.run(&app, Some(&caller), job).await
}

/// Leaves the space (`me`), or removes somebody; for owners and admins.
#[utoipa::path(delete, path = "/v1/spaces/{space}/members/{account}", tag = "spaces",
    params(("space" = String, Path), ("account" = String, Path, description = "an account's id, or `me`")),
    responses((status = 204, description = "no member any more"),
        (status = 409, description = "`last_owner`: name another owner first")))]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path((space, account)): Path<(SpaceId, String)>,
    write: Write,
) -> Result<Response, Problem> {
    let account = member_id(&account, caller.account)?;
    let job = move |batch: &mut Batch<'_>| membership::remove(batch, space, caller.account, account);
    write.run(&app, Some(&caller), job).await
}

/// Whom to invite: exactly one of `account`, `handle`, `email`, `phone` and `link`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub(super) struct NewInvitation {
    /// Becomes a member at once.
    #[schema(value_type = Option<String>)]
    account: Option<AccountId>,
    /// Becomes a member at once.
    handle: Option<String>,
    /// Not supported yet.
    email: Option<String>,
    /// Not supported yet.
    phone: Option<String>,
    /// `true` makes a link with which anybody can join.
    link: Option<bool>,
    /// As what; `member` when absent.
    role: Option<Role>,
    /// How many accounts may use the link; any number when absent.
    uses: Option<u32>,
    /// When the link ends, in RFC 3339; in a week when absent.
    expires: Option<String>,
}

/// Invites somebody, as members and above may.
///
/// An account or handle becomes a member at once (201, or 200 for somebody who is one). A link is answered with
/// `{token, url, expires_at}`; it is good at every node.
#[utoipa::path(post, path = "/v1/spaces/{space}/invitations", tag = "spaces", params(("space" = String, Path)),
    request_body = NewInvitation,
    responses((status = 201, description = "the new member, or the link"),
        (status = 200, description = "who is a member already", body = Member),
        (status = 404, description = "no such account or handle")))]
pub(super) async fn invite(
    State(app): State<App>,
    caller: Caller,
    Path(space): Path<SpaceId>,
    write: Write,
    Body(new): Body<NewInvitation>,
) -> Result<Response, Problem> {
    let role = new.role.unwrap_or(Role::Member);
    let inviter = caller.account;
    app.store.read(move |db| rules::require_member(db, space, inviter).map(drop)).await?;
    let account = match (new.account, new.handle, new.email.or(new.phone), new.link.unwrap_or(false)) {
        (Some(account), None, None, false) => {
            await_accounts(&app, &[account]).await?;
            account
        }
        (None, Some(handle), None, false) => {
            let keys = app.keys.clone();
            app.await_rows(move |db| accounts::by_handle(db, &keys, &handle))
                .await?
                .ok_or_else(rules::no_account)?
        }
        (None, None, None, true) => {
            let issued = timestamp::now_millis();
            let expires = invitation::expiry(new.expires.as_deref(), issued)?;
            if new.uses == Some(0) {
                return Err(Problem::invalid_body("uses must be at least 1"));
            }
            let link =
                Invitation { space, inviter, role, issued, expires, uses: new.uses, nonce: rand::random() };
            return give_link(&app, &caller, write, link).await;
        }
        (None, None, Some(_), false) => {
            return Err(Problem::with(
                StatusCode::BAD_REQUEST,
                "unsupported",
                "invitations by e-mail and telephone are not supported yet: use account, handle or link",
            ));
        }
        _ => return Err(Problem::invalid_body("name exactly one of account, handle, email, phone and link")),
    };
    let job = move |batch: &mut Batch<'_>| invitation::invite(batch, space, inviter, account, role);
    write.run(&app, Some(&caller), job).await
}

/// Answers with a link, if its sender may invite.
async fn give_link(app: &App, caller: &Caller, write: Write, link: Invitation) -> Result<Response, Problem> {
    let token = link.seal(&invitation_key(app));
    // A page of the web client. The part after `#` is not sent to servers, so the token stays out of their logs.
    let url = format!("{}/#/invite/{token}", app.config.public_url);
    let job = move |batch: &mut Batch<'_>| {
        invitation::check_inviter(batch, link.space, link.inviter, link.role)?;
        let expires_at = timestamp::from_millis(link.expires);
        Reply::created(&json!({ "token": token, "url": url, "expires_at": expires_at }))
    };
    write.run(app, Some(caller), job).await
}

/// Joins a space by a link; joining again changes nothing.
#[utoipa::path(post, path = "/v1/invitations/{token}/accept", tag = "spaces", params(("token" = String, Path)),
    responses((status = 200, description = "the space", body = Space),
        (status = 404, description = "no invitation of this cluster"),
        (status = 410, description = "`invitation_expired`: out of time, used up, or withdrawn")))]
pub(super) async fn accept(
    State(app): State<App>,
    caller: Caller,
    Path(token): Path<String>,
    write: Write,
) -> Result<Response, Problem> {
    let invitation = app
        .keys
        .invitation()
        .iter()
        .find_map(|key| Invitation::open(&token, key))
        .ok_or_else(|| Problem::not_found("there is no such invitation"))?;
    // The space may have been founded elsewhere a moment ago.
    let space = invitation.space;
    app.await_rows(move |db| query::visibility(db, space)).await?;
    let job = move |batch: &mut Batch<'_>| invitation::accept(batch, &invitation, caller.account);
    write.run(&app, Some(&caller), job).await
}

/// The secret that seals links now.
fn invitation_key(app: &App) -> [u8; 32] {
    app.keys.invitation()[0]
}

/// The account that a path names.
fn member_id(text: &str, caller: AccountId) -> Result<AccountId, Problem> {
    if text == "me" {
        return Ok(caller);
    }
    text.parse().map_err(|_| rules::no_account())
}

/// A JSON body that may be left out.
pub(super) struct Optional<T>(T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for Optional<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if request.body().is_end_stream() {
            return Ok(Self(T::default()));
        }
        let Body(body) = Body::<T>::from_request(request, state).await?;
        Ok(Self(body))
    }
}

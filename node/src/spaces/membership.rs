//! Members of a space: listing them, joining, leaving, and setting roles.

use mychat_replication::{clock::Stamp, store::Batch};
use rusqlite::Connection;
use serde::Serialize;

use super::{
    Role, Visibility, facts, query,
    rules::{self, RoleChange},
    succession,
};
use crate::{
    accounts,
    http::{Problem, Reply},
    ids::{AccountId, SpaceId},
    timestamp,
};

/// A member of a space.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Member {
    /// The account.
    #[schema(value_type = String, format = Uuid)]
    pub account: AccountId,
    /// What it may do.
    pub role: Role,
    /// Since when it is a member without interruption, whatever its role was.
    #[schema(format = DateTime)]
    pub since: String,
    /// The account's name; `null` once it is erased, or while this node does not know the account.
    pub name: Option<String>,
    /// The account's handle, if it has one.
    pub handle: Option<String>,
    /// Whether the account has a stream at any node; only in lists of members, and absent when the node that was asked
    /// does not know, since nobody of the space has a stream there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
}

impl Member {
    pub(super) fn new(
        db: &Connection,
        account: AccountId,
        role: Role,
        since: Stamp,
    ) -> rusqlite::Result<Self> {
        let (name, handle) = accounts::public_profile(db, account)?
            .map_or_else(Default::default, |profile| (profile.name, profile.handle));
        Ok(Self { account, role, since: timestamp::rfc3339(since), name, handle, online: None })
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a struct of strings is always JSON")
    }
}

/// Adds `account` or sets its role. `role: None` keeps the role of a member and makes others members.
pub(super) fn put(
    batch: &mut Batch<'_>,
    space: SpaceId,
    caller: AccountId,
    account: AccountId,
    role: Option<Role>,
) -> Result<Reply, Problem> {
    let db = batch.connection();
    let mut change = asked(db, space, caller, account)?;
    let role = role.or(change.from).unwrap_or(Role::Member);
    change.to = Some(role);
    change.check()?;
    if change.from.is_none() && !accounts::exists(db, account)? {
        return Err(rules::no_account());
    }
    let since = query::since(db, space, account)?;
    // Before the change, with which another member might become the heir.
    succession::confirm(batch, space, caller)?;
    let stated = if change.from == change.to {
        since.unwrap_or_default()
    } else {
        facts::set_role(batch, space, account, Some(role), caller)
    };
    let member = Member::new(batch.connection(), account, role, since.unwrap_or(stated))?;
    if change.from.is_some() { Reply::ok(&member) } else { Reply::created(&member) }
}

/// Ends the membership of `account`.
///
/// # Errors
/// When `caller` may not, or `account` is no member.
pub fn remove(
    batch: &mut Batch<'_>,
    space: SpaceId,
    caller: AccountId,
    account: AccountId,
) -> Result<Reply, Problem> {
    let change = asked(batch.connection(), space, caller, account)?;
    if change.from.is_none() && (change.own || change.by.is_some()) {
        return Err(Problem::not_found("the account is not a member of the space"));
    }
    change.check()?;
    if !change.own {
        succession::confirm(batch, space, caller)?;
    }
    facts::set_role(batch, space, account, None, caller);
    Ok(Reply::no_content())
}

/// Makes `account` a member on the invitation of `inviter`; who is one already stays what it is. Says whether it is
/// new.
pub(super) fn admit(
    batch: &mut Batch<'_>,
    space: SpaceId,
    inviter: AccountId,
    account: AccountId,
    role: Role,
) -> Result<(Member, bool), Problem> {
    let db = batch.connection();
    if let (Some(role), Some(since)) = (query::role(db, space, account)?, query::since(db, space, account)?) {
        return Ok((Member::new(db, account, role, since)?, false));
    }
    let since = facts::set_role(batch, space, account, Some(role), inviter);
    Ok((Member::new(batch.connection(), account, role, since)?, true))
}

/// The change that `caller` asks for, so far to no role at all.
fn asked(
    db: &Connection,
    space: SpaceId,
    caller: AccountId,
    account: AccountId,
) -> Result<RoleChange, Problem> {
    let by = query::role(db, space, caller)?;
    let visibility = query::visibility(db, space)?.ok_or_else(rules::no_space)?;
    if by.is_none() && visibility != Visibility::Public {
        return Err(rules::no_space());
    }
    let own = caller == account;
    let from = if own { by } else { query::role(db, space, account)? };
    let (other_owner, others) = query::others(db, space, account)?;
    Ok(RoleChange { visibility, by, own, from, to: None, other_owner, others })
}

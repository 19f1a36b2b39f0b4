//! Who owns a space whose owners have gone.
//!
//! A space without an active owner belongs to its **heir**: of its members whose accounts can be signed in to, the one
//! with the highest role, of several the one who has been a member the longest, of those the one with the smallest id.
//! That follows from the local tables alone, so nodes that hold the same facts name the same heir, in whatever order
//! these came, and however the owners went: two who leave at two nodes at the same time, too.
//!
//! An heir may do what an owner may from then on, and the row that ended the last ownership tells everybody of it
//! (`event::inherited`). The inheritance is also stated, as a role like any other, so that it does not move on with the next
//! change of roles: by the call that closes an owner's account, and otherwise by the heir's next call that changes the space.
//!
//! Closing an account leaves its roles as they are. An account that were deactivated and made active again would be an
//! owner as before: beside its successor if that was stated, and else in its place.

use mychat_replication::store::Batch;
use rusqlite::Connection;

use super::{Role, Visibility, facts, query};
use crate::{accounts, ids::AccountId, ids::SpaceId};

/// The heir of a space; `None` where there is an active owner, or nobody who could be one.
///
/// `leaving` counts as gone already.
pub(super) fn heir(
    db: &Connection,
    space: SpaceId,
    leaving: Option<AccountId>,
) -> rusqlite::Result<Option<AccountId>> {
    if is_owned(db, space, leaving)? {
        return Ok(None);
    }
    let mut members = db.prepare_cached(
        "SELECT account FROM local_member WHERE space = ?1
         ORDER BY CASE role WHEN 'owner' THEN 0 WHEN 'admin' THEN 1 WHEN 'member' THEN 2 ELSE 3 END, since, account",
    )?;
    let mut members = members.query([space])?;
    while let Some(member) = members.next()? {
        let account = member.get(0)?;
        if Some(account) != leaving && accounts::can_sign_in(db, account)? {
            return Ok(Some(account));
        }
    }
    Ok(None)
}

/// Whether a space needs no heir: an owner other than `leaving` is active, or it is one that nobody owns.
pub(super) fn is_owned(
    db: &Connection,
    space: SpaceId,
    leaving: Option<AccountId>,
) -> rusqlite::Result<bool> {
    if !matches!(query::visibility(db, space)?, Some(Visibility::Public | Visibility::Private)) {
        return Ok(true);
    }
    let mut owners =
        db.prepare_cached("SELECT account FROM local_member WHERE space = ?1 AND role = 'owner'")?;
    let mut owners = owners.query([space])?;
    while let Some(owner) = owners.next()? {
        let account = owner.get(0)?;
        // Of an account whose rows are not here yet nothing says that it is closed.
        if Some(account) != leaving && accounts::is_active(db, account)? != Some(false) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// States who owns the spaces of which `account`, which is about to be closed, is the last active owner.
///
/// # Errors
/// What SQLite says.
pub fn pass_on(batch: &mut Batch<'_>, account: AccountId) -> rusqlite::Result<()> {
    for space in query::spaces_of(batch.connection(), account)? {
        if query::role(batch.connection(), space, account)? == Some(Role::Owner)
            && let Some(heir) = heir(batch.connection(), space, Some(account))?
        {
            facts::set_role(batch, space, heir, Some(Role::Owner), account);
        }
    }
    Ok(())
}

/// States that `caller` owns the space, where it does so as its heir.
pub(super) fn confirm(batch: &mut Batch<'_>, space: SpaceId, caller: AccountId) -> rusqlite::Result<()> {
    if heir(batch.connection(), space, None)? == Some(caller) {
        facts::set_role(batch, space, caller, Some(Role::Owner), caller);
    }
    Ok(())
}

//! What is allowed: names and settings as people give them, and who may do what to whom.

use axum::http::StatusCode;
use rusqlite::Connection;

use super::{Access, Role, Visibility, query};
use crate::{
    http::Problem,
    ids::{AccountId, SpaceId},
    names,
};

/// The longest topic, in characters.
const MAX_TOPIC: usize = 1000;
/// The longest retention, in days: a hundred years.
const MAX_RETENTION_DAYS: u32 = 36_525;
/// The most accounts of a direct conversation.
pub(super) const MAX_DIRECT: usize = 32;

/// A space's name without the white space around it: see [`names::check`].
pub(super) fn name(text: &str) -> Result<String, Problem> {
    names::check(text).map_err(|unfit| Problem::invalid_body(format!("name {unfit}")))
}

/// A space's topic without the white space around it.
pub(super) fn topic(text: &str) -> Result<String, Problem> {
    let text = text.trim();
    if text.chars().count() > MAX_TOPIC {
        return Err(Problem::invalid_body(format!("a topic has at most {MAX_TOPIC} characters")));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(Problem::invalid_body("a topic has no control characters but line feeds"));
    }
    Ok(text.to_owned())
}

/// A visibility that a space can be given by a call.
pub(super) fn open_or_private(visibility: Visibility) -> Result<Visibility, Problem> {
    match visibility {
        Visibility::Direct => Err(Problem::invalid_body(
            "a space can be public or private; direct conversations have a call of their own",
        )),
        visibility => Ok(visibility),
    }
}

/// A number of days for which messages are kept; `None` for ever.
pub(super) fn retention(days: Option<u32>) -> Result<Option<u32>, Problem> {
    match days {
        Some(days) if !(1..=MAX_RETENTION_DAYS).contains(&days) => Err(Problem::invalid_body(format!(
            "retention_days is null or between 1 and {MAX_RETENTION_DAYS}"
        ))),
        days => Ok(days),
    }
}

/// Checks that an account is a member.
///
/// # Errors
/// 404 for a space that the account may not know of, 403 for a public one that it has not joined.
pub fn require_member(db: &Connection, space: SpaceId, account: AccountId) -> Result<(), Problem> {
    match query::access(db, space, account)? {
        Access::Member => Ok(()),
        Access::Open => Err(Problem::forbidden("only members may do this; the space can be joined")),
        Access::Hidden => Err(no_space()),
    }
}

/// The role of an account that must be a member. Where that is enough, [`require_member`] costs less.
///
/// # Errors
/// As with [`require_member`].
pub fn require_role(db: &Connection, space: SpaceId, account: AccountId) -> Result<Role, Problem> {
    require_member(db, space, account)?;
    query::role(db, space, account)?.ok_or_else(no_space)
}

/// The role of an account that must be an admin or owner.
pub(super) fn require_admin(db: &Connection, space: SpaceId, account: AccountId) -> Result<Role, Problem> {
    let role = require_role(db, space, account)?;
    if role < Role::Admin {
        return Err(Problem::forbidden("only an owner or admin of the space may do this"));
    }
    Ok(role)
}

/// The problem of a space that is not there, or not for the caller.
pub(super) fn no_space() -> Problem {
    Problem::not_found("there is no such space")
}

/// The problem of an account that is not there.
pub(super) fn no_account() -> Problem {
    Problem::not_found("there is no such account")
}

/// A change of somebody's role that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RoleChange {
    pub visibility: Visibility,
    /// The role of who asks; `None` for no member.
    pub by: Option<Role>,
    /// Whether it is about oneself.
    pub own: bool,
    pub from: Option<Role>,
    pub to: Option<Role>,
    /// Whether there is an active owner besides the account that it is about.
    pub other_owner: bool,
    /// Whether there is an active member besides that account.
    pub others: bool,
}

impl RoleChange {
    /// Whether the change is allowed.
    pub fn check(self) -> Result<(), Problem> {
        if self.visibility == Visibility::Direct {
            return Err(Problem::forbidden("the members of a direct conversation are fixed"));
        }
        if self.own {
            self.check_own()?
        } else {
            self.check_other()?
        }
        if self.from == self.to {
            return Ok(());
        }
        let last_owner = self.from == Some(Role::Owner) && !self.other_owner;
        // Whoever is alone may leave; somebody who stays has to be the owner.
        if last_owner && (self.others || self.to.is_some()) {
            return Err(Problem::with(
                StatusCode::CONFLICT,
                "last_owner",
                "the last owner has to make somebody else an owner first",
            ));
        }
        Ok(())
    }

    fn check_own(self) -> Result<(), Problem> {
        match (self.from, self.to) {
            (from, to) if from == to => Ok(()),
            // Joining: only public spaces let this be asked.
            (None, Some(to)) if to <= Role::Member => Ok(()),
            // Leaving, or stepping down.
            (Some(_), None) => Ok(()),
            (Some(from), Some(to)) if to < from => Ok(()),
            _ => Err(Problem::forbidden("nobody may raise their own role")),
        }
    }

    fn check_other(self) -> Result<(), Problem> {
        let Some(by) = self.by.filter(|role| *role >= Role::Admin) else {
            return Err(Problem::forbidden(
                "only an owner or admin of the space may set the roles of others",
            ));
        };
        if self.from == self.to {
            return Ok(());
        }
        if by < Role::Owner && self.from == Some(Role::Owner) {
            return Err(Problem::forbidden("only an owner may change or remove an owner"));
        }
        if by < Role::Owner && self.to == Some(Role::Owner) {
            return Err(Problem::forbidden("only an owner may make an owner"));
        }
        Ok(())
    }
}

/// Whether somebody with the role `by` may invite somebody as `to`.
pub(super) fn check_invitation(visibility: Visibility, by: Role, to: Role) -> Result<(), Problem> {
    if visibility == Visibility::Direct {
        return Err(Problem::forbidden("the members of a direct conversation are fixed"));
    }
    if by < Role::Member {
        return Err(Problem::forbidden("guests may not invite"));
    }
    // Members invite as members at the most, admins as admins, owners as owners.
    if to > by {
        return Err(Problem::forbidden("nobody may invite somebody to a higher role than their own"));
    }
    Ok(())
}

//! Spaces: the rooms, public and private, and the direct conversations that messages are written in, and who is a
//! member of each with which [`Role`].
//!
//! A call comes in at `http`, is judged by `rules`, and becomes rows of three replicated tables (`facts`):
//!
//! - `space`, the **founding** of a space, written once;
//! - `space_change`, a **stamped fact** per changed setting (name, topic, visibility, retention, deletion);
//! - `membership`, a stamped fact per change of somebody's role, leaving included.
//!
//! What holds now is derived from them (`store`) into the local tables `local_space` and `local_member`, which `query`
//! and `resource` read. Nodes may state
//! facts at the same time without knowing of each other, so these rules decide, on every node alike:
//!
//! - Of the facts on one setting, or on one account's role in one space, the one with the latest stamp holds; of
//!   equal stamps that of the larger site id. Two admins who rename a space at once end with the later name, and
//!   somebody who is removed and promoted at once ends as the later of the two says.
//! - A deletion is final, whatever else is stated before or after it.
//! - A rule is checked by the node that takes the call, against what that node holds. So two last owners may leave at
//!   the same time at different nodes; a space without an active owner passes to another member (`succession`).
//! - A direct conversation's id is computed from its set of accounts, and the content of its founding row too, so
//!   that nodes that begin it at the same time write the same row. Its first membership fact says since when it is.

mod event;
mod facts;
pub mod http;
mod invitation;
mod membership;
mod query;
mod resource;
mod rules;
mod store;
mod succession;

#[cfg(test)]
mod tests;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde::{Deserialize, Serialize};

pub use event::{event_of, inherited};
pub use facts::{found, join};
pub use http::routes;
pub use membership::{Member, remove as remove_member};
pub use query::{
    Access, access, ever_of, is_member, members_of, named, role, since, some_members_of, spaces_of, visible,
};
pub use resource::{Space, resource};
pub use rules::{require_member, require_role};
pub use store::{MIGRATIONS, derive};
pub use succession::pass_on;

/// What somebody may do in a space; each role may do all that the ones before it may.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
// Packed rows hold the position of a variant: new ones go to the end, and their rank must then be given by hand.
pub enum Role {
    /// Reads and writes, but invites nobody.
    Guest,
    /// Also invites members and guests.
    Member,
    /// Also changes the space's settings, the roles of all but owners, and deletes messages of others.
    Admin,
    /// Also names owners and deletes history.
    Owner,
}

impl Role {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Guest, "guest"), (Self::Member, "member"), (Self::Admin, "admin"), (Self::Owner, "owner")];

    /// The role's name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// Who may find and join a space.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
// Packed rows hold the position of a variant: new ones go to the end.
pub enum Visibility {
    /// Everybody may.
    Public,
    /// Only whom a member invites.
    Private,
    /// Nobody: the set of accounts is fixed.
    Direct,
}

impl Visibility {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Public, "public"), (Self::Private, "private"), (Self::Direct, "direct")];

    /// The name in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// Enums stand in local tables by name.
macro_rules! named_column {
    ($kind:ty) => {
        impl ToSql for $kind {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.name().into())
            }
        }

        impl FromSql for $kind {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                let name = value.as_str()?;
                Self::ALL
                    .iter()
                    .find(|known| known.1 == name)
                    .map(|known| known.0)
                    .ok_or(FromSqlError::InvalidType)
            }
        }
    };
}
named_column!(Role);
named_column!(Visibility);

/// What the convergence test of messages states about spaces.
#[cfg(test)]
pub(crate) mod testing {
    use mychat_replication::store::Batch;

    use super::{Role, Visibility, facts, facts::Setting};
    use crate::ids::{AccountId, SpaceId};

    pub fn set_role(
        batch: &mut Batch<'_>,
        space: SpaceId,
        account: AccountId,
        role: Option<Role>,
        by: AccountId,
    ) {
        facts::set_role(batch, space, account, role, by);
    }

    /// One of some settings; rarely a deletion.
    pub fn change(batch: &mut Batch<'_>, space: SpaceId, by: AccountId, number: u8) {
        let setting = match number {
            0..=3 => Setting::Name(number.to_string()),
            4..=6 => Setting::Topic(number.to_string()),
            7 => Setting::Visibility(Visibility::Private),
            8 => Setting::Visibility(Visibility::Public),
            9 => Setting::RetentionDays(Some(30)),
            10 => Setting::RetentionDays(None),
            _ => Setting::Deleted,
        };
        facts::change(batch, space, by, setting);
    }

    pub fn found_direct(batch: &mut Batch<'_>, accounts: Vec<AccountId>, by: AccountId) {
        facts::found_direct(batch, accounts, by);
    }
}

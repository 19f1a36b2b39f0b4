//! What is stated about spaces: the packed rows of the replicated tables, and how they are written.

use mychat_replication::{clock::Stamp, store::Batch};
use ring::digest;
use serde::{Deserialize, Serialize};

use super::{Role, Visibility, query};
use crate::{
    ids::{AccountId, At, SpaceId},
    packed,
};

/// `data` of `space`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Founding {
    /// A public or private space. `at` is a stamp.
    Named { creator: AccountId, at: u64, visibility: Visibility, name: String, topic: String },
    /// A direct conversation of these accounts, in order. Nothing in it depends on who began it or when.
    Direct { accounts: Vec<AccountId> },
}

/// `data` of `space_change`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    pub by: AccountId,
    pub to: Setting,
}

/// A setting and its new value. Packed rows hold the position of a variant: new ones go to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Setting {
    Name(String),
    Topic(String),
    Visibility(Visibility),
    RetentionDays(Option<u32>),
    Deleted,
}

impl Setting {
    /// The `field` of the key.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Name(_) => "name",
            Self::Topic(_) => "topic",
            Self::Visibility(_) => "visibility",
            Self::RetentionDays(_) => "retention_days",
            Self::Deleted => "deleted",
        }
    }
}

/// `data` of `membership`: the role from now on, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Standing {
    pub role: Option<Role>,
    pub by: AccountId,
}

/// Founds a public or private space, with its creator as the owner.
pub fn found(
    batch: &mut Batch<'_>,
    id: SpaceId,
    creator: AccountId,
    visibility: Visibility,
    name: String,
    topic: String,
) {
    let founding = Founding::Named { creator, at: id.stamp().to_u64(), visibility, name, topic };
    batch.insert("space", vec![id.value()], packed::encode(&founding));
    set_role(batch, id, creator, Some(Role::Owner), creator);
}

/// Begins the direct conversation of `accounts`, which are sorted and distinct, and gives the time.
pub(super) fn found_direct(batch: &mut Batch<'_>, accounts: Vec<AccountId>, by: AccountId) -> Stamp {
    let id = direct_id(&accounts);
    let mut first = None;
    for account in &accounts {
        let at = set_role(batch, id, *account, Some(Role::Member), by);
        first.get_or_insert(at);
    }
    batch.insert("space", vec![id.value()], packed::encode(&Founding::Direct { accounts }));
    first.unwrap_or_else(|| id.stamp())
}

/// The id of the direct conversation of `accounts`, which are sorted and distinct: the time of the youngest
/// account, before which it can't have begun, and a hash.
pub(super) fn direct_id(accounts: &[AccountId]) -> SpaceId {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(b"direct/1");
    for account in accounts {
        hash.update(&account.bytes());
    }
    let hash = hash.finish();
    let mut random = [0; 8];
    random.copy_from_slice(&hash.as_ref()[..8]);
    let youngest = accounts.iter().map(|account| account.stamp()).max().unwrap_or_default();
    SpaceId::from_stamp(youngest, u64::from_be_bytes(random))
}

/// States a setting.
pub(super) fn change(batch: &mut Batch<'_>, space: SpaceId, by: AccountId, to: Setting) {
    let at = At { stamp: batch.stamp(), site: batch.site() };
    let key = vec![space.value(), to.field().into(), at.value()];
    batch.insert("space_change", key, packed::encode(&Change { by, to }));
}

/// States an account's role; `None` ends the membership. Gives the time of the statement.
pub(super) fn set_role(
    batch: &mut Batch<'_>,
    space: SpaceId,
    account: AccountId,
    role: Option<Role>,
    by: AccountId,
) -> Stamp {
    let at = At { stamp: batch.stamp(), site: batch.site() };
    let key = vec![space.value(), account.value(), at.value()];
    batch.insert("membership", key, packed::encode(&Standing { role, by }));
    at.stamp
}

/// Makes `account` a member unless it is one: for imports and the operator. Says whether it was new.
///
/// # Errors
/// What SQLite says.
pub fn join(
    batch: &mut Batch<'_>,
    space: SpaceId,
    account: AccountId,
    as_role: Role,
) -> rusqlite::Result<bool> {
    if query::is_member(batch.connection(), space, account)? {
        return Ok(false);
    }
    set_role(batch, space, account, Some(as_role), account);
    Ok(true)
}

/// Notes that `account` used an invitation.
pub(super) fn use_invitation(batch: &mut Batch<'_>, invitation: &[u8], account: AccountId) {
    let at = batch.stamp().to_u64();
    batch.insert("invitation_use", vec![invitation.into(), account.value()], packed::encode(&at));
}

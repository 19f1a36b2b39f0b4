//! Invitations: by account or handle somebody becomes a member at once; a link lets whoever has it join.
//!
//! A link holds everything that it grants, sealed with a key of the cluster, so that any node can honour it without
//! having heard of it. Only how often a link was used has to be stored, and only where its uses are limited; nodes
//! that are asked at the same moment can't know of each other's uses, so a limit may be exceeded by as many.

use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use mychat_replication::store::Batch;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::{Role, facts, membership, query, resource, rules};
use crate::{
    http::{Problem, Reply},
    ids::{AccountId, SpaceId},
    packed, timestamp,
};

/// Bytes of the seal, an HMAC-SHA256.
const SEAL: usize = 32;
/// The longest token that is looked at.
const MAX_TOKEN: usize = 256;

const DAY_MILLIS: u64 = 24 * 3600 * 1000;
/// How long a link is good when nothing else is asked for, and at the most.
const DEFAULT_LIFE_MILLIS: u64 = 7 * DAY_MILLIS;
const MAX_LIFE_MILLIS: u64 = 365 * DAY_MILLIS;

/// What a link grants. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Invitation {
    pub space: SpaceId,
    pub inviter: AccountId,
    pub role: Role,
    pub issued: u64,
    pub expires: u64,
    /// How many accounts may use it; `None` for any number.
    pub uses: Option<u32>,
    /// Tells links apart whose uses are counted.
    pub nonce: [u8; 8],
}

impl Invitation {
    /// The token of a link.
    pub fn seal(&self, key: &[u8; 32]) -> String {
        let mut bytes = packed::encode(self);
        let seal = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &bytes);
        bytes.extend_from_slice(seal.as_ref());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a token grants; `None` if it is none of this cluster's.
    pub fn open(token: &str, key: &[u8; 32]) -> Option<Self> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (content, seal) = bytes.split_at_checked(bytes.len().checked_sub(SEAL)?)?;
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), content, seal).ok()?;
        packed::decode(content)
    }
}

/// When a link ends that is asked for now, `wanted` being RFC 3339.
pub(super) fn expiry(wanted: Option<&str>, now: u64) -> Result<u64, Problem> {
    let Some(wanted) = wanted else { return Ok(now + DEFAULT_LIFE_MILLIS) };
    timestamp::to_millis(wanted)
        .filter(|at| (now..=now + MAX_LIFE_MILLIS).contains(at))
        .ok_or_else(|| Problem::invalid_body("expires must be an RFC 3339 time within a year from now"))
}

/// Makes `account` a member on the word of `caller`.
pub(super) fn invite(
    batch: &mut Batch<'_>,
    space: SpaceId,
    caller: AccountId,
    account: AccountId,
    role: Role,
) -> Result<Reply, Problem> {
    check_inviter(batch, space, caller, role)?;
    let (member, new) = membership::admit(batch, space, caller, account, role)?;
    if new { Reply::created(&member) } else { Reply::ok(&member) }
}

/// Whether `caller` may invite to the space.
pub(super) fn check_inviter(
    batch: &Batch<'_>,
    space: SpaceId,
    caller: AccountId,
    role: Role,
) -> Result<(), Problem> {
    let db = batch.connection();
    let by = rules::require_role(db, space, caller)?;
    let visibility = query::visibility(db, space)?.ok_or_else(rules::no_space)?;
    rules::check_invitation(visibility, by, role)
}

/// Makes `account` a member by a link. Who is one already stays what it is.
pub(super) fn accept(
    batch: &mut Batch<'_>,
    invitation: &Invitation,
    account: AccountId,
) -> Result<Reply, Problem> {
    let space = invitation.space;
    let gone = |detail| Problem::with(StatusCode::GONE, "invitation_expired", detail);
    let db = batch.connection();
    if query::visibility(db, space)?.is_none() {
        return Err(gone("the space is not there any more, or not yet known to this node"));
    }
    if query::is_member(db, space, account)? {
        let space = resource::resource(db, space, Some(account))?.ok_or_else(rules::no_space)?;
        return Reply::ok(&space);
    }
    let now = timestamp::now_millis();
    if now > invitation.expires {
        return Err(gone("the invitation has expired"));
    }
    if check_inviter(batch, space, invitation.inviter, invitation.role).is_err() {
        return Err(gone("who sent the invitation may not invite any more"));
    }
    if let Some((at, standing)) = query::latest_standing(db, space, account)?
        && standing.role.is_none()
        && standing.by != account
        && at.stamp.millis() >= invitation.issued
    {
        return Err(Problem::forbidden(
            "the account was removed from the space after the invitation was sent",
        ));
    }
    if let Some(limit) = invitation.uses {
        let (others, used) = query::invitation_uses(db, &invitation.nonce, account)?;
        if others >= limit && !used {
            return Err(gone("the invitation has been used up"));
        }
        facts::use_invitation(batch, &invitation.nonce, account);
    }
    membership::admit(batch, space, invitation.inviter, account, invitation.role)?;
    let space = resource::joined(batch.connection(), space, invitation.role)?.ok_or_else(rules::no_space)?;
    Reply::ok(&space)
}

#[cfg(test)]
mod tests {
    use mychat_replication::clock::Stamp;
    use proptest::prelude::*;

    use super::*;

    fn invitation() -> Invitation {
        Invitation {
            space: SpaceId::from_stamp(Stamp::from_millis(5), 1),
            inviter: AccountId::from_stamp(Stamp::from_millis(6), 2),
            role: Role::Member,
            issued: 1_000,
            expires: 2_000,
            uses: Some(3),
            nonce: [7; 8],
        }
    }

    #[test]
    fn a_token_grants_what_was_sealed_and_only_with_the_clusters_key() {
        let token = invitation().seal(&[1; 32]);
        assert_eq!(Invitation::open(&token, &[1; 32]), Some(invitation()));
        assert_eq!(Invitation::open(&token, &[2; 32]), None);
        assert_eq!(Invitation::open("", &[1; 32]), None);
    }

    proptest! {
        #[test]
        fn a_changed_token_is_refused(at: prop::sample::Index, bit in 0u8..8) {
            let token = invitation().seal(&[1; 32]);
            let mut bytes = URL_SAFE_NO_PAD.decode(&token).expect("base64url");
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Invitation::open(&URL_SAFE_NO_PAD.encode(bytes), &[1; 32]), None);
        }

        #[test]
        fn noise_is_refused(noise: String) {
            prop_assert_eq!(Invitation::open(&noise, &[1; 32]), None);
        }
    }

    #[test]
    fn a_link_lasts_a_week_or_as_asked_within_a_year() {
        assert_eq!(expiry(None, 5).ok(), Some(5 + 7 * DAY_MILLIS));
        let now = timestamp::to_millis("2026-01-01T00:00:00Z").expect("a time");
        assert!(expiry(Some("2026-01-02T00:00:00Z"), now).is_ok());
        for bad in ["2025-12-31T00:00:00Z", "2028-01-01T00:00:00Z", "tomorrow", ""] {
            assert_eq!(expiry(Some(bad), now).expect_err(bad).code, "invalid_body");
        }
    }
}

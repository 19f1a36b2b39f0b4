//! Refresh tokens: what a client keeps to get its next access token.
//!
//! A token is `format ‖ account ‖ session ‖ generation ‖ site ‖ MAC`, so that nothing secret has to be stored: the
//! database only knows the largest generation that has been issued in each session.

use mychat_replication::log::SiteId;

use super::{Keys, open, seal};
use crate::ids::{AccountId, SessionId};

const FORMAT: u8 = 1;
const LENGTH: usize = 1 + 16 + 16 + 4 + 16;

/// What a refresh token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refresh {
    /// Whose it is.
    pub account: AccountId,
    /// In which session.
    pub session: SessionId,
    /// Counts the session's tokens: each is good once.
    pub generation: u32,
    /// The site that issued it.
    pub site: SiteId,
}

impl Keys {
    /// The token as a string.
    #[must_use]
    pub fn refresh_token(&self, token: &Refresh) -> String {
        let mut payload = Vec::with_capacity(LENGTH);
        payload.push(FORMAT);
        payload.extend_from_slice(&token.account.bytes());
        payload.extend_from_slice(&token.session.bytes());
        payload.extend_from_slice(&token.generation.to_be_bytes());
        payload.extend_from_slice(&token.site.0);
        seal(&self.now().refresh[0], &payload)
    }

    /// What the token says, if a node of this cluster issued it. Whether it is spent is another question.
    #[must_use]
    pub fn verify_refresh(&self, token: &str) -> Option<Refresh> {
        let payload = open::<LENGTH>(&self.now().refresh, token)?;
        let (format, rest) = payload.split_first()?;
        let (account, rest) = rest.split_first_chunk::<16>()?;
        let (session, rest) = rest.split_first_chunk::<16>()?;
        let (generation, site) = rest.split_first_chunk::<4>()?;
        (*format == FORMAT).then_some(Refresh {
            account: AccountId::from_slice(account)?,
            session: SessionId::from_slice(session)?,
            generation: u32::from_be_bytes(*generation),
            site: SiteId(site.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use mychat_replication::cluster::ClusterKey;

    use super::*;

    #[test]
    fn a_token_reads_back_at_nodes_of_its_cluster_only() {
        let cluster = ClusterKey::generate();
        let token = Refresh {
            account: AccountId(uuid::Uuid::from_u128(1)),
            session: SessionId(uuid::Uuid::from_u128(2)),
            generation: 7,
            site: SiteId([9; 16]),
        };
        let text = Keys::new(&cluster).refresh_token(&token);
        assert_eq!(Keys::new(&cluster).verify_refresh(&text), Some(token));
        assert_eq!(Keys::new(&ClusterKey::generate()).verify_refresh(&text), None);
        assert_eq!(Keys::new(&cluster).verify_refresh("x"), None);
    }
}

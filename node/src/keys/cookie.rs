//! The session cookie of the web client: `format ‖ session ‖ account ‖ MAC`, which any node checks by itself.

use axum::http::{HeaderMap, HeaderValue, header};

use super::{Keys, open, seal};
use crate::{
    config::NodeConfig,
    http::Caller,
    ids::{AccountId, SessionId},
};

/// The cookie's name.
pub const NAME: &str = "mychat_session";
/// How long a browser keeps it: 30 days.
const MAX_AGE_SECONDS: u32 = 30 * 24 * 3600;
const FORMAT: u8 = 1;
const LENGTH: usize = 1 + 16 + 16;

impl Keys {
    /// The cookie's value for a session.
    #[must_use]
    pub fn cookie(&self, caller: Caller) -> String {
        let payload = [&[FORMAT][..], &caller.session.bytes(), &caller.account.bytes()].concat();
        seal(&self.now().cookie[0], &payload)
    }

    /// Whose cookie it is, if a node of this cluster made it.
    #[must_use]
    pub fn verify_cookie(&self, value: &str) -> Option<Caller> {
        let payload = open::<LENGTH>(&self.now().cookie, value)?;
        let (format, rest) = payload.split_first()?;
        let (session, account) = rest.split_first_chunk::<16>()?;
        (*format == FORMAT).then_some(Caller {
            account: AccountId::from_slice(account)?,
            session: SessionId::from_slice(session)?,
        })
    }
}

/// The session cookie's value among a request's cookies.
#[must_use]
pub fn find(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == NAME).then_some(value))
}

/// The `Set-Cookie` header that gives a browser the session.
#[must_use]
pub fn set(config: &NodeConfig, value: &str) -> Option<HeaderValue> {
    line(config, value, MAX_AGE_SECONDS)
}

/// The `Set-Cookie` header that takes it away again.
#[must_use]
pub fn clear(config: &NodeConfig) -> Option<HeaderValue> {
    line(config, "", 0)
}

fn line(config: &NodeConfig, value: &str, max_age: u32) -> Option<HeaderValue> {
    let mut line = format!("{NAME}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax");
    if config.secure_cookies() {
        line.push_str("; Secure");
    }
    if let Some(domain) = &config.cookie_domain {
        line.push_str("; Domain=");
        line.push_str(domain);
    }
    HeaderValue::from_str(&line).ok()
}

#[cfg(test)]
mod tests {
    use mychat_replication::cluster::ClusterKey;

    use super::*;

    #[test]
    fn a_cookie_is_found_among_others_and_checked() {
        let keys = Keys::new(&ClusterKey::generate());
        let caller = Caller {
            account: AccountId(uuid::Uuid::from_u128(1)),
            session: SessionId(uuid::Uuid::from_u128(2)),
        };
        let mut headers = HeaderMap::new();
        assert_eq!(find(&headers), None);
        let cookies = format!("theme=dark; {NAME}={}; x=y", keys.cookie(caller));
        headers.insert(header::COOKIE, cookies.parse().expect("a header"));
        assert_eq!(find(&headers).and_then(|value| keys.verify_cookie(value)), Some(caller));
        assert_eq!(keys.verify_cookie(&keys.cookie(caller).to_uppercase()), None);
    }
}

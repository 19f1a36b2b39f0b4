//! The keys of tokens, and what they sign.
//!
//! All come from the cluster key, so every node signs with the same keys and checks any node's token without asking
//! anyone:
//!
//! - **access tokens**: EdDSA JWTs of ten minutes ([`Keys::access_token`]); their public keys are at
//!   `/.well-known/jwks.json`;
//! - **refresh tokens** ([`refresh`]) and the **session cookie** ([`cookie`]): a few ids and a MAC; what they prove
//!   still has to be held against the ended sessions in the database;
//! - links that invite;
//! - the MACs under which unique names are claimed and repeated calls are recognised, so that rows which every node
//!   keeps do not give away an address or a password.
//!
//! While the cluster key is being replaced ([`Keys::rekey`]), what the key in use signs and what the other keys that
//! are accepted have signed is good alike. The MACs in the database stay what they were: their keys come from the
//! first key that the cluster ever had.

pub mod cookie;
pub mod http;
pub mod refresh;
mod verified;

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use mychat_replication::cluster::ClusterKey;
use ring::{digest, hmac, signature::KeyPair};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    http::Caller,
    ids::{AccountId, SessionId},
    timestamp,
};

/// How long an access token is good for, in seconds.
pub const ACCESS_SECONDS: u64 = 600;
/// By how much nodes' clocks may differ before a token counts as expired, in seconds.
const LEEWAY_SECONDS: u64 = 5;
/// Who issues tokens, and for whom.
pub(crate) const ISSUER: &str = "mychat";

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Its time has passed.
    #[error("the token has expired: refresh it")]
    Expired,
    /// It was not issued by this cluster, or not for this use.
    #[error("the token is not valid")]
    Invalid,
}

/// What an access token says.
#[derive(Debug, Serialize, Deserialize)]
struct AccessClaims {
    iss: String,
    aud: String,
    sub: AccountId,
    sid: SessionId,
    iat: u64,
    exp: u64,
}

/// An Ed25519 key that signs JWTs, and checks its own.
pub(crate) struct JwtKey {
    signing: EncodingKey,
    verifying: DecodingKey,
    /// The public key in base64url.
    public: String,
    /// Its RFC 7638 thumbprint.
    id: String,
}

impl JwtKey {
    /// The key of a secret seed.
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        // PKCS #8, version 1, for Ed25519 is this prefix and the seed.
        const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(seed)
            .expect("every 32 bytes are a seed of Ed25519");
        let public = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{public}"}}"#);
        let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        Self {
            signing: EncodingKey::from_ed_der(&[&PKCS8[..], seed].concat()),
            verifying: DecodingKey::from_ed_components(&public).expect("it was encoded in the line above"),
            public,
            id,
        }
    }

    /// Signs claims.
    pub(crate) fn sign<T: Serialize>(&self, claims: &T) -> String {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &self.signing)
            .expect("plain claims serialise, and the key is well formed by construction")
    }

    /// Checks a token's algorithm, signature, times, issuer and audience, and gives its claims.
    pub(crate) fn verify<T: DeserializeOwned>(&self, token: &str, audience: &str) -> Result<T, TokenError> {
        let mut rules = Validation::new(Algorithm::EdDSA);
        rules.leeway = LEEWAY_SECONDS;
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        rules.set_issuer(&[ISSUER]);
        rules.set_audience(&[audience]);
        jsonwebtoken::decode(token, &self.verifying, &rules).map(|data| data.claims).map_err(|error| {
            match error.kind() {
                jsonwebtoken::errors::ErrorKind::ExpiredSignature => TokenError::Expired,
                _ => TokenError::Invalid,
            }
        })
    }
}

/// The keys of a cluster. A handle; clones share them.
#[derive(Clone)]
pub struct Keys(Arc<RwLock<Arc<Inner>>>);

/// Of each list, the first one signs and all are accepted.
struct Inner {
    access: Vec<JwtKey>,
    /// Tokens that these keys have verified: with other keys nothing of it counts.
    verified: verified::Verified<Caller>,
    operator: Vec<JwtKey>,
    refresh: Vec<hmac::Key>,
    cookie: Vec<hmac::Key>,
    invitation: Vec<[u8; 32]>,
    marks: Vec<String>,
    claims: hmac::Key,
    idempotency: hmac::Key,
}

impl Inner {
    fn of(cluster: &ClusterKey) -> Self {
        let mac = |secret: [u8; 32]| hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let macs = |purpose| cluster.derive_accepted(purpose).into_iter().map(mac).collect();
        let signers = |purpose| cluster.derive_accepted(purpose).iter().map(JwtKey::from_seed).collect();
        Self {
            access: signers("jwt/1"),
            verified: verified::Verified::default(),
            operator: signers("admin/1"),
            refresh: macs("refresh/1"),
            cookie: macs("cookie/1"),
            invitation: cluster.derive_accepted("invite/1"),
            marks: cluster.marks(),
            claims: mac(cluster.derive_lasting("claims/1")),
            idempotency: mac(cluster.derive_lasting("idempotency/1")),
        }
    }
}

impl Keys {
    /// Derives the keys.
    #[must_use]
    pub fn new(cluster: &ClusterKey) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(Inner::of(cluster)))))
    }

    /// Takes another value of the cluster's key: the next step of its rotation.
    pub fn rekey(&self, cluster: &ClusterKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Inner::of(cluster));
    }

    fn now(&self) -> Arc<Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A token with which the account calls for the next [`ACCESS_SECONDS`].
    #[must_use]
    pub fn access_token(&self, account: AccountId, session: SessionId) -> String {
        self.access_token_at(account, session, timestamp::now_millis() / 1000)
    }

    fn access_token_at(&self, account: AccountId, session: SessionId, now: u64) -> String {
        self.now().access[0].sign(&AccessClaims {
            iss: ISSUER.to_owned(),
            aud: ISSUER.to_owned(),
            sub: account,
            sid: session,
            iat: now,
            exp: now + ACCESS_SECONDS,
        })
    }

    /// Whose token this is. Whether the session still stands is another question.
    ///
    /// # Errors
    /// When it has expired, or was not issued by this cluster as an access token.
    pub fn verify_access(&self, token: &str) -> Result<Caller, TokenError> {
        let keys = self.now();
        let now = (timestamp::now_millis() / 1000).saturating_sub(LEEWAY_SECONDS);
        if let Some(caller) = keys.verified.find(token, now) {
            return Ok(caller);
        }
        let claims: AccessClaims = verify(&keys.access, token, ISSUER)?;
        let caller = Caller { account: claims.sub, session: claims.sid };
        keys.verified.remember(token, caller, claims.exp);
        Ok(caller)
    }

    /// Signs an operator's token.
    pub(crate) fn sign_operator<T: Serialize>(&self, claims: &T) -> String {
        self.now().operator[0].sign(claims)
    }

    /// Checks an operator's token for an audience.
    pub(crate) fn verify_operator<T: DeserializeOwned>(
        &self,
        token: &str,
        audience: &str,
    ) -> Result<T, TokenError> {
        verify(&self.now().operator, token, audience)
    }

    /// Names for the cluster keys that are accepted, the one in use first, which tell nothing of them.
    #[must_use]
    pub fn marks(&self) -> Vec<String> {
        self.now().marks.clone()
    }

    /// The secrets that seal links which invite: the first one is in use, all are accepted.
    pub(crate) fn invitation(&self) -> Vec<[u8; 32]> {
        self.now().invitation.clone()
    }

    /// The MAC under which a unique name of some kind is claimed.
    #[must_use]
    pub fn claim(&self, kind: &str, name: &str) -> [u8; 32] {
        mac(&self.now().claims, &[kind.as_bytes(), &[0], name.as_bytes()])
    }

    /// The MAC of parts of a call, by which a repeat is recognised.
    pub(crate) fn fingerprint(&self, parts: &[&[u8]]) -> [u8; 32] {
        mac(&self.now().idempotency, parts)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(secret)")
    }
}

/// Checks a token against the key that it names.
fn verify<T: DeserializeOwned>(keys: &[JwtKey], token: &str, audience: &str) -> Result<T, TokenError> {
    let named = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Invalid)?.kid;
    let key = keys.iter().find(|key| named.as_ref() == Some(&key.id)).ok_or(TokenError::Invalid)?;
    key.verify(token, audience)
}

/// A MAC over parts, each with its length before it, so that moving a border between two changes it.
fn mac(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

/// Base64url of a payload and the MAC over it.
fn seal(key: &hmac::Key, payload: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode([payload, hmac::sign(key, payload).as_ref()].concat())
}

/// The payload of [`seal`], if the MAC of any key is right (compared in constant time) and it has the length.
fn open<const N: usize>(keys: &[hmac::Key], sealed: &str) -> Option<[u8; N]> {
    // No seal of ours is anywhere near as long: refused before it is decoded.
    let bytes = (sealed.len() <= 512).then(|| URL_SAFE_NO_PAD.decode(sealed).ok())??;
    let (payload, tag) = bytes.split_first_chunk::<N>()?;
    keys.iter().any(|key| hmac::verify(key, payload, tag).is_ok()).then_some(*payload)
}

#[cfg(test)]
mod tests {
    use std::slice;

    use mychat_replication::log::SiteId;

    use super::*;

    fn keys() -> Keys {
        Keys::new(&ClusterKey::generate())
    }

    fn somebody() -> (AccountId, SessionId) {
        (AccountId(uuid::Uuid::from_u128(1)), SessionId(uuid::Uuid::from_u128(2)))
    }

    #[test]
    fn a_token_names_its_account_until_it_expires() {
        let (keys, (account, session)) = (keys(), somebody());
        let token = keys.access_token(account, session);
        assert_eq!(keys.verify_access(&token), Ok(Caller { account, session }));
        let long_ago = timestamp::now_millis() / 1000 - ACCESS_SECONDS - LEEWAY_SECONDS - 1;
        let old = keys.access_token_at(account, session, long_ago);
        assert_eq!(keys.verify_access(&old), Err(TokenError::Expired));
    }

    #[test]
    fn a_token_of_another_key_or_algorithm_is_refused() {
        let (keys, (account, session)) = (keys(), somebody());
        let foreign = Keys::new(&ClusterKey::generate()).access_token(account, session);
        assert_eq!(keys.verify_access(&foreign), Err(TokenError::Invalid));

        let token = keys.access_token(account, session);
        let claims = token.split('.').nth(1).unwrap_or_default();
        let inner = keys.now();
        let own = &inner.access[0];
        let head = |alg: &str| URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}","kid":"{}"}}"#, own.id));

        for none in [format!("{}.{claims}.", head("none")), format!("{}.{claims}", head("none"))] {
            assert_eq!(keys.verify_access(&none), Err(TokenError::Invalid));
        }
        // The public key as the secret of an HMAC: what a verifier falls for that goes by the header's algorithm.
        let public = URL_SAFE_NO_PAD.decode(&own.public).expect("base64");
        for secret in [public.as_slice(), own.public.as_bytes()] {
            let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
            let signed = format!("{}.{claims}", head("HS256"));
            let forged =
                format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&secret, signed.as_bytes())));
            assert_eq!(keys.verify_access(&forged), Err(TokenError::Invalid));
        }
        for noise in ["", ".", "..", "a.b.c", "ä"] {
            assert_eq!(keys.verify_access(noise), Err(TokenError::Invalid));
        }
    }

    #[test]
    fn an_operators_token_is_no_access_token() {
        let keys = keys();
        let (account, session) = somebody();
        let claims = AccessClaims {
            iss: ISSUER.into(),
            aud: ISSUER.into(),
            sub: account,
            sid: session,
            iat: 0,
            exp: timestamp::now_millis() / 1000 + 60,
        };
        assert_eq!(keys.verify_access(&keys.sign_operator(&claims)), Err(TokenError::Invalid));
        let other_use = AccessClaims { aud: "other".into(), ..claims };
        assert_eq!(keys.verify_access(&keys.now().access[0].sign(&other_use)), Err(TokenError::Invalid));
    }

    #[test]
    fn a_seal_breaks_with_any_byte() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let sealed = seal(&key, b"payload");
        assert_eq!(open::<7>(slice::from_ref(&key), &sealed), Some(*b"payload"));
        assert_eq!(open::<6>(slice::from_ref(&key), &sealed), None);
        let bytes = URL_SAFE_NO_PAD.decode(&sealed).expect("base64");
        for index in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[index] ^= 1;
            assert_eq!(open::<7>(slice::from_ref(&key), &URL_SAFE_NO_PAD.encode(broken)), None);
        }
        assert_eq!(open::<7>(&[hmac::Key::new(hmac::HMAC_SHA256, &[8; 32])], &sealed), None);
    }

    /// What was signed in one step of a rotation is good in the next, and MACs in the database are good for ever.
    #[test]
    fn a_rotation_ends_no_session_and_loses_no_name() {
        let old = ClusterKey::generate();
        let both = old.with_next().expect("a first step");
        let used = both.with_next_used().expect("a second");
        let new = used.without_old().expect("a third");
        let (account, session) = somebody();
        let caller = Caller { account, session };
        let refresh = refresh::Refresh { account, session, generation: 1, site: SiteId([9; 16]) };
        let keys = Keys::new(&old);
        let (claim, print) = (keys.claim("email", "ada@example.org"), keys.fingerprint(&[b"call"]));
        let signed = |keys: &Keys| {
            (keys.access_token(account, session), keys.refresh_token(&refresh), keys.cookie(caller))
        };
        let good = |keys: &Keys, (access, token, cookie): &(String, String, String)| {
            let all = [
                keys.verify_access(access) == Ok(caller),
                keys.verify_refresh(token) == Some(refresh),
                keys.verify_cookie(cookie) == Some(caller),
            ];
            assert!(all.iter().all(|good| *good == all[0]), "{all:?}");
            all[0]
        };
        let by_old = signed(&keys);
        for step in [&both, &used] {
            keys.rekey(step);
            assert!(good(&keys, &by_old));
        }
        let by_new = signed(&keys);
        assert!(good(&Keys::new(&both), &by_new), "a node that is a step behind takes it");
        assert!(!good(&Keys::new(&old), &by_new));
        keys.rekey(&new);
        assert!(good(&keys, &by_new) && !good(&keys, &by_old));
        assert_eq!(keys.claim("email", "ada@example.org"), claim);
        assert_eq!(keys.fingerprint(&[b"call"]), print);
    }

    #[test]
    fn keys_do_not_show_themselves() {
        assert_eq!(format!("{:?}", keys()), "Keys(secret)");
    }
}

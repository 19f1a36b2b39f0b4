//! Tokens that are none.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mychat_replication::cluster::ClusterKey;
use serde_json::{Value, json};

use crate::samples::{World, signature};

/// Makes tokens, also such as only the cluster could.
pub struct Forger {
    bad: Vec<(&'static str, String)>,
}

impl Forger {
    /// Takes what a forger can get, and the cluster's key to make tokens that were good once.
    pub async fn new(world: &World, key: &Path) -> Self {
        let cluster = ClusterKey::read(key).expect("the key");
        let (good, other) = (signer(&cluster), signer(&ClusterKey::generate()));
        let token = &world.ada.token;
        let parts: Vec<&str> = token.split('.').collect();
        let [header, claims, sealed] = parts[..] else { panic!("a JWT has three parts: {token}") };
        let (header_json, claims_json) = (read(header), read(claims));
        let ed = |claims: &Value, key: &EncodingKey| {
            let kid = header_json["kid"].as_str().map(str::to_owned);
            let header = Header { kid, ..Header::new(Algorithm::EdDSA) };
            jsonwebtoken::encode(&header, claims, key).expect("a token")
        };
        // What is signed here with the cluster's key is good, so it is the change that makes the others bad.
        let control = ed(&claims_json, &good);
        world.node.get("/v1/accounts/me").token(&control).send().await.expect(200);

        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let changed = |changes: Value| {
            let mut claims = claims_json.clone();
            changes.as_object().expect("a map").iter().for_each(|(name, value)| claims[name] = value.clone());
            claims
        };
        let expired = changed(json!({ "iat": now - 7200, "exp": now - 3600 }));
        let bobs = write(&changed(json!({ "sub": world.bob.id })));
        let public =
            world.node.get("/.well-known/jwks.json").send().await.expect(200)["keys"][0]["x"].clone();
        let public = public.as_str().expect("a public key").to_owned();
        let raw = URL_SAFE_NO_PAD.decode(&public).expect("base64url");
        let hs = |secret: &[u8]| {
            let header = Header {
                kid: header_json["kid"].as_str().map(str::to_owned),
                ..Header::new(Algorithm::HS256)
            };
            jsonwebtoken::encode(&header, &claims_json, &EncodingKey::from_secret(secret)).expect("a token")
        };
        let none = |name: &str| write(&json!({ "alg": name, "typ": "JWT" }));
        let turned = if sealed.starts_with('A') { "B" } else { "A" };
        let without = |name: &str| {
            let mut claims = claims_json.clone();
            claims.as_object_mut().expect("a map").remove(name);
            ed(&claims, &good)
        };
        let bad = vec![
            ("an expired token", ed(&expired, &good)),
            ("a token of another key", ed(&claims_json, &other)),
            ("a token without signature", format!("{}.{claims}.", none("none"))),
            ("a token that says None", format!("{}.{claims}.{sealed}", none("None"))),
            ("HS256 with the public key", hs(&raw)),
            ("HS256 with the public key's text", hs(public.as_bytes())),
            ("another's claims", format!("{header}.{bobs}.{sealed}")),
            ("a changed signature", format!("{header}.{claims}.{turned}{}", &sealed[1..])),
            ("half a signature", format!("{header}.{claims}.{}", &sealed[..40])),
            ("no signature", format!("{header}.{claims}")),
            ("another audience", ed(&changed(json!({ "aud": "mychat-admin" })), &good)),
            ("another issuer", ed(&changed(json!({ "iss": "other" })), &good)),
            ("a token without end", without("exp")),
            ("a token without session", without("sid")),
            ("a token of nobody", ed(&changed(json!({ "sub": "nobody" })), &good)),
            ("a refresh token", world.ada.refresh_token.clone()),
            ("garbage", "garbage".to_owned()),
            ("dots", "..".to_owned()),
            ("a long token", "x".repeat(20_000)),
        ];
        Self { bad }
    }

    /// What each is, and the token.
    pub fn tokens(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.bad.iter().map(|(what, token)| (*what, token.as_str()))
    }

    /// The first of them: it was good once, and whoever sets their clock back has a use for it.
    pub fn secrets(&self) -> Vec<(String, String)> {
        self.tokens().take(1).map(|(what, token)| (what.to_owned(), signature(token))).collect()
    }
}

/// The key that signs access tokens in a cluster.
fn signer(cluster: &ClusterKey) -> EncodingKey {
    // PKCS #8, version 1, for Ed25519 is this prefix and the seed.
    const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    EncodingKey::from_ed_der(&[&PKCS8[..], &cluster.derive("jwt/1")].concat())
}

fn read(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

fn write(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

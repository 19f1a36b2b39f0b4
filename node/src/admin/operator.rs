//! Operators: whoever has the cluster key. `mychat admin` makes a token of it, a node checks the token.

use axum::{extract::FromRequestParts, http::request::Parts};
use mychat_replication::cluster::ClusterKey;
use serde::{Deserialize, Serialize};

use crate::{
    app::App,
    http::{Problem, bearer},
    keys::{ISSUER, Keys},
    timestamp,
};

/// For whom these tokens are.
const AUDIENCE: &str = "mychat-admin";
/// How long a token is good, in seconds: a command makes a new one for each call.
const SECONDS: u64 = 300;

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: u64,
    exp: u64,
}

/// Somebody who has the cluster key. Extracting one refuses everybody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operator(());

impl Operator {
    /// A token that makes its bearer an operator for the next five minutes.
    #[must_use]
    pub fn token(key: &ClusterKey) -> String {
        let now = timestamp::now_millis() / 1000;
        token_until(&Keys::new(key), now, now + SECONDS)
    }
}

fn token_until(keys: &Keys, iat: u64, exp: u64) -> String {
    keys.sign_operator(&Claims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: "operator".to_owned(),
        iat,
        exp,
    })
}

/// Whether the token is an operator's.
fn verify(keys: &Keys, token: &str) -> Result<Operator, Problem> {
    let claims: Claims =
        keys.verify_operator(token, AUDIENCE).map_err(|error| Problem::unauthorized(error.to_string()))?;
    // One that somebody made to last is as good as the key itself, lying around.
    if claims.exp.saturating_sub(claims.iat) > SECONDS {
        return Err(Problem::unauthorized("the token lasts too long"));
    }
    Ok(Operator(()))
}

impl FromRequestParts<App> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)?
            .ok_or_else(|| Problem::unauthorized("the call needs an operator's token"))?;
        verify(&app.keys, token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AccountId, SessionId};

    #[test]
    fn only_short_tokens_of_the_cluster_key_make_an_operator() {
        let cluster = ClusterKey::generate();
        let keys = Keys::new(&cluster);
        assert!(verify(&keys, &Operator::token(&cluster)).is_ok());
        assert!(verify(&keys, &Operator::token(&ClusterKey::generate())).is_err());
        let now = timestamp::now_millis() / 1000;
        assert!(verify(&keys, &token_until(&keys, now, now + SECONDS + 1)).is_err());
        assert!(verify(&keys, &token_until(&keys, now - 600, now - 300)).is_err());
        let access = keys.access_token(AccountId(uuid::Uuid::nil()), SessionId(uuid::Uuid::nil()));
        assert!(verify(&keys, &access).is_err());
    }
}

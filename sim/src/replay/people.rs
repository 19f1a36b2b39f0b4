//! The accounts that take part, and their tokens.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::api::{Answer, Api, Call, CallError};

/// Tokens are renewed this long before they end, so that none ends on its way.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

/// One account and its session.
pub(super) struct Account {
    /// The node that it was signed up at and prefers.
    pub(super) home: usize,
    email: String,
    password: String,
    session: Mutex<Session>,
}

struct Session {
    token: String,
    refresh_token: String,
    renew_at: Instant,
}

impl Session {
    fn from_answer(answer: &Value) -> Result<Session, CallError> {
        let text = |name: &str| {
            answer[name]
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| CallError::Unreachable(format!("the answer to signing in has no {name}")))
        };
        let lifetime = Duration::from_secs(answer["expires_in"].as_u64().unwrap_or(0));
        // Half of a short life, so that renewing does not become the only thing that is done.
        let renew_after = lifetime.saturating_sub(RENEW_BEFORE).max(lifetime / 2);
        Ok(Session {
            token: text("token")?,
            refresh_token: text("refresh_token")?,
            renew_at: Instant::now() + renew_after,
        })
    }
}

impl Account {
    /// Signs up; returns the account and the cursor of that write.
    pub(super) async fn sign_up(
        api: &Api,
        home: usize,
        email: String,
        password: String,
        name: &str,
        deadline: Instant,
    ) -> Result<(Account, Answer), CallError> {
        let body = json!({ "email": email, "password": password, "name": name });
        let call = Call::send(&Method::POST, "/v1/accounts", &body);
        let answer = match api.call_any(home, call, &[], deadline).await {
            // An earlier attempt, whose answer was lost, has made the account.
            Err(CallError::Refused { status: 409, .. }) => {
                sign_in(api, home, &email, &password, deadline).await?
            }
            other => other?,
        };
        let session = Mutex::new(Session::from_answer(&answer.body)?);
        Ok((Account { home, email, password, session }, answer))
    }

    /// A token that is good for another while; renewed when it is not.
    pub(super) async fn token(&self, api: &Api, deadline: Instant) -> Result<String, CallError> {
        let mut session = self.session.lock().await;
        if session.renew_at <= Instant::now() {
            *session = self.renewed(api, &session, deadline).await?;
        }
        Ok(session.token.clone())
    }

    /// A token other than the one that a node has just refused.
    pub(super) async fn another_token(
        &self,
        api: &Api,
        refused: &str,
        deadline: Instant,
    ) -> Result<String, CallError> {
        let mut session = self.session.lock().await;
        if session.token == refused {
            *session = self.renewed(api, &session, deadline).await?;
        }
        Ok(session.token.clone())
    }

    async fn renewed(&self, api: &Api, session: &Session, deadline: Instant) -> Result<Session, CallError> {
        let body = json!({ "refresh_token": session.refresh_token });
        let call = Call::send(&Method::POST, "/v1/sessions/refresh", &body);
        // Asked once: a refresh whose answer is lost has spent the token, and repeating it would look like theft.
        let node = api.order(self.home)[0];
        let answer = match api.call(node, call).await {
            Ok(answer) => answer,
            Err(_) => sign_in(api, self.home, &self.email, &self.password, deadline).await?,
        };
        Session::from_answer(&answer.body)
    }
}

async fn sign_in(
    api: &Api,
    home: usize,
    email: &str,
    password: &str,
    deadline: Instant,
) -> Result<Answer, CallError> {
    let body = json!({ "email": email, "password": password });
    // A node that has not heard of the account yet answers 401.
    api.call_any(home, Call::send(&Method::POST, "/v1/sessions", &body), &[401], deadline).await
}

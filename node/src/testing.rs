//! A node's parts in a temporary folder, and calls to its router without a network: for the tests of this crate.

use std::{path::PathBuf, sync::Arc};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use mychat_replication::{cluster::ClusterKey, store::Store};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use crate::{
    accounts::password::Cost,
    app::App,
    config::{Listen, NodeConfig},
    derive::{Derived, schema},
};

/// The password of everybody.
pub const PASSWORD: &str = "correct horse battery";

/// A node without a network.
pub struct TestNode {
    pub app: App,
    router: Router,
    _folder: TempDir,
}

/// What a call was answered with.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// `null` when the body is no JSON.
    pub json: Value,
    pub text: String,
}

impl Answer {
    /// Checks that this is a problem document of the status and code.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.json["code"].as_str()), (status, Some(code)), "{}", self.text);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(self.json["status"], status);
        for field in ["type", "title", "detail"] {
            assert!(self.json[field].is_string(), "{field}");
        }
    }

    /// Checks the status, and gives the body.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.json
    }
}

/// Somebody who is signed in.
#[derive(Debug, Clone)]
pub struct Person {
    pub id: String,
    pub handle: String,
    pub email: String,
    pub token: String,
    pub refresh: String,
}

impl TestNode {
    /// A node of a cluster of its own.
    pub fn start() -> Self {
        Self::of(&ClusterKey::generate())
    }

    /// A node of a cluster.
    pub fn of(key: &ClusterKey) -> Self {
        Self::made(key, |_| {})
    }

    /// A node with other settings.
    pub fn with(change: impl FnOnce(&mut NodeConfig)) -> Self {
        Self::made(&ClusterKey::generate(), change)
    }

    fn made(key: &ClusterKey, change: impl FnOnce(&mut NodeConfig)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let derived = Derived::default();
        let standings = derived.standings();
        let store =
            Store::open(&folder.path().join("test.db"), &schema(), Box::new(derived)).expect("a store");
        let http = Listen::Address(([127, 0, 0, 1], 0).into());
        let mut config = NodeConfig::new("fra", http, "http://127.0.0.1:8081", PathBuf::new(), key.clone());
        config.password_cost = Cost::FOR_TESTS;
        config.limits.call = std::time::Duration::from_secs(20);
        change(&mut config);
        let app = App::new(store, standings, Arc::new(config), None);
        app.condition.set_ready(true);
        tokio::spawn(crate::erasure::run(app.clone()));
        Self { router: crate::http::router(app.clone()), app, _folder: folder }
    }

    /// Sends any request.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("a router can't fail");
        let (head, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 16 << 20).await.expect("a body");
        Answer {
            status: head.status,
            headers: head.headers,
            json: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    /// Opens an event stream.
    pub async fn stream(
        &self,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
    ) -> axum::response::Response {
        let mut request =
            Request::builder().uri(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a request");
        self.router.clone().oneshot(request).await.expect("a router can't fail")
    }

    /// Sends a call with a token and a JSON body, where given.
    pub async fn call(&self, method: Method, path: &str, token: Option<&str>, body: Option<Value>) -> Answer {
        self.call_with(method, path, token, body, &[]).await
    }

    /// [`TestNode::call`] with more headers.
    pub async fn call_with(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).expect("a request")).await
    }

    pub async fn get(&self, path: &str, token: &str) -> Answer {
        self.call(Method::GET, path, Some(token), None).await
    }

    pub async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(token), Some(body)).await
    }

    /// Signs somebody up.
    pub async fn sign_up(&self, name: &str) -> Person {
        let email = format!("{name}@example.org").to_lowercase();
        let wish = json!({ "email": email, "password": PASSWORD, "name": name });
        let body = self.call(Method::POST, "/v1/accounts", None, Some(wish)).await.expect(201);
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        Person {
            id: text(&body["account"]["id"]),
            handle: text(&body["account"]["handle"]),
            email,
            token: text(&body["token"]),
            refresh: text(&body["refresh_token"]),
        }
    }

    /// Gives `other` everything that this node has.
    pub async fn copy_to(&self, other: &Self) {
        for (site, version) in self.app.store.vector().iter() {
            let mut held = other.app.store.vector().get(site);
            while held < version {
                let read = self.app.store.read_log(site, held, 1 << 20).await.expect("a log");
                other
                    .app
                    .store
                    .apply(read.frames.into_iter().map(Arc::new).collect())
                    .await
                    .expect("applied");
                let now = other.app.store.vector().get(site);
                assert!(now > held, "the log moves on");
                held = now;
            }
        }
    }
}

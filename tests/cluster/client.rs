//! A client of the API: calls and their answers.

use std::time::Duration;

use reqwest::{
    Method,
    header::{HeaderMap, HeaderValue},
};
use ring::digest;
use serde_json::{Value, json};

use super::{PATIENCE, POLL};

/// How long an answer may take; more than any call that waits on purpose.
const ANSWER: Duration = Duration::from_secs(40);

/// Talks to one server.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    pub url: String,
}

/// Somebody who is signed in.
#[derive(Clone, Debug)]
pub struct Account {
    pub id: String,
    pub email: String,
    pub password: String,
    pub token: String,
    pub refresh_token: String,
    /// The cursor of the write that made the account or session.
    pub cursor: String,
}

/// A call that is put together.
pub struct Call {
    request: reqwest::RequestBuilder,
    what: String,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
    what: String,
}

impl Client {
    pub fn new(url: &str) -> Self {
        let http = reqwest::Client::builder()
            // A server that was killed and is back must not be blamed for the connections of its former life.
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .expect("a client");
        Self { http, url: url.to_owned() }
    }

    pub fn call(&self, method: Method, path: &str) -> Call {
        let what = format!("{method} {}{path}", self.url);
        Call { request: self.http.request(method, format!("{}{path}", self.url)).timeout(ANSWER), what }
    }

    pub fn get(&self, path: &str) -> Call {
        self.call(Method::GET, path)
    }

    pub fn post(&self, path: &str, body: Value) -> Call {
        self.call(Method::POST, path).json(&body)
    }

    pub fn put(&self, path: &str, body: Value) -> Call {
        self.call(Method::PUT, path).json(&body)
    }

    pub fn patch(&self, path: &str, body: Value) -> Call {
        self.call(Method::PATCH, path).json(&body)
    }

    pub fn delete(&self, path: &str) -> Call {
        self.call(Method::DELETE, path)
    }

    /// An open response, for streams.
    pub fn open(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(format!("{}{path}", self.url))
    }

    /// Makes an account of this name.
    pub async fn sign_up(&self, name: &str) -> Account {
        let email = format!("{}@example.org", uuid::Uuid::now_v7().simple());
        let password = format!("secret of {name} {}", rand::random::<u64>());
        let wish = json!({ "email": email, "password": password, "name": name });
        account(self.post("/v1/accounts", wish).send().await, email, password)
    }

    /// Begins another session of an account.
    pub async fn sign_in(&self, who: &Account) -> Answer {
        let wish = json!({ "email": who.email, "password": who.password });
        self.post("/v1/sessions", wish).send().await
    }

    /// Makes a space; its id.
    pub async fn make_space(&self, owner: &Account, name: &str, visibility: &str) -> (String, String) {
        let wish = json!({ "name": name, "visibility": visibility });
        let made = self.post("/v1/spaces", wish).by(owner).send().await;
        let cursor = made.cursor();
        (text(&made.expect(201)["id"]), cursor)
    }

    /// Invites an account, which becomes a member at once.
    pub async fn invite(&self, owner: &Account, space: &str, whom: &Account) -> String {
        let wish = json!({ "account": whom.id });
        let invited = self.post(&format!("/v1/spaces/{space}/invitations"), wish).by(owner).send().await;
        let cursor = invited.cursor();
        invited.expect(201);
        cursor
    }

    /// Sends a message; the message.
    pub async fn say(&self, author: &Account, space: &str, body: &str) -> Value {
        self.saying(author, space, body).send().await.expect(201)
    }

    /// The call that sends a message.
    pub fn saying(&self, author: &Account, space: &str, body: &str) -> Call {
        self.post(&format!("/v1/spaces/{space}/messages"), json!({ "body": body })).by(author)
    }

    /// The whole history of a space, oldest first.
    pub async fn history(&self, reader: &Account, space: &str) -> Vec<Value> {
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/spaces/{space}/messages?limit=200&order=asc{cursor}");
            let page = self.get(&path).by(reader).send().await.expect(200);
            rows.extend(page["items"].as_array().expect("a list").iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return rows,
            }
        }
    }

    /// What a node says of itself.
    pub async fn node(&self) -> Value {
        self.get("/v1/node").send().await.expect(200)
    }

    /// What a node holds; none while it does not answer.
    pub async fn heads(&self) -> Option<Value> {
        let answer = self.get("/v1/node").try_send().await.ok()?;
        Some(answer.expect(200)["heads"].clone())
    }

    /// The sum of a metric over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let answer = self.get("/metrics").send().await;
        assert_eq!(answer.status, 200);
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        let of_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        text.lines().filter(of_it).filter_map(value).sum()
    }

    /// Whether the server is there and ready.
    pub async fn is_ready(&self) -> bool {
        self.get("/readyz").try_send().await.is_ok_and(|answer| answer.status == 200)
    }

    /// Waits until the server is ready. For tasks: [`super::eventually`] can't be moved to another thread.
    pub async fn ready(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.is_ready().await {
            assert!(tokio::time::Instant::now() < deadline, "{} does not get ready", self.url);
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The account in the answer to signing up or in.
pub fn account(answer: Answer, email: String, password: String) -> Account {
    let cursor = answer.cursor();
    let body = answer.expect(201);
    Account {
        id: text(&body["account"]["id"]),
        email,
        password,
        token: text(&body["token"]),
        refresh_token: text(&body["refresh_token"]),
        cursor,
    }
}

/// A JSON string.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string")).to_owned()
}

/// SHA-256 over rows in their order.
pub fn fingerprint(rows: &[Value]) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    for row in rows {
        hash.update(row.to_string().as_bytes());
        hash.update(b"\n");
    }
    hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Call {
    pub fn by(self, account: &Account) -> Self {
        self.token(&account.token)
    }

    pub fn token(self, token: &str) -> Self {
        Self { request: self.request.bearer_auth(token), ..self }
    }

    pub fn header(self, name: &str, value: &str) -> Self {
        let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value without line breaks");
        Self { request: self.request.header(name, value), ..self }
    }

    pub fn json(self, body: &Value) -> Self {
        Self { request: self.request.json(body), ..self }
    }

    /// A body as it is, called JSON.
    pub fn body(self, bytes: Vec<u8>) -> Self {
        self.header("content-type", "application/json").bytes(bytes)
    }

    /// A body as it is, called nothing.
    pub fn bytes(self, bytes: Vec<u8>) -> Self {
        Self { request: self.request.body(bytes), ..self }
    }

    /// The answer, which must come.
    pub async fn send(self) -> Answer {
        let what = self.what.clone();
        self.try_send().await.unwrap_or_else(|error| panic!("{what}: {error:?}"))
    }

    /// The answer, if one comes.
    pub async fn try_send(self) -> reqwest::Result<Answer> {
        let response = self.request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, bytes: response.bytes().await?.to_vec(), what: self.what })
    }
}

impl Answer {
    /// The JSON body of an answer with this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.what, String::from_utf8_lossy(&self.bytes));
        if self.bytes.is_empty() { Value::Null } else { self.json() }
    }

    /// Fails unless this is 200 with this text.
    #[track_caller]
    pub fn expect_text(&self, text: &str) {
        assert_eq!((self.status, &*String::from_utf8_lossy(&self.bytes)), (200, text), "{}", self.what);
    }

    /// The body.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| {
            panic!("{}: {error}: {}", self.what, String::from_utf8_lossy(&self.bytes))
        })
    }

    /// Fails unless this is a problem document with this status and code.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) {
        let code_found = self.problem_code();
        assert_eq!((self.status, code_found.as_str()), (status, code), "{}", self.what);
    }

    /// The code of a problem document, which this must be.
    #[track_caller]
    pub fn problem_code(&self) -> String {
        self.problem().unwrap_or_else(|why| panic!("{}: {why}", self.what))
    }

    /// The code of a problem document (RFC 9457, and the members of the contract), or why this is none.
    pub fn problem(&self) -> Result<String, String> {
        let start = String::from_utf8_lossy(&self.bytes[..self.bytes.len().min(300)]).into_owned();
        if self.header("content-type") != Some("application/problem+json") {
            return Err(format!("{} is no problem document: {start}", self.status));
        }
        let problem: Value = serde_json::from_slice(&self.bytes)
            .map_err(|error| format!("{}: {error}: {start}", self.status))?;
        let texts = ["type", "title", "detail", "code"];
        let whole = texts.iter().all(|member| problem[*member].as_str().is_some_and(|text| !text.is_empty()));
        if !whole || problem["status"] != self.status {
            return Err(format!("{}: an incomplete problem document: {start}", self.status));
        }
        let code = text(&problem["code"]);
        let plain = code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if plain { Ok(code) } else { Err(format!("{}: an odd code: {start}", self.status)) }
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The cursor that every write answers with.
    #[track_caller]
    pub fn cursor(&self) -> String {
        let shown = String::from_utf8_lossy(&self.bytes);
        self.header("mychat-cursor")
            .unwrap_or_else(|| panic!("{}: no MyChat-Cursor: {shown}", self.what))
            .to_owned()
    }
}

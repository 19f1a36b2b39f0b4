//! A good example of every call, out of which the bad ones are made, and a little world for them to work on.

use std::{collections::BTreeMap, path::Path};

use mychat_node::admin::Operator;
use mychat_replication::cluster::ClusterKey;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cluster::{Account, Call, Client, account, text};

/// Accounts and things that exist.
pub struct World {
    pub node: Client,
    /// Who owns everything here.
    pub ada: Account,
    /// Who has no part in it.
    pub bob: Account,
    /// Whose account is closed in the end.
    dora: Account,
    /// A second session of Ada's.
    spare: Account,
    spare_session: String,
    pub space: String,
    pub message: String,
    victim: String,
    spare_space: String,
    link: String,
    cookie: String,
    operator: String,
}

impl World {
    pub async fn make(node: &Client, key: &Path) -> Self {
        let (ada, bob, dora) =
            (node.sign_up("Ada").await, node.sign_up("Bob").await, node.sign_up("Dora").await);
        let wish = json!({ "email": ada.email, "password": ada.password });
        let signed_in = node.post("/v1/sessions", wish).header("mychat-client", "web").send().await;
        let cookie = signed_in.header("set-cookie").expect("a cookie for the web client").to_owned();
        let cookie = cookie.split([';', '=']).nth(1).expect("a value").to_owned();
        let spare = account(signed_in, ada.email.clone(), ada.password.clone());
        let by_cookie = node.get("/v1/sessions").header("cookie", &format!("mychat_session={cookie}"));
        let sessions = by_cookie.send().await.expect(200);
        let mut sessions = sessions["items"].as_array().expect("a list").iter();
        let spare_session =
            text(&sessions.find(|session| session["current"] == true).expect("it calls")["id"]);
        let (space, _) = node.make_space(&ada, "Ada's", "private").await;
        let (spare_space, _) = node.make_space(&ada, "Spare", "private").await;
        let (bobs, _) = node.make_space(&bob, "Bob's", "private").await;
        let link = node
            .post(&format!("/v1/spaces/{bobs}/invitations"), json!({ "link": true }))
            .by(&bob)
            .send()
            .await;
        let link = text(&link.expect(201)["token"]);
        let message = text(&node.say(&ada, &space, "*words*").await["id"]);
        let victim = text(&node.say(&ada, &space, "to be deleted").await["id"]);
        let operator = Operator::token(&ClusterKey::read(key).expect("the key"));
        Self {
            node: node.clone(),
            ada,
            bob,
            dora,
            spare,
            spare_session,
            space,
            message,
            victim,
            spare_space,
            link,
            cookie,
            operator,
        }
    }

    /// What must be in no log.
    pub fn secrets(&self) -> Vec<(String, String)> {
        let mut secrets: Vec<(String, String)> = [
            ("the cookie", &self.cookie),
            ("the operator's token", &signature(&self.operator)),
            ("the invitation", &self.link),
        ]
        .map(|(what, secret)| (what.to_owned(), secret.clone()))
        .to_vec();
        for who in [&self.ada, &self.bob, &self.dora, &self.spare] {
            secrets.push(("a password".to_owned(), who.password.clone()));
            secrets.push(("a token".to_owned(), signature(&who.token)));
            secrets.push(("a refresh token".to_owned(), who.refresh_token.clone()));
        }
        secrets
    }
}

/// The part of a token that makes it one.
pub fn signature(token: &str) -> String {
    token.rsplit('.').next().expect("a last part").to_owned()
}

/// Who may make a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    Anybody,
    Account,
    Operator,
}

/// A call of the OpenAPI document, with a good example.
pub struct Operation {
    pub method: Method,
    /// With its parameters in braces.
    pub path: String,
    pub who: Who,
    /// A good body, for a call that takes one.
    pub body: Option<Value>,
    pub needs_body: bool,
    /// The schemas of the body's members.
    pub fields: Vec<(String, Value)>,
    pub required: Vec<String>,
    query: &'static str,
    parameters: BTreeMap<String, String>,
    token: String,
}

struct Sample {
    call: &'static str,
    who: Who,
    body: Option<Value>,
    query: &'static str,
}

/// Every call in an order in which all of them succeed.
fn samples(world: &World) -> Vec<Sample> {
    use Who::{Account, Anybody, Operator};
    let plain = |call, who| Sample { call, who, body: None, query: "" };
    let asking = |call, query| Sample { call, who: Account, body: None, query };
    let with = |call, who, body| Sample { call, who, body: Some(body), query: "" };
    let notifications =
        json!({ "email": true, "sms": false, "push": true, "quiet_hours": null, "digest": null });
    let line = json!({ "nick": "nick", "at": "2006-03-05T03:00:00Z", "body": "said", "key": "a:1" });
    vec![
        plain("GET /livez", Anybody),
        plain("GET /readyz", Anybody),
        plain("GET /metrics", Anybody),
        plain("GET /v1/node", Anybody),
        plain("GET /v1/sso", Anybody),
        plain("GET /.well-known/jwks.json", Anybody),
        with(
            "POST /v1/accounts",
            Anybody,
            json!({ "email": FRESH, "password": "a long enough one", "name": "New" }),
        ),
        with(
            "POST /v1/sessions",
            Anybody,
            json!({ "email": world.ada.email, "password": world.ada.password }),
        ),
        with("POST /v1/sessions/refresh", Anybody, json!({ "refresh_token": world.spare.refresh_token })),
        asking("GET /v1/accounts", "?handle=ada"),
        plain("GET /v1/accounts/me", Account),
        plain("GET /v1/accounts/me/export", Account),
        plain("GET /v1/accounts/me/preferences", Account),
        plain("GET /v1/accounts/{id}", Account),
        plain("GET /v1/sessions", Account),
        with(
            "PATCH /v1/accounts/me",
            Account,
            json!({ "name": "Ada", "handle": "ada.l", "phone": "+49 30 1", "address": "1 St", "avatar": "/a.png" }),
        ),
        with(
            "PUT /v1/accounts/me/preferences",
            Account,
            json!({ "language": "en", "timezone": "UTC", "notifications": notifications }),
        ),
        plain("PUT /v1/admin/drain", Operator),
        plain("DELETE /v1/admin/drain", Operator),
        with("POST /v1/admin/import", Operator, json!({ "space": "Imported", "lines": [line] })),
        asking("GET /v1/events", "?poll=0"),
        plain("POST /v1/invitations/{token}/accept", Account),
        plain("GET /v1/spaces", Account),
        with("POST /v1/spaces", Account, json!({ "name": "New", "topic": "All", "visibility": "private" })),
        with("POST /v1/spaces/direct", Account, json!({ "accounts": [world.bob.id] })),
        plain("GET /v1/spaces/{space}", Account),
        with(
            "PATCH /v1/spaces/{space}",
            Account,
            json!({ "name": "Ada's", "topic": "x", "visibility": "private", "retention_days": 30 }),
        ),
        with(
            "POST /v1/spaces/{space}/invitations",
            Account,
            json!({ "account": world.bob.id, "role": "member" }),
        ),
        plain("GET /v1/spaces/{space}/members", Account),
        with("PUT /v1/spaces/{space}/members/{account}", Account, json!({ "role": "member" })),
        with(
            "POST /v1/spaces/{space}/messages",
            Account,
            json!({ "body": "x", "client_id": "c", "reply_to": world.message, "thread": world.message, "attachments": [] }),
        ),
        asking("GET /v1/spaces/{space}/messages", "?since=2024-01-01&limit=10&order=desc"),
        plain("GET /v1/spaces/{space}/messages/{message}", Account),
        with("PATCH /v1/spaces/{space}/messages/{message}", Account, json!({ "body": "other words" })),
        plain("PUT /v1/spaces/{space}/messages/{message}/reactions/{emoji}", Account),
        plain("DELETE /v1/spaces/{space}/messages/{message}/reactions/{emoji}", Account),
        with("PUT /v1/spaces/{space}/read", Account, json!({ "message": world.message })),
        plain("POST /v1/spaces/{space}/typing", Account),
        asking("GET /v1/presence", "?limit=10"),
        plain("DELETE /v1/spaces/{space}/messages/{message}", Account),
        asking("DELETE /v1/spaces/{space}/messages", "?since=2024-01-01"),
        plain("DELETE /v1/spaces/{space}/members/{account}", Account),
        plain("DELETE /v1/spaces/{space}", Account),
        plain("DELETE /v1/sessions/{id}", Account),
        asking("DELETE /v1/accounts/me", "?mode=erase"),
    ]
}

/// Stands for an address that has no account yet.
const FRESH: &str = "fresh@example.org";

/// All calls of the document that the node serves.
pub async fn operations(world: &World) -> Vec<Operation> {
    let document = world.node.get("/v1/openapi.json").send().await.expect(200);
    let mut documented: BTreeMap<String, &Value> = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().expect("the paths") {
        for (method, operation) in methods.as_object().expect("its methods") {
            documented.insert(format!("{} {path}", method.to_uppercase()), operation);
        }
    }
    let mut operations = Vec::new();
    for sample in samples(world) {
        let operation = documented.remove(sample.call);
        let operation = operation.unwrap_or_else(|| panic!("{} is not in the OpenAPI document", sample.call));
        operations.push(Operation::new(world, sample, operation, &document));
    }
    assert!(documented.is_empty(), "these calls need a sample here: {:?}", documented.keys());
    operations
}

/// What a reference or a choice with null stands for.
fn resolved<'a>(schema: &'a Value, document: &'a Value) -> &'a Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return &document["components"]["schemas"][name];
    }
    let choices = schema["oneOf"].as_array().into_iter().flatten();
    choices
        .into_iter()
        .find(|choice| choice["type"] != "null")
        .map_or(schema, |choice| resolved(choice, document))
}

impl Operation {
    fn new(world: &World, sample: Sample, operation: &Value, document: &Value) -> Self {
        let (method, path) = sample.call.split_once(' ').expect("a method and a path");
        let schema = resolved(&operation["requestBody"]["content"]["application/json"]["schema"], document);
        let fields = schema["properties"].as_object().into_iter().flatten();
        let fields =
            fields.map(|(name, schema)| (name.clone(), resolved(schema, document).clone())).collect();
        let required = schema["required"].as_array().into_iter().flatten().map(text).collect();
        assert_eq!(sample.body.is_some(), operation.get("requestBody").is_some(), "{}", sample.call);
        let parameters = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let value = |name: &str| match (sample.call, name) {
            ("DELETE /v1/spaces/{space}", _) => &world.spare_space,
            ("DELETE /v1/spaces/{space}/messages/{message}", "message") => &world.victim,
            ("DELETE /v1/sessions/{id}", _) => &world.spare_session,
            (_, "space") => &world.space,
            (_, "message") => &world.message,
            (_, "account" | "id") => &world.bob.id,
            (_, "token") => &world.link,
            (_, "emoji") => "%F0%9F%91%8D",
            other => panic!("no value for {other:?}"),
        };
        let parameters = parameters.map(|name| (name.to_owned(), value(name).to_owned())).collect();
        let token = match (sample.who, sample.call) {
            (Who::Operator, _) => &world.operator,
            (_, "DELETE /v1/accounts/me") => &world.dora.token,
            _ => &world.ada.token,
        };
        Self {
            method: method.parse().expect("a method"),
            path: path.to_owned(),
            who: sample.who,
            body: sample.body,
            needs_body: operation["requestBody"]["required"] == true,
            fields,
            required,
            query: sample.query,
            parameters,
            token: token.clone(),
        }
    }

    pub fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// The names of the parameters in the path.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.parameters.keys().map(String::as_str)
    }

    /// The path with its parameters filled in by name and good value.
    pub fn filled(&self, value: impl Fn(&str, &str) -> String) -> String {
        self.parameters.iter().fold(self.path.clone(), |path, (name, sample)| {
            path.replace(&format!("{{{name}}}"), &value(name, sample))
        })
    }

    /// The good call, but for parameters that are filled in by name and good value.
    pub fn call_at(&self, node: &Client, value: impl Fn(&str, &str) -> String) -> Call {
        let call = node.call(self.method.clone(), &(self.filled(value) + self.query));
        let call = if self.who == Who::Anybody { call } else { call.token(&self.token) };
        self.with_body(call)
    }

    /// The good call.
    pub fn call(&self, node: &Client) -> Call {
        self.call_at(node, |_, sample| sample.to_owned())
    }

    /// The good call without credentials.
    pub fn bare(&self, node: &Client) -> Call {
        let path = self.filled(|_, sample| sample.to_owned());
        self.with_body(node.call(self.method.clone(), &(path + self.query)))
    }

    /// The good call, but without its body.
    pub fn without_body(&self, node: &Client) -> Call {
        let path = self.filled(|_, sample| sample.to_owned());
        let call = node.call(self.method.clone(), &(path + self.query));
        if self.who == Who::Anybody { call } else { call.token(&self.token) }
    }

    fn with_body(&self, call: Call) -> Call {
        match self.body.clone() {
            None => call,
            Some(mut body) => {
                if body["email"] == FRESH {
                    body["email"] = json!(format!("{}@example.org", uuid::Uuid::now_v7().simple()));
                }
                call.json(&body)
            }
        }
    }
}

fn is(schema: &Value, kind: &str) -> bool {
    schema["type"] == kind
        || schema["type"].as_array().is_some_and(|kinds| kinds.iter().any(|one| one == kind))
}

/// Whether any text may be tried as a value.
pub fn is_text(schema: &Value) -> bool {
    is(schema, "string") && schema.get("enum").is_none()
}

/// Values of other types than the schema's.
pub fn wrong_values(schema: &Value, required: bool) -> Vec<Value> {
    let mut values = vec![json!([1]), json!([[]])];
    if schema.get("properties").is_none() {
        values.push(json!({ "a": 1 }));
    }
    if !is(schema, "boolean") {
        values.push(json!(true));
    }
    if !is(schema, "integer") {
        values.extend([json!(7), json!(-1.5), json!(u64::MAX)]);
    } else {
        values.extend([json!(-1), json!(1.5), json!(u64::MAX)]);
    }
    if !is_text(schema) {
        values.push(json!("sideways"));
    }
    if required {
        values.push(Value::Null);
    }
    values
}

//! Bad input: whatever a client sends, the answer is a problem document that says what is wrong with it, never a 5xx
//! or a broken connection, and nothing that is secret gets into the log.
//!
//! The calls come from the OpenAPI document that a node serves, so none is forgotten: a new one needs a [`Sample`].

mod cluster;

#[path = "bad_input/raw.rs"]
mod raw;
#[path = "bad_input/samples.rs"]
mod samples;
#[path = "bad_input/tokens.rs"]
mod tokens;

use cluster::{Call, Cluster, text};
use reqwest::Method;
use samples::{Operation, Who, World};
use serde_json::{Value, json};
use tokens::Forger;

/// What was answered otherwise than it should be.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    /// Makes the call, which must be refused with this status and code.
    async fn refused(&mut self, what: &str, call: Call, status: u16, code: &str) {
        self.refused_by_one_of(what, call, &[(status, code)]).await;
    }

    async fn refused_by_one_of(&mut self, what: &str, call: Call, wanted: &[(u16, &str)]) {
        let found = match call.try_send().await {
            Err(error) => format!("no answer: {error:?}"),
            Ok(answer) => match answer.problem() {
                Ok(code) if wanted.contains(&(answer.status, code.as_str())) => return,
                Ok(code) => format!("{} {code}: {}", answer.status, answer.json()["detail"]),
                Err(why) => why,
            },
        };
        self.0.push(format!("{what}: {found}, not {wanted:?}"));
    }

    /// Makes a call that may be refused or not, but not fail.
    async fn survives(&mut self, what: &str, call: Call) {
        match call.try_send().await {
            Err(error) => self.0.push(format!("{what}: no answer: {error:?}")),
            Ok(answer) if answer.status < 400 => {}
            Ok(answer) => {
                let why = answer
                    .problem()
                    .err()
                    .or_else(|| (answer.status >= 500).then(|| answer.status.to_string()));
                self.0.extend(why.map(|why| format!("{what}: {why}")));
            }
        }
    }

    #[track_caller]
    fn are_none(self) {
        assert!(self.0.is_empty(), "{} faults:\n{}", self.0.len(), self.0.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_refuses_bad_credentials_paths_and_bodies_and_logs_no_secret() {
    let cluster = Cluster::start_logging(&["fra", "iad"], "trace").await;
    let world = World::make(&cluster.client(0), &cluster.key()).await;
    let operations = samples::operations(&world).await;
    let forger = Forger::new(&world, &cluster.key()).await;
    let mut faults = Faults::default();
    for operation in &operations {
        credentials(&world, operation, &forger, &mut faults).await;
        paths(&world, operation, &mut faults).await;
        if let Some(sample) = &operation.body {
            bodies(&world, operation, sample, &mut faults).await;
        }
    }
    faults.are_none();
    // The samples are good: only what was changed in them was refused.
    for operation in &operations {
        let answer = operation.call(&world.node).send().await;
        assert!((200..300).contains(&answer.status), "{}: {answer:?}", operation.name());
    }
    cluster.agree().await;
    let key = std::fs::read_to_string(cluster.key()).expect("the key");
    let key = key.trim().rsplit(':').next().expect("its secret").to_owned();
    let secrets = [world.secrets(), forger.secrets(), vec![("the cluster's key".to_owned(), key)]].concat();
    for node in &cluster.nodes {
        let log = node.log();
        assert!(log.contains("TRACE") && log.contains("the node serves"), "the log is there");
        assert!(!log.contains("panicked"), "a handler has panicked");
        for (what, secret) in &secrets {
            assert!(secret.len() >= 8, "{what}");
            let line = log.lines().find(|line| line.contains(secret.as_str()));
            assert_eq!(line, None, "the log of {} has {what}", node.region);
        }
    }
}

/// Everything that is no valid token of an account that may call.
async fn credentials(world: &World, operation: &Operation, forger: &Forger, faults: &mut Faults) {
    if operation.who == Who::Anybody {
        return;
    }
    let bare = || operation.bare(&world.node);
    let mut check = async |what: &str, call: Call| {
        faults.refused(&format!("{} with {what}", operation.name()), call, 401, "unauthorized").await;
    };
    check("no token", bare()).await;
    for (what, token) in forger.tokens() {
        check(what, bare().token(token)).await;
    }
    for (what, header) in
        [("Basic", "Basic YWRhOnNlY3JldA=="), ("an empty header", ""), ("no scheme", &world.ada.token)]
    {
        check(what, bare().header("authorization", header)).await;
    }
    for cookie in ["mychat_session=", "mychat_session=AAAA", "mychat_session=\"; =;;"] {
        check("a bad cookie", bare().header("cookie", cookie)).await;
    }
    if operation.who == Who::Operator {
        check("an account's token", bare().token(&world.ada.token)).await;
    }
}

/// Ids in the path that name nothing.
async fn paths(world: &World, operation: &Operation, faults: &mut Faults) {
    let long = "x".repeat(3000);
    let unknown = uuid::Uuid::now_v7().to_string();
    let bad =
        [&*unknown, "nonsense", "0", "%00", "%ff%fe", "a%2Fb", "%F0%9F%98%80", "%20", "me%0d%0aX:1", &long];
    for parameter in operation.parameters() {
        for value in bad {
            let name = format!("{} with {parameter} {:.20}", operation.name(), value);
            let call = operation.call_at(&world.node, |own, sample| match own == parameter {
                true => value.to_owned(),
                false => sample.to_owned(),
            });
            // Any short text without control characters is a reaction as good as an emoji.
            match parameter {
                "emoji" => faults.survives(&name, call).await,
                _ => faults.refused(&name, call, 404, "not_found").await,
            }
        }
    }
}

/// Bodies that are not what the call needs.
async fn bodies(world: &World, operation: &Operation, sample: &Value, faults: &mut Faults) {
    let with = |bytes: Vec<u8>| operation.without_body(&world.node).body(bytes);
    let name = |what: &str| format!("{} with {what}", operation.name());
    if operation.needs_body {
        let none = operation.without_body(&world.node);
        faults.refused(&name("no body"), none, 400, "invalid_body").await;
        faults.refused(&name("an empty body"), with(Vec::new()), 400, "invalid_body").await;
    }
    let (deep_list, deep_map) = ("[".repeat(100_000), r#"{"a":"#.repeat(40_000));
    let texts = [
        r#"{"name":"#,
        "name=x&body=y",
        "{'body': 'x'}",
        "\u{feff}{}x",
        "null",
        "[]",
        "[1,2,3]",
        "\"text\"",
        "7",
        "true",
        "{}{}",
        "\0",
        &deep_list,
        &deep_map,
    ];
    for bad in texts {
        faults.refused(&name(&format!("{bad:.20}")), with(bad.into()), 400, "invalid_body").await;
    }
    // Of use to nobody, but JSON: a call may pass over members that it does not know.
    let closed = format!("{}1{}", r#"{"name":"#.repeat(5000), "}".repeat(5000));
    for odd in [r#"{"name":"\ud800"}"#, r#"{"name":1e999}"#, &closed] {
        faults.survives(&name(&format!("{odd:.20}")), with(odd.into())).await;
    }
    let latin1 = b"{\"name\":\"caf\xe9\",\"body\":\"caf\xe9\",\"email\":\"\xff\xfe\"}".to_vec();
    faults.refused(&name("bytes that are not UTF-8"), with(latin1), 400, "invalid_body").await;
    let large = [(400, "invalid_body"), (413, "too_large")];
    faults.refused_by_one_of(&name("1 MB of a"), with(vec![b'a'; 1 << 20]), &large).await;
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"]
    {
        let call = operation.without_body(&world.node).header("content-type", kind);
        let call = call.bytes(sample.to_string().into_bytes());
        faults.refused(&name(kind), call, 415, "unsupported_media_type").await;
    }
    for (field, schema) in &operation.fields {
        let change = |value: Value| {
            let mut body = sample.clone();
            body[field] = value;
            body
        };
        for wrong in samples::wrong_values(schema, operation.required.contains(field)) {
            let what = name(&format!("{field} as {wrong}"));
            // Files can't be attached yet, so what a list of them holds is not looked at.
            let wanted =
                [(400, "invalid_body"), (400, if field == "attachments" { "unsupported" } else { "" })];
            faults.refused_by_one_of(&what, with(change(wrong).to_string().into()), &wanted).await;
        }
        if operation.required.contains(field) {
            let mut body = sample.clone();
            body.as_object_mut().expect("an object").remove(field);
            faults
                .refused(&name(&format!("no {field}")), with(body.to_string().into()), 400, "invalid_body")
                .await;
        }
        if samples::is_text(schema) {
            let body = change(json!("x".repeat(1 << 20)));
            faults
                .refused_by_one_of(&name(&format!("1 MB as {field}")), with(body.to_string().into()), &large)
                .await;
            for odd in ["", " ", "\0", "\u{202e}x", "x\r\ny: z", "' OR 1=1 --", "<script>alert(1)</script>"] {
                let body = change(json!(odd));
                faults.survives(&name(&format!("{field} as {odd:?}")), with(body.to_string().into())).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_at_what_is_anothers() {
    let cluster = Cluster::start(&["fra"]).await;
    let node = cluster.client(0);
    let world = World::make(&node, &cluster.key()).await;
    let mut faults = Faults::default();
    let (ada, bob, space) = (&world.ada, &world.bob, &world.space);
    let message = format!("/v1/spaces/{space}/messages/{}", world.message);
    // A stranger is not told that the space exists.
    for operation in samples::operations(&world).await {
        if operation.path.starts_with("/v1/spaces/{space}") {
            let call = operation.bare(&node).by(bob);
            faults.refused(&format!("{} by a stranger", operation.name()), call, 404, "not_found").await;
        }
    }
    let sessions = node.get("/v1/sessions").by(ada).send().await.expect(200);
    for session in sessions["items"].as_array().expect("a list") {
        let path = format!("/v1/sessions/{}", text(&session["id"]));
        faults.refused("ending another's session", node.delete(&path).by(bob), 404, "not_found").await;
    }
    let seen = node.get(&format!("/v1/accounts/{}", ada.id)).by(bob).send().await.expect(200);
    for private in ["email", "phone", "address"] {
        assert!(seen.get(private).is_none(), "{seen}");
    }
    // A public space shows itself, and nothing that is said in it.
    let (public, _) = node.make_space(ada, "Open to all", "public").await;
    node.get(&format!("/v1/spaces/{public}")).by(bob).send().await.expect(200);
    for call in [
        node.get(&format!("/v1/spaces/{public}/messages")),
        node.post(&format!("/v1/spaces/{public}/messages"), json!({ "body": "x" })),
        node.get(&format!("/v1/spaces/{public}/members")),
        node.patch(&format!("/v1/spaces/{public}"), json!({ "name": "mine" })),
        node.delete(&format!("/v1/spaces/{public}")),
        node.put(&format!("/v1/spaces/{public}/members/me"), json!({ "role": "owner" })),
    ] {
        faults.refused("a public space without joining", call.by(bob), 403, "forbidden").await;
    }
    // A member is no owner.
    node.invite(ada, space, bob).await;
    for call in [
        node.patch(&message, json!({ "body": "mine" })),
        node.delete(&message),
        node.delete(&format!("/v1/spaces/{space}/messages?since=2000-01-01")),
        node.patch(&format!("/v1/spaces/{space}"), json!({ "name": "mine" })),
        node.delete(&format!("/v1/spaces/{space}")),
        node.put(&format!("/v1/spaces/{space}/members/me"), json!({ "role": "owner" })),
        node.put(&format!("/v1/spaces/{space}/members/{}", ada.id), json!({ "role": "guest" })),
        node.delete(&format!("/v1/spaces/{space}/members/{}", ada.id)),
        node.post(&format!("/v1/spaces/{space}/invitations"), json!({ "link": true, "role": "admin" })),
    ] {
        faults.refused("a member as an owner", call.by(bob), 403, "forbidden").await;
    }
    for (what, wish) in [
        ("a wrong password", json!({ "email": ada.email, "password": "not this one" })),
        ("nobody's address", json!({ "email": "nobody@example.org", "password": "not this one" })),
    ] {
        faults.refused(what, node.post("/v1/sessions", wish), 401, "unauthorized").await;
    }
    let taken = json!({ "email": ada.email.to_uppercase(), "password": "another one", "name": "Eve" });
    faults.refused("a taken address", node.post("/v1/accounts", taken), 409, "conflict").await;
    faults
        .refused(
            "the last owner leaves",
            node.delete(&format!("/v1/spaces/{space}/members/me")).by(ada),
            409,
            "last_owner",
        )
        .await;
    faults.are_none();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_parameters_headers_methods_and_paths_are_refused() {
    let cluster = Cluster::start(&["fra"]).await;
    let node = cluster.client(0);
    let world = World::make(&node, &cluster.key()).await;
    let operations = samples::operations(&world).await;
    let mut faults = Faults::default();
    queries(&world, &mut faults).await;
    headers(&world, &operations, &mut faults).await;

    let paths: std::collections::BTreeSet<&str> =
        operations.iter().map(|operation| &*operation.path).collect();
    for path in paths {
        let of_path: Vec<&Operation> = operations.iter().filter(|operation| operation.path == path).collect();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "BREW"] {
            if of_path.iter().all(|operation| operation.method.as_str() != method) {
                let method = Method::from_bytes(method.as_bytes()).expect("a method");
                let what = format!("{method} {path}");
                let filled = of_path[0].filled(|_, sample| sample.to_owned());
                let call = node.call(method, &filled).by(&world.ada);
                faults.refused(&what, call, 405, "method_not_allowed").await;
            }
        }
    }
    let long = format!("/v1/{}", "x/".repeat(2000));
    for path in [
        "/v1",
        "/v1/",
        "/v1/nothing",
        "/v2/spaces",
        "/v1/spaces/",
        "//v1/node",
        "/%00",
        "/%ff",
        "/v1/node/x",
        "/etc/passwd",
        &long,
    ] {
        for method in [Method::GET, Method::POST] {
            let what = format!("{method} {path:.30}");
            faults.refused(&what, node.call(method, path).by(&world.ada), 404, "not_found").await;
        }
    }
    faults.are_none();
}

async fn queries(world: &World, faults: &mut Faults) {
    let (node, ada, space) = (&world.node, &world.ada, &world.space);
    let lists = [
        "/v1/spaces?".to_owned(),
        format!("/v1/spaces/{space}/messages?"),
        format!("/v1/spaces/{space}/members?"),
    ];
    for list in &lists {
        for limit in ["0", "201", "-1", "x", "1.5", "", "99999999999999999999", "%ff"] {
            let path = format!("{list}limit={limit}");
            faults.refused(&path, node.get(&path).by(ada), 400, "invalid_query").await;
        }
        for cursor in ["nonsense", "", "%00", &"A".repeat(4000)] {
            let path = format!("{list}cursor={cursor}");
            faults.refused(&format!("{path:.90}"), node.get(&path).by(ada), 400, "invalid_cursor").await;
        }
    }
    let history = &lists[1];
    for (query, code) in [
        ("since=yesterday", "invalid_query"),
        ("until=2024-13-01", "invalid_query"),
        ("since=", "invalid_query"),
        ("since=2024-02-30T00:00:00Z", "invalid_query"),
        ("order=sideways", "invalid_query"),
        ("order=asc&order=desc", "invalid_query"),
    ] {
        faults.refused(query, node.get(&format!("{history}{query}")).by(ada), 400, code).await;
    }
    for path in [
        "/v1/spaces?visibility=private",
        "/v1/spaces?visibility=x",
        "/v1/accounts",
        "/v1/events?poll=x",
        "/v1/events?poll=-1",
        "/v1/events?poll=0&spaces=nonsense",
    ] {
        faults.refused(path, node.get(path).by(ada), 400, "invalid_query").await;
    }
    faults
        .refused("a bad cursor", node.get("/v1/events?poll=0&cursor=nonsense").by(ada), 400, "invalid_cursor")
        .await;
    for query in ["", "?mode=", "?mode=destroy"] {
        faults
            .refused("closing", node.delete(&format!("/v1/accounts/me{query}")).by(ada), 400, "invalid_query")
            .await;
    }
    for query in ["", "?since=x", "?until=2024-01-01", "?since=2024-01-01&until=x"] {
        let call = node.delete(&format!("/v1/spaces/{space}/messages{query}")).by(ada);
        faults.refused("deleting a range", call, 400, "invalid_query").await;
    }
}

async fn headers(world: &World, operations: &[Operation], faults: &mut Faults) {
    let long = "x".repeat(256);
    for operation in operations.iter().filter(|operation| operation.method == Method::GET) {
        for bad in ["nonsense", "", "AQ", "!"] {
            let call = operation.call(&world.node).header("mychat-after", bad);
            faults.refused(&format!("{} after {bad:?}", operation.name()), call, 400, "invalid_cursor").await;
        }
    }
    let path = format!("/v1/spaces/{}/messages", world.space);
    let post = || world.node.post(&path, json!({ "body": "x" })).by(&world.ada);
    for bad in ["regions=0", "regions=x", "regions=-1", "regions=1000000", "everywhere", ""] {
        faults
            .refused(
                &format!("durability {bad:?}"),
                post().header("mychat-durability", bad),
                400,
                "invalid_header",
            )
            .await;
    }
    for bad in ["", &long, "ü"] {
        faults
            .refused(&format!("key {bad:.5?}"), post().header("idempotency-key", bad), 400, "invalid_header")
            .await;
    }
    // Nobody is near enough for that.
    faults
        .refused("one other region", post().header("mychat-durability", "regions=1"), 503, "unavailable")
        .await;
    let events = world.node.get("/v1/events").by(&world.ada).header("last-event-id", "nonsense");
    faults.refused("a bad Last-Event-ID", events, 400, "invalid_cursor").await;
}

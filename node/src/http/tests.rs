//! What holds for every call, and above all for those that are malformed.

use axum::{
    body::Body,
    http::{Method, Request, header},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use mychat_replication::{
    cluster::ClusterKey,
    log::{SiteId, Value, Version, VersionVector},
    store::StoreError,
};
use serde_json::json;

use crate::{
    events::Cursor,
    testing::{PASSWORD, TestNode},
};

const NOBODY: &str = "01900000-0000-7000-8000-000000000000";

/// Every call that takes a JSON body, with a sound one.
fn calls_with_bodies() -> Vec<(Method, String, serde_json::Value)> {
    let message = format!("/v1/spaces/{NOBODY}/messages");
    vec![
        (Method::POST, "/v1/accounts".into(), json!({ "email": "a@b", "password": PASSWORD, "name": "A" })),
        (Method::POST, "/v1/sessions".into(), json!({ "email": "a@b", "password": PASSWORD })),
        (Method::POST, "/v1/sessions/refresh".into(), json!({ "refresh_token": "x" })),
        (Method::PATCH, "/v1/accounts/me".into(), json!({ "name": "A" })),
        (Method::PUT, "/v1/accounts/me/preferences".into(), json!({})),
        (Method::POST, "/v1/spaces".into(), json!({ "name": "A" })),
        (Method::POST, "/v1/spaces/direct".into(), json!({ "accounts": [NOBODY] })),
        (Method::PATCH, format!("/v1/spaces/{NOBODY}"), json!({ "name": "A" })),
        (Method::PUT, format!("/v1/spaces/{NOBODY}/members/{NOBODY}"), json!({ "role": "member" })),
        (Method::POST, format!("/v1/spaces/{NOBODY}/invitations"), json!({ "account": NOBODY })),
        (Method::POST, message.clone(), json!({ "body": "hello" })),
        (Method::PATCH, format!("{message}/{NOBODY}"), json!({ "body": "hello" })),
        (Method::PUT, format!("/v1/spaces/{NOBODY}/read"), json!({ "message": NOBODY })),
    ]
}

fn request(
    method: &Method,
    path: &str,
    token: &str,
    kind: Option<&str>,
    body: impl Into<Body>,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    if let Some(kind) = kind {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    request.body(body.into()).expect("a request")
}

#[tokio::test]
async fn a_body_that_is_no_json_object_of_the_right_types_is_a_bad_request() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 9] = [
        b"",
        b"{",
        b"null",
        b"[1]",
        b"\"text\"",
        b"\xff\xfe{}",
        b"{\"a\":\"\xc3\x28\"}",
        b"\0",
        deep.as_bytes(),
    ];
    for (method, path, sound) in calls_with_bodies() {
        for body in bodies {
            for kind in [Some("application/json"), None] {
                let answer = node.send(request(&method, &path, &ada.token, kind, body.to_vec())).await;
                assert!((400..500).contains(&answer.status.as_u16()), "{method} {path}: {}", answer.text);
                if answer.status != 404 {
                    answer.is_problem(400, "invalid_body");
                }
            }
        }
        // Each field in turn with a type that it can't have.
        for field in sound.as_object().expect("an object").keys() {
            let mut wrong = sound.clone();
            wrong[field] = json!({ "nested": [true] });
            let body = wrong.to_string();
            let answer = node.send(request(&method, &path, &ada.token, Some("application/json"), body)).await;
            assert!((400..500).contains(&answer.status.as_u16()), "{method} {path} {field}: {}", answer.text);
        }
        let answer =
            node.send(request(&method, &path, &ada.token, Some("text/plain"), sound.to_string())).await;
        answer.is_problem(415, "unsupported_media_type");
    }
}

#[tokio::test]
async fn a_megabyte_of_text_is_too_large_and_not_a_broken_connection() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let space = node.post("/v1/spaces", &ada.token, json!({ "name": "Here" })).await.expect(201);
    let text = "x".repeat(1 << 20);
    for (method, path, sound) in calls_with_bodies() {
        let mut large = sound;
        for value in large.as_object_mut().expect("an object").values_mut() {
            *value = json!(text);
        }
        large["more"] = json!(text);
        let body = large.to_string();
        node.send(request(&method, &path, &ada.token, None, body)).await.is_problem(413, "too_large");
    }
    let path = format!("/v1/spaces/{}/messages", space["id"].as_str().expect("an id"));
    let wish = json!({ "body": "x".repeat(16_385) });
    node.post(&path, &ada.token, wish).await.is_problem(413, "too_large");
    // With a key the body is hashed as well: the same bound.
    let call = request(&Method::POST, &path, &ada.token, None, json!({ "body": text }).to_string());
    let (mut head, body) = call.into_parts();
    head.headers.insert("idempotency-key", "k".parse().expect("a header"));
    node.send(Request::from_parts(head, body)).await.is_problem(413, "too_large");
}

#[tokio::test]
async fn no_expired_forged_or_foreign_token_gets_in_anywhere() {
    let cluster = ClusterKey::generate();
    let node = TestNode::of(&cluster);
    let ada = node.sign_up("Ada").await;
    let claims = ada.token.split('.').nth(1).expect("claims");
    let head = ada.token.split('.').next().expect("a head");
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    let hs256 = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let other = TestNode::start();
    let eve = other.sign_up("Eve").await;
    let mut tokens = vec![
        String::new(),
        "x".into(),
        "ä".into(),
        format!("{head}.{claims}."),
        format!("{none}.{claims}."),
        format!("{hs256}.{claims}.AAAA"),
        eve.token,
        ada.refresh.clone(),
        crate::admin::Operator::token(&cluster),
        format!("{}x", ada.token),
        "a".repeat(100_000),
    ];
    // The signature of one token under the claims of another.
    let bob = node.sign_up("Bob").await;
    let signature = bob.token.rsplit('.').next().expect("a signature");
    tokens.push(format!("{head}.{claims}.{signature}"));
    let closed = [
        (Method::GET, "/v1/accounts/me"),
        (Method::GET, "/v1/accounts?handle=ada"),
        (Method::GET, "/v1/sessions"),
        (Method::DELETE, "/v1/sessions/current"),
        (Method::DELETE, "/v1/accounts/me?mode=erase"),
        (Method::GET, "/v1/accounts/me/export"),
        (Method::GET, "/v1/accounts/me/preferences"),
        (Method::GET, "/v1/spaces"),
        (Method::POST, "/v1/admin/import"),
    ];
    for (method, path) in closed {
        node.call(method.clone(), path, None, None).await.is_problem(401, "unauthorized");
        for token in &tokens {
            if path.contains("admin") && token.len() > 100 && *token == tokens[8] {
                continue;
            }
            let answer = node.send(request(&method, path, token, None, Body::empty())).await;
            answer.is_problem(401, "unauthorized");
            assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Bearer");
        }
        let basic = node.call_with(method, path, None, None, &[("authorization", "Basic YTpi")]).await;
        basic.is_problem(401, "unauthorized");
    }
    node.get("/v1/accounts/me", &ada.token).await.expect(200);
}

#[tokio::test]
async fn unknown_paths_methods_and_ids_are_problems_too() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    for path in
        ["/nothing", "/v1", "/v1/accounts/", "/v1/nothing/x", "/assets/../Cargo.toml", "/assets/nothing.js"]
    {
        node.get(path, &ada.token).await.is_problem(404, "not_found");
    }
    for id in [NOBODY, "x", "%ff", "%00", "..", "0190b6f87c0070008000000000000000", &"9".repeat(5000)] {
        node.get(&format!("/v1/accounts/{id}"), &ada.token).await.is_problem(404, "not_found");
        node.get(&format!("/v1/spaces/{id}"), &ada.token).await.is_problem(404, "not_found");
        node.get(&format!("/v1/spaces/{id}/messages/{id}"), &ada.token).await.is_problem(404, "not_found");
    }
    for (method, path) in
        [(Method::PUT, "/v1/accounts"), (Method::POST, "/livez"), (Method::DELETE, "/v1/spaces")]
    {
        let answer = node.call(method, path, Some(&ada.token), None).await;
        answer.is_problem(405, "method_not_allowed");
        assert!(answer.headers.contains_key(header::ALLOW));
    }
}

#[tokio::test]
async fn a_key_repeats_the_first_answer_for_its_account_and_call_only() {
    let node = TestNode::start();
    let (ada, bob) = (node.sign_up("Ada").await, node.sign_up("Bob").await);
    let make = async |token: &str, key: &str, name: &str| {
        let wish = json!({ "name": name });
        node.call_with(Method::POST, "/v1/spaces", Some(token), Some(wish), &[("idempotency-key", key)]).await
    };
    let first = make(&ada.token, "k", "One").await.expect(201);
    let again = make(&ada.token, "k", "One").await;
    assert!(again.headers.contains_key("mychat-cursor"));
    assert_eq!(again.expect(201), first);
    make(&ada.token, "k", "Two").await.is_problem(409, "idempotency_conflict");
    assert_ne!(make(&ada.token, "k2", "One").await.expect(201)["id"], first["id"]);
    assert_ne!(make(&bob.token, "k", "One").await.expect(201)["id"], first["id"]);
    make(&ada.token, &"k".repeat(256), "One").await.is_problem(400, "invalid_header");
    // A refused call leaves the key free.
    make(&ada.token, "k3", "").await.is_problem(400, "invalid_body");
    make(&ada.token, "k3", "Three").await.expect(201);
}

#[tokio::test]
async fn a_write_says_what_its_readers_need_and_a_read_can_wait_for_it() {
    let cluster = ClusterKey::generate();
    let (one, two) = (TestNode::of(&cluster), TestNode::of(&cluster));
    let ada = one.sign_up("Ada").await;
    one.copy_to(&two).await;
    let rename = json!({ "name": "Countess" });
    let answer = one.call(Method::PATCH, "/v1/accounts/me", Some(&ada.token), Some(rename)).await;
    let cursor = answer.headers["mychat-cursor"].to_str().expect("a cursor").to_owned();
    let read = async |node: &TestNode, cursor: &str| {
        node.call_with(Method::GET, "/v1/accounts/me", Some(&ada.token), None, &[("mychat-after", cursor)])
            .await
    };
    assert!(!read(&one, &cursor).await.headers.contains_key("mychat-behind"));
    // The read is under way when the rows arrive.
    let (answer, ()) = tokio::join!(read(&two, &cursor), one.copy_to(&two));
    assert!(!answer.headers.contains_key("mychat-behind"));
    assert_eq!(answer.expect(200)["name"], "Countess");

    let nowhere: VersionVector = [(SiteId([7; 16]), Version(1))].into_iter().collect();
    let answer = read(&two, &Cursor::from(&nowhere).to_string()).await;
    assert_eq!(answer.headers["mychat-behind"], "true");
    answer.expect(200);
    let answer = read(&two, &crate::events::tests::cursor_of_elsewhere()).await;
    assert_eq!(answer.headers["mychat-behind"], "true");
    for malformed in ["", "x", "AAAA"] {
        read(&two, malformed).await.is_problem(400, "invalid_cursor");
    }
}

#[tokio::test]
async fn answers_kept_for_idempotency_are_erased_after_a_day() {
    const DAY: i64 = 24 * 3600 * 1000;
    let node = TestNode::start();
    let store = &node.app.store;
    for hundred in 0..15u32 {
        let written = store.write(move |batch| {
            for number in 100 * hundred..100 * (hundred + 1) {
                let key = vec![number.to_be_bytes().into(), Value::Integer((number % 300).into())];
                batch.insert("idempotency", key, vec![1, 2, 3]);
            }
            Ok::<_, StoreError>(())
        });
        written.await.expect("written");
    }
    let run = super::expiry::erase(store, 290 * DAY as u64 + 5).await.expect("erased");
    assert_eq!(run.erased, 5 * 289, "all but those of today and yesterday, and after");
    assert_eq!(run.looked_at, 1500, "each once");
    let kept = store.read(|db| {
        let sql = "SELECT min(day) FROM idempotency WHERE data IS NOT NULL";
        Ok::<_, StoreError>(db.query_row(sql, [], |row| row.get::<_, i64>(0))?)
    });
    assert_eq!(kept.await.expect("read"), 289);
    let again = super::expiry::erase(store, 290 * DAY as u64).await.expect("nothing to do");
    assert_eq!((again.erased, again.looked_at), (0, 1500));
    let plan = store.read(|db| {
        let sql = format!("EXPLAIN QUERY PLAN {}", super::expiry::NEXT);
        Ok::<_, StoreError>(db.query_row(&sql, ([0u8; 1], 0, 0, 1), |row| row.get::<_, String>(3))?)
    });
    let plan = plan.await.expect("a plan");
    assert!(plan.starts_with("SEARCH"), "a piece begins where the last one has ended: {plan}");
}

#[tokio::test]
async fn durability_is_local_or_as_many_regions_as_are_there() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let make = async |durability: &str| {
        let headers = [("mychat-durability", durability)];
        node.call_with(Method::POST, "/v1/spaces", Some(&ada.token), Some(json!({ "name": "A" })), &headers)
            .await
    };
    make("local").await.expect(201);
    // Alone: the write stands, and the answer says where.
    let answer = make("regions=1").await;
    answer.is_problem(503, "unavailable");
    assert!(answer.text.contains("pending"), "{}", answer.text);
    assert_eq!(answer.headers["mychat-durable-regions"], "fra");
    assert!(answer.headers.contains_key("mychat-cursor"));
    let spaces = async || {
        let list = node.get("/v1/spaces", &ada.token).await.expect(200);
        list["items"].as_array().map(Vec::len)
    };
    assert_eq!(spaces().await, Some(2));
    for malformed in [
        "",
        "regions",
        "regions=",
        "regions=0",
        "regions=x",
        "regions=+1",
        "regions=1.5",
        "regions=65",
        "regions=99999999999999999999",
        "regions = 1",
        "Local",
        "local, regions=1",
        "global",
    ] {
        let answer = make(malformed).await;
        answer.is_problem(400, "invalid_header");
        assert!(answer.text.contains("regions=N with N from 1 to 64"), "{}", answer.text);
    }
    assert_eq!(spaces().await, Some(2), "nothing was written for those");
}

#[tokio::test]
async fn a_node_tells_about_itself() {
    let node = TestNode::start();
    node.sign_up("Ada").await;
    let call = async |path: &str| node.call(Method::GET, path, None, None).await;
    assert_eq!(call("/livez").await.status, 200);
    assert_eq!(call("/readyz").await.status, 200);
    let info = call("/v1/node").await.expect(200);
    assert_eq!((&info["region"], &info["url"]), (&json!("fra"), &json!("http://127.0.0.1:8081")));
    assert_eq!(info["id"], json!(node.app.node().to_string()));
    assert_eq!(
        info["heads"][node.app.store.site().to_string()],
        node.app.store.vector().get(node.app.store.site()).0
    );
    assert_eq!((&info["peers"], &info["streams"]["open"]), (&json!([]), &json!(0)));
    let keys = call("/.well-known/jwks.json").await.expect(200);
    assert_eq!((&keys["keys"][0]["kty"], &keys["keys"][0]["alg"]), (&json!("OKP"), &json!("EdDSA")));
    assert!(keys["keys"][0].get("d").is_none());
    assert_eq!(call("/v1/sso").await.expect(200)["items"], json!([]));

    node.app.condition.drain();
    call("/readyz").await.is_problem(503, "unavailable");
    assert_eq!(call("/livez").await.status, 200);
}

#[tokio::test]
async fn the_document_describes_every_route() {
    let node = TestNode::start();
    let document = node.call(Method::GET, "/v1/openapi.json", None, None).await.expect(200);
    for (method, path, _) in calls_with_bodies() {
        let known = document["paths"].as_object().expect("paths").iter().any(|(known, methods)| {
            let same = known.split('/').count() == path.split('/').count()
                && known.split('/').zip(path.split('/')).all(|(a, b)| a.starts_with('{') || a == b);
            same && methods.get(method.as_str().to_lowercase()).is_some()
        });
        assert!(known, "{method} {path}");
    }
    assert!(document["components"]["schemas"]["Account"].is_object());
    let mut left = vec![&document];
    while let Some(value) = left.pop() {
        if let Some(reference) = value.get("$ref").and_then(|reference| reference.as_str()) {
            let at = reference.strip_prefix('#').expect("a reference within the document");
            assert!(document.pointer(at).is_some(), "nothing is at {reference}");
        }
        left.extend(value.as_object().into_iter().flat_map(|fields| fields.values()));
        left.extend(value.as_array().into_iter().flatten());
    }
}

#[tokio::test]
async fn the_web_client_is_served_under_a_strict_policy_and_kept_by_browsers() {
    let node = TestNode::start();
    let page = node.call(Method::GET, "/", None, None).await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("<!doctype html") || page.text.contains("<!DOCTYPE html"));
    let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().expect("a policy");
    assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"));
    assert_eq!(page.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let script = node.call(Method::GET, "/assets/app.js", None, None).await;
    assert_eq!(script.headers[header::CONTENT_TYPE], "text/javascript");
    let tag = script.headers[header::ETAG].to_str().expect("a tag");
    let again = node.call_with(Method::GET, "/assets/app.js", None, None, &[("if-none-match", tag)]).await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));
    for outside in ["/assets/../index.html", "/assets/%2e%2e/index.html", "/assets/index.html", "/index.html"]
    {
        node.call(Method::GET, outside, None, None).await.is_problem(404, "not_found");
    }
}

#[tokio::test]
async fn while_the_node_gets_another_database_only_what_it_says_of_itself_is_answered() {
    use mychat_replication::snapshot::{SyncState, SyncStatus};
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let from = Some(node.app.node());
    node.app.condition.set_ready(false);
    node.app.condition.set_sync(SyncStatus { state: SyncState::CatchingUp, percent: Some(12.5), from });
    node.get("/readyz", &ada.token).await.expect(503);
    node.get("/v1/accounts/me", &ada.token).await.expect(200);
    node.app.condition.set_sync(SyncStatus { state: SyncState::Snapshot, percent: Some(47.1), from });
    for path in ["/readyz", "/v1/accounts/me", "/v1/events", "/v1/spaces"] {
        let refused = node.get(path, &ada.token).await.expect(503);
        assert_eq!(refused["code"], "unavailable", "{path}");
        assert!(refused["detail"].as_str().is_some_and(|detail| detail.contains("47 %")), "{refused}");
    }
    let said = node.get("/v1/node", &ada.token).await.expect(200);
    assert_eq!(
        said["sync"],
        json!({ "state": "snapshot", "percent": 47.1, "from": node.app.node().to_string() })
    );
    for path in ["/livez", "/", "/metrics"] {
        assert_eq!(node.get(path, &ada.token).await.status, 200, "{path}");
    }
    node.app.condition.set_sync(SyncStatus::default());
    node.app.condition.set_ready(true);
    node.get("/v1/accounts/me", &ada.token).await.expect(200);
    node.get("/readyz", &ada.token).await;
}

//! Accounts and sessions, as clients use them.

use axum::http::{Method, header};
use mychat_replication::cluster::ClusterKey;
use serde_json::{Value, json};

use crate::{
    ids::AccountId,
    testing::{PASSWORD, TestNode},
};

fn credentials(email: &str, password: &str) -> Value {
    json!({ "email": email, "password": password })
}

#[tokio::test]
async fn who_signs_up_is_signed_in_and_can_sign_in_again() {
    let node = TestNode::start();
    let wish =
        json!({ "email": " Ada@Example.org ", "password": PASSWORD, "name": "Ada Lovelace", "extra": 1 });
    let answer = node.call(Method::POST, "/v1/accounts", None, Some(wish)).await;
    assert!(answer.headers.contains_key("mychat-cursor"));
    let body = answer.expect(201);
    let fields: Vec<&str> =
        body["account"].as_object().expect("an account").keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        ["active", "address", "avatar", "created_at", "email", "handle", "id", "name", "phone"]
    );
    assert_eq!(body["account"]["email"], "ada@example.org");
    assert_eq!(body["account"]["handle"], "ada-lovelace");
    assert_eq!(body["account"]["active"], true);
    assert_eq!(body["expires_in"], 600);
    let me = node.get("/v1/accounts/me", body["token"].as_str().expect("a token")).await.expect(200);
    assert_eq!(me, body["account"]);

    let again = node
        .call(Method::POST, "/v1/sessions", None, Some(credentials("ADA@example.org", PASSWORD)))
        .await
        .expect(201);
    assert_eq!(again["account"], body["account"]);
    for (email, password) in [("ada@example.org", "wrong horse"), ("nobody@example.org", PASSWORD)] {
        let answer = node.call(Method::POST, "/v1/sessions", None, Some(credentials(email, password))).await;
        answer.is_problem(401, "unauthorized");
    }
    let taken = json!({ "email": "ADA@EXAMPLE.ORG", "password": PASSWORD, "name": "Another" });
    node.call(Method::POST, "/v1/accounts", None, Some(taken)).await.is_problem(409, "conflict");
}

#[tokio::test]
async fn guessing_is_slowed_down_for_the_address_that_is_guessed() {
    let node = TestNode::start();
    let (ada, bob) = (node.sign_up("Ada").await, node.sign_up("Bob").await);
    let guess = async |email: &str, password: &str| {
        node.call(Method::POST, "/v1/sessions", None, Some(credentials(email, password))).await
    };
    for _ in 0..10 {
        guess(&ada.email, "wrong horse").await.is_problem(401, "unauthorized");
    }
    let answer = guess(&ada.email, PASSWORD).await;
    answer.is_problem(429, "rate_limited");
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    for _ in 0..20 {
        guess(&bob.email, PASSWORD).await.expect(201);
    }
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_a_spent_one_ends_the_session() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let refresh = async |token: &Value| {
        let wish = json!({ "refresh_token": token });
        node.call(Method::POST, "/v1/sessions/refresh", None, Some(wish)).await
    };
    let first = json!(ada.refresh);
    let second = refresh(&first).await.expect(200);
    assert_eq!(second["expires_in"], 600);
    let third = refresh(&second["refresh_token"]).await.expect(200);
    let token = third["token"].as_str().expect("a token");
    node.get("/v1/accounts/me", token).await.expect(200);

    refresh(&second["refresh_token"]).await.is_problem(401, "unauthorized");
    refresh(&third["refresh_token"]).await.is_problem(401, "unauthorized");
    node.get("/v1/accounts/me", token).await.is_problem(401, "unauthorized");
    for forged in [json!(""), json!("AAAA"), json!(ada.token)] {
        refresh(&forged).await.is_problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn a_session_goes_on_at_another_node_and_ends_on_both() {
    let cluster = ClusterKey::generate();
    let (one, two) = (TestNode::of(&cluster), TestNode::of(&cluster));
    let ada = one.sign_up("Ada").await;
    // The second node has not heard of her: it says so instead of calling her token false.
    two.get("/v1/accounts/me", &ada.token).await.is_problem(503, "unavailable");
    one.copy_to(&two).await;
    two.get("/v1/accounts/me", &ada.token).await.expect(200);

    let wish = json!({ "refresh_token": ada.refresh });
    let next = two.call(Method::POST, "/v1/sessions/refresh", None, Some(wish.clone())).await.expect(200);
    two.copy_to(&one).await;
    // Spent at the second node, shown at the first.
    one.call(Method::POST, "/v1/sessions/refresh", None, Some(wish)).await.is_problem(401, "unauthorized");
    one.copy_to(&two).await;
    let token = next["token"].as_str().expect("a token");
    two.get("/v1/accounts/me", token).await.is_problem(401, "unauthorized");
}

#[tokio::test]
async fn of_two_who_claim_one_handle_at_two_nodes_the_first_has_it_everywhere() {
    let cluster = ClusterKey::generate();
    let (one, two) = (TestNode::of(&cluster), TestNode::of(&cluster));
    let ada = one.sign_up("Ada").await;
    one.copy_to(&two).await;
    let bob = two.sign_up("Bob").await;
    two.copy_to(&one).await;
    let claim = json!({ "handle": "countess" });
    for (node, person) in [(&one, &ada), (&two, &bob)] {
        let answer =
            node.call(Method::PATCH, "/v1/accounts/me", Some(&person.token), Some(claim.clone())).await;
        assert_eq!(answer.expect(200)["handle"], "countess");
    }
    one.copy_to(&two).await;
    two.copy_to(&one).await;
    for node in [&one, &two] {
        let found = node.get("/v1/accounts?handle=@Countess", &ada.token).await.expect(200);
        assert_eq!(found["items"][0]["id"], json!(ada.id));
        assert_eq!(found["next"], Value::Null);
        assert_eq!(node.get("/v1/accounts/me", &bob.token).await.expect(200)["handle"], Value::Null);
    }
    // It is free again once its owner lets it go; then it is the other's claim that counts.
    let other = json!({ "handle": "ada" });
    one.call(Method::PATCH, "/v1/accounts/me", Some(&ada.token), Some(other)).await.expect(200);
    assert_eq!(one.get("/v1/accounts/me", &bob.token).await.expect(200)["handle"], "countess");
}

#[tokio::test]
async fn sessions_are_listed_and_ended_by_their_account_only() {
    let node = TestNode::start();
    let (ada, bob) = (node.sign_up("Ada").await, node.sign_up("Bob").await);
    let second = node
        .call_with(
            Method::POST,
            "/v1/sessions",
            None,
            Some(credentials(&ada.email, PASSWORD)),
            &[("user-agent", "phone/1.0")],
        )
        .await
        .expect(201);
    let list = node.get("/v1/sessions", &ada.token).await.expect(200);
    let items = list["items"].as_array().expect("a list");
    assert_eq!((items.len(), &list["next"]), (2, &Value::Null));
    assert_eq!((&items[0]["client"], &items[0]["current"]), (&json!("phone/1.0"), &json!(false)));
    assert_eq!((&items[1]["region"], &items[1]["current"]), (&json!("fra"), &json!(true)));
    let phone = format!("/v1/sessions/{}", items[0]["id"].as_str().expect("an id"));

    node.call(Method::DELETE, &phone, Some(&bob.token), None).await.is_problem(404, "not_found");
    node.call(Method::DELETE, "/v1/sessions/x", Some(&ada.token), None).await.is_problem(404, "not_found");
    assert_eq!(node.call(Method::DELETE, &phone, Some(&ada.token), None).await.status, 204);
    let token = second["token"].as_str().expect("a token");
    node.get("/v1/accounts/me", token).await.is_problem(401, "unauthorized");
    let answer = node.call(Method::DELETE, "/v1/sessions/current", Some(&ada.token), None).await;
    assert_eq!(answer.status, 204);
    let cookie = answer.headers[header::SET_COOKIE].to_str().expect("a cookie");
    assert!(cookie.starts_with("mychat_session=;") && cookie.contains("Max-Age=0"));
    node.get("/v1/accounts/me", &ada.token).await.is_problem(401, "unauthorized");
}

/// A session that was found good is remembered, until this node or another one says otherwise.
#[tokio::test]
async fn a_session_that_ended_elsewhere_is_refused_at_once() {
    let key = ClusterKey::generate();
    let (here, there) = (TestNode::of(&key), TestNode::of(&key));
    let (ada, bob) = (here.sign_up("Ada").await, here.sign_up("Bob").await);
    here.copy_to(&there).await;
    let good = |token: &str| {
        let caller = there.app.keys.verify_access(token).expect("a token");
        there.app.standings.is_good(caller.account, caller.session)
    };
    for person in [&ada, &bob] {
        there.get("/v1/accounts/me", &person.token).await.expect(200);
    }
    assert!(good(&ada.token) && good(&bob.token));
    here.call(Method::DELETE, "/v1/sessions/current", Some(&ada.token), None).await.expect(204);
    here.copy_to(&there).await;
    assert!(!good(&ada.token) && good(&bob.token), "the others' are remembered");
    there.get("/v1/accounts/me", &ada.token).await.is_problem(401, "unauthorized");
    // A profile that changes ends nothing, but it is looked up anew.
    there
        .call(Method::PATCH, "/v1/accounts/me", Some(&bob.token), Some(json!({ "name": "Rob" })))
        .await
        .expect(200);
    assert!(!good(&bob.token));
    there.get("/v1/accounts/me", &bob.token).await.expect(200);
    assert!(good(&bob.token));
}

#[tokio::test]
async fn the_cookie_signs_in_pages_of_the_cluster_and_no_others() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let answer = node
        .call_with(
            Method::POST,
            "/v1/sessions",
            None,
            Some(credentials(&ada.email, PASSWORD)),
            &[("mychat-client", "web")],
        )
        .await;
    let line = answer.headers[header::SET_COOKIE].to_str().expect("a cookie").to_owned();
    assert!(line.contains("HttpOnly") && line.contains("SameSite=Lax") && line.contains("Path=/"));
    assert!(!line.contains("Secure"), "plain HTTP on a loopback address");
    let cookie = line.split(';').next().expect("a cookie");
    node.call_with(Method::GET, "/v1/accounts/me", None, None, &[("cookie", cookie)]).await.expect(200);

    let rename = |origin: &'static str| {
        let headers = [("cookie", cookie), ("origin", origin), ("host", "chat.example:8081")];
        let node = &node;
        async move {
            node.call_with(Method::PATCH, "/v1/accounts/me", None, Some(json!({ "name": "A" })), &headers)
                .await
        }
    };
    rename("http://127.0.0.1:8081").await.expect(200);
    rename("http://chat.example:8081").await.expect(200);
    rename("https://evil.example").await.is_problem(403, "forbidden_origin");
    rename("null").await.is_problem(403, "forbidden_origin");
    // Another page may not even read.
    let foreign = [("cookie", cookie), ("origin", "https://evil.example")];
    let answer = node.call_with(Method::GET, "/v1/accounts/me", None, None, &foreign).await;
    assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
    let own = [("cookie", cookie), ("origin", "http://127.0.0.1:8081")];
    let answer = node.call_with(Method::GET, "/v1/accounts/me", None, None, &own).await;
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "http://127.0.0.1:8081");
    assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");

    for broken in ["mychat_session=AAAA", "mychat_session="] {
        let answer = node.call_with(Method::GET, "/v1/accounts/me", None, None, &[("cookie", broken)]).await;
        answer.is_problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn a_profile_is_changed_field_by_field_and_others_see_its_public_part() {
    let node = TestNode::start();
    let (ada, bob) = (node.sign_up("Ada").await, node.sign_up("Bob").await);
    let patch =
        async |body: Value| node.call(Method::PATCH, "/v1/accounts/me", Some(&ada.token), Some(body)).await;
    let changed = patch(json!({
        "name": "Ada King", "handle": "@Countess", "phone": "+44 20 1234", "address": "London", "avatar": "/a.png"
    }));
    let changed = changed.await.expect(200);
    assert_eq!(changed["handle"], "countess");
    assert_eq!(node.get("/v1/accounts/me", &ada.token).await.expect(200), changed);
    let changed = patch(json!({ "phone": null })).await.expect(200);
    assert_eq!((&changed["phone"], &changed["address"]), (&Value::Null, &json!("London")));

    let seen = node.get(&format!("/v1/accounts/{}", ada.id), &bob.token).await.expect(200);
    let fields: Vec<&str> = seen.as_object().expect("an account").keys().map(String::as_str).collect();
    assert_eq!(fields, ["active", "avatar", "created_at", "handle", "id", "name"]);
    let own = node.get(&format!("/v1/accounts/{}", ada.id), &ada.token).await.expect(200);
    assert_eq!(own["email"], json!(ada.email));

    patch(json!({ "handle": bob.handle })).await.is_problem(409, "conflict");
    for bad in
        [json!({ "name": null }), json!({ "name": "" }), json!({ "handle": "a b" }), json!({ "phone": 7 })]
    {
        patch(bad).await.is_problem(400, "invalid_body");
    }
    node.get("/v1/accounts", &ada.token).await.is_problem(400, "invalid_query");
    let found = node.get("/v1/accounts?handle=nobody", &ada.token).await.expect(200);
    assert_eq!(found, json!({ "items": [], "next": null }));
}

#[tokio::test]
async fn an_address_is_changed_and_the_one_before_is_free() {
    let node = TestNode::start();
    let (ada, bob) = (node.sign_up("Ada").await, node.sign_up("Bob").await);
    let patch =
        async |body: Value| node.call(Method::PATCH, "/v1/accounts/me", Some(&ada.token), Some(body)).await;
    let unchanged = patch(json!({ "email": ada.email, "name": "Ada" })).await.expect(200);
    assert_eq!(unchanged["email"], json!(ada.email));
    let new = "new-address@example.org";
    assert_eq!(patch(json!({ "email": new })).await.expect(200)["email"], json!(new));
    assert_eq!(node.get("/v1/accounts/me", &ada.token).await.expect(200)["email"], json!(new));
    let sign_in = async |email: &str| {
        node.call(Method::POST, "/v1/sessions", None, Some(credentials(email, PASSWORD))).await
    };
    sign_in(new).await.expect(201);
    sign_in(&ada.email).await.is_problem(401, "unauthorized");
    patch(json!({ "email": bob.email })).await.is_problem(409, "conflict");
    for bad in [json!({ "email": null }), json!({ "email": "nobody" }), json!({ "email": 7 })] {
        patch(bad).await.is_problem(400, "invalid_body");
    }
}

#[tokio::test]
async fn sessions_come_in_pages() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    for _ in 0..2 {
        let again = credentials(&ada.email, PASSWORD);
        node.call(Method::POST, "/v1/sessions", None, Some(again)).await.expect(201);
    }
    let all = node.get("/v1/sessions", &ada.token).await.expect(200);
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = node.get(&format!("/v1/sessions?limit=1{cursor}"), &ada.token).await.expect(200);
        paged.extend(page["items"].as_array().expect("items").clone());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!((paged.len(), json!(paged)), (3, all["items"].clone()));
    for (query, code) in
        [("limit=0", "invalid_query"), ("limit=x", "invalid_query"), ("cursor=zz", "invalid_cursor")]
    {
        node.get(&format!("/v1/sessions?{query}"), &ada.token).await.is_problem(400, code);
    }
}

#[tokio::test]
async fn preferences_have_defaults_and_are_replaced() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let path = "/v1/accounts/me/preferences";
    let defaults = node.get(path, &ada.token).await.expect(200);
    assert_eq!(defaults["notifications"]["quiet_hours"], Value::Null);
    let wish = json!({ "language": "de", "timezone": "Europe/Berlin", "notifications":
        { "email": false, "sms": true, "push": false, "quiet_hours": { "start": "22:00", "end": "07:00" }, "digest": "weekly" } });
    let put = node.call(Method::PUT, path, Some(&ada.token), Some(wish.clone())).await.expect(200);
    assert_eq!(put, wish);
    assert_eq!(node.get(path, &ada.token).await.expect(200), wish);
    let bad = json!({ "timezone": "" });
    node.call(Method::PUT, path, Some(&ada.token), Some(bad)).await.is_problem(400, "invalid_body");
    let export = node.get("/v1/accounts/me/export", &ada.token).await.expect(200);
    assert_eq!((&export["account"]["id"], &export["preferences"]), (&json!(ada.id), &wish));
}

#[tokio::test]
async fn an_export_has_what_was_written() {
    let node = TestNode::start();
    let (ada, bob) = (node.sign_up("Ada").await, node.sign_up("Bob").await);
    let space =
        node.post("/v1/spaces", &ada.token, json!({ "name": "room" })).await.expect(201)["id"].clone();
    let room = format!("/v1/spaces/{}", space.as_str().expect("an id"));
    let invitation = json!({ "account": bob.id });
    node.post(&format!("{room}/invitations"), &ada.token, invitation).await.expect(201);
    let path = format!("{room}/messages");
    // More than one piece, the first without a word of Bob's.
    for number in 0..501 {
        node.post(&path, &ada.token, json!({ "body": number.to_string() })).await.expect(201);
    }
    let said = node.post(&path, &bob.token, json!({ "body": "\"so\"" })).await.expect(201);
    let reaction = format!("{path}/{}/reactions/%F0%9F%91%8D", said["id"].as_str().expect("an id"));
    node.call(Method::PUT, &reaction, Some(&bob.token), None).await.expect(204);
    let export = node.get("/v1/accounts/me/export", &bob.token).await.expect(200);
    let bodies = |export: &Value| {
        let messages = export["messages"].as_array().expect("messages").iter();
        messages.map(|message| message["body"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(bodies(&export), ["\"so\""]);
    let reaction = json!([{ "space": space, "message": said["id"], "emoji": "👍" }]);
    assert_eq!(export["reactions"], reaction);
    assert_eq!(export["memberships"][0]["role"], "member");
    let export = node.get("/v1/accounts/me/export", &ada.token).await.expect(200);
    assert_eq!((bodies(&export).len(), &export["reactions"]), (501, &json!([])));
    // What was said in a space stays said by who has left it.
    let leave = format!("{room}/members/me");
    node.call(Method::DELETE, &leave, Some(&bob.token), None).await.expect(204);
    let export = node.get("/v1/accounts/me/export", &bob.token).await.expect(200);
    assert_eq!((&export["spaces"], bodies(&export)), (&json!([]), vec![json!("\"so\"")]));
}

#[tokio::test]
async fn a_deactivated_account_keeps_its_data_and_an_erased_one_does_not() {
    let cluster = ClusterKey::generate();
    let (one, two) = (TestNode::of(&cluster), TestNode::of(&cluster));
    let (ada, bob, eve) = (one.sign_up("Ada").await, one.sign_up("Bob").await, one.sign_up("Eve").await);
    let path = "/v1/accounts/me";
    for query in ["", "?mode=burn"] {
        let answer = one.call(Method::DELETE, &format!("{path}{query}"), Some(&ada.token), None).await;
        answer.is_problem(400, "invalid_query");
    }
    one.call(Method::DELETE, "/v1/accounts/me?mode=deactivate", Some(&ada.token), None).await.expect(202);
    one.call(Method::DELETE, "/v1/accounts/me?mode=erase", Some(&bob.token), None).await.expect(202);
    one.copy_to(&two).await;

    for node in [&one, &two] {
        for person in [&ada, &bob] {
            node.get(path, &person.token).await.is_problem(401, "unauthorized");
        }
        let see = async |id: &str| node.get(&format!("/v1/accounts/{id}"), &eve.token).await.expect(200);
        let (closed, erased) = (see(&ada.id).await, see(&bob.id).await);
        assert_eq!((&closed["name"], &closed["active"]), (&json!("Ada"), &json!(false)));
        assert_eq!(
            (&erased["name"], &erased["handle"], &erased["active"]),
            (&Value::Null, &Value::Null, &json!(false))
        );
        let sign_in = async |email: &str| {
            node.call(Method::POST, "/v1/sessions", None, Some(credentials(email, PASSWORD))).await
        };
        sign_in(&ada.email).await.is_problem(403, "account_inactive");
        sign_in(&bob.email).await.is_problem(401, "unauthorized");
        let left = node.app.store.read(|db| {
            db.query_row(
                "SELECT (SELECT count(*) FROM session WHERE data IS NOT NULL),
                        (SELECT count(*) FROM account_fact WHERE instr(data, 'bob@example.org') OR instr(data, 'Bob'))",
                [],
                |row| Ok((row.get::<_, u32>(0)?, row.get::<_, u32>(1)?)),
            )
            .map_err(crate::http::Problem::from)
        });
        assert_eq!(left.await, Ok((2, 0)), "the sessions of the two others, and nothing about Bob");
    }
    // The address is free again.
    one.sign_up("Bob").await;
}

#[tokio::test]
async fn what_arrives_of_an_account_after_its_erasure_is_not_shown_and_goes() {
    let cluster = ClusterKey::generate();
    let (one, two) = (TestNode::of(&cluster), TestNode::of(&cluster));
    let (ada, eve) = (one.sign_up("Ada").await, one.sign_up("Eve").await);
    one.copy_to(&two).await;
    let (me, late) = ("/v1/accounts/me", "late@example.org");
    one.call(Method::DELETE, "/v1/accounts/me?mode=erase", Some(&ada.token), None).await.expect(202);
    // Meanwhile at a node that has not heard of it.
    let new = json!({ "name": "Late", "email": late, "avatar": "https://late.example/a.png" });
    let key = [("idempotency-key", "k")];
    two.call_with(Method::PATCH, me, Some(&ada.token), Some(new), &key).await.expect(200);
    let preferences = json!({ "language": "la-TE" });
    two.call(Method::PUT, "/v1/accounts/me/preferences", Some(&ada.token), Some(preferences))
        .await
        .expect(200);
    two.call(Method::POST, "/v1/sessions", None, Some(credentials(late, PASSWORD))).await.expect(201);
    two.call(Method::DELETE, "/v1/accounts/me?mode=deactivate", Some(&ada.token), None).await.expect(202);
    two.copy_to(&one).await;
    one.copy_to(&two).await;
    let shown = async |node: &TestNode| {
        let account = node.get(&format!("/v1/accounts/{}", ada.id), &eve.token).await.expect(200);
        json!([account["name"], account["handle"], account["avatar"], account["active"]])
    };
    for node in [&one, &two] {
        assert_eq!(shown(node).await, json!([null, null, null, false]));
    }

    // At both, which have not heard of each other's doing.
    for node in [&one, &two] {
        assert_eq!(crate::erasure::everything(&node.app.store).await.expect("erased"), 2);
    }
    one.copy_to(&two).await;
    two.copy_to(&one).await;
    let id: AccountId = ada.id.parse().expect("an id");
    for node in [&one, &two] {
        assert_eq!(crate::erasure::everything(&node.app.store).await.expect("nothing to do"), 0);
        let left = node.app.store.read(move |db| {
            let mut left = 0;
            for (table, which) in [
                ("account_fact", "account = ?1 AND field <> 'state'"),
                ("credential", "account = ?1"),
                ("preference", "account = ?1"),
                ("session", "account = ?1"),
                ("claim", "claimant = ?1"),
            ] {
                let sql = format!("SELECT count(*) FROM {table} WHERE {which} AND data IS NOT NULL");
                left += db.query_row(&sql, [id], |row| row.get::<_, u32>(0))?;
            }
            let kept =
                "SELECT count(*) FROM idempotency WHERE instr(data, CAST('late@example.org' AS BLOB)) > 0";
            left += db.query_row(kept, [], |row| row.get::<_, u32>(0))?;
            Ok::<_, crate::http::Problem>(left)
        });
        assert_eq!(left.await, Ok(0));
        assert_eq!(shown(node).await, json!([null, null, null, false]));
        let sign_in = node.call(Method::POST, "/v1/sessions", None, Some(credentials(late, PASSWORD))).await;
        sign_in.is_problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn a_repeated_sign_up_gives_the_first_account_and_keeps_no_secret() {
    let node = TestNode::start();
    let wish = json!({ "email": "ada@example.org", "password": PASSWORD, "name": "Ada" });
    let key = [("idempotency-key", "k1")];
    let sign_up = async |wish: &Value| {
        node.call_with(Method::POST, "/v1/accounts", None, Some(wish.clone()), &key).await
    };
    let first = sign_up(&wish).await.expect(201);
    let again = sign_up(&wish).await.expect(201);
    assert_eq!(first["account"], again["account"]);
    assert_eq!(first["refresh_token"], again["refresh_token"]);
    let far = TestNode::of(&node.app.config.cluster_key);
    node.copy_to(&far).await;
    let there = far.call_with(Method::POST, "/v1/accounts", None, Some(wish.clone()), &key).await.expect(201);
    assert_eq!(first["refresh_token"], there["refresh_token"]);
    node.get("/v1/accounts/me", again["token"].as_str().expect("a token")).await.expect(200);
    let other = json!({ "email": "bob@example.org", "password": PASSWORD, "name": "Bob" });
    sign_up(&other).await.is_problem(409, "idempotency_conflict");

    let kept = node.app.store.read(|db| {
        let mut statement = db.prepare("SELECT data FROM idempotency")?;
        let rows = statement.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
        rows.collect::<Result<Vec<_>, _>>().map_err(crate::http::Problem::from)
    });
    let kept = kept.await.expect("rows");
    assert_eq!(kept.len(), 1);
    for secret in ["token", "eyJ", PASSWORD, "ada@example.org"] {
        assert!(!kept[0].windows(secret.len()).any(|bytes| bytes == secret.as_bytes()), "{secret}");
    }
}

#[tokio::test]
async fn no_row_holds_a_password() {
    let node = TestNode::start();
    node.sign_up("Ada").await;
    let hash = node.app.store.read(|db| {
        db.query_row("SELECT data FROM credential", [], |row| row.get::<_, Vec<u8>>(0))
            .map_err(crate::http::Problem::from)
    });
    let hash: String = crate::packed::decode(&hash.await.expect("a row")).expect("a hash");
    assert!(hash.starts_with("$argon2id$v=19$") && !hash.contains(PASSWORD));
}

//! Imports, as `mychat admin` makes them.

use axum::http::Method;
use mychat_replication::cluster::ClusterKey;
use serde_json::{Value, json};

use super::Operator;
use crate::testing::TestNode;

fn line(nick: &str, minute: u32, body: &str, key: &str) -> Value {
    json!({ "nick": nick, "at": format!("2006-03-05T03:{minute:02}:00Z"), "body": body, "key": key })
}

#[tokio::test]
async fn an_import_makes_speakers_and_messages_once() {
    let cluster = ClusterKey::generate();
    let (one, two) = (TestNode::of(&cluster), TestNode::of(&cluster));
    let operator = Operator::token(&cluster);
    let reader = one.sign_up("Reader").await;
    let lines = json!([
        line("zcat[1]", 1, "first", "a:1"),
        line("Wizard", 1, "second", "a:2"),
        line("wizard", 2, "third", "a:3"),
        line("wizard", 2, "third again", "a:3"),
        line("wizard", 3, "", "a:4"),
    ]);
    let wish = json!({ "space": "Ubuntu", "lines": lines });
    let report = one.post("/v1/admin/import", &operator, wish.clone()).await;
    assert!(report.headers.contains_key("mychat-cursor"));
    let report = report.expect(200);
    assert_eq!((&report["accepted"], &report["known"]), (&json!(3), &json!(1)));
    assert_eq!(report["rejected"], json!([{ "key": "a:4", "why": "the body is empty" }]));

    let space = report["space"].as_str().expect("a space");
    let history = format!("/v1/spaces/{space}/messages?since=2006-03-05T00:00:00Z&order=asc");
    let public = one.get("/v1/spaces?visibility=public", &reader.token).await.expect(200);
    assert_eq!(public["items"][0]["name"], "Ubuntu");
    let join = format!("/v1/spaces/{space}/members/me");
    one.call(Method::PUT, &join, Some(&reader.token), Some(json!({ "role": "member" }))).await;
    one.copy_to(&two).await;
    for node in [&one, &two] {
        let again = node.post("/v1/admin/import", &operator, wish.clone()).await.expect(200);
        assert_eq!(
            (&again["accepted"], &again["known"], &again["space"]),
            (&json!(0), &json!(4), &json!(space))
        );
        let spaces = node.get("/v1/spaces", &reader.token).await.expect(200);
        assert_eq!(
            (&spaces["items"][0]["name"], spaces["items"].as_array().map(Vec::len)),
            (&json!("Ubuntu"), Some(1))
        );
        let items = node.get(&history, &reader.token).await.expect(200);
        let items = items["items"].as_array().expect("a list");
        let bodies: Vec<&str> = items.iter().filter_map(|message| message["body"].as_str()).collect();
        assert_eq!(bodies, ["first", "second", "third"]);
        assert_eq!(items[2]["sent_at"], "2006-03-05T03:02:00.000Z");
        assert_eq!(items[1]["author"], items[2]["author"]);
        let author = items[1]["author"].as_str().expect("an id");
        let speaker = node.get(&format!("/v1/accounts/{author}"), &reader.token).await.expect(200);
        assert_eq!((&speaker["name"], &speaker["handle"]), (&json!("Wizard"), &json!("wizard")));
    }
}

#[tokio::test]
async fn many_lines_and_speakers_are_taken_in_one_call() {
    let cluster = ClusterKey::generate();
    let node = TestNode::of(&cluster);
    let operator = Operator::token(&cluster);
    let text = "long ".repeat(400);
    let lines: Vec<Value> =
        (0..500).map(|n| line(&format!("speaker_{}", n % 150), n % 60, &text, &format!("b:{n}"))).collect();
    let wish = json!({ "space": "Large", "lines": lines });
    let report = node.post("/v1/admin/import", &operator, wish).await.expect(200);
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(500), &json!([])));
    let accounts = node.app.store.read(|db| {
        db.query_row(
            "SELECT count(DISTINCT handle) FROM local_account WHERE imported AND name <> 'Imported history'",
            [],
            |row| row.get::<_, u32>(0),
        )
        .map_err(crate::http::Problem::from)
    });
    assert_eq!(accounts.await, Ok(150), "each with a handle of its own");
    let too_many: Vec<Value> = (0..1001).map(|n| line("a", 0, "x", &n.to_string())).collect();
    let wish = json!({ "space": "Large", "lines": too_many });
    node.post("/v1/admin/import", &operator, wish).await.is_problem(400, "invalid_body");
}

#[tokio::test]
async fn nobody_else_imports() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let wish = json!({ "space": "Ubuntu", "lines": [] });
    for token in [ada.token, Operator::token(&ClusterKey::generate())] {
        node.post("/v1/admin/import", &token, wish.clone()).await.is_problem(401, "unauthorized");
    }
    let answer = node.call(Method::POST, "/v1/admin/import", None, Some(wish)).await;
    answer.is_problem(401, "unauthorized");
}

//! Read marks and unread counts, by calls to a node.

use axum::http::Method;
use serde_json::{Value, json};

use crate::testing::{Person, TestNode};

async fn unread(node: &TestNode, space: &str, person: &Person) -> Value {
    node.get(&format!("/v1/spaces/{space}"), &person.token).await.expect(200)["unread"].clone()
}

#[tokio::test]
async fn messages_of_others_are_unread_until_they_are_read() {
    let node = TestNode::start();
    let (ada, grace) = (node.sign_up("Ada").await, node.sign_up("Grace").await);
    let space = node.post("/v1/spaces", &ada.token, json!({ "name": "room" })).await.expect(201);
    let space = space["id"].as_str().expect("an id");
    let messages = format!("/v1/spaces/{space}/messages");
    node.post(&messages, &ada.token, json!({ "body": "before anybody joined" })).await.expect(201);
    let invitation = json!({ "account": grace.id });
    node.post(&format!("/v1/spaces/{space}/invitations"), &ada.token, invitation).await.expect(201);
    assert_eq!(unread(&node, space, &grace).await, 0);
    let mut sent = Vec::new();
    for number in 0..3 {
        let message =
            node.post(&messages, &ada.token, json!({ "body": number.to_string() })).await.expect(201);
        sent.push(message["id"].clone());
    }
    node.post(&messages, &grace.token, json!({ "body": "mine" })).await.expect(201);
    assert_eq!((unread(&node, space, &ada).await, unread(&node, space, &grace).await), (json!(1), json!(3)));

    let read = format!("/v1/spaces/{space}/read");
    let mark = |message: Value| {
        node.call(Method::PUT, &read, Some(&grace.token), Some(json!({ "message": message })))
    };
    mark(sent[1].clone()).await.expect(204);
    assert_eq!(unread(&node, space, &grace).await, 1);
    mark(sent[0].clone()).await.expect(204);
    assert_eq!(unread(&node, space, &grace).await, 1, "a mark does not move back");
    node.call(
        Method::DELETE,
        &format!("{messages}/{}", sent[2].as_str().expect("an id")),
        Some(&ada.token),
        None,
    )
    .await
    .expect(204);
    assert_eq!(unread(&node, space, &grace).await, 0, "what is deleted need not be read");

    mark(json!("0190b6f8-7c00-7000-8000-000000000000")).await.is_problem(404, "not_found");
    mark(json!("nothing")).await.is_problem(400, "invalid_body");
    node.call(Method::PUT, &read, Some(&grace.token), None).await.is_problem(400, "invalid_body");
    node.call(Method::PUT, &read, None, None).await.is_problem(401, "unauthorized");
}

#[tokio::test]
async fn marks_of_two_nodes_merge_to_the_later() {
    let here = TestNode::start();
    let (ada, grace) = (here.sign_up("Ada").await, here.sign_up("Grace").await);
    let there = TestNode::of(&here.app.config.cluster_key);
    let direct =
        here.post("/v1/spaces/direct", &ada.token, json!({ "accounts": [grace.id] })).await.expect(201);
    let space = direct["id"].as_str().expect("an id");
    let mut sent = Vec::new();
    for number in 0..3 {
        let path = format!("/v1/spaces/{space}/messages");
        let message = here.post(&path, &ada.token, json!({ "body": number.to_string() })).await.expect(201);
        sent.push(message["id"].clone());
    }
    here.copy_to(&there).await;
    let read = format!("/v1/spaces/{space}/read");
    for (node, message) in [(&here, &sent[1]), (&there, &sent[0])] {
        let body = Some(json!({ "message": message }));
        node.call(Method::PUT, &read, Some(&grace.token), body).await.expect(204);
    }
    here.copy_to(&there).await;
    there.copy_to(&here).await;
    assert_eq!(
        (unread(&here, space, &grace).await, unread(&there, space, &grace).await),
        (json!(1), json!(1))
    );
}

#[tokio::test]
async fn typing_is_for_members() {
    let node = TestNode::start();
    let (ada, eve) = (node.sign_up("Ada").await, node.sign_up("Eve").await);
    let space = node.post("/v1/spaces", &ada.token, json!({ "name": "room" })).await.expect(201);
    let path = format!("/v1/spaces/{}/typing", space["id"].as_str().expect("an id"));
    node.call(Method::POST, &path, Some(&ada.token), None).await.expect(202);
    node.call(Method::POST, &path, Some(&eve.token), None).await.is_problem(404, "not_found");
}

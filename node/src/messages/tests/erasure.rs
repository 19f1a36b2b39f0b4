//! What is deleted is gone, and nothing else.

use std::sync::Arc;

use axum::http::Method;
use mychat_replication::{clock::Stamp, log::Frame, store::StoreError};
use serde_json::json;

use super::calls::{Room, bodies, id};
use crate::testing::TestNode;

#[tokio::test]
async fn an_owner_deletes_a_range_of_history() {
    let room = Room::new().await;
    for number in 0..130 {
        room.say(&room.member, json!({ "body": format!("secret {number}") })).await;
    }
    let range = |query: &str| format!("{}{query}", room.path());
    let delete = |path: String, token: String| {
        let node = &room.node;
        async move { node.call(Method::DELETE, &path, Some(&token), None).await }
    };
    let owner = room.owner.token.clone();
    delete(range("?since=2020-01-01"), room.member.token.clone()).await.is_problem(403, "forbidden");
    delete(range(""), owner.clone()).await.is_problem(400, "invalid_query");
    delete(range("?since=2020-01-01&until=2021-01-01"), owner.clone()).await.expect(200);
    assert_eq!(bodies(&room.list("?limit=200").await)[7], "secret 7");
    let deleted = delete(range("?since=2020-01-01"), owner).await.expect(200);
    assert_eq!(deleted, json!({ "deleted": 130 }));
    let page = room.list("?limit=200").await;
    assert!(page["items"].as_array().expect("items").iter().all(|item| item["deleted"] == true));
    let left: i64 = room
        .node
        .app
        .store
        .read(|db| {
            Ok::<_, StoreError>(db.query_row(
                "SELECT count(*) FROM message WHERE instr(data, CAST('secret' AS BLOB)) > 0",
                [],
                |row| row.get(0),
            )?)
        })
        .await
        .expect("a count");
    assert_eq!(left, 0);
    room.say(&room.member, json!({ "body": "a new start" })).await;
    assert_eq!(bodies(&room.list("?order=desc&limit=1").await), ["a new start"]);
}

#[tokio::test]
async fn a_range_is_deleted_once_for_an_idempotency_key_and_never_for_a_refused_call() {
    let room = Room::new().await;
    room.say(&room.member, json!({ "body": "before" })).await;
    let path = format!("{}?since=2020-01-01", room.path());
    let delete = async |headers: &[(&str, &str)]| {
        room.node.call_with(Method::DELETE, &path, Some(&room.owner.token), None, headers).await
    };
    delete(&[("mychat-durability", "regions=many")]).await.is_problem(400, "invalid_header");
    delete(&[("idempotency-key", "")]).await.is_problem(400, "invalid_header");
    let used = [("idempotency-key", "used")];
    let other = json!({ "name": "other" });
    room.node
        .call_with(Method::POST, "/v1/spaces", Some(&room.owner.token), Some(other), &used)
        .await
        .expect(201);
    delete(&used).await.is_problem(409, "idempotency_conflict");
    assert_eq!(bodies(&room.list("").await), ["before"]);

    let key = [("idempotency-key", "k")];
    assert_eq!(delete(&key).await.expect(200), json!({ "deleted": 1 }));
    room.say(&room.member, json!({ "body": "between" })).await;
    assert_eq!(delete(&key).await.expect(200), json!({ "deleted": 1 }));
    assert_eq!(bodies(&room.list("").await), ["", "between"]);
}

#[tokio::test]
async fn a_purge_spares_what_is_sent_after_it_while_the_clock_stands_still() {
    let room = Room::new().await;
    let far = TestNode::of(&room.node.app.config.cluster_key);
    far.sign_up("Eve").await;
    let store = &room.node.app.store;
    // A peer whose clock is ahead pulls this node's along, which then stands until the wall clock has come up to it.
    let site = far.app.store.site();
    let read = far.app.store.read_log(site, Default::default(), usize::MAX).await.expect("a log");
    let now = store.write(|batch| Ok::<_, StoreError>(batch.stamp())).await.expect("a stamp").value;
    let stamp = Stamp::from_millis(now.millis() + 30_000);
    let ahead = read.frames.into_iter().map(|frame| Arc::new(Frame { stamp, ..frame })).collect();
    store.apply(ahead).await.expect("applied");

    let before = room.say(&room.member, json!({ "body": "before" })).await;
    let range = format!("{}?since=2020-01-01", room.path());
    let deleted = room.node.call(Method::DELETE, &range, Some(&room.owner.token), None).await.expect(200);
    assert_eq!(deleted, json!({ "deleted": 1 }));
    let after = room.say(&room.member, json!({ "body": "after" })).await;
    assert_eq!(before["sent_at"], after["sent_at"], "the clock stands");
    assert_eq!(bodies(&room.list("").await), ["", "after"]);
    let one = format!("{}/{}", room.path(), id(&after));
    assert_eq!(room.node.get(&one, &room.owner.token).await.expect(200), after);
}

#[tokio::test]
async fn a_purge_reaches_messages_that_arrive_after_it() {
    let room = Room::new().await;
    let far = TestNode::of(&room.node.app.config.cluster_key);
    room.node.copy_to(&far).await;
    let late = far.post(&room.path(), &room.member.token, json!({ "body": "from afar" })).await.expect(201);
    let range = format!("{}?since=2020-01-01", room.path());
    room.node.call(Method::DELETE, &range, Some(&room.owner.token), None).await.expect(200);
    far.copy_to(&room.node).await;
    let shown = room.node.get(&format!("{}/{}", room.path(), id(&late)), &room.owner.token).await.expect(200);
    assert_eq!((&shown["deleted"], &shown["body"]), (&json!(true), &json!("")));
}

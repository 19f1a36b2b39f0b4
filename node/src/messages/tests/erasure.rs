//! What is deleted is gone, and nothing else.

use std::{sync::Arc, time::Duration};

use axum::http::Method;
use mychat_replication::{
    clock::Stamp,
    log::Frame,
    store::{Batch, StoreError},
};
use rusqlite::Connection;
use serde_json::json;

use super::{
    super::purge::Range,
    calls::{Room, bodies, id},
};
use crate::{
    erasure,
    ids::{AccountId, SpaceId},
    messages,
    testing::TestNode,
};

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
    assert_eq!(holding(&room.node, "secret").await, 0);
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

/// How many rows hold a text, of messages or of edits.
async fn holding(node: &TestNode, text: &'static str) -> i64 {
    let sql = "SELECT (SELECT count(*) FROM message WHERE instr(data, CAST(?1 AS BLOB)) > 0)
                 + (SELECT count(*) FROM message_revision WHERE instr(data, CAST(?1 AS BLOB)) > 0)";
    let read = move |db: &Connection| Ok::<_, StoreError>(db.query_row(sql, [text], |row| row.get(0))?);
    node.app.store.read(read).await.expect("a count")
}

/// Waits until no row holds a text.
async fn gone(node: &TestNode, text: &'static str) {
    let mut commits = node.app.store.commits();
    let gone = async {
        while holding(node, text).await > 0 {
            commits.recv().await.expect("a commit");
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the texts are gone in time");
}

/// Has the member say something so often.
async fn say_often(room: &Room, text: &'static str, count: u64) {
    let space: SpaceId = room.space.parse().expect("a space");
    let author: AccountId = room.member.id.parse().expect("an account");
    let say = move |batch: &mut Batch<'_>| {
        for number in 0..count {
            let at = Stamp::from_millis(1_600_000_000_000 + number);
            messages::import(batch, space, author, at, text.into(), number.to_string())?;
        }
        Ok::<_, StoreError>(())
    };
    room.node.app.store.write(say).await.expect("a write");
}

#[tokio::test]
async fn a_purge_goes_on_when_its_caller_leaves() {
    let room = Room::new().await;
    say_often(&room, "secret", 500).await;
    let mut commits = room.node.app.store.commits();
    let range = format!("{}?since=2020-01-01", room.path());
    let call = room.node.call(Method::DELETE, &range, Some(&room.owner.token), None);
    tokio::select! {
        _ = call => panic!("answered before anything was committed"),
        commit = commits.recv() => { commit.expect("the fact of the purge"); }
    }
    gone(&room.node, "secret").await;
}

#[tokio::test]
async fn a_purge_that_was_cut_off_by_a_stop_goes_on_after_the_start() {
    let room = Room::new().await;
    say_often(&room, "secret", 150).await;
    let range = Range {
        space: room.space.parse().expect("a space"),
        by: room.owner.id.parse().expect("an account"),
        since: 0,
        until: None,
    };
    let state = move |batch: &mut Batch<'_>| {
        range.state(batch);
        Ok::<_, StoreError>(())
    };
    room.node.app.store.write(state).await.expect("a write");
    assert_eq!(holding(&room.node, "secret").await, 150);
    tokio::spawn(erasure::run(room.node.app.clone()));
    gone(&room.node, "secret").await;
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
    // The text goes, too, at whichever node it is looked for.
    erasure::everything(&room.node.app.store).await.expect("overwritten");
    assert_eq!(holding(&room.node, "from afar").await, 0);
    room.node.copy_to(&far).await;
    assert_eq!(holding(&far, "from afar").await, 0);
}

#[tokio::test]
async fn a_kept_answer_forgets_what_is_deleted_and_still_answers() {
    let room = Room::new().await;
    let far = TestNode::of(&room.node.app.config.cluster_key);
    let key = [("idempotency-key", "k")];
    let path = room.path();
    let say = |node| {
        let wish = Some(json!({ "body": "secret" }));
        TestNode::call_with(node, Method::POST, &path, Some(&room.member.token), wish, &key)
    };
    let said = say(&room.node).await.expect(201);
    room.say(&room.member, json!({ "body": "other" })).await;
    let one = format!("{path}/{}", id(&said));
    room.node.call(Method::DELETE, &one, Some(&room.member.token), None).await.expect(204);
    room.node.copy_to(&far).await;
    // Both nodes do it, without having heard of each other.
    for node in [&room.node, &far] {
        assert_eq!(erasure::everything(&node.app.store).await.expect("blanked"), 1);
    }
    far.copy_to(&room.node).await;
    room.node.copy_to(&far).await;
    for node in [&room.node, &far] {
        let sql = "SELECT count(*) FROM idempotency WHERE instr(data, CAST('secret' AS BLOB)) > 0";
        let read = |db: &Connection| Ok::<_, StoreError>(db.query_row(sql, [], |row| row.get::<_, u32>(0))?);
        assert_eq!(node.app.store.read(read).await.expect("a count"), 0);
        assert_eq!(erasure::everything(&node.app.store).await.expect("nothing to do"), 0);
        let again = say(node).await.expect(201);
        assert_eq!(
            (&again["id"], &again["body"], &again["deleted"]),
            (&said["id"], &json!(""), &json!(true))
        );
    }
    assert_eq!(bodies(&room.list("").await), ["", "other"]);
}

#[tokio::test]
async fn a_deletion_reaches_what_arrives_after_it() {
    let room = Room::new().await;
    let far = TestNode::of(&room.node.app.config.cluster_key);
    let token = Some(room.member.token.as_str());
    let wish = json!({ "body": "first text", "client_id": "c" });
    room.node.copy_to(&far).await;
    let message = room.say(&room.member, wish.clone()).await;
    // The same once more at a node that has not heard of it, and an edit of the message that it turns out to be.
    far.post(&room.path(), &room.member.token, wish).await.expect(201);
    room.node.copy_to(&far).await;
    let path = format!("{}/{}", room.path(), id(&message));
    far.call(Method::PATCH, &path, token, Some(json!({ "body": "second text" }))).await.expect(200);
    room.node.call(Method::DELETE, &path, token, None).await.expect(204);
    far.copy_to(&room.node).await;
    assert_eq!((holding(&room.node, "first text").await, holding(&room.node, "second text").await), (1, 1));
    erasure::everything(&room.node.app.store).await.expect("overwritten");
    room.node.copy_to(&far).await;
    for node in [&room.node, &far] {
        assert_eq!((holding(node, "first text").await, holding(node, "second text").await), (0, 0));
    }
    assert_eq!(erasure::everything(&far.app.store).await.expect("nothing to do"), 0);
}

//! Messages as clients see them, through the router of a node.

use axum::http::Method;
use mychat_replication::{
    clock::Stamp,
    store::{Batch, Row, StoreError},
};
use serde_json::{Value, json};

use crate::{
    events::Event,
    ids::{AccountId, At, MessageId, SpaceId},
    messages::{self, facts::Purge, markdown::BY_WRITERS},
    packed,
    testing::{Person, TestNode},
};

/// A node with a private space of two: its owner and a member.
pub(super) struct Room {
    pub node: TestNode,
    pub space: String,
    pub owner: Person,
    pub member: Person,
}

impl Room {
    pub async fn new() -> Self {
        let node = TestNode::start();
        let (owner, member) = (node.sign_up("Ada").await, node.sign_up("Grace").await);
        let space = node.post("/v1/spaces", &owner.token, json!({ "name": "room" })).await.expect(201);
        let space = space["id"].as_str().expect("an id").to_owned();
        let invitation = json!({ "account": member.id });
        node.post(&format!("/v1/spaces/{space}/invitations"), &owner.token, invitation).await.expect(201);
        Self { node, space, owner, member }
    }

    pub fn path(&self) -> String {
        format!("/v1/spaces/{}/messages", self.space)
    }

    pub async fn say(&self, who: &Person, message: Value) -> Value {
        self.node.post(&self.path(), &who.token, message).await.expect(201)
    }

    pub async fn list(&self, query: &str) -> Value {
        self.node.get(&format!("{}{query}", self.path()), &self.owner.token).await.expect(200)
    }
}

pub(super) fn id(value: &Value) -> String {
    value["id"].as_str().expect("an id").to_owned()
}

pub(super) fn bodies(page: &Value) -> Vec<&str> {
    page["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item["body"].as_str().expect("a body"))
        .collect()
}

#[tokio::test]
async fn a_message_has_the_shape_of_the_contract() {
    let room = Room::new().await;
    let text = format!("**hi** @{}", room.member.handle);
    let sent = room.say(&room.owner, json!({ "body": text, "client_id": "c1" })).await;
    let expected = json!({
        "id": sent["id"], "space": room.space, "author": room.owner.id, "body": text,
        "html": format!("<p><strong>hi</strong> @{}</p>\n", room.member.handle),
        "sent_at": sent["sent_at"], "edited_at": null, "deleted": false, "reply_to": null, "thread": null,
        "reactions": {}, "mentions": [room.member.id], "attachments": [], "client_id": "c1",
    });
    assert_eq!(sent, expected);
    assert!(crate::timestamp::to_millis(sent["sent_at"].as_str().expect("a time")).is_some());
    let path = format!("{}/{}", room.path(), id(&sent));
    assert_eq!(room.node.get(&path, &room.member.token).await.expect(200), expected);
    assert_eq!(room.list("").await["items"], json!([expected]));
    let answer = json!({ "body": "yes", "reply_to": sent["id"], "thread": sent["id"] });
    let answer = room.say(&room.member, answer).await;
    assert_eq!((&answer["reply_to"], &answer["thread"]), (&sent["id"], &sent["id"]));
}

#[tokio::test]
async fn a_client_id_is_one_message_at_whichever_node() {
    let room = Room::new().await;
    let other = TestNode::of(&room.node.app.config.cluster_key);
    let wish = json!({ "body": "once", "client_id": "c1" });
    let first = room.say(&room.owner, wish.clone()).await;
    let again = room.say(&room.owner, json!({ "body": "twice", "client_id": "c1" })).await;
    assert_eq!(first, again);
    room.node.copy_to(&other).await;
    assert_eq!(other.post(&room.path(), &room.owner.token, wish.clone()).await.expect(201), first);
    let of_another = room.say(&room.member, wish).await;
    assert_ne!(id(&of_another), id(&first));
    assert_eq!(room.list("").await["items"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn what_is_no_message_is_refused() {
    let room = Room::new().await;
    let token = &room.owner.token;
    let unknown = "0190b6f8-7c00-7000-8000-000000000000";
    for (body, status, code) in [
        (json!({}), 400, "invalid_body"),
        (json!({ "body": 5 }), 400, "invalid_body"),
        (json!({ "body": "  \n" }), 400, "invalid_body"),
        (json!({ "body": "x".repeat(16_385) }), 413, "too_large"),
        (json!({ "body": "x".repeat(1 << 20) }), 413, "too_large"),
        (json!({ "body": "x", "client_id": "" }), 400, "invalid_body"),
        (json!({ "body": "x", "client_id": "c".repeat(129) }), 400, "invalid_body"),
        (json!({ "body": "x", "reply_to": "nothing" }), 400, "invalid_body"),
        (json!({ "body": "x", "reply_to": unknown }), 404, "not_found"),
        (json!({ "body": "x", "thread": unknown }), 404, "not_found"),
        (json!({ "body": "x", "attachments": [{}] }), 400, "unsupported"),
        (json!([]), 400, "invalid_body"),
    ] {
        room.node.post(&room.path(), token, body).await.is_problem(status, code);
    }
    room.node.call(Method::POST, &room.path(), Some(token), None).await.is_problem(400, "invalid_body");
    room.node
        .call(Method::POST, &room.path(), None, Some(json!({ "body": "x" })))
        .await
        .is_problem(401, "unauthorized");
    assert_eq!(room.list("").await, json!({ "items": [], "next": null }));
    room.say(&room.owner, json!({ "body": "x".repeat(16_384), "attachments": [], "unknown": {} })).await;
}

#[tokio::test]
async fn only_members_read_and_write() {
    let room = Room::new().await;
    let stranger = room.node.sign_up("Eve").await;
    let message = id(&room.say(&room.owner, json!({ "body": "secret" })).await);
    let one = format!("{}/{message}", room.path());
    let reaction = format!("{one}/reactions/x");
    let calls = [
        (Method::POST, room.path(), Some(json!({ "body": "hi" }))),
        (Method::GET, room.path(), None),
        (Method::DELETE, format!("{}?since=2020-01-01", room.path()), None),
        (Method::GET, one.clone(), None),
        (Method::PATCH, one.clone(), Some(json!({ "body": "hi" }))),
        (Method::DELETE, one, None),
        (Method::PUT, reaction.clone(), None),
        (Method::DELETE, reaction, None),
        (Method::PUT, format!("/v1/spaces/{}/read", room.space), Some(json!({ "message": message }))),
        (Method::POST, format!("/v1/spaces/{}/typing", room.space), None),
    ];
    for (method, path, body) in calls.clone() {
        let answer = room.node.call(method, &path, Some(&stranger.token), body).await;
        answer.is_problem(404, "not_found");
    }
    let space = format!("/v1/spaces/{}", room.space);
    let public = Some(json!({ "visibility": "public" }));
    room.node.call(Method::PATCH, &space, Some(&room.owner.token), public).await.expect(200);
    for (method, path, body) in calls {
        let answer = room.node.call(method, &path, Some(&stranger.token), body).await;
        answer.is_problem(403, "forbidden");
    }
}

#[tokio::test]
async fn history_pages_in_both_orders_and_by_time() {
    let room = Room::new().await;
    let mut sent = Vec::new();
    for number in 0..5 {
        sent.push(room.say(&room.owner, json!({ "body": number.to_string() })).await);
    }
    for (order, expected) in [("asc", ["0", "1", "2", "3", "4"]), ("desc", ["4", "3", "2", "1", "0"])] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = room.list(&format!("?limit=2&order={order}{cursor}")).await;
            assert!(bodies(&page).len() <= 2);
            seen.extend(bodies(&page).iter().map(ToString::to_string));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, expected);
    }
    assert_eq!(bodies(&room.list("?since=2020-01-01").await).len(), 5);
    assert_eq!(bodies(&room.list("?until=2020-01-01").await).len(), 0);
    assert_eq!(bodies(&room.list("?since=2100-01-01").await).len(), 0);
    let from = sent[3]["sent_at"].as_str().expect("a time");
    let since = room.list(&format!("?since={from}")).await;
    assert!(bodies(&since).contains(&"3") && bodies(&since).contains(&"4"));
    let until = room.list(&format!("?until={from}")).await;
    assert!(!bodies(&until).contains(&"3"));
    for bad in ["?limit=0", "?limit=201", "?limit=x", "?order=up", "?since=soon", "?until=", "?cursor=x"] {
        let answer = room.node.get(&format!("{}{bad}", room.path()), &room.owner.token).await;
        assert_eq!(answer.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn edits_and_deletions() {
    let room = Room::new().await;
    let (owner, member) = (Some(room.owner.token.as_str()), Some(room.member.token.as_str()));
    let message = room.say(&room.member, json!({ "body": "first" })).await;
    let path = format!("{}/{}", room.path(), id(&message));
    let call = |method, token, body| room.node.call(method, &path, token, body);
    call(Method::PATCH, owner, Some(json!({ "body": "x" }))).await.is_problem(403, "forbidden");
    call(Method::PATCH, member, Some(json!({ "body": " " }))).await.is_problem(400, "invalid_body");
    let edited = call(Method::PATCH, member, Some(json!({ "body": "*second*" }))).await.expect(200);
    assert_eq!((&edited["body"], &edited["html"]), (&json!("*second*"), &json!("<p><em>second</em></p>\n")));
    assert!(edited["edited_at"].is_string());
    assert_eq!(call(Method::GET, owner, None).await.expect(200), edited);

    let of_owner = room.say(&room.owner, json!({ "body": "the owner's" })).await;
    let foreign = format!("{}/{}", room.path(), id(&of_owner));
    room.node.call(Method::DELETE, &foreign, member, None).await.is_problem(403, "forbidden");
    call(Method::DELETE, owner, None).await.expect(204);
    call(Method::DELETE, member, None).await.expect(204);
    let tombstone = call(Method::GET, member, None).await.expect(200);
    assert_eq!(
        (&tombstone["body"], &tombstone["html"], &tombstone["deleted"], &tombstone["author"]),
        (&json!(""), &Value::Null, &json!(true), &json!(room.member.id))
    );
    call(Method::PATCH, member, Some(json!({ "body": "x" }))).await.is_problem(409, "conflict");
    assert_eq!(bodies(&room.list("").await), ["", "the owner's"]);
    for unknown in ["0190b6f8-7c00-7000-8000-000000000000", "nothing", "%ff", "..%2f"] {
        let path = format!("{}/{unknown}", room.path());
        room.node.get(&path, &room.owner.token).await.is_problem(404, "not_found");
    }
}

#[tokio::test]
async fn nothing_is_rendered_in_the_writers_turn() {
    let room = Room::new().await;
    let token = Some(room.member.token.as_str());
    let text = |number: u8| format!("*text {number} of the test of who renders*");
    let wish = json!({ "body": text(1), "client_id": "c" });
    let sent = room.say(&room.member, wish.clone()).await;
    let path = format!("{}/{}", room.path(), id(&sent));
    let patch = async |body: String| {
        room.node.call(Method::PATCH, &path, token, Some(json!({ "body": body }))).await.expect(200)
    };
    assert_eq!(patch(text(1)).await, sent);
    assert_eq!(patch(text(2)).await["html"], format!("<p><em>{}</em></p>\n", text(2).trim_matches('*')));
    assert_eq!(patch(text(2)).await["html"], format!("<p><em>{}</em></p>\n", text(2).trim_matches('*')));
    room.node.call(Method::PUT, &format!("{path}/reactions/x"), token, None).await.expect(204);
    // Sent again it is the message as it is now; what is kept for the key stays as it was answered.
    let key = [("idempotency-key", "k")];
    let again = async || {
        room.node.call_with(Method::POST, &room.path(), token, Some(wish.clone()), &key).await.expect(201)
    };
    let shown = room.node.get(&path, &room.member.token).await.expect(200);
    assert_eq!((&shown["body"], &shown["reactions"]), (&json!(text(2)), &json!({ "x": [room.member.id] })));
    assert_eq!(again().await, shown);
    patch(text(3)).await;
    assert_eq!(again().await, shown);
    let by_writers = BY_WRITERS.lock().expect("no panic");
    let rendered: Vec<_> = by_writers.iter().filter(|body| body.contains("of who renders")).collect();
    assert!(rendered.is_empty(), "{rendered:?}");
}

#[tokio::test]
async fn reactions_come_and_go() {
    let room = Room::new().await;
    let message = id(&room.say(&room.owner, json!({ "body": "hi" })).await);
    let path = |emoji: &str| format!("{}/{message}/reactions/{emoji}", room.path());
    let thumb = path("%F0%9F%91%8D");
    let put = |path: String, person: &Person| {
        let token = person.token.clone();
        let node = &room.node;
        async move { node.call(Method::PUT, &path, Some(&token), None).await }
    };
    put(thumb.clone(), &room.member).await.expect(204);
    put(thumb.clone(), &room.member).await.expect(204);
    let shown = room.list("").await;
    assert_eq!(shown["items"][0]["reactions"], json!({ "👍": [room.member.id] }));
    room.node.call(Method::DELETE, &thumb, Some(&room.member.token), None).await.expect(204);
    room.node.call(Method::DELETE, &thumb, Some(&room.member.token), None).await.expect(204);
    assert_eq!(room.list("").await["items"][0]["reactions"], json!({}));
    for bad in ["%00", "a%20b", &"x".repeat(65), "%ff"] {
        put(path(bad), &room.owner).await.is_problem(404, "not_found");
    }
    for number in 0..20 {
        put(path(&number.to_string()), &room.owner).await.expect(204);
    }
    put(path("one-too-many"), &room.owner).await.is_problem(409, "conflict");
}

#[tokio::test]
async fn what_is_noted_of_a_message_is_its_event() {
    let room = Room::new().await;
    let mut commits = room.node.app.store.commits();
    room.say(&room.member, json!({ "body": "*so*", "client_id": "once" })).await;
    let commit = commits.recv().await.expect("a commit");
    let notes: Vec<_> = commit.notes.values().filter_map(messages::event_noted).collect();
    let made = events(&room.node).await.pop().expect("an event");
    assert_eq!(format!("{notes:?}"), format!("[{made:?}]"));
    // Nothing is written, and nothing noted, when it comes again.
    room.say(&room.member, json!({ "body": "*so*", "client_id": "once" })).await;
    assert!(commits.try_recv().is_err());
}

#[tokio::test]
async fn nothing_is_noted_of_a_message_that_a_purge_covers() {
    let room = Room::new().await;
    let (space, by): (SpaceId, _) =
        (room.space.parse().expect("a space"), room.owner.id.parse().expect("an account"));
    // From a node whose clock is ahead.
    let job = move |batch: &mut Batch<'_>| {
        let at = At { stamp: Stamp::MAX, site: batch.site() };
        let purge = Purge { by, since: 0, until: u64::MAX };
        batch.insert("message_purge", vec![space.value(), at.value()], packed::encode(&purge));
        Ok::<_, StoreError>(())
    };
    room.node.app.store.write(job).await.expect("a write");
    let mut commits = room.node.app.store.commits();
    room.say(&room.member, json!({ "body": "too early" })).await;
    assert!(commits.recv().await.expect("a commit").notes.is_empty());
    let made = events(&room.node).await.pop().expect("an event");
    assert_eq!(made.data["deleted"], json!(true));
}

/// The events of everything that `node` has stated, in the order of its log.
pub(crate) async fn events(node: &TestNode) -> Vec<Event> {
    events_of(node, node).await
}

/// The events that `node` makes of everything that `origin` has stated and it holds.
pub(crate) async fn events_of(node: &TestNode, origin: &TestNode) -> Vec<Event> {
    let store = &node.app.store;
    let read = store.read_log(origin.app.store.site(), Default::default(), usize::MAX).await.expect("a log");
    let read = move |db: &rusqlite::Connection| {
        let mut events = Vec::new();
        for frame in &read.frames {
            for change in &frame.changes {
                let row = Row {
                    table: &change.table,
                    key: mychat_replication::log::key::unpack(&change.key).expect("a key"),
                    data: change.value.as_blob(),
                    site: frame.site,
                    version: frame.version,
                };
                events.extend(messages::event_of(db, &row)?);
                events.extend(crate::spaces::event_of(db, &row)?);
                events.extend(crate::notifications::event_of(db, &row)?);
            }
        }
        Ok::<_, StoreError>(events)
    };
    store.read(read).await.expect("events")
}

#[tokio::test]
async fn events_follow_what_holds() {
    let room = Room::new().await;
    let kept = room.say(&room.owner, json!({ "body": "kept" })).await;
    let gone = room.say(&room.member, json!({ "body": "gone" })).await;
    let of = |message: &Value| format!("{}/{}", room.path(), id(message));
    for body in ["overruled", "last"] {
        let change = Some(json!({ "body": body }));
        room.node.call(Method::PATCH, &of(&kept), Some(&room.owner.token), change).await.expect(200);
    }
    let reaction = format!("{}/reactions/x", of(&kept));
    room.node.call(Method::PUT, &reaction, Some(&room.member.token), None).await.expect(204);
    room.node.call(Method::DELETE, &of(&gone), Some(&room.member.token), None).await.expect(204);
    let heard: Vec<(String, Value, Value)> = events(&room.node)
        .await
        .into_iter()
        .filter(|event| event.kind.starts_with("message.") || event.kind.starts_with("reaction."))
        .map(|event| {
            assert_eq!(event.space.map(|space| space.to_string()).as_deref(), Some(room.space.as_str()));
            let id =
                if event.kind.starts_with("message.") { &event.data["id"] } else { &event.data["message"] };
            (event.kind.to_owned(), id.clone(), event.data["body"].clone())
        })
        .collect();
    let kept = &kept["id"];
    let expected = [
        ("message.created", kept, json!("last")),
        ("message.edited", kept, json!("last")),
        ("reaction.added", kept, Value::Null),
        ("message.deleted", &gone["id"], json!("")),
    ];
    assert_eq!(heard, expected.map(|(kind, id, body)| (kind.to_owned(), id.clone(), body)));
}

#[tokio::test]
async fn an_import_repeated_changes_nothing() {
    let room = Room::new().await;
    let space: SpaceId = room.space.parse().expect("an id");
    let author: AccountId = room.member.id.parse().expect("an id");
    let import = move |client_id: &'static str, minute: u64| {
        move |batch: &mut Batch<'_>| {
            let at = mychat_replication::clock::Stamp::from_millis(minute * 60_000);
            let body = format!("at {minute}");
            Ok::<_, StoreError>(messages::import(batch, space, author, at, body, client_id.into())?)
        }
    };
    let store = &room.node.app.store;
    assert!(store.write(import("line 2", 2)).await.expect("a write").value);
    assert!(store.write(import("line 1", 1)).await.expect("a write").value);
    assert!(!store.write(import("line 2", 2)).await.expect("a write").value);
    // Another node that imports the same makes the same rows.
    let other = TestNode::of(&room.node.app.config.cluster_key);
    assert!(other.app.store.write(import("line 1", 1)).await.expect("a write").value);
    other.copy_to(&room.node).await;
    let page = room.list("").await;
    assert_eq!(bodies(&page), ["at 1", "at 2"]);
    assert_eq!(page["items"][0]["sent_at"], "1970-01-01T00:01:00.000Z");
}

#[tokio::test]
async fn a_duplicate_from_another_node_is_replaced() {
    let room = Room::new().await;
    let other = TestNode::of(&room.node.app.config.cluster_key);
    room.node.copy_to(&other).await;
    let wish = json!({ "body": "same", "client_id": "c" });
    let first = room.say(&room.owner, wish.clone()).await;
    let second = other.post(&room.path(), &room.owner.token, wish).await.expect(201);
    assert_ne!(id(&first), id(&second));
    room.node.copy_to(&other).await;
    let winner: MessageId = id(&first).parse().expect("an id");
    assert!(winner < id(&second).parse().expect("an id"));
    let path = format!("{}/{}", room.path(), id(&second));
    assert_eq!(id(&other.get(&path, &room.owner.token).await.expect(200)), id(&first));
    // The node that had announced the duplicate says which message replaces it.
    let announced = events_of(&other, &room.node).await;
    let created: Vec<&Event> = announced.iter().filter(|event| event.kind == "message.created").collect();
    assert_eq!(created[0].data["replaces"], json!([id(&second)]));
    // The duplicate itself is not announced again.
    assert!(events(&other).await.iter().all(|event| event.kind != "message.created"));
}

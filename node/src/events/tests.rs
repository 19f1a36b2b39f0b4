//! Streams as clients see them, through the routers of nodes that exchange their logs by hand.

mod owners;

use std::{collections::BTreeSet, time::Duration};

use axum::{body::BodyDataStream, http::Method};
use futures_util::{StreamExt, future::join_all};
use mychat_replication::{
    NodeId,
    cluster::ClusterKey,
    log::{Retirement, Retirements, SiteId, Version, VersionVector},
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::{Value, json};

use super::{Cursor, Retired, state::Subscription};
use crate::testing::{Person, TestNode};

/// How long a test waits for an event that has to come.
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Default, PartialEq)]
struct Heard {
    id: Option<String>,
    kind: String,
    data: Value,
}

/// A reader of one stream.
struct Reader {
    body: BodyDataStream,
    text: String,
}

impl Reader {
    async fn open(node: &TestNode, who: &Person, cursor: Option<&str>) -> Self {
        let headers: Vec<(&str, &str)> = cursor.map(|cursor| ("last-event-id", cursor)).into_iter().collect();
        let response = node.stream("/v1/events", &who.token, &headers).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let mut reader = Self { body: response.into_body().into_data_stream(), text: String::new() };
        let ready = reader.next().await.expect("a first event");
        assert_eq!(ready.kind, "ready");
        assert_eq!(ready.data["node"], node.app.node().to_string());
        assert_eq!(ready.id.as_deref(), ready.data["cursor"].as_str());
        if let Some(cursor) = cursor {
            assert_eq!(ready.data["cursor"], cursor);
        }
        reader
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Heard> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let mut heard = Heard::default();
                for line in event.lines() {
                    match line.split_once(": ") {
                        Some(("id", id)) => heard.id = Some(id.to_owned()),
                        Some(("event", kind)) => heard.kind = kind.to_owned(),
                        Some(("data", data)) => heard.data = serde_json::from_str(data).expect("JSON"),
                        _ => assert!(line.starts_with("retry: "), "{line}"),
                    }
                }
                self.text = rest.to_owned();
                return Some(heard);
            }
            let piece = tokio::time::timeout(DEADLINE, self.body.next()).await.expect("an event in time")?;
            self.text.push_str(std::str::from_utf8(&piece.expect("no error")).expect("UTF-8"));
        }
    }

    /// The next event that is a message, or of this kind.
    async fn until(&mut self, kind: &str) -> Heard {
        loop {
            let heard = self.next().await.expect("the stream goes on");
            if heard.kind == kind {
                return heard;
            }
            assert_ne!(heard.kind, "goodbye", "{heard:?}");
        }
    }

    /// Messages up to the one that says `last`, with the cursors after them.
    async fn messages_until(&mut self, last: &str) -> Vec<(String, String)> {
        let mut messages = Vec::new();
        loop {
            let heard = self.until("message.created").await;
            let body = heard.data["body"].as_str().expect("a body").to_owned();
            messages.push((body.clone(), heard.id.expect("an id")));
            if body == last {
                return messages;
            }
        }
    }
}

async fn space(node: &TestNode, owner: &Person) -> String {
    let space = node.post("/v1/spaces", &owner.token, json!({ "name": "room" })).await.expect(201);
    space["id"].as_str().expect("an id").to_owned()
}

async fn say(node: &TestNode, who: &Person, space: &str, body: &str) {
    node.post(&format!("/v1/spaces/{space}/messages"), &who.token, json!({ "body": body })).await.expect(201);
}

/// Says several things at once, so that some share a version.
async fn say_at_once(node: &TestNode, who: &Person, space: &str, bodies: &[String]) {
    join_all(bodies.iter().map(|body| say(node, who, space, body))).await;
}

fn bodies(messages: &[(String, String)]) -> BTreeSet<String> {
    messages.iter().map(|(body, _)| body.clone()).collect()
}

#[tokio::test]
async fn a_member_hears_what_happens_and_others_do_not() {
    let node = TestNode::start();
    let (ada, eve) = (node.sign_up("Ada").await, node.sign_up("Eve").await);
    let room = space(&node, &ada).await;
    let mut reader = Reader::open(&node, &ada, None).await;
    let mut stranger = Reader::open(&node, &eve, None).await;
    say(&node, &ada, &room, "hello").await;
    let heard = reader.until("message.created").await;
    assert_eq!(
        (heard.data["body"].as_str(), heard.data["space"].as_str()),
        (Some("hello"), Some(room.as_str()))
    );

    let id = heard.data["id"].as_str().expect("an id");
    let path = format!("/v1/spaces/{room}/messages/{id}");
    node.call(Method::PATCH, &path, Some(&ada.token), Some(json!({ "body": "hullo" }))).await.expect(200);
    assert_eq!(reader.until("message.edited").await.data["body"], "hullo");
    node.call(Method::DELETE, &path, Some(&ada.token), None).await;
    assert_eq!(reader.until("message.deleted").await.data["id"], id);

    // The stranger has heard of nothing but what concerns it.
    let own = space(&node, &eve).await;
    let created = stranger.next().await.expect("an event");
    assert_eq!((created.kind.as_str(), created.data["id"].as_str()), ("space.created", Some(own.as_str())));
}

#[tokio::test]
async fn i5_who_joins_hears_all_that_is_said_from_then_on_and_nothing_of_before() {
    let node = TestNode::start();
    let (ada, eve) = (node.sign_up("Ada").await, node.sign_up("Eve").await);
    let mut reader = Reader::open(&node, &ada, None).await;
    for round in 0..10 {
        let room = space(&node, &eve).await;
        let said = |when: &str| (0..8).map(|n| format!("{round} {when} {n}")).collect::<Vec<_>>();
        // Nobody with a stream follows the room so far.
        say_at_once(&node, &eve, &room, &said("before")).await;
        let invitations = format!("/v1/spaces/{room}/invitations");
        node.post(&invitations, &eve.token, json!({ "account": ada.id })).await.expect(201);
        say_at_once(&node, &eve, &room, &said("after")).await;
        say(&node, &eve, &room, "last").await;
        let mut heard = bodies(&reader.messages_until("last").await);
        assert!(heard.remove("last"));
        assert_eq!(heard, said("after").into_iter().collect());
    }
}

#[tokio::test]
async fn i5_every_cursor_gives_what_is_left_and_nothing_twice() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let room = space(&node, &ada).await;
    let mut reader = Reader::open(&node, &ada, None).await;
    for round in 0..6 {
        let said: Vec<String> = (0..5).map(|n| format!("{round}.{n}")).collect();
        say_at_once(&node, &ada, &room, &said).await;
    }
    say(&node, &ada, &room, "last").await;
    let all = reader.messages_until("last").await;
    assert_eq!(all.len(), 31);
    let versions = node.app.store.vector().get(node.app.store.site()).0;
    let cursors: BTreeSet<&String> = all.iter().map(|(_, cursor)| cursor).collect();
    assert_eq!(
        cursors.len(),
        all.len(),
        "each event has a cursor of its own, also within {versions} versions"
    );
    for (at, (_, cursor)) in all.iter().enumerate().rev().skip(1) {
        let mut again = Reader::open(&node, &ada, Some(cursor)).await;
        let rest = again.messages_until("last").await;
        assert_eq!(
            rest.iter().map(|(body, _)| body).collect::<Vec<_>>(),
            all[at + 1..].iter().map(|(body, _)| body).collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn i5_a_client_that_moves_between_nodes_misses_nothing_and_hears_nothing_twice() {
    for seed in 0..12u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        let key = ClusterKey::generate();
        let nodes = [TestNode::of(&key), TestNode::of(&key), TestNode::of(&key)];
        let ada = nodes[0].sign_up("Ada").await;
        let room = space(&nodes[0], &ada).await;
        for other in &nodes[1..] {
            nodes[0].copy_to(other).await;
        }
        let mut at = 0;
        let mut reader = Reader::open(&nodes[at], &ada, None).await;
        let mut cursor = None;
        let mut heard = Vec::new();
        let mut said = BTreeSet::new();
        for round in 0..8 {
            for (number, node) in nodes.iter().enumerate() {
                let words: Vec<String> =
                    (0..rng.random_range(0..4)).map(|n| format!("{round}.{number}.{n}")).collect();
                say_at_once(node, &ada, &room, &words).await;
                said.extend(words);
            }
            // Some of the logs are exchanged, in any order.
            let mut ways: Vec<(usize, usize)> =
                (0..3).flat_map(|from| (0..3).map(move |to| (from, to))).collect();
            ways.retain(|(from, to)| from != to);
            ways.shuffle(&mut rng);
            for (from, to) in ways.into_iter().take(rng.random_range(0..4)) {
                nodes[from].copy_to(&nodes[to]).await;
            }
            // A mark, said where the client is, so that it knows when to move.
            let mark = format!("mark {round}");
            say(&nodes[at], &ada, &room, &mark).await;
            said.insert(mark.clone());
            let more = reader.messages_until(&mark).await;
            cursor = more.last().map(|(_, cursor)| cursor.clone()).or(cursor);
            heard.extend(more);
            at = rng.random_range(0..3);
            reader = Reader::open(&nodes[at], &ada, cursor.as_deref()).await;
        }
        for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 1), (1, 2)] {
            nodes[from].copy_to(&nodes[to]).await;
        }
        say(&nodes[at], &ada, &room, "end").await;
        said.insert("end".into());
        heard.extend(reader.messages_until("end").await);
        assert_eq!(bodies(&heard), said, "seed {seed}: something was missed");
        assert_eq!(heard.len(), said.len(), "seed {seed}: something was heard twice");
    }
}

#[tokio::test]
async fn i6_authorised_at_delivery_a_removed_member_hears_that_and_no_more() {
    let node = TestNode::start();
    let (ada, bob) = (node.sign_up("Ada").await, node.sign_up("Bob").await);
    let room = space(&node, &ada).await;
    let mut reader = Reader::open(&node, &bob, None).await;
    node.post(&format!("/v1/spaces/{room}/invitations"), &ada.token, json!({ "account": bob.id }))
        .await
        .expect(201);
    say(&node, &ada, &room, "welcome").await;
    assert_eq!(reader.until("message.created").await.data["body"], "welcome");
    let cursor = {
        let member = format!("/v1/spaces/{room}/members/{}", bob.id);
        node.call(Method::DELETE, &member, Some(&ada.token), None).await;
        let removed = reader.until("member.removed").await;
        assert_eq!(removed.data["account"], bob.id.as_str());
        removed.id.expect("an id")
    };
    say(&node, &ada, &room, "without bob").await;
    let own = space(&node, &bob).await;
    assert_eq!(reader.next().await.expect("an event").data["id"], own.as_str());
    // Nor by coming back with a cursor from before.
    let mut again = Reader::open(&node, &bob, Some(&cursor)).await;
    assert_eq!(again.next().await.expect("an event").data["id"], own.as_str());
}

#[tokio::test]
async fn i6_the_end_of_a_session_ends_its_streams_and_no_others() {
    let key = ClusterKey::generate();
    let (here, there) = (TestNode::of(&key), TestNode::of(&key));
    let ada = here.sign_up("Ada").await;
    here.copy_to(&there).await;
    let second = here
        .call(
            Method::POST,
            "/v1/sessions",
            None,
            Some(json!({ "email": ada.email, "password": crate::testing::PASSWORD })),
        )
        .await
        .expect(201);
    let second = Person { token: second["token"].as_str().expect("a token").to_owned(), ..ada.clone() };
    here.copy_to(&there).await;
    let (mut ended, mut stays) =
        (Reader::open(&there, &ada, None).await, Reader::open(&there, &second, None).await);
    here.call(Method::DELETE, "/v1/sessions/current", Some(&ada.token), None).await.expect(204);
    here.copy_to(&there).await;
    let goodbye = loop {
        let heard = ended.next().await.expect("a goodbye");
        if heard.kind == "goodbye" {
            break heard;
        }
    };
    assert_eq!(goodbye.data["reason"], "session_ended");
    assert_eq!(ended.next().await, None);
    let room = space(&there, &second).await;
    assert_eq!(stays.until("space.created").await.data["id"], room.as_str());
}

#[tokio::test]
async fn i6_a_session_that_ends_while_its_stream_is_opened_has_none() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let caller = node.app.keys.verify_access(&ada.token).expect("a good token");
    let subscription = Subscription {
        account: caller.account,
        session: caller.session,
        only: None,
        cursor: node.app.events.cursors().now(),
    };
    drop(node.app.events.open(subscription.clone()).await.expect("a stream"));
    // As if the call had been checked before this.
    node.call(Method::DELETE, "/v1/sessions/current", Some(&ada.token), None).await.expect(204);
    let refused = node.app.events.open(subscription).await.map(drop).expect_err("no stream");
    assert_eq!(refused.status, 401);
    assert_eq!(node.app.events.open_streams(), 0);
}

#[tokio::test]
async fn i6_the_end_of_a_session_ends_what_it_has_missed() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let room = space(&node, &ada).await;
    let before = node.app.events.cursors().write(&node.app.events.cursors().now());
    // More than leaves in one piece.
    say_at_once(&node, &ada, &room, &vec!["x".repeat(4000); 50]).await;
    let mut live = Reader::open(&node, &ada, None).await;
    let mut behind = Reader::open(&node, &ada, Some(&before)).await;
    assert_eq!(behind.next().await.expect("what it has missed").kind, "message.created");
    node.call(Method::DELETE, "/v1/sessions/current", Some(&ada.token), None).await.expect(204);
    while let Some(heard) = live.next().await {
        assert_eq!(heard.kind, "goodbye");
    }
    let mut after = 0;
    let last = loop {
        match behind.next().await.expect("a goodbye") {
            heard if heard.kind == "message.created" => after += 1,
            heard => break heard,
        }
    };
    assert_eq!((last.kind.as_str(), behind.next().await), ("goodbye", None));
    assert!(after < 40, "{after} of the messages came after the end");
}

#[tokio::test]
async fn a_stream_can_be_for_some_spaces_only() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let (one, two) = (space(&node, &ada).await, space(&node, &ada).await);
    let response = node.stream(&format!("/v1/events?spaces={two}"), &ada.token, &[]).await;
    let mut reader = Reader { body: response.into_body().into_data_stream(), text: String::new() };
    say(&node, &ada, &one, "here").await;
    say(&node, &ada, &two, "there").await;
    assert_eq!(reader.until("message.created").await.data["body"], "there");
    // Nor does it tell what the caller hears of other spaces by name: here from the log, and on the stream.
    let start = node.get(&format!("/v1/events?spaces={two}&poll=0"), &ada.token).await.expect(200);
    space(&node, &ada).await;
    say(&node, &ada, &two, "again").await;
    let cursor = start["cursor"].as_str().expect("a cursor");
    let missed = format!("/v1/events?spaces={two}&poll=0&cursor={cursor}");
    let missed = node.get(&missed, &ada.token).await.expect(200);
    let kinds: Vec<_> =
        missed["events"].as_array().expect("events").iter().map(|event| &event["event"]).collect();
    assert_eq!(kinds, ["message.created"]);
    let mut next = reader.next().await.expect("the stream goes on");
    while next.kind == "ping" {
        next = reader.next().await.expect("the stream goes on");
    }
    assert_eq!((next.kind.as_str(), &next.data["body"]), ("message.created", &json!("again")));
    node.get("/v1/events?spaces=nonsense&poll=0", &ada.token).await.is_problem(400, "invalid_query");
}

#[tokio::test]
async fn a_long_poll_gives_the_same_events_and_goes_on_from_its_cursor() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let room = space(&node, &ada).await;
    let poll = async |cursor: &str, seconds: u32| {
        node.get(&format!("/v1/events?poll={seconds}&cursor={cursor}"), &ada.token).await.expect(200)
    };
    let start = poll("", 0).await;
    assert_eq!(start["events"], json!([]));
    let cursor = start["cursor"].as_str().expect("a cursor");
    let (waited, ()) = tokio::join!(poll(cursor, 20), say(&node, &ada, &room, "one"));
    assert_eq!(waited["events"][0]["data"]["body"], "one");
    say(&node, &ada, &room, "two").await;
    say(&node, &ada, &room, "three").await;
    let (mut cursor, mut heard) = (waited["cursor"].clone(), Vec::new());
    while heard.len() < 2 {
        let next = poll(cursor.as_str().expect("a cursor"), 20).await;
        for event in next["events"].as_array().expect("events") {
            assert_eq!(event["event"], "message.created");
            heard.push(event["data"]["body"].clone());
        }
        cursor = next["cursor"].clone();
    }
    assert_eq!(heard, ["two", "three"]);
    let nothing = poll(cursor.as_str().expect("a cursor"), 0).await;
    assert_eq!(nothing["events"], json!([]));
}

#[tokio::test]
async fn i5_what_is_in_doubt_is_told_once_more_on_streams_and_polls() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let room = space(&node, &ada).await;
    let mut reader = Reader::open(&node, &ada, None).await;
    say(&node, &ada, &room, "one").await;
    let id = reader.until("message.created").await.data["id"].as_str().expect("an id").to_owned();
    let before = node.app.store.vector();
    let path = format!("/v1/spaces/{room}/messages/{id}");
    node.call(Method::PATCH, &path, Some(&ada.token), Some(json!({ "body": "two" }))).await.expect(200);
    say(&node, &ada, &room, "three").await;
    // A client that has seen all, and was told of something by a node that had the first message only.
    let all = Cursor::from(node.app.store.vector().as_ref());
    let mut cursor = all.clone();
    cursor.doubt_beyond(&before);
    let cursor = cursor.to_string();
    assert_ne!(cursor, all.to_string());

    let mut again = Reader::open(&node, &ada, Some(&cursor)).await;
    let told = again.next().await.expect("an event");
    assert_eq!((told.kind.as_str(), &told.data["body"]), ("message.edited", &json!("two")));
    say(&node, &ada, &room, "four").await;
    let next = again.next().await.expect("an event");
    assert_eq!((next.kind.as_str(), &next.data["body"]), ("message.created", &json!("four")));
    assert_eq!(next.id, Some(node.app.events.cursors().now().to_string()));

    let mut polled = (Vec::new(), cursor.clone());
    loop {
        let answer =
            node.get(&format!("/v1/events?poll=0&cursor={}", polled.1), &ada.token).await.expect(200);
        let events = answer["events"].as_array().expect("events");
        polled.0.extend(events.iter().map(|event| event["data"]["body"].clone()));
        answer["cursor"].as_str().expect("a cursor").clone_into(&mut polled.1);
        if events.is_empty() {
            break;
        }
    }
    assert_eq!(polled, (vec![json!("two"), json!("four")], next.id.expect("a cursor")));

    // To a call that must not be shown less than the client has seen, it is no matter.
    let after = [("mychat-after", cursor.as_str())];
    let me = node.call_with(Method::GET, "/v1/accounts/me", Some(&ada.token), None, &after).await;
    assert!(!me.headers.contains_key("mychat-behind"));
    me.expect(200);
}

/// A cursor of a node where some site has retired another one, which no node here has heard of.
pub(crate) fn cursor_of_elsewhere() -> String {
    let sites = |from: u8| (from..from + 20).map(|number| SiteId([number; 16]));
    let mut known = Retirements::default();
    for (site, by) in sites(40).zip(sites(60)) {
        known.learn(Retirement { site, upto: Version(4), by, at: Version(1), node: NodeId([1; 16]) });
    }
    let vector: VersionVector = sites(40).chain(sites(60)).map(|site| (site, Version(4))).collect();
    let cursor = Cursor::from(&vector).write(&Retired::of(&known));
    assert!(cursor.len() < Cursor::from(&vector).to_string().len());
    cursor
}

#[tokio::test]
async fn a_client_begins_anew_where_it_can_not_be_told_what_its_cursor_leaves_out() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let path = format!("/v1/events?cursor={}", cursor_of_elsewhere());
    let stream = ("accept", "text/event-stream");
    for manners in [vec![stream], vec![stream, ("mychat-client", "fetch")]] {
        let response = node.stream(&path, &ada.token, &manners).await;
        let mut reader = Reader { body: response.into_body().into_data_stream(), text: String::new() };
        assert_eq!(reader.next().await.expect("an event").kind, "ready");
        let reset = reader.next().await.expect("an event");
        assert_eq!(reset.kind, "reset");
        // What it is told to go on from can be read here.
        let cursor = reset.data["cursor"].as_str().expect("a cursor");
        assert!(node.app.events.cursors().read(cursor).is_ok());
    }
}

#[tokio::test]
async fn what_goes_wrong_is_said_the_way_the_client_can_hear_it() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let stream = ("accept", "text/event-stream");
    // A program reads a status; so does a browser's fetch.
    node.get("/v1/events", "nonsense").await.is_problem(401, "unauthorized");
    let fetch = node
        .call_with(Method::GET, "/v1/events", Some("nonsense"), None, &[stream, ("mychat-client", "fetch")])
        .await;
    fetch.is_problem(401, "unauthorized");
    let bad = node.call_with(Method::GET, "/v1/events?cursor=%21", Some(&ada.token), None, &[]).await;
    bad.is_problem(400, "invalid_cursor");
    // An EventSource would give up for ever.
    let refused = node.call_with(Method::GET, "/v1/events", Some("nonsense"), None, &[stream]).await;
    assert_eq!(refused.status, 200);
    assert!(
        refused.text.starts_with("retry: ") && refused.text.contains("event: goodbye\n"),
        "{}",
        refused.text
    );
    let response = node.stream("/v1/events?cursor=%21", &ada.token, &[stream]).await;
    let mut reader = Reader { body: response.into_body().into_data_stream(), text: String::new() };
    assert_eq!(reader.next().await.expect("an event").kind, "ready");
    assert_eq!(reader.next().await.expect("an event").kind, "reset");
    // Going out of service.
    node.app.condition.drain();
    node.get("/v1/events", &ada.token).await.is_problem(503, "unavailable");
    let response = node.stream("/v1/events", &ada.token, &[stream]).await;
    let mut refused = Reader { body: response.into_body().into_data_stream(), text: String::new() };
    assert_eq!(refused.next().await.expect("an event").data["reason"], "draining");
    node.app.events.end_all("draining", &["http://127.0.0.1:1".into()]);
    let goodbye = reader.next().await.expect("an event");
    assert_eq!(
        (goodbye.kind.as_str(), goodbye.data["alternatives"][0].as_str()),
        ("goodbye", Some("http://127.0.0.1:1"))
    );
    assert_eq!(reader.next().await, None);
}

#[tokio::test]
async fn a_node_takes_no_more_streams_than_it_can_carry_and_forgets_those_that_end() {
    let node = TestNode::start();
    let ada = node.sign_up("Ada").await;
    let reader = Reader::open(&node, &ada, None).await;
    assert_eq!(node.app.condition.open_streams(), 1);
    drop(reader);
    assert_eq!(node.app.condition.open_streams(), 0);
}

#[tokio::test]
async fn typing_is_heard_by_the_others_and_not_kept() {
    let node = TestNode::start();
    let (ada, bob) = (node.sign_up("Ada").await, node.sign_up("Bob").await);
    let room = space(&node, &ada).await;
    node.post(&format!("/v1/spaces/{room}/invitations"), &ada.token, json!({ "account": bob.id }))
        .await
        .expect(201);
    let mut reader = Reader::open(&node, &bob, None).await;
    node.post(&format!("/v1/spaces/{room}/typing"), &ada.token, json!({})).await.expect(202);
    let typing = reader.until("typing").await;
    assert_eq!((typing.id, typing.data), (None, json!({ "space": room, "account": ada.id })));
}

#[tokio::test]
async fn i5_streams_go_on_when_the_database_is_replaced_by_a_copy_that_holds_more() {
    let key = ClusterKey::generate();
    let (a, b) = (TestNode::of(&key), TestNode::of(&key));
    let ada = a.sign_up("Ada").await;
    let space = space(&a, &ada).await;
    a.copy_to(&b).await;
    let mut reader = Reader::open(&b, &ada, None).await;
    let said: BTreeSet<String> = (0..5).map(|number| format!("missed {number}")).collect();
    for body in &said {
        say(&a, &ada, &space, body).await;
    }

    let (old, folder) = (b.app.store.site(), tempfile::tempdir().expect("a folder"));
    let path = folder.path().join("incoming");
    let copied = a.app.store.copy_to(path.clone(), |_| true).await.expect("copied");
    let incoming = b.app.store.prepare(path, copied.vector).await.expect("prepared");
    b.app.store.adopt(incoming).await.expect("adopted");
    assert_ne!(b.app.store.site(), old);
    let heard = reader.messages_until("missed 4").await;
    assert_eq!(bodies(&heard), said);

    say(&b, &ada, &space, "under the new site").await;
    let next = reader.until("message.created").await;
    assert_eq!(next.data["body"], "under the new site");
    // The cursor is good at the other node.
    b.copy_to(&a).await;
    let mut elsewhere = Reader::open(&a, &ada, next.id.as_deref()).await;
    say(&a, &ada, &space, "next").await;
    assert_eq!(elsewhere.until("message.created").await.data["body"], "next");
}

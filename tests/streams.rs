//! Event streams across nodes: a reader that moves misses nothing and gets nothing twice (invariant I5), and a stream
//! carries only what its account may read (I6).

mod cluster;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use cluster::{Account, Client, Cluster, Events, eventually, text};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const REGIONS: [&str; 3] = ["fra", "iad", "syd"];

/// Somebody who posts numbered lines at a node as fast as they are answered, until told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    accepted: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(node: &Client, author: &Account, space: &str) -> Self {
        let (stop, accepted) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (node, author, space) = (node.clone(), author.clone(), space.to_owned());
        let (stopped, ids) = (Arc::clone(&stop), Arc::clone(&accepted));
        let task = tokio::spawn(async move {
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // Its node is not one that is killed, so every line is answered.
                let id = text(&node.say(&author, &space, &number.to_string()).await["id"]);
                ids.lock().expect("the list").push(id);
            }
        });
        Self { stop, accepted, task }
    }

    /// The ids of all its lines, in order.
    async fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("every line is answered");
        self.accepted.lock().expect("the list").clone()
    }
}

/// The messages that a reader has received, as they came.
#[derive(Default)]
struct Received(Vec<Value>);

impl Received {
    /// Takes messages off a stream until there are `count` more.
    async fn take(&mut self, stream: &mut Events, count: usize) {
        for _ in 0..count {
            self.0.push(stream.until("message.created").await.data);
        }
    }

    /// Takes what comes until the stream breaks.
    async fn take_to_the_end(&mut self, stream: &mut Events) {
        while let Some(event) = stream.next().await {
            if event.kind == "message.created" {
                self.0.push(event.data);
            }
        }
    }

    /// Takes messages until it has all of these.
    async fn take_all(&mut self, stream: &mut Events, wanted: &[Vec<String>]) {
        let mut missing: BTreeSet<String> = wanted.concat().into_iter().collect();
        missing.retain({
            let have: BTreeSet<String> = self.ids().into_iter().collect();
            move |id| !have.contains(id)
        });
        while !missing.is_empty() {
            let message = stream.until("message.created").await.data;
            missing.remove(&text(&message["id"]));
            self.0.push(message);
        }
    }

    fn ids(&self) -> Vec<String> {
        self.0.iter().map(|message| text(&message["id"])).collect()
    }

    /// Fails unless these are the messages that were accepted, each once, and each author's in order.
    #[track_caller]
    fn are(&self, accepted: &[Vec<String>]) {
        let (ids, wanted): (Vec<String>, BTreeSet<String>) =
            (self.ids(), accepted.concat().into_iter().collect());
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for id in &ids {
            *counts.entry(id).or_default() += 1;
        }
        let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "{} of {} messages came twice: {twice:?}", twice.len(), wanted.len());
        let lost: Vec<_> = wanted.iter().filter(|id| !counts.contains_key(id.as_str())).collect();
        assert!(lost.is_empty(), "{} of {} messages are lost: {lost:?}", lost.len(), wanted.len());
        assert_eq!(ids.len(), wanted.len(), "something came that nobody was told of");
        for of_one in accepted {
            let came: Vec<_> = ids.iter().filter(|id| of_one.contains(id)).collect();
            assert!(came.iter().copied().eq(of_one.iter()), "an author's messages came in another order");
        }
    }
}

/// A cluster, a space in it, and its members: the reader and two writers.
struct Stage {
    cluster: Cluster,
    space: String,
    reader: Account,
    writers: [Account; 2],
}

impl Stage {
    async fn set() -> Self {
        let cluster = Cluster::start(&REGIONS).await;
        let a = cluster.client(0);
        let (reader, bob, carol) =
            (a.sign_up("Reader").await, a.sign_up("Bob").await, a.sign_up("Carol").await);
        let (space, _) = a.make_space(&reader, "Busy", "private").await;
        a.invite(&reader, &space, &bob).await;
        a.invite(&reader, &space, &carol).await;
        cluster.agree().await;
        Self { cluster, space, reader, writers: [bob, carol] }
    }

    /// The two write at the second and third node.
    fn write(&self) -> Vec<Writer> {
        let nodes = [self.cluster.client(1), self.cluster.client(2)];
        nodes
            .iter()
            .zip(&self.writers)
            .map(|(node, author)| Writer::start(node, author, &self.space))
            .collect()
    }

    async fn open(&self, node: usize, cursor: &str) -> Events {
        Events::open(&self.cluster.client(node), &self.reader, Some(cursor)).await
    }
}

async fn stop(writers: Vec<Writer>) -> Vec<Vec<String>> {
    let mut accepted = Vec::new();
    for writer in writers {
        accepted.push(writer.stop().await);
    }
    accepted
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_no_gap_a_reader_who_moves_between_dying_nodes_gets_every_message_once() {
    let mut stage = Stage::set().await;
    let mut received = Received::default();
    let mut stream = Events::open(&stage.cluster.client(0), &stage.reader, None).await;
    let writers = stage.write();
    received.take(&mut stream, 60).await;

    // In the middle of the conversation; what was on its way when the node died is lost with it.
    stage.cluster.nodes[0].kill();
    received.take_to_the_end(&mut stream).await;
    stream = stage.open(1, &stream.cursor).await;
    received.take(&mut stream, 60).await;

    // A stream that is let go with events in it that were not taken.
    stream = stage.open(2, &stream.cursor).await;
    received.take(&mut stream, 60).await;

    // Back to the first node, which has been down and is not told to be ready.
    stage.cluster.nodes[0].start();
    let first = stage.cluster.client(0);
    eventually("the restarted node lives", async || first.get("/livez").try_send().await.ok().map(drop))
        .await;
    stream = stage.open(0, &stream.cursor).await;
    received.take(&mut stream, 60).await;

    // A short visit each, to and fro.
    for node in [1, 2, 0, 2, 1, 0] {
        stream = stage.open(node, &stream.cursor).await;
        received.take(&mut stream, 7).await;
    }
    let accepted = stop(writers).await;
    received.take_all(&mut stream, &accepted).await;
    // Whatever else would come, a repeat say, comes before this one.
    let last = text(&first.say(&stage.reader, &stage.space, "last").await["id"]);
    received.take_all(&mut stream, &[vec![last.clone()]]).await;
    received.are(&[&accepted[..], &[vec![last]]].concat());
    stage.cluster.nodes[0].ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_no_gap_cursors_ahead_of_a_node_and_far_behind_it_are_served_while_it_catches_up() {
    let mut stage = Stage::set().await;
    let old = Events::open(&stage.cluster.client(0), &stage.reader, None).await.cursor;
    stage.cluster.nodes[0].kill();
    let writers = stage.write();
    let mut before = Received::default();
    let mut stream = stage.open(1, &old).await;
    before.take(&mut stream, 300).await;
    let (ahead, first) = (stream.cursor.clone(), stage.cluster.client(0));

    stage.cluster.nodes[0].start();
    eventually("the restarted node lives", async || first.get("/livez").try_send().await.ok().map(drop))
        .await;
    let (mut from_ahead, mut from_old) = (stage.open(0, &ahead).await, stage.open(0, &old).await);
    let (mut after, mut all) = (Received::default(), Received::default());
    tokio::join!(after.take(&mut from_ahead, 50), all.take(&mut from_old, 350));
    // The cursors of a node that was behind are good elsewhere.
    from_ahead = stage.open(2, &from_ahead.cursor).await;
    from_old = stage.open(1, &from_old.cursor).await;
    let accepted = stop(writers).await;
    let seen: BTreeSet<String> = before.ids().into_iter().collect();
    let rest: Vec<Vec<String>> = accepted
        .iter()
        .map(|of_one| of_one.iter().filter(|id| !seen.contains(*id)).cloned().collect())
        .collect();
    after.take_all(&mut from_ahead, &rest).await;
    all.take_all(&mut from_old, &accepted).await;
    after.are(&rest);
    all.are(&accepted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_kept_by_a_node_that_died_and_sent_again_elsewhere_is_one_for_readers_too() {
    let mut stage = Stage::set().await;
    let [a, b, c] = &stage.cluster.clients()[..] else { panic!("three nodes") };
    let path = format!("/v1/spaces/{}/messages", stage.space);
    let send = async |node: &Client| {
        let wish = json!({ "body": "once", "client_id": "of this line" });
        text(&node.post(&path, wish).by(&stage.writers[0]).send().await.expect(201)["id"])
    };
    let cursor = Events::open(b, &stage.reader, None).await.cursor;
    for node in [1, 2] {
        stage.cluster.nodes[node].kill();
    }
    let first = send(a).await;
    stage.cluster.nodes[0].kill();
    for node in [1, 2] {
        stage.cluster.nodes[node].start();
    }
    stage.cluster.nodes[1].ready().await;
    let second = send(b).await;
    assert_ne!(first, second, "no node that is left knows of the first");
    let mut stream = Events::open(b, &stage.reader, Some(&cursor)).await;
    assert_eq!(stream.until("message.created").await.data["id"], json!(second));

    stage.cluster.nodes[0].start();
    // The earlier one counts, and whoever has shown the other is told.
    let replacing = stream.until("message.created").await;
    assert_eq!((&replacing.data["id"], &replacing.data["replaces"]), (&json!(first), &json!([second])));
    stage.cluster.agree().await;
    let mut fresh = Vec::new();
    for node in [a, b, c] {
        let rows = node.history(&stage.reader, &stage.space).await;
        assert_eq!((rows.len(), &rows[0]["id"]), (1, &json!(first)));
        assert_eq!(send(node).await, first);
        fresh.push(Events::open(node, &stage.reader, Some(&cursor)).await);
    }
    let next = a.say(&stage.reader, &stage.space, "next").await["id"].clone();
    for mut stream in fresh {
        // Whoever saw neither hears of one.
        assert_eq!(stream.until("message.created").await.data["id"], json!(first));
        assert_eq!(stream.until("message.created").await.data["id"], next);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_authorised_at_delivery_membership_and_session_are_followed_on_open_streams() {
    let cluster = Cluster::start(&["fra", "iad"]).await;
    let (a, b) = (cluster.client(0), cluster.client(1));
    let (ada, bob) = (a.sign_up("Ada").await, b.sign_up("Bob").await);
    let (secret, _) = a.make_space(&ada, "Secret", "private").await;
    let (open, _) = a.make_space(&ada, "Open", "private").await;
    cluster.agree().await;
    let mut stream = Events::open(&b, &bob, None).await;
    a.say(&ada, &secret, "before Bob").await;
    a.invite(&ada, &secret, &bob).await;
    a.invite(&ada, &open, &bob).await;
    for space in [&secret, &open] {
        let added = stream.until("member.added").await;
        assert_eq!(added.data["space"], **space, "{added:?}");
        assert!(added.data.to_string().contains(&bob.id), "{added:?}");
    }
    let next = async |stream: &mut Events| text(&stream.until("message.created").await.data["body"]);
    a.say(&ada, &secret, "for Bob too").await;
    assert_eq!(next(&mut stream).await, "for Bob too");
    let cursor = stream.cursor.clone();

    let member = format!("/v1/spaces/{secret}/members/{}", bob.id);
    a.delete(&member).by(&ada).send().await.expect(204);
    a.say(&ada, &secret, "about Bob").await;
    a.say(&ada, &open, "hello Bob").await;
    let removed = stream.until("member.removed").await;
    assert_eq!(removed.data["space"], *secret, "{removed:?}");
    assert_eq!(next(&mut stream).await, "hello Bob");
    // Nor by resuming from where the membership still was.
    let mut resumed = Events::open(&a, &bob, Some(&cursor)).await;
    assert_eq!(next(&mut resumed).await, "hello Bob");
    b.get(&format!("/v1/spaces/{secret}/messages")).by(&bob).send().await.is_problem(404, "not_found");

    // Back in, on the same stream.
    a.invite(&ada, &secret, &bob).await;
    a.say(&ada, &secret, "welcome back").await;
    assert_eq!(next(&mut stream).await, "welcome back");
    // One space only, when only that is asked for.
    let (mut narrow, _) = Events::open_at(&b, &bob, None, &format!("/v1/events?spaces={open}")).await;
    a.say(&ada, &secret, "in one").await;
    a.say(&ada, &open, "in the other").await;
    assert_eq!(next(&mut narrow).await, "in the other");
    assert_eq!((next(&mut stream).await, next(&mut stream).await), ("in one".into(), "in the other".into()));
    let mut other = Events::open(&b, &account_again(&b, &bob).await, None).await;

    a.delete(&format!("/v1/spaces/{secret}")).by(&ada).send().await.expect(204);
    assert_eq!(stream.until("space.deleted").await.data["id"], *secret);
    // Signing out at the other node ends the streams of that session, and of no other.
    a.delete("/v1/sessions/current").by(&bob).send().await.expect(204);
    for stream in [&mut stream, &mut narrow] {
        let goodbye = stream.until("goodbye").await;
        assert_eq!(goodbye.data["reason"], "session_ended");
        assert_eq!(stream.next().await, None);
    }
    a.say(&ada, &open, "still here").await;
    assert_eq!(next(&mut other).await, "still here");
}

/// The account in another session.
async fn account_again(node: &Client, who: &Account) -> Account {
    cluster::account(node.sign_in(who).await, who.email.clone(), who.password.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_event_arrives_at_the_other_node() {
    let cluster = Cluster::start(&["fra", "iad"]).await;
    let (a, b) = (cluster.client(0), cluster.client(1));
    let (ada, bob) = (a.sign_up("Ada").await, a.sign_up("Bob").await);
    cluster.agree().await;
    let mut stream = Events::open(&b, &ada, None).await;
    let (space, _) = a.make_space(&ada, "News", "public").await;
    let created = stream.until("space.created").await;
    assert_eq!((&created.data["id"], &created.data["name"]), (&json!(space), &json!("News")));
    a.patch(&format!("/v1/spaces/{space}"), json!({ "topic": "what happens" }))
        .by(&ada)
        .send()
        .await
        .expect(200);
    let updated = stream.until("space.updated").await;
    assert_eq!((&updated.data["id"], &updated.data["topic"]), (&json!(space), &json!("what happens")));
    a.put(&format!("/v1/spaces/{space}/members/me"), json!({ "role": "member" }))
        .by(&bob)
        .send()
        .await
        .expect(201);
    let added = stream.until("member.added").await;
    assert_eq!(added.data["space"], json!(space));
    assert!(added.data.to_string().contains(&bob.id), "{added:?}");

    let sent = a.say(&bob, &space, "first").await;
    assert_eq!(stream.until("message.created").await.data, sent);
    let path = format!("/v1/spaces/{space}/messages/{}", text(&sent["id"]));
    let edited = a.patch(&path, json!({ "body": "second" })).by(&bob).send().await.expect(200);
    assert_eq!(stream.until("message.edited").await.data, edited);
    a.put(&format!("{path}/reactions/%F0%9F%91%8D"), json!({})).by(&ada).send().await.expect(204);
    let reacted = stream.until("reaction.added").await;
    assert_eq!(
        reacted.data,
        json!({ "space": space, "message": sent["id"], "account": ada.id, "emoji": "👍" })
    );
    a.delete(&format!("{path}/reactions/%F0%9F%91%8D")).by(&ada).send().await.expect(204);
    assert_eq!(stream.until("reaction.removed").await.data, reacted.data);
    // Not kept, so it has no id of its own.
    let cursor = stream.cursor.clone();
    a.post(&format!("/v1/spaces/{space}/typing"), json!({})).by(&bob).send().await.expect(202);
    let typing = stream.until("typing").await;
    assert_eq!((&typing.data["account"], &typing.data["space"]), (&json!(bob.id), &json!(space)));
    assert_eq!(stream.cursor, cursor);
    a.put(&format!("/v1/spaces/{space}/read"), json!({ "message": sent["id"] }))
        .by(&ada)
        .send()
        .await
        .expect(204);
    assert_eq!(stream.until("read").await.data["space"], json!(space));
    a.delete(&path).by(&bob).send().await.expect(204);
    let deleted = stream.until("message.deleted").await;
    assert_eq!((&deleted.data["id"], &deleted.data["deleted"]), (&sent["id"], &json!(true)));
    assert!(!deleted.data.to_string().contains("second"), "{deleted:?}");
    a.patch("/v1/accounts/me", json!({ "name": "Ada II" })).by(&ada).send().await.expect(200);
    assert_eq!(stream.until("account.updated").await.data["name"], "Ada II");
    a.delete(&format!("/v1/spaces/{space}/members/me")).by(&bob).send().await.expect(204);
    assert_eq!(stream.until("member.removed").await.data["space"], json!(space));
    a.delete(&format!("/v1/spaces/{space}")).by(&ada).send().await.expect(204);
    assert_eq!(stream.until("space.deleted").await.data["id"], json!(space));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_polls_and_pings() {
    let cluster = Cluster::start(&["fra", "iad"]).await;
    let (a, b) = (cluster.client(0), cluster.client(1));
    let (ada, bob) = (a.sign_up("Ada").await, a.sign_up("Bob").await);
    let (space, cursor) = a.make_space(&ada, "Polled", "private").await;
    // A quiet stream, for its ping.
    let mut quiet = Events::open(&a, &bob, None).await;

    for token in [None, Some("nonsense")] {
        let call = |accept: &str| {
            let call = a.open("/v1/events").header("accept", accept);
            token.map_or(call.try_clone().expect("a plain call"), |token| call.bearer_auth(token))
        };
        // A browser would give up for ever over another status.
        let mut stream = Events::of(call("text/event-stream")).await;
        let goodbye = stream.next().await.expect("one event");
        assert_eq!((goodbye.kind.as_str(), &goodbye.data["reason"]), ("goodbye", &json!("unauthorized")));
        assert!(goodbye.data["alternatives"].is_array(), "{goodbye:?}");
        assert!(stream.retry().is_some());
        assert_eq!(stream.next().await, None);
        // A program can read the status.
        let fetch = call("text/event-stream").header("mychat-client", "fetch");
        for plain in [call("application/json"), call("*/*"), fetch] {
            let answer = plain.send().await.expect("an answer");
            assert_eq!(answer.status(), 401);
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
            let problem: Value = answer.json().await.expect("a document");
            assert_eq!(problem["code"], "unauthorized");
        }
    }

    let poll = async |node: &Client, cursor: &str| {
        node.get(&format!("/v1/events?poll=25&cursor={cursor}")).by(&ada).send().await.expect(200)
    };
    let bodies = |polled: &Value| -> Vec<String> {
        let events = polled["events"].as_array().expect("a list").iter();
        events
            .filter(|event| event["event"] == "message.created")
            .map(|event| text(&event["data"]["body"]))
            .collect()
    };
    // What is there already comes at once, also at the other node.
    let written = a.saying(&ada, &space, "one").send().await;
    let mut polled = poll(&a, &cursor).await;
    assert_eq!(bodies(&polled), ["one"]);
    assert_eq!(polled["events"][0]["id"], polled["cursor"]);
    let elsewhere = b.get(&format!("/v1/events?poll=25&cursor={cursor}")).by(&ada);
    let elsewhere = elsewhere.header("mychat-after", &written.cursor()).send().await.expect(200);
    assert_eq!(bodies(&elsewhere), ["one"]);
    // What is not there yet is waited for.
    for (number, node) in [&b, &a, &b].into_iter().enumerate() {
        let (from, body) = (text(&polled["cursor"]), format!("line {number}"));
        let (answer, _) = tokio::join!(poll(node, &from), a.say(&ada, &space, &body));
        assert_eq!(bodies(&answer), [body]);
        polled = answer;
    }
    let nothing =
        a.get(&format!("/v1/events?poll=0&cursor={}", text(&polled["cursor"]))).by(&ada).send().await;
    assert_eq!(nothing.expect(200)["events"], json!([]));

    let ping = quiet.until("ping").await;
    assert!(!ping.id.is_empty());
    // Its cursor is past what the reader may not see.
    a.invite(&ada, &space, &bob).await;
    a.say(&ada, &space, "for both").await;
    let mut resumed = Events::open(&b, &bob, Some(&ping.id)).await;
    assert_eq!(resumed.until("message.created").await.data["body"], "for both");
}

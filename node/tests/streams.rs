//! Event streams on real sockets: how a plain connection moves to a reactor, and what becomes of it there.

use std::{net::SocketAddr, time::Duration};

use mychat_node::{Listen, Node, NodeConfig, events::Cursor};
use mychat_replication::cluster::ClusterKey;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};

/// No wait in a test lasts longer.
const DEADLINE: Duration = Duration::from_secs(60);

async fn start(drain: Duration) -> (Node, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let http = Listen::Address(([127, 0, 0, 1], 0).into());
    let data = folder.path().to_owned();
    let mut config = NodeConfig::new("fra", http, "http://127.0.0.1:1", data, ClusterKey::generate());
    config.limits.drain = drain;
    (Node::start(config).await.expect("a node"), folder)
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "{what}: not in time");
        tokio::task::yield_now().await;
    }
}

/// A call on a connection of its own.
async fn call(at: SocketAddr, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
    let mut tcp = TcpStream::connect(at).await.expect("a connection");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let token = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n{token}Content-Length: {}\r\n\r\n",
        body.len()
    );
    tcp.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).await.expect("taken");
    let mut answer = String::new();
    timeout(DEADLINE, tcp.read_to_string(&mut answer)).await.expect("in time").expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head[9..12].parse().expect("a status");
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// Somebody with a space of their own.
struct Person {
    at: SocketAddr,
    token: String,
    space: String,
}

impl Person {
    async fn sign_up(at: SocketAddr, name: &str) -> Self {
        let wish = json!({ "email": format!("{name}@example.org"), "password": "correct horse battery", "name": name });
        let (status, account) = call(at, "POST", "/v1/accounts", "", &wish).await;
        assert_eq!(status, 201, "{account}");
        let token = account["token"].as_str().expect("a token").to_owned();
        let (status, space) = call(at, "POST", "/v1/spaces", &token, &json!({ "name": "room" })).await;
        assert_eq!(status, 201, "{space}");
        Self { at, token, space: space["id"].as_str().expect("an id").to_owned() }
    }

    async fn say(&self, body: &str) {
        let path = format!("/v1/spaces/{}/messages", self.space);
        let (status, answer) = call(self.at, "POST", &path, &self.token, &json!({ "body": body })).await;
        assert_eq!(status, 201, "{answer}");
    }

    fn head(&self, cursor: &str) -> String {
        let cursor = if cursor.is_empty() { String::new() } else { format!("Last-Event-ID: {cursor}\r\n") };
        format!(
            "GET /v1/events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\nAuthorization: Bearer {}\r\n{cursor}\r\n",
            self.token
        )
    }

    async fn listen(&self) -> Reader {
        Reader::open(TcpStream::connect(self.at).await.expect("a connection"), &self.head("")).await
    }
}

/// The client's end of a stream.
struct Reader {
    tcp: TcpStream,
    text: String,
    cursor: String,
}

impl Reader {
    /// Sends the head of the call, and takes that of the answer and the first event.
    async fn open(mut tcp: TcpStream, head: &str) -> Self {
        tcp.write_all(head.as_bytes()).await.expect("taken");
        let mut reader = Self { tcp, text: String::new(), cursor: String::new() };
        let head = reader.part("\r\n\r\n").await.expect("a head").to_lowercase();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        for line in ["content-type: text/event-stream", "cache-control: no-store", "x-accel-buffering: no"] {
            assert!(head.contains(line), "{head}");
        }
        assert!(head.contains("connection: close") && !head.contains("transfer-encoding"), "{head}");
        let ready = reader.next().await.expect("a first event");
        assert!(ready.0 == "ready" && ready.1["cursor"] == reader.cursor, "{ready:?}");
        reader
    }

    /// Text up to a separator; none at the end.
    async fn part(&mut self, separator: &str) -> Option<String> {
        let mut piece = vec![0; 64 << 10];
        loop {
            if let Some((part, rest)) = self.text.split_once(separator) {
                let part = part.to_owned();
                self.text = rest.to_owned();
                return Some(part);
            }
            match timeout(DEADLINE, self.tcp.read(&mut piece)).await.expect("something in time") {
                Ok(0) => {
                    assert_eq!(self.text, "", "it ends with a whole event");
                    return None;
                }
                Ok(size) => self.text.push_str(std::str::from_utf8(&piece[..size]).expect("ASCII")),
                Err(error) => panic!("the stream broke: {error}"),
            }
        }
    }

    /// The next event that is no ping; none at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            let event = self.part("\n\n").await?;
            let (mut kind, mut data) = (String::new(), Value::Null);
            for line in event.lines() {
                match line.split_once(": ") {
                    Some(("id", id)) => id.clone_into(&mut self.cursor),
                    Some(("event", event)) => event.clone_into(&mut kind),
                    Some(("data", json)) => data = serde_json::from_str(json).expect("JSON"),
                    Some(("retry", _)) => {}
                    _ => panic!("{line:?}"),
                }
            }
            if kind != "ping" {
                return Some((kind, data));
            }
        }
    }

    async fn hears(&mut self, body: &str) {
        let (kind, data) = self.next().await.expect("the stream goes on");
        assert_eq!((kind.as_str(), data["body"].as_str()), ("message.created", Some(body)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_stream_is_taken_over_and_tells_what_happens() {
    let (node, _folder) = start(DEADLINE).await;
    let ada = Person::sign_up(node.http_addr(), "ada").await;
    let mut readers = Vec::new();
    for _ in 0..20 {
        readers.push(ada.listen().await);
    }
    for number in 0..20 {
        ada.say(&number.to_string()).await;
    }
    for reader in &mut readers {
        for number in 0..20 {
            reader.hears(&number.to_string()).await;
        }
    }
    assert_eq!(node.app().condition.open_streams(), 20);
    // The clients that go are noticed without being written to.
    readers.truncate(5);
    eventually("the others are forgotten", || node.app().condition.open_streams() == 5).await;
    // A space that comes and goes is followed.
    let (_, space) = call(ada.at, "POST", "/v1/spaces", &ada.token, &json!({ "name": "new" })).await;
    let ada = Person { space: space["id"].as_str().expect("an id").to_owned(), ..ada };
    ada.say("in the new one").await;
    for reader in &mut readers {
        assert_eq!(reader.next().await.expect("an event").0, "space.created");
        assert_eq!(reader.next().await.expect("an event").0, "member.added");
        reader.hears("in the new one").await;
    }
    let (status, _) = call(ada.at, "DELETE", "/v1/sessions/current", &ada.token, &Value::Null).await;
    assert_eq!(status, 204);
    for reader in &mut readers {
        let (kind, data) = reader.next().await.expect("an event");
        assert_eq!((kind.as_str(), &data["reason"]), ("goodbye", &json!("session_ended")));
        assert_eq!(reader.next().await, None);
    }
    eventually("all are forgotten", || node.app().condition.open_streams() == 0).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_a_taken_over_stream_tells_once_more_what_is_in_doubt_and_goes_on() {
    let (node, _folder) = start(DEADLINE).await;
    let ada = Person::sign_up(node.http_addr(), "ada").await;
    let mut reader = ada.listen().await;
    ada.say("one").await;
    let (_, one) = reader.next().await.expect("an event");
    let path = format!("/v1/spaces/{}/messages/{}", ada.space, one["id"].as_str().expect("an id"));
    let before = node.app().store.vector();
    let (status, _) = call(ada.at, "PATCH", &path, &ada.token, &json!({ "body": "two" })).await;
    assert_eq!(status, 200);
    let mut cursor = Cursor::from(node.app().store.vector().as_ref());
    cursor.doubt_beyond(&before);
    let tcp = TcpStream::connect(ada.at).await.expect("a connection");
    let mut again = Reader::open(tcp, &ada.head(&cursor.to_string())).await;
    let (kind, data) = again.next().await.expect("an event");
    assert_eq!((kind.as_str(), &data["body"]), ("message.edited", &json!("two")));
    ada.say("three").await;
    again.hears("three").await;
    assert_eq!(again.cursor, Cursor::from(node.app().store.vector().as_ref()).to_string());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_a_taken_over_stream_resumes_without_a_gap_while_messages_come() {
    let (node, _folder) = start(DEADLINE).await;
    let ada = Person::sign_up(node.http_addr(), "ada").await;
    let mut cursor = ada.listen().await.cursor;
    let speaking = async {
        for number in 0..400 {
            ada.say(&number.to_string()).await;
        }
    };
    let listening = async {
        let mut next = 0;
        while next < 400 {
            let tcp = TcpStream::connect(ada.at).await.expect("a connection");
            let mut reader = Reader::open(tcp, &ada.head(&cursor)).await;
            let end = (next + 23).min(400);
            while next < end {
                reader.hears(&next.to_string()).await;
                next += 1;
            }
            cursor = reader.cursor;
        }
    };
    tokio::join!(speaking, listening);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_after_the_head_are_dropped_and_other_forms_of_the_call_are_served_too() {
    let (node, _folder) = start(DEADLINE).await;
    let ada = Person::sign_up(node.http_addr(), "ada").await;
    // Another call behind it: the answer to the first one never ends.
    let tcp = TcpStream::connect(ada.at).await.expect("a connection");
    let two = format!("{}GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", ada.head(""));
    let mut reader = Reader::open(tcp, &two).await;
    reader.tcp.write_all(b"and more").await.expect("taken");
    ada.say("one").await;
    reader.hears("one").await;

    // A head in two pieces, and a stream on a used connection: hyper serves both, in chunks.
    let mut halves = TcpStream::connect(ada.at).await.expect("a connection");
    let head = ada.head("");
    let (first, second) = head.split_at(20);
    halves.write_all(first.as_bytes()).await.expect("taken");
    let mut used = TcpStream::connect(ada.at).await.expect("a connection");
    used.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("taken");
    read_until(&mut used, "\nok\n").await;
    halves.write_all(second.as_bytes()).await.expect("taken");
    used.write_all(head.as_bytes()).await.expect("taken");
    for tcp in [&mut halves, &mut used] {
        read_until(tcp, "event: ready\n").await;
    }
    ada.say("two").await;
    for tcp in [&mut halves, &mut used] {
        read_until(tcp, "\"two\"").await;
    }
    reader.hears("two").await;

    // What is refused has an end that can be seen.
    for (accept, answer) in [("text/event-stream", "HTTP/1.1 200 OK"), ("*/*", "HTTP/1.1 401 Unauthorized")] {
        let mut refused = TcpStream::connect(ada.at).await.expect("a connection");
        let head = format!("GET /v1/events HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n");
        refused.write_all(head.as_bytes()).await.expect("taken");
        let mut text = String::new();
        timeout(DEADLINE, refused.read_to_string(&mut text)).await.expect("an end").expect("an answer");
        assert!(text.starts_with(answer) && text.contains("content-length: "), "{text}");
        assert!(text.contains("unauthorized"), "{text}");
    }
    node.shutdown().await;
}

async fn read_until(tcp: &mut TcpStream, wanted: &str) {
    let (mut text, mut piece) = (String::new(), [0; 4096]);
    while !text.contains(wanted) {
        let size = timeout(DEADLINE, tcp.read(&mut piece)).await.expect("in time").expect("no error");
        assert!(size > 0, "{wanted:?} is not in {text}");
        text.push_str(std::str::from_utf8(&piece[..size]).expect("ASCII"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_bounded_a_stalled_reader_is_ended_after_a_whole_event_and_others_do_not_wait() {
    let (node, _folder) = start(Duration::from_millis(200)).await;
    let ada = Person::sign_up(node.http_addr(), "ada").await;
    let small = TcpSocket::new_v4().expect("a socket");
    small.set_recv_buffer_size(4096).expect("a small buffer");
    let small = small.connect(ada.at).await.expect("a connection");
    let mut stalled = Reader::open(small, &ada.head("")).await;
    let mut other = ada.listen().await;
    let slow = async || {
        let mut tcp = TcpStream::connect(ada.at).await.expect("a connection");
        tcp.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("taken");
        let mut text = String::new();
        tcp.read_to_string(&mut text).await.expect("metrics");
        text.lines()
            .any(|line| line.starts_with("mychat_events_slow_readers_total ") && !line.ends_with(" 0"))
    };
    let mut said = 0;
    while !slow().await {
        assert!(said < 4000, "a reader that takes nothing is ended");
        for _ in 0..20 {
            let body = format!("{said} {}", "x".repeat(8000));
            ada.say(&body).await;
            other.hears(&body).await;
            said += 1;
        }
    }
    // What it gets is whole, and its cursor gives the rest.
    let mut heard = 0;
    while let Some((_, data)) = stalled.next().await {
        assert!(data["body"].as_str().is_some_and(|body| body.starts_with(&format!("{heard} "))), "{data}");
        heard += 1;
    }
    assert!(heard < said, "it was ended before the last one");
    let tcp = TcpStream::connect(ada.at).await.expect("a connection");
    let mut again = Reader::open(tcp, &ada.head(&stalled.cursor)).await;
    for number in heard..said {
        again.hears(&format!("{number} {}", "x".repeat(8000))).await;
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_says_goodbye_to_all_and_waits_for_no_one_for_long() {
    let (node, _folder) = start(Duration::from_millis(200)).await;
    let ada = Person::sign_up(node.http_addr(), "ada").await;
    let mut readers = vec![ada.listen().await, ada.listen().await, ada.listen().await];
    // One that is silent, and one that has not said what it wants.
    let _silent = ada.listen().await;
    let _idle = TcpStream::connect(ada.at).await.expect("a connection");
    timeout(DEADLINE, node.shutdown()).await.expect("a stop in time");
    for reader in &mut readers {
        let (kind, data) = reader.next().await.expect("a last event");
        assert_eq!((kind.as_str(), &data["reason"]), ("goodbye", &json!("draining")));
        assert!(data["retry"].as_u64().is_some_and(|retry| retry >= 500), "{data}");
        assert_eq!(reader.next().await, None);
    }
}

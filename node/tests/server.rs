//! A node on a real socket: what a client gets that sends too much, too slowly or nonsense, and a clean stop.

use std::{net::SocketAddr, time::Duration};

use mychat_node::{Limits, Listen, Node, NodeConfig};
use mychat_replication::cluster::ClusterKey;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

/// No wait in a test lasts longer.
const DEADLINE: Duration = Duration::from_secs(30);

async fn start(call: Duration) -> (Node, tempfile::TempDir) {
    start_with(|limits| limits.call = call).await
}

async fn start_with(limit: impl FnOnce(&mut Limits)) -> (Node, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let http = Listen::Address(([127, 0, 0, 1], 0).into());
    let data = folder.path().to_owned();
    let mut config = NodeConfig::new("fra", http, "http://127.0.0.1:1", data, ClusterKey::generate());
    limit(&mut config.limits);
    (Node::start(config).await.expect("a node"), folder)
}

async fn connect(at: SocketAddr) -> TcpStream {
    TcpStream::connect(at).await.expect("a connection")
}

/// Everything that comes until the connection is closed.
async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut bytes)).await.expect("an end in time").expect("an answer");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn a_large_body_is_answered_before_and_after_it_is_read() {
    let (node, _folder) = start(Duration::from_secs(30)).await;
    let body = vec![b'x'; 12 << 20];
    for (path, status) in
        [("/v1/accounts", 413), ("/v1/accounts/me/preferences", 405), ("/nothing", 404), ("/v1/spaces", 401)]
    {
        let mut stream = connect(node.http_addr()).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("the head is taken");
        stream.write_all(&body).await.expect("the body is taken");
        let answer = read_all(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(answer.contains("application/problem+json"), "{path}: {answer}");
    }
    node.shutdown().await;
}

#[tokio::test]
async fn a_client_that_asks_first_does_not_have_to_send() {
    let (node, _folder) = start(Duration::from_secs(30)).await;
    let mut stream = connect(node.http_addr()).await;
    let head = "POST /v1/spaces HTTP/1.1\r\nHost: a\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("the head is taken");
    assert!(read_all(&mut stream).await.starts_with("HTTP/1.1 401 "));
    node.shutdown().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_the_call() {
    let (node, _folder) = start(Duration::from_millis(100)).await;
    let mut stream = connect(node.http_addr()).await;
    let head = "POST /v1/accounts HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{\"email\":";
    stream.write_all(head.as_bytes()).await.expect("the head is taken");
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"timeout\""), "{answer}");
    node.shutdown().await;
}

/// What every connection of HTTP/2 begins with, and an empty frame of settings.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The type of HTTP/2's ping.
const PING: u8 = 6;
/// The type of its frame that says that the connection takes no more calls.
const GOAWAY: u8 = 7;
/// The flag of a ping that answers one.
const ACK: u8 = 1;

#[tokio::test]
async fn a_connection_without_a_call_is_closed_however_far_it_has_come() {
    let (node, _folder) = start_with(|limits| limits.idle = Duration::from_millis(100)).await;
    let call = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n";
    let beginnings: [&[u8]; 7] =
        [b"", b"P", b"PRI * HTTP", &HTTP2[..23], b"G", b"GET /v1/events HTTP/1.1\r\nHost:", call];
    for beginning in beginnings {
        let mut stream = connect(node.http_addr()).await;
        stream.write_all(beginning).await.expect("it is taken");
        read_all(&mut stream).await;
    }
    node.shutdown().await;
}

#[tokio::test]
async fn a_client_of_http_2_that_only_shows_that_it_lives_is_sent_away() {
    let (node, _folder) = start_with(|limits| limits.idle = Duration::from_millis(100)).await;
    let mut stream = connect(node.http_addr()).await;
    stream.write_all(HTTP2).await.expect("it is taken");
    let end = Instant::now() + DEADLINE;
    let mut sent_away = false;
    let mut head = [0; 9];
    while timeout_at(end, stream.read_exact(&mut head)).await.expect("an end in time").is_ok() {
        let mut body = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut body).await.expect("all of a frame");
        sent_away |= head[3] == GOAWAY;
        if head[3] == PING && head[4] & ACK == 0 {
            head[4] |= ACK;
            stream.write_all(&[&head[..], &body].concat()).await.expect("it is taken");
        }
    }
    assert!(sent_away);
    node.shutdown().await;
}

#[tokio::test]
async fn nonsense_is_a_bad_request_and_harms_nobody() {
    let (node, _folder) = start(Duration::from_secs(30)).await;
    for nonsense in
        ["\0\u{1}\u{2}\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /\u{7f} HTTP/1.1\r\n\r\n", "FOO\r\n\r\n"]
    {
        let mut stream = connect(node.http_addr()).await;
        stream.write_all(nonsense.as_bytes()).await.expect("it is taken");
        let answer = read_all(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let mut stream = connect(node.http_addr()).await;
    let long = format!("GET /livez HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    // The answer may come, and the connection close, before all of it is sent.
    let _ = stream.write_all(long.as_bytes()).await;
    let mut stream = connect(node.http_addr()).await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("taken");
    assert!(read_all(&mut stream).await.starts_with("HTTP/1.1 200 "));
    node.shutdown().await;
}

#[tokio::test]
async fn a_stop_closes_idle_connections_and_keeps_the_data() {
    let (node, folder) = start(Duration::from_secs(30)).await;
    let (at, id) = (node.http_addr(), node.app().node());
    let mut idle = connect(at).await;
    idle.write_all(b"GET /v1/node HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("taken");
    let mut first = [0; 12];
    timeout(DEADLINE, idle.read_exact(&mut first)).await.expect("in time").expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    timeout(DEADLINE, node.shutdown()).await.expect("a stop in time");
    read_all(&mut idle).await;
    assert!(TcpStream::connect(at).await.is_err(), "nobody listens any more");

    let data = folder.path().to_owned();
    let http = Listen::Address(([127, 0, 0, 1], 0).into());
    let again = Node::start(NodeConfig::new("fra", http, "http://127.0.0.1:1", data, ClusterKey::generate()));
    let again = again.await.expect("a node");
    assert_eq!(again.app().node(), id);
    again.shutdown().await;
}

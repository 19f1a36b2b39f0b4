//! Bytes that no HTTP client would send.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::cluster::{Client, Cluster, PATIENCE};

/// What is hardly HTTP. The server may refuse it before it knows the call, then without a document.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_hardly_http_is_refused_too() {
    let cluster = Cluster::start(&["fra"]).await;
    let node = cluster.client(0);
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100_000));
    let header = format!("GET /livez HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    let many = format!("GET /livez HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(500));
    let chunked = "POST /v1/accounts HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (bad_chunk, endless) = (
        format!("{chunked}zz\r\n{{}}\r\n0\r\n\r\n"),
        format!("{chunked}{}", "400\r\n".to_owned() + &"x".repeat(1024) + "\r\n"),
    );
    let large: String =
        chunked.to_owned() + &format!("10000\r\n{}\r\n", "x".repeat(0x1_0000)).repeat(16) + "0\r\n\r\n";
    for (what, bytes) in [
        ("no HTTP at all", "\u{16}\u{3}\u{1}\0\u{5}hello\r\n\r\n"),
        ("a bad request line", "GET\r\n\r\n"),
        ("a bad version", "GET / HTTP/9.9\r\nHost: a\r\n\r\n"),
        ("a bad header", "GET /livez HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n"),
        (
            "two lengths",
            "POST /v1/accounts HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
        ),
        ("a negative length", "POST /v1/accounts HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n{}"),
        ("a long path", &long),
        ("a long header", &header),
        ("many headers", &many),
        ("a bad chunk", &bad_chunk),
        ("1 MB in chunks", &large),
    ] {
        let status = raw(&node, bytes.as_bytes()).await;
        assert!((400..500).contains(&status), "{what}: {status}");
    }
    // Clients that say nothing more, or hang up.
    for bytes in
        [&endless, "POST /v1/accounts HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{", "GET /li"]
    {
        let mut stream = connect(&node).await;
        stream.write_all(bytes.as_bytes()).await.expect("taken");
        drop(stream);
    }
    node.get("/livez").send().await.expect_text("ok\n");
}

async fn connect(node: &Client) -> TcpStream {
    TcpStream::connect(node.url.strip_prefix("http://").expect("a URL")).await.expect("a connection")
}

/// The status of the answer to these bytes.
async fn raw(node: &Client, bytes: &[u8]) -> u16 {
    let mut stream = connect(node).await;
    // It may answer before it has taken everything.
    let _ = timeout(Duration::from_secs(5), stream.write_all(bytes)).await;
    let mut answer = Vec::new();
    let read = async {
        let mut piece = [0; 4096];
        while !answer.windows(2).any(|end| end == b"\r\n") {
            match stream.read(&mut piece).await {
                Ok(size @ 1..) => answer.extend_from_slice(&piece[..size]),
                _ => return,
            }
        }
    };
    timeout(PATIENCE, read).await.expect("an answer in time");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| {
        panic!("no answer to {:?}: {answer:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(60)]))
    })
}

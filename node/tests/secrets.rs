//! No secret reaches the log, however much is logged. A test of its own program: it installs the process's logger.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use mychat_node::{Listen, Node, NodeConfig};
use mychat_replication::cluster::ClusterKey;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const PASSWORD: &str = "staple-of-the-battery";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("the log").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn post(node: &Node, path: &str, headers: &str, body: &str) -> serde_json::Value {
    let call = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(node.http_addr()).await.expect("a connection");
    stream.write_all(call.as_bytes()).await.expect("taken");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    timeout(Duration::from_secs(30), read).await.expect("in time").expect("an answer");
    answer.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok()).unwrap_or_default()
}

#[tokio::test]
async fn the_log_has_no_password_token_or_key() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let folder = tempfile::tempdir().expect("a folder");
    let key = ClusterKey::generate();
    let http = Listen::Address(([127, 0, 0, 1], 0).into());
    let config = NodeConfig::new("fra", http, "http://127.0.0.1:1", folder.path().to_owned(), key.clone());
    tracing::info!(?config, ?key, "starts");
    let node = Node::start(config).await.expect("a node");

    let wish = format!(r#"{{"email":"ada@example.org","password":"{PASSWORD}","name":"Ada"}}"#);
    let made = post(&node, "/v1/accounts", "MyChat-Client: web\r\n", &wish).await;
    let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
    let (token, refresh) = (text(&made["token"]), text(&made["refresh_token"]));
    tracing::info!(app = ?node.app().keys, passwords = ?node.app().passwords, "parts");
    // Refused calls are the ones that tempt to log what was wrong.
    for (path, body) in [
        ("/v1/accounts", format!(r#"{{"email":7,"password":"{PASSWORD}"}}"#)),
        ("/v1/sessions", format!(r#"{{"email":"ada@example.org","password":["{PASSWORD}"]}}"#)),
        ("/v1/sessions", format!(r#"{{"email":"ada@example.org","password":"{PASSWORD}x"}}"#)),
        ("/v1/sessions/refresh", format!(r#"{{"refresh_token":"{refresh}x"}}"#)),
        ("/v1/sessions/refresh", format!(r#"{{"refresh_token":"{refresh}"}}"#)),
    ] {
        post(&node, path, &format!("Authorization: Bearer {token}x\r\n"), &body).await;
    }
    post(&node, "/v1/spaces", &format!("Authorization: Bearer {token}\r\n"), r#"{"name":"A"}"#).await;
    node.shutdown().await;

    let log = String::from_utf8_lossy(&log.0.lock().expect("the log")).into_owned();
    assert!(log.contains("the node serves") && log.contains("/v1/sessions/refresh"), "the log is there");
    let signature = token.rsplit('.').next().expect("a signature");
    let key = key.to_text();
    let key = key.rsplit(':').next().expect("the key");
    for (what, secret) in
        [("password", PASSWORD), ("token", signature), ("refresh token", &refresh), ("key", key)]
    {
        assert!(!log.contains(secret), "the log has the {what}");
    }
    assert!(!log.contains("mychat_session="), "the log has the cookie");
}

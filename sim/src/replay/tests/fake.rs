//! A stand-in for a cluster: some nodes over one memory, with as much of the API as a replay uses. Nodes can be killed
//! with all their connections, and come back at the same address.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;
use uuid::Uuid;

/// What the cluster does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    None,
    /// The last node delivers no message whose number ends in 7.
    Loses,
    /// The last node delivers every message whose number ends in 7 twice.
    Doubles,
    /// The last node tells a history of its own.
    Differs,
    /// Refuses bodies that contain "bad".
    Refuses,
}

pub(super) struct Memory {
    pub(super) space: Uuid,
    flaw: Flaw,
    nodes: usize,
    messages: Mutex<Vec<Value>>,
    by_client_id: Mutex<HashMap<String, usize>>,
    count: watch::Sender<usize>,
    accounts: AtomicUsize,
    /// How often each token was used for a post.
    uses: Mutex<HashMap<String, usize>>,
    /// Open event streams by node.
    streams: Vec<watch::Sender<usize>>,
}

/// A token is refused after this many posts, so that renewing is part of every test.
const USES: usize = 3;

impl Memory {
    /// Waits until this many messages are stored.
    pub(super) async fn stored(&self, count: usize) {
        self.count.subscribe().wait_for(|stored| *stored >= count).await.unwrap();
    }

    /// Waits until this many event streams are open at a node.
    pub(super) async fn streaming(&self, node: usize, count: usize) {
        self.streams[node].subscribe().wait_for(|open| *open == count).await.unwrap();
    }

    /// Stores a message, or finds it by its client id.
    pub(super) fn store(&self, body: &str, client_id: &str) -> Value {
        let mut messages = self.messages.lock().unwrap();
        let mut by_client_id = self.by_client_id.lock().unwrap();
        let number = *by_client_id.entry(client_id.to_owned()).or_insert(messages.len());
        if number == messages.len() {
            let sent_at = format!("2020-01-01T00:00:{number:06}Z");
            messages.push(json!({
                "id": Uuid::now_v7(), "space": self.space, "author": "a", "body": body, "sent_at": sent_at,
            }));
            self.count.send_replace(messages.len());
        }
        messages[number].clone()
    }
}

/// A socket for TCP that is bound to this address and doesn't listen yet.
fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

pub(super) struct Fake {
    pub(super) memory: Arc<Memory>,
    addresses: Vec<SocketAddr>,
    /// Each node's port, bound and never listened on, so that the system gives it to nobody else while the node is dead.
    _held: Vec<Socket>,
    running: Vec<Option<tokio::runtime::Runtime>>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        (0..self.running.len()).for_each(|node| self.kill(node));
    }
}

impl Fake {
    pub(super) fn start(nodes: usize, flaw: Flaw) -> Fake {
        let memory = Arc::new(Memory {
            space: Uuid::now_v7(),
            flaw,
            nodes,
            messages: Mutex::default(),
            by_client_id: Mutex::default(),
            count: watch::Sender::new(0),
            accounts: AtomicUsize::new(0),
            uses: Mutex::default(),
            streams: (0..nodes).map(|_| watch::Sender::new(0)).collect(),
        });
        let held: Vec<_> = (0..nodes).map(|_| bound(SocketAddr::from(([127, 0, 0, 1], 0)))).collect();
        let addresses = held.iter().map(|socket| socket.local_addr().unwrap().as_socket().unwrap()).collect();
        let mut fake = Fake { memory, addresses, _held: held, running: (0..nodes).map(|_| None).collect() };
        (0..nodes).for_each(|node| fake.revive(node));
        fake
    }

    pub(super) fn urls(&self) -> Vec<String> {
        self.addresses.iter().map(|address| format!("http://{address}")).collect()
    }

    /// Ends a node at once: every connection of it breaks. When this returns, nothing of it listens any more.
    ///
    /// A runtime may be waited for only from outside of every runtime, hence the thread.
    pub(super) fn kill(&mut self, node: usize) {
        if let Some(runtime) = self.running[node].take() {
            let end = std::thread::spawn(|| runtime.shutdown_timeout(Duration::from_secs(60)));
            end.join().unwrap();
        }
    }

    pub(super) fn revive(&mut self, node: usize) {
        let listener = bound(self.addresses[node]);
        listener.listen(128).unwrap();
        listener.set_nonblocking(true).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let app = routes(Node { memory: self.memory.clone(), number: node });
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener.into()).unwrap();
            axum::serve(listener, app).await
        });
        self.running[node] = Some(runtime);
    }
}

#[derive(Clone)]
struct Node {
    memory: Arc<Memory>,
    number: usize,
}

impl Node {
    fn is_flawed(&self, flaw: Flaw) -> bool {
        self.memory.flaw == flaw && self.number + 1 == self.memory.nodes
    }
}

fn routes(node: Node) -> Router {
    Router::new()
        .route("/readyz", get(|| async { "ready" }))
        .route("/v1/node", get(status))
        .route("/v1/accounts", post(sign_up))
        .route("/v1/sessions/refresh", post(refresh))
        .route("/v1/spaces", post(create_space))
        .route("/v1/spaces/{space}/members/me", put(|| async { Json(json!({})) }))
        .route("/v1/spaces/{space}/messages", get(history).post(post_message))
        .route("/v1/events", get(events))
        .with_state(node)
}

async fn status(State(node): State<Node>) -> Json<Value> {
    let peers: Vec<_> = (0..node.memory.nodes)
        .filter(|peer| *peer != node.number)
        .map(|peer| json!({"id": format!("node-{peer}"), "region": format!("r{peer}"), "rtt_ms": 2.0, "one_way_ms": 0.5}))
        .collect();
    let heads = json!({ "site": *node.memory.count.borrow() });
    Json(
        json!({"id": format!("node-{}", node.number), "region": format!("r{}", node.number), "heads": heads, "peers": peers}),
    )
}

fn session(memory: &Memory) -> Value {
    let number = memory.accounts.fetch_add(1, Ordering::Relaxed);
    json!({"token": format!("token-{number}"), "refresh_token": format!("refresh-{number}"), "expires_in": 900})
}

async fn sign_up(State(node): State<Node>, Json(body): Json<Value>) -> Response {
    assert!(body["email"].is_string() && body["password"].is_string() && body["name"].is_string());
    (StatusCode::CREATED, Json(session(&node.memory))).into_response()
}

async fn refresh(State(node): State<Node>, Json(body): Json<Value>) -> Json<Value> {
    assert!(body["refresh_token"].as_str().unwrap().starts_with("refresh-"));
    Json(session(&node.memory))
}

async fn create_space(State(node): State<Node>) -> Response {
    let answer = Json(json!({ "id": node.memory.space }));
    (StatusCode::CREATED, [("MyChat-Cursor", "0")], answer).into_response()
}

async fn post_message(State(node): State<Node>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let token = headers["authorization"].to_str().unwrap().to_owned();
    let uses = {
        let mut uses = node.memory.uses.lock().unwrap();
        let uses = uses.entry(token).or_default();
        *uses += 1;
        *uses
    };
    if uses > USES {
        return (StatusCode::UNAUTHORIZED, Json(json!({"code": "unauthorized"}))).into_response();
    }
    let text = body["body"].as_str().unwrap();
    if node.memory.flaw == Flaw::Refuses && text.contains("bad") {
        return (StatusCode::BAD_REQUEST, Json(json!({"code": "invalid_body", "detail": "bad"})))
            .into_response();
    }
    (StatusCode::CREATED, Json(node.memory.store(text, body["client_id"].as_str().unwrap()))).into_response()
}

async fn history(
    State(node): State<Node>,
    Path(_): Path<Uuid>,
    Query(query): Query<HashMap<String, String>>,
) -> Json<Value> {
    assert_eq!((query["limit"].as_str(), query["order"].as_str()), ("200", "asc"));
    // The cursor has characters that must be escaped on the way.
    let from: usize =
        query.get("cursor").map_or(0, |cursor| cursor.strip_prefix("&= ").unwrap().parse().unwrap());
    let messages = node.memory.messages.lock().unwrap();
    let mut items: Vec<Value> = messages.iter().skip(from).take(200).cloned().collect();
    if node.is_flawed(Flaw::Differs) {
        items.iter_mut().for_each(|item| item["body"] = "another".into());
    }
    let end = from + items.len();
    let next = (end < messages.len()).then(|| format!("&= {end}"));
    Json(json!({"items": items, "next": next}))
}

/// Counts a stream as long as it lives.
struct Open(Node);

impl Open {
    fn new(node: Node) -> Self {
        node.memory.streams[node.number].send_modify(|open| *open += 1);
        Self(node)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.memory.streams[self.0.number].send_modify(|open| *open -= 1);
    }
}

async fn events(State(node): State<Node>, headers: HeaderMap) -> Response {
    assert_eq!(headers["accept"], "text/event-stream");
    let count = node.memory.count.subscribe();
    let from = headers.get("last-event-id").map(|id| id.to_str().unwrap().parse().unwrap());
    let from: usize = from.unwrap_or(*count.borrow());
    let ready = format!("event: ready\ndata: {{\"cursor\": \"{from}\"}}\n\n");
    let open = Open::new(node.clone());
    let stream = futures_util::stream::unfold((from, Some(ready), open), move |(next, ready, open)| {
        let mut count = count.clone();
        let node = node.clone();
        async move {
            let (text, next) = match ready {
                Some(ready) => (ready, next),
                None => {
                    count.wait_for(|count| *count > next).await.ok()?;
                    (event(&node, next), next + 1)
                }
            };
            Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), (next, None, open)))
        }
    });
    ([("content-type", "text/event-stream")], Body::from_stream(stream)).into_response()
}

fn event(node: &Node, number: usize) -> String {
    let message = node.memory.messages.lock().unwrap()[number].clone();
    let text = format!("id: {}\nevent: message.created\ndata: {message}\n\n", number + 1);
    match number % 10 == 7 {
        true if node.is_flawed(Flaw::Loses) => ": nothing\n\n".to_owned(),
        true if node.is_flawed(Flaw::Doubles) => text.repeat(2),
        _ => text,
    }
}

//! What clients of one node see of each other.

use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::testing::{Person, TestNode};

/// A stream that is read until something comes.
struct Reader {
    body: BodyDataStream,
    text: String,
}

impl Reader {
    async fn open(node: &TestNode, person: &Person) -> Self {
        let headers = [("accept", "text/event-stream")];
        let response = node.stream("/v1/events", &person.token, &headers).await;
        let mut reader = Self { body: Body::into_data_stream(response.into_body()), text: String::new() };
        reader.until("ready").await;
        reader
    }

    /// The type and data of the next event.
    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                let kind = field("event").expect("a type").to_owned();
                assert!(kind != "presence" || field("id").is_none(), "it is not resumed");
                let data = serde_json::from_str(field("data").expect("data")).expect("JSON");
                self.text = rest.to_owned();
                return (kind, data);
            }
            let piece = self.body.next().await.expect("the stream goes on").expect("bytes");
            self.text.push_str(std::str::from_utf8(&piece).expect("text"));
        }
    }

    /// The data of the next event of a type.
    async fn until(&mut self, wanted: &str) -> Value {
        loop {
            let (kind, data) = self.next().await;
            if kind == wanted {
                return data;
            }
        }
    }
}

async fn room(node: &TestNode, owner: &Person, others: &[&Person]) -> String {
    let space = node.post("/v1/spaces", &owner.token, json!({ "name": "room" })).await.expect(201);
    let space = space["id"].as_str().expect("an id").to_owned();
    for other in others {
        let path = format!("/v1/spaces/{space}/invitations");
        node.post(&path, &owner.token, json!({ "account": other.id })).await.expect(201);
    }
    space
}

async fn online(node: &TestNode, person: &Person) -> Vec<Value> {
    let page = node.get("/v1/presence?limit=50", &person.token).await.expect(200);
    page["items"].as_array().expect("items").iter().map(|item| item["account"].clone()).collect()
}

#[tokio::test]
async fn who_shares_a_space_hears_who_comes_and_goes() {
    let node = TestNode::start();
    let (ada, bob, eve) = (node.sign_up("Ada").await, node.sign_up("Bob").await, node.sign_up("Eve").await);
    let space = room(&node, &ada, &[&bob]).await;
    let mut eves = Reader::open(&node, &eve).await;
    let mut bobs = Reader::open(&node, &bob).await;
    let adas = Reader::open(&node, &ada).await;
    assert_eq!(bobs.until("presence").await, json!({ "account": ada.id, "online": true }));
    assert_eq!(online(&node, &bob).await, [json!(ada.id)]);
    assert!(online(&node, &eve).await.is_empty(), "nobody whom she shares a space with");
    let members = node.get(&format!("/v1/spaces/{space}/members"), &bob.token).await.expect(200);
    assert!(members["items"].as_array().expect("items").iter().all(|member| member["online"] == true));

    drop(adas);
    assert_eq!(bobs.until("presence").await, json!({ "account": ada.id, "online": false }));
    let members = node.get(&format!("/v1/spaces/{space}/members"), &bob.token).await.expect(200);
    let adas =
        members["items"].as_array().expect("items").iter().find(|member| member["account"] == json!(ada.id));
    assert_eq!(adas.expect("a member")["online"], false);
    // The first that she hears is about a space of hers.
    room(&node, &eve, &[&ada]).await;
    let _adas = Reader::open(&node, &ada).await;
    assert_eq!(eves.until("presence").await, json!({ "account": ada.id, "online": true }));
}

#[tokio::test]
async fn typing_is_passed_on_once_in_a_while() {
    let node = TestNode::start();
    let (ada, bob) = (node.sign_up("Ada").await, node.sign_up("Bob").await);
    let space = room(&node, &ada, &[&bob]).await;
    let mut reader = Reader::open(&node, &bob).await;
    let path = format!("/v1/spaces/{space}/typing");
    const CALLS: usize = 20;
    for _ in 0..CALLS {
        node.post(&path, &ada.token, json!({})).await.expect(202);
    }
    let messages = format!("/v1/spaces/{space}/messages");
    node.post(&messages, &ada.token, json!({ "body": "done" })).await.expect(201);
    let mut heard = Vec::new();
    while heard.last().is_none_or(|(kind, _)| kind != "message.created") {
        heard.push(reader.next().await);
    }
    let typing: Vec<_> = heard.iter().filter(|(kind, _)| kind == "typing").map(|(_, data)| data).collect();
    assert!(typing.iter().all(|data| **data == json!({ "space": space, "account": ada.id })), "{typing:?}");
    // One, unless the machine was so slow that time has passed between them: how much has to is for `typing`'s own tests.
    assert!((1..CALLS).contains(&typing.len()), "{typing:?}");
}

#[tokio::test]
async fn under_pressure_typing_is_left_out_and_presence_waits_but_messages_never_do() {
    let node = TestNode::start();
    let (ada, bob) = (node.sign_up("Ada").await, node.sign_up("Bob").await);
    let space = room(&node, &ada, &[&bob]).await;
    let mut reader = Reader::open(&node, &bob).await;
    let (typing, messages) = (format!("/v1/spaces/{space}/typing"), format!("/v1/spaces/{space}/messages"));
    node.app.capacity.feign_pressure(true);
    let _adas = Reader::open(&node, &ada).await;
    for number in 0..20 {
        node.post(&typing, &ada.token, json!({})).await.expect(202);
        node.post(&messages, &ada.token, json!({ "body": number.to_string() })).await.expect(201);
        let (kind, data) = reader.next().await;
        assert_eq!((kind.as_str(), &data["body"]), ("message.created", &json!(number.to_string())));
    }
    // Nobody types any more, but Ada is still there: that was put off and not forgotten.
    node.app.capacity.feign_pressure(false);
    let (kind, data) = reader.next().await;
    assert_eq!((kind.as_str(), data), ("presence", json!({ "account": ada.id, "online": true })));
    node.post(&typing, &ada.token, json!({})).await.expect(202);
    assert_eq!(reader.until("typing").await, json!({ "space": space, "account": ada.id }));
}

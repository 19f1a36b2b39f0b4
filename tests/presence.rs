//! Who is there and who types, over real nodes and their datagrams.

mod cluster;

use cluster::{Account, Client, Cluster, Events, eventually};
use serde_json::{Value, json};

async fn online(node: &Client, by: &Account, space: &str, whom: &Account) -> Option<bool> {
    let members = node.get(&format!("/v1/spaces/{space}/members")).by(by).send().await.expect(200);
    let members = members["items"].as_array().expect("a list").clone();
    let member = members.iter().find(|member| member["account"] == json!(whom.id)).cloned();
    member.expect("a member")["online"].as_bool()
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_and_typing_cross_the_mesh_and_die_with_their_node() {
    let mut cluster = Cluster::start(&["fra", "iad"]).await;
    let [a, b] = &cluster.clients()[..] else { panic!("two nodes") };
    let (ada, bob, cy) = (a.sign_up("Ada").await, b.sign_up("Bob").await, b.sign_up("Cy").await);
    let eve = b.sign_up("Eve").await;
    let (space, _) = a.make_space(&ada, "Room", "private").await;
    a.invite(&ada, &space, &bob).await;
    let cursor = a.invite(&ada, &space, &cy).await;
    let path = format!("/v1/spaces/{space}");
    b.get(&path).by(&bob).header("mychat-after", &cursor).send().await.expect(200);

    // Whether Ada or Bob is first: the other hears of it.
    let mut bobs = Events::open(b, &bob, None).await;
    // A node knows of a space once it has read that somebody with a stream is in it.
    eventually("Bob's node watches the room", async || {
        (online(b, &bob, &space, &ada).await == Some(false)).then_some(())
    })
    .await;
    let mut adas = Events::open(a, &ada, None).await;
    let there = |who: &Account| json!({ "account": who.id, "online": true });
    assert_eq!(bobs.until("presence").await.data, there(&ada));
    assert_eq!(adas.until("presence").await.data, there(&bob));
    assert_eq!(online(b, &bob, &space, &ada).await, Some(true));
    let listed = b.get("/v1/presence").by(&bob).send().await.expect(200);
    assert_eq!(listed["items"], json!([there(&ada)]));
    // Who shares no space with anybody learns of nobody.
    let _eves = Events::open(b, &eve, None).await;
    assert_eq!(b.get("/v1/presence").by(&eve).send().await.expect(200)["items"], json!([]));

    a.post(&format!("{path}/typing"), Value::Null).by(&ada).send().await.expect(202);
    assert_eq!(bobs.until("typing").await.data, json!({ "space": space, "account": ada.id }));

    // Cy is at both nodes, and at one of them once the other is dead.
    let _cys = [Events::open(a, &cy, None).await, Events::open(b, &cy, None).await];
    assert_eq!(bobs.until("presence").await.data, there(&cy));
    eventually("both nodes hold Cy's streams", async || {
        let at = [a.metric("mychat_presence_here").await, b.metric("mychat_presence_here").await];
        (at == [2.0, 3.0]).then_some(())
    })
    .await;
    cluster.nodes[0].kill();
    // How soon is for the tests in virtual time.
    let gone = bobs.until("presence").await;
    assert_eq!(gone.data, json!({ "account": ada.id, "online": false }));
    assert_eq!(online(b, &bob, &space, &ada).await, Some(false));
    assert_eq!(online(b, &bob, &space, &cy).await, Some(true));
}

//! A cluster keeps strangers out: who holds another cluster's key is refused, both sides say so, and nothing passes.

mod cluster;

use cluster::{Cluster, eventually, make_key};
use serde_json::json;

/// What the log says of somebody with another key.
const REFUSED: [&str; 3] = [" WARN ", "refused", "another cluster key"];

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_clusters_key_is_refused_and_sees_nothing() {
    let mut cluster = Cluster::start(&["fra", "iad"]).await;
    let (a, b) = (cluster.client(0), cluster.client(1));
    let ada = a.sign_up("Ada").await;
    let (space, _) = a.make_space(&ada, "Ours", "public").await;
    a.say(&ada, &space, "among ourselves").await;
    cluster.agree().await;

    let key = cluster.path("other.key");
    make_key(&key).await;
    let mut stranger = cluster.node(3, "syd", &[0, 1], &key);
    stranger.start();
    let port = stranger.client.url.rsplit(':').next().expect("a port").to_owned();
    let said = stranger.process().logs(&REFUSED).await;
    assert!(said.contains("127.0.0.1:"), "it says who: {said}");
    for node in &mut cluster.nodes {
        node.process().logs(&[&REFUSED[..], &[&port]].concat()).await;
    }
    // In the end it serves as a cluster of its own, where nobody is known.
    stranger.ready().await;
    a.say(&ada, &space, "still among ourselves").await;
    cluster.agree().await;
    let alone = stranger.client.node().await;
    assert_eq!((&alone["heads"], &alone["peers"]), (&json!({}), &json!([])));
    stranger.client.get("/v1/accounts/me").by(&ada).send().await.is_problem(401, "unauthorized");
    stranger.client.sign_in(&ada).await.is_problem(401, "unauthorized");
    for node in [&a, &b] {
        let peers = node.node().await["peers"].clone();
        assert_eq!(peers.as_array().map(Vec::len), Some(1), "{peers}");
        assert_ne!(peers[0]["id"], alone["id"]);
    }
    // Neither does what it writes come over.
    let eve = stranger.client.sign_up("Eve").await;
    let (theirs, _) = stranger.client.make_space(&eve, "Theirs", "public").await;
    assert_eq!(a.history(&ada, &space).await, b.history(&ada, &space).await);
    a.get("/v1/accounts/me").by(&eve).send().await.is_problem(401, "unauthorized");
    a.get(&format!("/v1/spaces/{theirs}")).by(&ada).send().await.is_problem(404, "not_found");
    let key = std::fs::read_to_string(&key).expect("a key");
    let secret = key.trim().rsplit(':').next().expect("its secret");
    assert!(!stranger.log().contains(secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_with_another_clusters_key_learns_of_no_node() {
    let mut cluster = Cluster::start(&["fra"]).await;
    let key = cluster.path("other.key");
    make_key(&key).await;
    let mut stranger = cluster.router(1, &[0], &key);
    stranger.start();
    stranger.process().logs(&REFUSED).await;
    let port = stranger.client.url.rsplit(':').next().expect("a port").to_owned();
    cluster.nodes[0].process().logs(&[&REFUSED[..], &[&port]].concat()).await;
    let router = stranger.client.clone();
    eventually("the router answers", async || router.get("/livez").try_send().await.ok())
        .await
        .expect_text("ok\n");
    for call in [router.get("/v1/route"), router.get("/readyz"), router.get("/v1/spaces")] {
        call.send().await.is_problem(503, "unavailable");
    }
    assert_eq!(cluster.client(0).node().await["router_url"], json!(null));
    // With the right one it does.
    stranger.kill();
    let mut router = cluster.router(1, &[0], &cluster.key());
    router.restart().await;
    let route = router.client.get("/v1/route").send().await.expect(200);
    assert_eq!(route["nodes"][0]["region"], "fra");
}

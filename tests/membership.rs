//! A cluster keeps strangers out: who holds another cluster's key is refused, both sides say so, and nothing passes.
//! Its key can be replaced while it runs; its members can be seen, and taken out of service.

mod cluster;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use cluster::{Account, Cluster, POLL, Process, eventually, make_key, shown, text};
use rustix::process::Signal;
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

/// Takes a step of replacing the key, and waits until all nodes have taken it.
async fn step(cluster: &Cluster, flag: &str, keys: usize) -> Vec<String> {
    let taken = Process::run(["cluster", "key", flag, &shown(&cluster.key())]).await;
    assert_eq!(taken.code, Some(0), "{}", taken.stderr);
    let mut marks = Vec::new();
    for client in cluster.clients() {
        marks = eventually(&format!("{} has taken {flag}", client.url), async || {
            let said: Vec<String> = client.node().await["keys"].as_array()?.iter().map(text).collect();
            (said.len() == keys && taken.stdout.contains(&format!("key {} is used", said[0]))).then_some(said)
        })
        .await;
    }
    marks
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clusters_key_is_replaced_while_people_talk() {
    let mut cluster = Cluster::start(&["fra", "iad", "syd"]).await;
    let left_key = cluster.path("left-behind.key");
    std::fs::copy(cluster.key(), &left_key).expect("a copy of the key");
    let mut left = cluster.node(3, "gru", &[0, 1, 2], &left_key);
    left.restart().await;
    let a = cluster.client(0);
    let ada = a.sign_up("Ada").await;
    let (space, _) = a.make_space(&ada, "Ours", "public").await;
    cluster.agree().await;

    // Somebody talks all the time, at one node after the other.
    let token = Arc::new(Mutex::new(ada.token.clone()));
    let stop = Arc::new(AtomicBool::new(false));
    let talking = tokio::spawn({
        let (clients, space, token, stop) = (cluster.clients(), space.clone(), token.clone(), stop.clone());
        async move {
            let mut said = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let body = format!("message {}", said.len());
                let by = token.lock().expect("not poisoned").clone();
                let path = format!("/v1/spaces/{space}/messages");
                let call =
                    clients[said.len() % clients.len()].post(&path, json!({ "body": body })).token(&by);
                call.send().await.expect(201);
                said.push(body);
                tokio::time::sleep(POLL).await;
            }
            said
        }
    });

    let one = a.node().await["keys"].clone();
    let both = step(&cluster, "--rotate", 2).await;
    assert_eq!((json!([both[0]]), both.len()), (one, 2));
    let used = step(&cluster, "--use", 2).await;
    assert_eq!(used, [both[1].clone(), both[0].clone()]);
    // The session goes on, at another node, with a token of the new key.
    let b = cluster.client(1);
    b.get("/v1/accounts/me").by(&ada).send().await.expect(200);
    let again = b.post("/v1/sessions/refresh", json!({ "refresh_token": ada.refresh_token }));
    let again = again.send().await.expect(200);
    *token.lock().expect("not poisoned") = text(&again["token"]);
    let listed = b.get("/.well-known/jwks.json").send().await.expect(200);
    assert_eq!(listed["keys"].as_array().map(Vec::len), Some(2));
    // No connection is left that was made with the old key, but for those of the node that is left behind.
    let three = async || {
        for client in cluster.clients() {
            let peers = client.node().await["peers"].clone();
            let connected = peers.as_array()?.iter().filter(|peer| peer["connected"] == true);
            let regions: Vec<String> = connected.map(|peer| text(&peer["region"])).collect();
            if regions.len() != 2 || regions.iter().any(|region| region == "gru") {
                return None;
            }
        }
        Some(())
    };
    let new = step(&cluster, "--drop", 1).await;
    assert_eq!(new, [used[0].clone()]);
    eventually("the three are among themselves", three).await;

    stop.store(true, Ordering::SeqCst);
    let said = talking.await.expect("every message was taken");
    cluster.agree().await;
    let reader = Account { token: text(&again["token"]), ..ada.clone() };
    for client in cluster.clients() {
        let mut there: Vec<String> =
            client.history(&reader, &space).await.iter().map(|row| text(&row["body"])).collect();
        let mut expected = said.clone();
        there.sort();
        expected.sort();
        assert_eq!(there, expected, "all that was said, and nothing twice");
        client.get("/v1/accounts/me").by(&ada).send().await.is_problem(401, "unauthorized");
    }
    // Names are found as before.
    let c = cluster.client(2);
    c.sign_in(&ada).await.expect(201);
    let taken = json!({ "email": ada.email, "password": "another secret", "name": "Eve" });
    c.post("/v1/accounts", taken).send().await.is_problem(409, "conflict");

    // Who was left behind is refused, and both sides say so.
    left.process().logs(&REFUSED).await;
    let port = left.client.url.rsplit(':').next().expect("a port").to_owned();
    for node in &mut cluster.nodes {
        node.process().logs(&[&REFUSED[..], &[&port]].concat()).await;
        let log = node.log();
        let mut down = log.lines().filter(|line| line.contains("member down"));
        assert!(down.all(|line| line.contains("gru")), "nobody else was down: {log}");
    }
    left.kill();
    let mut back = cluster.node(3, "gru", &[0, 1, 2], &cluster.key());
    back.restart().await;
    eventually("with the new key it is back", async || {
        let peers = a.node().await["peers"].clone();
        peers
            .as_array()?
            .iter()
            .any(|peer| peer["region"] == "gru" && peer["connected"] == true)
            .then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_shown_and_drained() {
    let mut cluster = Cluster::start(&["fra", "iad"]).await;
    cluster.start_router().await;
    let urls = cluster.clients().into_iter().map(|client| client.url).collect::<Vec<_>>();
    let key = shown(&cluster.key());
    let members = async |at: &str| {
        let shown = Process::run(["cluster", "members", "--json", "--node", at]).await;
        assert_eq!(shown.code, Some(0), "{}", shown.stderr);
        serde_json::from_str::<serde_json::Value>(&shown.stdout).expect("JSON")
    };
    // What a node says of itself takes a round of gossip to the other.
    let rows = eventually("the other one is shown as ready", async || {
        let rows = members(&urls[0]).await;
        (rows[1]["ready"] == true).then_some(rows)
    })
    .await;
    assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows}");
    assert_eq!((&rows[0]["region"], &rows[1]["region"]), (&json!("fra"), &json!("iad")));
    assert!(rows[1]["rtt_ms"].is_number() && rows[1]["heard_ms"].is_number(), "{rows}");
    assert_eq!(rows[1]["state"], "alive");

    let drain = ["cluster", "drain", "iad", "--node", &urls[0], "--cluster-key", &key];
    assert_eq!(Process::run(drain).await.code, Some(0));
    cluster.client(1).get("/readyz").send().await.is_problem(503, "unavailable");
    let router = cluster.router.as_ref().expect("a router").client.clone();
    eventually("the router sends to the other one", async || {
        let route = router.get("/v1/route").send().await.expect(200);
        (route["nodes"][0]["region"] == "fra" && members(&urls[0]).await[1]["state"] == "draining")
            .then_some(())
    })
    .await;
    assert_eq!(Process::run(drain.into_iter().chain(["--undo"])).await.code, Some(0));
    cluster.client(1).get("/readyz").send().await.expect_text("ok\n");

    let other = cluster.path("other.key");
    make_key(&other).await;
    let other = shown(&other);
    for (args, words) in [
        (vec!["cluster", "drain", "iad", "--node", &urls[0], "--cluster-key", &other], "does not accept"),
        (vec!["cluster", "drain", "syd", "--node", &urls[0], "--cluster-key", &key], "no node syd"),
        (vec!["cluster", "members", "--node", "fra"], "not a URL"),
        (vec!["cluster", "members", "--node", "http://127.0.0.1:1"], "does not answer"),
        (vec!["cluster", "key", "--use", &key], "one key only"),
    ] {
        let failed = Process::run(args).await;
        assert_eq!(failed.code, Some(1), "{}", failed.stderr);
        assert!(failed.stderr.contains(words), "{}", failed.stderr);
    }

    cluster.nodes[1].kill();
    eventually("it is shown as down", async || {
        let rows = members(&urls[0]).await;
        let down = rows.as_array()?.iter().find(|row| row["region"] == "iad")?["state"] == "down";
        down.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_asked_for_its_key_while_it_starts_goes_on() {
    let mut cluster = Cluster::prepare(&["fra"], "info").await;
    let node = &mut cluster.nodes[0];
    node.start();
    let folder = node.data.clone();
    eventually("it has begun to open its database", async || folder.exists().then_some(())).await;
    node.process().signal(Signal::HUP);
    node.ready().await;
}

//! Three `mychat node` processes as one cluster: what is written at one is there at the others, whoever has died.

mod cluster;

use cluster::{Account, Answer, Client, Cluster, account, eventually, fingerprint, text};
use serde_json::{Value, json};

const REGIONS: [&str; 3] = ["fra", "iad", "syd"];

#[tokio::test(flavor = "multi_thread")]
async fn an_account_made_at_one_node_is_good_at_all_of_them_also_when_that_one_is_dead() {
    let mut cluster = Cluster::start(&REGIONS).await;
    let [a, b, c] = &cluster.clients()[..] else { panic!("three nodes") };
    let ada = a.sign_up("Ada").await;
    // By password at the second node.
    let wish = json!({ "email": ada.email, "password": ada.password });
    let again = b.post("/v1/sessions", wish).header("mychat-after", &ada.cursor).send().await;
    let again = account(again, ada.email.clone(), ada.password.clone());
    assert_eq!(again.id, ada.id);
    // By the first node's token at the third.
    let me = c.get("/v1/accounts/me").by(&ada).header("mychat-after", &ada.cursor).send().await.expect(200);
    assert_eq!((&me["id"], &me["email"]), (&json!(ada.id), &json!(ada.email)));
    assert_eq!(b.get("/v1/accounts/me").by(&ada).send().await.expect(200), me);
    let sessions =
        a.get("/v1/sessions").by(&ada).header("mychat-after", &again.cursor).send().await.expect(200);
    let regions: Vec<&Value> =
        sessions["items"].as_array().expect("a list").iter().map(|session| &session["region"]).collect();
    assert_eq!(regions, ["iad", "fra"]);
    // Nobody else gets the address, wherever they ask.
    let same = json!({ "email": ada.email, "password": "another one", "name": "Eve" });
    c.post("/v1/accounts", same).send().await.is_problem(409, "conflict");
    let keys = [a, b, c].map(|node| node.get("/.well-known/jwks.json").send());
    let keys = futures_util::future::join_all(keys).await.into_iter().map(|answer| answer.expect(200));
    let keys: Vec<Value> = keys.collect();
    assert!(
        keys.iter().all(|of_node| *of_node == keys[0]) && keys[0]["keys"][0]["crv"] == "Ed25519",
        "{keys:?}"
    );

    cluster.nodes[0].kill();
    for node in [b, c] {
        assert_eq!(node.get("/v1/accounts/me").by(&ada).send().await.expect(200), me);
        node.make_space(&ada, "Made while the home node is away", "private").await;
    }
    // Also the refresh token of the dead node.
    let refreshed = b
        .post("/v1/sessions/refresh", json!({ "refresh_token": ada.refresh_token }))
        .send()
        .await
        .expect(200);
    let token = text(&refreshed["token"]);
    assert_eq!(c.get("/v1/accounts/me").token(&token).send().await.expect(200), me);
    // Signing out at one node ends the session at the other.
    b.delete("/v1/sessions/current").by(&ada).send().await.expect(204);
    eventually("the session has ended at the other node", async || {
        let answer = c.get("/v1/accounts/me").by(&ada).send().await;
        (answer.status == 401).then(|| answer.is_problem(401, "unauthorized"))
    })
    .await;
    assert_eq!(c.get("/v1/accounts/me").by(&again).send().await.expect(200), me);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_the_same_at_every_node() {
    let cluster = Cluster::start(&REGIONS).await;
    let [a, b, c] = &cluster.clients()[..] else { panic!("three nodes") };
    let (ada, bob) = (a.sign_up("Ada").await, b.sign_up("Bob").await);
    let (space, _) = a.make_space(&ada, "Planning", "private").await;
    c.get(&format!("/v1/spaces/{space}"))
        .by(&bob)
        .header("mychat-after", &bob.cursor)
        .send()
        .await
        .is_problem(404, "not_found");
    // Right away: the node waits for an account that it has not heard of.
    let invited = a.invite(&ada, &space, &bob).await;
    let path = format!("/v1/spaces/{space}/messages");
    // Each reads at the next node what was written at the one before, at once.
    let (mut sent, mut cursor) = (Vec::new(), invited);
    for (number, (node, author)) in [(c, &bob), (a, &ada), (b, &bob)].into_iter().cycle().take(12).enumerate()
    {
        let wish = json!({ "body": format!("*line* {number}") });
        let answer = node.post(&path, wish).by(author).header("mychat-after", &cursor).send().await;
        assert_eq!(answer.header("mychat-behind"), None);
        cursor = answer.cursor();
        sent.push(answer.expect(201));
        let latest = [b, c, a][number % 3].get(&format!("{path}?order=desc&limit=1")).by(&ada);
        let latest = latest.header("mychat-after", &cursor).send().await;
        assert_eq!(latest.header("mychat-behind"), None);
        assert_eq!(latest.expect(200)["items"], json!([sent[number]]));
    }
    assert_eq!(sent[3]["html"], "<p><em>line</em> 3</p>\n");
    cluster.agree().await;
    let at = |number: usize| text(&sent[number]["sent_at"]);
    for node in [a, b, c] {
        assert_eq!(node.history(&bob, &space).await, sent);
        // From the fifth on, before the ninth; and the last three of them, latest first.
        let some = format!("{path}?since={}&until={}", at(4), at(8));
        let page = node.get(&some).by(&ada).send().await.expect(200);
        assert_eq!((page["items"].as_array(), &page["next"]), (Some(&sent[4..8].to_vec()), &Value::Null));
        let page = node.get(&format!("{some}&order=desc&limit=3")).by(&ada).send().await.expect(200);
        let latest: Vec<Value> = sent[5..8].iter().rev().cloned().collect();
        assert_eq!(page["items"], json!(latest));
        let rest = format!("{some}&order=desc&limit=3&cursor={}", text(&page["next"]));
        assert_eq!(
            node.get(&rest).by(&ada).send().await.expect(200),
            json!({ "items": [sent[4]], "next": null })
        );
    }

    let path = |number: usize| format!("{path}/{}", text(&sent[number]["id"]));
    let edited = b.patch(&path(0), json!({ "body": "changed" })).by(&bob).send().await;
    let seen = a.get(&path(0)).by(&ada).header("mychat-after", &edited.cursor()).send().await.expect(200);
    assert_eq!(seen, edited.expect(200));
    assert_eq!((&seen["body"], seen["edited_at"].is_string()), (&json!("changed"), true));
    let deleted = c.delete(&path(1)).by(&ada).send().await;
    let seen = b.get(&path(1)).by(&bob).header("mychat-after", &deleted.cursor()).send().await.expect(200);
    deleted.expect(204);
    assert_eq!((&seen["deleted"], &seen["id"]), (&json!(true), &sent[1]["id"]));
    assert!(!seen.to_string().contains("line"), "a tombstone has no text: {seen}");
    a.patch(&path(0), json!({ "body": "not mine" })).by(&ada).send().await.is_problem(403, "forbidden");
    cluster.agree().await;
    let histories =
        [a.history(&ada, &space).await, b.history(&bob, &space).await, c.history(&ada, &space).await];
    let prints = histories.map(|rows| fingerprint(&rows));
    assert!(prints.iter().all(|print| *print == prints[0]), "{prints:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_call_is_one_call_whichever_nodes_are_asked() {
    let cluster = Cluster::start(&REGIONS).await;
    let [a, b, c] = &cluster.clients()[..] else { panic!("three nodes") };
    let ada = a.sign_up("Ada").await;
    let (space, cursor) = a.make_space(&ada, "Once", "private").await;
    let path = format!("/v1/spaces/{space}/messages");
    let send = async |node: &Client, client_id: &str, after: &str| -> Answer {
        let wish = json!({ "body": format!("sent as {client_id}"), "client_id": client_id });
        node.post(&path, wish).by(&ada).header("mychat-after", after).send().await
    };
    // One after the other.
    let first = send(a, "one", &cursor).await;
    let repeat = send(b, "one", &first.cursor()).await;
    assert_eq!(repeat.expect(201), first.expect(201));
    // At the same time, when no node can know of the others.
    let mut answered = Vec::new();
    for round in 0..5 {
        let client_id = format!("together {round}");
        let (at_a, at_b, at_c) = tokio::join!(
            send(a, &client_id, &cursor),
            send(b, &client_id, &cursor),
            send(c, &client_id, &cursor)
        );
        answered.push([at_a, at_b, at_c].map(|answer| text(&answer.expect(201)["id"])));
    }
    cluster.agree().await;
    for node in [a, b, c] {
        let rows = node.history(&ada, &space).await;
        assert_eq!(rows.len(), 6, "{rows:#?}");
        for (round, ids) in answered.iter().enumerate() {
            let row = &rows[round + 1];
            assert_eq!(row["client_id"], format!("together {round}"));
            assert!(ids.contains(&text(&row["id"])), "it has an id that was answered");
            // A client that holds the other id finds the message too.
            for id in ids {
                assert_eq!(
                    node.get(&format!("{path}/{id}")).by(&ada).send().await.expect(200)["id"],
                    row["id"]
                );
            }
            assert_eq!(send(node, &format!("together {round}"), &cursor).await.expect(201)["id"], row["id"]);
        }
    }

    let keyed = async |node: &Client, name: &str, after: &str| {
        let call = node.post("/v1/spaces", json!({ "name": name })).by(&ada);
        call.header("idempotency-key", "a key of mine").header("mychat-after", after).send().await
    };
    let made = keyed(a, "Keyed", &cursor).await;
    let cursor = made.cursor();
    let made = made.expect(201);
    for node in [b, c, a] {
        assert_eq!(keyed(node, "Keyed", &cursor).await.expect(201), made);
        keyed(node, "Another", &cursor).await.is_problem(409, "idempotency_conflict");
    }
    let spaces = b.get("/v1/spaces").by(&ada).send().await.expect(200);
    assert_eq!(spaces["items"].as_array().map(Vec::len), Some(2), "{spaces}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lacks_what_the_reader_has_seen_says_so_until_it_has_it() {
    let mut cluster = Cluster::start(&REGIONS).await;
    let [a, b, _] = &cluster.clients()[..] else { panic!("three nodes") };
    let ada = a.sign_up("Ada").await;
    let (space, _) = a.make_space(&ada, "Behind", "private").await;
    cluster.agree().await;
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let sent = a.saying(&ada, &space, "nobody else has this").send().await;
    let cursor = sent.cursor();
    let sent = sent.expect(201);
    cluster.nodes[0].kill();
    cluster.nodes[1].start();
    cluster.nodes[2].start();
    cluster.nodes[1].ready().await;
    let path = format!("/v1/spaces/{space}/messages");
    let read = b.get(&path).by(&ada).header("mychat-after", &cursor).send().await;
    assert_eq!(read.header("mychat-behind"), Some("true"));
    assert_eq!(read.expect(200)["items"], json!([]));
    cluster.nodes[0].restart().await;
    eventually("the message arrives", async || {
        let read = b.get(&path).by(&ada).header("mychat-after", &cursor).send().await;
        let behind = read.header("mychat-behind").is_some();
        let items = read.expect(200)["items"].clone();
        assert_eq!(items == json!([sent]), !behind);
        (!behind).then_some(())
    })
    .await;
}

/// The regions that a router offers, best first.
async fn offered(router: &Client, query: &str) -> Vec<String> {
    let route = router.get(&format!("/v1/route{query}")).send().await.expect(200);
    let nodes = route["nodes"].as_array().expect("a list");
    for node in nodes {
        assert!(node["url"].is_string() && node["id"].is_string() && node["why"].is_string(), "{node}");
        assert!(node["load"].is_number() && !node["estimated_rtt_ms"].is_string(), "{node}");
    }
    nodes.iter().map(|node| text(&node["region"])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_sends_clients_to_the_nearest_node_that_lives() {
    let mut cluster = Cluster::start(&REGIONS).await;
    cluster.start_router().await;
    let router = cluster.router.as_ref().expect("a router").client.clone();
    for (query, order) in [
        ("?region=syd", ["syd", "iad", "fra"]),
        ("?region=fra", ["fra", "iad", "syd"]),
        ("?region=ams", ["fra", "iad", "syd"]),
        // Boston and Wollongong.
        ("?lat=42.36&lon=-71.06", ["iad", "fra", "syd"]),
        ("?lat=-34.42&lon=150.89", ["syd", "iad", "fra"]),
    ] {
        assert_eq!(offered(&router, query).await, order, "{query}");
    }
    let route = router.get("/v1/route?lat=42.36&lon=-71.06").send().await.expect(200);
    assert_eq!(route["client"], json!({ "lat": 42.36, "lon": -71.06, "source": "coordinates" }));
    assert_eq!(route["nodes"][0]["url"], cluster.nodes[1].client.url);
    for bad in ["?lat=91&lon=0", "?lat=1", "?lat=x&lon=y", "?ip=localhost", "?region=atlantis"] {
        let answer = router.get(&format!("/v1/route{bad}")).send().await;
        assert_eq!(answer.status, 400, "{bad}");
        answer.problem_code();
    }

    let path = "/v1/spaces/a%2Fb/messages?since=2024-01-01&q=%C3%BC%20x&region=syd";
    for call in [router.get(path), router.post(path, json!({ "body": "kept" })), router.delete(path)] {
        let answer = call.send().await;
        assert_eq!(answer.status, 307);
        assert_eq!(
            answer.header("location"),
            Some(format!("{}{path}", cluster.nodes[2].client.url).as_str())
        );
    }
    // A proxy in front that knows where the client is says so.
    let root = router.get("/").header("fly-region", "iad").send().await;
    assert_eq!(root.header("location"), Some(format!("{}/", cluster.nodes[1].client.url).as_str()));

    cluster.nodes[2].kill();
    gone(&router, "syd").await;
    let next_best = format!("{}{path}", cluster.nodes[1].client.url);
    assert_eq!(router.get(path).send().await.header("location"), Some(next_best.as_str()));
    assert_eq!(offered(&router, "?region=syd").await, ["iad", "fra"]);
    cluster.nodes[2].restart().await;
    eventually("the node that is back is offered again", async || {
        (offered(&router, "?region=syd").await == ["syd", "iad", "fra"]).then_some(())
    })
    .await;
    // One that stops says so before it does.
    let exit = cluster.nodes[0].stop().await;
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    gone(&router, "fra").await;
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    eventually("there is nobody left to send to", async || {
        let answer = router.get("/v1/route").send().await;
        (answer.status == 503).then(|| answer.is_problem(503, "unavailable"))
    })
    .await;
    let exit = cluster.router.as_mut().expect("a router").stop().await;
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}

async fn gone(router: &Client, region: &str) {
    eventually(&format!("{region} is not offered any more"), async || {
        (!offered(router, "").await.contains(&region.to_owned())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_can_pass_calls_on_itself() {
    let mut cluster = Cluster::start(&["fra", "iad"]).await;
    let mut router = cluster.router(2, &[0, 1], &cluster.key()).with(&["--mode", "proxy"]);
    router.restart().await;
    let through = router.client.clone();
    let ada: Account = through.sign_up("Ada").await;
    let (space, cursor) = through.make_space(&ada, "Through the router", "private").await;
    let mut stream = cluster::Events::open(&through, &ada, Some(&cursor)).await;
    let sent = through.say(&ada, &space, "and back").await;
    assert_eq!(stream.until("message.created").await.data["id"], sent["id"]);
    // Whichever node has the stream, the other takes over.
    cluster.agree().await;
    let mut open = Vec::new();
    for node in cluster.clients() {
        open.push(node.node().await["streams"]["open"].clone());
    }
    let node = open.iter().position(|open| *open == json!(1)).expect("the stream is at a node");
    assert_eq!(open[1 - node], json!(0), "and at no other");
    cluster.nodes[node].kill();
    eventually("the other node answers", async || {
        let answer = through.get(&format!("/v1/spaces/{space}/messages")).by(&ada).send().await;
        (answer.status == 200 && answer.json()["items"] == json!([sent])).then_some(())
    })
    .await;
    router.stop().await;
}

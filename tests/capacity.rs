//! What a node does at the end of what it can carry, what the operator is told of it beforehand, and the load generator
//! with which the operator can see for themselves.

mod cluster;

use std::path::Path;

use cluster::{Client, Cluster, Events, Process, eventually, shown};
use serde_json::{Value, json};

/// The streams that the node takes in the test of admission.
const MOST: usize = 3;

async fn streams(node: &Client) -> Value {
    node.node().await["streams"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn above_its_bound_a_node_sends_streams_elsewhere_and_serves_everything_else() {
    let mut cluster = Cluster::prepare(&["fra", "iad"], "info").await;
    let full = cluster.nodes.remove(0).with(&["--max-streams", &MOST.to_string()]);
    cluster.nodes.insert(0, full);
    for node in &mut cluster.nodes {
        node.start();
    }
    for node in &mut cluster.nodes {
        node.ready().await;
    }
    let [a, b] = &cluster.clients()[..] else { panic!("two nodes") };
    let ada = a.sign_up("Ada").await;
    let (space, _) = a.make_space(&ada, "Room", "private").await;
    cluster.agree().await;
    let mut readers = Vec::new();
    for _ in 0..MOST {
        readers.push(Events::open(a, &ada, None).await);
    }
    let told = eventually("the node says that it is full", async || {
        let told = streams(a).await;
        (told["load"] == json!(1.0)).then_some(told)
    })
    .await;
    assert_eq!(
        (&told["open"], &told["capacity"], &told["bound"]),
        (&json!(MOST), &json!(MOST), &json!("connections"))
    );

    // A browser is told in the stream, with whatever it has of a network to lose; a program gets the status.
    let (mut refused, goodbye) = Events::open_at(a, &ada, None, "/v1/events").await;
    assert_eq!((goodbye.kind.as_str(), &goodbye.data["reason"]), ("goodbye", &json!("unavailable")));
    assert_eq!(goodbye.data["alternatives"], json!([b.url]));
    assert!(refused.retry().is_some(), "it is told when to come back");
    assert_eq!(refused.next().await, None);
    for path in ["/v1/events", "/v1/events?poll=5"] {
        let call =
            a.get(path).by(&ada).header("accept", "text/event-stream").header("mychat-client", "fetch");
        let answer = call.send().await;
        answer.is_problem(503, "unavailable");
        assert_eq!(answer.json()["alternatives"], json!([b.url]), "{path}");
    }
    assert!(a.metric("mychat_events_refused_streams_total").await >= 3.0);

    // Those who have a stream notice nothing, and calls are answered.
    let said = a.say(&ada, &space, "full").await["id"].clone();
    for reader in &mut readers {
        assert_eq!(reader.until("message.created").await.data["id"], said);
    }
    assert_eq!(a.get("/readyz").send().await.status, 200);
    let cursor = readers[0].cursor.clone();
    let mut elsewhere = Events::open(b, &ada, Some(&cursor)).await;
    let said = a.say(&ada, &space, "to the other node").await["id"].clone();
    assert_eq!(elsewhere.until("message.created").await.data["id"], said);

    // One leaves, another one comes.
    readers.pop();
    eventually("there is room", async || (streams(a).await["open"] == json!(MOST - 1)).then_some(())).await;
    let mut late = Events::open(a, &ada, Some(&cursor)).await;
    assert_eq!(late.until("message.created").await.data["id"], said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_of_streams_that_makes_no_sense_is_refused() {
    let wrong = Process::run(["node", "--max-streams", "0"]).await;
    assert_eq!(wrong.code, Some(2));
    assert!(
        wrong.stderr.contains("--max-streams") && wrong.stderr.contains("1 to 1000000"),
        "{}",
        wrong.stderr
    );
}

/// Runs the program, which must succeed and write a report.
async fn report(args: &[&str], file: &Path) -> Value {
    let ran = Process::run(args.iter().copied().chain(["--json", &shown(file)])).await;
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    serde_json::from_slice(&std::fs::read(file).expect("a report")).expect("JSON")
}

#[track_caller]
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_generator_checks_every_stream_over_churn_stalls_and_the_death_of_a_node() {
    let mut cluster = Cluster::start(&["fra", "iad"]).await;
    let urls: Vec<String> = cluster.clients().iter().map(|client| client.url.clone()).collect();
    let pids: Vec<String> = cluster.nodes.iter_mut().map(|node| node.process().id().to_string()).collect();
    let file = cluster.path("report.json");
    let load = ["sim", "streams", "--nodes", &urls[0], &urls[1], "--clients", "60", "--size", "100"];
    let with = async |more: &[&str]| report(&[&load[..], more].concat(), &file).await;
    let clean = |report: &Value| {
        for fault in ["gaps", "doubles", "resets", "post_failed"] {
            assert_eq!(report[fault], 0, "{fault} in {report}");
        }
    };

    let steady =
        with(&["--rate", "40", "--spaces", "6", "--duration", "2s", "--pid", &pids[0], &pids[1]]).await;
    clean(&steady);
    // Each of 80 messages to the 10 readers of its space.
    assert_eq!((&steady["posted"], &steady["deliveries"]), (&json!(80), &json!(800)));
    assert_eq!((&steady["delivery_ms"]["count"], &steady["lost_streams"]), (&json!(800), &json!(0)));
    assert!(number(&steady["event_bytes"]) > 100.0 && number(&steady["server_cpu_us_per_delivery"]) > 0.0);
    assert_eq!(steady["server_processes"].as_array().map(Vec::len), Some(2));

    let churn =
        with(&["--rate", "40", "--duration", "3s", "--churn", "30", "--marks", "1s", "--pid", &pids[0]])
            .await;
    clean(&churn);
    assert!(number(&churn["returned_ms"]["count"]) >= 30.0, "{churn}");
    let marks = churn["marks"].as_array().expect("marks");
    assert!(marks.len() >= 3, "{churn}");
    let sound = |mark: &Value| number(&mark["descriptors"]) > 10.0 && number(&mark["resident"]) > 1e6;
    assert!(marks.iter().all(sound), "{churn}");

    let climb = with(&[
        "--until-p99",
        "60s",
        "--step",
        "300ms",
        "--stalled",
        "5%",
        "--posting",
        "1",
        "--rate",
        "2000",
    ]);
    let climb = climb.await;
    clean(&climb);
    let steps = climb["steps"].as_array().expect("steps");
    // Nobody posts so much one by one: the last step is one that could not keep up.
    assert!(!steps.is_empty() && steps.last().expect("a step")["held"] == false, "{climb}");
    assert_eq!(climb["stalled"], 3);

    let idle = with(&["--idle", "--duration", "1s", "--pid", &pids[0], &pids[1]]).await;
    assert_eq!((&idle["posted"], idle["server_bytes_per_stream"].is_number()), (&json!(0), true));

    let killed = with(&["--rate", "40", "--duration", "4s", "--kill", &pids[1], "--pid", &pids[0]]).await;
    clean(&killed);
    // What the dead node took is not known, so nothing is said of a delivery or a stream.
    assert_eq!(
        (&killed["server_cpu_us_per_delivery"], &killed["server_bytes_per_stream"]),
        (&Value::Null, &Value::Null)
    );
    // Half of the streams were at the node that died, and all of them came back.
    assert_eq!(
        (&killed["lost_streams"], &killed["survived_ms"]["count"]),
        (&json!(30), &json!(30)),
        "{killed}"
    );
    assert!(!cluster.nodes[1].process().is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_generator_says_what_it_lacks() {
    let gone = Process::run(["sim", "streams", "--nodes", "http://127.0.0.1:9", "--clients", "5"]).await;
    assert_eq!(gone.code, Some(1));
    assert!(gone.stderr.contains("http://127.0.0.1:9"), "{}", gone.stderr);
    let idle = Process::run(["sim", "streams", "--nodes", "http://127.0.0.1:9", "--idle"]).await;
    assert!(idle.code == Some(1) && idle.stderr.contains("--pid"), "{}", idle.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calibration_tells_what_ends_first() {
    let args = ["node", "calibrate", "--seconds", "5", "--streams", "200"];
    let told = Process::run(args.iter().copied().chain(["--json"])).await;
    assert_eq!(told.code, Some(0), "{}\n{}", told.stdout, told.stderr);
    let told: Value = serde_json::from_str(&told.stdout).expect("JSON and nothing else");
    let (machine, measured) = (&told["machine"], &told["measured"]);
    assert!(number(&machine["processors"]) >= 1.0 && number(&machine["connections"]) >= 200.0, "{told}");
    assert_eq!((&measured["streams"], &measured["bytes_per_stream"]), (&json!(200), &Value::Null));
    // 2 s of 10 messages to 200, and 2 s of 300 messages to 10.
    assert_eq!(measured["deliveries"], json!(20 * 200 + 600 * 10));
    let delivery = number(&measured["cpu_us_per_delivery"]);
    assert!(delivery > 0.0 && delivery < 100_000.0, "{told}");
    for row in told["table"].as_array().expect("a table") {
        let bounds = ["connections", "memory", "processors"].map(|name| row["bounds"][name].as_f64());
        let least = bounds.into_iter().flatten().fold(f64::INFINITY, f64::min);
        assert_eq!(number(&row["streams"]), least.floor(), "{row}");
        let name = row["bound"].as_str().expect("a name");
        assert_eq!(number(&row["bounds"][name]), least, "{row}");
    }

    let text = Process::run(args).await;
    assert_eq!(text.code, Some(0), "{}", text.stderr);
    for words in
        ["A node carries the least of", "connections:", "memory:", "processors:", "streams", "ended by"]
    {
        assert!(text.stdout.contains(words), "{words:?} is not in\n{}", text.stdout);
    }
}

//! `mychat dev`: the whole cluster in one process, as somebody uses it who tries MyChat for the first time; and the
//! help and the errors of the program.

mod cluster;

use std::{net::TcpListener, path::Path};

use cluster::{Client, Events, PATIENCE, Ports, Process, shown, text};
use rustix::process::Signal;
use serde_json::Value;

const REGIONS: [&str; 3] = ["fra", "iad", "syd"];

/// A running `mychat dev` on four ports.
struct Dev {
    process: Process,
    nodes: Vec<Client>,
    router: Client,
}

impl Dev {
    /// Starts it and waits until it says that it is ready.
    async fn start(ports: &Ports, data: &Path) -> Self {
        let process = Process::dev(ports.nth(0), data).await;
        let client = |at: usize| Client::new(&format!("http://127.0.0.1:{}", ports.nth(at)));
        Self { process, nodes: (1..=3).map(client).collect(), router: client(0) }
    }

    async fn ids(&self) -> Vec<Value> {
        let mut ids = Vec::new();
        for node in &self.nodes {
            ids.push(node.node().await["id"].clone());
        }
        ids
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_runs_three_regions_and_a_second_start_finds_everything_again() {
    let (folder, ports) = (tempfile::tempdir().expect("a folder"), Ports::take(4));
    // Made at the start.
    let data = folder.path().join("new/data");
    let dev = Dev::start(&ports, &data).await;
    let said = dev.process.stdout();
    assert!(said.contains("MyChat is ready"), "{said}");
    for (node, region) in dev.nodes.iter().zip(REGIONS) {
        assert!(said.contains(&node.url) && said.contains(region), "{said}");
        let info = node.node().await;
        assert_eq!((&info["region"], &info["ready"]), (&Value::from(region), &Value::from(true)));
        assert_eq!(info["peers"].as_array().map(Vec::len), Some(2), "{info}");
        assert!(node.is_ready().await, "{region}");
        let page = node.get("/").send().await;
        assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "{page:?}");
    }
    assert!(said.contains(&dev.router.url), "{said}");
    let route = dev.router.get("/v1/route?region=syd").send().await.expect(200);
    assert_eq!(route["nodes"][0]["url"], dev.nodes[2].url, "{route}");

    let [fra, iad, syd] = &dev.nodes[..] else { panic!("three nodes") };
    let ada = fra.sign_up("Ada").await;
    let (space, _) = fra.make_space(&ada, "World", "private").await;
    let sent = fra.saying(&ada, &space, "hello from *Frankfurt*").send().await;
    let cursor = sent.cursor();
    let sent = sent.expect(201);
    let path = format!("/v1/spaces/{space}/messages");
    let read = syd.get(&path).by(&ada).header("mychat-after", &cursor).send().await;
    assert_eq!(read.header("mychat-behind"), None);
    assert_eq!(read.expect(200)["items"], serde_json::json!([sent]));

    let mut stream = Events::open(iad, &ada, Some(&cursor)).await;
    assert_eq!(stream.retry().map(|retry| retry.is_zero()), Some(false));
    let answer = syd.say(&ada, &space, "and from Sydney").await;
    assert_eq!(stream.until("message.created").await.data["id"], answer["id"]);
    cluster::agree(&dev.nodes).await;
    let (ids, rows) = (dev.ids().await, fra.history(&ada, &space).await);
    assert_eq!(rows.len(), 2);

    dev.process.signal(Signal::INT);
    let goodbye = stream.until("goodbye").await;
    assert_eq!(text(&goodbye.data["reason"]), "draining");
    assert!(goodbye.data["alternatives"].is_array(), "{goodbye:?}");
    assert_eq!(stream.next().await, None, "nothing comes after the goodbye");
    let exit = dev.process.exit(PATIENCE).await;
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);

    let dev = Dev::start(&ports, &data).await;
    assert_eq!(dev.ids().await, ids, "the nodes are the same as before");
    for node in &dev.nodes {
        // Also the token is still good: the cluster's key is in the folder.
        assert_eq!(node.history(&ada, &space).await, rows);
    }
    // The position in the stream has outlived all nodes.
    let mut stream = Events::open(&dev.nodes[2], &ada, Some(&cursor)).await;
    assert_eq!(stream.until("message.created").await.data["id"], answer["id"]);
    let exit = dev.process.stop().await;
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}

/// The one line that says what is wrong.
#[track_caller]
fn complaint(exit: &cluster::Exit) -> String {
    assert!(exit.code.is_some_and(|code| code != 0), "it should fail: {exit:?}");
    assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    let lines: Vec<&str> = exit.stderr.lines().filter(|line| line.starts_with("mychat: ")).collect();
    assert_eq!(lines.len(), 1, "one line says it:\n{}", exit.stderr);
    assert_eq!(exit.stderr.trim_end().lines().last(), Some(lines[0]), "it is the last one:\n{}", exit.stderr);
    lines[0].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_start_says_so_in_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ports, data) = (Ports::take(8), folder.path().join("data"));
    let running = Dev::start(&ports, &data).await;
    let others = |at: usize| ports.nth(at).to_string();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").expect("written");
    let fresh = shown(&folder.path().join("fresh"));
    let taken = TcpListener::bind(("127.0.0.1", ports.nth(6))).expect("a free port");
    let (data, file, free) = (shown(&data), shown(&file), others(4));
    let cases: [(&[&str], &[&str]); 8] = [
        (&["--port", &others(0), "--data", &fresh], &["127.0.0.1:", "in use"]),
        // The second node's.
        (&["--port", &free, "--data", &fresh], &[&others(6), "in use"]),
        (&["--port", "0", "--data", &fresh, "--regions", "fra,atlantis"], &["--regions", "atlantis"]),
        (&["--port", "0", "--data", &fresh, "--regions", "fra,fra"], &["--regions", "once"]),
        (&["--port", "0", "--data", &fresh, "--regions", ""], &["--regions"]),
        (&["--port", "0", "--data", &data], &[&data]),
        (&["--port", "0", "--data", &file], &["--data", &file]),
        (&["--config", &fresh, "--port", "0"], &["--config", &fresh]),
    ];
    for (args, words) in cases {
        let exit = Process::run([&["dev"], args].concat()).await;
        let line = complaint(&exit);
        assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {line}");
    }
    drop(taken);
    // The one that was there first has noticed nothing.
    for node in &running.nodes {
        assert!(node.is_ready().await);
    }
    assert_eq!(running.process.stop().await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_of_servers_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (key, bad) = (shown(&folder.path().join("key")), shown(&folder.path().join("bad")));
    cluster::make_key(Path::new(&key)).await;
    std::fs::write(&bad, "not a key").expect("written");
    let data = shown(&folder.path().join("data"));
    let address = "127.0.0.1:0";
    let node = ["node", "--region", "fra", "--http", address, "--mesh", address, "--data", &data];
    let whole = [&node[..], &["--public-url", "http://127.0.0.1:1", "--cluster-key", &key]].concat();
    let router = ["router", "--http", address, "--mesh", address, "--cluster-key", &key];
    let replaced = |flag: &str, value: &str| {
        let mut args: Vec<String> = whole.iter().map(|arg| (*arg).to_owned()).collect();
        let at = args.iter().position(|arg| arg == flag).expect("the flag is given");
        args[at + 1] = value.to_owned();
        args
    };
    let cases = [
        (node.iter().map(|arg| (*arg).to_owned()).collect(), "--public-url"),
        (replaced("--region", "Frank furt"), "--region"),
        (replaced("--http", "8080"), "--http"),
        (replaced("--mesh", "nowhere"), "--mesh"),
        (replaced("--public-url", "chat.example"), "--public-url"),
        (replaced("--cluster-key", &bad), "cluster key"),
        (replaced("--cluster-key", "/nonexistent/key"), "/nonexistent/key"),
        (replaced("--data", &bad), &bad),
        (router.iter().map(|arg| (*arg).to_owned()).collect(), "--peer"),
    ];
    for (args, word) in cases {
        let line = complaint(&Process::run(&args).await);
        assert!(line.contains(word), "{word}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_runs_nothing_before_its_settings_are_good() {
    let folder = tempfile::tempdir().expect("a folder");
    let (key, none) = (shown(&folder.path().join("key")), shown(&folder.path().join("none")));
    cluster::make_key(Path::new(&key)).await;
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let taken = taken.local_addr().expect("an address").to_string();
    let (free, peer) = ("127.0.0.1:0", "127.0.0.1:9");
    let router = ["router", "--mesh", free, "--peer", peer, "--cluster-key", &key, "--http"];
    let cases: [(&[&str], &str); 2] = [(&[free, "--geoip", &none], &none), (&[&taken], &taken)];
    for (args, word) in cases {
        let exit = Process::run([&router, args].concat()).await;
        assert!(complaint(&exit).contains(word), "{exit:?}");
        assert_eq!(exit.stderr.trim_end().lines().count(), 1, "nothing is said before: {exit:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn help_names_every_command_and_setting_of_the_contract() {
    let cases: [(&[&str], &[&str]); 9] = [
        (&[], &["dev", "node", "router", "cluster", "sim", "admin", "--config", "MYCHAT_CONFIG"]),
        (&["dev"], &["--regions", "--port", "--data", "--no-delay", "fra,iad,syd", "8080", "./mychat-data"]),
        (
            &["node"],
            &[
                "--region",
                "--http",
                "--mesh",
                "--public-url",
                "--data",
                "--peer",
                "--cluster-key",
                "MYCHAT_REGION",
            ],
        ),
        (
            &["router"],
            &[
                "--http",
                "--mesh",
                "--peer",
                "--cluster-key",
                "--geoip",
                "--mode",
                "redirect",
                "proxy",
                "fly-replay",
            ],
        ),
        (&["cluster"], &["key", "members"]),
        (&["sim"], &["replay"]),
        (&["sim", "replay"], &["--irc", "--rate", "--nodes"]),
        (&["admin"], &["import"]),
        (&["admin", "import"], &["--irc", "--space"]),
    ];
    for (command, names) in cases {
        let exit = Process::run([command, &["--help"]].concat()).await;
        assert_eq!((exit.code, exit.stderr.as_str()), (Some(0), ""), "{command:?}");
        for name in names {
            assert!(exit.stdout.contains(name), "{command:?} does not name {name}:\n{}", exit.stdout);
        }
    }
}

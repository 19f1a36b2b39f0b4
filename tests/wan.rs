//! `mychat sim wan`: whole processes in network namespaces. Needs root, TUN devices and iproute2, hence the feature
//! `namespaces`; without them these tests fail.

mod cluster;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cluster::{Account, Client, Events, Process, Program, agree, eventually, fingerprint, make_key, shown};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

const REGIONS: &str = "[[region]]\nname = \"fra\"\n[[region]]\nname = \"iad\"\n[[region]]\nname = \"syd\"\n";

/// A running network.
struct Wan {
    process: Process,
    number: String,
    folder: TempDir,
}

impl Wan {
    /// Starts a topology with this command in each region, and waits until the network is up.
    async fn start(topology: &str, command: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self::start_in(folder, topology, command).await
    }

    async fn start_in(folder: TempDir, topology: &str, command: &[&str]) -> Self {
        let file = folder.path().join("wan.toml");
        std::fs::write(&file, topology).expect("written");
        let mut args = vec!["sim".to_owned(), "wan".to_owned(), shown(&file), "--".to_owned()];
        args.extend(command.iter().map(|word| (*word).to_owned()));
        let mut process = Process::start(&args);
        let number = eventually("the network is up", async || {
            let running = process.is_running();
            let said = process.stdout();
            let number = said.lines().find_map(|line| line.split_once("--run ")?.1.split(' ').next());
            assert!(number.is_some() || running, "it has ended:\n{}", process.stderr());
            number.map(str::to_owned)
        })
        .await;
        Self { process, number, folder }
    }

    /// Gives an order.
    async fn order(&self, order: &str) -> String {
        let words = ["sim", "wan-ctl", "--run", &self.number].into_iter().chain(order.split(' '));
        let exit = Process::run(words).await;
        assert_eq!(exit.code, Some(0), "{order}: {}", exit.stderr);
        exit.stdout
    }

    async fn status(&self) -> Value {
        serde_json::from_str(&self.order("status json").await).expect("JSON")
    }

    /// The address of a region.
    async fn address(&self, region: &str) -> String {
        let status = self.status().await;
        let regions = status["regions"].as_array().expect("regions");
        let found = regions.iter().find(|place| place["name"] == region).expect("a region of this name");
        found["address"].as_str().expect("an address").to_owned()
    }

    /// A figure of the link between two regions.
    async fn link(&self, from: &str, to: &str, figure: &str) -> u64 {
        let status = self.status().await;
        let links = status["links"].as_array().expect("links");
        let found = links.iter().find(|link| link["from"] == from && link["to"] == to).expect("a link");
        found[figure].as_u64().expect("a figure")
    }

    /// What is there of it on the machine.
    fn namespaces(&self) -> Vec<PathBuf> {
        namespaces(&self.number)
    }
}

fn namespaces(number: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Vec::new() };
    let all = entries.map(|entry| entry.expect("an entry").path());
    all.filter(|path| path.to_string_lossy().contains(&format!("/mychat-wan-{number}-"))).collect()
}

/// Whether a process runs, other than as a dead one that nobody has asked after.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

/// What is left of a run once it has ended.
fn assert_gone(number: &str) {
    assert_eq!(namespaces(number), Vec::<PathBuf>::new());
    for left in [
        format!("/run/mychat-wan/{number}.sock"),
        format!("/run/mychat-wan/{number}.lock"),
        format!("/sys/class/net/mcwan{number}"),
    ] {
        assert!(!Path::new(&left).exists(), "{left}");
    }
}

/// Posts at one node and waits for it at another; returns how long that took.
async fn carried(from: &Client, author: &Account, to: &mut Events, space: &str, text: &str) -> Duration {
    let start = Instant::now();
    from.say(author, space, text).await;
    loop {
        let event = to.until("message.created").await;
        if event.data["body"] == text {
            return start.elapsed();
        }
    }
}

#[tokio::test]
async fn nodes_are_apart_cut_off_and_come_together_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (key, data) = (folder.path().join("cluster.key"), folder.path().join("{region}"));
    make_key(&key).await;
    let (program, key, data) = (shown(&Program::default().path), shown(&key), shown(&data));
    let topology = format!(
        "host = true\n[defaults]\ndelay = \"20ms\"\n{REGIONS}[[link]]\nbetween = [\"fra\", \"syd\"]\ndelay = \"60ms\"\n"
    );
    let command: [&str; 16] = [
        &program,
        "node",
        "--region",
        "{region}",
        "--http",
        "{address}:8080",
        "--mesh",
        "{address}:4000",
        "--public-url",
        "http://{address}:8080",
        "--data",
        &data,
        "--peer",
        "{peers:4000}",
        "--cluster-key",
        &key,
    ];
    let wan = Wan::start_in(folder, &topology, &command).await;
    let mut clients = Vec::new();
    for region in ["fra", "iad", "syd"] {
        let client = Client::new(&format!("http://{}:8080", wan.address(region).await));
        client.ready().await;
        clients.push(client);
    }
    let (fra, syd) = (&clients[0], &clients[2]);
    let author = fra.sign_up("Anna").await;
    let (space, _) = fra.make_space(&author, "wan", "public").await;
    agree(&clients).await;

    let mut events = Events::open(syd, &author, None).await;
    let took = carried(fra, &author, &mut events, &space, "over the ocean").await;
    assert!(took >= Duration::from_millis(60), "{took:?}");
    wan.order("delay fra syd 250ms").await;
    let took = carried(fra, &author, &mut events, &space, "by a longer way").await;
    assert!(took >= Duration::from_millis(250), "{took:?}");
    wan.order("reset").await;

    assert_eq!(wan.link("fra", "syd", "cut").await, 0);
    wan.order("partition syd").await;
    fra.say(&author, &space, "here").await;
    syd.say(&author, &space, "there").await;
    eventually("packets meet the cut", async || {
        (wan.link("fra", "syd", "cut").await > 0 && wan.link("syd", "iad", "cut").await > 0).then_some(())
    })
    .await;
    let has = |history: &[Value], text: &str| history.iter().any(|message| message["body"] == text);
    let (here, there) = (fra.history(&author, &space).await, syd.history(&author, &space).await);
    assert!(has(&here, "here") && !has(&here, "there"), "{here:?}");
    assert!(has(&there, "there") && !has(&there, "here"), "{there:?}");

    wan.order("heal").await;
    agree(&clients).await;
    let mut histories = Vec::new();
    for client in &clients {
        histories.push(client.history(&author, &space).await);
    }
    assert!(has(&histories[1], "here") && has(&histories[1], "there"));
    let prints: Vec<String> = histories.iter().map(|history| fingerprint(history)).collect();
    assert!(prints.iter().all(|print| *print == prints[0]), "{histories:?}");

    let Wan { process, number, folder: _folder } = wan;
    let exit = process.stop().await;
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.stderr.contains("fra | "), "{}", exit.stderr);
    assert_gone(&number);
}

#[tokio::test]
async fn what_a_killed_run_leaves_is_gone_with_it_or_the_next() {
    let command = ["sh", "-c", "echo pid $$ in $MYCHAT_REGION at $MYCHAT_WAN_ADDRESS; exec sleep 1000"];
    let mut wan = Wan::start(REGIONS, &command).await;
    let pids = eventually("three processes run", async || {
        let said = wan.process.stdout();
        let pid = |line: &str| Some(line.split_once("pid ")?.1.split(' ').next()?.to_owned());
        let pids: Vec<String> = said.lines().filter_map(pid).collect();
        (pids.len() == 3).then_some(pids)
    })
    .await;
    assert!(wan.process.stdout().contains("in iad at 10.77.0.2"), "{}", wan.process.stdout());
    assert_eq!(wan.namespaces().len(), 3);
    wan.process.kill();
    eventually("its processes are gone", async || pids.iter().all(|pid| !runs(pid)).then_some(())).await;
    // Whatever run begins next removes the namespaces, so it may be that of another test.
    let next = Wan::start(REGIONS, &["true"]).await;
    assert_eq!(wan.namespaces().len(), 0);
    let number = next.number.clone();
    let exit = next.process.exit(cluster::PATIENCE).await;
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_gone(&number);
    assert_gone(&wan.number);
}

#[tokio::test]
async fn two_networks_do_not_get_into_each_others_way() {
    let topology = format!("host = true\n{REGIONS}");
    let command = ["sleep", "1000"];
    let (one, two) = tokio::join!(Wan::start(&topology, &command), Wan::start(&topology, &command));
    assert_ne!(one.address("fra").await, two.address("fra").await);
    one.order("partition fra iad").await;
    let cut = |status: &Value| {
        status["links"].as_array().expect("links").iter().any(|link| link["partitioned"] == true)
    };
    assert!(cut(&one.status().await) && !cut(&two.status().await));
    // Ctrl-C ends one, an order the other.
    one.process.signal(Signal::INT);
    two.order("stop").await;
    for Wan { process, number, .. } in [one, two] {
        let exit = process.exit(cluster::PATIENCE).await;
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        assert_gone(&number);
    }
}

#[tokio::test]
async fn failures_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wan.toml");
    let run = async |topology: &str, command: &[&str]| {
        std::fs::write(&file, topology).expect("written");
        let file = shown(&file);
        Process::run(["sim", "wan", &file, "--"].into_iter().chain(command.iter().copied())).await
    };
    for (topology, command, says) in [
        (
            "[[region]]\nname = \"nowhere\"\n[[region]]\nname = \"fra\"\n",
            &["true"][..],
            "wan.toml: line 2: nowhere",
        ),
        (REGIONS, &["echo", "{address:nrt}"][..], "\"nrt\""),
        (REGIONS, &["/no/such/program"][..], "/no/such/program can't be started"),
        (REGIONS, &["sh", "-c", "exit 3"][..], "sh in fra has ended (exit status: 3)"),
        (
            "host = true\nnetwork = \"10.77.0.0/28\"\n[[region]]\nname = \"fra\"\naddress = \"10.77.0.14\"\n",
            &["true"][..],
            "10.77.0.14",
        ),
    ] {
        let exit = run(topology, command).await;
        assert_eq!(exit.code, Some(1), "{topology} {command:?}");
        assert!(exit.stderr.contains(says), "{}", exit.stderr);
    }
    let exit = Process::run(["sim", "wan-ctl", "--run", "1", "status"]).await;
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("mychat: "), "{}", exit.stderr);
}

#[tokio::test]
async fn without_the_rights_it_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wan.toml");
    std::fs::write(&file, REGIONS).expect("written");
    let mychat = Program::default().path;
    let output = std::process::Command::new("setpriv")
        .args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin", "--"])
        .arg(mychat)
        .args(["sim", "wan", &shown(&file), "--", "true"])
        .output()
        .expect("setpriv of util-linux runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert!(said.contains("CAP_NET_ADMIN"), "{said}");
}

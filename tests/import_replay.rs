//! `mychat admin import` and `mychat sim replay` on running nodes, with made-up logs, also while nodes and the
//! importer are killed.

mod cluster;

use std::{
    fs,
    path::{Path, PathBuf},
};

use cluster::{
    Account, Client, Cluster, Exit, Process, Server, eventually, fingerprint, make_key, shown, text,
};
use serde_json::{Value, json};

const REGIONS: [&str; 3] = ["fra", "iad", "syd"];

/// The command that imports files through a node.
fn import(node: &Client, key: &Path, space: &str, files: &[PathBuf]) -> Vec<String> {
    let mut args = vec!["admin".to_owned(), "import".to_owned(), "--irc".to_owned()];
    args.extend(files.iter().map(|file| shown(file)));
    let flags = ["--space", space, "--node", &node.url, "--cluster-key", &shown(key)];
    args.extend(flags.map(str::to_owned));
    args
}

/// Joins the public space of this name; its id.
async fn join(node: &Client, reader: &Account, name: &str) -> String {
    let path = "/v1/spaces?visibility=public&limit=200";
    let space = eventually(&format!("there is a space {name:?}"), async || {
        let spaces = node.get(path).by(reader).send().await.expect(200);
        let space =
            spaces["items"].as_array()?.iter().find(|space| text(&space["name"]).starts_with(name))?;
        Some(text(&space["id"]))
    })
    .await;
    let member = format!("/v1/spaces/{space}/members/me");
    node.put(&member, json!({ "role": "member" })).by(reader).send().await.expect(201);
    space
}

fn bodies(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| text(&row["body"])).collect()
}

/// The number in front of some words of a text.
#[track_caller]
fn number(said: &str, words: &str) -> usize {
    let before = said.find(words).map(|at| said[..at].trim_end());
    let number = before.and_then(|before| before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    number.unwrap_or_else(|| panic!("no number before {words:?}: {said}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_become_a_space_with_its_people_and_times() {
    let cluster = Cluster::start(&["fra", "iad"]).await;
    let (a, b) = (cluster.client(0), cluster.client(1));
    let first: &[u8] = b"=== topic is dirt\r\n[09:59] <Wizard> it begins\r\n[10:00] <@zcat[1]> caf\xe9 \xff\r\n\
        [10:00]  * wizard waves\r\n[10:00] === somebody has joined #ubuntu\r\n\r\nno time here\r\n[25:61] <a> when\r\n\
        [10:01] nobody says this\r\n[10:02] <quiet>   \r\n[10:03] -bot:#ubuntu- a notice\r\n[23:59] <zcat[1]> night";
    let second = format!(
        "[00:00] <WIZARD> morning\n[00:01] <w\u{3}4> colours\n[00:02] <long> {}\n",
        "x".repeat(70_000)
    );
    let files = [("2006-03-05.log", first), ("2006-03-06.log", second.as_bytes())].map(|(name, content)| {
        let file = cluster.path(name);
        fs::write(&file, content).expect("written");
        file
    });
    let command = import(&a, &cluster.key(), "Old days", &files);
    let exit = Process::run(&command).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let said = &exit.stdout;
    // One speaker's name can't be an account's.
    assert_eq!(number(said, "messages imported"), 5, "{said}");
    assert_eq!(number(said, "joins, parts and other notices"), 3, "{said}");
    assert_eq!(number(said, "lines had bytes that are not UTF-8"), 1, "{said}");
    assert_eq!(number(said, "lines could not be imported"), 7, "{said}");
    for named in ["05.log:6", "05.log:7", "05.log:8", "05.log:9", "05.log:10", "06.log:2", "06.log:3"] {
        assert!(said.contains(named), "{named} is not named: {said}");
    }

    let reader = b.sign_up("Reader").await;
    let space = join(&b, &reader, "Old days").await;
    assert!(said.contains(&space), "{said}");
    cluster.agree().await;
    let rows = b.history(&reader, &space).await;
    assert_eq!(bodies(&rows), ["it begins", "caf\u{fffd} \u{fffd}", "_waves_", "night", "morning"]);
    assert_eq!(a.history(&reader, &space).await, rows);
    let times: Vec<String> = rows.iter().map(|row| text(&row["sent_at"])).collect();
    assert!(times.is_sorted(), "{times:?}");
    for (time, minute) in times.iter().zip(["05T09:59", "05T10:00", "05T10:00", "05T23:59", "06T00:00"]) {
        assert!(time.starts_with(&format!("2006-03-{minute}:0")), "{time} is not in the minute {minute}");
    }
    // The history from a date on.
    let from = format!("/v1/spaces/{space}/messages?since=2006-03-05T10:00:00Z&until=2006-03-06");
    let page = b.get(&from).by(&reader).send().await.expect(200);
    assert_eq!(bodies(page["items"].as_array().expect("a list")), bodies(&rows[1..4]));
    // One person, however the name was spelt.
    assert_eq!((&rows[0]["author"], &rows[2]["author"]), (&rows[4]["author"], &rows[4]["author"]));
    assert_ne!(rows[0]["author"], rows[1]["author"]);
    let who =
        b.get(&format!("/v1/accounts/{}", text(&rows[1]["author"]))).by(&reader).send().await.expect(200);
    assert_eq!(who["name"], "zcat[1]");

    // Again, also through another node: nothing is added.
    for node in [&a, &b] {
        let exit = Process::run(&import(node, &cluster.key(), "Old days", &files)).await;
        assert_eq!(exit.code, Some(0), "{exit:?}");
        assert_eq!(number(&exit.stdout, "messages imported"), 0, "{exit:?}");
        assert_eq!(number(&exit.stdout, "were there already"), 5, "{exit:?}");
        cluster.agree().await;
        assert_eq!(b.history(&reader, &space).await, rows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_can_not_be_made_says_why() {
    let cluster = Cluster::start(&["fra"]).await;
    let node = cluster.client(0);
    let (other, log, undated) =
        (cluster.path("other.key"), cluster.path("2006-03-05.log"), cluster.path("log.txt"));
    make_key(&other).await;
    fs::write(&log, "[10:00] <a> hello\n").expect("written");
    fs::write(&undated, "[10:00] <a> hello\n").expect("written");
    let files = [log.clone()];
    let (closed, nowhere) = (Client::new("http://127.0.0.1:9"), Client::new("fra"));
    for (command, words) in [
        (import(&node, &other, "X", &files), vec!["--cluster-key", "other.key", "401", "token"]),
        (import(&node, &cluster.path("none"), "X", &files), vec!["--cluster-key", "none"]),
        (import(&node, &log, "X", &files), vec!["--cluster-key", "cluster key"]),
        (import(&node, &cluster.key(), "X", &[undated]), vec!["log.txt", "YYYY-MM-DD.log"]),
        (import(&node, &cluster.key(), "X", &[cluster.path("2006-03-06.log")]), vec!["2006-03-06.log"]),
        (
            import(&node, &cluster.key(), "X", &[cluster.path("2026-02-30.log")]),
            vec!["2026-02-30.log", "day"],
        ),
        (import(&node, &cluster.key(), "\u{7}", &files), vec!["--space", "control characters"]),
        (import(&node, &cluster.key(), "", &files), vec!["--space", "1 to 100"]),
        (import(&nowhere, &cluster.key(), "X", &files), vec!["--node", "fra"]),
        (import(&closed, &cluster.key(), "X", &files), vec!["does not answer"]),
    ] {
        let exit = Process::run(&command).await;
        let last = exit.stderr.trim_end().lines().last().unwrap_or_default();
        assert!(exit.code.is_some_and(|code| code != 0) && last.starts_with("mychat: "), "{exit:?}");
        assert!(words.iter().all(|word| last.contains(word)), "{words:?}: {last}");
        // Only what may go better the next time is to be tried again.
        assert_eq!(last.contains("resumes"), last.contains("does not answer"), "{last}");
    }
    let key = fs::read_to_string(&other).expect("a key");
    assert!(!cluster.nodes[0].log().contains(key.trim().rsplit(':').next().expect("its secret")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_goes_to_the_node_that_the_router_names() {
    let mut cluster = Cluster::start(&["fra", "iad"]).await;
    cluster.start_router().await;
    let router = cluster.router.as_ref().expect("it runs").client.clone();
    let log = cluster.path("2006-03-05.log");
    fs::write(&log, "[10:00] <a> hello\n").expect("written");
    let exit = Process::run(&import(&router, &cluster.key(), "Routed", &[log])).await;
    assert_eq!((exit.code, number(&exit.stdout, "messages imported")), (Some(0), 1), "{exit:?}");
}

/// A log with this many lines, of a few people.
fn write_log(file: &Path, lines: usize) {
    let minutes = 24 * 60;
    let line = |number: usize| {
        let minute = number * minutes / lines;
        let said = format!("line {number} of what was said, with some words after it");
        format!("[{:02}:{:02}] <nick{}> {said}\n", minute / 60, minute % 60, number % 7)
    };
    fs::write(file, (0..lines).map(line).collect::<String>()).expect("written");
}

/// How much a node holds, over all sites.
async fn size(node: &Client) -> u64 {
    let heads = node.heads().await.expect("the node answers");
    heads.as_object().expect("a map").values().filter_map(Value::as_u64).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_breaks_off_is_resumed_by_the_same_command() {
    const LINES: usize = 3000;
    let mut cluster = Cluster::start(&["fra", "iad"]).await;
    let (a, b) = (cluster.client(0), cluster.client(1));
    let files: Vec<PathBuf> = (1..=2).map(|day| cluster.path(&format!("2010-10-0{day}.log"))).collect();
    files.iter().for_each(|file| write_log(file, LINES));
    let command = import(&a, &cluster.key(), "Resumed", &files);
    let ended = async |mut importer: Process| -> Exit {
        assert!(importer.is_running(), "it was too fast to be disturbed: {}", importer.stdout());
        importer.exit(2 * cluster::PATIENCE).await
    };

    // The importer dies, twice.
    for _ in 0..2 {
        let before = size(&a).await;
        let mut importer = Process::start(&command);
        eventually("the import goes on", async || (size(&a).await > before + 3).then_some(())).await;
        assert!(importer.is_running(), "it was too fast to be disturbed: {}", importer.stdout());
        importer.kill();
    }
    // The node dies under the importer, which tries on.
    let before = size(&a).await;
    let importer = Process::start(&command);
    eventually("the import goes on", async || (size(&a).await > before + 3).then_some(())).await;
    cluster.nodes[0].kill();
    cluster.nodes[0].restart().await;
    let exit = ended(importer).await;
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let (new, known) =
        (number(&exit.stdout, "messages imported"), number(&exit.stdout, "were there already"));
    assert_eq!(new + known, 2 * LINES, "{exit:?}");
    assert!(known > 0, "nothing was left of the imports before: {exit:?}");

    let reader = b.sign_up("Reader").await;
    let space = join(&b, &reader, "Resumed").await;
    cluster.agree().await;
    let rows = b.history(&reader, &space).await;
    let wanted: Vec<String> = (0..2)
        .flat_map(|_| {
            (0..LINES).map(|number| format!("line {number} of what was said, with some words after it"))
        })
        .collect();
    assert_eq!(rows.len(), wanted.len());
    assert!(bodies(&rows) == wanted, "the lines are in another order");
    assert_eq!(fingerprint(&a.history(&reader, &space).await), fingerprint(&rows));
}

/// The command that replays a log over nodes.
fn replay(nodes: &[Client], log: &Path, rate: &str, report: &Path) -> Vec<String> {
    let mut args: Vec<String> =
        ["--log", "info", "sim", "replay", "--irc", &shown(log), "--rate", rate, "--max-speakers", "6"]
            .map(str::to_owned)
            .to_vec();
    args.extend(["--json".to_owned(), shown(report), "--nodes".to_owned()]);
    args.extend(nodes.iter().map(|node| node.url.clone()));
    args
}

/// Fails unless the replay found no fault, and the nodes say the same when asked by somebody else.
async fn is_clean(exit: &Exit, report: &Path, lines: usize, nodes: &[Client]) -> Value {
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let report: Value = serde_json::from_slice(&fs::read(report).expect("a report")).expect("JSON");
    assert_eq!((&report["lines"], &report["accepted"]), (&json!(lines), &json!(lines)), "{report:#}");
    assert_eq!((&report["unanswered"], &report["equal"]), (&json!(0), &json!(true)), "{report:#}");
    assert_eq!((rows(&report, "observers"), rows(&report, "nodes")), (nodes.len(), nodes.len()));
    for observer in report["observers"].as_array().expect("a list") {
        let faults = [&observer["lost"], &observer["doubled"], &observer["resets"]];
        assert_eq!(faults, [&json!(0); 3], "{report:#}");
        // More than the lines, when a node died between keeping a line and saying so: the line came twice to be, and
        // was made one.
        assert!(observer["received"].as_u64() >= u64::try_from(lines).ok(), "{report:#}");
    }
    for node in report["nodes"].as_array().expect("a list") {
        assert_eq!((&node["missing"], &node["repeated"]), (&json!(0), &json!(0)), "{report:#}");
    }
    cluster::agree(nodes).await;
    let reader = nodes[0].sign_up("Reader").await;
    let space = join(&nodes[0], &reader, "replay-").await;
    cluster::agree(nodes).await;
    let mut prints = Vec::new();
    for node in nodes {
        let rows = node.history(&reader, &space).await;
        assert_eq!(rows.len(), lines);
        prints.push(fingerprint(&rows));
    }
    assert!(prints.iter().all(|print| *print == prints[0]), "{prints:?}");
    report
}

fn rows(report: &Value, what: &str) -> usize {
    report[what].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_finds_nothing_lost_doubled_or_unequal() {
    const LINES: usize = 300;
    let cluster = Cluster::start(&REGIONS).await;
    let (log, report) = (cluster.path("2011-01-01.log"), cluster.path("report.json"));
    write_log(&log, LINES);
    let exit = Process::run(&replay(&cluster.clients(), &log, "100", &report)).await;
    let report = is_clean(&exit, &report, LINES, &cluster.clients()).await;
    // Every pair of regions has its figures, and people can read them.
    let pairs = report["pairs"].as_array().expect("a list");
    for (from, to) in REGIONS.iter().flat_map(|from| REGIONS.iter().map(move |to| (from, to))) {
        let pair = pairs.iter().find(|pair| pair["from"] == **from && pair["to"] == **to);
        let pair = pair.unwrap_or_else(|| panic!("nothing is said of {from} to {to}: {report:#}"));
        assert!(pair["delivery_p50_ms"].is_number() && pair["delivery_p99_ms"].is_number(), "{pair}");
        assert!(pair["count"].as_u64() > Some(0), "{pair}");
        assert!(exit.stdout.contains(from) && exit.stdout.contains(to), "{}", exit.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_over_a_node_that_is_killed_still_finds_nothing_lost() {
    const LINES: usize = 600;
    let mut cluster = Cluster::start(&REGIONS).await;
    let nodes = cluster.clients();
    let (log, report) = (cluster.path("2011-01-01.log"), cluster.path("report.json"));
    write_log(&log, LINES);
    let mut running = Process::start(replay(&nodes, &log, "80", &report));
    running.logs(&["posting the lines"]).await;
    let go_on = async |by: u64| {
        let before = size(&nodes[0]).await;
        eventually("the replay goes on", async || (size(&nodes[0]).await >= before + by).then_some(())).await;
    };
    go_on(100).await;
    cluster.nodes[1].kill();
    go_on(60).await;
    cluster.nodes[1].restart().await;
    go_on(100).await;
    assert!(running.is_running(), "the replay was over before the node was back");
    let exit = running.exit(3 * cluster::PATIENCE).await;
    let report = is_clean(&exit, &report, LINES, &nodes).await;
    let reconnects =
        report["observers"].as_array().expect("a list").iter().filter_map(|row| row["reconnects"].as_u64());
    assert!(reconnects.sum::<u64>() > 0, "an observer had to read elsewhere: {report:#}");
    assert!(cluster.nodes.iter_mut().map(Server::process).all(Process::is_running));
}

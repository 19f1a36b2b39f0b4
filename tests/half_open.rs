//! A client that vanishes without a word, as one whose phone lost its network: nothing ends its connection but what the node
//! sends and nobody acknowledges. In a network namespace of its own, for which one has to be root.

mod cluster;

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use cluster::{Client, Cluster, Events, POLL, Ports, Process, eventually, shown};
use serde_json::json;

/// A stream begins at once; the rest is for a busy machine.
const BEGUN: Duration = Duration::from_secs(60);
/// A ping comes within 15 s, and may be unacknowledged for 40 s; the rest is for a busy machine.
const FOUND: Duration = Duration::from_secs(120);

fn ip(args: &[&str]) {
    let ran = Command::new("ip").args(args).output().expect("ip is installed (apt install iproute2)");
    assert!(ran.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&ran.stderr));
}

/// A namespace with a cable to it. Dropping it removes both.
struct Far {
    name: String,
    near: String,
    far: String,
    address: String,
}

impl Far {
    fn make() -> Self {
        let number = std::process::id();
        let (name, near, far) = (format!("mychat-{number}"), format!("mc{number}a"), format!("mc{number}b"));
        let net = format!("10.213.{}", number % 250);
        ip(&["netns", "add", &name]);
        let made = Self { name, near, far, address: format!("{net}.1") };
        ip(&["link", "add", &made.near, "type", "veth", "peer", "name", &made.far, "netns", &made.name]);
        ip(&["addr", "add", &format!("{net}.1/30"), "dev", &made.near]);
        ip(&["link", "set", &made.near, "up"]);
        ip(&["-n", &made.name, "addr", "add", &format!("{net}.2/30"), "dev", &made.far]);
        ip(&["-n", &made.name, "link", "set", &made.far, "up"]);
        made
    }

    /// Pulls the cable.
    fn cut(&self) {
        ip(&["-n", &self.name, "link", "set", &self.far, "down"]);
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.near]).output();
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// A reader in the namespace. Dropping it kills it.
struct FarReader(Child);

impl FarReader {
    /// Opens a stream, and waits for its first event.
    fn open(far: &Far, port: u16, token: &str) -> Self {
        let script = format!(
            "exec 3<>/dev/tcp/{}/{port}; printf 'GET /v1/events HTTP/1.1\\r\\nHost: a\\r\\nAccept: text/event-stream\\r\\n\
             Authorization: Bearer %s\\r\\n\\r\\n' \"$0\" >&3; exec cat <&3",
            far.address
        );
        let mut child = Command::new("ip")
            .args(["netns", "exec", &far.name, "bash", "-c", &script, token])
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip runs");
        let mut out = child.stdout.take().expect("a pipe");
        let reader = Self(child);
        let (saying, heard) = mpsc::channel();
        // It ends with the reader.
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(size @ 1..) = out.read(&mut piece) {
                let _ = saying.send(String::from_utf8_lossy(&piece[..size]).into_owned());
            }
        });
        let (mut said, until) = (String::new(), Instant::now() + BEGUN);
        while !said.contains("event: ready") {
            let left = until.saturating_duration_since(Instant::now());
            match heard.recv_timeout(left) {
                Ok(piece) => said.push_str(&piece),
                Err(error) => panic!("no stream: {error}: {said}"),
            }
        }
        reader
    }
}

impl Drop for FarReader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanished_without_a_word_is_found_by_the_ping() {
    let far = Far::make();
    let cluster = Cluster::prepare(&[], "info").await;
    let ports = Ports::take(1);
    let port = ports.nth(0);
    let (http, mesh) = (format!("{}:{port}", far.address), format!("127.0.0.1:{port}"));
    let (url, data, key) = (format!("http://{http}"), shown(&cluster.path("data")), shown(&cluster.key()));
    let _node = Process::start([
        "node",
        "--region",
        "fra",
        "--http",
        &http,
        "--mesh",
        &mesh,
        "--public-url",
        &url,
        "--data",
        &data,
        "--cluster-key",
        &key,
    ]);
    let node = Client::new(&url);
    node.ready().await;
    let ada = node.sign_up("Ada").await;
    let (space, _) = node.make_space(&ada, "Room", "private").await;
    let mut near = Events::open(&node, &ada, None).await;
    let _gone: Vec<FarReader> = (0..3).map(|_| FarReader::open(&far, port, &ada.token)).collect();
    let open = async || node.node().await["streams"]["open"].clone();
    eventually("all streams are open", async || (open().await == json!(4)).then_some(())).await;

    far.cut();
    let cut = Instant::now();
    while open().await != json!(1) {
        assert!(cut.elapsed() < FOUND, "clients that have gone are still on the books");
        tokio::time::sleep(POLL).await;
    }
    // Who is there has noticed nothing.
    let said = node.say(&ada, &space, "still here").await;
    assert_eq!(near.until("message.created").await.data["id"], said["id"]);
}

//! Event streams through Debian's nginx with `docker/nginx.conf`, over TLS with both versions of HTTP; and the load
//! generator's comparison with nchan, a module of nginx. Needs both on the machine; `.ci/run` installs them.

mod cluster;

use std::{
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use base64::Engine;
use cluster::{Account, Client, Cluster, PATIENCE, Ports, Process, eventually, shown};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mychat_sim::sse::Parser;
use rustix::process::{Pid, Signal, kill_process};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

/// The name in the configuration.
const HOST: &str = "fra.chat.example";

/// nginx, with the certificate that its clients know. Dropping it ends it.
struct Nginx {
    child: std::process::Child,
    port: u16,
    tls: Arc<ClientConfig>,
    _ports: Ports,
}

/// The version of HTTP between client and nginx.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Version {
    One,
    Two,
}

impl Nginx {
    /// In front of a node, with the configuration as it is shipped but for ports and files.
    async fn start(node: &Client, folder: &Path) -> Self {
        let ports = Ports::take(1);
        let port = ports.nth(0);
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).expect("a certificate");
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, pem("CERTIFICATE", made.cert.der())).expect("written");
        std::fs::write(&key, pem("PRIVATE KEY", &made.signing_key.serialize_der())).expect("written");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a root");

        let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docker/nginx.conf"));
        let mut site = shipped.expect("the configuration");
        let upstream = node.url.strip_prefix("http://").expect("a URL");
        for (was, is) in [
            ("127.0.0.1:8080", upstream.to_owned()),
            ("listen 443", format!("listen 127.0.0.1:{port}")),
            ("/etc/letsencrypt/live/fra.chat.example/fullchain.pem", shown(&certificate)),
            ("/etc/letsencrypt/live/fra.chat.example/privkey.pem", shown(&key)),
        ] {
            assert!(site.contains(was), "{was} is no more in the configuration");
            site = site.replace(was, &is);
        }
        let (config, dir) = (folder.join("nginx.conf"), shown(folder));
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temp: String = temp.iter().map(|name| format!("{name}_temp_path {dir}/{name};")).collect();
        let main = format!(
            "{user} daemon off; pid {dir}/nginx.pid; error_log stderr warn; worker_processes 1;\n\
             worker_shutdown_timeout 1s; events {{ worker_connections 512; }}\n\
             http {{ access_log off; {temp}\n{site}\n}}\n"
        );
        std::fs::write(&config, main).expect("written");
        let mut command = std::process::Command::new("nginx");
        command.args(["-p", &dir, "-c", &shown(&config)]).stdin(Stdio::null());
        let child = command.spawn().expect("nginx is installed (apt install nginx)");

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut nginx = Self { child, port, tls: Arc::new(tls), _ports: ports };
        eventually("nginx listens", async || {
            assert!(nginx.child.try_wait().expect("a child").is_none(), "nginx has ended");
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        nginx
    }

    /// Sends a call on a connection of its own.
    async fn call(&self, version: Version, mut request: Request<Full<bytes::Bytes>>) -> Response<Incoming> {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols =
            vec![if version == Version::Two { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let name = ServerName::try_from(HOST).expect("a name");
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).await.expect("a connection");
        let stream = tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.expect("TLS");
        let io = TokioIo::new(stream);
        let answer = async {
            match version {
                Version::One => {
                    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
                    tokio::spawn(connection);
                    sender.send_request(request).await
                }
                Version::Two => {
                    // The host is a part of the address here.
                    request.headers_mut().remove("host");
                    let whole = format!("https://{HOST}{}", request.uri());
                    *request.uri_mut() = whole.parse().expect("an address");
                    let (mut sender, connection) =
                        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
                    tokio::spawn(connection);
                    sender.send_request(request).await
                }
            }
        };
        timeout(PATIENCE, answer).await.expect("an answer in time").expect("an answer")
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("nginx is there to be told");
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM ends the workers too. One that has ended by itself can't be told, and its number may be another's.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

/// The text form of a certificate or key (RFC 7468).
fn pem(what: &str, bytes: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n"))
}

fn request(
    method: &str,
    path: &str,
    who: &Account,
    headers: &[(&str, &str)],
    body: &Value,
) -> Request<Full<bytes::Bytes>> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", HOST)
        .header("authorization", format!("Bearer {}", who.token));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    request.body(Full::from(body)).expect("a request")
}

/// A stream through nginx.
struct Reader {
    answer: Response<Incoming>,
    parser: Parser,
    cursor: String,
}

impl Reader {
    async fn open(nginx: &Nginx, version: Version, who: &Account, cursor: &str) -> Self {
        let mut headers = vec![("accept", "text/event-stream")];
        if !cursor.is_empty() {
            headers.push(("last-event-id", cursor));
        }
        let answer = nginx.call(version, request("GET", "/v1/events", who, &headers, &Value::Null)).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-type"]),
            (200, &"text/event-stream".parse().expect("a value"))
        );
        let mut reader = Self { answer, parser: Parser::new(), cursor: String::new() };
        assert_eq!(reader.next().await.expect("a first event").0, "ready");
        reader
    }

    /// The next event that is no ping; none at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(event) = self.parser.next_event() {
                self.cursor.clone_from(&event.id);
                if event.kind != "ping" {
                    return Some((event.kind, serde_json::from_str(&event.data).expect("JSON")));
                }
                continue;
            }
            let piece = timeout(PATIENCE, self.answer.frame()).await.expect("never silent for long");
            let data = piece?.ok()?.into_data().unwrap_or_default();
            self.parser.push(&data).expect("events of a sensible size");
        }
    }

    async fn hears(&mut self, id: &Value) {
        let (kind, data) = self.next().await.expect("the stream goes on");
        assert_eq!((kind.as_str(), &data["id"]), ("message.created", id));
    }
}

async fn json_of(answer: Response<Incoming>, status: u16) -> Value {
    assert_eq!(answer.status().as_u16(), status);
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    serde_json::from_slice(&body).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn events_pass_through_nginx_one_by_one_and_a_reload_loses_none() {
    let cluster = Cluster::start(&["fra"]).await;
    let (node, folder) = (cluster.client(0), tempfile::tempdir().expect("a folder"));
    let nginx = Nginx::start(&node, folder.path()).await;
    let ada = node.sign_up("Ada").await;
    let (space, _) = node.make_space(&ada, "Room", "private").await;
    let messages = format!("/v1/spaces/{space}/messages");

    for version in [Version::One, Version::Two] {
        let mut reader = Reader::open(&nginx, version, &ada, "").await;
        // Each is there before the next one is said: nothing is held back until there is more.
        for number in 0..20 {
            let said = node.say(&ada, &space, &number.to_string()).await;
            reader.hears(&said["id"]).await;
        }
        // A call on the same way.
        let wish = json!({ "body": "through nginx" });
        let said = nginx.call(version, request("POST", &messages, &ada, &[], &wish)).await;
        reader.hears(&json_of(said, 201).await["id"]).await;

        // The long poll waits for what happens, and has it at once.
        let path = format!("/v1/events?poll=25&cursor={}", reader.cursor);
        let (polled, said) = tokio::join!(
            nginx.call(version, request("GET", &path, &ada, &[], &Value::Null)),
            node.say(&ada, &space, "for the poll")
        );
        let polled = json_of(polled, 200).await;
        assert_eq!(polled["events"][0]["data"]["id"], said["id"], "{polled}");
        reader.hears(&said["id"]).await;

        let closed = nginx.call(version, request("GET", "/metrics", &ada, &[], &Value::Null)).await;
        assert_eq!(closed.status().as_u16(), 403, "metrics are not for the world");
    }
    eventually("nginx passes on that clients have gone", async || {
        (node.node().await["streams"]["open"] == json!(0)).then_some(())
    })
    .await;
    let mut first = Reader::open(&nginx, Version::One, &ada, "").await;
    let mut second = Reader::open(&nginx, Version::Two, &ada, "").await;
    // The node has both in a reactor: each came on a connection of its own.
    eventually("the streams have settled", async || {
        (node.metric("mychat_events_streams").await == 2.0).then_some(())
    })
    .await;

    // A reload: nginx lets the old worker's streams go, and the clients go on from their cursors.
    nginx.signal(Signal::HUP);
    let reopened = AtomicUsize::new(0);
    let writing = async {
        let (mut said, began) = (Vec::new(), Instant::now());
        // Until both have lost their streams and gone on; what is said meanwhile must not be lost.
        while reopened.load(Ordering::Relaxed) < 2 {
            assert!(began.elapsed() < PATIENCE, "the reload ends no stream");
            said.push(node.say(&ada, &space, "around the reload").await["id"].clone());
        }
        said.push(node.say(&ada, &space, "last").await["id"].clone());
        said
    };
    let reading = async |reader: &mut Reader, version: Version| {
        let (mut heard, mut lost) = (Vec::new(), 0);
        loop {
            match reader.next().await {
                Some((kind, data)) if kind == "message.created" => {
                    heard.push(data["id"].clone());
                    if data["body"] == "last" {
                        return (heard, lost);
                    }
                }
                Some(_) => {}
                None => {
                    let cursor = reader.cursor.clone();
                    *reader = Reader::open(&nginx, version, &ada, &cursor).await;
                    lost += 1;
                    if lost == 1 {
                        reopened.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    };
    let (said, one, two) =
        tokio::join!(writing, reading(&mut first, Version::One), reading(&mut second, Version::Two));
    for (heard, lost) in [one, two] {
        assert_eq!(heard, said, "every message once and in order");
        assert!(lost >= 1, "the reload has ended the stream");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_generator_compares_with_nchan_and_a_bare_loop() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = shown(&folder.path().join("report.json"));
    let load = ["--clients", "30", "--spaces", "3", "--rate", "30", "--duration", "2s", "--rounds", "1"];
    let command = ["sim", "streams", "--peer", "nchan", "--json", &file];
    let ran = Process::run(command.into_iter().chain(load)).await;
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    let report: Value = serde_json::from_slice(&std::fs::read(&file).expect("a report")).expect("JSON");
    let rounds = report["rounds"].as_array().expect("rounds");
    let systems: Vec<&Value> = rounds.iter().map(|turn| &turn["system"]).collect();
    assert_eq!(systems, ["mychat", "nchan", "send-loop", "durable-loop"]);
    let sizes: Vec<u64> = rounds.iter().filter_map(|turn| turn["report"]["event_bytes"].as_u64()).collect();
    for turn in rounds {
        let report = &turn["report"];
        assert_eq!((&report["deliveries"], &report["gaps"]), (&json!(600), &json!(0)), "{turn}");
        let bytes = report["event_bytes"].as_u64().expect("a size");
        assert!(bytes.abs_diff(sizes[0]) < 32, "equally long events: {sizes:?}");
    }
}

/// A stream over TLS by the load generator, too.
#[tokio::test(flavor = "multi_thread")]
async fn the_load_generator_holds_streams_over_tls() {
    let mut cluster = Cluster::start(&["fra"]).await;
    let (node, folder) = (cluster.client(0), tempfile::tempdir().expect("a folder"));
    let nginx = Nginx::start(&node, folder.path()).await;
    let (front, pid) = (format!("127.0.0.1:{}", nginx.port), cluster.nodes[0].process().id().to_string());
    let file = shown(&folder.path().join("report.json"));
    let load = ["--clients", "40", "--rate", "20", "--duration", "2s", "--pid", &pid, "--json", &file];
    let command = ["sim", "streams", "--nodes", &node.url, "--tls", &front];
    let ran = Process::run(command.into_iter().chain(load)).await;
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.stdout, ran.stderr);
    let report: Value = serde_json::from_slice(&std::fs::read(&file).expect("a report")).expect("JSON");
    assert_eq!((&report["deliveries"], &report["lost_streams"]), (&json!(1600), &json!(0)), "{report}");
}

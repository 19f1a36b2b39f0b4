//! Probes of real nodes in this process.

use std::net::Ipv4Addr;
use std::sync::Arc;

use indicatif::ProgressDrawTarget;
use mychat_node::{Listen, Node, NodeConfig};
use mychat_replication::cluster::ClusterKey;
use mychat_router::RouterConfig;
use mychat_router::nodes::Candidate;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A node with its own database.
struct Running {
    node: Node,
    url: String,
    _folder: tempfile::TempDir,
}

async fn node() -> Running {
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let data = folder.path().to_owned();
    let config = NodeConfig::new("fra", Listen::Socket(listener), &url, data, ClusterKey::generate());
    Running { node: Node::start(config).await.unwrap(), url, _folder: folder }
}

fn args(urls: &[&str]) -> ProbeArgs {
    ProbeArgs {
        nodes: urls.iter().map(|url| url.parse().unwrap()).collect(),
        router: None,
        at: None,
        count: 5,
        ca: None,
        json: false,
    }
}

async fn probe(args: &ProbeArgs, trust: &Trust) -> ProbeReport {
    let progress = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
    super::probe(args, trust, &progress).await.unwrap()
}

fn figures(report: &ProbeReport, at: usize) -> &Figures {
    match &report.nodes[at].outcome {
        Outcome::Figures(figures) => figures,
        Outcome::Error(error) => panic!("{error}"),
    }
}

/// How many accounts still have a profile, and how many spaces are open, in the node's own tables.
async fn left_behind(running: &Running) -> (i64, i64) {
    let count = |sql: &'static str| async move {
        let read = running
            .node
            .app()
            .store
            .read(move |db| Ok::<_, anyhow::Error>(db.query_row(sql, [], |row| row.get::<_, i64>(0))?));
        read.await.unwrap()
    };
    (
        count("SELECT count(*) FROM local_account WHERE active = 1").await,
        count("SELECT count(*) FROM local_space WHERE deleted = 0").await,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_timed_and_left_as_it_was() {
    let running = node().await;
    let report = probe(&args(&[&running.url]), &Trust::new(Vec::new()).unwrap()).await;
    assert!(report.is_whole(), "{report}");
    let found = figures(&report, 0);
    assert_eq!((found.region.as_str(), found.tls_ms), ("fra", None));
    assert_eq!((found.echo.count, found.acknowledgement.count), (5, 5));
    assert!(found.echo.p50_ms > 0.0 && found.echo.p99_ms >= found.echo.p50_ms);
    assert!(found.connect_ms > 0.0 && found.first_byte_ms > 0.0);
    let text = report.to_string();
    assert!(text.contains(&running.url) && text.contains("fra"), "{text}");
    assert_eq!(left_behind(&running).await, (0, 0));
    running.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routers_choice_is_shown_beside_the_fastest() {
    let (near, far) = (node().await, "http://127.0.0.1:1".to_owned());
    let candidate = |region: &str, url: &str| Candidate {
        id: region.to_owned(),
        region: region.to_owned(),
        url: url.to_owned(),
        alive: true,
        ready: true,
        draining: false,
        load: 0.0,
        streams: None,
        version: None,
    };
    let nodes = vec![candidate("fra", &near.url), candidate("syd", &far)];
    let config = RouterConfig::new((Ipv4Addr::LOCALHOST, 0).into());
    let router = mychat_router::serve(config, move || nodes.clone(), std::future::pending()).await.unwrap();
    let mut args = args(&[&far, &near.url]);
    args.router = Some(format!("http://{}", router.local_addr()).parse().unwrap());
    args.at = Point::new(-33.9, 151.2);
    let report = probe(&args, &Trust::new(Vec::new()).unwrap()).await;
    // Nothing listens at the one in Sydney.
    assert!(!report.is_whole());
    assert!(matches!(&report.nodes[0].outcome, Outcome::Error(error) if error.contains("127.0.0.1:1")));
    let chosen = report.router.as_ref().unwrap();
    assert_eq!((chosen.node.as_deref(), chosen.region.as_deref()), (Some(far.as_str()), Some("syd")));
    assert_eq!(chosen.fastest.as_deref(), Some(near.url.as_str()));
    args.at = Point::new(50.0, 8.0);
    let report = probe(&args, &Trust::new(Vec::new()).unwrap()).await;
    assert!(report.to_string().contains("It is the fastest of them"), "{report}");
    near.node.shutdown().await;
}

/// Takes TLS off in front of a node, as a proxy would.
async fn with_tls(running: &Running) -> (Target, CertificateDer<'static>) {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.into())
            .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = running.node.http_addr();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate goes away.
                let Ok(mut outer) = acceptor.accept(stream).await else { return };
                let mut inner = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
            });
        }
    });
    (format!("https://localhost:{port}").parse().unwrap(), certificate)
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_timed_and_only_what_is_trusted_is_spoken_to() {
    let running = node().await;
    let (target, certificate) = with_tls(&running).await;
    let mut args = args(&[]);
    args.nodes = vec![target];
    let report = probe(&args, &Trust::new(vec![certificate]).unwrap()).await;
    let found = figures(&report, 0);
    assert!(found.tls_ms.is_some_and(|tls| tls > 0.0) && found.echo.count == 5);
    let report = probe(&args, &Trust::new(Vec::new()).unwrap()).await;
    assert!(
        matches!(&report.nodes[0].outcome, Outcome::Error(error) if error.contains("TLS handshake failed")),
        "{report}"
    );
    running.node.shutdown().await;
}

#[test]
fn points_and_certificates_are_checked() {
    assert_eq!(parse_point("-33.9, 151.2").unwrap(), Point::new(-33.9, 151.2).unwrap());
    for bad in ["", "1", "91,0", "a,b"] {
        assert!(parse_point(bad).is_err(), "{bad}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, "nothing").unwrap();
    assert!(certificates(&file).unwrap_err().to_string().contains("no certificate"));
    assert!(certificates(&folder.path().join("none")).is_err());
}

//! The router over real sockets: what clients get from it in each mode.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use mychat_router::nodes::Candidate;
use mychat_router::{Mode, RouterConfig, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Long enough for the slowest machine; only a failing test waits for it.
const DEADLINE: Duration = Duration::from_secs(20);

fn node(region: &str, url: &str) -> Candidate {
    Candidate {
        id: format!("node-{region}"),
        region: region.to_owned(),
        url: url.to_owned(),
        alive: true,
        ready: true,
        draining: false,
        load: 0.0,
        streams: None,
        version: None,
    }
}

fn three() -> Vec<Candidate> {
    ["fra", "iad", "syd"].map(|region| node(region, &format!("https://{region}.example"))).to_vec()
}

/// A router on nodes that the test may change.
struct Router {
    address: SocketAddr,
    nodes: Arc<Mutex<Vec<Candidate>>>,
}

impl Router {
    async fn start(nodes: Vec<Candidate>, mode: Mode) -> Router {
        Self::with(nodes, |config| config.mode = mode).await
    }

    async fn with(nodes: Vec<Candidate>, change: impl FnOnce(&mut RouterConfig)) -> Router {
        let nodes = Arc::new(Mutex::new(nodes));
        let mut config = RouterConfig::new(([127, 0, 0, 1], 0).into());
        change(&mut config);
        let seen = nodes.clone();
        let serving =
            serve(config, move || seen.lock().unwrap().clone(), std::future::pending()).await.unwrap();
        Router { address: serving.local_addr(), nodes }
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Response {
        let mut request =
            http::Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        let answer = tokio::time::timeout(DEADLINE, client.request(request.body(body).unwrap()));
        answer.await.expect("the router answers").unwrap().map(Body::new)
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path, &[], Body::empty()).await
    }

    /// Sends bytes as they are and reads until the router closes.
    async fn raw(&self, bytes: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("an answer").unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

async fn json(response: Response) -> serde_json::Value {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("not JSON: {bytes:?}"))
}

async fn problem(response: Response, status: u16, code: &str) {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    let body = json(response).await;
    assert_eq!((&body["status"], &body["code"]), (&status.into(), &code.into()), "{body}");
    for field in ["type", "title", "detail"] {
        assert!(body[field].is_string(), "{field} in {body}");
    }
}

fn location(response: &Response) -> &str {
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    response.headers()[header::LOCATION].to_str().unwrap()
}

#[tokio::test]
async fn the_list_is_best_first_and_says_what_it_took_for_the_place() {
    let router = Router::start(three(), Mode::Redirect).await;
    let by_region = router.get("/v1/route?region=syd").await;
    assert_eq!(by_region.status(), StatusCode::OK);
    assert_eq!(by_region.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    let by_region = json(by_region).await;
    assert_eq!(by_region["client"]["source"], "region");
    assert_eq!(by_region["nodes"][0]["url"], "https://syd.example");
    assert_eq!(by_region["nodes"].as_array().unwrap().len(), 3);
    for field in ["id", "region", "url", "estimated_rtt_ms", "load", "why"] {
        assert!(!by_region["nodes"][0][field].is_null(), "{field}");
    }
    let by_place = json(router.get("/v1/route?lat=-34.4&lon=150.9").await).await;
    assert_eq!(by_place["nodes"][0]["region"], "syd");
    assert_eq!(by_place["client"], serde_json::json!({"lat": -34.4, "lon": 150.9, "source": "coordinates"}));
    let by_nothing = json(router.get("/v1/route").await).await;
    assert_eq!(by_nothing["client"], serde_json::json!({"lat": null, "lon": null, "source": "none"}));
    let hint = router.ask(Method::GET, "/v1/route", &[("fly-region", "iad")], Body::empty()).await;
    let hint = json(hint).await;
    assert_eq!((&hint["client"]["source"], &hint["nodes"][0]["region"]), (&"header".into(), &"iad".into()));
}

#[tokio::test]
async fn bad_queries_and_methods_are_the_clients_error() {
    let router = Router::start(three(), Mode::Redirect).await;
    problem(router.get("/v1/route?lat=91&lon=0").await, 400, "invalid_query").await;
    problem(router.get("/v1/route?lat=%ff&lon=%00").await, 400, "invalid_query").await;
    problem(router.get("/v1/route?region=atlantis").await, 400, "unknown_region").await;
    for path in ["/v1/route", "/livez", "/readyz", "/status"] {
        let refused = router.ask(Method::POST, path, &[], Body::from("x")).await;
        assert!(refused.headers()[header::ALLOW].to_str().unwrap().contains("GET"), "{path}");
        problem(refused, 405, "method_not_allowed").await;
    }
    let preflight =
        router.ask(Method::OPTIONS, "/v1/route", &[("origin", "http://a.example")], Body::empty()).await;
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    assert_eq!(preflight.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    let star = router.raw("OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(star.starts_with("HTTP/1.1 400"), "{star}");
    let connect =
        router.raw("CONNECT evil.example:443 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(connect.starts_with("HTTP/1.1 400"), "{connect}");
    let garbage = router.raw("\x01\x02\r\n\r\n").await;
    assert!(garbage.starts_with("HTTP/1.1 400"), "{garbage}");
}

#[tokio::test]
async fn a_redirect_keeps_path_and_query_and_never_leaves_the_nodes() {
    let router = Router::start(three(), Mode::Redirect).await;
    let path = "/v1/spaces/a%2Fb/messages?since=2024-01-01&q=%C3%A9+x&region=syd";
    assert_eq!(location(&router.get(path).await), format!("https://syd.example{path}"));
    assert_eq!(location(&router.get("/?lat=50&lon=8").await), "https://fra.example/?lat=50&lon=8");
    // Names that mean something else here are not this request's error.
    assert!(
        location(&router.get("/v1/x?region=atlantis&lat=1").await).ends_with("/v1/x?region=atlantis&lat=1")
    );
    let post = router.ask(Method::POST, "/v1/accounts", &[("fly-region", "iad")], Body::from("{}")).await;
    assert_eq!(location(&post), "https://iad.example/v1/accounts");
    assert!(location(&router.get("//evil.example/").await).contains(".example//evil.example/"));
    let absolute = router
        .raw("GET http://evil.example/x HTTP/1.1\r\nHost: a\r\nFly-Region: fra\r\nConnection: close\r\n\r\n");
    let absolute = absolute.await;
    assert!(absolute.contains("location: https://fra.example/x\r\n"), "{absolute}");
}

#[tokio::test]
async fn fly_replay_names_the_region() {
    let router = Router::start(three(), Mode::FlyReplay).await;
    let answer = router.get("/v1/spaces?region=syd").await;
    assert_eq!(answer.headers()["fly-replay"], "region=syd");
    assert_eq!(location(&answer), "https://syd.example/v1/spaces?region=syd");
}

#[tokio::test]
async fn without_a_usable_node_everything_is_unavailable_until_one_is_ready() {
    let router =
        Router::start(vec![Candidate { ready: false, ..node("fra", "http://fra.example") }], Mode::Redirect)
            .await;
    for path in ["/v1/route", "/readyz", "/", "/v1/spaces"] {
        let answer = router.get(path).await;
        assert!(answer.headers().contains_key(header::RETRY_AFTER), "{path}");
        problem(answer, 503, "unavailable").await;
    }
    assert_eq!(router.get("/livez").await.status(), StatusCode::OK);
    router.nodes.lock().unwrap()[0].ready = true;
    assert_eq!(router.get("/readyz").await.status(), StatusCode::OK);
    assert_eq!(location(&router.get("/").await), "http://fra.example/");
    let page = router.get("/status").await.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&page).contains("Frankfurt"));
}

/// A node: runs `answer` for each request.
async fn upstream<F, A>(answer: F) -> String
where
    F: Fn(Request) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

/// The URL of a port where nothing listens.
async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn the_proxy_passes_requests_and_answers_on_without_hop_by_hop_headers() {
    let url = upstream(|request: Request| async move {
        let (parts, body) = request.into_parts();
        let seen = parts.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        let seen: std::collections::BTreeMap<_, _> = seen.collect();
        let body = body.collect().await.unwrap().to_bytes();
        let answer = serde_json::json!({
            "path": parts.uri.to_string(), "method": parts.method.as_str(), "headers": seen, "length": body.len(),
        });
        let headers = [("x-kept", "yes"), ("connection", "x-dropped"), ("x-dropped", "no"), ("keep-alive", "timeout=5")];
        (StatusCode::CREATED, headers, axum::Json(answer)).into_response()
    })
    .await;
    let router = Router::start(vec![node("fra", &url)], Mode::Proxy).await;
    let headers = [
        ("authorization", "Bearer t"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("te", "trailers"),
        ("x-forwarded-for", "192.0.2.1"),
        ("host", "chat.example"),
    ];
    let answer = router.ask(Method::POST, "/v1/x?a=1", &headers, Body::from(vec![b'a'; 100_000])).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(answer.headers()["x-kept"], "yes");
    assert!(!answer.headers().contains_key("x-dropped") && !answer.headers().contains_key("keep-alive"));
    let answer = json(answer).await;
    assert_eq!((&answer["path"], &answer["method"]), (&"/v1/x?a=1".into(), &"POST".into()));
    assert_eq!(answer["length"], 100_000);
    let seen = &answer["headers"];
    assert_eq!(seen["authorization"], "Bearer t");
    assert_eq!(seen["x-forwarded-for"], "192.0.2.1, 127.0.0.1");
    assert_eq!(
        (&seen["x-forwarded-host"], &seen["x-forwarded-proto"]),
        (&"chat.example".into(), &"http".into())
    );
    assert_eq!(seen["host"], url.trim_start_matches("http://"));
    assert!(seen["x-hop"].is_null() && seen["te"].is_null());
}

#[tokio::test]
async fn the_proxy_streams_events_and_bodies_as_they_come() {
    let url = upstream(|request: Request| async move {
        // Echoes each part of the body when it comes.
        let stream = request.into_body().into_data_stream();
        ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(stream)).into_response()
    })
    .await;
    let router = Router::start(vec![node("fra", &url)], Mode::Proxy).await;
    let (parts, receiver) = mpsc::channel::<Result<Bytes, std::convert::Infallible>>(1);
    let body = Body::from_stream(futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|part| (part, receiver))
    }));
    let answer = router.ask(Method::POST, "/v1/events", &[], body).await;
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut echoed = answer.into_body();
    // Each part must come back before the next is sent: a proxy that collects would wait for ever.
    for part in ["event: a\n\n", "event: b\n\n", "event: c\n\n"] {
        parts.send(Ok(Bytes::from(part))).await.unwrap();
        let frame = tokio::time::timeout(DEADLINE, echoed.frame()).await.expect("the part comes through");
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), part);
    }
}

#[tokio::test]
async fn the_next_node_is_tried_when_nothing_was_sent_to_the_first() {
    let url = upstream(|request: Request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        body.into_response()
    })
    .await;
    let nodes = vec![node("fra", &nobody().await), node("iad", &url)];
    let router = Router::start(nodes, Mode::Proxy).await;
    let answer = router.ask(Method::POST, "/v1/x?region=fra", &[], Body::from("kept")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "kept");
    let router = Router::start(vec![node("fra", &nobody().await)], Mode::Proxy).await;
    problem(router.get("/v1/x").await, 502, "bad_gateway").await;
}

/// A node that takes a request's head and breaks off; counts how often.
async fn quitter(count: Arc<Mutex<u32>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            *count.lock().unwrap() += 1;
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn a_write_that_may_have_arrived_is_not_sent_twice() {
    let (first, second) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
    let nodes = vec![node("fra", &quitter(first.clone()).await), node("iad", &quitter(second.clone()).await)];
    let router = Router::start(nodes, Mode::Proxy).await;
    let write = router.ask(Method::POST, "/v1/x?region=fra", &[], Body::from("once")).await;
    problem(write, 502, "bad_gateway").await;
    assert_eq!((*first.lock().unwrap(), *second.lock().unwrap()), (1, 0));
    // A read may be repeated.
    problem(router.get("/v1/x?region=fra").await, 502, "bad_gateway").await;
    assert_eq!((*first.lock().unwrap(), *second.lock().unwrap()), (2, 1));
}

#[tokio::test]
async fn the_proxy_limits_bodies_whether_their_length_is_announced_or_not() {
    let url = upstream(|request: Request| async move {
        match request.into_body().collect().await {
            Ok(body) => body.to_bytes().len().to_string().into_response(),
            Err(_) => StatusCode::BAD_REQUEST.into_response(),
        }
    })
    .await;
    let router = Router::with(vec![node("fra", &url)], |config| {
        config.mode = Mode::Proxy;
        config.body_limit = 1000;
    })
    .await;
    assert_eq!(router.ask(Method::POST, "/", &[], Body::from(vec![0; 1000])).await.status(), StatusCode::OK);
    problem(router.ask(Method::POST, "/", &[], Body::from(vec![0; 1001])).await, 413, "too_large").await;
    let parts = (0..20).map(|_| Ok::<_, std::convert::Infallible>(Bytes::from(vec![0; 100])));
    let unannounced = Body::from_stream(futures_util::stream::iter(parts));
    problem(router.ask(Method::POST, "/", &[], unannounced).await, 413, "too_large").await;
    let broken = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n";
    let answer = router.raw(broken).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn it_stops_on_its_signal_though_a_stream_is_open() {
    let url = upstream(|_| async {
        Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::convert::Infallible>>())
            .into_response()
    })
    .await;
    let mut config = RouterConfig::new(([127, 0, 0, 1], 0).into());
    config.mode = Mode::Proxy;
    config.grace = Duration::from_millis(50);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let nodes = vec![node("fra", &url)];
    let serving = serve(config, move || nodes.clone(), async { drop(stopped.await) }).await.unwrap();
    let router = Router { address: serving.local_addr(), nodes: Arc::default() };
    let open = router.get("/v1/events").await;
    assert_eq!(open.status(), StatusCode::OK);
    stop.send(()).unwrap();
    tokio::time::timeout(DEADLINE, serving.stopped()).await.expect("it stops");
    assert!(TcpStream::connect(router.address).await.is_err());
}

#[tokio::test]
async fn a_router_with_a_bad_setting_does_not_start() {
    let mut config = RouterConfig::new(([127, 0, 0, 1], 0).into());
    config.geoip = Some("/nonexistent/city.mmdb".into());
    let error = serve(config, Vec::new, std::future::pending()).await.unwrap_err().to_string();
    assert!(error.contains("city.mmdb"), "{error}");
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = RouterConfig::new(taken.local_addr().unwrap());
    let error = serve(config, Vec::new, std::future::pending()).await.unwrap_err().to_string();
    assert!(error.contains("can't listen"), "{error}");
}

#[test]
fn modes_are_written_as_they_are_read() {
    for mode in [Mode::Redirect, Mode::Proxy, Mode::FlyReplay] {
        assert_eq!(mode.to_string().parse::<Mode>().unwrap(), mode);
    }
    assert!("tunnel".parse::<Mode>().is_err());
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_however_far_it_has_come() {
    let router = Router::with(three(), |config| config.head = Duration::from_millis(100)).await;
    for beginning in
        ["", "P", "PRI * HTTP", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /livez HTTP/1.1\r\nHost:"]
    {
        router.raw(beginning).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_that_reads_no_more_is_cut_off_and_its_stream_at_the_node_too() {
    let (open, mut over) = mpsc::channel::<()>(1);
    let open = Arc::new(Mutex::new(Some(open)));
    let url = upstream(move |_: Request| {
        // It lives as long as the body.
        let open = open.lock().unwrap().take();
        let events = futures_util::stream::repeat_with(move || {
            let _ = &open;
            Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b'a'; 64 << 10]))
        });
        async move { Body::from_stream(events).into_response() }
    })
    .await;
    let router = Router::with(vec![node("fra", &url)], |config| {
        config.mode = Mode::Proxy;
        config.unacknowledged = Duration::from_millis(500);
    })
    .await;
    let mut stream = TcpStream::connect(router.address).await.unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let ended = tokio::time::timeout(DEADLINE, over.recv()).await.expect("its stream ends");
    assert_eq!(ended, None);
    drop(stream);
}

#[tokio::test]
async fn a_client_of_http_2_gets_no_more_requests_through_than_there_may_be_connections() {
    let url = upstream(|_: Request| async {
        Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::convert::Infallible>>())
            .into_response()
    })
    .await;
    let router = Router::with(vec![node("fra", &url)], |config| {
        (config.mode, config.connections) = (Mode::Proxy, 2);
    })
    .await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Body>();
    let ask = async || {
        let request = http::Request::get(format!("http://{}/v1/events", router.address));
        let answer = client.request(request.body(Body::empty()).unwrap());
        tokio::time::timeout(DEADLINE, answer).await.expect("an answer").unwrap().map(Body::new)
    };
    let (first, second) = (ask().await, ask().await);
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::OK));
    problem(ask().await, 503, "unavailable").await;
    drop(first);
    let end = tokio::time::Instant::now() + DEADLINE;
    while ask().await.status() != StatusCode::OK {
        assert!(tokio::time::Instant::now() < end, "the place is never free again");
    }
}

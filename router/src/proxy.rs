//! Proxy mode: the router passes requests on and streams the answers back, event streams included.
//!
//! A request goes to the nodes in the order of the ranking until one takes it. It is only passed to the next node
//! while nothing of its body has left: then no node can have acted on it. (A safe request without a body is also
//! passed on when a node breaks off before it answers.) Bodies are streamed in both directions and never held.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;
use crate::ranking::Choice;

/// How long a node may take to accept a connection before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a node may take to begin its answer. A long poll holds it back for 25 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Headers that belong to one connection and are not passed on (RFC 9110, section 7.6.1), besides those that
/// `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The client side of the proxy: a pool of connections to the nodes.
pub(crate) struct Proxy {
    client: Client<HttpConnector, Lent>,
    body_limit: u64,
    /// Each request takes a connection to a node, and a client of HTTP/2 makes many at a time on one of its own.
    places: Arc<Semaphore>,
}

impl Proxy {
    /// A proxy that passes on bodies of at most `body_limit` bytes, and `at_once` requests at a time.
    pub(crate) fn new(body_limit: u64, at_once: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Self { client, body_limit, places: Arc::new(Semaphore::new(at_once)) }
    }

    /// Passes the request to the first of `choices` that takes it.
    pub(crate) async fn forward(
        &self,
        request: Request<Body>,
        peer: IpAddr,
        choices: &[Choice],
    ) -> Result<Response, Problem> {
        let (mut parts, body) = request.into_parts();
        if body.size_hint().lower() > self.body_limit {
            return Err(Problem::too_large(self.body_limit));
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Problem::busy())?;
        add_forwarded(&mut parts.headers, &parts.uri, peer);
        strip_hop_by_hop(&mut parts.headers);
        parts.headers.remove(header::HOST);
        let lending = Lending::new(body, self.body_limit);
        for choice in choices {
            let Some(uri) = upstream(&choice.url, &parts.uri) else { continue };
            let mut attempt = Request::new(lending.lend());
            *attempt.method_mut() = parts.method.clone();
            *attempt.uri_mut() = uri;
            *attempt.version_mut() = Version::HTTP_11;
            *attempt.headers_mut() = parts.headers.clone();
            let failure = match tokio::time::timeout(ANSWER_TIMEOUT, self.client.request(attempt)).await {
                Ok(Ok(answer)) => return Ok(pass_back(answer, place)),
                Ok(Err(error)) => Failure { reached: !error.is_connect(), reason: error.to_string() },
                Err(_) => Failure { reached: true, reason: "it does not answer".to_owned() },
            };
            lending.fault(self.body_limit)?;
            tracing::warn!(
                node = choice.id,
                region = choice.region,
                reason = failure.reason,
                "a node failed"
            );
            if failure.reached && !lending.repeatable(&parts.method) {
                break;
            }
        }
        Err(Problem::bad_gateway("no node took the request, or the one that did broke off; try again"))
    }
}

struct Failure {
    /// Whether a connection existed, so that the node may have seen something.
    reached: bool,
    reason: String,
}

fn pass_back(answer: http::Response<Incoming>, place: OwnedSemaphorePermit) -> Response {
    let mut answer = answer.map(|body| Body::new(Placed { body, _place: place }));
    strip_hop_by_hop(answer.headers_mut());
    // The version is that of the node's connection; the server sets the client's own.
    *answer.version_mut() = Version::default();
    answer
}

/// The body of an answer, with its request's place among those that are passed on at a time.
struct Placed {
    body: Incoming,
    _place: OwnedSemaphorePermit,
}

impl HttpBody for Placed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The URL of the same resource at a node.
pub(crate) fn upstream(base: &str, uri: &Uri) -> Option<Uri> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    format!("{base}{path}").parse().ok()
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Tells the node who asked and how. The address is appended to what came (the last entry is the one that this
/// router has seen itself). Host and scheme are kept only from a peer on a private network, which is a proxy of
/// one's own that ends TLS; from anybody else they would be a way to make nodes believe in another host.
fn add_forwarded(headers: &mut HeaderMap, uri: &Uri, peer: IpAddr) {
    let before: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let chain =
        before.into_iter().map(str::to_owned).chain([peer.to_string()]).collect::<Vec<_>>().join(", ");
    if let Ok(chain) = HeaderValue::from_str(&chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    let trusted = is_private(peer);
    if !trusted || !headers.contains_key(FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !trusted || !headers.contains_key(FORWARDED_HOST) {
        let authority = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        match headers.get(header::HOST).cloned().or(authority) {
            Some(host) => headers.insert(FORWARDED_HOST, host),
            None => headers.remove(FORWARDED_HOST),
        };
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// A request body that can be offered to one node after another as long as none has begun to read it.
struct Lending {
    shared: Arc<Shared>,
    size: SizeHint,
    empty: bool,
}

struct Shared {
    /// The body, until an attempt reads from it.
    body: Mutex<Option<Body>>,
    left: AtomicU64,
    fault: AtomicU8,
}

const SOUND: u8 = 0;
const TOO_LARGE: u8 = 1;
const BROKEN: u8 = 2;

impl Lending {
    fn new(body: Body, limit: u64) -> Self {
        let (size, empty) = (body.size_hint(), body.is_end_stream());
        let shared =
            Shared { body: Mutex::new(Some(body)), left: AtomicU64::new(limit), fault: AtomicU8::new(SOUND) };
        Self { shared: Arc::new(shared), size, empty }
    }

    fn lend(&self) -> Lent {
        Lent { shared: self.shared.clone(), size: self.size, empty: self.empty, body: None }
    }

    /// Whether another node may be asked after one that was reached has failed.
    fn repeatable(&self, method: &Method) -> bool {
        self.empty && method.is_safe()
    }

    /// An error of the client's own making, which is not the node's failure.
    fn fault(&self, limit: u64) -> Result<(), Problem> {
        match self.shared.fault.load(Ordering::Relaxed) {
            TOO_LARGE => Err(Problem::too_large(limit)),
            BROKEN => Err(Problem::invalid_body("the body ended early or was badly framed")),
            _ => Ok(()),
        }
    }
}

/// One attempt's hold on the body: takes it for good at the first read.
struct Lent {
    shared: Arc<Shared>,
    size: SizeHint,
    empty: bool,
    body: Option<Body>,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.body.is_none() {
            let body = self.shared.body.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.body = body;
        }
        let Some(body) = &mut self.body else {
            // Another attempt has it; `forward` never makes one then.
            return Poll::Ready(Some(Err(axum::Error::new("the body was sent to another node"))));
        };
        let frame = std::task::ready!(Pin::new(body).poll_frame(context));
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(self.shared.count(frame)),
            Some(Err(error)) => {
                self.shared.fault.store(BROKEN, Ordering::Relaxed);
                Some(Err(error))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().map_or(self.empty, Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| self.size, Body::size_hint)
    }
}

impl Shared {
    fn count(&self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, axum::Error> {
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        // Only one attempt ever reads, so nothing happens between the two steps.
        match self.left.load(Ordering::Relaxed).checked_sub(length) {
            Some(left) => {
                self.left.store(left, Ordering::Relaxed);
                Ok(frame)
            }
            None => {
                self.fault.store(TOO_LARGE, Ordering::Relaxed);
                Err(axum::Error::new("the body is larger than allowed"))
            }
        }
    }
}

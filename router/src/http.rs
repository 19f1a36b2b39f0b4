//! What the router answers: `/v1/route`, its health, the status page, and the way to the best node for all else.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use serde::Serialize;

use crate::geoip::GeoIp;
use crate::locate::{Located, Means, Source};
use crate::nodes::{Candidate, Nodes};
use crate::problem::Problem;
use crate::proxy::{self, Proxy};
use crate::ranking::{Choice, rank};
use crate::{Mode, status};

const FLY_REPLAY: HeaderName = HeaderName::from_static("fly-replay");

pub(crate) struct App {
    pub(crate) nodes: Box<dyn Nodes>,
    pub(crate) geoip: Option<GeoIp>,
    pub(crate) mode: Mode,
    pub(crate) proxy: Proxy,
}

/// The answer of `GET /v1/route`.
#[derive(Serialize)]
struct Route {
    nodes: Vec<Choice>,
    client: ClientPlace,
}

/// What the router takes for the client's place.
#[derive(Serialize)]
struct ClientPlace {
    lat: Option<f64>,
    lon: Option<f64>,
    source: Source,
}

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/v1/route", any(route).layer(middleware::from_fn(open_to_all_origins)))
        .route("/livez", any(livez))
        .route("/readyz", any(readyz))
        .route("/status", any(status_page))
        .fallback(send_on)
        .with_state(Arc::new(app))
}

async fn route(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if method == Method::OPTIONS {
        return Ok(preflight());
    }
    if let Some(refusal) = only_reads(&method, "GET, HEAD, OPTIONS") {
        return Ok(refusal);
    }
    let candidates = app.nodes.snapshot();
    let regions: Vec<&str> = candidates.iter().map(|candidate| candidate.region.as_str()).collect();
    let means = Means { geoip: app.geoip.as_ref(), extra_regions: &regions };
    let located = match means.by_query(&uri)? {
        Some(located) => located,
        None => means.by_connection(&headers, peer.ip()),
    };
    let nodes = rank(&candidates, &located.place);
    if nodes.is_empty() {
        return Err(Problem::unavailable());
    }
    let point = located.place.point();
    let client = ClientPlace {
        lat: point.map(|point| point.lat()),
        lon: point.map(|point| point.lon()),
        source: located.source,
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], axum::Json(Route { nodes, client })).into_response())
}

/// Every other path: to the best node, by redirect, by replay or through this process.
async fn send_on(
    State(app): State<Arc<App>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Result<Response, Problem> {
    // `OPTIONS *` and `CONNECT host:port` have no path that could be asked of a node.
    if !request.uri().path().starts_with('/') || request.method() == Method::CONNECT {
        return Err(Problem::invalid_request("the request names no path"));
    }
    let candidates = app.nodes.snapshot();
    let located = locate_leniently(&app, &candidates, &request, peer);
    let choices = rank(&candidates, &located.place);
    let Some(best) = choices.first() else { return Err(Problem::unavailable()) };
    match app.mode {
        Mode::Proxy => app.proxy.forward(request, peer.ip(), &choices).await,
        Mode::Redirect => redirect(best, request.uri()),
        Mode::FlyReplay => {
            // Fly's proxy acts on the header and drops the rest; anybody else follows the redirect.
            let mut response = redirect(best, request.uri())?;
            let region = HeaderValue::from_str(&format!("region={}", best.region))
                .map_err(|_| Problem::bad_gateway("the node's region can't be written in a header"))?;
            response.headers_mut().insert(FLY_REPLAY, region);
            Ok(response)
        }
    }
}

/// The client's place for a request that is another's: its query may use the same names for other things, so what is
/// not valid here is passed over.
fn locate_leniently(
    app: &App,
    candidates: &[Candidate],
    request: &Request<Body>,
    peer: SocketAddr,
) -> Located {
    let regions: Vec<&str> = candidates.iter().map(|candidate| candidate.region.as_str()).collect();
    let means = Means { geoip: app.geoip.as_ref(), extra_regions: &regions };
    match means.by_query(request.uri()) {
        Ok(Some(located)) if located.source != Source::None => located,
        _ => means.by_connection(request.headers(), peer.ip()),
    }
}

fn redirect(node: &Choice, uri: &Uri) -> Result<Response, Problem> {
    let location = proxy::upstream(&node.url, uri)
        .and_then(|target| HeaderValue::from_str(&target.to_string()).ok())
        .ok_or_else(|| Problem::invalid_request("the address is too long or can't be passed on"))?;
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // A script follows a redirect to another origin only when this step allows it too.
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    ];
    Ok((StatusCode::TEMPORARY_REDIRECT, headers).into_response())
}

async fn livez(method: Method) -> Response {
    only_reads(&method, "GET, HEAD").unwrap_or_else(|| "ok\n".into_response())
}

async fn readyz(State(app): State<Arc<App>>, method: Method) -> Result<Response, Problem> {
    if let Some(refusal) = only_reads(&method, "GET, HEAD") {
        return Ok(refusal);
    }
    match app.nodes.snapshot().iter().any(Candidate::usable) {
        true => Ok("ready\n".into_response()),
        false => Err(Problem::unavailable()),
    }
}

async fn status_page(State(app): State<Arc<App>>, method: Method) -> Response {
    only_reads(&method, "GET, HEAD").unwrap_or_else(|| status::page(app.nodes.snapshot()))
}

/// The refusal of a method that does more than read, or nothing.
fn only_reads(method: &Method, allowed: &'static str) -> Option<Response> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let mut response = Problem::method_not_allowed(allowed).into_response();
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    Some(response)
}

/// The web client runs on a node's origin and asks the router here, so any origin may read the answer. It holds
/// nothing that depends on who asks beyond where they are.
async fn open_to_all_origins(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

fn preflight() -> Response {
    let headers = [
        (header::ALLOW, "GET, HEAD, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type, MyChat-Client"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

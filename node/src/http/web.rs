//! The web client: files that are embedded in the program, each with a hash by which browsers keep their copies.

use std::fmt::Write as _;

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::{Path, Problem};
use crate::app::App;

#[derive(RustEmbed)]
#[folder = "web/"]
#[include = "index.html"]
#[include = "assets/*"]
#[allow_missing = true]
struct Files;

/// What the page may load and call. Scripts and styles come from here only. Calls may go anywhere: the page moves to
/// nodes and asks routers that have joined long after it was opened, and no code of others runs in it that could call.
const CONTENT_POLICY: &str = "default-src 'self'; connect-src *; img-src 'self' data: https:; style-src 'self'; \
     script-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The routes: the page at `/`, what belongs to it under `/assets/`.
pub fn routes() -> Router<App> {
    Router::new()
        .route("/", get(page))
        .route("/assets/{*path}", get(asset))
        .route("/favicon.ico", get(async |request: Request| file_at("assets/favicon.svg", &request)))
}

async fn page(request: Request) -> Response {
    file_at("index.html", &request)
}

async fn asset(Path(path): Path<String>, request: Request) -> Response {
    // A debug build reads the files from their folder, where such a path would lead further up.
    let path =
        if path.split('/').any(|part| part == "..") { String::new() } else { format!("assets/{path}") };
    file_at(&path, &request)
}

/// An embedded file; 304 when the browser has it.
fn file_at(path: &str, request: &Request) -> Response {
    let Some(file) = Files::get(path) else {
        return Problem::not_found("there is nothing at this path").into_response();
    };
    let tag = tag(&file);
    let known = request.headers().get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let mut response = if known.is_some_and(|tags| tags.split(',').any(|known| known.trim() == tag)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let kind = HeaderValue::from_str(file.metadata.mimetype());
        let mut response = axum::body::Body::from(file.data.into_owned()).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            kind.unwrap_or(HeaderValue::from_static("application/octet-stream")),
        );
        response
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    // Asked for anew each time, answered with 304: a new release shows at once.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY));
    response
}

fn tag(file: &EmbeddedFile) -> String {
    let mut tag = String::from("\"");
    for byte in &file.metadata.sha256_hash()[..16] {
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}

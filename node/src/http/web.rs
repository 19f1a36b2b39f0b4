//! The web client: files that are embedded in the program, each with a hash by which browsers keep their copies.

use std::fmt::Write as _;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::{Path, Problem};
use crate::app::App;

#[derive(RustEmbed)]
#[folder = "web/"]
#[allow_missing = true]
struct Files;

/// The routes: the page at `/`, what belongs to it under `/assets/`.
pub fn routes() -> Router<App> {
    Router::new().route("/", get(page)).route("/assets/{*path}", get(asset)).route(
        "/favicon.ico",
        get(async |state: State<App>, request: Request| file_at(&state.0, "assets/favicon.svg", &request)),
    )
}

async fn page(State(app): State<App>, request: Request) -> Response {
    file_at(&app, "index.html", &request)
}

async fn asset(State(app): State<App>, Path(path): Path<String>, request: Request) -> Response {
    // A debug build reads the files from their folder, where such a path would lead further up.
    let path =
        if path.split('/').any(|part| part == "..") { String::new() } else { format!("assets/{path}") };
    file_at(&app, &path, &request)
}

/// An embedded file; 304 when the browser has it.
fn file_at(app: &App, path: &str, request: &Request) -> Response {
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
    if let Ok(policy) = HeaderValue::from_str(&content_policy(app)) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
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

/// Scripts and styles from here only; calls also to the cluster's other nodes, to which the page falls over.
fn content_policy(app: &App) -> String {
    let origins = app.origins();
    let others: Vec<&str> = origins.iter().filter(|origin| origin.parse::<Uri>().is_ok()).collect();
    format!(
        "default-src 'self'; connect-src 'self' {}; img-src 'self' data: https:; style-src 'self'; script-src 'self'; \
         object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
        others.join(" ")
    )
}

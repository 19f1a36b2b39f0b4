//! `/.well-known/jwks.json`: the public keys, for others who want to check this cluster's access tokens.

use axum::{Json, Router, extract::State, http::header, response::IntoResponse, routing::get};
use serde::Serialize;

use crate::app::App;

/// The routes.
pub fn routes() -> Router<App> {
    Router::new().route("/.well-known/jwks.json", get(jwks))
}

/// The OpenAPI document of these routes.
#[derive(utoipa::OpenApi)]
#[openapi(paths(jwks))]
pub struct Docs;

/// A set of public keys (RFC 7517).
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct KeySet {
    keys: Vec<PublicKey>,
}

/// An Ed25519 public key (RFC 8037).
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct PublicKey {
    kty: &'static str,
    crv: &'static str,
    alg: &'static str,
    r#use: &'static str,
    kid: String,
    x: String,
}

/// The keys whose access tokens are accepted.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "keys",
    responses((status = 200, description = "the public keys", body = KeySet)))]
async fn jwks(State(app): State<App>) -> impl IntoResponse {
    let inner = app.keys.now();
    let keys = inner.access.iter().map(|key| PublicKey {
        kty: "OKP",
        crv: "Ed25519",
        alg: "EdDSA",
        r#use: "sig",
        kid: key.id.clone(),
        x: key.public.clone(),
    });
    ([(header::CACHE_CONTROL, "public, max-age=300")], Json(KeySet { keys: keys.collect() }))
}

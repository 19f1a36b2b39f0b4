//! `/v1/openapi.json`: the API in OpenAPI 3.1, put together from the documents that stand beside the routes.

use axum::{Json, Router, routing::get};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Components,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use crate::app::App;

/// The route.
pub fn routes() -> Router<App> {
    Router::new().route("/v1/openapi.json", get(async || Json(document())))
}

#[derive(OpenApi)]
#[openapi(
    info(title = "MyChat", description = "A chat system of identical nodes in many regions. Errors are problem documents (RFC 9457) with a stable `code`."),
    components(schemas(super::problem::Document<'static>)),
    modifiers(&Bearer)
)]
struct Base;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        document
            .components
            .get_or_insert_with(Components::new)
            .add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The whole document.
fn document() -> utoipa::openapi::OpenApi {
    let parts = [
        crate::accounts::http::Docs::openapi(),
        crate::accounts::sessions::http::Docs::openapi(),
        crate::admin::http::Docs::openapi(),
        crate::keys::http::Docs::openapi(),
        super::node_info::Docs::openapi(),
        signed_in(crate::spaces::http::Docs::openapi()),
        signed_in(crate::messages::http::Docs::openapi()),
        signed_in(crate::notifications::http::Docs::openapi()),
        signed_in(crate::events::http::Docs::openapi()),
        signed_in(crate::presence::http::Docs::openapi()),
    ];
    let mut document = Base::openapi();
    for part in parts {
        document.merge(part);
    }
    document
}

/// A domain all of whose calls need a token.
fn signed_in(mut part: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    for path in part.paths.paths.values_mut() {
        let calls = [&mut path.get, &mut path.put, &mut path.post, &mut path.patch, &mut path.delete];
        for call in calls.into_iter().flatten() {
            call.security = Some(vec![SecurityRequirement::new("bearer", [""; 0])]);
        }
    }
    part
}

//! `/v1/openapi.json`: the API in OpenAPI 3.1, put together from the documents that stand beside the routes.

use axum::{Json, Router, routing::get};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Components, Content, Header, PathItem, Ref, RefOr, Response,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn},
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use crate::{app::App, keys::cookie};

/// The route.
pub fn routes() -> Router<App> {
    Router::new().route("/v1/openapi.json", get(async || Json(document())))
}

#[derive(OpenApi)]
#[openapi(
    info(title = "MyChat", description = "A chat system of identical nodes in many regions. Errors are problem documents (RFC 9457) with a stable `code`."),
    components(schemas(super::problem::Document<'static>)),
    modifiers(&Signatures)
)]
struct Base;

/// How a call says whose it is.
struct Signatures;

impl Modify for Signatures {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let cookie = ApiKeyValue::new(cookie::NAME);
        let components = document.components.get_or_insert_with(Components::new);
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        components.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
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
    for (path, item) in &mut document.paths.paths {
        for (is_write, call) in calls(item) {
            describe_what_is_common(path, is_write, call);
        }
    }
    document
}

/// The calls of a path, each with whether it writes.
fn calls(item: &mut PathItem) -> impl Iterator<Item = (bool, &mut Operation)> {
    let PathItem { get, put, post, patch, delete, .. } = item;
    let writes = [put, post, patch, delete].into_iter().flatten().map(|call| (true, call));
    get.iter_mut().map(|call| (false, call)).chain(writes)
}

/// What no route says, since it is done around all of them: refusals (`problem.rs`), `MyChat-After` (`after.rs`), and what a
/// write may ask for and is answered with (`write.rs`).
fn describe_what_is_common(path: &str, is_write: bool, call: &mut Operation) {
    let problem = Ref::from_schema_name("Problem");
    let refusal = Response::builder()
        .description("refused, with a stable `code`")
        .content("application/problem+json", Content::new(Some(problem)))
        .build();
    call.responses.responses.entry("default".to_owned()).or_insert(RefOr::T(refusal));
    if !path.starts_with("/v1/") {
        return;
    }
    let parameters = call.parameters.get_or_insert_with(Vec::new);
    parameters.push(header(
        "MyChat-After",
        "a cursor: the node waits for up to 2 s until it has seen all that the cursor has",
    ));
    if let Some(answer) = success(call) {
        let behind = "`true`: the node has not seen all that `MyChat-After` has";
        answer.headers.insert("MyChat-Behind".to_owned(), told(behind));
    }
    let is_kept = is_write && !path.starts_with("/v1/admin/") && !path.ends_with("/typing");
    if !is_kept {
        return;
    }
    let parameters = call.parameters.get_or_insert_with(Vec::new);
    parameters.push(header(
        "Idempotency-Key",
        "the same call with the same key is answered with the first result, for 24 hours",
    ));
    parameters.push(header(
        "MyChat-Durability",
        "`local`, or `regions=N`: answer when the write is on the disks of nodes in so many regions",
    ));
    if let Some(answer) = success(call) {
        let cursor = "what the node had seen after the write, for `MyChat-After`";
        let regions = "the regions where it is on a disk, where `MyChat-Durability` asked for several";
        answer.headers.insert("MyChat-Cursor".to_owned(), told(cursor));
        answer.headers.insert("MyChat-Durable-Regions".to_owned(), told(regions));
    }
}

/// The answer of a call that succeeds.
fn success(call: &mut Operation) -> Option<&mut Response> {
    call.responses.responses.iter_mut().find_map(|(status, answer)| match answer {
        RefOr::T(answer) if status.starts_with('2') => Some(answer),
        _ => None,
    })
}

fn header(name: &str, description: &str) -> RefOr<Parameter> {
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header);
    RefOr::T(parameter.description(Some(description)).schema(Some(utoipa::schema!(String))).build())
}

fn told(description: &str) -> RefOr<Header> {
    RefOr::T(Header::builder().schema(Some(utoipa::schema!(String))).description(Some(description)).build())
}

/// A domain all of whose calls need a token.
fn signed_in(mut part: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    for (_, call) in part.paths.paths.values_mut().flat_map(calls) {
        call.security = Some(["bearer", "cookie"].map(|one| SecurityRequirement::new(one, [""; 0])).into());
    }
    part
}

//! Errors as clients see them: `application/problem+json` (RFC 9457), in the shape that the nodes use too.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// An error answer: a status, a stable word for programs and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) title: &'static str,
    pub(crate) detail: String,
}

/// What the problem looks like on the wire.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
}

/// Seconds after which a client may ask again for a node: a membership change reaches the router well within it.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, title, detail: detail.into() }
    }

    pub(crate) fn invalid_query(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_query", "The query is not valid", detail)
    }

    pub(crate) fn unknown_region(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "unknown_region", "The region is not known", detail)
    }

    pub(crate) fn invalid_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", "The request is not valid", detail)
    }

    pub(crate) fn invalid_body(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_body", "The body could not be read", detail)
    }

    pub(crate) fn too_large(limit: u64) -> Self {
        let detail = format!("the body is larger than the {limit} bytes that are allowed");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The body is too large", detail)
    }

    pub(crate) fn method_not_allowed(allowed: &str) -> Self {
        let detail = format!("this address answers to {allowed} only");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "The method is not allowed", detail)
    }

    pub(crate) fn unavailable() -> Self {
        let detail = "no node is alive, ready and not draining at the moment; try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "No node is available", detail)
    }

    pub(crate) fn busy() -> Self {
        let detail = "the router passes on as many requests as it can; try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "The router is busy", detail)
    }

    pub(crate) fn bad_gateway(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "bad_gateway", "The node could not be reached", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: "about:blank",
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

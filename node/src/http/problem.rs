//! Errors as clients see them: RFC 9457 problem documents with a stable `code`.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use mychat_replication::store::StoreError;
use serde::Serialize;

/// Why a call was refused. Every handler's error type, so that no answer escapes the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// The stable word for programs, in snake case.
    pub code: &'static str,
    /// A sentence for people.
    pub detail: String,
    /// What else the answer says, such as when to come back.
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Other nodes that may well do it.
    alternatives: Vec<String>,
}

impl Problem {
    /// A problem with a status and code of its own.
    pub fn with(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), headers: Vec::new(), alternatives: Vec::new() }
    }

    /// 400: the body is missing, malformed or against the rules.
    pub fn invalid_body(detail: impl Into<String>) -> Self {
        Self::with(StatusCode::BAD_REQUEST, "invalid_body", detail)
    }

    /// 400: a parameter in the URL is malformed.
    pub fn invalid_query(detail: impl Into<String>) -> Self {
        Self::with(StatusCode::BAD_REQUEST, "invalid_query", detail)
    }

    /// 400: a header is malformed.
    pub fn invalid_header(detail: impl Into<String>) -> Self {
        Self::with(StatusCode::BAD_REQUEST, "invalid_header", detail)
    }

    /// 401: nobody is signed in, or not with these credentials.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::with(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// 403: signed in, but not allowed to.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::with(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 404: there is no such thing, or none that the caller may know of.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::with(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// 409: it collides with what is there.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::with(StatusCode::CONFLICT, "conflict", detail)
    }

    /// 413: larger than allowed.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::with(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// 429: too often; come back after `retry_after` seconds.
    pub fn rate_limited(detail: impl Into<String>, retry_after: u32) -> Self {
        Self::with(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail)
            .header(header::RETRY_AFTER, retry_after.max(1).into())
    }

    /// 503: this node can't at the moment; a retry, here or at another node, may well work.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::with(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
            .header(header::RETRY_AFTER, 1u32.into())
    }

    /// The same with the URLs of other nodes.
    #[must_use]
    pub fn alternatives(mut self, alternatives: Vec<String>) -> Self {
        self.alternatives = alternatives;
        self
    }

    /// The same with a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// A problem document (RFC 9457).
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub struct Document<'a> {
    /// `about:blank`: the status says it all.
    r#type: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// A sentence for people.
    detail: &'a str,
    /// The stable word for programs.
    code: &'static str,
    /// Of a refused event stream: other nodes that take it.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    alternatives: &'a [String],
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            alternatives: &self.alternatives,
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.extend(self.headers);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if let Some(fault) = error.disk_fault() {
            // The store says so once; here it would be said for every call.
            tracing::debug!(%error, "the disk refuses a call");
            return Self::unavailable(format!("{fault}: nothing was written; reads go on"));
        }
        tracing::warn!(%error, "the store refused");
        Self::unavailable(match error {
            StoreError::Busy => "too many writes are waiting at this node; nothing was written",
            StoreError::Unsettled => "this node is starting and takes no writes yet",
            StoreError::Closed => "this node is stopping",
            _ => "the database of this node can't take the call at the moment",
        })
    }
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        tracing::error!(%error, "a query failed");
        Self::unavailable("the database of this node can't answer at the moment")
    }
}

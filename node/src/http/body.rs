//! What a request carries, read strictly and refused with a problem document: the JSON body, the query, the path.

use std::sync::{Arc, OnceLock};

use axum::{
    extract::{FromRequest, FromRequestParts, Request, rejection::BytesRejection},
    http::{StatusCode, header, request::Parts},
};
use bytes::Bytes;
use ring::digest;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// A JSON body.
///
/// Fields that `T` does not know are ignored. An absent content type is taken for JSON.
#[derive(Debug, Clone, Copy)]
pub struct Body<T>(pub T);

/// What [`super::write::Write`], which is extracted before the body, comes to know of it: filled in by [`Body`].
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// Whether a hash is wanted, to compare a repeated call with the first.
    pub hashed: bool,
    pub digest: Arc<OnceLock<Digest>>,
}

/// A body's length in bytes and, where it was wanted, its hash.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Digest {
    pub bytes: usize,
    pub sha256: [u8; 32],
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if let Some(kind) = request.headers().get(header::CONTENT_TYPE)
            && !is_json(kind.to_str().unwrap_or_default())
        {
            return Err(Problem::with(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "the body must be application/json",
            ));
        }
        let received = request.extensions().get::<Received>().cloned();
        let bytes = Bytes::from_request(request, state).await.map_err(unreadable)?;
        if let Some(Received { hashed, digest }) = received {
            let mut sha256 = [0; 32];
            if hashed {
                sha256.copy_from_slice(digest::digest(&digest::SHA256, &bytes).as_ref());
            }
            let _ = digest.set(Digest { bytes: bytes.len(), sha256 });
        }
        parse(&bytes).map(Self)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.is_empty() {
        return Err(Problem::invalid_body("the call needs a JSON body"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Problem::invalid_body("the body is not UTF-8"))?;
    // serde would fill a struct from an array as well, and one whose fields have defaults even from an empty one.
    if text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('[') {
        return Err(Problem::invalid_body("the body must be a JSON object"));
    }
    serde_json::from_str(text).map_err(|error| {
        // serde's messages can quote the value at fault, which may be a password; the kind and place are enough.
        let message = error.to_string();
        let what = match error.classify() {
            // Names the field and nothing else.
            serde_json::error::Category::Data if message.starts_with("missing field") => {
                return Problem::invalid_body(message);
            }
            serde_json::error::Category::Data => match place::<T>(text) {
                Some(field) => {
                    return Problem::invalid_body(format!("{field}: a value of another kind is expected"));
                }
                None => "a field has a wrong type",
            },
            serde_json::error::Category::Eof => "the JSON ends early",
            _ => "not well-formed JSON",
        };
        Problem::invalid_body(format!("{what} (line {}, column {})", error.line(), error.column()))
    })
}

/// Where in a JSON text the value is that `T` can't have, as far as `T` gives the names of what is on the way.
fn place<T: DeserializeOwned>(text: &str) -> Option<String> {
    let error =
        serde_path_to_error::deserialize::<_, T>(&mut serde_json::Deserializer::from_str(text)).err()?;
    let place = error.path().to_string();
    is_name(&place).then_some(place)
}

/// Whether this looks like a field's name, or several with dots: what it is not may be somebody's text.
fn is_name(text: &str) -> bool {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "_.[]".contains(letter);
    text.starts_with(|first: char| first.is_ascii_lowercase()) && text.len() < 64 && text.chars().all(is_part)
}

/// `application/json` or a `+json` type, with any parameters.
fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn unreadable(rejection: BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::too_large("the body is larger than this call accepts")
    } else {
        Problem::invalid_body("the body could not be read to its end")
    }
}

/// The parameters after `?`.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri)
            .map(|query| Self(query.0))
            .map_err(|refused| Problem::invalid_query(wrong_parameter(&refused.body_text())))
    }
}

/// Names the parameter that the extractor's words are about, and does not repeat its value.
fn wrong_parameter(told: &str) -> String {
    let (_, about) = told.split_once(": ").unwrap_or_default();
    if about.starts_with("missing field") {
        return about.replacen("missing field", "missing parameter", 1);
    }
    match about.split_once(": ") {
        Some((name, _)) if is_name(name) => format!("{name}: no value that this parameter can have"),
        _ => "a parameter of the URL is missing or malformed".to_owned(),
    }
}

/// The parameters in the path. What can't be one, an id that is none for instance, names nothing: 404.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::<T>::from_request_parts(parts, state)
            .await
            .map(|path| Self(path.0))
            .map_err(|_| Problem::not_found("there is nothing at this path"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    struct Login {
        #[allow(dead_code)]
        password: u64,
    }

    #[test]
    fn a_refused_body_is_not_quoted() {
        let problem = parse::<Login>(br#"{"password": "correct horse"}"#).expect_err("a wrong type");
        assert_eq!(problem.code, "invalid_body");
        assert!(!problem.detail.contains("horse"));
        assert_eq!(parse::<Login>(b"\xff\xfe").expect_err("no UTF-8").code, "invalid_body");
        assert_eq!(parse::<Login>(b"").expect_err("nothing").code, "invalid_body");
        assert!(parse::<Login>(br#"{"password": 1, "more": []}"#).is_ok());
        assert_eq!(parse::<Login>(b" [1]").expect_err("a list").code, "invalid_body");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let detail = |body: &[u8]| parse::<Login>(body).expect_err("refused").detail;
        assert_eq!(detail(br#"{"password": "x"}"#), "password: a value of another kind is expected");
        assert_eq!(detail(b"{}"), "missing field `password` at line 1 column 2");
        assert_eq!(detail(b"null"), "a field has a wrong type (line 1, column 4)");
        let query = |uri: &str| {
            let parts = Request::builder()
                .uri(uri)
                .body(axum::body::Body::empty())
                .expect("a request")
                .into_parts()
                .0;
            axum::extract::Query::<Login>::try_from_uri(&parts.uri)
                .map_err(|refused| wrong_parameter(&refused.body_text()))
        };
        assert_eq!(
            query("/?password=x").expect_err("refused"),
            "password: no value that this parameter can have"
        );
        assert_eq!(query("/").expect_err("refused"), "missing parameter `password`");
    }

    #[test]
    fn json_goes_by_several_names() {
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
            assert!(is_json(good));
        }
        for bad in ["text/plain", "", "application/x-www-form-urlencoded", "json"] {
            assert!(!is_json(bad));
        }
    }
}

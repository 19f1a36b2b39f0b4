//! The node that an operator's calls go to.
//!
//! An operator's token is for a node, and HTTP clients drop tokens at a redirect to another address, as they should. So
//! the URL is asked first, without a token: a node answers, and a router names the node that it would send the call to.
//! The token goes to that one, and follows no further redirect.

use std::fmt;

use anyhow::Context;
use reqwest::{Client, Response, StatusCode, Url, header, redirect};

/// What a node, and a router by way of a node, answers at.
const ASKED: &str = "/v1/node";

/// Why a call was not answered with success.
#[derive(Debug)]
pub enum Failure {
    /// It was not answered, or by something that may be better in a moment.
    Broken(anyhow::Error),
    /// The same call will be refused again.
    Refused(Refusal),
}

/// What refuses a call, and why.
#[derive(Debug)]
pub struct Refusal {
    pub by: String,
    pub status: StatusCode,
    pub detail: String,
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} refuses: {}", self.by, self.status)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Broken(error)
    }
}

/// Settings of a client that follows no redirect.
pub fn client() -> reqwest::ClientBuilder {
    Client::builder().redirect(redirect::Policy::none())
}

/// The base URL of the node that `url`, a node's or a router's, leads to. `http` must follow no redirects.
pub async fn node_at(http: &Client, url: &str) -> Result<String, Failure> {
    let url = url.trim_end_matches('/');
    let answer = http.get(format!("{url}{ASKED}")).send().await;
    let answer = answer.with_context(|| format!("{url} does not answer"))?;
    let status = answer.status();
    match status {
        status if status.is_success() => Ok(url.to_owned()),
        StatusCode::TEMPORARY_REDIRECT => sent_to(&answer).ok_or_else(|| {
            let detail = "it redirects to something that is not a node of MyChat".to_owned();
            Failure::Refused(Refusal { by: url.to_owned(), status, detail })
        }),
        status if status.is_server_error() => Err(anyhow::anyhow!("{url} answers {status}").into()),
        status => {
            let detail = "it is not a node or router of MyChat".to_owned();
            Err(Failure::Refused(Refusal { by: url.to_owned(), status, detail }))
        }
    }
}

/// The node that a router redirects to.
fn sent_to(answer: &Response) -> Option<String> {
    let location = answer.headers().get(header::LOCATION)?.to_str().ok()?;
    let target = Url::parse(location).ok()?;
    // Nobody who could read or change what goes to the router may get a token that would have gone encrypted.
    let downgraded = answer.url().scheme() == "https" && target.scheme() != "https";
    if downgraded || !target.username().is_empty() || target.query().is_some() {
        return None;
    }
    location.strip_suffix(ASKED).map(str::to_owned)
}

//! Writes: every call that changes something goes through [`Write::run`], which adds to the job's own rows
//!
//! - **idempotency**: with an `Idempotency-Key` the answer is kept for 24 hours, on every node; the same call again
//!   gets it without running again, and another call under the same key is refused. What is deleted or erased
//!   meanwhile is taken out of it (`kept.rs`);
//! - **durability**: `MyChat-Durability: regions=N` holds the answer back until nodes of N other regions have the
//!   write on their disks (`durability.rs`);
//! - the **cursor**: `MyChat-Cursor` says what a reader has to have seen to see the write.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
};

use axum::{
    body::Body,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use mychat_replication::{
    log::{Value, VersionVector},
    store::{Batch, Migration},
};
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};

use super::{
    Caller,
    body::{Digest, Received},
    durability,
    problem::Problem,
};
use crate::{app::App, events::Cursor, keys::Keys, packed};

/// The header that names what a write's reader must have seen.
pub const CURSOR: HeaderName = HeaderName::from_static("mychat-cursor");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest idempotency key.
const MAX_KEY: usize = 255;
/// What a waiting job holds for each byte of its body: a message, say, also its HTML.
const JOB_OVERHEAD: usize = 4;
/// Room for the headers of an answer, those that every answer gets included.
const HEADERS: usize = 10;
/// How long an answer is kept, in milliseconds; a key's row also says on which day it was written.
const KEEP_MILLIS: u64 = DAY_MILLIS;
/// A day in milliseconds.
pub(super) const DAY_MILLIS: u64 = 24 * 3600 * 1000;

/// The table of kept answers, which are nobody's news.
pub const TABLE: &str = "idempotency";
/// What makes it. Rows are keyed by day besides, so that an old key can be used anew and old rows can be
/// erased by day.
pub const MIGRATIONS: &[Migration] = &[Migration {
    domain: "http",
    number: 1,
    sql: "
        CREATE TABLE idempotency (key BLOB NOT NULL, day INTEGER NOT NULL, data BLOB, PRIMARY KEY (key, day))
            STRICT, WITHOUT ROWID;
        SELECT crsql_as_crr('idempotency');",
}];

/// An answer to a write, before it has its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The body, as the text of its JSON.
    pub body: Option<String>,
}

impl Reply {
    /// An answer of any status with a body.
    ///
    /// # Errors
    /// As [`super::json`].
    pub fn new(status: StatusCode, body: &impl Serialize) -> Result<Self, Problem> {
        Ok(Self { status, body: Some(super::json_text(body)?) })
    }

    /// 201 with what was made.
    ///
    /// # Errors
    /// As [`super::json`].
    pub fn created(body: &impl Serialize) -> Result<Self, Problem> {
        Self::new(StatusCode::CREATED, body)
    }

    /// 200.
    ///
    /// # Errors
    /// As [`super::json`].
    pub fn ok(body: &impl Serialize) -> Result<Self, Problem> {
        Self::new(StatusCode::OK, body)
    }

    /// 202: it will be done.
    ///
    /// # Errors
    /// As [`super::json`].
    pub fn accepted(body: &impl Serialize) -> Result<Self, Problem> {
        Self::new(StatusCode::ACCEPTED, body)
    }

    /// 204.
    #[must_use]
    pub const fn no_content() -> Self {
        Self::bare(StatusCode::NO_CONTENT)
    }

    /// A status alone.
    #[must_use]
    pub const fn bare(status: StatusCode) -> Self {
        Self { status, body: None }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::with_capacity(HEADERS);
        if self.body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let mut response = Response::new(self.body.map_or_else(Body::empty, Body::from));
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        response
    }
}

/// What became of a write.
#[derive(Debug)]
pub struct Outcome {
    /// The job's answer, or the first call's.
    pub reply: Reply,
    cursor: Option<HeaderValue>,
    /// In which regions it is durable, where that was asked for.
    regions: Option<HeaderValue>,
}

impl Outcome {
    /// The response, with the cursor in its header.
    #[must_use]
    pub fn into_response(self) -> Response {
        let mut response = with_cursor(self.reply, self.cursor);
        if let Some(regions) = self.regions {
            response.headers_mut().insert(durability::REGIONS, regions);
        }
        response
    }
}

/// The response to a write, with the [`cursor`] of what the node held after it.
#[must_use]
pub fn with_cursor(reply: Reply, cursor: Option<HeaderValue>) -> Response {
    let mut response = reply.into_response();
    if let Some(cursor) = cursor {
        response.headers_mut().insert(CURSOR, cursor);
    }
    response
}

/// The value of [`CURSOR`] where a node held this.
#[must_use]
pub fn cursor(app: &App, vector: &VersionVector) -> Option<HeaderValue> {
    HeaderValue::from_str(&app.events.cursors().write(&Cursor::from(vector))).ok()
}

/// How a call wants to be written. Extract it before the [`super::Body`].
#[derive(Debug, Clone)]
pub struct Write(Result<Wish, Problem>);

#[derive(Debug, Clone)]
struct Wish {
    key: Option<String>,
    /// Nodes of how many other regions must have it.
    regions: usize,
    method: Method,
    target: String,
    received: Arc<OnceLock<Digest>>,
}

/// Never refuses by itself: whether the caller may call at all comes first, so a malformed header is reported by
/// [`Write::run`].
impl<S: Send + Sync> FromRequestParts<S> for Write {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let digest = Arc::new(OnceLock::new());
        let hashed = parts.headers.contains_key(IDEMPOTENCY_KEY);
        parts.extensions.insert(Received { hashed, digest: Arc::clone(&digest) });
        Ok(Self(wish(parts, digest)))
    }
}

fn wish(parts: &Parts, received: Arc<OnceLock<Digest>>) -> Result<Wish, Problem> {
    Ok(Wish {
        key: key(&parts.headers)?,
        regions: durability::wanted(&parts.headers)?,
        method: parts.method.clone(),
        target: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        received,
    })
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=MAX_KEY).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(Problem::invalid_header("Idempotency-Key must have 1 to 255 visible ASCII characters")),
    }
}

/// A kept answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Of method, target and body.
    call: [u8; 32],
    at_millis: u64,
    status: u16,
    /// As [`Reply::body`].
    pub(super) body: Option<String>,
}

impl Wish {
    /// Of the body; calls without one have none.
    fn digest(&self) -> Digest {
        self.received.get().copied().unwrap_or_default()
    }
}

/// Where a call's answer is kept.
struct Slot {
    key: [u8; 32],
    call: [u8; 32],
}

impl Slot {
    fn of(wish: &Wish, caller: Option<&Caller>, keys: &Keys) -> Option<Self> {
        let key = wish.key.as_ref()?;
        let account = caller.map(|caller| caller.account.bytes());
        let account = account.as_ref().map_or(&[][..], |bytes| bytes);
        let body = wish.digest().sha256;
        Some(Self {
            key: keys.fingerprint(&[b"key", account, key.as_bytes()]),
            call: keys.fingerprint(&[
                b"call",
                wish.method.as_str().as_bytes(),
                wish.target.as_bytes(),
                &body,
            ]),
        })
    }

    /// The answer to the same call within the last day.
    fn find(&self, db: &Connection, now_millis: u64) -> Result<Option<Reply>, Problem> {
        let today = (now_millis / DAY_MILLIS).cast_signed();
        for day in [today, today - 1] {
            let data: Option<Option<Vec<u8>>> = db
                .prepare_cached("SELECT data FROM idempotency WHERE key = ?1 AND day = ?2")?
                .query_row((self.key.as_slice(), day), |row| row.get(0))
                .optional()?;
            let Some(kept) = data.flatten().and_then(|data| packed::decode::<Kept>(&data)) else { continue };
            if now_millis.saturating_sub(kept.at_millis) > KEEP_MILLIS {
                continue;
            }
            if kept.call != self.call {
                return Err(Problem::with(
                    StatusCode::CONFLICT,
                    "idempotency_conflict",
                    "this Idempotency-Key was used for another call",
                ));
            }
            return Ok(Some(Reply {
                status: StatusCode::from_u16(kept.status).unwrap_or(StatusCode::OK),
                body: kept.body,
            }));
        }
        Ok(None)
    }

    fn keep(&self, batch: &mut Batch<'_>, reply: &Reply, now_millis: u64) {
        let kept = Kept {
            call: self.call,
            at_millis: now_millis,
            status: reply.status.as_u16(),
            body: reply.body.clone(),
        };
        let key =
            vec![Value::Blob(self.key.to_vec()), Value::Integer((now_millis / DAY_MILLIS).cast_signed())];
        batch.insert(TABLE, key, packed::encode(&kept));
    }
}

impl Write {
    /// Runs the job in one transaction and answers with what it returned, once that is as durable as asked for.
    ///
    /// # Errors
    /// The job's; 400 for malformed headers; 409 `idempotency_conflict`; 503 when too few regions have it in time.
    pub async fn run(
        self,
        app: &App,
        caller: Option<&Caller>,
        job: impl FnOnce(&mut Batch<'_>) -> Result<Reply, Problem> + Send + 'static,
    ) -> Result<Response, Problem> {
        self.outcome(app, caller, job).await.map(Outcome::into_response)
    }

    /// [`Write::run`] for handlers that have to add to the answer what must not be kept, such as tokens.
    ///
    /// # Errors
    /// As [`Write::run`].
    pub async fn outcome(
        self,
        app: &App,
        caller: Option<&Caller>,
        job: impl FnOnce(&mut Batch<'_>) -> Result<Reply, Problem> + Send + 'static,
    ) -> Result<Outcome, Problem> {
        let wish = self.0?;
        let slot = Slot::of(&wish, caller, &app.keys);
        let size = JOB_OVERHEAD * wish.digest().bytes;
        let written = app
            .store
            .write_sized(size, move |batch| {
                let Some(slot) = slot else { return job(batch) };
                let now = batch.stamp().millis();
                if let Some(first) = slot.find(batch.connection(), now)? {
                    return Ok(first);
                }
                let reply = job(batch)?;
                slot.keep(batch, &reply, now);
                Ok(reply)
            })
            .await?;
        let regions = match wish.regions {
            0 => None,
            count => Some(durability::reached(app, &written, count).await?),
        };
        Ok(Outcome { reply: written.value, cursor: cursor(app, &written.vector), regions })
    }
}

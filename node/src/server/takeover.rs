//! The first call of a plain connection, when it is for the event stream: answered without hyper, so that the socket can
//! move to a reactor once its head is written (`events/reactor/`).
//!
//! The head is looked at without taking it off the socket. Whatever is not the usual form of such a call, in one piece
//! and without a body, goes to hyper as if nobody had looked. The call itself passes the same router as all others.

use std::{io, net::SocketAddr};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
    http::{HeaderName, HeaderValue, Method, Uri, header},
    response::Response,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::{
    events::{
        handover::{CanTakeOver, Handover, joined},
        turns::{NoTurn, Turn, Turns},
    },
    http::Problem,
};

/// How such a call begins.
const BEGINNING: &[u8] = b"GET /v1/events";
/// A call with this waits for what its client has seen elsewhere.
const AFTER: HeaderName = HeaderName::from_static("mychat-after");
/// The longest head that is looked at here.
const MAX_HEAD: usize = 16 << 10;
/// The most fields of a head that is looked at here.
const MAX_FIELDS: usize = 64;
/// The longest answer that is not a stream: a problem document, a goodbye.
const MAX_ANSWER: usize = 1 << 20;
/// A connection that is given back.
type Given = (TcpStream, OwnedSemaphorePermit);

/// Takes the connection over if its first call is for the event stream, and gives it back if it is not. The call has
/// to begin before `last` is there, and is answered when it gets one of the `turns`, or once the node is to `stop`.
///
/// # Errors
/// When the connection breaks.
pub async fn first_call(
    tcp: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    router: &Router,
    turns: &Turns,
    last: impl Future<Output = ()>,
    stop: &CancellationToken,
) -> io::Result<Option<Given>> {
    let mut beginning = [0; BEGINNING.len()];
    let seen = tokio::select! {
        seen = tcp.peek(&mut beginning) => seen?,
        () = last => return Ok(None),
    };
    if seen < BEGINNING.len() || beginning != BEGINNING {
        return Ok(Some((tcp, place)));
    }
    let turn = tokio::select! {
        turn = turns.next() => turn,
        () = stop.cancelled() => Err(Problem::unavailable("the node is going out of service")),
    };
    // What a call needs while it is answered is large, and is made for those only whose turn it is.
    Box::pin(answer_call(tcp, peer, place, router, turn)).await
}

/// Answers the call, if it is one to take over, and moves its stream to a reactor.
async fn answer_call(
    mut tcp: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    router: &Router,
    turn: Result<Turn, Problem>,
) -> io::Result<Option<Given>> {
    let Some((mut request, length)) = head(&tcp, peer).await? else { return Ok(Some((tcp, place))) };
    take(&mut tcp, length).await?;
    match turn {
        Ok(turn) => request.extensions_mut().insert(turn).map(drop),
        Err(problem) => request.extensions_mut().insert(NoTurn(problem)).map(drop),
    };
    let response = match router.clone().call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let stream = response.extensions().get::<Handover>().and_then(Handover::take);
    let Some((first, mut stream)) = stream else {
        answer(&mut tcp, response).await?;
        return Ok(None);
    };
    let mut bytes = encode(&response, None);
    bytes.extend_from_slice(&first);
    tcp.write_all(&bytes).await?;
    loop {
        match stream.missed().await {
            Some(missed) if missed.is_empty() => break,
            Some(missed) => tcp.write_all(&joined(&missed)).await?,
            None => return Ok(None),
        }
    }
    let mut held = (stream, tcp, place);
    loop {
        let (stream, tcp, place) = held;
        held = match stream.settle(tcp, place) {
            Ok(()) | Err(None) => return Ok(None),
            Err(Some(held)) => *held,
        };
        let (stream, tcp, _) = &mut held;
        let items = tokio::select! {
            items = stream.nudged() => items,
            () = gone(tcp) => None,
        };
        match items {
            Some(items) => tcp.write_all(&joined(&items)).await?,
            None => return Ok(None),
        }
    }
}

/// The call at the beginning of what has come, and the length of its head; none unless it can be taken over.
async fn head(tcp: &TcpStream, peer: SocketAddr) -> io::Result<Option<(Request, usize)>> {
    let mut bytes = vec![0; MAX_HEAD];
    let size = tcp.peek(&mut bytes).await?;
    Ok(parse(&bytes[..size]).map(|(mut request, length)| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(CanTakeOver);
        (request, length)
    }))
}

fn parse(bytes: &[u8]) -> Option<(Request, usize)> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = parsed.parse(bytes).ok()? else { return None };
    let uri: Uri = parsed.path?.parse().ok()?;
    let polls = |query: &str| query.split('&').any(|pair| pair.starts_with("poll"));
    if parsed.method != Some("GET")
        || parsed.version != Some(1)
        || uri.path() != "/v1/events"
        || uri.query().is_some_and(polls)
    {
        return None;
    }
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = uri;
    for field in parsed.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        // A body, another protocol, a question before the call, a wait: not the usual form.
        if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::UPGRADE, header::EXPECT, AFTER]
            .contains(&name)
        {
            return None;
        }
        request.headers_mut().append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some((request, length))
}

/// Takes the head off the socket: it is there.
async fn take(tcp: &mut TcpStream, length: usize) -> io::Result<()> {
    let mut left = vec![0; length];
    tcp.read_exact(&mut left).await.map(drop)
}

/// Writes an answer that is no stream, and ends the connection.
async fn answer(tcp: &mut TcpStream, response: Response) -> io::Result<()> {
    let (head, body) = response.into_parts();
    let body = axum::body::to_bytes(body, MAX_ANSWER).await.map_err(io::Error::other)?;
    let mut bytes = encode(&Response::from_parts(head, ()), Some(body.len()));
    bytes.extend_from_slice(&body);
    tcp.write_all(&bytes).await?;
    tcp.shutdown().await
}

/// The head of an answer, after which the connection ends. A stream has no length: it ends with the connection, so that
/// its events need no frames and are the same bytes for every reader.
fn encode<B>(response: &axum::http::Response<B>, length: Option<usize>) -> Vec<u8> {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in response.headers() {
        if [header::CONTENT_LENGTH, header::CONNECTION, header::TRANSFER_ENCODING].contains(name) {
            continue;
        }
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    if let Some(length) = length {
        bytes.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
    }
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    bytes.extend_from_slice(format!("connection: close\r\ndate: {date}\r\n\r\n").as_bytes());
    bytes
}

/// Waits until the client has gone. What it sends is dropped.
async fn gone(tcp: &TcpStream) {
    let mut scratch = [0; 512];
    loop {
        if tcp.ready(Interest::READABLE).await.is_err() {
            return;
        }
        match tcp.try_read(&mut scratch) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_usual_form_of_the_call_is_taken_over() {
        let call = |line: &str, fields: &str| parse(format!("{line}\r\nhost: a\r\n{fields}\r\n").as_bytes());
        let (request, length) =
            call("GET /v1/events?spaces=a HTTP/1.1", "Last-Event-ID: AQA\r\n").expect("a call");
        assert_eq!((request.uri().query(), length), (Some("spaces=a"), 65));
        assert_eq!(request.headers()["last-event-id"], "AQA");
        for line in [
            "GET /v1/events HTTP/1.0",
            "GET /v1/events?poll=20 HTTP/1.1",
            "GET /v1/events?cursor=a&poll=20 HTTP/1.1",
            "GET /v1/eventsandmore HTTP/1.1",
            "HEAD /v1/events HTTP/1.1",
            "GET /v1/events",
        ] {
            assert!(call(line, "").is_none(), "{line}");
        }
        for fields in [
            "Content-Length: 1\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Expect: 100-continue\r\n",
            "bad field",
        ] {
            assert!(call("GET /v1/events HTTP/1.1", fields).is_none(), "{fields}");
        }
        assert!(parse(b"GET /v1/events HTTP/1.1\r\nhost: a\r\n").is_none(), "not all of it");
    }
}

//! HTTP/1.1 as cheaply as it goes: requests that are built once, answers of which only what counts is read.
//!
//! The load generator shares the machine with what it measures, so it must not take much of it. One request is under
//! way on a connection at a time, and the connection is kept.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The connection did not come about or broke.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other side does not speak HTTP as expected.
    #[error("the answer is not understood: {0}")]
    Unexpected(String),
}

fn unexpected<T>(what: impl Into<String>) -> Result<T, WireError> {
    Err(WireError::Unexpected(what.into()))
}

/// A request with a body of JSON.
pub(crate) fn request(method: &str, path: &str, host: SocketAddr, headers: &[String], body: &str) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
    for header in headers {
        head += &format!("{header}\r\n");
    }
    if !body.is_empty() {
        head += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    }
    (head + "\r\n" + body).into_bytes()
}

/// The head of an answer.
struct Head {
    status: u16,
    /// Where the body begins.
    end: usize,
    body: Framing,
}

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// After so many bytes.
    Sized(usize),
    /// After the last chunk.
    Chunked,
    /// With the connection.
    Open,
}

/// Reads a head, if it is complete.
fn head(bytes: &[u8]) -> Result<Option<Head>, WireError> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let end = match response.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return unexpected(error.to_string()),
    };
    let find = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let chunked = find("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let length = find("content-length").and_then(|length| length.trim().parse().ok());
    let status = response.code.unwrap_or_default();
    match (chunked, length) {
        (true, _) => Ok(Some(Head { status, end, body: Framing::Chunked })),
        (false, Some(length)) => Ok(Some(Head { status, end, body: Framing::Sized(length) })),
        (false, None) if status == 204 => Ok(Some(Head { status, end, body: Framing::Sized(0) })),
        (false, None) => Ok(Some(Head { status, end, body: Framing::Open })),
    }
}

/// A kept connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, WireError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 << 10) })
    }

    /// Sends a request and reads the answer to its end; gives the status only.
    pub(crate) async fn status_of(&mut self, request: &[u8]) -> Result<u16, WireError> {
        let head = self.send(request).await?;
        match head.body {
            Framing::Sized(length) => self.fill(head.end + length).await?,
            Framing::Chunked => {
                self.unchunk(head.end).await?;
            }
            Framing::Open => return unexpected("an answer that ends with the connection"),
        }
        Ok(head.status)
    }

    /// Sends a request and reads the answer.
    pub(crate) async fn call(&mut self, request: &[u8]) -> Result<Answer, WireError> {
        let head = self.send(request).await?;
        let body = match head.body {
            Framing::Sized(length) => {
                self.fill(head.end + length).await?;
                self.buffer[head.end..head.end + length].to_vec()
            }
            Framing::Chunked => self.unchunk(head.end).await?,
            Framing::Open => return unexpected("an answer that ends with the connection"),
        };
        Ok(Answer { status: head.status, body })
    }

    /// Sends a request whose answer goes on and on.
    pub(super) async fn stream(mut self, request: &[u8]) -> Result<Streaming, WireError> {
        let head = self.send(request).await?;
        let chunks = match head {
            Head { status: 200, body: Framing::Chunked, .. } => Some(Chunks::default()),
            Head { status: 200, body: Framing::Open, .. } => None,
            Head { status, .. } => return unexpected(format!("{status} in place of a stream")),
        };
        self.buffer.drain(..head.end);
        Ok(Streaming { connection: self, chunks, decoded: Vec::new() })
    }

    async fn send(&mut self, request: &[u8]) -> Result<Head, WireError> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            self.read().await?;
            if let Some(head) = head(&self.buffer)? {
                return Ok(head);
            }
        }
    }

    async fn fill(&mut self, size: usize) -> Result<(), WireError> {
        while self.buffer.len() < size {
            self.read().await?;
        }
        Ok(())
    }

    /// The rest of an answer that comes in chunks.
    async fn unchunk(&mut self, from: usize) -> Result<Vec<u8>, WireError> {
        let (mut chunks, mut body, mut at) = (Chunks::default(), Vec::new(), from);
        loop {
            chunks.decode(&self.buffer[at..], &mut body)?;
            at = self.buffer.len();
            if chunks.ended() {
                return Ok(body);
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<(), WireError> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(())
    }
}

/// An answer that goes on and on.
#[derive(Debug)]
pub(super) struct Streaming {
    connection: Connection,
    /// None where the body comes as it is.
    chunks: Option<Chunks>,
    decoded: Vec<u8>,
}

impl Streaming {
    /// What comes next, as soon as anything does.
    pub(super) async fn next(&mut self) -> Result<&[u8], WireError> {
        self.decoded.clear();
        loop {
            match &mut self.chunks {
                Some(chunks) => chunks.decode(&self.connection.buffer, &mut self.decoded)?,
                None => self.decoded.extend_from_slice(&self.connection.buffer),
            }
            self.connection.buffer.clear();
            if !self.decoded.is_empty() {
                return Ok(&self.decoded);
            }
            if self.chunks.as_ref().is_some_and(Chunks::ended) {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.connection.read().await?;
        }
    }
}

/// Takes the chunks' sizes out of a body.
#[derive(Debug, Default)]
struct Chunks {
    place: Place,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the size of a chunk.
    #[default]
    Start,
    /// Within a size.
    Size(usize),
    /// After a size, before the end of its line.
    Extension(usize),
    /// Within a chunk, with so much left.
    Data(usize),
    /// After a chunk, before the end of its line.
    After,
    /// After the last chunk: lines up to an empty one, of which the current one has anything or not.
    Trailer(bool),
    Ended,
}

impl Chunks {
    fn ended(&self) -> bool {
        self.place == Place::Ended
    }

    fn decode(&mut self, mut input: &[u8], output: &mut Vec<u8>) -> Result<(), WireError> {
        while let Some((&byte, rest)) = input.split_first() {
            if let Place::Data(left) = self.place {
                let (data, rest) = input.split_at(left.min(input.len()));
                output.extend_from_slice(data);
                self.place = if data.len() == left { Place::After } else { Place::Data(left - data.len()) };
                input = rest;
                continue;
            }
            input = rest;
            self.place = match (self.place, byte) {
                (Place::Start | Place::Size(_), digit) if digit.is_ascii_hexdigit() => {
                    let so_far = if let Place::Size(size) = self.place { size } else { 0 };
                    let digit = char::from(digit).to_digit(16).unwrap_or_default();
                    match so_far.checked_mul(16) {
                        Some(size) => Place::Size(size + digit as usize),
                        None => return unexpected("an endless chunk"),
                    }
                }
                (Place::Size(0) | Place::Extension(0), b'\n') => Place::Trailer(false),
                (Place::Size(size) | Place::Extension(size), b'\n') => Place::Data(size),
                (Place::Size(size) | Place::Extension(size), _) => Place::Extension(size),
                (Place::After, b'\r') => Place::After,
                (Place::After, b'\n') => Place::Start,
                (Place::Trailer(any), b'\r') => Place::Trailer(any),
                (Place::Trailer(true), b'\n') => Place::Trailer(false),
                (Place::Trailer(false), b'\n') => Place::Ended,
                (Place::Trailer(_), _) => Place::Trailer(true),
                (Place::Start | Place::After | Place::Ended | Place::Data(_), _) => {
                    return unexpected("a broken chunk");
                }
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    use super::*;

    proptest! {
        #[test]
        fn chunks_are_joined_in_whatever_pieces_they_come(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
            extension in "(;[a-z]{1,5})?",
            trailer in "(x: y\r\n)?",
            cut in 1_usize..20,
        ) {
            let mut wire = Vec::new();
            for body in &bodies {
                wire.extend_from_slice(format!("{:x}{extension}\r\n", body.len()).as_bytes());
                wire.extend_from_slice(body);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
            let (mut chunks, mut output) = (Chunks::default(), Vec::new());
            for piece in wire.chunks(cut) {
                prop_assert!(!chunks.ended());
                chunks.decode(piece, &mut output).unwrap();
            }
            prop_assert!(chunks.ended());
            prop_assert_eq!(output, bodies.concat());
        }
    }

    #[tokio::test]
    async fn a_connection_is_kept_over_answers_of_both_kinds() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let answers: [&[u8]; 3] = [
                b"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n",
            ];
            for answer in answers {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n{}") {
                    socket.read_buf(&mut request).await.unwrap();
                }
                for byte in answer {
                    socket.write_all(&[*byte]).await.unwrap();
                }
            }
        });
        let post = request("POST", "/x", address, &["a: b".to_owned()], "{}");
        let mut connection = Connection::open(address).await.unwrap();
        assert_eq!(connection.status_of(&post).await.unwrap(), 201);
        let answer = connection.call(&post).await.unwrap();
        assert_eq!((answer.status, answer.body), (200, b"abc".to_vec()));
        let mut stream = connection.stream(&post).await.unwrap();
        let mut all = Vec::new();
        while let Ok(piece) = stream.next().await {
            all.extend_from_slice(piece);
        }
        assert_eq!(all, b"def");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_stream_may_come_as_it_is() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                socket.read_buf(&mut request).await.unwrap();
            }
            socket.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc").await.unwrap();
        });
        let get = request("GET", "/x", address, &[], "");
        let mut stream = Connection::open(address).await.unwrap().stream(&get).await.unwrap();
        let mut all = Vec::new();
        while let Ok(piece) = stream.next().await {
            all.extend_from_slice(piece);
        }
        assert_eq!(all, b"abc");
        server.await.unwrap();
    }
}

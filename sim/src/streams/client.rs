//! One stream, as its client sees it: bytes come in, and what they mean comes out. It keeps no bytes while what comes is
//! what the other readers of its space got too.

use std::sync::Arc;

use memchr::memmem;

use super::{
    body::Body,
    mark::Mark,
    seen::Seen,
    transcript::{Entry, Transcript},
};

/// The largest head of an answer, and the largest event.
const LARGEST: usize = 1 << 20;
/// Bytes that are kept for the next event that has to be put together.
const KEPT: usize = 4096;

/// Something that a stream says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It has begun.
    Live,
    /// A message came; `again` when it takes the place of one that was told before.
    Message { mark: Mark, again: bool },
    /// The node sends the client elsewhere.
    Goodbye,
    /// The node can't resume from the client's cursor: it has to read the history.
    Reset,
}

/// Why a stream is of no use any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it was answered with {0}")]
    Refused(u16),
    #[error("what came is no stream of events")]
    Nonsense,
    #[error("it has ended")]
    Ended,
}

/// Where a client goes on when it comes back.
#[derive(Debug, Clone, Default)]
enum Cursor {
    #[default]
    None,
    /// After an event of the transcript.
    Entry(u32),
    /// After this id.
    Id(Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Head,
    Events,
}

/// A client of one space.
#[derive(Debug)]
pub(super) struct Client {
    phase: Phase,
    body: Body,
    /// Which event of the transcript comes next.
    at: u32,
    /// That event, and how many bytes of it have come, if any: by the time the rest does, the transcript may have let go
    /// of it.
    begun: Option<(Arc<Entry>, usize)>,
    /// The head, or an event, that has to be put together.
    carry: Vec<u8>,
    cursor: Cursor,
    /// What it has got.
    pub(super) seen: Seen,
    /// How long the node wants it to wait before it comes back, in milliseconds.
    pub(super) retry: u32,
}

impl Client {
    /// One that has got nothing yet.
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Head,
            body: Body::Plain,
            at: 0,
            begun: None,
            carry: Vec::new(),
            cursor: Cursor::None,
            seen: Seen::default(),
            retry: 1000,
        }
    }

    /// Begins anew on another connection, from its cursor, which it returns. The transcripts are those of the nodes that
    /// it was and will be connected to.
    pub(super) fn begin(&mut self, before: &Transcript, after: &Transcript) -> Option<String> {
        if let Cursor::Entry(place) = self.cursor {
            let id = before.id(place);
            self.cursor = id.map_or(Cursor::None, |id| Cursor::Id(id.into()));
        }
        (self.phase, self.body, self.begun, self.at) = (Phase::Head, Body::Plain, None, after.end());
        self.carry = Vec::new();
        match &self.cursor {
            Cursor::Id(id) => Some(id.to_string()),
            _ => None,
        }
    }

    /// Takes what came.
    pub(super) fn take(
        &mut self,
        mut bytes: &[u8],
        transcript: &mut Transcript,
        news: &mut impl FnMut(News),
    ) -> Result<(), Unusable> {
        if self.phase == Phase::Head {
            let begun = self.carry.len();
            self.carry.extend_from_slice(bytes);
            let Some(end) = self.head()? else {
                return if self.carry.len() > LARGEST { Err(Unusable::Nonsense) } else { Ok(()) };
            };
            bytes = &bytes[end - begun..];
            self.carry = Vec::new();
            self.phase = Phase::Events;
        }
        let mut body = self.body;
        while let Some(data) = body.data(&mut bytes).map_err(|_| Unusable::Nonsense)? {
            self.events(data, transcript, news)?;
        }
        self.body = body;
        if body == Body::Ended { Err(Unusable::Ended) } else { Ok(()) }
    }

    /// Reads the head, if it is complete, and says where it ends.
    fn head(&mut self) -> Result<Option<usize>, Unusable> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&self.carry) {
            Ok(httparse::Status::Complete(end)) => {
                if response.code != Some(200) {
                    return Err(Unusable::Refused(response.code.unwrap_or_default()));
                }
                let chunked = response.headers.iter().any(|header| {
                    header.name.eq_ignore_ascii_case("transfer-encoding")
                        && header.value.eq_ignore_ascii_case(b"chunked")
                });
                self.body = if chunked { Body::Size(0) } else { Body::Plain };
                Ok(Some(end))
            }
            Ok(httparse::Status::Partial) => Ok(None),
            Err(_) => Err(Unusable::Nonsense),
        }
    }

    /// Whether it has had the head of its answer.
    pub(super) fn has_begun(&self) -> bool {
        self.phase == Phase::Events
    }

    fn events(
        &mut self,
        mut data: &[u8],
        transcript: &mut Transcript,
        news: &mut impl FnMut(News),
    ) -> Result<(), Unusable> {
        while !data.is_empty() {
            let begun = self.begun.take();
            let (entry, matched) =
                begun.as_ref().map_or_else(|| (transcript.get(self.at), 0), |(entry, at)| (Some(entry), *at));
            if self.carry.is_empty()
                && let Some(entry) = entry
            {
                let rest = &entry.bytes[matched..];
                let length = rest.len().min(data.len());
                if rest[..length] == data[..length] {
                    data = &data[length..];
                    if length == rest.len() {
                        self.cursor = Cursor::Entry(self.at);
                        self.at += 1;
                        news(News::Message { mark: entry.mark, again: false });
                    } else {
                        self.begun = Some((Arc::clone(entry), matched + length));
                    }
                    continue;
                }
                self.carry.extend_from_slice(&entry.bytes[..matched]);
            }
            // The empty line may come in two pieces.
            let searched = self.carry.len().saturating_sub(1);
            let before = self.carry.len();
            self.carry.extend_from_slice(data);
            let Some(end) = memmem::find(&self.carry[searched..], b"\n\n").map(|at| searched + at + 2) else {
                return if self.carry.len() > LARGEST { Err(Unusable::Nonsense) } else { Ok(()) };
            };
            data = &data[end - before..];
            let mut event = std::mem::take(&mut self.carry);
            event.truncate(end);
            self.event(&event, transcript, news);
            if event.capacity() <= KEPT && !data.is_empty() {
                event.clear();
                self.carry = event;
            }
        }
        Ok(())
    }

    fn event(&mut self, event: &[u8], transcript: &mut Transcript, news: &mut impl FnMut(News)) {
        let (mut kind, mut id, mut has_data) = (&b"message"[..], None, false);
        for line in event.split(|byte| *byte == b'\n') {
            let (field, value) = memchr::memchr(b':', line).map_or((line, &b""[..]), |at| {
                let value = &line[at + 1..];
                (&line[..at], value.strip_prefix(b" ").unwrap_or(value))
            });
            match field {
                b"event" => kind = value,
                b"id" => id = std::str::from_utf8(value).ok(),
                b"data" => has_data = true,
                b"retry" => {
                    let retry = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
                    self.retry = retry.unwrap_or(self.retry);
                }
                _ => {}
            }
        }
        if let Some(id) = id {
            self.cursor = Cursor::Id(id.into());
        }
        if !has_data {
            return;
        }
        match kind {
            b"message.created" | b"message" => {
                if let Some(mark) = Mark::find(event) {
                    self.at = transcript.note(event, mark);
                    let again = memmem::find(event, b"\"replaces\":[").is_some();
                    news(News::Message { mark, again });
                }
            }
            b"ready" => news(News::Live),
            b"goodbye" => news(News::Goodbye),
            b"reset" => news(News::Reset),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::transcript::KEPT, *};

    const HEAD: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

    fn message(number: u32, id: &str) -> String {
        let text = Mark { number, posted: 7 }.text(64);
        format!("id: {id}\nevent: message.created\ndata: {{\"body\":\"{text}\"}}\n\n")
    }

    fn wire(events: &[String]) -> Vec<u8> {
        let chunks = events.iter().map(|event| format!("{:x}\r\n{event}\r\n", event.len()));
        (HEAD.to_owned() + &chunks.collect::<String>()).into_bytes()
    }

    fn read(client: &mut Client, transcript: &mut Transcript, bytes: &[u8], cut: usize) -> Vec<News> {
        let mut all = Vec::new();
        for piece in bytes.chunks(cut) {
            client.take(piece, transcript, &mut |news| all.push(news)).expect("a good stream");
        }
        all
    }

    fn heard(number: u32) -> News {
        News::Message { mark: Mark { number, posted: 7 }, again: false }
    }

    proptest! {
        #[test]
        fn all_clients_understand_the_same_however_the_bytes_are_cut(
            cuts in prop::collection::vec(1usize..300, 3),
            other in 0u32..6,
        ) {
            let ready = "retry: 700\nid: c\nevent: ready\ndata: {}\n\n".to_owned();
            let ping = "id: p\nevent: ping\ndata: {}\n\n".to_owned();
            let mut transcript = Transcript::default();
            for (reader, cut) in cuts.into_iter().enumerate() {
                let mut client = Client::new();
                let events: Vec<String> = std::iter::once(ready.clone())
                    // The second reader has another cursor at one event.
                    .chain((0..6).map(|n| message(n, if reader == 1 && n == other { "own" } else { "shared" })))
                    .chain([ping.clone(), message(6, "last")])
                    .collect();
                let heard_all = read(&mut client, &mut transcript, &wire(&events), cut);
                let expected: Vec<News> = std::iter::once(News::Live).chain((0..7).map(heard)).collect();
                prop_assert_eq!(heard_all, expected);
                prop_assert_eq!(client.retry, 700);
                prop_assert_eq!(client.begin(&transcript, &Transcript::default()), Some("last".to_owned()));
            }
        }
    }

    #[test]
    fn a_client_goes_on_at_another_node_from_what_it_had() {
        let (mut here, mut there) = (Transcript::default(), Transcript::default());
        let mut first = Client::new();
        read(&mut first, &mut here, &wire(&[message(0, "a"), message(1, "b")]), 1000);
        let mut client = Client::new();
        read(&mut client, &mut here, &wire(&[message(0, "a")]), 1000);
        assert_eq!(client.begin(&here, &there), Some("a".to_owned()));
        let replaced = message(1, "x").replace("{\"body\"", "{\"replaces\":[\"m\"],\"body\"");
        let all = read(&mut client, &mut there, &wire(&[message(1, "d"), replaced]), 7);
        assert_eq!(all, [heard(1), News::Message { mark: Mark { number: 1, posted: 7 }, again: true }]);
    }

    #[test]
    fn an_event_that_comes_in_two_pieces_is_heard_however_far_the_others_are_between_them() {
        let mut transcript = Transcript::default();
        let first = wire(&[message(0, "a")]);
        read(&mut Client::new(), &mut transcript, &first, 1000);
        let (half, rest) = first.split_at(first.len() - 20);
        let mut slow = Client::new();
        assert_eq!(read(&mut slow, &mut transcript, half, 1000), []);
        let others: Vec<String> = (1..=KEPT as u32).map(|number| message(number, "b")).collect();
        read(&mut Client::new(), &mut transcript, &wire(&others), 1000);
        assert!(transcript.get(0).is_none());
        assert_eq!(read(&mut slow, &mut transcript, rest, 1000), [heard(0)]);
        assert_eq!(slow.begin(&transcript, &Transcript::default()), Some("a".to_owned()));
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        let mut client = Client::new();
        let mut transcript = Transcript::default();
        let mut take = |bytes: &[u8]| client.take(bytes, &mut transcript, &mut |_| {});
        assert_eq!(take(b"HTTP/1.1 503 Busy\r\n\r\n"), Err(Unusable::Refused(503)));
        let mut client = Client::new();
        let mut take = |bytes: &[u8]| client.take(bytes, &mut transcript, &mut |_| {});
        assert_eq!(take(HEAD.as_bytes()), Ok(()));
        assert_eq!(take(b"0\r\n"), Err(Unusable::Ended));
    }
}

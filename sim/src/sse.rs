//! Reading server-sent events from a byte stream that may be cut anywhere, by the rules of the HTML standard
//! (section "Interpreting an event stream").

use std::collections::VecDeque;
use std::time::Duration;

/// The largest event that is taken, in bytes of its lines.
pub const LARGEST_EVENT: usize = 4 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its type; `message` when the stream names none.
    pub kind: String,
    /// Its data; several lines are joined by line feeds.
    pub data: String,
    /// The last id that the stream has named up to here, which is what `Last-Event-ID` resumes from. Empty when it
    /// has named none.
    pub id: String,
}

/// An event is larger than [`LARGEST_EVENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {LARGEST_EVENT} bytes")]
pub struct TooLarge;

/// A parser for one stream. Give it the bytes as they come, and take the events.
#[derive(Debug, Default)]
pub struct Parser {
    /// The line that is not complete yet.
    line: Vec<u8>,
    /// Whether the last byte was a carriage return, so that a line feed now belongs to it.
    after_return: bool,
    /// Whether the first line is over, where a byte order mark may stand.
    begun: bool,
    kind: String,
    data: String,
    has_data: bool,
    id: String,
    retry: Option<Duration>,
    events: VecDeque<Event>,
}

impl Parser {
    /// A parser at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the stream. After an error the stream is of no use any more.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        for byte in bytes {
            match byte {
                b'\n' if self.after_return => {}
                b'\n' | b'\r' => self.end_line(),
                other => self.line.push(*other),
            }
            self.after_return = *byte == b'\r';
            if self.line.len() + self.data.len() > LARGEST_EVENT {
                return Err(TooLarge);
            }
        }
        Ok(())
    }

    /// The next whole event. What is not whole when the stream ends is dropped, as the standard says.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How long the server asks to wait before connecting again, when it has said so.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    fn end_line(&mut self) {
        let bytes = std::mem::take(&mut self.line);
        let mut line: &[u8] = &bytes;
        if !self.begun {
            self.begun = true;
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch();
        } else {
            let line = String::from_utf8_lossy(line);
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            self.field(field, value.strip_prefix(' ').unwrap_or(value));
        }
        // Keeps the buffer for the next line.
        self.line = bytes;
        self.line.clear();
    }

    fn field(&mut self, name: &str, value: &str) {
        match name {
            "event" => self.kind = value.to_owned(),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.id = value.to_owned(),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry);
            }
            // A comment (an empty name) or a field of a later standard.
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let (kind, data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
        if std::mem::take(&mut self.has_data) {
            let kind = if kind.is_empty() { "message".to_owned() } else { kind };
            self.events.push_back(Event { kind, data, id: self.id.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(parts: &[&[u8]]) -> Vec<Event> {
        let mut parser = Parser::new();
        let mut events = Vec::new();
        for part in parts {
            parser.push(part).unwrap();
            events.extend(std::iter::from_fn(|| parser.next_event()));
        }
        events
    }

    fn event(kind: &str, data: &str, id: &str) -> Event {
        Event { kind: kind.into(), data: data.into(), id: id.into() }
    }

    #[test]
    fn the_rules_of_the_standard() {
        let stream = "\u{feff}: comment\n\ndata: one\n\nevent: a\nid: 7\ndata:two\ndata:  three\n\nid\ndata\n\n\
                      id: x\0y\nretry: 1500\nretry: soon\nunknown: field\ndata:colon: inside\n\nevent: no data\n\n\
                      data: unfinished\n";
        let expected = [
            event("message", "one", ""),
            event("a", "two\n three", "7"),
            event("message", "", ""),
            event("message", "colon: inside", ""),
        ];
        assert_eq!(parse(&[stream.as_bytes()]), expected);
        assert_eq!(parse(&[stream.replace('\n', "\r\n").as_bytes()]), expected);
        assert_eq!(parse(&[stream.replace('\n', "\r").as_bytes()]), expected);
        let mut parser = Parser::new();
        parser.push(stream.as_bytes()).unwrap();
        assert_eq!(parser.retry(), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn the_id_stays_until_another_comes() {
        let events = parse(&[b"id: 1\ndata: a\n\ndata: b\n\nid: 2\n\ndata: c\n\n"]);
        assert_eq!(events.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["1", "1", "2"]);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::new();
        let line = [b"data: ".to_vec(), vec![b'x'; 1 << 20], b"\n".to_vec()].concat();
        let result = (0..8).try_for_each(|_| parser.push(&line));
        assert_eq!(result, Err(TooLarge));
    }

    proptest! {
        #[test]
        fn every_cut_gives_the_same_events(
            pieces in prop::collection::vec(prop_oneof![
                Just("data: x".to_owned()), Just("data:\u{e9}\u{20ac}\u{1f600}".to_owned()), Just("id: 1.2".to_owned()),
                Just("event: message.created".to_owned()), Just("retry: 5".to_owned()), Just("\n".to_owned()),
                Just("\r\n".to_owned()), Just("\r".to_owned()), Just("\n\n".to_owned()), Just(":".to_owned()),
                Just("\u{feff}".to_owned()), ".{0,12}",
            ], 0..40),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let stream = pieces.concat().into_bytes();
            let whole = parse(&[&stream]);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &stream[pair[0]..pair[1]]).collect();
            prop_assert_eq!(&parse(&parts), &whole);
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(&parse(&bytes), &whole);
        }
    }
}

//! Reading IRC logs: one file is one day of one channel, as text clients and archive bots write it.
//!
//! ```text
//! [14:39] <nick> text              a message
//! [14:39]  * nick does something   an action, a message in the third person
//! === nick has joined #channel     a notice
//! [14:39] -nick:#channel- text     a notice, too
//! ```
//!
//! Real logs are dirty: bytes that are not UTF-8, either line ending, lines cut short. None of it stops the reading;
//! what is no line of the format comes out as [`Line::Malformed`] with the reason, with its line number and position,
//! so that the caller can count and name it.
//!
//! A log knows minutes only. Messages get strictly increasing times, a millisecond apart within a minute, so that
//! sorting by time keeps their order. The date comes from the file's name; a time that goes back by more than half
//! a day is the next day's.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use time::macros::format_description;
use time::{Date, Duration, OffsetDateTime, Time};

mod line;

use line::Content;
pub use line::{Fault, LONGEST_LINE};

/// One line of a log and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The number of the line in its file, from 1.
    pub number: u64,
    /// The position of its first byte in the file.
    pub offset: u64,
    /// Whether bytes of it were not UTF-8 and have been replaced by U+FFFD.
    pub replaced: bool,
    /// What it says.
    pub line: Line,
}

/// What a line of a log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// Something that a person wrote.
    Message {
        /// When, in UTC; later than that of every message before it.
        time: OffsetDateTime,
        /// Who, without signs of rank.
        nick: String,
        /// The text as written, never empty; for an action without the name.
        text: String,
        /// Whether it is an action (`/me …`).
        action: bool,
    },
    /// Something that the server or the channel says: joins, parts, topics.
    Notice,
    /// Not a line of the format.
    Malformed {
        /// What is wrong with it.
        why: Fault,
    },
}

/// Why a log can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file's name is not a date, and none was given.
    #[error("{} is not named YYYY-MM-DD.log: name it after the day that it is of", .0.display())]
    NoDate(PathBuf),
    /// The file's name has the form of a date, and there is no such day.
    #[error("{} is named after a day that is in no calendar: name it after the day that it is of", .0.display())]
    NoSuchDay(PathBuf),
    /// The file can't be opened or read.
    #[error("{} can't be read: {reason}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
}

/// Opens the log of one day. Without a date the file must be named `YYYY-MM-DD.log`.
pub fn open(file: &Path, date: Option<Date>) -> Result<Log<BufReader<File>>, LogError> {
    let date = match date.or_else(|| date_of(file)) {
        Some(date) => date,
        None if is_named_like_a_date(file) => return Err(LogError::NoSuchDay(file.to_owned())),
        None => return Err(LogError::NoDate(file.to_owned())),
    };
    let opened = File::open(file).map_err(|reason| LogError::Read { file: file.to_owned(), reason })?;
    Ok(Log::new(BufReader::new(opened), date))
}

/// The date that a file is named after, when it is named `YYYY-MM-DD.log`.
pub fn date_of(file: &Path) -> Option<Date> {
    let name = file.file_name()?.to_str()?.strip_suffix(".log")?;
    Date::parse(name, format_description!("[year]-[month]-[day]")).ok()
}

fn is_named_like_a_date(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".log"));
    let fits =
        |(at, byte): (usize, u8)| if matches!(at, 4 | 7) { byte == b'-' } else { byte.is_ascii_digit() };
    name.is_some_and(|name| name.len() == 10 && name.bytes().enumerate().all(fits))
}

/// The Markdown that a message of a log becomes in a chat: an action in italics, everything else as it is.
pub fn markdown(text: &str, action: bool) -> String {
    match action {
        true => format!("_{text}_"),
        false => text.to_owned(),
    }
}

/// An iterator over the lines of a log. It ends at the end of the input or after the first error of reading it.
#[derive(Debug)]
pub struct Log<R> {
    input: R,
    number: u64,
    offset: u64,
    clock: LogClock,
    failed: bool,
}

impl<R: BufRead> Log<R> {
    /// Reads a log that begins on this date.
    pub fn new(input: R, date: Date) -> Self {
        Self { input, number: 0, offset: 0, clock: LogClock { date, last: None }, failed: false }
    }

    /// The next line without its ending; `None` at the end. The second value tells whether it was cut at the
    /// longest that is kept in memory.
    fn read_line(&mut self) -> io::Result<Option<(Vec<u8>, bool)>> {
        let mut bytes = Vec::new();
        let limit = LONGEST_LINE as u64 + 2;
        let mut read = self.input.by_ref().take(limit).read_until(b'\n', &mut bytes)? as u64;
        if read == 0 {
            return Ok(None);
        }
        let cut = read == limit && bytes.last() != Some(&b'\n');
        if cut {
            read += skip_line(&mut self.input)?;
        }
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        self.number += 1;
        self.offset += read;
        Ok(Some((bytes, cut)))
    }
}

impl<R: BufRead> Iterator for Log<R> {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        if self.failed {
            return None;
        }
        let offset = self.offset;
        let (bytes, cut) = match self.read_line() {
            Ok(line) => line?,
            Err(error) => {
                self.failed = true;
                return Some(Err(error));
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        let replaced = matches!(text, std::borrow::Cow::Owned(_));
        let content = match cut {
            true => Err(Fault::TooLong),
            // Some editors begin a file with a byte order mark.
            false => line::parse(if offset == 0 { text.trim_start_matches('\u{feff}') } else { &text }),
        };
        let line = match content {
            Ok(Content::Message { at, nick, text, action }) => Line::Message {
                time: self.clock.tell(at),
                nick: nick.to_owned(),
                text: text.to_owned(),
                action,
            },
            Ok(Content::Notice) => Line::Notice,
            Err(why) => Line::Malformed { why },
        };
        Some(Ok(Entry { number: self.number, offset, replaced, line }))
    }
}

/// Reads past the end of the line and says how many bytes that was.
fn skip_line(input: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = input.fill_buf()?;
        let (length, ended) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        input.consume(length);
        skipped += length as u64;
        if ended {
            return Ok(skipped);
        }
    }
}

/// Turns the times of day in a log into moments.
#[derive(Debug)]
struct LogClock {
    date: Date,
    last: Option<(Time, OffsetDateTime)>,
}

impl LogClock {
    fn tell(&mut self, at: Time) -> OffsetDateTime {
        let mut moment = self.date.with_time(at).assume_utc();
        if let Some((last_at, last_moment)) = self.last {
            if last_at - at > Duration::hours(12) {
                // The last representable day has none after it; times there stay within it.
                self.date = self.date.next_day().unwrap_or(self.date);
                moment = self.date.with_time(at).assume_utc();
            }
            moment = moment.max(last_moment + Duration::MILLISECOND);
        }
        self.last = Some((at, moment));
        moment
    }
}

#[cfg(test)]
mod tests;

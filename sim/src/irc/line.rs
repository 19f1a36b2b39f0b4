//! The format of one line.

use std::fmt;

use time::Time;

/// The longest line that is taken, in bytes. IRC itself allows 512; anything much longer is not a log.
pub const LONGEST_LINE: usize = 64 << 10;

/// The longest name of a speaker, in bytes; networks allow 9 to 32.
const LONGEST_NICK: usize = 64;

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Nothing is on it.
    Empty,
    /// It does not begin with a time of day in brackets and is not a notice.
    NoTime,
    /// What stands in the brackets is not a time of day.
    BadTime,
    /// After the time there is neither `<nick>` nor `* nick`.
    NoSpeaker,
    /// The speaker says nothing.
    NoText,
    /// It is longer than [`LONGEST_LINE`].
    TooLong,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Empty => "the line is empty",
            Fault::NoTime => "no time in brackets at the start",
            Fault::BadTime => "not a time of day in the brackets",
            Fault::NoSpeaker => "no speaker after the time",
            Fault::NoText => "no text after the speaker",
            Fault::TooLong => "longer than 64 KiB",
        })
    }
}

/// A line of the format, borrowed from its text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    Message { at: Time, nick: &'a str, text: &'a str, action: bool },
    Notice,
}

pub(super) fn parse(line: &str) -> Result<Content<'_>, Fault> {
    if line.trim().is_empty() {
        return Err(Fault::Empty);
    }
    if line.starts_with("===") {
        return Ok(Content::Notice);
    }
    let (time, rest) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')).ok_or(Fault::NoTime)?;
    let at = time_of_day(time).ok_or(Fault::BadTime)?;
    let rest = rest.trim_start();
    // `-sender:#channel- text` is a notice of the protocol, mostly from services and bots.
    if rest.starts_with("===") || (rest.starts_with('-') && rest.contains("- ")) {
        return Ok(Content::Notice);
    }
    let (nick, text, action) = match rest.strip_prefix('<') {
        Some(rest) => {
            let (nick, text) = rest.split_once('>').ok_or(Fault::NoSpeaker)?;
            (without_rank(nick), text, false)
        }
        None => {
            let rest = rest.strip_prefix("* ").ok_or(Fault::NoSpeaker)?.trim_start();
            let (nick, text) = rest.split_once(' ').unwrap_or((rest, ""));
            (nick, text, true)
        }
    };
    // Blanks are let through: archives have put them into names with brackets.
    if nick.is_empty() || nick.len() > LONGEST_NICK {
        return Err(Fault::NoSpeaker);
    }
    match text.trim() {
        "" => Err(Fault::NoText),
        text => Ok(Content::Message { at, nick, text, action }),
    }
}

/// `HH:MM` or `HH:MM:SS`.
fn time_of_day(text: &str) -> Option<Time> {
    let mut numbers = text.split(':').map(|part| {
        (part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| part.parse::<u8>().ok())
            .flatten()
    });
    let (hour, minute) = (numbers.next()??, numbers.next()??);
    let second = match numbers.next() {
        Some(second) => second?,
        None => 0,
    };
    if numbers.next().is_some() {
        return None;
    }
    Time::from_hms(hour, minute, second).ok()
}

/// Clients show operators and voiced speakers with a sign (or a blank) before the name, which no name begins with.
fn without_rank(nick: &str) -> &str {
    nick.trim().trim_start_matches(['@', '+', '%', '&', '~', '!'])
}

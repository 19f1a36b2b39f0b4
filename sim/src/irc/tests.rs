//! Lines as real logs have them (of our own making), and the arithmetic of their times.

use proptest::prelude::*;
use time::macros::{date, datetime};

use super::*;

fn read(log: &[u8]) -> Vec<Entry> {
    Log::new(log, date!(2011 - 03 - 18)).map(Result::unwrap).collect()
}

fn one(line: &str) -> Line {
    let mut entries = read(line.as_bytes());
    assert_eq!(entries.len(), 1, "{line}");
    entries.remove(0).line
}

fn message(line: &str) -> (String, String, bool) {
    match one(line) {
        Line::Message { nick, text, action, .. } => (nick, text, action),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn messages_actions_and_notices_are_told_apart() {
    let said = |nick: &str, text: &str| (nick.to_owned(), text.to_owned(), false);
    assert_eq!(message("[14:39] <ada> hello there"), said("ada", "hello there"));
    assert_eq!(message("[14:39] <a[d]a|away> <b> quoted> [x]"), said("a[d]a|away", "<b> quoted> [x]"));
    assert_eq!(message("[14:39] <a[d] a> archived"), said("a[d] a", "archived"));
    assert_eq!(message("[14:39:07] <@ada> ops"), said("ada", "ops"));
    assert_eq!(message("[14:39] < ada>   spaced  "), said("ada", "spaced"));
    assert_eq!(message("[14:39] <ada>nospace"), said("ada", "nospace"));
    assert_eq!(message("[14:39]  * ada waves *"), ("ada".into(), "waves *".into(), true));
    for notice in [
        "=== ada has joined #here",
        "===",
        "[14:39] === ada is now known as lovelace",
        "[14:39] -ada:#here- hear!",
    ] {
        assert_eq!(one(notice), Line::Notice, "{notice}");
    }
}

#[test]
fn what_is_no_line_says_why() {
    let cases = [
        ("   ", Fault::Empty),
        ("hello", Fault::NoTime),
        ("[14:39 <ada> hi", Fault::NoTime),
        ("14:39 <ada> hi", Fault::NoTime),
        ("[] <ada> hi", Fault::BadTime),
        ("[24:00] <ada> hi", Fault::BadTime),
        ("[14:60] <ada> hi", Fault::BadTime),
        ("[+1:02] <ada> hi", Fault::BadTime),
        ("[1:02] <ada> hi", Fault::BadTime),
        ("[14:39:00:00] <ada> hi", Fault::BadTime),
        ("[\u{661}\u{664}:39] <ada> hi", Fault::BadTime),
        ("[14:39] ada: hi", Fault::NoSpeaker),
        ("[14:39] <ada hi", Fault::NoSpeaker),
        ("[14:39] <> hi", Fault::NoSpeaker),
        ("[14:39]", Fault::NoSpeaker),
        ("[14:39]  *", Fault::NoSpeaker),
        ("[14:39] <ada>", Fault::NoText),
        ("[14:39] <ada>   ", Fault::NoText),
        ("[14:39]  * ada", Fault::NoText),
    ];
    let endless = format!("[14:39] <{}> hi", "a".repeat(65));
    for (line, why) in cases.into_iter().chain([(endless.as_str(), Fault::NoSpeaker)]) {
        assert_eq!(one(line), Line::Malformed { why }, "{line:?}");
    }
}

#[test]
fn lines_carry_their_number_and_position_whatever_their_endings() {
    let log = b"\xef\xbb\xbf[00:01] <a> one\r\n\n[00:01] <b> t\xff\xfew\xe9o\n=== x\r\n[00:01] <c> last without ending";
    let entries = read(log);
    let places: Vec<_> = entries.iter().map(|entry| (entry.number, entry.offset as usize)).collect();
    assert_eq!(places.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    for (_, offset) in &places[1..] {
        assert_eq!(log[offset - 1], b'\n', "a line begins at {offset}");
    }
    assert!(matches!(&entries[0].line, Line::Message { text, .. } if text == "one"));
    assert_eq!(
        entries.iter().map(|entry| entry.replaced).collect::<Vec<_>>(),
        [false, false, true, false, false]
    );
    assert!(matches!(&entries[2].line, Line::Message { text, .. } if text.contains('\u{fffd}')));
    assert!(matches!(&entries[4].line, Line::Message { text, .. } if text == "last without ending"));
}

#[test]
fn an_endless_line_is_malformed_and_the_next_is_read() {
    let mut log = b"[00:01] <a> ".to_vec();
    log.resize(5 * LONGEST_LINE, b'x');
    let next = log.len() as u64 + 1;
    log.extend(b"\n[00:02] <b> fine\n");
    let entries = read(&log);
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].line, Line::Malformed { why: Fault::TooLong });
    assert_eq!((entries[1].number, entries[1].offset), (2, next));
    assert!(matches!(entries[1].line, Line::Message { .. }));
}

fn times(log: &str) -> Vec<OffsetDateTime> {
    let lines = read(log.as_bytes()).into_iter().map(|entry| entry.line);
    lines.filter_map(|line| if let Line::Message { time, .. } = line { Some(time) } else { None }).collect()
}

#[test]
fn a_minute_is_filled_with_milliseconds_and_midnight_begins_a_day() {
    let log = "[23:58] <a> 1\n[23:58] <b> 2\n=== notice\n[23:58] <a> 3\n[00:03] <a> 4\n[00:02] <a> 5\n";
    assert_eq!(
        times(log),
        [
            datetime!(2011-03-18 23:58:00.000 UTC),
            datetime!(2011-03-18 23:58:00.001 UTC),
            datetime!(2011-03-18 23:58:00.002 UTC),
            datetime!(2011-03-19 00:03:00.000 UTC),
            // A clock that was set back a little does not change the order.
            datetime!(2011-03-19 00:03:00.001 UTC),
        ]
    );
}

#[test]
fn the_date_is_in_the_name_or_given() {
    assert_eq!(date_of(Path::new("/logs/2004-12-25.log")), Some(date!(2004 - 12 - 25)));
    for other in
        ["notes.log", "2004-13-01.log", "2004-12-25.txt", "x2004-12-25.log", "2004-12-25_17.log", "/"]
    {
        assert_eq!(date_of(Path::new(other)), None, "{other}");
    }
    let error = open(Path::new("notes.log"), None).err().unwrap();
    assert!(matches!(&error, LogError::NoDate(_)) && error.to_string().contains("notes.log"), "{error}");
    for odd in ["2026-02-30.log", "2004-13-01.log"] {
        let error = open(Path::new(odd), None).err().unwrap();
        assert!(matches!(&error, LogError::NoSuchDay(_)) && error.to_string().contains(odd), "{error}");
    }
    let missing = open(Path::new("/nonexistent/2004-12-25.log"), None).err().unwrap();
    assert!(missing.to_string().contains("2004-12-25.log"), "{missing}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notes.log");
    std::fs::write(&file, "[10:00] <a> hi\n").unwrap();
    assert_eq!(open(&file, Some(date!(2020 - 01 - 02))).unwrap().count(), 1);
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_the_end_with_increasing_times(
        lines in prop::collection::vec(prop_oneof![
            "\\[[0-2][0-9]:[0-5][0-9]\\] <[a-z]{1,4}> .{0,20}",
            ".{0,40}",
        ], 0..60),
        noise in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let mut log = lines.join("\n").into_bytes();
        log.extend(noise);
        let entries = read(&log);
        prop_assert_eq!(entries.len(), log.split_inclusive(|byte| *byte == b'\n').count());
        let times: Vec<_> = entries.iter().filter_map(|entry| match &entry.line {
            Line::Message { time, .. } => Some(*time),
            _ => None,
        }).collect();
        prop_assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
    }
}

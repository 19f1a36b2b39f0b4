//! What a message may be, and who may do what to it.

use axum::http::StatusCode;

use crate::http::Problem;

/// The longest body, in bytes.
pub const MAX_BODY: usize = 16 << 10;
/// The longest client id, in characters.
const MAX_CLIENT_ID: usize = 128;
/// The longest name of a reaction, in bytes: the longest emoji sequences have about forty.
const MAX_EMOJI: usize = 64;
/// Different reactions of one account on one message.
pub(super) const MAX_REACTIONS: u32 = 20;

/// Whether a body can be sent.
pub(super) fn body(text: &str) -> Result<(), Problem> {
    if text.trim().is_empty() {
        return Err(Problem::invalid_body("a message must have a text"));
    }
    if text.len() > MAX_BODY {
        return Err(Problem::too_large(format!("a message's text has at most {MAX_BODY} bytes")));
    }
    Ok(())
}

/// Whether a client's own id of a message can be taken.
pub(super) fn client_id(text: &str) -> Result<(), Problem> {
    if !(1..=MAX_CLIENT_ID).contains(&text.chars().count()) || text.chars().any(char::is_control) {
        return Err(Problem::invalid_body(format!(
            "client_id has 1 to {MAX_CLIENT_ID} printable characters"
        )));
    }
    Ok(())
}

/// Whether a path names a reaction. What can't be one is not found.
pub(super) fn emoji(text: &str) -> Result<(), Problem> {
    let fits =
        (1..=MAX_EMOJI).contains(&text.len()) && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    if fits { Ok(()) } else { Err(Problem::not_found("there is no such reaction")) }
}

/// The problem of a message that is not there.
pub(super) fn no_message() -> Problem {
    Problem::not_found("there is no such message")
}

/// The problem of a message that was sent before under the same client id: it is answered with that one instead.
pub(super) fn sent_before() -> Problem {
    Problem::conflict("the client_id is that of a message")
}

/// The problem of a message that is deleted.
pub(super) fn deleted() -> Problem {
    Problem::conflict("the message is deleted")
}

/// The problem of files, which can't be attached yet.
pub(super) fn no_attachments() -> Problem {
    Problem::with(StatusCode::BAD_REQUEST, "unsupported", "attachments are not supported yet")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_text_and_an_end() {
        assert_eq!(body("hello"), Ok(()));
        assert_eq!(body(&"x".repeat(MAX_BODY)), Ok(()));
        assert_eq!(body(&"x".repeat(MAX_BODY + 1)).map_err(|problem| problem.code), Err("too_large"));
        for empty in ["", " ", "\n\t\u{a0}"] {
            assert_eq!(body(empty).map_err(|problem| problem.code), Err("invalid_body"));
        }
    }

    #[test]
    fn client_ids_are_short_and_printable() {
        assert_eq!(client_id("b7c1-4"), Ok(()));
        for bad in ["", "a\0b", &"x".repeat(129)] {
            assert!(client_id(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn reactions_are_words_without_gaps() {
        for good in ["👍", "👩🏽‍🚀", ":+1:"] {
            assert_eq!(emoji(good), Ok(()));
        }
        for bad in ["", "a b", "\u{7}", &"👍".repeat(17)] {
            assert!(emoji(bad).is_err(), "{bad:?}");
        }
    }
}

//! Accounts that a text names by their handle: `@handle`.

use rusqlite::Connection;

use crate::{accounts, ids::AccountId, keys::Keys};

/// Names in one message that are looked up; more is shouting.
const MAX_MENTIONS: usize = 50;
/// The longest handle that is looked up, in bytes.
const MAX_HANDLE: usize = 64;

/// The handles that a text names, each once, in the order of their appearance.
pub(super) fn handles(text: &str) -> Vec<&str> {
    let mut handles: Vec<&str> = Vec::new();
    for (at, _) in text.match_indices('@') {
        // An address of e-mail names nobody.
        if text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || "@._-".contains(c)) {
            continue;
        }
        let rest = &text[at + 1..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && !"._-".contains(c)).unwrap_or(rest.len());
        // A full stop behind a handle ends the sentence.
        let handle = rest[..end].trim_end_matches(['.', '-']);
        if (1..=MAX_HANDLE).contains(&handle.len()) && !handles.contains(&handle) {
            handles.push(handle);
        }
        if handles.len() == MAX_MENTIONS {
            break;
        }
    }
    handles
}

/// The accounts that a text names, as far as this node knows them.
pub(super) fn accounts(db: &Connection, keys: &Keys, text: &str) -> rusqlite::Result<Vec<AccountId>> {
    let mut found = Vec::new();
    for handle in handles(text) {
        if let Some(account) = accounts::by_handle(db, keys, handle)?
            && !found.contains(&account)
        {
            found.push(account);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_are_found_in_a_text() {
        assert_eq!(handles("@ada, ask @grace_h. And (@ada) again, @j.r-r."), ["ada", "grace_h", "j.r-r"]);
        assert_eq!(handles("mail me@example.org @@x @ nothing"), Vec::<&str>::new());
        assert_eq!(handles("@ünal!"), ["ünal"]);
        assert_eq!(handles(&"@a".repeat(9)), ["a"]);
        let many: String = (0..99).map(|n| format!("@u{n} ")).collect();
        assert_eq!(handles(&many).len(), MAX_MENTIONS);
    }
}

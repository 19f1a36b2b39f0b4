//! What an account's fields may hold.

use crate::{http::Problem, names};

/// The largest password, in bytes: hashing time must not depend on what a stranger sends.
const MAX_PASSWORD: usize = 1024;
const MIN_PASSWORD: usize = 8;
const MAX_EMAIL: usize = 254;
const MIN_HANDLE: usize = 2;
const MAX_HANDLE: usize = 32;
const MAX_PHONE: usize = 32;
const MAX_ADDRESS: usize = 500;
const MAX_AVATAR: usize = 2048;

/// A person's name: see [`names::check`].
///
/// # Errors
/// 400 `invalid_body`.
pub(crate) fn name(text: &str) -> Result<String, Problem> {
    names::check(text).map_err(|unfit| Problem::invalid_body(format!("name {unfit}")))
}

/// An e-mail address as it is claimed: trimmed and in lower case. Whether it exists only a letter can tell.
///
/// # Errors
/// 400 `invalid_body`.
pub(crate) fn email(text: &str) -> Result<String, Problem> {
    let email = text.trim().to_lowercase();
    let sides = email.split_once('@');
    let sound = sides.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'));
    if !sound || email.len() > MAX_EMAIL || email.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Problem::invalid_body(
            "email must be an address like name@example.org, of at most 254 bytes",
        ));
    }
    Ok(email)
}

/// The bounds of a password's length.
///
/// # Errors
/// 400 `invalid_body`.
pub(crate) fn password(bytes: &[u8]) -> Result<(), Problem> {
    if (MIN_PASSWORD..=MAX_PASSWORD).contains(&bytes.len()) {
        return Ok(());
    }
    Err(Problem::invalid_body("password must have 8 to 1024 bytes"))
}

/// A handle: in lower case, without a leading `@`.
///
/// # Errors
/// 400 `invalid_body`.
pub(crate) fn handle(text: &str) -> Result<String, Problem> {
    let handle = text.strip_prefix('@').unwrap_or(text).to_lowercase();
    let sound = handle
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte));
    if !sound || !(MIN_HANDLE..=MAX_HANDLE).contains(&handle.len()) {
        return Err(Problem::invalid_body("handle must have 2 to 32 of a-z, 0-9, _, . and -"));
    }
    Ok(handle)
}

/// A telephone number, loosely: people write them in many ways.
///
/// # Errors
/// 400 `invalid_body`.
pub(crate) fn phone(text: &str) -> Result<String, Problem> {
    let phone = text.trim();
    let sound = phone.bytes().all(|byte| byte.is_ascii_digit() || b"+ ()-./".contains(&byte));
    if !sound || !phone.bytes().any(|byte| byte.is_ascii_digit()) || phone.len() > MAX_PHONE {
        return Err(Problem::invalid_body("phone must have digits, and besides only + ( ) - . / and spaces"));
    }
    Ok(phone.to_owned())
}

/// A postal address: free text of a few lines.
///
/// # Errors
/// 400 `invalid_body`.
pub(crate) fn address(text: &str) -> Result<String, Problem> {
    let address = text.trim();
    let odd = |c: char| c.is_control() && c != '\n' && c != '\r';
    if address.is_empty() || address.chars().count() > MAX_ADDRESS || address.chars().any(odd) {
        return Err(Problem::invalid_body("address must have 1 to 500 characters"));
    }
    Ok(address.to_owned())
}

/// The URL of a picture, on the web or on this site.
///
/// # Errors
/// 400 `invalid_body`.
pub(crate) fn avatar(text: &str) -> Result<String, Problem> {
    let sound = ["https://", "http://", "/"].iter().any(|start| text.starts_with(start));
    if !sound || text.len() > MAX_AVATAR || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Problem::invalid_body("avatar must be the URL of a picture, of at most 2048 bytes"));
    }
    Ok(text.to_owned())
}

/// A handle made of a name, as far as its letters allow; the caller adds a suffix when it is taken.
pub(crate) fn handle_of(name: &str) -> String {
    let mut handle = String::new();
    for c in name.to_lowercase().chars() {
        if c.is_ascii_alphanumeric() {
            handle.push(c);
        } else if !handle.is_empty() && !handle.ends_with('-') {
            handle.push('-');
        }
    }
    // Room for a suffix of five.
    handle.truncate(MAX_HANDLE - 5);
    let handle = handle.trim_end_matches('-');
    if handle.len() < MIN_HANDLE { "user".to_owned() } else { handle.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_name_gives_a_handle(name: String) {
            let made = handle_of(&name);
            prop_assert_eq!(handle(&made), Ok(made.clone()));
            let suffixed = format!("{made}-9999");
            prop_assert_eq!(handle(&suffixed), Ok(suffixed));
        }
    }

    #[test]
    fn addresses_are_folded_and_checked() {
        assert_eq!(email(" Ada@Example.ORG "), Ok("ada@example.org".to_owned()));
        let long = format!("{}@x.org", "a".repeat(MAX_EMAIL));
        for bad in ["", "ada", "@x", "ada@", "a@b@c", "a b@c", "a@b\0", &long] {
            assert!(email(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_have_a_length_and_no_control_characters() {
        assert_eq!(name("  Zoë 🦀 "), Ok("Zoë 🦀".to_owned()));
        assert!(name(&"é".repeat(100)).is_ok());
        for bad in ["", "   ", "a\0b", "a\nb", &"é".repeat(101)] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn handles_are_plain() {
        assert_eq!(handle("@Ada.L"), Ok("ada.l".to_owned()));
        for bad in ["", "a", "a b", "zoë", "a/b", &"a".repeat(33)] {
            assert!(handle(bad).is_err(), "{bad:?}");
        }
        assert_eq!(handle_of("Ada  Lovelace!"), "ada-lovelace");
        assert_eq!(handle_of("日本"), "user");
    }

    #[test]
    fn passwords_have_bounds() {
        assert!(password(&[b'x'; 7]).is_err() && password(&[b'x'; 8]).is_ok());
        assert!(password(&[b'x'; 1024]).is_ok() && password(&[b'x'; 1025]).is_err());
    }

    #[test]
    fn other_fields_refuse_what_does_not_belong() {
        assert!(phone("+49 (30) 123-45").is_ok() && phone("call me").is_err() && phone("+").is_err());
        assert!(address("1 Main St\nTown").is_ok() && address("").is_err() && address("a\0").is_err());
        assert!(avatar("/a.png").is_ok() && avatar("javascript:alert(1)").is_err());
    }
}

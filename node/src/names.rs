//! What people, and spaces, may be called.

/// The most characters of a name.
pub const MAX: usize = 100;

/// Why something can't be a name; it reads on from what is meant to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is empty, or too long.
    #[error("must have 1 to {MAX} characters")]
    Length,
    /// It has a control character, a line break among them.
    #[error("must have no control characters")]
    Control,
    /// It turns the direction of writing, also of what stands after it.
    #[error(
        "must have no characters that turn the direction of writing (U+202A to U+202E, U+2066 to U+2069)"
    )]
    Direction,
    /// Nobody could see or choose it.
    #[error("must have a character that can be seen")]
    Invisible,
}

/// The name without the white space around it, if it is one that people can see.
///
/// # Errors
/// What is wrong with it.
pub fn check(text: &str) -> Result<String, Unfit> {
    let name = text.trim();
    if !(1..=MAX).contains(&name.chars().count()) {
        return Err(Unfit::Length);
    }
    if name.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err(Unfit::Control);
    }
    if name.chars().any(|c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')) {
        return Err(Unfit::Direction);
    }
    if name.chars().all(|c| c.is_whitespace() || is_ignorable(c)) {
        return Err(Unfit::Invisible);
    }
    Ok(name.to_owned())
}

/// Characters that show nothing by themselves: Unicode's property `Default_Ignorable_Code_Point`, and the empty
/// Braille pattern. Some have a use inside a name, as the joiners that an emoji is made with.
fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_people_can_see() {
        for good in [" Zoë 🦀 ", "👩\u{200d}🚀", "نگار\u{200c}ها", "שלום", "❤\u{fe0f}", "a\u{200f}b"]
        {
            assert_eq!(check(good).as_deref(), Ok(good.trim()), "{good:?}");
        }
        assert!(check(&"é".repeat(MAX)).is_ok());
        for (bad, why) in [
            ("", Unfit::Length),
            (" \u{3000} ", Unfit::Length),
            (&"é".repeat(MAX + 1), Unfit::Length),
            ("a\0b", Unfit::Control),
            ("a\nb", Unfit::Control),
            ("a\u{2028}b", Unfit::Control),
            ("\u{200b}", Unfit::Invisible),
            ("\u{200b}\u{2060} \u{feff}", Unfit::Invisible),
            ("\u{3164}", Unfit::Invisible),
            ("\u{2800}\u{2800}", Unfit::Invisible),
            ("\u{202e}nimda", Unfit::Direction),
            ("a\u{202a}b", Unfit::Direction),
            ("\u{2066}a\u{2069}", Unfit::Direction),
        ] {
            assert_eq!(check(bad), Err(why), "{bad:?}");
        }
    }
}

//! Times as the API writes them: RFC 3339, UTC, with milliseconds.

use mychat_replication::clock::Stamp;
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

/// The time of a stamp, such as `2026-01-31T09:30:00.123Z`.
#[must_use]
pub fn rfc3339(stamp: Stamp) -> String {
    from_millis(stamp.millis())
}

/// Milliseconds since 1970, such as `2026-01-31T09:30:00.123Z`.
#[must_use]
pub fn from_millis(millis: u64) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    // Years beyond 9999 come only from damaged data; they are shown as the last moment that the format has.
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&format).ok())
        .unwrap_or_else(|| "9999-12-31T23:59:59.999Z".to_owned())
}

/// Milliseconds since 1970 of an RFC 3339 time in any zone; `None` if it is malformed or before 1970.
#[must_use]
pub fn to_millis(text: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

/// The wall clock in milliseconds since 1970.
#[must_use]
pub fn now_millis() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_milliseconds_and_read_in_any_zone() {
        assert_eq!(from_millis(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(from_millis(1_769_851_800_123), "2026-01-31T09:30:00.123Z");
        assert_eq!(to_millis("2026-01-31T10:30:00.123+01:00"), Some(1_769_851_800_123));
        assert_eq!(to_millis("2026-01-31"), None);
        assert_eq!(to_millis("1969-12-31T23:59:59Z"), None);
        assert_eq!(from_millis(u64::MAX), "9999-12-31T23:59:59.999Z");
    }
}

//! How somebody wants to be addressed: language, time zone, and what to be told by which way.

use mychat_replication::store::Batch;
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};

use crate::{
    http::Problem,
    ids::{AccountId, At},
    packed,
};

/// An account's preferences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Preferences {
    /// A language tag (BCP 47).
    pub language: String,
    /// A time zone's name in the IANA database.
    pub timezone: String,
    /// What is told by which way.
    pub notifications: Notifications,
}

/// What is told by which way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Notifications {
    /// By e-mail.
    pub email: bool,
    /// By SMS.
    pub sms: bool,
    /// By push message.
    pub push: bool,
    /// When nothing is to be sent.
    pub quiet_hours: Option<QuietHours>,
    /// How often what was missed is summed up.
    pub digest: Option<Digest>,
}

/// A daily time in which nothing is sent, in the account's time zone; it may pass midnight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct QuietHours {
    /// `HH:MM`.
    #[serde(alias = "from")]
    pub start: String,
    /// `HH:MM`.
    #[serde(alias = "to", alias = "until")]
    pub end: String,
}

/// How often what was missed is summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Digest {
    /// Never.
    Off,
    /// Every hour.
    Hourly,
    /// Every day.
    Daily,
    /// Every week.
    Weekly,
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            language: "en".to_owned(),
            timezone: "UTC".to_owned(),
            notifications: Notifications::default(),
        }
    }
}

impl Default for Notifications {
    fn default() -> Self {
        Self { email: true, sms: false, push: true, quiet_hours: None, digest: None }
    }
}

impl Preferences {
    /// Checks what the types leave open.
    ///
    /// # Errors
    /// 400 `invalid_body`.
    pub fn check(&self) -> Result<(), Problem> {
        let tag = |text: &str, extra: &[u8]| {
            !text.is_empty()
                && text.len() <= 64
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || extra.contains(&byte))
        };
        if !tag(&self.language, b"-") {
            return Err(Problem::invalid_body("language must be a language tag such as de or pt-BR"));
        }
        if !is_time_zone(&self.timezone) {
            return Err(Problem::invalid_body(
                "timezone must be a name of the IANA database such as Europe/Berlin",
            ));
        }
        if let Some(hours) = &self.notifications.quiet_hours
            && !(is_time(&hours.start) && is_time(&hours.end))
        {
            return Err(Problem::invalid_body("quiet_hours needs start and end as HH:MM"));
        }
        Ok(())
    }
}

/// The areas of the IANA database, with those that only old names have.
const AREAS: &str = "Africa America Antarctica Arctic Asia Atlantic Australia Brazil Canada Chile Etc Europe Indian \
    Mexico Pacific US";

/// The names of the IANA database that are in no area.
const WITHOUT_AREA: &str = "CET CST6CDT Cuba EET EST EST5EDT Egypt Eire Factory GB GB-Eire GMT GMT+0 GMT-0 GMT0 \
    Greenwich HST Hongkong Iceland Iran Israel Jamaica Japan Kwajalein Libya MET MST MST7MDT NZ NZ-CHAT Navajo PRC \
    PST8PDT Poland Portugal ROC ROK Singapore Turkey UCT UTC Universal W-SU WET Zulu";

/// Whether the text has the form of a time zone's name: a known area, and a place or two. The places themselves are not
/// known here: they change several times a year, and nodes of different age have to agree.
fn is_time_zone(text: &str) -> bool {
    let place = |part: &str| {
        let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte);
        (1..=32).contains(&part.len())
            && part.starts_with(|c: char| c.is_ascii_uppercase())
            && part.bytes().all(rest)
    };
    let among = |names: &str, name: &str| names.split_whitespace().any(|known| known == name);
    match text.split_once('/') {
        Some((area, places)) => {
            among(AREAS, area) && places.split('/').count() <= 2 && places.split('/').all(place)
        }
        None => among(WITHOUT_AREA, text),
    }
}

/// Whether the text is a time of day, `00:00` to `23:59`.
fn is_time(text: &str) -> bool {
    let number = |part: &str, below: u8| {
        part.len() == 2
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && part.parse().is_ok_and(|n: u8| n < below)
    };
    text.split_once(':').is_some_and(|(hour, minute)| number(hour, 24) && number(minute, 60))
}

/// The account's preferences: the latest that were stated, or the defaults.
///
/// # Errors
/// What SQLite says.
pub fn current(db: &Connection, account: AccountId) -> rusqlite::Result<Preferences> {
    let data: Option<Vec<u8>> = db
        .prepare_cached(
            "SELECT data FROM preference WHERE account = ?1 AND data IS NOT NULL ORDER BY at DESC LIMIT 1",
        )?
        .query_row([account], |row| row.get(0))
        .optional()?;
    Ok(data.and_then(|data| packed::decode(&data)).unwrap_or_default())
}

/// States the account's preferences.
pub(crate) fn state(batch: &mut Batch<'_>, account: AccountId, preferences: &Preferences) {
    let at = At { stamp: batch.stamp(), site: batch.site() };
    batch.insert("preference", vec![account.value(), at.value()], packed::encode(preferences));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_a_default_and_what_is_odd_is_refused() {
        let parse = |text: &str| serde_json::from_str::<Preferences>(text).expect("JSON");
        assert_eq!(parse("{}"), Preferences::default());
        let full = parse(
            r#"{"language":"pt-BR","timezone":"America/Sao_Paulo","notifications":
               {"email":false,"quiet_hours":{"start":"22:00","end":"07:30"},"digest":"daily"}}"#,
        );
        assert!(
            full.check().is_ok()
                && full.notifications.push
                && full.notifications.digest == Some(Digest::Daily)
        );
        assert_eq!(packed::decode(&packed::encode(&full)), Some(full));
        for zone in
            ["UTC", "Etc/GMT+12", "America/Argentina/Buenos_Aires", "America/Port-au-Prince", "NZ-CHAT"]
        {
            let preferences = Preferences { timezone: zone.to_owned(), ..Preferences::default() };
            assert!(preferences.check().is_ok(), "{zone}");
        }
        for odd in [
            r#"{"language":""}"#,
            r#"{"timezone":""}"#,
            r#"{"timezone":"a b"}"#,
            r#"{"timezone":"Mars/X"}"#,
            r#"{"timezone":"Berlin"}"#,
            r#"{"timezone":"Europe/"}"#,
            r#"{"timezone":"Europe/berlin"}"#,
            r#"{"timezone":"America/A/B/C"}"#,
            r#"{"timezone":"+01:00"}"#,
            r#"{"notifications":{"quiet_hours":{"start":"24:00","end":"07:00"}}}"#,
            r#"{"notifications":{"quiet_hours":{"start":"+1:00","end":"07:00"}}}"#,
        ] {
            assert!(parse(odd).check().is_err(), "{odd}");
        }
    }
}

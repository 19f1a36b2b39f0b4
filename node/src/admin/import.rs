//! Importing another system's log: its speakers become accounts that nobody can sign in to, its lines messages with
//! their own times, in a public space of a given name.
//!
//! The space and each speaker are found again by claims, and each line by its key, so an import can be broken off
//! and begun again, at any node: what is there already is counted as known.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use mychat_replication::{clock::Stamp, store::Batch};
use serde::{Deserialize, Serialize};

use crate::{
    accounts,
    app::App,
    claims,
    http::Problem,
    ids::{AccountId, SpaceId},
    keys::Keys,
    messages, spaces, timestamp,
};

/// Lines that one call may bring.
const MAX_LINES: usize = 1000;
/// New speakers per transaction, of six rows each: together they fit one version.
const SPEAKERS_A_JOB: usize = 40;
/// Lines per transaction, of at most [`BYTES_A_JOB`].
const LINES_A_JOB: usize = 200;
const BYTES_A_JOB: usize = 48 << 10;
/// The longest key, in characters: it becomes the message's `client_id`.
const MAX_KEY: usize = 128;
/// By how much a line's time may be ahead of this node's, in milliseconds.
const MAX_AHEAD_MILLIS: u64 = 60_000;

/// Kinds of claims.
const SPACE: &str = "import-space";
const NICK: &str = "import-nick";
const OWNER: &str = "import-owner";

/// Lines for a space.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct Import {
    /// The name of the space, which is made if no import has made it yet.
    space: String,
    /// The lines, in order.
    lines: Vec<Line>,
}

/// Something that somebody said.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct Line {
    /// The speaker's name; upper and lower case are the same speaker.
    nick: String,
    /// When it was said (RFC 3339).
    at: String,
    /// What was said.
    body: String,
    /// Tells the speaker's lines apart, also when the import is repeated.
    key: String,
}

/// What became of the lines.
#[derive(Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Imported {
    /// The space.
    #[schema(value_type = Option<String>, format = Uuid)]
    space: Option<SpaceId>,
    /// Lines that are new.
    accepted: usize,
    /// Lines that had been imported before.
    known: usize,
    /// Lines that can't be imported.
    rejected: Vec<Rejected>,
}

/// A line that can't be imported.
#[derive(Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Rejected {
    /// The line's key.
    key: String,
    /// Why not.
    why: String,
}

/// A line that can be imported.
#[derive(Debug)]
struct Sound {
    nick: String,
    at: Stamp,
    body: String,
    key: String,
}

/// Imports the lines.
///
/// # Errors
/// 400 for a bad name or too many lines, 503 when the database can't take them; what was written until then stays.
pub async fn import(app: &App, wish: Import) -> Result<Imported, Problem> {
    if wish.lines.len() > MAX_LINES {
        return Err(Problem::invalid_body(format!("an import takes at most {MAX_LINES} lines a call")));
    }
    let name = accounts::check_name(&wish.space)?;
    let (sound, rejected) = sort_out(wish.lines);
    let mut report = Imported { rejected, ..Imported::default() };
    let space = find_space(app, name).await?;
    report.space = Some(space);
    let speakers = find_speakers(app, space, &sound).await?;
    for lines in jobs(sound) {
        let lines: Vec<(AccountId, Sound)> = lines
            .into_iter()
            .filter_map(|line| Some((*speakers.get(&line.nick.to_lowercase())?, line)))
            .collect();
        let total = lines.len();
        let size = lines.iter().map(|(_, line)| size_of::<Sound>() + line.body.len()).sum();
        let written = app.store.write_sized(size, move |batch| write_lines(batch, space, lines)).await?;
        report.accepted += written.value;
        report.known += total - written.value;
    }
    Ok(report)
}

/// Parts the lines that can be imported from those that can't.
fn sort_out(lines: Vec<Line>) -> (Vec<Sound>, Vec<Rejected>) {
    let (mut sound, mut rejected): (Vec<Sound>, Vec<Rejected>) = (Vec::new(), Vec::new());
    let latest = timestamp::now_millis() + MAX_AHEAD_MILLIS;
    for line in lines {
        match check(&line, latest) {
            Ok(millis) => {
                // Lines of one millisecond keep their order by the stamp's counter.
                let first = Stamp::from_millis(millis);
                let at = match sound.last() {
                    Some(last) if last.at.millis() == millis && last.at.counter() < 0xfff => {
                        Stamp::from_u64(last.at.to_u64() + 1)
                    }
                    _ => first,
                };
                sound.push(Sound { nick: line.nick, at, body: line.body, key: line.key });
            }
            Err(why) => {
                let key = line.key.chars().take(MAX_KEY).collect();
                rejected.push(Rejected { key, why: why.to_owned() });
            }
        }
    }
    (sound, rejected)
}

/// The line's time, if the line can be imported.
fn check(line: &Line, latest_millis: u64) -> Result<u64, &'static str> {
    if !(1..=MAX_KEY).contains(&line.key.chars().count()) {
        return Err("the key must have 1 to 128 characters");
    }
    if accounts::check_name(&line.nick).is_err() {
        return Err(
            "the nick must have 1 to 100 characters, some to be seen, and none that control the text",
        );
    }
    if line.body.trim().is_empty() {
        return Err("the body is empty");
    }
    if line.body.len() > messages::MAX_BODY {
        return Err("the body is too large");
    }
    let millis = timestamp::to_millis(&line.at).ok_or("the time is not in RFC 3339, or before 1970")?;
    if millis > latest_millis { Err("the time is in the future") } else { Ok(millis) }
}

/// Cuts lines into the portions of transactions.
fn jobs(lines: Vec<Sound>) -> Vec<Vec<Sound>> {
    let mut jobs: Vec<Vec<Sound>> = Vec::new();
    let mut bytes = 0;
    for line in lines {
        let size = line.body.len() + line.key.len() + 128;
        match jobs.last_mut() {
            Some(job) if job.len() < LINES_A_JOB && bytes + size <= BYTES_A_JOB => {
                bytes += size;
                job.push(line);
            }
            _ => {
                bytes = size;
                jobs.push(vec![line]);
            }
        }
    }
    jobs
}

/// Writes a portion; says how many lines were new.
fn write_lines(
    batch: &mut Batch<'_>,
    space: SpaceId,
    lines: Vec<(AccountId, Sound)>,
) -> Result<usize, Problem> {
    // The batch does not show its own rows, so a line that comes twice in it is found by hand.
    let mut here = HashSet::new();
    let mut new = 0;
    for (author, line) in lines {
        if here.insert((author, line.key.clone()))
            && messages::import(batch, space, author, line.at, line.body, line.key)?
        {
            new += 1;
        }
    }
    Ok(new)
}

/// The space that imports of this name go to; made when there is none, and owned by an account of its own.
async fn find_space(app: &App, name: String) -> Result<SpaceId, Problem> {
    let keys = app.keys.clone();
    let written = app.store.write(move |batch| {
        let claim = keys.claim(SPACE, &name);
        if let Some(space) = claims::owner(batch.connection(), SPACE, claim)? {
            return Ok::<_, Problem>(SpaceId(space));
        }
        let owner_claim = keys.claim(OWNER, "");
        let owner = match claims::owner(batch.connection(), OWNER, owner_claim)? {
            Some(owner) => AccountId(owner),
            None => {
                let owner = accounts::found_imported(batch, &keys, "Imported history".to_owned(), None);
                claims::claim(batch, OWNER, owner_claim, owner.0);
                owner
            }
        };
        let space = SpaceId::from_stamp(batch.stamp(), rand::random());
        claims::claim(batch, SPACE, claim, space.0);
        spaces::found(batch, space, owner, spaces::Visibility::Public, name, String::new());
        Ok(space)
    });
    Ok(written.await?.value)
}

/// The accounts of the lines' speakers, by nick in lower case; made when there are none, and members of the space.
async fn find_speakers(
    app: &App,
    space: SpaceId,
    lines: &[Sound],
) -> Result<BTreeMap<String, AccountId>, Problem> {
    // The spelling that comes first is the one that is shown.
    let mut spellings: BTreeMap<String, String> = BTreeMap::new();
    for line in lines {
        spellings.entry(line.nick.to_lowercase()).or_insert_with(|| line.nick.clone());
    }
    let nicks: Vec<(String, String)> = spellings.into_iter().collect();
    let mut speakers = BTreeMap::new();
    for nicks in nicks.chunks(SPEAKERS_A_JOB) {
        let (nicks, keys) = (nicks.to_vec(), app.keys.clone());
        let written = app.store.write(move |batch| enlist(batch, &keys, space, nicks)).await?;
        speakers.extend(written.value);
    }
    Ok(speakers)
}

/// Finds or makes the accounts of speakers, given as (nick in lower case, nick), and joins them to the space.
fn enlist(
    batch: &mut Batch<'_>,
    keys: &Keys,
    space: SpaceId,
    nicks: Vec<(String, String)>,
) -> Result<Vec<(String, AccountId)>, Problem> {
    let mut taken = BTreeSet::new();
    let mut speakers = Vec::with_capacity(nicks.len());
    for (folded, nick) in nicks {
        let claim = keys.claim(NICK, &folded);
        let account = match claims::owner(batch.connection(), NICK, claim)? {
            Some(account) => AccountId(account),
            None => {
                let handle = accounts::free_handle(batch, keys, &nick, &taken)?;
                taken.extend(handle.clone());
                let account = accounts::found_imported(batch, keys, nick.trim().to_owned(), handle);
                claims::claim(batch, NICK, claim, account.0);
                account
            }
        };
        spaces::join(batch, space, account, spaces::Role::Member)?;
        speakers.push((folded, account));
    }
    Ok(speakers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(nick: &str, at: &str, body: &str, key: &str) -> Line {
        Line { nick: nick.into(), at: at.into(), body: body.into(), key: key.into() }
    }

    #[test]
    fn bad_lines_are_named_and_good_ones_keep_their_order() {
        let noon = "2006-03-05T12:00:00Z";
        let (sound, rejected) = sort_out(vec![
            line("ada", noon, "one", "1"),
            line("bob", noon, "two", "2"),
            line("", noon, "x", "3"),
            line("ada", "noon", "x", "4"),
            line("ada", noon, " ", "5"),
            line("ada", "2999-01-01T00:00:00Z", "x", "6"),
            line("ada", noon, &"x".repeat(messages::MAX_BODY + 1), "7"),
        ]);
        assert_eq!(sound.iter().map(|line| line.body.as_str()).collect::<Vec<_>>(), ["one", "two"]);
        assert!(sound[0].at < sound[1].at && sound[0].at.millis() == sound[1].at.millis());
        assert_eq!(
            rejected.iter().map(|line| line.key.as_str()).collect::<Vec<_>>(),
            ["3", "4", "5", "6", "7"]
        );
    }

    #[test]
    fn portions_fit_a_version() {
        let at = Stamp::from_millis(1);
        let sound = |size: usize| Sound { nick: "a".into(), at, body: "x".repeat(size), key: "k".into() };
        let lines: Vec<Sound> = (0..500).map(|_| sound(10)).chain((0..10).map(|_| sound(16_000))).collect();
        let portions = jobs(lines);
        assert_eq!(portions.iter().map(Vec::len).sum::<usize>(), 510);
        for portion in &portions {
            assert!(portion.len() <= LINES_A_JOB);
            assert!(portion.iter().map(|line| line.body.len()).sum::<usize>() <= BYTES_A_JOB);
        }
    }
}

//! What is played: the messages of the logs in their order, and who says them.

use std::collections::HashMap;
use std::path::PathBuf;

use time::macros::date;

use crate::irc::{self, Fault, Line, LogError};

/// How many malformed lines are named; the rest are counted.
const NAMED: usize = 5;

/// The messages to post.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// Each line: the speaker's position in `speakers`, and what is posted.
    pub(super) lines: Vec<ScriptLine>,
    /// The speakers' names, each once, in order of their first line.
    pub(super) speakers: Vec<String>,
    /// What the logs had that is no message.
    pub(super) skipped: Skipped,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct ScriptLine {
    pub(super) speaker: usize,
    pub(super) body: String,
}

/// Lines that are not posted, and such as were repaired.
#[derive(Debug, Default, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// Joins, parts and the like.
    pub notices: u64,
    /// Lines that are not of the format.
    pub malformed: u64,
    /// The first of those, as `file:line: reason`.
    pub malformed_examples: Vec<String>,
    /// Lines that were posted with bytes replaced that were not UTF-8.
    pub replaced: u64,
}

impl Script {
    /// Reads the logs until `most_lines` messages are found. Beyond `most_speakers` people, a further one speaks
    /// through the account of an earlier one.
    pub(super) fn read(
        files: &[PathBuf],
        most_lines: Option<usize>,
        most_speakers: Option<usize>,
    ) -> Result<Script, LogError> {
        let most_lines = most_lines.unwrap_or(usize::MAX);
        let most_speakers = most_speakers.unwrap_or(usize::MAX).max(1);
        let mut script = Script::default();
        let mut known: HashMap<String, usize> = HashMap::new();
        for file in files {
            // Times are not replayed, so a file without a date may have any.
            let date = irc::date_of(file).unwrap_or(date!(1970 - 01 - 01));
            for entry in irc::open(file, Some(date))? {
                if script.lines.len() >= most_lines {
                    return Ok(script);
                }
                let entry = entry.map_err(|reason| LogError::Read { file: file.clone(), reason })?;
                match entry.line {
                    Line::Message { nick, text, action, .. } => {
                        let met = known.len();
                        let person = *known.entry(nick).or_insert_with_key(|nick| {
                            if met < most_speakers {
                                script.speakers.push(display_name(nick));
                            }
                            met
                        });
                        script.skipped.replaced += u64::from(entry.replaced);
                        let speaker = person % most_speakers;
                        script.lines.push(ScriptLine { speaker, body: irc::markdown(&text, action) });
                    }
                    Line::Notice => script.skipped.notices += 1,
                    Line::Malformed { why } => {
                        script.skipped.add(&file.display().to_string(), entry.number, why)
                    }
                }
            }
        }
        Ok(script)
    }
}

/// What an account may be called: names in logs can hold control codes (of colours, say), and accounts' can't.
fn display_name(nick: &str) -> String {
    let name: String = nick.chars().filter(|c| !c.is_control()).collect();
    if name.trim().is_empty() { "?".to_owned() } else { name }
}

impl Skipped {
    fn add(&mut self, file: &str, line: u64, why: Fault) {
        self.malformed += 1;
        if self.malformed_examples.len() < NAMED {
            self.malformed_examples.push(format!("{file}:{line}: {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(most_lines: Option<usize>, most_speakers: Option<usize>) -> Script {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            ("2011-03-18.log", "[10:00] <a> 1\n=== x\nbroken\n[10:00] <b> 2\n"),
            ("other", "[10:00] <c> 3\n[10:01]  * a 4\n"),
        ];
        let files = files.map(|(name, content)| {
            let file = folder.path().join(name);
            std::fs::write(&file, content).unwrap();
            file
        });
        Script::read(&files, most_lines, most_speakers).unwrap()
    }

    #[test]
    fn the_messages_of_all_files_in_order() {
        let script = script(None, None);
        assert_eq!(script.speakers, ["a", "b", "c"]);
        let lines: Vec<_> = script.lines.iter().map(|line| (line.speaker, line.body.as_str())).collect();
        assert_eq!(lines, [(0, "1"), (1, "2"), (2, "3"), (0, "_4_")]);
        assert_eq!((script.skipped.notices, script.skipped.malformed), (1, 1));
        assert!(script.skipped.malformed_examples[0].contains("2011-03-18.log:3: no time"));
    }

    #[test]
    fn names_become_such_as_an_account_may_have() {
        assert_eq!(display_name("a\u{3}4da"), "a4da");
        assert_eq!(display_name("\u{2}"), "?");
    }

    #[test]
    fn limits_cut_lines_and_share_accounts() {
        assert_eq!(script(Some(2), None).lines.len(), 2);
        let shared = script(None, Some(2));
        assert_eq!(shared.speakers, ["a", "b"]);
        assert_eq!(shared.lines.iter().map(|line| line.speaker).collect::<Vec<_>>(), [0, 1, 0, 0]);
    }
}

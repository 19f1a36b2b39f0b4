//! What each client must get and may get: the judge of I5 and I6.
//!
//! It follows, for each node, who is a member where by the versions that the node holds, and so knows of each message
//! that a node takes which of the streams that are open there must be told, and which may be. A message that the
//! client's cursor covers is behind it and must not come; one that it does not cover is **owed**. Whenever the client
//! gets a cursor that covers a message that is still owed, it has been passed over.

use std::collections::{BTreeMap, BTreeSet};

use mychat_replication::log::{SiteId, VersionVector};

use super::{
    Rule, Verdict,
    audit::{Messages, Reactions},
    cursor::Seen,
    ledger::{Aspect, Ledger, Place},
    rows::{Fact, Id},
};

/// Who is a member where, as a node knows by what it holds.
#[derive(Debug, Default)]
pub struct Members {
    founded: BTreeSet<Id>,
    latest: BTreeMap<(Id, Id), (Vec<u8>, bool)>,
}

impl Members {
    /// What a node knows that holds `vector`.
    pub fn of(ledger: &Ledger, vector: &VersionVector) -> Self {
        let mut members = Self::default();
        for (_, content) in ledger.held(vector) {
            content.facts.iter().for_each(|(_, fact)| members.learn(fact));
        }
        members
    }

    fn learn(&mut self, fact: &Fact) {
        match fact {
            Fact::Founded { space } => {
                self.founded.insert(*space);
            }
            Fact::Member { space, account, at, on } => {
                let latest = self.latest.entry((*space, *account)).or_default();
                if *at >= latest.0 {
                    *latest = (at.clone(), *on);
                }
            }
            Fact::Sent { .. } | Fact::Edited { .. } | Fact::Deleted { .. } | Fact::Reacted { .. } => {}
        }
    }

    /// Whether an account may read a space.
    pub fn has(&self, space: Id, account: Id) -> bool {
        self.founded.contains(&space) && self.latest.get(&(space, account)).is_some_and(|(_, on)| *on)
    }
}

/// One client, over all its streams.
#[derive(Debug)]
pub struct Client {
    account: Id,
    /// Messages that it was told of.
    got: BTreeSet<Id>,
    /// Texts that it was told a message has by now.
    edits: BTreeSet<(Id, String)>,
    /// Of the messages that it was told of, what they say as far as it knows; nothing once they are deleted.
    texts: BTreeMap<Id, (Id, Option<String>)>,
    /// The reactions to them, as far as it knows.
    reactions: BTreeMap<Id, Reactions>,
    /// The spaces that it knows its account to be a member of; it asks for them before it opens a stream without a cursor.
    member_of: Option<BTreeSet<Id>>,
    stream: Option<Stream>,
}

/// Something that a client is told.
#[derive(Debug, Clone)]
pub struct Told<'t> {
    /// The type of the event.
    pub kind: &'t str,
    pub space: Option<Id>,
    pub message: Option<Id>,
    /// Whose membership it is about.
    pub account: Option<Id>,
    /// What the message says.
    pub body: &'t str,
    pub deleted: bool,
    /// All reactions to the message, or the one that comes or goes.
    pub reactions: Reactions,
}

/// What is known of the stream that a client has open.
#[derive(Debug, Default)]
struct Stream {
    /// What the client had seen when it opened it.
    start: Seen,
    /// The sites that there were then. A cursor names sites by a few bits of their ids, which one that comes later may share.
    sites: BTreeSet<SiteId>,
    owed: BTreeMap<Id, (SiteId, u64, u32)>,
    may: BTreeSet<Id>,
    /// Messages of which the client has seen more than the node, or something that is in doubt: it is told anew what
    /// changes them, since what it was told meanwhile may have been older.
    early: BTreeSet<Id>,
    /// Spaces whose other events it may get.
    spaces: BTreeSet<Id>,
}

impl Client {
    pub fn new(account: Id) -> Self {
        Self {
            account,
            got: BTreeSet::new(),
            edits: BTreeSet::new(),
            texts: BTreeMap::new(),
            reactions: BTreeMap::new(),
            member_of: None,
            stream: None,
        }
    }

    /// The client opens a stream with a cursor, at a node that holds `vector`.
    pub fn opens(&mut self, start: Seen, ledger: &Ledger, vector: &VersionVector, members: &Members) {
        let mut stream = Stream { start, sites: ledger.sites().collect(), ..Stream::default() };
        for (space, account) in members.latest.keys() {
            if *account == self.account && members.has(*space, *account) {
                stream.spaces.insert(*space);
            }
        }
        self.member_of.get_or_insert_with(|| stream.spaces.clone());
        for ((site, version), content) in ledger.held(vector) {
            for (sequence, fact) in &content.facts {
                if let Fact::Sent { space, message } = fact
                    && members.has(*space, self.account)
                    && !stream.start.covers(site, version, *sequence)
                {
                    stream.may.insert(*message);
                    if !self.got.contains(message) {
                        stream.owed.insert(*message, (site, version, *sequence));
                    }
                }
            }
        }
        let doubted = ledger.held(vector).filter(|((site, version), _)| stream.start.doubts(*site, *version));
        let early: Vec<_> = ledger.lacked(vector).chain(doubted).collect();
        for ((site, version), content) in early {
            for (sequence, fact) in &content.facts {
                if let Fact::Sent { message, .. } | Fact::Edited { message } | Fact::Deleted { message } =
                    fact
                    && stream.start.covers(site, version, *sequence)
                {
                    stream.early.insert(*message);
                }
            }
        }
        self.stream = Some(stream);
    }

    /// The client gives up its cursor at a node that holds `vector`, and reads the history there: it knows what that
    /// node knows, and will be told of all else again.
    pub fn begins_anew(&mut self, ledger: &Ledger, vector: &VersionVector) {
        let facts = ledger.held(vector).flat_map(|(_, content)| &content.facts);
        self.got = facts
            .filter_map(|(_, fact)| match fact {
                Fact::Sent { message, .. } => Some(*message),
                _ => None,
            })
            .collect();
        self.edits.clear();
        self.texts.clear();
        self.reactions.clear();
        self.member_of = None;
    }

    /// The stream is gone.
    pub fn closes(&mut self) {
        self.stream = None;
    }

    /// The client is told of something.
    pub fn gets(&mut self, told: &Told<'_>) -> Verdict {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        let Told { kind, space, message, account, body, deleted, reactions } = told;
        let (kind, deleted) = (*kind, *deleted);
        let own = *account == Some(self.account);
        if let (Some(space), Some(member_of)) = (*space, &mut self.member_of) {
            match kind {
                "space.created" => drop(member_of.insert(space)),
                "member.added" if own => drop(member_of.insert(space)),
                "member.removed" if own => drop(member_of.remove(&space)),
                _ => {}
            }
        }
        let (Some(space), Some(message)) = (*space, *message) else { return Ok(()) };
        match kind {
            "message.created" => {
                if !stream.may.contains(&message) {
                    let what = format!(
                        "message {} was told to one who may not read it, or has seen it",
                        name(message)
                    );
                    return Err((Rule::Authorised, what));
                }
                stream.owed.remove(&message);
                if !self.got.insert(message) {
                    return Err((
                        Rule::NoGap,
                        format!("message {} was told twice to one client", name(message)),
                    ));
                }
                self.texts.insert(message, (space, (!deleted).then(|| (*body).to_owned())));
                self.reactions.insert(message, reactions.clone());
            }
            "message.edited" | "message.deleted" | "reaction.added" | "reaction.removed" => {
                if !stream.spaces.contains(&space) {
                    let what =
                        format!("{kind} of {} was told to one who was no member of the space", name(message));
                    return Err((Rule::Authorised, what));
                }
                if kind == "message.edited"
                    && !self.edits.insert((message, (*body).to_owned()))
                    && !stream.early.contains(&message)
                {
                    return Err((
                        Rule::NoGap,
                        format!("{kind} of {} was told twice to one client", name(message)),
                    ));
                }
                if let Some((_, text)) = self.texts.get_mut(&message) {
                    let known = self.reactions.entry(message).or_default();
                    match kind {
                        "reaction.added" => known.extend(reactions.iter().cloned()),
                        "reaction.removed" => known.retain(|reaction| !reactions.contains(reaction)),
                        _ => {
                            *text = (!deleted).then(|| (*body).to_owned());
                            known.clone_from(reactions);
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The client gets a cursor: everything that it covers must have come by now.
    pub fn stands(&mut self, cursor: &Seen, ledger: &Ledger) -> Verdict {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        stream.owed.retain(|message, _| !ledger.is_deleted(message));
        let passed = stream
            .owed
            .iter()
            .find(|(_, (site, version, sequence))| cursor.covers(*site, *version, *sequence));
        match passed {
            Some((message, (site, version, sequence))) => Err((
                Rule::NoGap,
                format!(
                    "a cursor passed message {} ({site:?} {version}.{sequence}), which the client has not got",
                    name(*message)
                ),
            )),
            None => Ok(()),
        }
    }

    /// Everything is over: where it was always a member, the client knows of each message that it was told of what it
    /// says in the end, and who reacts to it how. It makes no difference at which nodes it was, when, and for how long.
    pub fn knows(&self, ledger: &Ledger, truth: &Messages) -> Verdict {
        self.knows_its_spaces(ledger, &truth.members)?;
        for (message, (space, text)) in &self.texts {
            // One that is nowhere any more went with the only disk that had it.
            let Some(said) = truth.texts.get(message) else { continue };
            if !ledger.was_always_member(*space, self.account) {
                continue;
            }
            let wrong = |what: String| {
                Err((Rule::NoGap, format!("a client still takes message {} {what}", name(*message))))
            };
            if text != said && !ledger.has_lost_change(message, Aspect::Text) {
                return wrong(format!("to say {text:?}, and it says {said:?}"));
            }
            // Nobody is shown the reactions to what is deleted, or was by a deletion that is lost.
            let shown = text.is_some() && said.is_some();
            let reactions = [self.reactions.get(message), truth.reactions.get(message)];
            let [known, stand] = reactions.map(|reactions| reactions.cloned().unwrap_or_default());
            if shown && known != stand && !ledger.has_lost_change(message, Aspect::Reactions) {
                return wrong(format!("to have the reactions {known:?}, and it has {stand:?}"));
            }
        }
        Ok(())
    }

    /// It knows of which spaces its account is a member, unless somebody was told of a change to that which is lost.
    fn knows_its_spaces(&self, ledger: &Ledger, truth: &BTreeSet<(Id, Id)>) -> Verdict {
        let Some(known) = &self.member_of else { return Ok(()) };
        let stand = truth.iter().filter(|(_, account)| *account == self.account).map(|(space, _)| *space);
        let stand: BTreeSet<Id> = stand.collect();
        let wrong = known.symmetric_difference(&stand);
        match wrong.into_iter().find(|space| !ledger.has_lost_membership(**space, self.account)) {
            Some(space) => {
                let (is, takes) = (stand.contains(space), known.contains(space));
                let what = format!("a member of {}: {is}, and takes itself for one: {takes}", name(*space));
                Err((Rule::NoGap, format!("a client is {what}")))
            }
            None => Ok(()),
        }
    }

    /// Everything is over, and the stream has given all that it has.
    pub fn ends(&mut self, ledger: &Ledger) -> Verdict {
        let Some(stream) = &mut self.stream else {
            return Err((Rule::Level, "a client has no stream in the end".into()));
        };
        stream.owed.retain(|message, _| !ledger.is_deleted(message));
        match stream.owed.first_key_value() {
            Some((message, (site, version, _))) => Err((
                Rule::NoGap,
                format!("message {} ({site:?} {version}) never came to a client", name(*message)),
            )),
            None => Ok(()),
        }
    }
}

/// A node tells its streams of versions that it has just taken, all of which its tables hold by now. `members` is what
/// it knew before, and knows them afterwards.
pub fn told<'c>(
    places: &[Place],
    ledger: &Ledger,
    members: &mut Members,
    clients: impl Iterator<Item = &'c mut Client>,
) {
    let facts: Vec<(Place, u32, &Fact)> = places
        .iter()
        .filter_map(|place| Some((*place, ledger.content(*place)?)))
        .flat_map(|(place, content)| {
            content.facts.iter().map(move |(sequence, fact)| (place, *sequence, fact))
        })
        .collect();
    let mut clients: Vec<_> = clients.filter(|client| client.stream.is_some()).collect();
    let spaces: BTreeSet<Id> = facts
        .iter()
        .filter_map(|(_, _, fact)| match fact {
            Fact::Sent { space, .. } | Fact::Member { space, .. } | Fact::Founded { space } => Some(*space),
            Fact::Edited { .. } | Fact::Deleted { .. } | Fact::Reacted { .. } => None,
        })
        .collect();
    // Who was a member at any moment of it, and who at all moments.
    let (mut ever, mut always) = (BTreeSet::new(), BTreeSet::new());
    let all = |members: &Members, clients: &[&mut Client]| -> BTreeSet<(Id, Id)> {
        let pairs = spaces.iter().flat_map(|space| clients.iter().map(|client| (*space, client.account)));
        pairs.filter(|(space, account)| members.has(*space, *account)).collect()
    };
    always.extend(all(members, &clients));
    ever.extend(always.iter().copied());
    for (_, _, fact) in &facts {
        members.learn(fact);
        if !matches!(fact, Fact::Sent { .. }) {
            let now = all(members, &clients);
            ever.extend(now.iter().copied());
            always.retain(|pair| now.contains(pair));
        }
    }
    for client in &mut clients {
        let account = client.account;
        let Some(stream) = &mut client.stream else { continue };
        stream.spaces.extend(ever.iter().filter(|(_, member)| *member == account).map(|(space, _)| *space));
        for ((site, version), sequence, fact) in &facts {
            let Fact::Sent { space, message } = fact else { continue };
            if stream.sites.contains(site) && stream.start.covers(*site, *version, *sequence) {
                continue;
            }
            if ever.contains(&(*space, account)) {
                stream.may.insert(*message);
            }
            if always.contains(&(*space, account)) && !client.got.contains(message) {
                stream.owed.insert(*message, (*site, *version, *sequence));
            }
        }
    }
}

fn name(id: Id) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: Id = [1; 16];
    const MESSAGE: Id = [2; 16];
    const READER: Id = [3; 16];

    /// A reader that has been told of a message, and then of more.
    fn reader(more: &[Told<'_>]) -> Client {
        let mut client = Client::new(READER);
        client.stream = Some(Stream { may: [MESSAGE].into(), spaces: [SPACE].into(), ..Stream::default() });
        let created = told("message.created", "one", &[]);
        for told in std::iter::once(&created).chain(more) {
            client.gets(told).expect("it may hear of that");
        }
        client
    }

    fn told(kind: &'static str, body: &'static str, emoji: &[&str]) -> Told<'static> {
        Told {
            kind,
            space: Some(SPACE),
            message: Some(MESSAGE),
            account: None,
            body,
            deleted: kind == "message.deleted",
            reactions: emoji.iter().map(|emoji| (READER, (*emoji).to_owned())).collect(),
        }
    }

    #[test]
    fn a_reader_must_know_its_spaces() {
        let truth = |members: &[(Id, Id)]| Messages {
            members: members.iter().copied().collect(),
            ..Messages::default()
        };
        let judged = |client: &Client, truth: &Messages| client.knows(&Ledger::default(), truth).is_ok();
        let mut client = reader(&[]);
        client.member_of = Some(BTreeSet::new());
        client.texts.clear();
        assert!(judged(&client, &truth(&[])));
        assert!(!judged(&client, &truth(&[(SPACE, READER)])));
        for account in [[4; 16], READER] {
            let added = Told { message: None, account: Some(account), ..told("member.added", "", &[]) };
            client.gets(&added).expect("it may hear of that");
            assert_eq!(judged(&client, &truth(&[(SPACE, READER), (SPACE, [4; 16])])), account == READER);
        }
        let removed = Told { message: None, account: Some(READER), ..told("member.removed", "", &[]) };
        client.gets(&removed).expect("it may hear of that");
        assert!(judged(&client, &truth(&[])));
        client.gets(&Told { message: None, ..told("space.created", "", &[]) }).expect("it may hear of that");
        assert!(!judged(&client, &truth(&[])) && judged(&client, &truth(&[(SPACE, READER)])));
    }

    #[test]
    fn the_last_that_a_reader_is_told_must_be_the_truth() {
        let truth = |text: Option<&str>, emoji: &[&str]| Messages {
            texts: [(MESSAGE, text.map(str::to_owned))].into(),
            reactions: [(MESSAGE, told("", "", emoji).reactions)].into(),
            members: BTreeSet::new(),
        };
        let judged = |client: &Client, truth: &Messages| client.knows(&Ledger::default(), truth).is_ok();
        let edited =
            reader(&[told("message.edited", "three", &["x"]), told("message.edited", "two", &["x"])]);
        assert!(judged(&edited, &truth(Some("two"), &["x"])));
        assert!(!judged(&edited, &truth(Some("three"), &["x"])), "what was older came last");
        assert!(!judged(&edited, &truth(None, &["x"])));
        assert!(!judged(&edited, &truth(Some("two"), &[])));
        let reacted = reader(&[told("reaction.removed", "", &["x"]), told("reaction.added", "", &["x"])]);
        assert!(judged(&reacted, &truth(Some("one"), &["x"])));
        assert!(!judged(&reacted, &truth(Some("one"), &[])));
        assert!(!judged(&reacted, &truth(Some("one"), &["x", "y"])));
        let deleted = reader(&[told("reaction.added", "", &["x"]), told("message.deleted", "", &[])]);
        assert!(judged(&deleted, &truth(None, &["x"])), "nobody is shown the reactions to it");
    }
}

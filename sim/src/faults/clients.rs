//! The clients: they post, edit, delete, react, enter and leave spaces, at one node after another, and read its events
//! with their cursors.

use mychat_node::{
    events::{QUEUE_BYTES, Reader, Unreadable},
    ids::{AccountId, MessageId, SessionId, SpaceId},
};
use mychat_replication::{clock::Stamp, log::SiteId};

use super::{
    calls::{Answer, Call},
    oracle::{
        Rule,
        audit::{Messages, Reactions},
        cursor::Seen,
        ledger::Ledger,
        readers,
    },
    plan::{CLIENTS, Deed, SPACES},
    world::{Happening, World},
};
use crate::virtual_time::{Time, millis};

/// The way from a client to its node.
pub const WAY: Time = millis(15);
/// How long a client waits before it connects again.
const PAUSE: Time = millis(700);
/// How many such pauses a node waits until it can read a cursor.
const WAITS: u32 = 3;
/// Messages of a flood, and how long each is.
const FLOOD: u64 = 90;
const LONG: usize = 15_000;

/// Somebody who reads and writes.
pub struct Person {
    pub account: AccountId,
    session: SessionId,
    /// Where it is connected, or tries to be.
    pub node: usize,
    /// The cursor that it got last.
    cursor: Option<String>,
    /// Counts its connections: what comes on an older one comes to nobody.
    pub connection: u64,
    reader: Option<Reader>,
    /// What is on its way to it.
    coming: usize,
    dozes_until: Time,
    /// How often its node could not read its cursor yet.
    waited: u32,
    /// Messages that it has sent, and all that it has seen.
    own: Vec<(SpaceId, MessageId)>,
    seen: Vec<(SpaceId, MessageId)>,
    pub judge: readers::Client,
}

impl Person {
    /// Whether its cursor covers a version.
    pub fn has_seen(&self, site: SiteId, version: u64, ledger: &Ledger) -> bool {
        let seen = self.cursor.as_deref().and_then(|cursor| Seen::read(cursor, ledger));
        seen.is_some_and(|seen| seen.covers(site, version, 0))
    }

    /// Whether it has a stream open there.
    pub fn is_reading_at(&self, node: usize) -> bool {
        self.node == node && self.reader.is_some()
    }
}

/// Something that happens at a client.
#[derive(Debug)]
pub enum AtClient {
    Connect {
        connection: u64,
    },
    /// It reads on after a doze.
    Wake,
    Gets {
        connection: u64,
        kind: &'static str,
        data: String,
        cursor: Option<String>,
    },
    /// A node has answered a call.
    Answered {
        connection: u64,
        answer: Answer,
    },
    Posts {
        space: usize,
        size: usize,
    },
}

impl World {
    /// Makes the clients and the names of the spaces.
    pub fn meet_people(&mut self) {
        for number in 0..CLIENTS {
            let account =
                AccountId::from_stamp(Stamp::from_millis(1_000 + number as u64), self.stage.chance.number());
            let session = SessionId::from_stamp(Stamp::from_millis(2_000), number as u64);
            self.people.push(Person {
                account,
                session,
                node: number % self.plan.nodes,
                cursor: None,
                connection: 0,
                coming: 0,
                reader: None,
                dozes_until: Time::ZERO,
                waited: 0,
                own: Vec::new(),
                seen: Vec::new(),
                judge: readers::Client::new(account.bytes()),
            });
        }
        for number in 0..SPACES {
            let stamp = Stamp::from_millis(3_000 + number as u64);
            self.spaces.push(SpaceId::from_stamp(stamp, self.stage.chance.number()));
        }
    }

    /// A client does what it planned.
    pub fn does(&mut self, client: usize, deed: Deed) {
        let number = self.next_text();
        let person = &self.people[client];
        let of = |list: &[(SpaceId, MessageId)], pick: u64| {
            (!list.is_empty()).then(|| list[(pick % list.len() as u64) as usize])
        };
        let call = match deed {
            Deed::Post { space } => {
                return self.at_client(client, AtClient::Posts { space, size: 0 });
            }
            Deed::Edit { pick } => of(&person.own, pick).map(|(space, message)| Call::Edit {
                space,
                message,
                body: format!("edit {number}"),
            }),
            Deed::Delete { pick } => {
                of(&person.own, pick).map(|(space, message)| Call::Delete { space, message })
            }
            Deed::React { pick } => of(&person.seen, pick).map(|(space, message)| Call::React {
                space,
                message,
                emoji: if pick.is_multiple_of(2) { "👍" } else { "🎉" },
                on: !pick.is_multiple_of(3),
            }),
            Deed::Enter { space } => Some(Call::Enter { space: self.spaces[space] }),
            Deed::Leave { space } => Some(Call::Leave { space: self.spaces[space] }),
            Deed::Move { node } => return self.moves(client, node),
            Deed::Doze { lasts } => {
                self.stage.count("slow reader");
                self.people[client].dozes_until = self.stage.now() + lasts;
                return self.stage.after(lasts, Happening::AtClient { client, event: AtClient::Wake });
            }
            Deed::Flood { space } => {
                self.stage.count("flood of long messages");
                for number in 0..FLOOD {
                    let event = AtClient::Posts { space, size: LONG };
                    self.stage.after(millis(40) * number as u32, Happening::AtClient { client, event });
                }
                return;
            }
        };
        if let Some(call) = call {
            self.calls(client, call);
        }
    }

    fn next_text(&mut self) -> u64 {
        self.stage.count_by("deeds of clients", 1);
        self.stage.counts.get("deeds of clients").copied().unwrap_or(0)
    }

    fn moves(&mut self, client: usize, node: usize) {
        if node < self.nodes.len() && node != self.people[client].node && !self.nodes[node].leaving {
            self.stage.count("cursor moved to another node");
            self.disconnect(client);
            self.people[client].node = node;
            self.reconnect(client, millis(50));
        }
    }

    /// The client's stream is gone; what was on its way is lost.
    pub fn disconnect(&mut self, client: usize) {
        let person = &mut self.people[client];
        person.connection += 1;
        person.coming = 0;
        person.reader = None;
        person.judge.closes();
    }

    pub fn reconnect(&mut self, client: usize, pause: Time) {
        let connection = self.people[client].connection;
        self.stage.after(pause, Happening::AtClient { client, event: AtClient::Connect { connection } });
    }

    /// All clients of a node have to go on without it.
    pub fn leave_alone(&mut self, node: usize) {
        for client in 0..self.people.len() {
            if self.people[client].node == node {
                self.disconnect(client);
                self.reconnect(client, PAUSE);
            }
        }
    }

    pub fn at_client(&mut self, client: usize, event: AtClient) {
        match event {
            AtClient::Connect { connection } => self.connects(client, connection),
            AtClient::Wake => {
                let node = self.people[client].node;
                self.read_at(node);
            }
            AtClient::Gets { connection, kind, data, cursor } => {
                if self.people[client].connection == connection {
                    self.people[client].coming -= 1;
                    self.gets(client, kind, &data, cursor);
                }
            }
            AtClient::Answered { connection, answer } => {
                let person = &mut self.people[client];
                if person.connection == connection {
                    person.own.extend(answer.sent);
                }
            }
            AtClient::Posts { space, size } => {
                let number = self.next_text();
                let body = format!("text {number} {}", "word ".repeat(size / 5));
                let random = self.stage.chance.number();
                self.calls(client, Call::Post { space: self.spaces[space], body, random });
            }
        }
    }

    /// The client opens its stream, at its node or at the next one that serves.
    fn connects(&mut self, client: usize, connection: u64) {
        let person = &self.people[client];
        if person.connection != connection || person.reader.is_some() {
            return;
        }
        let node = person.node;
        let serves = !self.nodes[node].leaving
            && self.nodes[node].process.as_ref().is_some_and(|process| process.serves);
        if !serves {
            // Elsewhere, sooner or later.
            if self.stage.chance.happens(0.5) {
                self.people[client].node = (node + 1) % self.nodes.len();
                self.stage.count("cursor moved to another node");
            }
            return self.reconnect(client, PAUSE);
        }
        let (account, session) = (person.account, person.session);
        let Some(process) = &self.nodes[node].process else { return };
        let reader = match process.desk.open(account, session, person.cursor.as_deref()) {
            Ok(Some(reader)) => reader,
            Ok(None) => return self.reconnect(client, PAUSE),
            Err(Unreadable::Unknown) => return self.waits_for_its_node(client, connection),
            Err(Unreadable::Malformed) => {
                let cursor = person.cursor.clone();
                return self.stage.object(Rule::NoGap, format!("node {node} takes {cursor:?} for no cursor"));
            }
        };
        let start = reader.start().to_owned();
        let Some(seen) = Seen::read(&start, &self.ledger) else {
            return self.stage.object(Rule::NoGap, format!("{start:?} is no cursor"));
        };
        let person = &mut self.people[client];
        person.judge.opens(seen, &self.ledger, &self.nodes[node].vector, &process.members);
        person.cursor.get_or_insert(start);
        person.waited = 0;
        person.reader = Some(reader);
        self.stage.count("stream opened");
        // What it has missed is read at once, by the memberships of this moment, whether or not it dozes.
        self.read_all(client);
    }

    /// A client has a cursor that its node can't read yet: the node waits a little, and then has it begin anew, as a real
    /// one does by `reset`, upon which a client reads the history.
    fn waits_for_its_node(&mut self, client: usize, connection: u64) {
        let person = &mut self.people[client];
        person.waited += 1;
        if person.waited > WAITS {
            person.cursor = None;
            person.judge.begins_anew(&self.ledger, &self.nodes[person.node].vector);
            self.stage.count("reset: a cursor left out a site that the node did not know to be retired");
            return self.connects(client, connection);
        }
        if person.waited == 1 {
            self.stage.count("a node waited for what retires a site that a cursor left out");
        }
        self.reconnect(client, PAUSE);
    }

    /// A client dozes no more.
    pub fn wake(&mut self, client: usize) {
        self.people[client].dozes_until = Time::ZERO;
        let node = self.people[client].node;
        self.read_at(node);
    }

    /// Whether a client has read all that its node has for it.
    pub fn is_up_to_date(&self, client: usize) -> bool {
        let person = &self.people[client];
        person.reader.is_some() && person.coming == 0 && person.dozes_until <= self.stage.now()
    }

    /// Judges what the clients have got in the end.
    pub fn judge_clients(&mut self, truth: &Messages) {
        for client in 0..self.people.len() {
            let judge = &mut self.people[client].judge;
            let verdict = judge.ends(&self.ledger).and_then(|()| judge.knows(&self.ledger, truth));
            self.judge(|| format!("client {client} in the end"), verdict);
        }
    }

    /// Those who have a stream at a node read what there is.
    pub fn read_at(&mut self, node: usize) {
        for client in 0..self.people.len() {
            if self.people[client].is_reading_at(node) && self.people[client].dozes_until <= self.stage.now()
            {
                self.read_all(client);
            }
        }
    }

    fn read_all(&mut self, client: usize) {
        let person = &mut self.people[client];
        let connection = person.connection;
        let Some(reader) = &mut person.reader else { return };
        let mut taken = Vec::new();
        let mut ended = false;
        loop {
            let missed = reader.is_behind();
            match reader.take() {
                None => {
                    ended = true;
                    break;
                }
                Some(items) if items.is_empty() => break,
                Some(items) => taken.push((missed, items)),
            }
        }
        for (missed, items) in taken {
            let bytes: usize = items.iter().map(|item| item.wire.len()).sum();
            let largest = items.iter().map(|item| item.wire.len()).max().unwrap_or(0);
            if bytes > QUEUE_BYTES + largest {
                self.stage.object(Rule::Bounded, format!("{bytes} bytes waited for one client"));
            }
            self.stage.count_by(
                if missed { "event from the log" } else { "event as it happened" },
                items.len() as u64,
            );
            self.people[client].coming += items.len();
            for item in items {
                let (kind, data, cursor) = (item.kind, item.data.clone(), item.id.clone());
                let event = AtClient::Gets { connection, kind, data, cursor };
                self.stage.after(WAY, Happening::AtClient { client, event });
            }
        }
        if ended {
            self.stage.count("stream ended by the node");
            // What it was sent before still comes, and then it comes back.
            let person = &mut self.people[client];
            person.reader = None;
            self.reconnect(client, PAUSE);
        }
    }

    fn gets(&mut self, client: usize, kind: &'static str, data: &str, cursor: Option<String>) {
        let Ok(data) = serde_json::from_str::<serde_json::Value>(data) else {
            return self.stage.object(Rule::NoGap, "an event is no JSON");
        };
        self.stage.trace.bytes(kind.as_bytes());
        self.stage.trace.bytes(cursor.as_deref().unwrap_or_default().as_bytes());
        let space = text(&data, if kind == "space.created" { "id" } else { "space" });
        let space: Option<SpaceId> = space.and_then(|id| id.parse().ok());
        let account: Option<AccountId> =
            text(&data, "account").filter(|_| kind.starts_with("member")).and_then(|id| id.parse().ok());
        let message: Option<MessageId> =
            text(&data, if kind.starts_with("reaction") { "message" } else { "id" })
                .filter(|_| kind.starts_with("message") || kind.starts_with("reaction"))
                .and_then(|id| id.parse().ok());
        let told = readers::Told {
            kind,
            space: space.map(|space| space.bytes()),
            message: message.map(|message| message.bytes()),
            account: account.map(|account| account.bytes()),
            body: text(&data, "body").unwrap_or_default(),
            deleted: data.get("deleted").and_then(serde_json::Value::as_bool).unwrap_or(false),
            reactions: reactions(&data),
        };
        let person = &mut self.people[client];
        let verdict = person.judge.gets(&told);
        if let (Some(space), Some(message), "message.created") = (space, message, kind) {
            person.seen.push((space, message));
        }
        self.stage.say(|| format!("client {client} gets {kind} {message:?}"));
        self.judge(|| format!("client {client}"), verdict);
        let Some(cursor) = cursor else { return };
        let Some(seen) = Seen::read(&cursor, &self.ledger) else {
            return self.stage.object(Rule::NoGap, format!("{cursor:?} is no cursor"));
        };
        self.stage.count_by("cursor that leaves out retired sites", u64::from(seen.is_short()));
        self.stage.count_by("cursor with something in doubt", u64::from(seen.is_doubtful()));
        let verdict = self.people[client].judge.stands(&seen, &self.ledger);
        self.judge(|| format!("client {client}"), verdict);
        self.people[client].cursor = Some(cursor);
    }

    /// Streams get a sign of life.
    pub fn ping(&mut self) {
        for node in 0..self.nodes.len() {
            if let Some(process) = &self.nodes[node].process {
                process.desk.ping();
                self.read_at(node);
            }
        }
    }
}

fn text<'d>(data: &'d serde_json::Value, field: &str) -> Option<&'d str> {
    data.get(field).and_then(serde_json::Value::as_str)
}

/// The reactions to a message, or the one that an event is about.
fn reactions(data: &serde_json::Value) -> Reactions {
    let id = |id: &str| id.parse().ok().map(|account: AccountId| account.bytes());
    if let (Some(account), Some(emoji)) = (text(data, "account").and_then(id), text(data, "emoji")) {
        return [(account, emoji.to_owned())].into();
    }
    let all = data.get("reactions").and_then(serde_json::Value::as_object);
    let pairs = all.into_iter().flatten().flat_map(|(emoji, accounts)| {
        let accounts = accounts.as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
        accounts.filter_map(id).map(move |account| (account, emoji.clone()))
    });
    pairs.collect()
}

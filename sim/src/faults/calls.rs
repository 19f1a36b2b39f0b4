//! What clients ask of nodes, and what the nodes do about it: the node's own code, in jobs of its store.

use mychat_node::{
    http::Problem,
    ids::{AccountId, MessageId, SpaceId},
    messages::call::{self, Draft, Text},
    spaces::{self, Role},
};
use mychat_replication::{clock::Stamp, store::Batch};

use super::{
    clients::{AtClient, Person, WAY},
    node::Done,
    oracle::ledger::Place,
    upgrade,
    world::{AtNode, Happening, World},
};
use crate::virtual_time::seconds;

/// What a client asks of a node.
#[derive(Debug)]
pub struct Request {
    client: usize,
    connection: u64,
    call: Call,
}

/// The calls.
#[derive(Debug, Clone)]
pub enum Call {
    Post { space: SpaceId, body: String, random: u64 },
    Edit { space: SpaceId, message: MessageId, body: String },
    Delete { space: SpaceId, message: MessageId },
    React { space: SpaceId, message: MessageId, emoji: &'static str, on: bool },
    Enter { space: SpaceId },
    Leave { space: SpaceId },
}

/// What a node answered with success.
#[derive(Debug)]
pub struct Answer {
    client: usize,
    connection: u64,
    /// The version that it is in.
    pub place: Option<Place>,
    /// The message that was sent.
    pub sent: Option<(SpaceId, MessageId)>,
    /// Why it was refused.
    refused: Option<&'static str>,
}

impl World {
    /// The spaces are founded at the first node, with everybody in them but one each.
    pub fn found(&mut self) {
        let Some(process) = self.process(0) else { return };
        let store = process.store.clone();
        let founder = AccountId::from_stamp(Stamp::from_millis(500), 0);
        let (spaces, people): (Vec<_>, Vec<_>) =
            (self.spaces.clone(), self.people.iter().map(|person| person.account).collect());
        let found = async move {
            let job = move |batch: &mut Batch<'_>| {
                for (number, space) in spaces.into_iter().enumerate() {
                    let name = format!("space {number}");
                    spaces::found(batch, space, founder, spaces::Visibility::Public, name, String::new());
                    for (_, account) in people.iter().enumerate().filter(|(at, _)| *at != number) {
                        spaces::join(batch, space, *account, Role::Member)?;
                    }
                }
                Ok::<_, Problem>(())
            };
            let place = store.write(job).await.ok().and_then(|written| written.end);
            Done::Answer(Box::new(Answer {
                client: usize::MAX,
                connection: 0,
                place: place.map(|(site, version)| (site, version.0)),
                sent: None,
                refused: None,
            }))
        };
        self.ask(0, Box::pin(found));
        for client in 0..self.people.len() {
            self.reconnect(client, seconds(1));
        }
    }

    /// A client calls its node.
    pub fn calls(&mut self, client: usize, call: Call) {
        let Person { node, connection, .. } = self.people[client];
        self.stage.later(node, WAY, AtNode::Request(Request { client, connection, call }));
    }

    /// A node is asked for something.
    pub fn requested(&mut self, node: usize, Request { client, connection, call }: Request) {
        if self.nodes[node].leaving {
            return self.stage.count("call refused");
        }
        let upgraded = self.nodes[node].upgraded;
        let Some(process) = self.process(node) else { return };
        let store = process.store.clone();
        let by = self.people[client].account;
        let asked = async move {
            let job = move |batch: &mut Batch<'_>| carry_out(batch, by, call, upgraded);
            let written = store.write(job).await;
            let mut answer = Answer { client, connection, place: None, sent: None, refused: None };
            match written {
                Ok(written) => {
                    answer.place = written.end.map(|(site, version)| (site, version.0));
                    answer.sent = written.value;
                }
                Err(problem) => answer.refused = Some(problem.code),
            }
            Done::Answer(Box::new(answer))
        };
        self.ask(node, Box::pin(asked));
    }

    /// The node's answer goes to the client.
    pub fn answer(&mut self, answer: Answer) {
        let (client, connection) = (answer.client, answer.connection);
        match (answer.refused, answer.place) {
            (Some(_), _) => self.stage.count("call refused"),
            (None, Some(_)) => self.stage.count("write acknowledged"),
            (None, None) => self.stage.count("call that changed nothing"),
        }
        if client < self.people.len() {
            self.stage
                .after(WAY, Happening::AtClient { client, event: AtClient::Answered { connection, answer } });
        }
    }
}

fn carry_out(
    batch: &mut Batch<'_>,
    by: AccountId,
    call: Call,
    upgraded: bool,
) -> Result<Option<(SpaceId, MessageId)>, Problem> {
    let text = |body: String| Text::new(body, Vec::new());
    match call {
        Call::Post { space, body, random } => {
            let length = body.len();
            let draft =
                Draft { author: by, text: text(body), client_id: None, reply_to: None, thread: None, random };
            let message = call::send(batch, space, draft)?.id();
            if upgraded {
                upgrade::note(batch, &message.bytes(), length);
            }
            return Ok(Some((space, message)));
        }
        Call::Edit { space, message, body } => {
            call::edit(batch, space, message, by, text(body))?;
        }
        Call::Delete { space, message } => call::delete(batch, space, message, by)?,
        Call::React { space, message, emoji, on: true } => call::react(batch, space, message, by, emoji)?,
        Call::React { space, message, emoji, on: false } => call::unreact(batch, space, message, by, emoji)?,
        Call::Enter { space } => {
            spaces::join(batch, space, by, Role::Member)?;
        }
        Call::Leave { space } => {
            spaces::remove_member(batch, space, by, by)?;
        }
    }
    Ok(None)
}

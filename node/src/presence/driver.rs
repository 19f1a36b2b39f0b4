//! The input and output around the state machine: streams and datagrams come in, datagrams and events go out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use mychat_replication::{
    NodeId, Role,
    mesh::Mesh,
    store::{Store, StoreError},
};
use serde_json::json;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    core::{Core, Now},
    typing::Gate,
    wire::{self, Message, PRESENCE_KIND, TYPING_KIND, Typing},
};
use crate::{
    capacity::Capacity,
    events::Hub,
    ids::{AccountId, SpaceId},
    spaces,
};

/// How often time passes for the state machine, and the nodes that are up are looked at.
const TICK: Duration = Duration::from_millis(250);
/// The shortest time between two rounds: what happens in between is told together.
const ROUND: Duration = Duration::from_millis(20);
/// People whose coming and going is taken in one round.
const PEOPLE: usize = 1024;
/// Typing that is looked at again for late watchers; more of it is told only once.
const TYPED: usize = 1024;
/// In so many ticks: a space and its watchers may be as new as the typing.
const LOOKS: u8 = 2;
/// Datagrams that wait for a round; more are dropped, as datagrams may be.
const DATAGRAMS: usize = 4096;
/// People whose presence is told in one round.
const NEWS: usize = 256;
/// Deliveries after which a round leaves the rest to one later: presence must not get in the way of messages.
const DELIVERIES: usize = 20_000;
/// Streams of a space beyond which its people are not told who comes and goes: that would be the square of their
/// number. Who wants to know asks for it.
pub const MOST_READERS: usize = 200;

/// Who is online, and who types. A handle; clones share it.
#[derive(Clone)]
pub struct Presence {
    shared: Arc<Shared>,
    incoming: mpsc::Sender<(NodeId, Bytes)>,
    _stop: Arc<DropGuard>,
}

/// Somebody who has just typed.
struct Typed {
    space: SpaceId,
    account: AccountId,
    /// The nodes that know of it.
    told: Vec<NodeId>,
    /// How often it is looked at whether there are more.
    looks: u8,
}

struct Shared {
    core: Mutex<Core>,
    /// Who has just typed where, and the nodes that were told: a node whose people came into the space a moment ago is
    /// told within the next ticks.
    typed: Mutex<VecDeque<Typed>>,
    gate: Mutex<Gate>,
    began: Instant,
    hub: Hub,
    store: Store,
    mesh: Option<Mesh>,
    capacity: Capacity,
}

impl Presence {
    /// Starts it for the streams of a hub. Without a mesh it is about this node alone.
    #[must_use]
    pub fn start(store: Store, hub: Hub, mesh: Option<Mesh>, capacity: Capacity) -> Self {
        let (incoming, datagrams) = mpsc::channel(DATAGRAMS);
        let shared = Arc::new(Shared {
            core: Mutex::new(Core::new(store.generation())),
            typed: Mutex::default(),
            gate: Mutex::default(),
            began: Instant::now(),
            hub,
            store,
            mesh,
            capacity,
        });
        let stop = CancellationToken::new();
        tokio::spawn({
            let (shared, stop) = (Arc::clone(&shared), stop.clone());
            async move {
                stop.run_until_cancelled(shared.run(datagrams)).await;
            }
        });
        Self { shared, incoming, _stop: Arc::new(stop.drop_guard()) }
    }

    /// Tells the others in a space, here and at other nodes, that somebody types, unless they heard of it just now. It
    /// may get lost.
    pub fn typing(&self, space: SpaceId, account: AccountId) {
        if !self.shared.tell_typing(space, account) {
            return;
        }
        let watchers = self.shared.pass_on(space, account, &[]);
        let mut typed = self.shared.typed.lock().unwrap_or_else(PoisonError::into_inner);
        if typed.len() < TYPED {
            typed.push_back(Typed { space, account, told: watchers, looks: LOOKS });
        } else {
            dropped("typed");
        }
    }

    /// Takes a datagram of another node, if it is of a kind that is about this.
    pub fn receive(&self, from: NodeId, kind: u8, payload: &Bytes) {
        match kind {
            TYPING_KIND => match wire::decode::<Typing>(payload) {
                Some(Typing { space, account }) => drop(self.shared.tell_typing(space, account)),
                None => unreadable(),
            },
            PRESENCE_KIND if self.incoming.try_send((from, payload.clone())).is_err() => dropped("incoming"),
            _ => {}
        }
    }

    /// Whether somebody of a space is online; `None` when this node does not know, since nobody of the space has a
    /// stream here.
    #[must_use]
    pub fn of(&self, space: SpaceId, account: AccountId) -> Option<bool> {
        let core = self.shared.core();
        core.is_online(account).then_some(true).or_else(|| core.watches(space).then_some(false))
    }

    /// Those of some people who are online, as far as this node knows.
    #[must_use]
    pub fn online(&self, people: BTreeSet<AccountId>) -> BTreeSet<AccountId> {
        let core = self.shared.core();
        people.into_iter().filter(|account| core.is_online(*account)).collect()
    }
}

impl std::fmt::Debug for Presence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presence").finish_non_exhaustive()
    }
}

impl Shared {
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        self.began.elapsed()
    }

    async fn run(self: Arc<Self>, mut datagrams: mpsc::Receiver<(NodeId, Bytes)>) {
        let comings = self.hub.comings();
        let mut next_tick = Instant::now();
        let mut more = false;
        // Whose spaces could not be read: they are looked at again with the next tick.
        let mut unread = Vec::new();
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                () = comings.changed() => {}
                some = datagrams.recv_many(&mut waiting, DATAGRAMS) => if some == 0 {
                    return;
                },
                () = tokio::time::sleep_until(next_tick) => {}
                () = std::future::ready(()), if more => {}
            }
            let ticks = Instant::now() >= next_tick;
            if ticks {
                next_tick = Instant::now() + TICK;
                unread.drain(..).for_each(|account| comings.note(account));
            }
            let people = comings.take(PEOPLE);
            let present = self.hub.present(people.clone()).await;
            unread.extend(left_out(people, &present));
            let up = ticks.then(|| self.nodes_up());
            let sends = {
                let (now, mut core) = (self.now(), self.core());
                if let Some(up) = up {
                    core.up(&up, now);
                }
                for (account, spaces) in present {
                    core.here(account, spaces, now);
                }
                for (from, payload) in waiting {
                    match wire::decode::<Message>(&payload) {
                        Some(message) => core.received(from, message, now),
                        None => unreadable(),
                    }
                }
                if ticks {
                    core.tick(now);
                    figures(&core);
                }
                core.take()
            };
            if ticks {
                self.pass_on_again();
            }
            if let Some(mesh) = &self.mesh {
                for message in sends {
                    send(mesh, message.to, PRESENCE_KIND, wire::encode(&message.message).into());
                }
            }
            // Under pressure the news wait, and come together later; messages don't wait for them.
            if self.capacity.is_pressed() || self.tell_news().await >= DELIVERIES {
                metrics::counter!("mychat_presence_put_off_total").increment(1);
                tokio::time::sleep_until(next_tick).await;
            }
            tokio::time::sleep(ROUND).await;
            more = self.core().has_news();
        }
    }

    fn nodes_up(&self) -> BTreeSet<NodeId> {
        let peers = self.mesh.iter().flat_map(Mesh::peers);
        peers.filter(|peer| peer.role == Role::Node).map(|peer| peer.node).collect()
    }

    /// Tells the streams here of people who have come or gone, and returns how many deliveries that took at
    /// the most: the reactors know the exact number later.
    async fn tell_news(&self) -> usize {
        let news: BTreeMap<AccountId, bool> = self.core().news(NEWS).into_iter().collect();
        if news.is_empty() || self.hub.open_streams() == 0 {
            return 0;
        }
        let people: Vec<AccountId> = news.keys().copied().collect();
        // By the membership that is held here now: it is what decides who may know.
        let read = move |db: &rusqlite::Connection| {
            people
                .into_iter()
                .map(|account| Ok((account, spaces::spaces_of(db, account)?.into_iter().collect())))
                .collect::<rusqlite::Result<Vec<(AccountId, BTreeSet<SpaceId>)>>>()
                .map_err(StoreError::from)
        };
        let spaces = match self.store.read(read).await {
            Ok(spaces) => spaces,
            Err(error) => {
                tracing::debug!(%error, "memberships can't be read: who came and went is told later");
                self.core().untold(news);
                return DELIVERIES;
            }
        };
        let open = self.hub.open_streams();
        let most = spaces.iter().map(|(_, spaces)| readers_at_most(spaces.len(), open)).sum();
        for (account, spaces) in spaces {
            let data = json!({ "account": account, "online": news.get(&account) });
            self.hub.publish_ephemeral(&spaces, account, "presence", &data, MOST_READERS);
        }
        most
    }

    /// Tells the nodes that watch a space, but those that were `told`, that somebody types; returns which.
    fn pass_on(&self, space: SpaceId, account: AccountId, told: &[NodeId]) -> Vec<NodeId> {
        let Some(mesh) = &self.mesh else { return Vec::new() };
        let mut watchers = self.core().watchers(space);
        watchers.retain(|node| !told.contains(node));
        let payload = Bytes::from(wire::encode(&Typing { space, account }));
        for node in &watchers {
            send(mesh, *node, TYPING_KIND, payload.clone());
        }
        watchers
    }

    /// Tells those who began to watch meanwhile.
    fn pass_on_again(&self) {
        let typed = std::mem::take(&mut *self.typed.lock().unwrap_or_else(PoisonError::into_inner));
        let mut again = VecDeque::new();
        for mut typed in typed {
            let more = self.pass_on(typed.space, typed.account, &typed.told);
            typed.told.extend(more);
            typed.looks -= 1;
            if typed.looks > 0 {
                again.push_back(typed);
            }
        }
        self.typed.lock().unwrap_or_else(PoisonError::into_inner).append(&mut again);
    }

    /// Tells the streams here that somebody types; `false` if they have just heard of it.
    fn tell_typing(&self, space: SpaceId, account: AccountId) -> bool {
        if self.capacity.is_pressed() {
            dropped("pressure");
            return false;
        }
        let now = self.now();
        if !self.gate.lock().unwrap_or_else(PoisonError::into_inner).pass(space, account, now) {
            dropped("typing");
            return false;
        }
        let data = json!({ "space": space, "account": account });
        self.hub.publish_ephemeral(&BTreeSet::from([space]), account, "typing", &data, usize::MAX);
        true
    }
}

/// Those of some people of whom nothing was found out.
fn left_out(people: Vec<AccountId>, present: &[(AccountId, Option<BTreeSet<SpaceId>>)]) -> Vec<AccountId> {
    let found: BTreeSet<AccountId> = present.iter().map(|(account, _)| *account).collect();
    people.into_iter().filter(|account| !found.contains(account)).collect()
}

/// How many of the open streams can hear of somebody who is in so many spaces: each once, and in a space no more than are
/// told at all.
fn readers_at_most(spaces: usize, open: usize) -> usize {
    spaces.saturating_mul(MOST_READERS).min(open)
}

fn send(mesh: &Mesh, to: NodeId, kind: u8, payload: Bytes) {
    metrics::counter!("mychat_presence_datagrams_total").increment(1);
    if let Err(error) = mesh.datagram(to, kind, payload) {
        tracing::trace!(%error, "a datagram about presence could not be sent");
        dropped("send");
    }
}

fn dropped(stage: &'static str) {
    metrics::counter!("mychat_presence_dropped_total", "stage" => stage).increment(1);
}

/// Of a later release, or damaged; either way it is a datagram, and may as well have been lost.
fn unreadable() {
    dropped("unreadable");
}

fn figures(core: &Core) {
    let (here, online, spaces) = core.figures();
    metrics::gauge!("mychat_presence_here").set(here as f64);
    metrics::gauge!("mychat_presence_online").set(online as f64);
    metrics::gauge!("mychat_presence_watched_spaces").set(spaces as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_whom_nothing_was_found_out_is_looked_at_again() {
        let [a, b, c] = [1, 2, 3].map(|n| AccountId(uuid::Uuid::from_u128(n)));
        assert_eq!(left_out(vec![a, b, c], &[(c, None), (a, Some(BTreeSet::new()))]), [b]);
    }

    #[test]
    fn somebody_in_many_spaces_reaches_more_streams_than_one_space_has() {
        assert_eq!(readers_at_most(0, 10_000), 0);
        assert_eq!(readers_at_most(1, 10_000), MOST_READERS);
        assert_eq!(readers_at_most(30, 10_000), 30 * MOST_READERS);
        assert_eq!(readers_at_most(30, 50), 50);
    }
}

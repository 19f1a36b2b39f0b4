//! A stream on the hub's books, held by the task of its connection.

use std::sync::{Arc, Mutex};

use mychat_replication::log::VersionVector;
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit};

use super::{
    hub::lock,
    queue::Queue,
    reactor::Settling,
    state::{Leaving, State},
};
use crate::{app::Condition, ids::SpaceId};

/// A registered stream. Dropping it takes the stream off the hub's books, unless it has settled.
pub struct Opened {
    id: u64,
    /// What happens from the registration on.
    pub queue: Arc<Queue>,
    /// What had been told before: the rest is in the logs.
    pub position: VersionVector,
    state: Arc<Mutex<State>>,
    condition: Arc<Condition>,
    settled: bool,
}

impl Opened {
    /// What the books have under `id`.
    pub(super) const fn new(
        id: u64,
        queue: Arc<Queue>,
        position: VersionVector,
        state: Arc<Mutex<State>>,
        condition: Arc<Condition>,
    ) -> Self {
        Self { id, queue, position, state, condition, settled: false }
    }

    /// The spaces that the account follows at this moment.
    pub fn spaces(&self) -> std::collections::BTreeSet<SpaceId> {
        lock(&self.state).spaces_of(self.id).cloned().unwrap_or_default()
    }

    /// Moves the stream with its connection to a reactor, if it can go already.
    ///
    /// # Errors
    /// The stream as it was, when its client has seen more than this node so far; none when the connection has broken.
    pub fn settle(
        mut self,
        tcp: TcpStream,
        place: OwnedSemaphorePermit,
    ) -> Result<(), Option<(Self, TcpStream, OwnedSemaphorePermit)>> {
        let mut state = lock(&self.state);
        if !state.can_settle(self.id) {
            drop(state);
            return Err(Some((self, tcp, place)));
        }
        if let Err(error) = state.reactors().start() {
            tracing::error!(%error, "no reactor can be started: streams keep their tasks");
            drop(state);
            return Err(Some((self, tcp, place)));
        }
        let tcp = match tcp.into_std() {
            Ok(tcp) => tcp,
            Err(error) => {
                tracing::debug!(%error, "a connection broke");
                drop(state);
                return Err(None);
            }
        };
        // Nothing is told between the two: the books are locked.
        if let Some(Leaving { reader, spaces, items, ended }) = state.settle(self.id) {
            let first = items.iter().map(|item| item.wire.clone()).collect();
            let (account, session) = (reader.account, reader.session);
            if !state.reactors().add(Settling { tcp, place, reader, spaces, first, ended }) {
                state.departed(&[(account, session)]);
            }
        }
        self.settled = true;
        drop(state);
        Ok(())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if !self.settled {
            let mut state = lock(&self.state);
            state.remove(self.id);
            self.condition.set_open_streams(state.open());
        }
    }
}

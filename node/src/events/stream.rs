//! One stream: first what the client has missed, then what happens.

use std::{
    collections::{BTreeSet, VecDeque},
    future::poll_fn,
    sync::Arc,
};

use tokio::{net::TcpStream, sync::OwnedSemaphorePermit};

use super::{Cursor, Item, backlog::Backlog, opened::Opened};

/// Bytes of missed events that leave in one write.
const PIECE: usize = 64 << 10;

/// A stream that has not settled, with its connection.
pub type Held = (Stream, TcpStream, OwnedSemaphorePermit);

/// Events in pieces: everything that waits leaves together.
pub struct Stream {
    backlog: Option<Backlog>,
    opened: Opened,
}

impl Stream {
    /// A stream that begins with the backlog.
    pub const fn new(backlog: Option<Backlog>, opened: Opened) -> Self {
        Self { backlog, opened }
    }

    /// Waits for the next events; `None` at the end.
    pub async fn next(&mut self) -> Option<VecDeque<Arc<Item>>> {
        if self.backlog.is_some() {
            let missed = self.missed().await?;
            if !missed.is_empty() {
                return Some(missed);
            }
        }
        loop {
            let items = self.nudged().await?;
            if !items.is_empty() {
                return Some(items);
            }
        }
    }

    /// Waits for what happens after the backlog; nothing, when the stream may be able to settle.
    pub async fn nudged(&mut self) -> Option<VecDeque<Arc<Item>>> {
        poll_fn(|cx| self.opened.queue.poll_take(cx)).await
    }

    /// Moves the stream, whose backlog has been taken, with its connection to a reactor, if it can go already.
    ///
    /// # Errors
    /// What did not move; none when the connection has broken.
    pub fn settle(self, tcp: TcpStream, place: OwnedSemaphorePermit) -> Result<(), Option<Box<Held>>> {
        let Self { backlog, opened } = self;
        opened
            .settle(tcp, place)
            .map_err(|back| back.map(|(opened, tcp, place)| Box::new((Self { backlog, opened }, tcp, place))))
    }

    /// A piece of the backlog; empty when there is none left.
    pub async fn missed(&mut self) -> Option<VecDeque<Arc<Item>>> {
        if self.backlog.is_some()
            && let Some(last) = self.opened.queue.revoked()
        {
            self.backlog = None;
            return Some(VecDeque::from([last]));
        }
        let mut items = VecDeque::new();
        let mut bytes = 0;
        // What it follows now, not when it was opened (I6).
        let spaces = match &mut self.backlog {
            Some(backlog) => {
                backlog.look_again();
                self.opened.spaces()
            }
            None => BTreeSet::new(),
        };
        while let Some(backlog) = &mut self.backlog {
            match backlog.next(&spaces).await {
                Ok(Some(item)) => {
                    bytes += item.wire.len();
                    items.push_back(Arc::new(item));
                    if bytes >= PIECE {
                        break;
                    }
                }
                Ok(None) => self.backlog = None,
                Err(problem) => {
                    tracing::warn!(%problem, "a client's backlog can't be read: it will come back");
                    return None;
                }
            }
        }
        Some(items)
    }

    /// What a client has seen that has taken everything so far, from `cursor` on, and all that the hub had told.
    pub fn caught_up(&self, mut cursor: Cursor) -> Cursor {
        cursor.comes_to(&self.opened.position);
        cursor.merge(&self.opened.position);
        cursor
    }
}

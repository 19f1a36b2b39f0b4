//! One stream, as its reactor keeps it: small, since most have nothing to do most of the time.

use std::io::{self, Write};

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    super::Only,
    waiting::{Waiting, Written},
};
use crate::ids::{AccountId, SessionId, SpaceId};

/// Bytes that a client may send after the head of its call, which nobody reads.
const MAX_NOISE: u32 = 64 << 10;

/// A stream's place in a lane.
#[derive(Debug, Clone, Copy)]
pub struct Seat {
    /// The lane.
    pub lane: u32,
    /// The place among the lane's members.
    pub at: u32,
}

/// Who reads a stream, and what of.
#[derive(Debug, Clone)]
pub struct Reader {
    /// Whose stream.
    pub account: AccountId,
    /// Under which session.
    pub session: SessionId,
    /// The spaces that it is about, if some were named.
    pub only: Option<Only>,
}

impl Reader {
    /// Whether the stream is about the space.
    pub fn wants(&self, space: SpaceId) -> bool {
        self.only.as_ref().is_none_or(|only| only.binary_search(&space).is_ok())
    }
}

/// An open stream.
#[derive(Debug)]
pub struct Stream<S> {
    /// The connection.
    pub socket: S,
    /// Who reads it.
    pub reader: Reader,
    /// The lanes of its spaces.
    pub seats: SmallVec<[Seat; 2]>,
    /// The number of the first event that it has not been given.
    pub next: u64,
    /// Whether events of the pass at hand are for its account alone.
    pub named: bool,
    /// Whether it has broken or ended, and is to be forgotten.
    pub over: bool,
    noise: u32,
    waiting: Option<Box<Waiting>>,
}

impl<S: Write> Stream<S> {
    /// A stream that is told of events from number `next` on.
    pub fn new(socket: S, reader: Reader, next: u64) -> Self {
        Self {
            socket,
            reader,
            seats: SmallVec::new(),
            next,
            named: false,
            over: false,
            noise: 0,
            waiting: None,
        }
    }

    /// Gives it a piece; what the socket does not take waits. Says whether the piece will arrive if the client lives.
    pub fn give(&mut self, piece: &Bytes) -> bool {
        if self.over {
            return false;
        }
        if self.waiting.is_none() {
            loop {
                match self.socket.write(piece) {
                    Ok(taken) if taken == piece.len() => return true,
                    Ok(taken) => return self.keep(&[piece.slice(taken..)]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(_) => return self.lost(),
                }
            }
        }
        self.queue(std::slice::from_ref(piece))
    }

    /// Gives it several pieces, in one write.
    pub fn give_all(&mut self, pieces: &[Bytes]) -> bool {
        match pieces {
            [] => true,
            [piece] => self.give(piece),
            _ if self.over => false,
            _ if self.waiting.is_some() => self.queue(pieces),
            _ => self.keep(pieces),
        }
    }

    /// Ends it after a last piece.
    pub fn end_with(&mut self, last: &Bytes) {
        self.give(last);
        self.end();
    }

    /// Ends it after what waits.
    pub fn end(&mut self) {
        match &mut self.waiting {
            Some(waiting) => waiting.end(),
            None => self.over = true,
        }
    }

    /// The socket takes more: writes what waits.
    pub fn write(&mut self) {
        let Some(waiting) = &mut self.waiting else { return };
        match waiting.write_to(&mut self.socket) {
            Ok(Written::All) => {
                self.over |= waiting.is_ended();
                self.waiting = None;
            }
            Ok(Written::Blocked) => {}
            Err(_) => self.over = true,
        }
    }

    /// How many bytes wait.
    pub fn waiting_bytes(&self) -> Option<usize> {
        self.waiting.as_ref().map(|waiting| waiting.bytes())
    }

    fn lost(&mut self) -> bool {
        self.over = true;
        false
    }

    /// Puts pieces in line and writes until the socket is full, so that the system says when it no longer is.
    fn keep(&mut self, pieces: &[Bytes]) -> bool {
        let taken = self.queue(pieces);
        self.write();
        taken
    }

    fn queue(&mut self, pieces: &[Bytes]) -> bool {
        let waiting = self.waiting.get_or_insert_default();
        let was_ended = waiting.is_ended();
        let taken = pieces.iter().all(|piece| waiting.push(piece.clone()));
        if !taken && !was_ended {
            metrics::counter!("mychat_events_slow_readers_total").increment(1);
        }
        taken
    }
}

impl<S: Write + io::Read> Stream<S> {
    /// The client has sent something or has gone: a stream's client has nothing more to say, so it is read and dropped.
    pub fn read(&mut self, scratch: &mut [u8]) {
        while !self.over {
            match self.socket.read(scratch) {
                Ok(0) => self.over = true,
                Ok(size) => {
                    self.noise = self.noise.saturating_add(u32::try_from(size).unwrap_or(u32::MAX));
                    self.over = self.noise > MAX_NOISE;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.over = true,
            }
        }
    }
}

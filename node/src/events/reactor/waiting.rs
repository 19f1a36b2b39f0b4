//! What one stream's socket did not take yet. It exists only while there is something in it.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Write},
};

use bytes::{Buf, Bytes};

use super::super::QUEUE_BYTES;

/// Pieces that go to the system in one call.
const AT_ONCE: usize = 64;

/// How far a write got.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Written {
    /// Everything is with the system.
    All,
    /// The socket takes no more for now.
    Blocked,
}

/// Pieces of whole events, bounded in bytes. Pieces that many streams wait for are shared between them.
#[derive(Debug, Default)]
pub struct Waiting {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    ended: bool,
}

impl Waiting {
    /// Adds a piece; `false` when there is no room: then the stream ends after what waits.
    pub fn push(&mut self, piece: Bytes) -> bool {
        if self.ended {
            return false;
        }
        if piece.is_empty() {
            return true;
        }
        if !self.pieces.is_empty() && self.bytes + piece.len() > QUEUE_BYTES {
            self.ended = true;
            return false;
        }
        self.bytes += piece.len();
        self.pieces.push_back(piece);
        true
    }

    /// Nothing comes after what waits.
    pub const fn end(&mut self) {
        self.ended = true;
    }

    /// Whether nothing comes after what waits.
    pub const fn is_ended(&self) -> bool {
        self.ended
    }

    /// How much waits.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes what the socket takes.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn write_to(&mut self, socket: &mut impl Write) -> io::Result<Written> {
        while !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); AT_ONCE];
            let count = self.pieces.len().min(AT_ONCE);
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(piece);
            }
            match socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => self.advance(taken),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Written::Blocked),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Written::All)
    }

    fn advance(&mut self, mut taken: usize) {
        self.bytes -= taken;
        while taken > 0
            && let Some(first) = self.pieces.front_mut()
        {
            let step = taken.min(first.len());
            first.advance(step);
            taken -= step;
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}

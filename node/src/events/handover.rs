//! A stream that leaves HTTP behind: the connection's driver (`server/takeover.rs`) says with [`CanTakeOver`] that it
//! can carry on by itself once the head is answered, and finds a [`Handover`] with the answer.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};

use super::{Item, stream::Stream};

/// In a request: whoever answers it can hand the stream over.
#[derive(Debug, Clone, Copy)]
pub struct CanTakeOver;

/// In a response: the stream, with the bytes that follow the head.
#[derive(Clone)]
pub struct Handover(Arc<Mutex<Option<(Bytes, Stream)>>>);

impl Handover {
    /// Hands a stream over.
    pub(super) fn new(first: Bytes, stream: Stream) -> Self {
        Self(Arc::new(Mutex::new(Some((first, stream)))))
    }

    /// Takes it; there is one.
    #[must_use]
    pub fn take(&self) -> Option<(Bytes, Stream)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Events as one piece.
#[must_use]
pub fn joined(items: &VecDeque<Arc<Item>>) -> Bytes {
    // One event to many readers: the same bytes for all of them.
    if let (Some(only), 1) = (items.front(), items.len()) {
        return only.wire.clone();
    }
    let mut piece = BytesMut::with_capacity(items.iter().map(|item| item.wire.len()).sum());
    for item in items {
        piece.extend_from_slice(&item.wire);
    }
    piece.freeze()
}

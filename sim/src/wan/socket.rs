//! A UDP socket whose datagrams leave later.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::Resident;
use super::delivery::{Delivery, Link};

/// Wraps the socket of one endpoint. Receiving is not touched: the delay is the sender's.
pub(super) struct DelayedSocket<F> {
    inner: Arc<dyn AsyncUdpSocket>,
    link: Link,
    delay: F,
    _resident: Option<Resident>,
}

impl<F> DelayedSocket<F> {
    pub(super) fn new(
        inner: Arc<dyn AsyncUdpSocket>,
        delivery: Arc<Delivery>,
        delay: F,
        resident: Option<Resident>,
    ) -> Self {
        let link = Link::new(delivery, inner.clone());
        Self { inner, link, delay, _resident: resident }
    }
}

impl<F> fmt::Debug for DelayedSocket<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelayedSocket").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<F: Fn(SocketAddr) -> Duration + Send + Sync + 'static> AsyncUdpSocket for DelayedSocket<F> {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let delay = (self.delay)(transmit.destination);
        if delay.is_zero() {
            return self.inner.try_send(transmit);
        }
        // A full link drops, and the sender does not learn of it: so it is with real ones.
        self.link.send(transmit, delay);
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(context, buffers, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

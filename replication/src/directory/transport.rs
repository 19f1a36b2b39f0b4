//! Carries `chitchat`'s messages over the mesh instead of UDP.

use std::net::SocketAddr;
use std::sync::Mutex;

use anyhow::anyhow;
use async_trait::async_trait;
use bytes::Bytes;
use chitchat::transport::{Socket, Transport};
use chitchat::{ChitchatMessage, Deserializable, Serializable};
use tokio::sync::mpsc;
use tracing::debug;

use super::Carrier;

/// The one socket of a directory, handed out once.
pub(super) struct MeshTransport<C> {
    carrier: C,
    inbox: Mutex<Option<mpsc::Receiver<(SocketAddr, Bytes)>>>,
}

struct MeshSocket<C> {
    carrier: C,
    inbox: mpsc::Receiver<(SocketAddr, Bytes)>,
}

impl<C: Carrier> MeshTransport<C> {
    pub(super) fn new(carrier: C, inbox: mpsc::Receiver<(SocketAddr, Bytes)>) -> Self {
        Self { carrier, inbox: Mutex::new(Some(inbox)) }
    }
}

#[async_trait]
impl<C: Carrier> Transport for MeshTransport<C> {
    async fn open(&self, _listen_addr: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let inbox = self.inbox.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        let inbox = inbox.ok_or_else(|| anyhow!("the directory's socket is in use"))?;
        Ok(Box::new(MeshSocket { carrier: self.carrier.clone(), inbox }))
    }
}

#[async_trait]
impl<C: Carrier> Socket for MeshSocket<C> {
    /// Never fails: `chitchat` takes an error for the end of the network, and a peer that is not connected
    /// is an everyday thing.
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        self.carrier.carry(to, message.serialize_to_vec().into());
        Ok(())
    }

    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        while let Some((from, bytes)) = self.inbox.recv().await {
            match ChitchatMessage::deserialize(&mut bytes.as_ref()) {
                Ok(message) => return Ok((from, message)),
                Err(error) => debug!(%from, %error, "ignored a malformed gossip message"),
            }
        }
        Err(anyhow!("the mesh is closed"))
    }
}

//! What the failure detector calls an identity.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::identity::{NodeId, Role};

/// One process that is a member of the cluster: who it is, where it listens and since when it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) node: NodeId,
    pub(crate) role: Role,
    pub(crate) region: String,
    /// Where it listens, as others reach it.
    pub(crate) addr: SocketAddr,
    /// When its process started, in milliseconds since 1970. Of two processes with one id the younger counts.
    pub(crate) generation: u64,
    /// How often this process had to come back after the others had given it up.
    pub(crate) renewal: u32,
}

impl Member {
    pub(crate) fn new(node: NodeId, role: Role, region: String, addr: SocketAddr, generation: u64) -> Self {
        Self { node, role, region, addr, generation, renewal: 0 }
    }
}

impl foca::Identity for Member {
    /// The node id: an announcement reaches whoever listens at an address, whatever generation the sender
    /// knew, and a member that moved to another address replaces its former self.
    type Addr = NodeId;

    fn addr(&self) -> NodeId {
        self.node
    }

    fn renew(&self) -> Option<Self> {
        Some(Self { renewal: self.renewal.checked_add(1)?, ..self.clone() })
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.generation, self.renewal) > (adversary.generation, adversary.renewal)
    }
}

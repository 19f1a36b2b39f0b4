//! What can go wrong when a mesh starts or is used.

use std::io;
use std::net::SocketAddr;

use crate::identity::NodeId;

/// Why a mesh could not start, or why something could not be sent over it.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The address could not be bound, for example because another program holds it.
    #[error("cannot bind the mesh address {addr} (UDP): {source}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The settings cannot work.
    #[error("bad mesh settings: {0}")]
    Settings(String),
    /// The certificates could not be made.
    #[error("cannot set up the mesh's TLS: {0}")]
    Tls(String),
    /// The directory could not start.
    #[error("cannot start the directory: {0}")]
    Directory(String),
    /// There is no connection to this member.
    #[error("no connection to {0}")]
    NotConnected(NodeId),
    /// The connection broke while it was used.
    #[error("the connection to {node} broke: {reason}")]
    Broken {
        /// The member at the other end.
        node: NodeId,
        /// How it broke.
        reason: String,
    },
    /// The kind of a stream or datagram is one that the mesh keeps for itself.
    #[error("kind {0} is reserved for the mesh itself; the first free one is {first}", first = super::FIRST_FREE_KIND)]
    ReservedKind(u8),
    /// The datagram does not fit one packet on the way to this member.
    #[error("a datagram of {size} bytes does not fit; this path carries {most}")]
    DatagramTooLarge {
        /// Its size, in bytes.
        size: usize,
        /// The most that fits, in bytes.
        most: usize,
    },
}

impl From<rcgen::Error> for MeshError {
    fn from(error: rcgen::Error) -> Self {
        Self::Tls(error.to_string())
    }
}

impl From<rustls::Error> for MeshError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error.to_string())
    }
}

impl From<rustls::server::VerifierBuilderError> for MeshError {
    fn from(error: rustls::server::VerifierBuilderError) -> Self {
        Self::Tls(error.to_string())
    }
}

impl From<quinn::crypto::rustls::NoInitialCipherSuite> for MeshError {
    fn from(error: quinn::crypto::rustls::NoInitialCipherSuite) -> Self {
        Self::Tls(error.to_string())
    }
}

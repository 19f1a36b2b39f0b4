//! The first exchange on a connection: each side says who it is.
//!
//! The dialer opens a stream, writes the kind [`KIND`] and its greeting; the acceptor answers with its
//! own on the same stream. A greeting is two length bytes (big endian), a format byte and the fields in
//! postcard.

use quinn::{Connection, RecvStream, SendStream};
use serde::{Deserialize, Serialize};

use super::tls;
use crate::membership::Member;

/// The kind of the greeting's stream.
pub(crate) const KIND: u8 = 0;
/// The format of [`Greeting`]; a reader refuses what it does not know.
const FORMAT: u8 = 1;
/// The protocol spoken after the greeting. Members that differ refuse each other.
const PROTOCOL: u16 = 1;
/// More than any greeting needs, in bytes.
const LONGEST: usize = 1024;

#[derive(Serialize, Deserialize)]
struct Greeting {
    protocol: u16,
    member: Member,
}

/// Why a peer that holds our cluster key was still not greeted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GreetingError {
    #[error("the connection broke: {0}")]
    Broken(String),
    #[error("the first stream is of kind {0}, not a greeting")]
    Kind(u8),
    #[error("the greeting has format {0}, we know {FORMAT}")]
    Format(u8),
    #[error("the greeting is malformed")]
    Malformed,
    #[error("the peer speaks protocol {0}, we speak {PROTOCOL}")]
    Protocol(u16),
    #[error("the peer greets as {0:?}, which its certificate does not name")]
    Certificate(Member),
}

/// Greets as the dialer: speaks first.
pub(crate) async fn dial(connection: &Connection, me: &Member) -> Result<Member, GreetingError> {
    let (mut send, mut recv) = connection.open_bi().await.map_err(broken)?;
    send.write_all(&[KIND]).await.map_err(broken)?;
    write(&mut send, me).await?;
    let peer = read(&mut recv, connection).await?;
    Ok(peer)
}

/// Greets as the acceptor: listens, then answers.
pub(crate) async fn accept(connection: &Connection, me: &Member) -> Result<Member, GreetingError> {
    let (mut send, mut recv) = connection.accept_bi().await.map_err(broken)?;
    let mut kind = [0];
    recv.read_exact(&mut kind).await.map_err(broken)?;
    if kind != [KIND] {
        return Err(GreetingError::Kind(kind[0]));
    }
    let peer = read(&mut recv, connection).await?;
    write(&mut send, me).await?;
    Ok(peer)
}

async fn write(send: &mut SendStream, me: &Member) -> Result<(), GreetingError> {
    let bytes = encode(me)?;
    send.write_all(&bytes).await.map_err(broken)?;
    send.finish().map_err(broken)
}

async fn read(recv: &mut RecvStream, connection: &Connection) -> Result<Member, GreetingError> {
    let mut length = [0; 2];
    recv.read_exact(&mut length).await.map_err(broken)?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > LONGEST {
        return Err(GreetingError::Malformed);
    }
    let mut bytes = vec![0; length];
    recv.read_exact(&mut bytes).await.map_err(broken)?;
    let member = decode(&bytes)?;
    if !tls::certifies(connection, member.node, member.role) {
        return Err(GreetingError::Certificate(member));
    }
    Ok(member)
}

fn encode(me: &Member) -> Result<Vec<u8>, GreetingError> {
    let greeting = Greeting { protocol: PROTOCOL, member: me.clone() };
    let body = postcard::to_stdvec(&greeting).map_err(|_| GreetingError::Malformed)?;
    let length = u16::try_from(1 + body.len()).map_err(|_| GreetingError::Malformed)?;
    let mut bytes = Vec::with_capacity(3 + body.len());
    bytes.extend(length.to_be_bytes());
    bytes.push(FORMAT);
    bytes.extend(body);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Member, GreetingError> {
    let (format, body) = bytes.split_first().ok_or(GreetingError::Malformed)?;
    if *format != FORMAT {
        return Err(GreetingError::Format(*format));
    }
    // The protocol comes first and is checked first: what follows it may have changed with it.
    let (protocol, _) = postcard::take_from_bytes(body).map_err(|_| GreetingError::Malformed)?;
    if protocol != PROTOCOL {
        return Err(GreetingError::Protocol(protocol));
    }
    let greeting: Greeting = postcard::from_bytes(body).map_err(|_| GreetingError::Malformed)?;
    Ok(greeting.member)
}

fn broken(error: impl std::fmt::Display) -> GreetingError {
    GreetingError::Broken(error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::{NodeId, Role};

    fn member() -> Member {
        Member::new(
            NodeId([3; 16]),
            Role::Router,
            "fra".into(),
            "192.0.2.7:4001".parse().unwrap(),
            1_700_000_000_000,
        )
    }

    #[test]
    fn a_greeting_reads_back() {
        let bytes = encode(&member()).unwrap();
        assert_eq!(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])), bytes.len() - 2);
        assert_eq!(decode(&bytes[2..]).unwrap(), member());
    }

    #[test]
    fn another_format_or_protocol_is_named() {
        let mut bytes = encode(&member()).unwrap();
        bytes[3] = 9;
        assert!(matches!(decode(&bytes[2..]), Err(GreetingError::Protocol(9))));
        bytes[2] = 8;
        assert!(matches!(decode(&bytes[2..]), Err(GreetingError::Format(8))));
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}

//! The two messages of the protocol, and how frames are laid on a stream.
//!
//! Every message starts with a format byte. On a stream each message has its length before it, four bytes little
//! endian.

use quinn::{RecvStream, SendStream};
use serde::{Deserialize, Serialize};

use crate::log::{Frame, GroupId, SiteId, Version, VersionVector, codec};

/// The kind of the streams and datagrams of this protocol.
pub const KIND: u8 = 16;
/// The format that this program writes.
const FORMAT: u8 = 1;
/// Sites in one heads datagram: 1,150 bytes always fit, and an entry has at most 26.
const SITES_PER_DATAGRAM: usize = 40;
/// The largest request, in bytes.
const MAX_REQUEST: usize = 1024;

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Written by a newer program.
    #[error("message format {0} is not known here")]
    Format(u8),
    /// Not well formed.
    #[error("malformed message: {0}")]
    Malformed(#[from] postcard::Error),
    /// A length beyond what is allowed.
    #[error("a message of {0} bytes is too large")]
    TooLarge(usize),
    /// A frame that can't be read.
    #[error(transparent)]
    Frame(#[from] codec::Error),
    /// The stream broke off.
    #[error("the stream ended: {0}")]
    Ended(String),
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heads {
    /// The group.
    pub group: GroupId,
    /// The site that the sender writes.
    pub site: SiteId,
    /// What the sender holds, or a part of it.
    pub vector: VersionVector,
}

/// The request for a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowRequest {
    /// The group.
    pub group: GroupId,
    /// Whose log.
    pub site: SiteId,
    /// From the version after this one.
    pub after: Version,
}

/// The heads of a node as datagrams; nearly always one.
pub fn heads(site: SiteId, vector: &VersionVector) -> Vec<Vec<u8>> {
    let entries: Vec<_> = vector.iter().collect();
    let mut parts: Vec<VersionVector> =
        entries.chunks(SITES_PER_DATAGRAM).map(|part| part.iter().copied().collect()).collect();
    if parts.is_empty() {
        parts.push(VersionVector::new());
    }
    parts
        .into_iter()
        .filter_map(|vector| encode(&Heads { group: GroupId::GLOBAL, site, vector }).ok())
        .collect()
}

/// Encodes a message that stands alone.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, Error> {
    Ok(postcard::to_extend(message, vec![FORMAT])?)
}

/// Decodes a message that stands alone.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => Ok(postcard::from_bytes(rest)?),
        Some((format, _)) => Err(Error::Format(*format)),
        None => Err(Error::Ended("empty".into())),
    }
}

/// Writes the request that opens a stream.
pub async fn write_request(send: &mut SendStream, request: &FollowRequest) -> Result<(), Error> {
    write_message(send, request).await
}

/// Writes a message with its length before it.
pub async fn write_message<T: Serialize>(send: &mut SendStream, message: &T) -> Result<(), Error> {
    let message = encode(message)?;
    let mut bytes = u32::try_from(message.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    bytes.extend(message);
    send.write_all(&bytes).await.map_err(|error| Error::Ended(error.to_string()))
}

/// Reads the request that opens a stream.
pub async fn read_request(recv: &mut RecvStream) -> Result<FollowRequest, Error> {
    decode(&read_message(recv, MAX_REQUEST).await?)
}

/// Appends a frame as it goes on the stream.
pub fn append_frame(buffer: &mut Vec<u8>, frame: &Frame) -> Result<(), Error> {
    let encoded = codec::encode(frame)?;
    buffer.extend(u32::try_from(encoded.len()).map_err(|_| Error::TooLarge(encoded.len()))?.to_le_bytes());
    buffer.extend(encoded);
    Ok(())
}

/// Reads the next frame of a stream.
pub async fn read_frame(recv: &mut RecvStream) -> Result<Frame, Error> {
    Ok(codec::decode(&read_message(recv, codec::MAX_FRAME).await?)?)
}

/// Reads a message that has its length before it.
pub async fn read_message(recv: &mut RecvStream, most: usize) -> Result<Vec<u8>, Error> {
    let ended = |error: quinn::ReadExactError| Error::Ended(error.to_string());
    let mut length = [0; 4];
    recv.read_exact(&mut length).await.map_err(ended)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > most {
        return Err(Error::TooLarge(length));
    }
    let mut message = vec![0; length];
    recv.read_exact(&mut message).await.map_err(ended)?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn heads_survive_in_parts_that_fit_a_datagram(sites in prop::collection::vec((any::<[u8; 16]>(), 1u64..), 0..120)) {
            let vector: VersionVector = sites.into_iter().map(|(site, version)| (SiteId(site), Version(version))).collect();
            let mut joined = VersionVector::new();
            for datagram in heads(SiteId([7; 16]), &vector) {
                prop_assert!(datagram.len() <= 1150, "{} bytes", datagram.len());
                let heads: Heads = decode(&datagram).expect("it decodes");
                prop_assert_eq!(heads.site, SiteId([7; 16]));
                joined.merge(&heads.vector);
            }
            prop_assert_eq!(joined, vector);
        }

        #[test]
        fn noise_is_never_a_panic(noise in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode::<Heads>(&noise);
            let _ = decode::<FollowRequest>(&noise);
        }
    }
}

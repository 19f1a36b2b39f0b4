//! The two messages of the protocol, and how frames are laid on a stream.
//!
//! Every message starts with a format byte. On a stream each message has its length before it, four bytes little
//! endian. A request names the newest format of frames that the asker reads; the answer starts with the one that its
//! sender has chosen, so that old and new nodes understand each other, and goes on with frames.

use std::collections::BTreeSet;

use quinn::SendStream;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::{
    log::{Frame, GroupId, SiteId, Version, VersionVector, codec, stream},
    protocol::Reading,
};

/// The kind of the streams and datagrams of this protocol.
pub const KIND: u8 = 16;
/// The format that this program writes.
const FORMAT: u8 = 1;
/// Sites in one heads datagram: 1,150 bytes always fit, and an entry has at most 26.
const SITES_PER_DATAGRAM: usize = 40;
/// The newest format of frames on a stream that this program reads and writes.
pub const FRAMES: u8 = 1;
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

/// What follows the heads in their datagram. Releases that know nothing of it do not look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Reader {
    /// The site of the reader for whom retired ones are left out; `None` where nothing is.
    site: Option<SiteId>,
    part: Part,
}

/// Which part of a large vector a datagram carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Tells the parts of this vector from those of the sender's next.
    pub round: u32,
    /// The part, from 0.
    pub number: u16,
    /// How many there are.
    pub of: u16,
}

/// Tells when all parts of a peer's heads have come.
#[derive(Debug, Default)]
pub struct Parts {
    round: u32,
    come: BTreeSet<u16>,
}

impl Parts {
    /// Takes note of a part; says whether it is the last one of its round that was missing.
    pub fn take(&mut self, part: Part) -> bool {
        if self.round != part.round {
            (self.round, self.come) = (part.round, BTreeSet::new());
        }
        self.come.insert(part.number);
        self.come.len() >= usize::from(part.of)
    }
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
    /// The newest format of frames that the asker reads.
    pub reads: u8,
}

/// The heads of a node as datagrams, nearly always one. `round` is another one with each call.
pub fn heads(site: SiteId, vector: &VersionVector, reading: Reading, round: u32) -> Vec<Vec<u8>> {
    let entries: Vec<_> = vector.iter().collect();
    let mut parts: Vec<VersionVector> =
        entries.chunks(SITES_PER_DATAGRAM).map(|part| part.iter().copied().collect()).collect();
    if parts.is_empty() {
        parts.push(VersionVector::new());
    }
    let of = u16::try_from(parts.len()).unwrap_or(u16::MAX);
    let numbered = (0u16..).zip(parts);
    numbered
        .filter_map(|(number, vector)| {
            let message = encode(&Heads { group: GroupId::GLOBAL, site, vector }).ok()?;
            let reader = match reading {
                Reading::Old => return Some(message),
                Reading::Whole => None,
                Reading::Compact { reader } => Some(reader),
            };
            postcard::to_extend(&Reader { site: reader, part: Part { round, number, of } }, message).ok()
        })
        .collect()
}

/// Decodes a datagram of heads; older releases do not say which part it is.
pub fn decode_heads(bytes: &[u8]) -> Result<(Heads, Reading, Option<Part>), Error> {
    let rest = match bytes.split_first() {
        Some((&FORMAT, rest)) => rest,
        Some((format, _)) => return Err(Error::Format(*format)),
        None => return Err(Error::Ended("empty".into())),
    };
    let (heads, rest) = postcard::take_from_bytes(rest)?;
    if rest.is_empty() {
        return Ok((heads, Reading::Old, None));
    }
    let reader: Reader = postcard::from_bytes(rest)?;
    let reading = reader.site.map_or(Reading::Whole, |reader| Reading::Compact { reader });
    Ok((heads, reading, Some(reader.part)))
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

/// The format in which to write frames to a peer that reads up to `reads`: formats only ever get added, and whoever
/// reads one reads all before it. `None` for one that reads less than is still written.
pub const fn format_for(reads: u8) -> Option<u8> {
    if reads >= FRAMES { Some(FRAMES) } else { None }
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
pub async fn read_request(recv: &mut (impl AsyncRead + Unpin)) -> Result<FollowRequest, Error> {
    decode(&read_message(recv, MAX_REQUEST).await?)
}

/// Appends a frame as it goes on the stream.
pub fn append_frame(buffer: &mut Vec<u8>, writer: &mut stream::Writer, frame: &Frame) -> Result<(), Error> {
    let start = buffer.len();
    buffer.extend([0; 4]);
    *buffer = writer.append(std::mem::take(buffer), frame)?;
    let length = buffer.len() - start - 4;
    let encoded = u32::try_from(length).map_err(|_| Error::TooLarge(length))?.to_le_bytes();
    buffer[start..start + 4].copy_from_slice(&encoded);
    Ok(())
}

/// Reads the byte that an answer starts with.
pub async fn read_format(recv: &mut (impl AsyncRead + Unpin)) -> Result<(), Error> {
    match recv.read_u8().await.map_err(|error| Error::Ended(error.to_string()))? {
        FRAMES => Ok(()),
        format => Err(Error::Format(format)),
    }
}

/// Reads the next frame of a stream, and says how many bytes it took.
pub async fn read_frame(
    recv: &mut (impl AsyncRead + Unpin),
    reader: &mut stream::Reader,
) -> Result<(Frame, usize), Error> {
    let message = read_message(recv, codec::MAX_FRAME).await?;
    Ok((reader.read(&message)?, 4 + message.len()))
}

/// Reads a message that has its length before it.
pub async fn read_message(recv: &mut (impl AsyncRead + Unpin), most: usize) -> Result<Vec<u8>, Error> {
    let ended = |error: std::io::Error| Error::Ended(error.to_string());
    let length = usize::try_from(recv.read_u32_le().await.map_err(ended)?).unwrap_or(usize::MAX);
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
        fn heads_survive_in_parts_that_fit_a_datagram(
            sites in prop::collection::vec((any::<[u8; 16]>(), 1u64..), 0..120),
            reading in prop_oneof![
                Just(Reading::Old),
                Just(Reading::Whole),
                any::<[u8; 16]>().prop_map(|reader| Reading::Compact { reader: SiteId(reader) }),
            ],
        ) {
            let vector: VersionVector = sites.into_iter().map(|(site, version)| (SiteId(site), Version(version))).collect();
            let mut joined = VersionVector::new();
            let datagrams = heads(SiteId([7; 16]), &vector, reading, u32::MAX);
            let (mut parts, mut left) = (Parts::default(), datagrams.len());
            for datagram in datagrams {
                prop_assert!(datagram.len() <= 1150, "{} bytes", datagram.len());
                let (heads, read, part) = decode_heads(&datagram).expect("it decodes");
                left -= 1;
                prop_assert_eq!(part.map(|part| parts.take(part)), (reading != Reading::Old).then_some(left == 0));
                prop_assert_eq!((heads.site, read), (SiteId([7; 16]), reading));
                // A release that knows of no other reading takes the vector for whole.
                prop_assert_eq!(&decode::<Heads>(&datagram).expect("it decodes"), &heads);
                joined.merge(&heads.vector);
            }
            prop_assert_eq!(joined, vector);
        }

        #[test]
        fn noise_is_never_a_panic(noise in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode_heads(&noise);
            let _ = decode::<FollowRequest>(&noise);
        }
    }

    #[test]
    fn a_request_of_a_later_release_is_understood() {
        let request =
            FollowRequest { group: GroupId::GLOBAL, site: SiteId([7; 16]), after: Version(5), reads: 9 };
        let mut bytes = encode(&request).expect("it encodes");
        // Further fields are added at the end.
        bytes.extend([1, 2, 3]);
        assert_eq!(decode::<FollowRequest>(&bytes).expect("it decodes"), request);
        assert_eq!(format_for(request.reads), Some(FRAMES));
        assert_eq!(format_for(0), None);
    }
}

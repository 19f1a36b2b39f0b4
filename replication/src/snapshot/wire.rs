//! What is said about a snapshot: one request, some answers, then the bytes.
//!
//! The messages have the form of those of the logs (`replica/wire.rs`): a length, a format byte, postcard. After the
//! [`Header`] the stream carries the compressed file from the offset on, and ends with it.

use serde::{Deserialize, Serialize};

use crate::{
    NodeId,
    log::{GroupId, VersionVector},
};

/// The kind of the streams for snapshots.
pub const KIND: u8 = 17;
/// The largest message, in bytes: a vector has 18 to 26 for each site.
pub const MAX_MESSAGE: usize = 1 << 20;

/// The name of one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotId(pub [u8; 16]);

impl std::fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Asks for a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Of which group.
    pub group: GroupId,
    /// What it must hold: everything that the asking node does.
    pub held: VersionVector,
    /// What is here already of an earlier one.
    pub resume: Option<Resume>,
}

/// A part of a snapshot that was received earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Of which one.
    pub id: SnapshotId,
    /// How many bytes.
    pub offset: u64,
}

/// An answer; others follow until there is a header or a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The snapshot is being made. Comes every second or so.
    Preparing {
        /// How much of it.
        percent: u8,
    },
    /// Here it is.
    Snapshot(Header),
    /// Too many peers ask at present.
    Busy,
    /// None can be made, for want of disk, say.
    Unable,
    /// This node does not hold all that the other one does, or not that group.
    Lacks,
}

/// What the bytes are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Its name. A part of another one is of no use.
    pub id: SnapshotId,
    /// Bytes of the compressed file.
    pub size: u64,
    /// Bytes of the database.
    pub unpacked: u64,
    /// The hash of the compressed file.
    pub sha256: [u8; 32],
    /// What the database holds.
    pub vector: VersionVector,
    /// The migrations that it went through.
    pub migrations: Vec<(String, u32)>,
    /// Where the bytes that follow begin.
    pub offset: u64,
}

/// What is kept beside a part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Who sent it.
    pub peer: NodeId,
    /// Which one it is.
    pub header: Header,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        log::{SiteId, Version},
        replica::wire::{decode, encode},
    };

    fn header(sites: u32) -> Header {
        let site = |number: u32| {
            let mut id = [0xff; 16];
            id[..4].copy_from_slice(&number.to_be_bytes());
            (SiteId(id), Version(u64::MAX))
        };
        Header {
            id: SnapshotId([7; 16]),
            size: 1,
            unpacked: 2,
            sha256: [9; 32],
            vector: (0..sites).map(site).collect(),
            migrations: vec![("notes".into(), 3)],
            offset: 4,
        }
    }

    #[test]
    fn messages_survive_and_fit_also_with_very_many_sites() {
        for sites in [0, 1, 30_000] {
            let answer = Answer::Snapshot(header(sites));
            let bytes = encode(&answer).expect("it encodes");
            assert!(bytes.len() < MAX_MESSAGE, "{} bytes", bytes.len());
            assert_eq!(decode::<Answer>(&bytes).expect("it decodes"), answer);
            let note = Note { peer: NodeId([3; 16]), header: header(sites) };
            assert_eq!(decode::<Note>(&encode(&note).expect("it encodes")).expect("it decodes"), note);
        }
        let request = Request {
            group: GroupId::GLOBAL,
            held: header(3).vector,
            resume: Some(Resume { id: SnapshotId([7; 16]), offset: 12 }),
        };
        assert_eq!(decode::<Request>(&encode(&request).expect("it encodes")).expect("it decodes"), request);
    }

    proptest! {
        #[test]
        fn noise_is_never_a_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<Request>(&noise);
            let _ = decode::<Answer>(&noise);
            let _ = decode::<Note>(&noise);
        }
    }
}

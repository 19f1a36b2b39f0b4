//! Fetching a snapshot: asking a peer, receiving to the disk, checking, unpacking.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use quinn::{RecvStream, SendStream};
use tokio::{io::AsyncWriteExt, time::Instant};

use super::{
    Failure, Files, Stage, Transfer, free_space,
    wire::{Answer, Header, KIND, MAX_MESSAGE, Note, Request, Resume},
};
use crate::{
    NodeId,
    log::GroupId,
    mesh::{Mesh, MeshError},
    replica::wire::{Error, decode, read_message, write_message},
    store::{AdoptError, Incoming, Store, StoreError},
};

/// How long a peer may be silent, also while it makes the snapshot.
const SILENCE: Duration = Duration::from_secs(15);
/// How often the log says how far it is.
const TELLING: Duration = Duration::from_secs(3);
/// Bytes taken from the stream at a time, and lost at most when the process is killed.
const PIECE: usize = 64 << 10;
/// The largest window of the compression that is accepted, as a power of two: it is held in memory.
const WINDOW: u32 = 23;
/// Bytes of disk that a snapshot leaves free.
const SPARE: u64 = 64 << 20;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No stream to the peer.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// The stream broke, or carried no sense.
    #[error(transparent)]
    Stream(#[from] Error),
    /// Nothing came.
    #[error("the peer has been silent for {} s", SILENCE.as_secs())]
    Silent,
    /// The peer has other things to do.
    #[error("the peer gives snapshots to others at present")]
    Busy,
    /// It can't.
    #[error("the peer can't make one; its log says why")]
    Unable,
    /// The peer says so.
    #[error("the peer lacks some of what this node holds")]
    PeerLacks,
    /// A newer program made it.
    #[error("it went through migration {number} of {domain}, which this program does not know: it is older")]
    Newer {
        /// Whose tables.
        domain: String,
        /// The number.
        number: u32,
    },
    /// It would fill the disk.
    #[error("it needs {needed} bytes of disk, and {free} are free")]
    NoSpace {
        /// Bytes that it takes, with some to spare.
        needed: u64,
        /// Bytes that there are.
        free: u64,
    },
    /// It is not what was announced; what was received is thrown away.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// The same, of parts that were received at different times: they may not belong together.
    #[error("what was received earlier is damaged: {0}")]
    DamagedPart(String),
    /// A file can't be written.
    #[error("a file can't be written: {0}")]
    File(#[from] io::Error),
    /// The database in it is of no use.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
}

impl FetchError {
    /// What it means for the next try. `progressed` says whether anything was received.
    pub fn failure(&self, progressed: bool) -> Failure {
        match self {
            Self::Mesh(_) | Self::Stream(_) | Self::Silent | Self::PeerLacks | Self::File(_) => {
                Failure::Broken { progressed }
            }
            Self::Busy => Failure::Busy,
            // From the beginning, at the same peer.
            Self::DamagedPart(_) => Failure::Broken { progressed: false },
            Self::Unable | Self::Newer { .. } | Self::NoSpace { .. } | Self::Damaged(_) | Self::Adopt(_) => {
                Failure::Unfit
            }
        }
    }
}

/// The transfer of one snapshot, from where it stands.
pub struct Fetch {
    /// To the peer.
    pub mesh: Mesh,
    /// Whom to ask.
    pub peer: NodeId,
    /// What takes it in the end.
    pub store: Store,
    /// Where it is put.
    pub files: Files,
    /// How far it is.
    pub transfer: Arc<Transfer>,
}

impl Fetch {
    /// Fetches it. Whether anything was received in vain is said with the error.
    pub async fn run(self) -> Result<Incoming, (FetchError, bool)> {
        let mut received = 0;
        match self.fetch(&mut received).await {
            Ok(incoming) => Ok(incoming),
            Err(error) => Err((error, received > 0)),
        }
    }

    async fn fetch(&self, received: &mut u64) -> Result<Incoming, FetchError> {
        self.transfer.set(Stage::Preparing, 0, 100);
        let part = self.files.received().filter(|(note, _)| note.peer == self.peer);
        let resume = part.as_ref().map(|(note, length)| Resume { id: note.header.id, offset: *length });
        let (_send, mut recv, header) = self.ask(resume).await?;
        self.check(&header)?;
        if resume != Some(Resume { id: header.id, offset: header.offset }) {
            if header.offset != 0 {
                return Err(Error::Ended("it does not begin where it was asked for".into()).into());
            }
            self.files.begin(&Note { peer: self.peer, header: header.clone() })?;
        }
        tracing::info!(
            peer = %self.peer, snapshot = %header.id, bytes = header.size, offset = header.offset,
            unpacked = header.unpacked, "receiving a snapshot"
        );
        self.receive(&mut recv, &header, received).await?;

        self.transfer.set(Stage::Checking, 0, 10);
        let (files, transfer, expected) = (self.files.clone(), Arc::clone(&self.transfer), header.clone());
        let path = tokio::task::spawn_blocking(move || unpack(&files, &expected, &transfer))
            .await
            .map_err(|_| StoreError::Job)
            .map_err(AdoptError::from)?
            .inspect_err(|_| self.files.discard())?;
        self.transfer.set(Stage::Checking, 6, 10);
        let incoming = self.store.prepare(path, header.vector).await.inspect_err(|_| self.files.discard())?;
        self.transfer.set(Stage::Checking, 9, 10);
        Ok(incoming)
    }

    /// Asks, and waits until the peer has made it.
    async fn ask(&self, resume: Option<Resume>) -> Result<(SendStream, RecvStream, Header), FetchError> {
        let (mut send, mut recv) = self.mesh.open(self.peer, KIND).await?;
        let held = self.store.vector().as_ref().clone();
        write_message(&mut send, &Request { group: GroupId::GLOBAL, held, resume }).await?;
        loop {
            let answer = tokio::time::timeout(SILENCE, read_message(&mut recv, MAX_MESSAGE))
                .await
                .map_err(|_| FetchError::Silent)??;
            match decode(&answer)? {
                Answer::Preparing { percent } => {
                    self.transfer.set(Stage::Preparing, percent.min(100).into(), 100);
                }
                Answer::Busy => return Err(FetchError::Busy),
                Answer::Unable => return Err(FetchError::Unable),
                Answer::Lacks => return Err(FetchError::PeerLacks),
                Answer::Snapshot(header) => return Ok((send, recv, header)),
            }
        }
    }

    /// Whether what is announced may come.
    fn check(&self, header: &Header) -> Result<(), FetchError> {
        if header.offset > header.size {
            return Err(FetchError::Damaged("it begins after its end".into()));
        }
        for (domain, number) in &header.migrations {
            if !self.store.knows_migration(domain, *number) {
                return Err(FetchError::Newer { domain: domain.clone(), number: *number });
            }
        }
        // The rest of it, the database in it, and that one's write-ahead log while it is given a new site id.
        let folder = self.store.path().parent().unwrap_or(Path::new("."));
        let needed = (header.size - header.offset)
            .saturating_add(header.unpacked)
            .saturating_add(header.unpacked / 2)
            .saturating_add(SPARE);
        let free = free_space(folder)?;
        if free < needed { Err(FetchError::NoSpace { needed, free }) } else { Ok(()) }
    }

    /// Appends what comes to the part that is here, up to the announced size.
    async fn receive(
        &self,
        recv: &mut RecvStream,
        header: &Header,
        received: &mut u64,
    ) -> Result<(), FetchError> {
        let file = tokio::fs::File::options().append(true).open(self.files.partial()).await?;
        let mut file = tokio::io::BufWriter::with_capacity(PIECE, file);
        let result = self.receive_into(&mut file, recv, header, received).await;
        // Also after a failure: the next try goes on from what is on the disk.
        file.flush().await?;
        file.get_ref().sync_all().await?;
        result
    }

    async fn receive_into(
        &self,
        file: &mut (impl tokio::io::AsyncWrite + Unpin),
        recv: &mut RecvStream,
        header: &Header,
        received: &mut u64,
    ) -> Result<(), FetchError> {
        let mut at = header.offset;
        let (mut told, mut told_at) = (Instant::now(), at);
        while at < header.size {
            self.transfer.set(Stage::Receiving, at, header.size);
            let chunk = tokio::time::timeout(SILENCE, recv.read_chunk(PIECE, true))
                .await
                .map_err(|_| FetchError::Silent)?
                .map_err(|error| Error::Ended(error.to_string()))?
                .ok_or_else(|| Error::Ended(format!("after {at} of {} bytes", header.size)))?;
            let size = chunk.bytes.len() as u64;
            if at + size > header.size {
                return Err(FetchError::Damaged("it is longer than announced".into()));
            }
            file.write_all(&chunk.bytes).await?;
            at += size;
            *received += size;
            metrics::counter!("mychat_snapshot_received_bytes_total").increment(size);
            let elapsed = told.elapsed();
            if elapsed >= TELLING {
                let rate = (at - told_at) as f64 / elapsed.as_secs_f64() / 1e6;
                let percent = 100 * at / header.size;
                tracing::info!("snapshot from {}: {percent} %, {rate:.1} MB/s", self.peer);
                (told, told_at) = (Instant::now(), at);
            }
        }
        Ok(())
    }
}

/// Checks the received file against what was announced, and unpacks the database in it.
fn unpack(files: &Files, header: &Header, transfer: &Transfer) -> Result<PathBuf, FetchError> {
    // A part that was kept over a crash of the machine may have holes that were never sent.
    let damaged = |why: &str| {
        if header.offset > 0 { FetchError::DamagedPart(why.into()) } else { FetchError::Damaged(why.into()) }
    };
    let packed = files.partial();
    if hash(&packed)? != header.sha256 {
        return Err(damaged("its hash is another one"));
    }
    transfer.set(Stage::Checking, 3, 10);
    let to = files.incoming();
    Files::remove_database(&to);
    let mut decoder = zstd::stream::read::Decoder::new(File::open(&packed)?)?;
    decoder.window_log_max(WINDOW)?;
    let mut file = File::create(&to)?;
    // One byte more than announced is enough to know.
    let unpacked = io::copy(&mut decoder.take(header.unpacked.saturating_add(1)), &mut file)
        .map_err(|error| damaged(&error.to_string()));
    let whole = unpacked.and_then(|size| {
        if size == header.unpacked { Ok(()) } else { Err(damaged("the database in it has another size")) }
    });
    if let Err(error) = whole {
        Files::remove_database(&to);
        return Err(error);
    }
    file.flush()?;
    Ok(to)
}

fn hash(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            size => context.update(&piece[..size]),
        }
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{log::VersionVector, snapshot::wire::SnapshotId};

    /// A received file of these bytes, announced as a database of `unpacked` bytes with this hash.
    fn received(folder: &Path, packed: &[u8], unpacked: u64, sha256: Option<[u8; 32]>) -> (Files, Header) {
        let files = Files::of(&folder.join("some.db"));
        let mut digest = [0; 32];
        digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, packed).as_ref());
        let header = Header {
            id: SnapshotId([1; 16]),
            size: packed.len() as u64,
            unpacked,
            sha256: sha256.unwrap_or(digest),
            vector: VersionVector::new(),
            migrations: Vec::new(),
            offset: 0,
        };
        files.begin(&Note { peer: NodeId([2; 16]), header: header.clone() }).expect("begun");
        std::fs::write(files.partial(), packed).expect("written");
        (files, header)
    }

    #[test]
    fn what_is_not_as_announced_is_refused_and_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let bomb = zstd::encode_all(&vec![0; 50 << 20][..], 3).expect("packed");
        assert!(bomb.len() < 100_000, "it unpacks to a lot");
        let cut = &bomb[..bomb.len() / 2];
        for (what, packed, unpacked, hash) in [
            ("a bomb", &bomb[..], 1 << 20, None),
            ("less than announced", &bomb[..], 60 << 20, None),
            ("cut off", cut, 50 << 20, None),
            ("another hash", &bomb[..], 50 << 20, Some([0; 32])),
            ("no zstd", b"something else".as_slice(), 10, None),
        ] {
            let (files, header) = received(folder.path(), packed, unpacked, hash);
            let refused = unpack(&files, &header, &Transfer::default());
            assert!(matches!(refused, Err(FetchError::Damaged(_))), "{what}: {refused:?}");
            assert!(!files.incoming().exists(), "{what}");
        }
        let (files, header) = received(folder.path(), &bomb, 50 << 20, None);
        let unpacked = unpack(&files, &header, &Transfer::default()).expect("as announced");
        assert_eq!(std::fs::metadata(unpacked).expect("there").len(), 50 << 20);
    }

    #[test]
    fn a_part_is_remembered_with_its_note_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let (files, header) = received(folder.path(), b"0123456789", 100, None);
        std::fs::write(files.partial(), b"0123").expect("written");
        let (note, length) = files.received().expect("a part");
        assert_eq!((note.header, length), (header, 4));
        std::fs::write(files.partial(), b"01234567890").expect("written");
        assert_eq!(files.received(), None, "more than there is can't be a part");
        // What a crash leaves.
        std::fs::write(files.packed(SnapshotId([1; 16])), b"for peers").expect("written");
        std::fs::write(files.copy(), b"to be packed").expect("written");
        std::fs::write(files.incoming(), b"unpacked").expect("written");
        files.clean();
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 2, "the part and its note");
        files.discard();
        assert_eq!(files.received(), None);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}

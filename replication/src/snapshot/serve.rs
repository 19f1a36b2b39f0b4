//! Serving snapshots: one packed copy of the database, made when a peer asks for it and kept for others who do.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use quinn::{RecvStream, SendStream};
use tokio::{
    io::{AsyncReadExt, AsyncSeekExt},
    sync::{Mutex as AsyncMutex, Semaphore},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Files, SnapshotConfig,
    files::remove,
    free_space,
    wire::{Answer, Header, MAX_MESSAGE, Request, SnapshotId},
};
use crate::{
    NodeId,
    log::{GroupId, VersionVector},
    replica::wire::{Error, decode, read_message, write_message},
    store::{Copied, Store, StoreError},
};

/// Peers that are served at the same time.
const PLACES: usize = 8;
/// Below that of the logs, which is 0.
const PRIORITY: i32 = -1;
/// How long a peer may take to say what it wants.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);
/// How long a peer may take no byte of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a waiting peer is told that the snapshot is being made.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// How long a snapshot is given to further peers: what came since they get by the logs.
const FRESH: Duration = Duration::from_secs(600);
/// How long it is kept when nobody uses it, so that a peer that was restarted can go on.
const KEPT: Duration = Duration::from_secs(300);
/// Bytes that are read and sent at a time.
const PIECE: usize = 64 << 10;
/// Fast, and about as small as slower levels make of short rows.
const LEVEL: i32 = 3;
/// Bytes of disk that making a snapshot leaves free.
const SPARE: u64 = 64 << 20;

/// Where the snapshot lies that is served.
pub struct Shelf {
    store: Store,
    files: Files,
    pacer: Pacer,
    places: Semaphore,
    kept: Arc<AsyncMutex<Option<Arc<Kept>>>>,
    percent: Arc<AtomicU8>,
    stop: CancellationToken,
}

/// A snapshot; its file goes with the last who uses it.
struct Kept {
    header: Header,
    file: std::path::PathBuf,
    made: Instant,
    used: Mutex<Instant>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        remove(&self.file);
    }
}

/// Why no snapshot could be made.
#[derive(Debug, thiserror::Error)]
enum MakeError {
    #[error("{needed} bytes of disk are needed, {free} are free")]
    NoSpace { needed: u64, free: u64 },
    #[error(transparent)]
    File(#[from] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("it was given up")]
    Stopped,
}

impl Shelf {
    /// An empty shelf. `stop` ends a copy that is being made.
    pub fn new(store: Store, files: Files, config: SnapshotConfig, stop: CancellationToken) -> Self {
        Self {
            store,
            files,
            pacer: Pacer::new(config.rate),
            places: Semaphore::new(PLACES),
            kept: Arc::default(),
            percent: Arc::default(),
            stop,
        }
    }

    /// Answers a peer that opened a stream for it.
    pub async fn serve(self: Arc<Self>, peer: NodeId, mut send: SendStream, mut recv: RecvStream) {
        if let Err(error) = self.answer(peer, &mut send, &mut recv).await {
            tracing::info!(%peer, %error, "a peer did not get all of a snapshot");
        }
        let _ = send.finish();
    }

    async fn answer(
        self: &Arc<Self>,
        peer: NodeId,
        send: &mut SendStream,
        recv: &mut RecvStream,
    ) -> Result<(), Error> {
        let _ = send.set_priority(PRIORITY);
        let request = tokio::time::timeout(REQUEST_PATIENCE, read_message(recv, MAX_MESSAGE))
            .await
            .map_err(|_| Error::Ended("nothing was asked for".into()))??;
        let request: Request = decode(&request)?;
        let Ok(_place) = self.places.try_acquire() else {
            return write_message(send, &Answer::Busy).await;
        };
        if request.group != GroupId::GLOBAL || !self.store.vector().covers(&request.held) {
            return write_message(send, &Answer::Lacks).await;
        }
        let Some(kept) = self.take(&request, send).await? else {
            return write_message(send, &Answer::Unable).await;
        };
        let offset = request
            .resume
            .filter(|resume| resume.id == kept.header.id && resume.offset <= kept.header.size)
            .map_or(0, |resume| resume.offset);
        tracing::info!(%peer, snapshot = %kept.header.id, bytes = kept.header.size, offset, "sending a snapshot");
        write_message(send, &Answer::Snapshot(Header { offset, ..kept.header.clone() })).await?;
        let sent = self.send(&kept, offset, send).await;
        *kept.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        sent
    }

    /// The snapshot for a request, with signs of life while it is being made; `None` when it can't be.
    async fn take(
        self: &Arc<Self>,
        request: &Request,
        send: &mut SendStream,
    ) -> Result<Option<Arc<Kept>>, Error> {
        // A task of its own: should the peer go away, the next one finds what was made.
        let wanted = request.resume.map(|resume| resume.id);
        let mut getting = tokio::spawn(Arc::clone(self).get(request.held.clone(), wanted));
        let mut ticks = tokio::time::interval(SIGN_OF_LIFE);
        loop {
            tokio::select! {
                got = &mut getting => {
                    return Ok(match got {
                        Ok(Ok(kept)) => Some(kept),
                        Ok(Err(error)) => {
                            tracing::warn!(%error, "a snapshot can't be made");
                            None
                        }
                        Err(_) => None,
                    });
                }
                _ = ticks.tick() => {
                    let percent = self.percent.load(Ordering::Relaxed);
                    write_message(send, &Answer::Preparing { percent }).await?;
                }
            }
        }
    }

    async fn get(
        self: Arc<Self>,
        held: VersionVector,
        wanted: Option<SnapshotId>,
    ) -> Result<Arc<Kept>, MakeError> {
        let mut shelf = Arc::clone(&self.kept).lock_owned().await;
        if let Some(kept) = &*shelf
            && kept.header.vector.covers(&held)
            && (wanted == Some(kept.header.id) || kept.made.elapsed() < FRESH)
        {
            return Ok(Arc::clone(kept));
        }
        // The room on the disk first.
        *shelf = None;
        let made = Arc::new(self.make().await?);
        *shelf = Some(Arc::clone(&made));
        Ok(made)
    }

    async fn make(&self) -> Result<Kept, MakeError> {
        let started = Instant::now();
        self.percent.store(0, Ordering::Relaxed);
        let folder = self.store.path().parent().unwrap_or(Path::new(".")).to_owned();
        let size = std::fs::metadata(self.store.path())?.len();
        // The copy, and what it is packed to: rarely more than half.
        let (needed, free) = (size + size / 2 + SPARE, free_space(&folder)?);
        if free < needed {
            return Err(MakeError::NoSpace { needed, free });
        }
        tracing::info!(bytes = size, "making a snapshot of the database for a peer");
        let id = SnapshotId(rand::random());
        let (copy, packed) = (self.files.copy(), self.files.packed(id));
        Files::remove_database(&copy);
        let percent = Arc::clone(&self.percent);
        let stop = self.stop.clone();
        let progress = move |share: f64| {
            percent.store((40.0 * share) as u8, Ordering::Relaxed);
            !stop.is_cancelled()
        };
        let made = match self.store.copy_to(copy.clone(), progress).await {
            Ok(Copied { vector, migrations }) => {
                self.pack(copy.clone(), packed.clone()).await.map(|packed| Header {
                    id,
                    size: packed.size,
                    unpacked: packed.unpacked,
                    sha256: packed.sha256,
                    vector,
                    migrations,
                    offset: 0,
                })
            }
            Err(error) => Err(error.into()),
        };
        Files::remove_database(&copy);
        let header = made.inspect_err(|_| remove(&packed))?;
        tracing::info!(
            snapshot = %id, bytes = header.unpacked, packed = header.size, seconds = started.elapsed().as_secs_f64(),
            "a snapshot was made"
        );
        metrics::counter!("mychat_snapshot_made_total").increment(1);
        let now = Instant::now();
        Ok(Kept { header, file: packed, made: now, used: Mutex::new(now) })
    }

    async fn pack(&self, copy: std::path::PathBuf, packed: std::path::PathBuf) -> Result<Packed, MakeError> {
        let (percent, stop) = (Arc::clone(&self.percent), self.stop.clone());
        let progress = move |share: f64| {
            percent.store((40.0 + 60.0 * share) as u8, Ordering::Relaxed);
            !stop.is_cancelled()
        };
        tokio::task::spawn_blocking(move || pack(&copy, &packed, progress))
            .await
            .map_err(|_| MakeError::Stopped)?
    }

    async fn send(&self, kept: &Kept, offset: u64, send: &mut SendStream) -> Result<(), Error> {
        let failed = |error: io::Error| Error::Ended(format!("the snapshot can't be read: {error}"));
        let mut file = tokio::fs::File::open(&kept.file).await.map_err(failed)?;
        file.seek(io::SeekFrom::Start(offset)).await.map_err(failed)?;
        let mut piece = vec![0; PIECE];
        loop {
            let size = file.read(&mut piece).await.map_err(failed)?;
            if size == 0 {
                return Ok(());
            }
            self.pacer.pass(size).await;
            tokio::time::timeout(PATIENCE, send.write_all(&piece[..size]))
                .await
                .map_err(|_| Error::Ended("the peer takes nothing".into()))?
                .map_err(|error| Error::Ended(error.to_string()))?;
            metrics::counter!("mychat_snapshot_sent_bytes_total").increment(size as u64);
        }
    }

    /// Removes the snapshot once nobody has used it for a while; to be called now and then.
    pub fn sweep(&self) {
        let Ok(mut shelf) = self.kept.try_lock() else { return };
        let unused = shelf.as_ref().is_some_and(|kept| {
            let used = *kept.used.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::strong_count(kept) == 1 && used.elapsed() >= KEPT
        });
        if unused {
            *shelf = None;
        }
    }
}

struct Packed {
    size: u64,
    unpacked: u64,
    sha256: [u8; 32],
}

/// Compresses a file into another one, which is on the disk then.
fn pack(from: &Path, to: &Path, mut progress: impl FnMut(f64) -> bool) -> Result<Packed, MakeError> {
    let mut from = File::open(from)?;
    let whole = from.metadata()?.len();
    let hashed =
        Hashed { file: File::create(to)?, hash: ring::digest::Context::new(&ring::digest::SHA256), size: 0 };
    let mut encoder = zstd::stream::write::Encoder::new(hashed, LEVEL)?;
    let mut piece = vec![0; 4 * PIECE];
    let mut unpacked = 0;
    loop {
        let size = from.read(&mut piece)?;
        if size == 0 {
            break;
        }
        encoder.write_all(&piece[..size])?;
        unpacked += size as u64;
        if !progress(unpacked as f64 / whole.max(1) as f64) {
            return Err(MakeError::Stopped);
        }
    }
    let hashed = encoder.finish()?;
    hashed.file.sync_all()?;
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(hashed.hash.finish().as_ref());
    Ok(Packed { size: hashed.size, unpacked, sha256 })
}

/// A file that is hashed as it is written.
struct Hashed {
    file: File,
    hash: ring::digest::Context,
    size: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Lets so many bytes a second pass, whoever they are for.
struct Pacer {
    rate: u64,
    free_at: Mutex<Option<Instant>>,
}

impl Pacer {
    fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), free_at: Mutex::new(None) }
    }

    async fn pass(&self, bytes: usize) {
        tokio::time::sleep_until(self.reserve(bytes, Instant::now())).await;
    }

    /// When it is the turn of these bytes.
    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        let takes = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = free_at.unwrap_or(now).max(now);
        *free_at = Some(turn + takes);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_bytes_a_second_pass_and_a_pause_is_not_made_up_for() {
        let pacer = Pacer::new(1000);
        let start = Instant::now();
        assert_eq!(pacer.reserve(500, start), start);
        assert_eq!(pacer.reserve(500, start), start + Duration::from_millis(500));
        assert_eq!(pacer.reserve(1, start), start + Duration::from_secs(1));
        let later = start + Duration::from_secs(60);
        assert_eq!(pacer.reserve(1000, later), later);
        assert_eq!(pacer.reserve(1, later), later + Duration::from_secs(1));
    }

    #[test]
    fn a_packed_file_is_what_its_hash_and_sizes_say() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let bytes: Vec<u8> = (0..1_000_000u32).map(|number| (number % 251) as u8).collect();
        std::fs::write(&from, &bytes).expect("written");
        let packed = pack(&from, &to, |_| true).expect("packed");
        let written = std::fs::read(&to).expect("read");
        assert_eq!(written.len() as u64, packed.size);
        assert_eq!(packed.unpacked, bytes.len() as u64);
        assert_eq!(ring::digest::digest(&ring::digest::SHA256, &written).as_ref(), packed.sha256);
        assert_eq!(zstd::decode_all(&*written).expect("unpacked"), bytes);
        assert!(matches!(pack(&from, &to, |_| false), Err(MakeError::Stopped)));
    }
}

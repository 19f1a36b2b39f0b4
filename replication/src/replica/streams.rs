//! The tasks around the streams: one that writes to each follower, one that reads from each upstream.

use std::{
    collections::BTreeSet,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quinn::{RecvStream, SendStream};
use tokio::{
    io::BufReader,
    sync::{Semaphore, mpsc},
};

use super::{Frames, Report, Reports, figures, wire};
use crate::{
    NodeId, log,
    mesh::Mesh,
    protocol::{Event, RECEIVE_WINDOW, StreamId},
};

/// How long a peer may take to say what it wants of a stream that it opened.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that are handed to QUIC in one write, if that many wait.
const WRITE_SIZE: usize = 64 << 10;
/// Bytes that are taken from QUIC in one read, if that many wait: frames are small.
const READ_SIZE: usize = 16 << 10;

/// Reads what a peer wants of a new stream and reports it.
pub async fn accept(peer: NodeId, send: SendStream, mut recv: RecvStream, reports: Reports) {
    match tokio::time::timeout(REQUEST_PATIENCE, wire::read_request(&mut recv)).await {
        Ok(Ok(request)) => {
            let _ = reports.send(Report::Follower { peer, request, send }).await;
        }
        Ok(Err(error)) => {
            tracing::warn!(%peer, %error, "a peer opened a stream and asked for nothing sensible")
        }
        Err(_) => tracing::warn!(%peer, "a peer opened a stream and asked for nothing"),
    }
}

/// Writes what the core hands over, in answer to `request`. The queue has no bound of its own: the core counts what is
/// unsent, and hands over no more than a window. A peer that reads nothing keeps this task in its write, and no other; one
/// that has lost interest, or is gone, ends it also where there is nothing to write.
pub async fn write(
    stream: StreamId,
    peer: NodeId,
    request: wire::FollowRequest,
    mut send: SendStream,
    mut queue: mpsc::UnboundedReceiver<Frames>,
    reports: Reports,
) {
    let sent_bytes = figures::sent_bytes(peer);
    // Whoever does not read it has been refused (`wire::format_for`).
    let mut buffer = vec![wire::FRAMES];
    let mut writer = log::stream::Writer::new(request.after);
    let mut stopped = pin!(send.stopped());
    'stream: loop {
        let mut waiting = tokio::select! {
            frames = queue.recv() => match frames {
                Some(frames) => frames,
                None => break,
            },
            _ = &mut stopped => break,
        };
        // Whatever else waits goes out in the same write.
        while let Ok(more) = queue.try_recv() {
            waiting.extend(more);
        }
        let mut frames = waiting.iter().peekable();
        while frames.peek().is_some() {
            let mut bytes = 0;
            while let Some(frame) = frames.next_if(|_| buffer.len() < WRITE_SIZE) {
                if let Err(error) = wire::append_frame(&mut buffer, &mut writer, frame) {
                    tracing::error!(site = %frame.site, version = %frame.version, %error, "a frame can't be encoded");
                    break 'stream;
                }
                bytes += frame.size();
            }
            if let Err(error) = send.write_all(&buffer).await {
                tracing::debug!(%error, "a follower's stream broke off");
                break 'stream;
            }
            sent_bytes.increment(buffer.len() as u64);
            buffer.clear();
            if reports.send(Report::Event(Event::Sent { stream, bytes })).await.is_err() {
                return;
            }
        }
    }
    let _ = send.finish();
    let _ = reports.send(Report::Event(Event::FollowerClosed { stream })).await;
}

/// Asks an upstream for a log and reports its frames, as far as the credit goes.
pub async fn read(
    stream: StreamId,
    mesh: Mesh,
    peer: NodeId,
    request: wire::FollowRequest,
    credit: Arc<Semaphore>,
    reports: Reports,
) {
    match read_until_it_ends(stream, &mesh, peer, request, &credit, &reports).await {
        Err(error @ (wire::Error::Frame(_) | wire::Error::Format(_))) => unreadable(peer, &error),
        Err(error) => tracing::debug!(%peer, site = %request.site, %error, "an upstream's stream ended"),
        Ok(()) => {}
    }
    let _ = reports.send(Report::Event(Event::UpstreamClosed { stream })).await;
}

/// A frame that this release can't read. The log is asked for again from what is held, of another peer if there is
/// one: nothing is lost, and the log goes on where a release is that reads it.
fn unreadable(peer: NodeId, error: &wire::Error) {
    static WARNED: Mutex<BTreeSet<NodeId>> = Mutex::new(BTreeSet::new());
    metrics::counter!("mychat_replication_unreadable_frames_total").increment(1);
    if WARNED.lock().unwrap_or_else(PoisonError::into_inner).insert(peer) {
        tracing::warn!(%peer, %error, "a peer sends frames that this release can't read; its logs are asked for again and again (said once)");
    }
}

async fn read_until_it_ends(
    stream: StreamId,
    mesh: &Mesh,
    peer: NodeId,
    request: wire::FollowRequest,
    credit: &Semaphore,
    reports: &Reports,
) -> Result<(), wire::Error> {
    let ended = |error: String| wire::Error::Ended(error);
    // The sending half is kept until the end: dropping it would be read as losing interest.
    let (mut send, recv) = mesh.open(peer, wire::KIND).await.map_err(|e| ended(e.to_string()))?;
    wire::write_request(&mut send, &request).await?;
    let mut recv = BufReader::with_capacity(READ_SIZE, recv);
    wire::read_format(&mut recv).await?;
    let mut reader = log::stream::Reader::new(request.group, request.site, request.after);
    let (received_bytes, credit_waits) = (figures::received_bytes(peer), figures::credit_waits(peer));
    loop {
        let (frame, bytes) = wire::read_frame(&mut recv, &mut reader).await?;
        received_bytes.increment(bytes as u64);
        let frame = Arc::new(frame);
        let wanted = credit_for(frame.size());
        let taken = match credit.try_acquire_many(wanted) {
            Ok(taken) => taken,
            Err(_) => {
                credit_waits.increment(1);
                credit.acquire_many(wanted).await.map_err(|_| ended("the follow was given up".into()))?
            }
        };
        // Given back by the core when the frame is applied.
        taken.forget();
        if reports.send(Report::Event(Event::Received { stream, frame })).await.is_err() {
            return Ok(());
        }
    }
}

/// Credit that a frame of this size takes: one larger than the window takes all of it, or it would never pass.
pub fn credit_for(bytes: usize) -> u32 {
    u32::try_from(bytes.min(RECEIVE_WINDOW)).unwrap_or(u32::MAX)
}

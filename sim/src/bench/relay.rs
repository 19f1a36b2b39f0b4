//! A stretch of network between processes on one machine: UDP that arrives later.
//!
//! Each node has a **front**, a port that stands for it: the others send there, and what comes is passed on to the node
//! itself. For each pair of a front and a sender the relay has a socket of its own, so that answers find their way back
//! through the front, as through a NAT. Both directions are held back by the same delay.
//!
//! ```text
//! node A ─▶ front of B ─▶ (delay) ─▶ socket of the pair ─▶ node B
//!        ◀─ front of B ◀─ (delay) ◀─                    ◀─
//! ```
//!
//! All datagrams have the same delay, so what waits is one queue in order of arrival. A thread of its own sends from
//! it, since timers of the async runtime are a millisecond coarse. The queue is bounded in bytes, and what does not fit
//! is dropped and counted, as by a router whose queue is full.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket as StdSocket};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

/// Bytes that may be under way; a gigabit a second over 40 ms are 5 MB.
const CAPACITY: usize = 64 << 20;
/// Senders per front. Nodes have one or a few sockets; more would be a mistake.
const MAX_PAIRS: usize = 256;
/// The buffers that sockets ask the system for, so that a burst is not lost before the relay sees it.
const SOCKET_BUFFER: usize = 8 << 20;
/// How often a datagram is offered again to a socket whose buffer is full, and the pause between.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_micros(100);

/// The relay; dropping it cuts the network.
#[derive(Debug)]
pub(super) struct Relay {
    shared: Arc<Shared>,
    receivers: Vec<AbortHandle>,
}

#[derive(Debug)]
struct Shared {
    delay: Duration,
    queue: Mutex<Queue>,
    changed: Condvar,
    datagrams: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    /// Receivers of pairs, which come about on the way.
    pairs: Mutex<Vec<AbortHandle>>,
    lateness: Mutex<Histogram<u32>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Datagram>,
    bytes: usize,
    stopped: bool,
}

#[derive(Debug)]
struct Datagram {
    due: Instant,
    contents: Box<[u8]>,
    out: Out,
}

/// Where a datagram leaves.
#[derive(Debug, Clone)]
struct Out {
    socket: Arc<StdSocket>,
    /// None where the socket is connected.
    to: Option<SocketAddr>,
}

/// What a relay has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Carried {
    /// Datagrams that were passed on.
    pub(super) datagrams: u64,
    /// Bytes of their contents, without the headers of UDP and IP.
    pub(super) bytes: u64,
    /// Datagrams that were dropped because too much was under way, or that the system refused.
    pub(super) dropped: u64,
}

impl Relay {
    /// Begins to pass on what comes at each front to the node behind it, `delay` later.
    pub(super) fn start(delay: Duration, ways: &[(SocketAddr, SocketAddr)]) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            delay,
            queue: Mutex::default(),
            changed: Condvar::new(),
            datagrams: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            pairs: Mutex::default(),
            lateness: Mutex::new(lateness()),
        });
        let mut relay = Self { shared: Arc::clone(&shared), receivers: Vec::new() };
        for (front, behind) in ways {
            let (socket, out) = sockets(*front, None)?;
            let receiving = receive_at_front(Arc::clone(&shared), socket, out, *behind);
            relay.receivers.push(tokio::spawn(receiving).abort_handle());
        }
        if delay > Duration::ZERO {
            thread::Builder::new().name("relay".to_owned()).spawn(move || deliver(&shared))?;
        }
        Ok(relay)
    }

    /// What it has done so far.
    pub(super) fn carried(&self) -> Carried {
        Carried {
            datagrams: self.shared.datagrams.load(Relaxed),
            bytes: self.shared.bytes.load(Relaxed),
            dropped: self.shared.dropped.load(Relaxed),
        }
    }

    /// How long after it was due each datagram left, in microseconds, since this was last asked.
    pub(super) fn take_lateness(&self) -> Histogram<u32> {
        std::mem::replace(
            &mut *self.shared.lateness.lock().unwrap_or_else(PoisonError::into_inner),
            lateness(),
        )
    }
}

fn lateness() -> Histogram<u32> {
    Histogram::new_with_max(60_000_000, 3).expect("constant bounds that the type takes")
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.receivers.iter().for_each(AbortHandle::abort);
        self.shared.pairs.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(AbortHandle::abort);
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
    }
}

/// A socket to receive from, and the same one to send by from any thread.
fn sockets(bind: SocketAddr, connect: Option<SocketAddr>) -> io::Result<(UdpSocket, Arc<StdSocket>)> {
    let socket = StdSocket::bind(bind)?;
    socket.set_nonblocking(true)?;
    let options = socket2::SockRef::from(&socket);
    // The system may give less; then more is lost when there is much.
    let _ = options.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = options.set_send_buffer_size(SOCKET_BUFFER);
    if let Some(peer) = connect {
        socket.connect(peer)?;
    }
    Ok((UdpSocket::from_std(socket.try_clone()?)?, Arc::new(socket)))
}

async fn receive_at_front(shared: Arc<Shared>, socket: UdpSocket, back: Arc<StdSocket>, behind: SocketAddr) {
    let mut pairs: HashMap<SocketAddr, Out> = HashMap::new();
    receive(&socket, |contents, from| {
        let out = match pairs.get(&from) {
            Some(out) => out.clone(),
            None if pairs.len() >= MAX_PAIRS => return shared.drop_one(),
            None => match open_pair(&shared, Out { socket: Arc::clone(&back), to: Some(from) }, behind) {
                Ok(out) => pairs.entry(from).or_insert(out).clone(),
                Err(_) => return shared.drop_one(),
            },
        };
        shared.take(contents, out);
    })
    .await;
}

/// A socket for what one sender sends to a front; answers go `back`.
fn open_pair(shared: &Arc<Shared>, back: Out, behind: SocketAddr) -> io::Result<Out> {
    let (socket, out) = sockets((Ipv4Addr::LOCALHOST, 0).into(), Some(behind))?;
    let theirs = Arc::clone(shared);
    let receiving = async move { receive(&socket, |contents, _| theirs.take(contents, back.clone())).await };
    let receiver = tokio::spawn(receiving).abort_handle();
    shared.pairs.lock().unwrap_or_else(PoisonError::into_inner).push(receiver);
    Ok(Out { socket: out, to: None })
}

/// Hands over each datagram that comes, for ever. Errors are those that the other side's being away causes.
async fn receive(socket: &UdpSocket, mut take: impl FnMut(&[u8], SocketAddr)) {
    let mut buffer = vec![0; 64 << 10];
    while socket.readable().await.is_ok() {
        loop {
            match socket.try_recv_from(&mut buffer) {
                Ok((size, from)) => take(&buffer[..size], from),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {}
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole between any two statements, so a panic elsewhere leaves nothing half done.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_one(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    fn take(&self, contents: &[u8], out: Out) {
        if self.delay == Duration::ZERO {
            return self.send(contents, &out);
        }
        let mut queue = self.lock();
        if queue.bytes + contents.len() > CAPACITY {
            drop(queue);
            return self.drop_one();
        }
        queue.bytes += contents.len();
        // Read under the lock, so that the queue is in the order of what is due.
        let due = Instant::now() + self.delay;
        queue.waiting.push_back(Datagram { due, contents: contents.into(), out });
        if queue.waiting.len() == 1 {
            self.changed.notify_one();
        }
    }

    fn send(&self, contents: &[u8], out: &Out) {
        for _ in 0..TRIES {
            let sent = match out.to {
                Some(to) => out.socket.send_to(contents, to),
                None => out.socket.send(contents),
            };
            match sent {
                Ok(_) => {
                    self.datagrams.fetch_add(1, Relaxed);
                    self.bytes.fetch_add(contents.len() as u64, Relaxed);
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(PAUSE),
                // Says that an earlier one found nobody there; this one has not been tried yet.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => break,
            }
        }
        self.drop_one();
    }

    /// Sleeps until something is due, and takes all that is; `None` at the end.
    fn wait_for_due(&self) -> Option<Vec<Datagram>> {
        let mut queue = self.lock();
        loop {
            if queue.stopped {
                return None;
            }
            let now = Instant::now();
            queue = match queue.waiting.front() {
                None => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(first) if first.due > now => {
                    let wait = first.due - now;
                    self.changed.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                Some(_) => {
                    let count = queue.waiting.partition_point(|datagram| datagram.due <= now);
                    let due: Vec<_> = queue.waiting.drain(..count).collect();
                    queue.bytes -= due.iter().map(|datagram| datagram.contents.len()).sum::<usize>();
                    return Some(due);
                }
            };
        }
    }
}

fn deliver(shared: &Shared) {
    while let Some(due) = shared.wait_for_due() {
        for datagram in &due {
            let late = u64::try_from(datagram.due.elapsed().as_micros()).unwrap_or(u64::MAX);
            shared.lateness.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(late);
            shared.send(&datagram.contents, &datagram.out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    async fn socket() -> UdpSocket {
        UdpSocket::bind(("127.0.0.1", 0)).await.unwrap()
    }

    fn free() -> SocketAddr {
        StdSocket::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
    }

    async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2048];
        let received = tokio::time::timeout(PATIENCE, socket.recv_from(&mut buffer)).await;
        let (size, from) = received.expect("it arrives").unwrap();
        (buffer[..size].to_vec(), from)
    }

    #[tokio::test]
    async fn senders_are_kept_apart_and_answers_come_back_through_the_front() {
        for delay in [Duration::ZERO, Duration::from_millis(30)] {
            let (behind, front) = (socket().await, free());
            let relay = Relay::start(delay, &[(front, behind.local_addr().unwrap())]).unwrap();
            let senders = [socket().await, socket().await];
            let mut ways = Vec::new();
            for (sender, word) in senders.iter().zip([b"one", b"two"]) {
                let sent = Instant::now();
                sender.send_to(word, front).await.unwrap();
                let (contents, from) = receive(&behind).await;
                assert!(sent.elapsed() >= delay);
                assert_eq!(contents, word);
                ways.push(from);
            }
            assert_ne!(ways[0], ways[1]);
            for (sender, way) in senders.iter().zip(&ways).rev() {
                let sent = Instant::now();
                behind.send_to(&way.port().to_be_bytes(), way).await.unwrap();
                let (contents, from) = receive(sender).await;
                assert!(sent.elapsed() >= delay);
                assert_eq!((contents, from), (way.port().to_be_bytes().to_vec(), front));
            }
            // It is counted a moment after it is sent.
            let deadline = Instant::now() + PATIENCE;
            let all = Carried { datagrams: 4, bytes: 10, dropped: 0 };
            while relay.carried() != all {
                assert!(Instant::now() < deadline, "{:?}", relay.carried());
                tokio::task::yield_now().await;
            }
            assert_eq!(relay.take_lateness().len(), if delay == Duration::ZERO { 0 } else { 4 });
        }
    }

    #[tokio::test]
    async fn datagrams_keep_their_order() {
        let (behind, front) = (socket().await, free());
        let delay = Duration::from_millis(5);
        let _relay = Relay::start(delay, &[(front, behind.local_addr().unwrap())]).unwrap();
        let sender = socket().await;
        for number in 0..200_u32 {
            sender.send_to(&number.to_be_bytes(), front).await.unwrap();
        }
        for number in 0..200_u32 {
            assert_eq!(receive(&behind).await.0, number.to_be_bytes());
        }
    }

    #[tokio::test]
    async fn a_node_that_was_away_is_reached_again() {
        let (behind, front) = (free(), free());
        let relay = Relay::start(Duration::ZERO, &[(front, behind)]).unwrap();
        let sender = socket().await;
        let deadline = Instant::now() + PATIENCE;
        while relay.carried().datagrams < 20 {
            assert!(Instant::now() < deadline, "{:?}", relay.carried());
            sender.send_to(b"nobody there", front).await.unwrap();
            tokio::task::yield_now().await;
        }
        let behind = UdpSocket::bind(behind).await.unwrap();
        sender.send_to(b"somebody", front).await.unwrap();
        while receive(&behind).await.0 != b"somebody" {}
        assert_eq!(relay.carried().dropped, 0);
    }
}

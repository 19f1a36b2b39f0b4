//! The datagrams that are under way, and the thread that releases them when they are due.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use quinn::AsyncUdpSocket;
use quinn::udp::{EcnCodepoint, Transmit};

/// How often a datagram is offered again to a socket whose buffer in the kernel is full, and the pause between.
const BLOCKED_TRIES: u32 = 50;
const BLOCKED_PAUSE: Duration = Duration::from_micros(100);

/// What a network has done so far. A transmit of several segments counts once; bytes are those of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Transmits that left for their destination.
    pub delivered: u64,
    /// Transmits dropped because their link was full.
    pub dropped_full: u64,
    /// Transmits that the real socket refused.
    pub dropped_refused: u64,
    /// Bytes on their way at the moment.
    pub bytes_under_way: u64,
}

/// All that is under way, and its thread. Dropping it ends the thread.
pub(super) struct Delivery {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Woken when a datagram becomes the next one due, and at the end.
    changed: Condvar,
    link_bytes: usize,
    delivered: AtomicU64,
    dropped_full: AtomicU64,
    dropped_refused: AtomicU64,
}

#[derive(Default)]
struct Queue {
    under_way: BinaryHeap<Reverse<Datagram>>,
    /// Bytes under way on each link that has any.
    links: HashMap<LinkKey, usize>,
    next_order: u64,
    next_socket: u64,
    stopped: bool,
}

type LinkKey = (u64, SocketAddr);

/// One transmit, kept as it was handed over: splitting it into segments stays the kernel's work.
struct Datagram {
    due: Instant,
    /// Position among all; keeps those with the same delay in their order.
    order: u64,
    socket: Arc<dyn AsyncUdpSocket>,
    link: LinkKey,
    ecn: Option<EcnCodepoint>,
    contents: Box<[u8]>,
    segment_size: Option<usize>,
    src_ip: Option<IpAddr>,
}

impl Ord for Datagram {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

impl PartialOrd for Datagram {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Datagram {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Datagram {}

impl Delivery {
    pub(super) fn start(link_bytes: usize) -> io::Result<Delivery> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            link_bytes,
            delivered: AtomicU64::new(0),
            dropped_full: AtomicU64::new(0),
            dropped_refused: AtomicU64::new(0),
        });
        let theirs = shared.clone();
        thread::Builder::new().name("emulated-wan".to_owned()).spawn(move || deliver(&theirs))?;
        Ok(Delivery { shared })
    }

    pub(super) fn counters(&self) -> Counters {
        let under_way: usize = self.shared.lock().links.values().sum();
        Counters {
            delivered: self.shared.delivered.load(Relaxed),
            dropped_full: self.shared.dropped_full.load(Relaxed),
            dropped_refused: self.shared.dropped_refused.load(Relaxed),
            bytes_under_way: under_way as u64,
        }
    }
}

#[cfg(test)]
impl Delivery {
    /// Something that is there as long as the thread is.
    pub(super) fn shared_for_test(&self) -> std::sync::Weak<impl Sized + use<>> {
        Arc::downgrade(&self.shared)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
    }
}

/// The sending side of one socket.
pub(super) struct Link {
    delivery: Arc<Delivery>,
    socket: Arc<dyn AsyncUdpSocket>,
    id: u64,
}

impl Link {
    pub(super) fn new(delivery: Arc<Delivery>, socket: Arc<dyn AsyncUdpSocket>) -> Link {
        let id = {
            let mut queue = delivery.shared.lock();
            queue.next_socket += 1;
            queue.next_socket
        };
        Link { delivery, socket, id }
    }

    /// Takes a transmit that is to leave after `delay`, or drops it when the link is full.
    pub(super) fn send(&self, transmit: &Transmit<'_>, delay: Duration) {
        let shared = &self.delivery.shared;
        let link = (self.id, transmit.destination);
        let contents: Box<[u8]> = transmit.contents.into();
        let mut queue = shared.lock();
        let bytes = queue.links.get(&link).copied().unwrap_or(0) + contents.len();
        if bytes > shared.link_bytes {
            shared.dropped_full.fetch_add(1, Relaxed);
            return;
        }
        queue.links.insert(link, bytes);
        queue.next_order += 1;
        let datagram = Datagram {
            // Read under the lock, so that times and order never contradict each other.
            due: Instant::now() + delay,
            order: queue.next_order,
            socket: self.socket.clone(),
            link,
            ecn: transmit.ecn,
            contents,
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        let next = queue.under_way.peek().is_none_or(|Reverse(head)| datagram.due < head.due);
        queue.under_way.push(Reverse(datagram));
        drop(queue);
        if next {
            shared.changed.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is whole between any two statements, so a panic elsewhere leaves nothing half done.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until something is due and takes all that is; `None` at the end.
    fn wait_for_due(&self) -> Option<Vec<Datagram>> {
        let mut queue = self.lock();
        loop {
            if queue.stopped {
                return None;
            }
            let now = Instant::now();
            let wait = match queue.under_way.peek() {
                None => None,
                Some(Reverse(head)) if head.due > now => Some(head.due - now),
                Some(_) => return Some(queue.take_due(now)),
            };
            queue = match wait {
                None => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(wait) => {
                    self.changed.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn release(&self, datagram: &Datagram) {
        let transmit = Transmit {
            destination: datagram.link.1,
            ecn: datagram.ecn,
            contents: &datagram.contents,
            segment_size: datagram.segment_size,
            src_ip: datagram.src_ip,
        };
        for _ in 0..BLOCKED_TRIES {
            match datagram.socket.try_send(&transmit) {
                Ok(()) => {
                    self.delivered.fetch_add(1, Relaxed);
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(BLOCKED_PAUSE),
                Err(_) => break,
            }
        }
        self.dropped_refused.fetch_add(1, Relaxed);
    }
}

impl Queue {
    fn take_due(&mut self, now: Instant) -> Vec<Datagram> {
        let mut due = Vec::new();
        while self.under_way.peek().is_some_and(|Reverse(head)| head.due <= now) {
            let Some(Reverse(datagram)) = self.under_way.pop() else { break };
            if let Some(bytes) = self.links.get_mut(&datagram.link) {
                *bytes -= datagram.contents.len();
                if *bytes == 0 {
                    self.links.remove(&datagram.link);
                }
            }
            due.push(datagram);
        }
        due
    }
}

fn deliver(shared: &Shared) {
    while let Some(due) = shared.wait_for_due() {
        due.iter().for_each(|datagram| shared.release(datagram));
    }
}

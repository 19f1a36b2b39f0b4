//! An emulated wide-area network below QUIC, inside one process.
//!
//! Nodes that run side by side on loopback are microseconds apart. [`Wan`] puts the real distance between them: it
//! wraps the UDP socket of each QUIC endpoint, holds every outgoing datagram back for the one-way delay of its way,
//! and then sends it through the real socket. Everything above (handshakes, congestion control, acknowledgements)
//! works with that delay as it would over an ocean.
//!
//! ```text
//! endpoint ─▶ try_send ─▶ link (bounded, counted) ─▶ heap by due time ─▶ one thread ─▶ real socket
//! ```
//!
//! A thread of its own does the waiting, since timers of the async runtime are a millisecond coarse; here a
//! datagram leaves tens of microseconds after it is due, and never before. Each pair of socket and destination is a
//! link of bounded capacity in bytes; a datagram that does not fit is dropped, as a router's full queue would drop it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use quinn::AsyncUdpSocket;

use mychat_router::geo;

mod delivery;
mod socket;

pub use delivery::Counters;
use delivery::Delivery;
use socket::DelayedSocket;

/// How many bytes one link holds by default: 16 MiB, about a gigabit a second over the longest way on earth.
pub const LINK_BYTES: usize = 16 << 20;

/// Puts an emulated network under an endpoint's socket.
pub type WrapSocket = Arc<dyn Fn(Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> + Send + Sync>;

/// The one-way delay between two regions, by their names.
type BetweenRegions = dyn Fn(&str, &str) -> Duration + Send + Sync;

/// An emulated network that the sockets of one process share. A handle: clones are the same network. It ends, and
/// drops what is on its way, with the last handle and socket.
#[derive(Clone)]
pub struct Wan {
    delivery: Arc<Delivery>,
    places: Arc<Places>,
}

impl Wan {
    /// A network with the typical delays between the regions of the map (see [`geo::one_way`]); none where a region
    /// is not on it. Fails when the system has no thread left.
    pub fn new() -> io::Result<Wan> {
        Self::with(LINK_BYTES, |from, to| geo::one_way(from, to).unwrap_or_default())
    }

    /// A network with links of `link_bytes` bytes and delays by the names of the two regions.
    pub fn with(
        link_bytes: usize,
        one_way: impl Fn(&str, &str) -> Duration + Send + Sync + 'static,
    ) -> io::Result<Wan> {
        let places = Places { one_way: Box::new(one_way), regions: RwLock::default() };
        Ok(Wan { delivery: Arc::new(Delivery::start(link_bytes)?), places: Arc::new(places) })
    }

    /// The wrapper for an endpoint in `region`. From then on, what the other wrapped endpoints send to its address
    /// has the delay between the two regions. Addresses that no wrapped endpoint has are not delayed.
    pub fn socket(&self, region: &str) -> WrapSocket {
        let (wan, region): (Wan, Arc<str>) = (self.clone(), region.into());
        Arc::new(move |inner| {
            let here = inner.local_addr().ok();
            let (places, from) = (wan.places.clone(), region.clone());
            let delay = move |to| places.delay(&from, to);
            let resident = here.map(|address| Resident::new(wan.places.clone(), address, region.clone()));
            Arc::new(DelayedSocket::new(inner, wan.delivery.clone(), delay, resident))
        })
    }

    /// The wrapper for an endpoint whose delays are a function of the destination's address.
    pub fn socket_by_address(
        &self,
        delay: impl Fn(SocketAddr) -> Duration + Clone + Send + Sync + 'static,
    ) -> WrapSocket {
        let delivery = self.delivery.clone();
        Arc::new(move |inner| Arc::new(DelayedSocket::new(inner, delivery.clone(), delay.clone(), None)))
    }

    /// What the network has carried and dropped so far.
    pub fn counters(&self) -> Counters {
        self.delivery.counters()
    }
}

impl fmt::Debug for Wan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wan").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

/// Which endpoint is where.
struct Places {
    one_way: Box<BetweenRegions>,
    /// By port for sockets that are bound to every address, which others reach by any of them.
    regions: RwLock<HashMap<Place, Arc<str>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    Address(SocketAddr),
    Port(u16),
}

impl Place {
    fn of(address: SocketAddr) -> Place {
        match address.ip().is_unspecified() {
            true => Place::Port(address.port()),
            false => Place::Address(canonical(address)),
        }
    }
}

/// IPv4 addresses have a second form on sockets that speak both versions.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Places {
    fn delay(&self, from: &str, to: SocketAddr) -> Duration {
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        let region =
            regions.get(&Place::Address(canonical(to))).or_else(|| regions.get(&Place::Port(to.port())));
        region.map_or(Duration::ZERO, |region| (self.one_way)(from, region))
    }
}

/// The entry of one endpoint in the map of places; leaves it with the endpoint.
struct Resident {
    places: Arc<Places>,
    place: Place,
    region: Arc<str>,
}

impl Resident {
    fn new(places: Arc<Places>, address: SocketAddr, region: Arc<str>) -> Self {
        let place = Place::of(address);
        places.regions.write().unwrap_or_else(PoisonError::into_inner).insert(place, region.clone());
        Self { places, place, region }
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        let mut regions = self.places.regions.write().unwrap_or_else(PoisonError::into_inner);
        // A restarted endpoint may have the address already.
        if regions.get(&self.place).is_some_and(|current| Arc::ptr_eq(current, &self.region)) {
            regions.remove(&self.place);
        }
    }
}

#[cfg(test)]
mod tests;

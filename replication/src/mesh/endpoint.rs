//! The QUIC endpoint under a mesh: its socket, its transport parameters and the address it gives out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::HmacKey;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AsyncUdpSocket, ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, Runtime,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use ring::hmac;
use socket2::{Domain, Protocol, Socket, Type};

use super::congestion::{self, Control};
use super::{MeshError, WrapSocket};
use crate::cluster::ClusterKey;
use crate::identity::NodeId;

/// How long a connection may be silent before it counts as lost. With the keep-alive below, a peer that
/// vanishes is noticed after at most the sum of both.
const IDLE_TIMEOUT: VarInt = VarInt::from_u32(3_500);
/// How often a quiet connection is shown to be alive.
const KEEP_ALIVE: Duration = Duration::from_millis(700);
/// What a round trip is assumed to take before it is measured: across an ocean, so that a first packet
/// is not sent again needlessly.
const INITIAL_RTT: Duration = Duration::from_millis(200);
/// How much one stream may have under way, in bytes: 8 MiB fill 200 Mbit/s at 300 ms.
const STREAM_WINDOW: u32 = 8 << 20;
/// How much one connection may have under way, in bytes.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// Streams that one peer may have open at once, of each direction.
const STREAMS: u32 = 256;
/// Bytes of datagrams that wait for their turn to be sent; the oldest are dropped beyond.
const DATAGRAMS_OUT: usize = 256 << 10;
/// Bytes of datagrams that arrived and wait to be read; the oldest are dropped beyond.
const DATAGRAMS_IN: usize = 1 << 20;
/// The size asked for each of the socket's buffers, in bytes; the system may give less.
const SOCKET_BUFFER: usize = 4 << 20;

/// Binds the socket and starts the endpoint on it. The server side must be given its configuration.
pub(crate) fn open(
    bind: SocketAddr,
    node: NodeId,
    key: &ClusterKey,
    server: ServerConfig,
    wrap: Option<&WrapSocket>,
) -> Result<Endpoint, MeshError> {
    let failed = |source| MeshError::Bind { addr: bind, source };
    let socket = bind_socket(bind).map_err(failed)?;
    let runtime = Arc::new(TokioRuntime);
    let mut socket: Arc<dyn AsyncUdpSocket> = runtime.wrap_udp_socket(socket).map_err(failed)?;
    if let Some(wrap) = wrap {
        socket = wrap(socket);
    }
    Endpoint::new_with_abstract_socket(endpoint_config(node, key), Some(server), socket, runtime)
        .map_err(failed)
}

fn bind_socket(bind: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(bind), Type::DGRAM, Some(Protocol::UDP))?;
    if bind.is_ipv6() {
        // One socket for both families; a system without that support keeps IPv6 alone.
        let _ = socket.set_only_v6(false);
    }
    // The defaults of many systems lose packets in a burst. A refusal leaves the default.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&bind.into())?;
    Ok(socket.into())
}

/// A member's reset key outlives its process: after a crash and a restart, the first packet that a peer
/// sends on an old connection is answered with a reset that the peer believes, so it redials at once
/// instead of waiting for the idle timeout.
fn endpoint_config(node: NodeId, key: &ClusterKey) -> EndpointConfig {
    let secret = key.derive(&format!("mesh-reset/1 {node}"));
    let reset_key: Arc<dyn HmacKey> = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret));
    let mut config = EndpointConfig::new(reset_key);
    config.cid_generator(|| Box::new(RandomIds));
    config
}

/// Connection ids of 8 random bytes. Quinn's own ids carry a checksum under a key that dies with the
/// process, and packets for foreign ids then get no reset.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; 8]>())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The server side of a configuration.
pub(crate) fn server_config(crypto: QuicServerConfig) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    config
}

/// The client side of a configuration.
pub(crate) fn client_config(crypto: QuicClientConfig) -> ClientConfig {
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    config
}

fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .ack_frequency_config(Some(congestion::acknowledgements()))
        .max_idle_timeout(Some(IDLE_TIMEOUT.into()))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(CONNECTION_WINDOW.into())
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS))
        .datagram_send_buffer_size(DATAGRAMS_OUT)
        .datagram_receive_buffer_size(Some(DATAGRAMS_IN))
        .congestion_controller_factory(Arc::new(Control));
    config
}

/// The address under which others reach this member: what was asked for; else the bound address; else,
/// when all addresses were bound, the one that the system would send from towards the first seed that resolves.
pub(crate) async fn advertised(asked: Option<SocketAddr>, bound: SocketAddr, seeds: &[String]) -> SocketAddr {
    if let Some(addr) = asked {
        return addr;
    }
    if !bound.ip().is_unspecified() {
        return bound;
    }
    let mut ip = None;
    for seed in seeds {
        ip = source_towards(seed, bound).await;
        if ip.is_some() {
            break;
        }
    }
    if ip.is_none() && !seeds.is_empty() {
        tracing::warn!(%bound, "no peer's name resolves, so this member can't tell at which address it is reached: it says loopback; name its address if the others are on other machines");
    }
    let loopback = match bound {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(ip.unwrap_or(loopback), bound.port())
}

/// Asks the routing table by connecting a UDP socket, which sends nothing.
async fn source_towards(seed: &str, bound: SocketAddr) -> Option<IpAddr> {
    let target = tokio::net::lookup_host(seed).await.ok()?.find(|addr| reachable(bound, *addr))?;
    let any = match target {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let probe = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    probe.connect(target).ok()?;
    Some(probe.local_addr().ok()?.ip())
}

/// Whether a socket bound to `bound` can send to `target`: an IPv4 socket cannot send to IPv6.
pub(crate) fn reachable(bound: SocketAddr, target: SocketAddr) -> bool {
    bound.is_ipv6() || target.is_ipv4()
}

/// The same address, with an IPv4 address inside IPv6 written as IPv4.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn the_advertised_address_is_the_best_known_one() {
        let asked = Some(addr("192.0.2.1:7"));
        assert_eq!(advertised(asked, addr("0.0.0.0:9"), &[]).await, addr("192.0.2.1:7"));
        assert_eq!(advertised(None, addr("127.0.0.1:9"), &[]).await, addr("127.0.0.1:9"));
        assert_eq!(advertised(None, addr("0.0.0.0:9"), &[]).await, addr("127.0.0.1:9"));
        assert_eq!(advertised(None, addr("[::]:9"), &[]).await, addr("[::1]:9"));
        let seeds = ["127.0.0.1:5".to_owned()];
        assert_eq!(advertised(None, addr("0.0.0.0:9"), &seeds).await, addr("127.0.0.1:9"));
        let nowhere = ["no-such-host.invalid:5".to_owned()];
        assert_eq!(advertised(None, addr("0.0.0.0:9"), &nowhere).await, addr("127.0.0.1:9"));
    }
}

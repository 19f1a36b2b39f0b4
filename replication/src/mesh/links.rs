//! A greeted connection from its entry into the table to its end.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use metrics::counter;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, VarInt};
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::FIRST_FREE_KIND;
use super::event::MeshEvent;
use super::peers::{Install, Unwanted};
use super::refusal::{Direction, Refusal};
use super::shared::Shared;
use crate::membership::Member;
use crate::{directory, membership};

/// Streams of one connection whose kind was not read yet or that wait for the user to take them. Beyond,
/// QUIC's own limit makes the peer wait.
const MOST_OPENINGS: usize = 64;
/// How long a stream may take to bring its first byte.
const OPENING: Duration = Duration::from_secs(10);
/// More than the directory ever sends in one message, in bytes.
const LARGEST_MESSAGE: usize = 128 << 10;

/// Why a connection is closed; the number is what the peer gets to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goodbye {
    /// The process stopped without leaving.
    Stopped = 1,
    /// The member leaves the cluster.
    Leaving = 2,
    /// There is another connection.
    Duplicate = 3,
    /// The dialer reached itself.
    Myself = 4,
    /// A younger process has the same node id.
    Superseded = 5,
    /// The greeting was not acceptable.
    Greeting = 6,
    /// A new connection is there in its place.
    Renewed = 7,
    /// The peer's certificate is of a key that is not accepted any more, or has ended.
    Untrusted = 8,
}

impl Goodbye {
    fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    pub(crate) fn close(self, connection: &Connection) {
        connection.close(self.code(), format!("{self:?}").as_bytes());
    }

    pub(crate) fn close_endpoint(self, endpoint: &Endpoint) {
        endpoint.close(self.code(), format!("{self:?}").as_bytes());
    }

    /// Whether the peer closed with this reason.
    fn is(self, error: &ConnectionError) -> bool {
        matches!(error, ConnectionError::ApplicationClosed(close) if close.error_code == self.code())
    }
}

/// Enters a greeted connection into the table and serves it until it closes.
pub(crate) fn hold(
    shared: &Arc<Shared>,
    member: &Member,
    connection: &Connection,
    direction: Direction,
    how: Install,
) -> Result<(), Unwanted> {
    let obsolete = match shared.peers.install(member, connection, direction, how) {
        Ok(obsolete) => obsolete,
        Err(unwanted) => {
            match unwanted {
                Unwanted::Duplicate => Goodbye::Duplicate.close(connection),
                Unwanted::Outdated => {
                    if shared.refusals.is_news(member.addr, "outdated") {
                        warn!(node = %member.node, addr = %member.addr, "two processes have one node id; the older one is turned away");
                    }
                    Goodbye::Superseded.close(connection);
                }
            }
            return Err(unwanted);
        }
    };
    let goodbye = if how.replaces { Goodbye::Renewed } else { Goodbye::Superseded };
    for older in obsolete {
        goodbye.close(&older);
    }
    debug!(node = %member.node, addr = %member.addr, direction = direction.label(), "connected");
    // Serving does not wait for the user to take the PeerUp: membership must go on.
    shared.spawn(serve(shared.clone(), member.clone(), connection.clone()));
    shared.spawn(watch(shared.clone(), member.clone(), connection.clone(), direction));
    Ok(())
}

async fn watch(shared: Arc<Shared>, member: Member, connection: Connection, direction: Direction) {
    // Membership must not wait for the user to take events, so both go on side by side.
    match direction {
        Direction::Outgoing => {
            tokio::join!(
                tell(&shared, &member, &connection),
                account(&shared, &member, &connection, direction)
            );
        }
        Direction::Incoming => account(&shared, &member, &connection, direction).await,
    }
}

/// Tells the user that a peer is up and, later, down. The next connection to that peer has to wait for its
/// turn, so that the two alternate whatever happens at once.
async fn tell(shared: &Shared, member: &Member, connection: &Connection) {
    let turn = shared.peers.turn(member.node);
    let _turn = turn.lock().await;
    info!(node = %member.node, role = %member.role, region = %member.region, addr = %member.addr, "peer up");
    shared.emit(MeshEvent::PeerUp(shared.peers.info(member))).await;
    let reason = connection.closed().await;
    if !matches!(reason, ConnectionError::LocallyClosed) {
        shared.membership.doubt(member.node);
    }
    info!(node = %member.node, addr = %member.addr, %reason, "peer down");
    shared.emit(MeshEvent::PeerDown(member.node)).await;
}

/// Keeps membership, directory and the table in step with a connection.
async fn account(shared: &Shared, member: &Member, connection: &Connection, direction: Direction) {
    shared.membership.greeted(member.clone()).await;
    shared.directory.greeted(member.addr);
    let reason = connection.closed().await;
    let remains = shared.peers.remove(member.node, connection, direction);
    if Refusal::of(&reason).is_some() {
        // The acceptor's verdict on our certificate can come after the handshake is over for us.
        shared.refusals.report(connection.remote_address(), direction, &reason);
    }
    if Goodbye::Superseded.is(&reason) && shared.refusals.is_news(member.addr, "superseded") {
        warn!(peer = %member.node, "the peer says that a younger process has this member's node id");
    }
    if Goodbye::Leaving.is(&reason) {
        shared.membership.left(member.node).await;
    } else if !remains {
        shared.membership.lost(member.node).await;
    }
}

/// Takes what the peer sends until the connection closes.
async fn serve(shared: Arc<Shared>, member: Member, connection: Connection) {
    let mut openings = JoinSet::new();
    loop {
        let room = openings.len() < MOST_OPENINGS;
        tokio::select! {
            datagram = connection.read_datagram() => match datagram {
                Ok(datagram) => take_datagram(&shared, &member, datagram),
                Err(_) => return,
            },
            stream = connection.accept_bi(), if room => match stream {
                Ok((send, recv)) => {
                    openings.spawn(take_stream(shared.clone(), member.clone(), send, recv));
                }
                Err(_) => return,
            },
            stream = connection.accept_uni(), if room => match stream {
                Ok(recv) => {
                    openings.spawn(take_message(shared.clone(), member.clone(), recv));
                }
                Err(_) => return,
            },
            Some(_) = openings.join_next() => {}
        }
    }
}

fn take_datagram(shared: &Shared, member: &Member, mut datagram: Bytes) {
    shared.membership.heard(member.node);
    if !datagram.has_remaining() {
        return;
    }
    match datagram.get_u8() {
        membership::KIND => shared.membership.receive(datagram),
        directory::KIND => shared.directory.receive(member.addr, datagram),
        kind if kind < FIRST_FREE_KIND => debug!(kind, "ignored a datagram of an unknown kind"),
        kind => {
            let event = MeshEvent::Datagram { peer: member.node, kind, payload: datagram };
            if let Err(TrySendError::Full(_)) = shared.events.try_send(event) {
                counter!("mychat_mesh_datagrams_dropped_total", "stage" => "events").increment(1);
            }
        }
    }
}

async fn take_stream(shared: Arc<Shared>, member: Member, send: SendStream, mut recv: RecvStream) {
    let mut kind = [0];
    let Ok(Ok(())) = timeout(OPENING, recv.read_exact(&mut kind)).await else { return };
    let [kind] = kind;
    if kind < FIRST_FREE_KIND {
        debug!(kind, node = %member.node, "ignored a stream of an unknown kind");
        return;
    }
    let peer = shared.peers.info(&member);
    shared.emit(MeshEvent::Stream { peer, kind, send, recv }).await;
}

async fn take_message(shared: Arc<Shared>, member: Member, mut recv: RecvStream) {
    let Ok(Ok(message)) = timeout(OPENING, recv.read_to_end(LARGEST_MESSAGE)).await else { return };
    let mut message = Bytes::from(message);
    if message.has_remaining() && message.get_u8() == directory::KIND {
        shared.directory.receive(member.addr, message);
    }
}

//! Certificates and connections that are made anew while the mesh runs.
//!
//! A member signs itself a new certificate well before the old one ends, and whenever its cluster key changes or its
//! clock was set so far that the old one may not be good any more. A
//! connection is as old as the certificates that were shown when it was made, so the one who dialed makes it anew in
//! good time: the new one is greeted before the old one is closed, and streams go on with it from where they were.
//! Either side closes a connection whose peer's certificate is not acceptable any more, because it has ended or its
//! key is not accepted now; nobody is connected for longer than a certificate lasts.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use quinn::{ClientConfig, ServerConfig};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::links::Goodbye;
use super::peers::Held;
use super::shared::Shared;
use super::tls::{Authority, Lifetimes};
use super::{MeshError, dial, endpoint};
use crate::cluster::ClusterKey;
use crate::identity::NodeId;
use crate::membership::Member;

/// Reviews that a connection outlives the acceptance of its certificate, for its dialer to make it anew.
const GRACE: u32 = 3;

/// Whom this member trusts, and what it shows.
pub(crate) struct Trust {
    current: RwLock<Current>,
    pub(crate) lifetimes: Lifetimes,
    changed: Notify,
    /// Members to which a connection is being made anew.
    renewing: Mutex<HashSet<NodeId>>,
}

struct Current {
    authority: Arc<Authority>,
    key: ClusterKey,
    client: ClientConfig,
    /// By the wall clock, as the certificate's validity is: other clocks neither follow a correction of it, nor count
    /// the time for which a machine was suspended.
    signed: OffsetDateTime,
    /// Counts the keys that were in use.
    era: u64,
}

impl Trust {
    /// Signs the first certificate.
    pub(crate) fn new(
        key: &ClusterKey,
        member: (NodeId, crate::identity::Role),
        lifetimes: Lifetimes,
    ) -> Result<(Self, ServerConfig), MeshError> {
        let authority = Arc::new(Authority::new(key)?);
        let now = OffsetDateTime::now_utc();
        let credentials = authority.credentials(member.0, member.1, now, lifetimes.validity)?;
        let client = endpoint::client_config(credentials.client);
        let current = Current { authority, key: key.clone(), client, signed: now, era: 0 };
        let trust = Self {
            current: RwLock::new(current),
            lifetimes,
            changed: Notify::new(),
            renewing: Mutex::default(),
        };
        Ok((trust, endpoint::server_config(credentials.server)))
    }

    pub(crate) fn client(&self) -> (ClientConfig, u64) {
        let current = self.current.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        (current.client.clone(), current.era)
    }

    fn authority(&self) -> Arc<Authority> {
        self.current.read().unwrap_or_else(|poisoned| poisoned.into_inner()).authority.clone()
    }

    fn signed(&self) -> OffsetDateTime {
        self.current.read().unwrap_or_else(|poisoned| poisoned.into_inner()).signed
    }

    fn renewing(&self) -> MutexGuard<'_, HashSet<NodeId>> {
        self.renewing.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Whether a certificate of that time is to be made anew: it is old, or the clock was ahead when it was signed.
fn is_due(signed: OffsetDateTime, now: OffsetDateTime, renewal: Duration) -> bool {
    (now - signed).unsigned_abs() >= renewal
}

impl Shared {
    /// Trusts and shows what this key says from now on.
    pub(crate) fn rekey(&self, key: &ClusterKey) -> Result<(), MeshError> {
        self.sign(Arc::new(Authority::new(key)?), Some(key), OffsetDateTime::now_utc())?;
        self.trust.changed.notify_one();
        let marks = key.marks();
        info!(used = marks[0], accepted = marks.join(","), "took another cluster key");
        Ok(())
    }

    /// Shows a certificate that is valid around `now`.
    fn sign(
        &self,
        authority: Arc<Authority>,
        key: Option<&ClusterKey>,
        now: OffsetDateTime,
    ) -> Result<(), MeshError> {
        let (me, validity) = (&self.me, self.trust.lifetimes.validity);
        let credentials = authority.credentials(me.node, me.role, now, validity)?;
        self.endpoint.set_server_config(Some(endpoint::server_config(credentials.server)));
        let mut current = self.trust.current.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(key) = key {
            current.era += u64::from(key.marks().first() != current.key.marks().first());
            current.key = key.clone();
        }
        current.authority = authority;
        current.client = endpoint::client_config(credentials.client);
        current.signed = now;
        Ok(())
    }

    /// Shows a certificate as it is signed when the clock shows another time.
    #[cfg(test)]
    pub(crate) fn sign_at(&self, now: OffsetDateTime) -> Result<(), MeshError> {
        self.sign(self.trust.authority(), None, now)
    }

    /// Signs new certificates and looks after the connections until the mesh stops.
    pub(crate) async fn keep_fresh(self: Arc<Self>) {
        let mut doomed: HashMap<usize, u32> = HashMap::new();
        loop {
            tokio::select! {
                () = sleep(self.trust.lifetimes.review) => {}
                () = self.trust.changed.notified() => {}
            }
            let now = OffsetDateTime::now_utc();
            if is_due(self.trust.signed(), now, self.trust.lifetimes.renewal) {
                match self.sign(self.trust.authority(), None, now) {
                    Ok(()) => info!("renewed this member's certificate"),
                    Err(error) => error!(%error, "cannot renew this member's certificate; trying on"),
                }
            }
            self.review(&mut doomed);
        }
    }

    fn review(self: &Arc<Self>, doomed: &mut HashMap<usize, u32>) {
        let (authority, era) = (self.trust.authority(), self.trust.client().1);
        let (now, held) = (OffsetDateTime::now_utc(), self.peers.held());
        let ids: HashSet<_> = held.iter().map(|held| held.connection.stable_id()).collect();
        doomed.retain(|id, _| ids.contains(id));
        for held in held {
            let accepted = authority.accepts(&held.connection, now);
            let old = held.since.elapsed() > self.connection_age(&held);
            if held.outgoing && (!accepted || held.era != era || old) {
                self.renew(held.member.clone());
            }
            if accepted {
                continue;
            }
            let reviews = doomed.entry(held.connection.stable_id()).or_default();
            *reviews += 1;
            if *reviews > GRACE {
                warn!(
                    peer = %held.connection.remote_address(), node = %held.member.node,
                    "closed a connection: the peer's certificate has ended, or is of a cluster key that is not accepted any more"
                );
                Goodbye::Untrusted.close(&held.connection);
            }
        }
    }

    /// Connections made at the same time are not all made anew at the same time.
    fn connection_age(&self, held: &Held) -> Duration {
        let spread = f64::from(held.member.node.0[0] ^ self.me.node.0[0]) / 512.0;
        self.trust.lifetimes.connection.mul_f64(1.0 - spread)
    }

    fn renew(self: &Arc<Self>, member: Member) {
        if !self.trust.renewing().insert(member.node) {
            return;
        }
        let shared = self.clone();
        self.spawn(async move {
            if !dial::again(&shared, &member).await {
                // Not at full speed: the old one is there, or `dial::keep` makes another.
                sleep(shared.trust.lifetimes.review).await;
            }
            shared.trust.renewing().remove(&member.node);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_due_when_it_is_old_or_from_a_clock_that_was_wrong() {
        let (signed, hour) =
            (OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000), time::Duration::HOUR);
        let day = Lifetimes::default().renewal;
        for (since, due) in [(0, false), (23, false), (24, true), (24 * 8, true), (-23, false), (-24, true)] {
            assert_eq!(is_due(signed, signed + hour * since, day), due, "{since} h after it was signed");
        }
    }
}

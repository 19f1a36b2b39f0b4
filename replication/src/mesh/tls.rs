//! Who may talk: mutual TLS 1.3 whose certificate authority every member makes for itself.
//!
//! The authority's Ed25519 key is derived from the cluster key, so all holders of one cluster key
//! have the same authority without exchanging anything, and holders of another key have another one.
//! Each member signs a short-lived certificate that names its id and role; both sides of a connection
//! verify the other's. While the cluster key is being replaced, there is an authority for each key that is
//! accepted; the one in use signs.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519,
};
use ring::digest::{SHA256, digest};
use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use time::OffsetDateTime;

use super::MeshError;
use crate::cluster::ClusterKey;
use crate::identity::{NodeId, Role};

/// The name that every member's certificate carries, so that a dialer need not know whom it reaches.
pub(crate) const SERVER_NAME: &str = "member.mesh.mychat.internal";
/// The application protocol of the mesh; a new, incompatible mesh gets a new number.
const ALPN: &[u8] = b"mychat-mesh/1";
/// How far back a certificate reaches, for members whose clocks are behind ours.
const BACKDATING: Duration = Duration::from_secs(24 * 3600);
/// The start of a PKCS#8 document that holds an Ed25519 seed (RFC 8410).
const ED25519_PKCS8: [u8; 16] = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];

/// How long certificates and the connections made with them last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetimes {
    /// How long a certificate is good for.
    pub(crate) validity: Duration,
    /// How often a member signs itself a new one: often enough that one is never near its end.
    pub(crate) renewal: Duration,
    /// After which age a connection is made again: both certificates are still good then.
    pub(crate) connection: Duration,
    /// How often connections are looked at.
    pub(crate) review: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 3600);
        Self { validity: day * 7, renewal: day, connection: day * 3, review: Duration::from_secs(2) }
    }
}

/// Makes the TLS configurations of one member.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    verifier: Arc<dyn ClientCertVerifier>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

/// Both sides of TLS for one certificate.
pub(crate) struct Credentials {
    pub(crate) server: QuicServerConfig,
    pub(crate) client: QuicClientConfig,
}

impl Authority {
    /// The authority of the cluster that holds `key`.
    pub(crate) fn new(key: &ClusterKey) -> Result<Self, MeshError> {
        let mut roots = RootCertStore::empty();
        for seed in key.derive_accepted("mesh-ca/1") {
            let (params, key) = root(&seed)?;
            roots.add(params.self_signed(&key)?.der().clone())?;
        }
        let (params, key) = root(&key.derive("mesh-ca/1"))?;
        let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        Ok(Self { issuer: Issuer::new(params, key), verifier, roots, provider })
    }

    /// Whether the certificate that the peer showed when the connection was made is still acceptable.
    pub(crate) fn accepts(&self, connection: &quinn::Connection, now: OffsetDateTime) -> bool {
        let since = Duration::from_secs(now.unix_timestamp().try_into().unwrap_or(0));
        let Some(chain) = certificates(connection) else { return false };
        let Some((certificate, rest)) = chain.split_first() else { return false };
        let now = UnixTime::since_unix_epoch(since);
        self.verifier.verify_client_cert(certificate, rest, now).is_ok()
    }

    /// Signs a certificate for this member, valid around `now`, and builds both configurations with it.
    pub(crate) fn credentials(
        &self,
        node: NodeId,
        role: Role,
        now: OffsetDateTime,
        validity: Duration,
    ) -> Result<Credentials, MeshError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = CertificateParams::new([SERVER_NAME.to_owned(), member_name(node, role)])?;
        params.distinguished_name = named(format!("{role} {node}"));
        params.not_before = now - BACKDATING;
        params.not_after = now + validity;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let chain = vec![params.signed_by(&key, &self.issuer)?.der().clone()];
        let key: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Ok(Credentials {
            server: self.server(chain.clone(), key.clone_key())?,
            client: self.client(chain, key)?,
        })
    }

    fn server(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<QuicServerConfig, MeshError> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(self.verifier.clone())
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would skip the certificates, and members connect rarely.
        config.send_tls13_tickets = 0;
        Ok(QuicServerConfig::try_from(config)?)
    }

    fn client(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<QuicClientConfig, MeshError> {
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(self.roots.clone())
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(QuicClientConfig::try_from(config)?)
    }
}

/// Whether the certificate that the peer proved to hold was made for this member.
pub(crate) fn certifies(connection: &quinn::Connection, node: NodeId, role: Role) -> bool {
    let Some(chain) = certificates(connection) else { return false };
    let Ok(name) = ServerName::try_from(member_name(node, role)) else { return false };
    chain
        .first()
        .and_then(|certificate| ParsedCertificate::try_from(certificate).ok())
        .is_some_and(|certificate| verify_server_name(&certificate, &name).is_ok())
}

fn certificates(connection: &quinn::Connection) -> Option<Vec<CertificateDer<'static>>> {
    connection.peer_identity()?.downcast().ok().map(|chain| *chain)
}

/// The certificate and the key of an authority.
fn root(seed: &[u8; 32]) -> Result<(CertificateParams, KeyPair), MeshError> {
    let document = PrivatePkcs8KeyDer::from([&ED25519_PKCS8[..], seed].concat());
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&document, &PKCS_ED25519)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // The name depends on the key so that a certificate from another cluster fails as "unknown
    // issuer", which says what is wrong, and not as a bad signature.
    let mark = digest(&SHA256, key.public_key_raw());
    let mark: String = mark.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = named(format!("mychat cluster {mark}"));
    Ok((params, key))
}

fn member_name(node: NodeId, role: Role) -> String {
    format!("{node}.{role}.mesh.mychat.internal")
}

fn named(name: String) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::endpoint;
    use crate::mesh::refusal::Refusal;

    const NODE: NodeId = NodeId([1; 16]);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn endpoint(key: &ClusterKey, now: OffsetDateTime) -> (quinn::Endpoint, quinn::ClientConfig) {
        let credentials = Authority::new(key).unwrap().credentials(NODE, Role::Node, now, DAY).unwrap();
        let server = endpoint::server_config(credentials.server);
        let endpoint = endpoint::open("127.0.0.1:0".parse().unwrap(), NODE, key, server, None).unwrap();
        (endpoint, endpoint::client_config(credentials.client))
    }

    /// Connects `dialer` to `acceptor`; the verdicts are those of the dialer and of the acceptor.
    async fn connect(
        (dialer, config): &(quinn::Endpoint, quinn::ClientConfig),
        (acceptor, _): &(quinn::Endpoint, quinn::ClientConfig),
    ) -> [Result<quinn::Connection, Option<Refusal>>; 2] {
        let connecting =
            dialer.connect_with(config.clone(), acceptor.local_addr().unwrap(), SERVER_NAME).unwrap();
        let accepting = async { acceptor.accept().await.unwrap().await };
        let (dialed, accepted) = tokio::join!(connecting, accepting);
        let verdict = |error| Refusal::of(&error);
        [dialed.map_err(verdict), accepted.map_err(verdict)]
    }

    #[tokio::test]
    async fn holders_of_one_key_connect_and_know_each_other() {
        let (key, now) = (ClusterKey::generate(), OffsetDateTime::now_utc());
        let (one, other) = (endpoint(&key, now), endpoint(&key, now));
        for connection in connect(&one, &other).await {
            let connection = connection.unwrap();
            assert!(certifies(&connection, NODE, Role::Node));
            assert!(!certifies(&connection, NODE, Role::Router));
            assert!(!certifies(&connection, NodeId([2; 16]), Role::Node));
        }
    }

    #[tokio::test]
    async fn holders_of_different_keys_refuse_each_other() {
        let now = OffsetDateTime::now_utc();
        let one = endpoint(&ClusterKey::generate(), now);
        let other = endpoint(&ClusterKey::generate(), now);
        for connection in connect(&one, &other).await {
            assert_eq!(connection.unwrap_err(), Some(Refusal::OtherCluster));
        }
    }

    #[tokio::test]
    async fn all_steps_of_a_rotation_connect_to_the_next_and_the_first_not_to_the_last() {
        let now = OffsetDateTime::now_utc();
        let old = ClusterKey::generate();
        let both = old.with_next().unwrap();
        let used = both.with_next_used().unwrap();
        let new = used.without_old().unwrap();
        let steps: Vec<_> = [&old, &both, &used, &new].map(|key| endpoint(key, now)).into();
        for (one, other) in [(0, 1), (1, 2), (2, 3)] {
            for (dialer, acceptor) in [(one, other), (other, one)] {
                for connection in connect(&steps[dialer], &steps[acceptor]).await {
                    assert!(connection.is_ok(), "{dialer} to {acceptor}");
                }
            }
        }
        for connection in connect(&steps[0], &steps[3]).await {
            assert_eq!(connection.unwrap_err(), Some(Refusal::OtherCluster));
        }
    }

    #[tokio::test]
    async fn a_certificate_is_accepted_until_it_ends_or_its_key_is_dropped() {
        let now = OffsetDateTime::now_utc();
        let old = ClusterKey::generate();
        let used = old.with_next().unwrap().with_next_used().unwrap();
        let new = used.without_old().unwrap();
        let [dialed, _] = connect(&endpoint(&old, now), &endpoint(&old, now)).await;
        let connection = dialed.unwrap();
        let accepts = |key: &ClusterKey, at| Authority::new(key).unwrap().accepts(&connection, at);
        assert!(accepts(&old, now) && accepts(&used, now));
        assert!(!accepts(&new, now), "its key was dropped");
        assert!(!accepts(&old, now + DAY * 2), "it ended");
    }

    #[tokio::test]
    async fn a_clock_that_is_an_hour_behind_does_no_harm_and_a_month_does() {
        let (key, now) = (ClusterKey::generate(), OffsetDateTime::now_utc());
        let right = endpoint(&key, now);
        for connection in connect(&endpoint(&key, now - time::Duration::HOUR), &right).await {
            assert!(connection.is_ok());
        }
        for connection in connect(&right, &endpoint(&key, now + time::Duration::days(30))).await {
            assert_eq!(connection.unwrap_err(), Some(Refusal::Clock));
        }
    }
}

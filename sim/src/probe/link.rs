//! A connection to a node that is timed step by step, and calls over it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::target::Target;

/// How long one step may take.
pub(super) const STEP: Duration = Duration::from_secs(15);
/// The largest answer that is read, in bytes.
const LARGEST: usize = 1 << 20;

/// Who vouches for the nodes' names: what the system trusts, and what is given beside.
#[derive(Clone)]
pub(super) struct Trust(TlsConnector);

impl Trust {
    pub(super) fn new(more: Vec<CertificateDer<'static>>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        // A certificate of the system that can't be read is not needed, or the handshake says so.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for certificate in more {
            roots.add(certificate).context("a certificate that was given can't be used")?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Each handshake is a whole one: what is measured is the first visit.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }
}

/// How long the steps to a connection took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    pub(super) dns: Duration,
    pub(super) connect: Duration,
    /// None without TLS.
    pub(super) tls: Option<Duration>,
}

/// An open connection.
pub(super) struct Link {
    target: Target,
    sender: SendRequest<Full<Bytes>>,
    pub(super) steps: Steps,
    pub(super) address: SocketAddr,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// What a step gives, within its time.
pub(super) async fn within<T>(
    what: &str,
    step: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(STEP, step).await {
        Ok(result) => result.with_context(|| what.to_owned()),
        Err(_) => bail!("{what}: nothing within {} s", STEP.as_secs()),
    }
}

impl Link {
    /// Connects.
    pub(super) async fn open(target: &Target, trust: &Trust) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let lookup =
            async { Ok(tokio::net::lookup_host((target.host.as_str(), target.port)).await?.collect()) };
        let addresses: Vec<SocketAddr> =
            within(&format!("looking up {} failed", target.host), lookup).await?;
        let dns = begun.elapsed();
        let (stream, address, connect) = connect(&addresses).await?;
        stream.set_nodelay(true)?;
        let (stream, tls): (Box<dyn Stream>, _) = match target.tls {
            false => (Box::new(stream), None),
            true => {
                let begun = Instant::now();
                let name = ServerName::try_from(target.host.clone())?;
                let shake = async { Ok(trust.0.connect(name, stream).await?) };
                let stream = within("the TLS handshake failed", shake).await?;
                (Box::new(stream), Some(begun.elapsed()))
            }
        };
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends with the sender; what goes wrong on it, calls report.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { target: target.clone(), sender, steps: Steps { dns, connect, tls }, address })
    }

    /// Sends a call; returns when the head of the answer is there.
    pub(super) async fn send(
        &mut self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.target.prefix))
            .header(header::HOST, self.target.authority())
            .header(header::USER_AGENT, concat!("mychat-probe/", env!("CARGO_PKG_VERSION")))
            .header("MyChat-Client", "fetch");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let content = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(content))?;
        let answer = async {
            self.sender.ready().await?;
            Ok(self.sender.send_request(request).await?)
        };
        within(&format!("{path} was not answered"), answer).await
    }

    /// Sends a call and reads its whole answer, which must be a success.
    pub(super) async fn call(
        &mut self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let response = self.send(method.clone(), path, token, body).await?;
        let status = response.status();
        let content = within("an answer broke off", read(response)).await?;
        if !status.is_success() {
            bail!("{method} {path}: {}", refusal(status, &content));
        }
        Ok(serde_json::from_slice(&content).unwrap_or(Value::Null))
    }
}

async fn read(response: Response<Incoming>) -> anyhow::Result<Bytes> {
    let body = http_body_util::Limited::new(response.into_body(), LARGEST);
    let body = body.collect().await.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(body.to_bytes())
}

fn refusal(status: StatusCode, content: &[u8]) -> String {
    let problem: Value = serde_json::from_slice(content).unwrap_or_default();
    match problem["detail"].as_str() {
        Some(detail) => format!("{status}: {detail}"),
        None => status.to_string(),
    }
}

/// A connection to the first address that takes one, and how long that one took.
async fn connect(addresses: &[SocketAddr]) -> anyhow::Result<(TcpStream, SocketAddr, Duration)> {
    let mut last = anyhow::anyhow!("the name has no address");
    for address in addresses {
        let begun = Instant::now();
        let stream = async { Ok(TcpStream::connect(address).await?) };
        match within(&format!("connecting to {address} failed"), stream).await {
            Ok(stream) => return Ok((stream, *address, begun.elapsed())),
            Err(error) => last = error,
        }
    }
    Err(last)
}

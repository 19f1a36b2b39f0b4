//! A client's connection: plain, or with TLS to a proxy in front of a node.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections from one address to one server: the system has about 28,000 ports to give.
const PER_ADDRESS: usize = 16_000;
/// What a client that does not read has room for in the system, so that it really stalls.
const STALLED_BUFFER: usize = 4096;

/// An open connection, not blocking.
pub(super) enum Connection {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Connection {
    /// Begins a connection for the client of a number. On loopback clients come from several addresses, or the ports
    /// would run out.
    pub(super) fn open(
        to: SocketAddr,
        client: usize,
        stalls: bool,
        tls: Option<&Arc<ClientConfig>>,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if stalls {
            socket.set_recv_buffer_size(STALLED_BUFFER)?;
        }
        if let SocketAddr::V4(v4) = to
            && v4.ip().is_loopback()
            && client >= PER_ADDRESS
        {
            // It is below 250: there are no more than a million clients.
            let host = 1 + (client / PER_ADDRESS).min(250) as u8;
            socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0)).into())?;
        }
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        socket.set_tcp_nodelay(true)?;
        let tcp = TcpStream::from_std(socket.into());
        Ok(match tls {
            None => Self::Plain(tcp),
            Some(config) => {
                let name = ServerName::IpAddress(to.ip().into());
                let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                Self::Tls(Box::new(StreamOwned::new(session, tcp)))
            }
        })
    }

    /// The connection below.
    pub(super) fn tcp(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => &mut stream.sock,
        }
    }

    /// Sends a request, the first thing on the connection: at once, or with TLS as soon as there is a session.
    pub(super) fn ask(&mut self, request: &[u8]) -> io::Result<()> {
        match self {
            // It is small, and nothing has been written yet: it goes out in one piece or not at all.
            Self::Plain(tcp) => match tcp.write(request)? {
                length if length == request.len() => Ok(()),
                _ => Err(ErrorKind::WriteZero.into()),
            },
            Self::Tls(stream) => {
                stream.conn.writer().write_all(request)?;
                match stream.conn.complete_io(&mut stream.sock) {
                    Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
                    _ => Ok(()),
                }
            }
        }
    }

    /// Whether a short read leaves nothing behind: with TLS there may be more records.
    pub(super) const fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

impl Read for Connection {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(bytes),
            Self::Tls(stream) => stream.read(bytes),
        }
    }
}

/// TLS that takes any certificate: what is measured is this machine's own.
pub(super) fn any_certificate() -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Any(Arc<CryptoProvider>);

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

//! Whoever calls the controller as a sidecar does, or pretends to: raw HTTP/1.1 and frames over TLS, so that every byte can
//! be wrong.
//!
//! It owns one connection at a time and verifies the controller's certificate. It knows nothing of what a real sidecar would do next.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use ringside_api::sync::frames;
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring,
};

use crate::PATIENCE;

/// How TLS clients verify whoever shows a certificate of `ca_pem`, without HTTP/2.
///
/// # Panics
/// If it holds no certificates.
pub fn tls(ca_pem: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        let certificate = certificate.expect("certificates in PEM");
        roots
            .add(certificate)
            .expect("a certificate of an authority");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the versions of TLS that the provider has")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A connection to the controller.
#[derive(Debug)]
pub struct Caller(StreamOwned<ClientConnection, TcpStream>);

/// What it answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Such as 200.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// What follows.
    pub body: String,
}

impl Answer {
    /// The body, as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The sentence of a refusal; empty where it is none.
    pub fn why(&self) -> String {
        self.json()["why"].as_str().unwrap_or_default().to_owned()
    }
}

impl Caller {
    /// Connects, and shakes hands.
    ///
    /// # Errors
    /// No connection, or no trust.
    pub fn connect(address: SocketAddr, tls: &Arc<ClientConfig>) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        Self::over(stream, tls)
    }

    /// Shakes hands over a connection that is there.
    ///
    /// # Errors
    /// No trust, or the other end is gone.
    pub fn over(mut stream: TcpStream, tls: &Arc<ClientConfig>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::from(stream.peer_addr()?.ip());
        let mut connection =
            ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(Self(StreamOwned::new(connection, stream)))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.flush()
    }

    /// The next answer, whose length its head must tell.
    ///
    /// # Errors
    /// The connection ends before it is whole, or it is no HTTP.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let fail = || io::Error::other(format!("no HTTP: {head}"));
        let status = head.split_whitespace().nth(1);
        let status = status.and_then(|word| word.parse().ok()).ok_or_else(fail)?;
        let length = head.lines().find_map(|line| {
            let length = line.strip_prefix("content-length:")?;
            length.trim().parse::<usize>().ok()
        });
        let mut body = vec![0; length.unwrap_or(0)];
        self.0.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer { status, head, body })
    }

    /// Waits until the other end closes the connection, and returns what it still said.
    ///
    /// # Errors
    /// It does not close it.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            // Without TLS's own farewell, or by a reset because something of ours was not read.
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                Err(error)
            }
            _ => Ok(rest),
        }
    }

    /// A first call that asks for a line, and what is answered to that.
    ///
    /// # Errors
    /// As of [`call`](Self::call).
    pub fn upgrade(&mut self, token: Option<&str>, body: &str) -> io::Result<Answer> {
        self.send(upgrade(token, body, frames::PROTOCOL).as_bytes())?;
        self.answer()
    }

    /// Another call on a line, as whatever it may be.
    ///
    /// # Errors
    /// As of [`send`](Self::send).
    pub fn send_frame(&mut self, body: &[u8]) -> io::Result<()> {
        self.send(&frames::frame(&[body]))
    }

    /// The next reply on a line: its call's number, and what it says.
    ///
    /// # Errors
    /// The connection ends before it is whole, or it is no reply.
    pub fn reply(&mut self) -> io::Result<(u32, Answer)> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut frame)?;
        let reply = frames::Reply::decode(&frame).ok_or_else(|| io::Error::other("no reply"))?;
        let body = String::from_utf8_lossy(reply.body).into_owned();
        let (status, head) = (reply.status, String::new());
        Ok((reply.number, Answer { status, head, body }))
    }

    /// One call, and its answer.
    ///
    /// # Errors
    /// As of [`send`](Self::send) and [`answer`](Self::answer).
    pub fn call(&mut self, token: Option<&str>, body: &str) -> io::Result<Answer> {
        self.send(request("POST", "/v1/sync", token, body).as_bytes())?;
        self.answer()
    }
}

/// A request as text.
pub fn request(method: &str, path: &str, token: Option<&str>, body: &str) -> String {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n"));
    format!(
        "{method} {path} HTTP/1.1\r\nhost: ringside-controller\r\n{}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        token.unwrap_or_default(),
        body.len()
    )
}

/// A first call as text, which asks to go on in `protocol`.
pub fn upgrade(token: Option<&str>, body: &str, protocol: &str) -> String {
    let asks = format!("\r\nconnection: upgrade\r\nupgrade: {protocol}\r\ncontent-type");
    request("POST", "/v1/sync", token, body).replacen("\r\ncontent-type", &asks, 1)
}

/// The report of a pod's sidecar that takes connections and wants to be answered at once; `leave` is `Stays`, `Wants` or `Away`.
pub fn report(namespace: &str, name: &str, uid: &str, leave: &str) -> Value {
    json!({
        "pod": {"namespace": namespace, "name": name, "uid": uid}, "version": "test", "atOnce": true,
        "state": {"ready": leave != "Away", "reason": "a test says so", "leave": leave, "backend": "ring"},
    })
}

//! A connection that stops to speak HTTP: an answer with status 101, and then whatever whoever gave it does with the bytes.
//!
//! The connection's limits go on to hold: it has its place among the others, is let go when nothing is asked on it for too long, and has the
//! same time to end when the server does. It owns how a request's handler says what follows; what is said then is the handler's.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::calls::{Calls, OpenCall};

/// What is spoken after HTTP, until the connection is to be closed.
pub type Session = Pin<Box<dyn Future<Output = ()> + Send>>;

type Begin = Box<dyn FnOnce(TlsStream<TcpStream>, Activity) -> Session + Send>;

/// Among the extensions of a request over HTTP/1.1: says what follows an answer with status 101.
#[derive(Clone, Default)]
pub struct Takeover(Arc<Mutex<Option<Begin>>>);

impl fmt::Debug for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Takeover")
    }
}

impl Takeover {
    /// Has `begin` speak once the answer is sent.
    pub fn follow_with(
        &self,
        begin: impl FnOnce(TlsStream<TcpStream>, Activity) -> Session + Send + 'static,
    ) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(begin));
    }

    pub(super) fn take(&self) -> Option<Begin> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Tells whether something is asked on the connection.
#[derive(Debug)]
pub struct Activity(pub(super) Arc<Calls>);

impl Activity {
    /// Something is asked, for as long as what is returned lives.
    pub fn begin(&self) -> OpenCall {
        Calls::begin(&self.0)
    }
}

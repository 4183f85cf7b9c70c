//! One client's requests: a connection, tried for until there is one, and what becomes of a request on it. Only connecting is tried again;
//! whatever fails on a connection that was there is a failure. It owns the counts' meaning, and no pace.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONNECTION, HOST};
use hyper_util::rt::TokioIo;
use ringside_e2e::story::report::{Group, unix_ms};
use tokio::net::TcpStream;

/// How long one attempt to connect may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);

/// Between two attempts.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// How long a client tries to connect before that is a failure.
const CONNECT_FOR: Duration = Duration::from_secs(60);

/// What a client knows of the place that it asks.
#[derive(Clone)]
pub(crate) struct Asker {
    pub(crate) target: String,
    /// How long an answer, or the next piece of a stream, may take.
    pub(crate) patience: Duration,
    pub(crate) seen: Arc<Mutex<Group>>,
}

pub(crate) type Connection = SendRequest<Empty<Bytes>>;

impl Asker {
    pub(crate) fn count(&self, count: impl FnOnce(&mut Group)) {
        count(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn failed(&self, began_ms: u64, reason: String) {
        self.count(|group| group.failure(began_ms, reason));
    }

    /// A connection, tried for a minute; `None` is a failure that was counted.
    pub(crate) async fn connect(&self) -> Option<Connection> {
        let (began_ms, begin) = (unix_ms(), Instant::now());
        loop {
            let attempt = tokio::time::timeout(CONNECT_PATIENCE, TcpStream::connect(&self.target));
            let error = match attempt.await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    match http1::handshake(TokioIo::new(stream)).await {
                        Ok((sender, connection)) => {
                            tokio::spawn(connection);
                            self.count(|group| group.connections += 1);
                            return Some(sender);
                        }
                        Err(error) => error.to_string(),
                    }
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no connection within {CONNECT_PATIENCE:?}"),
            };
            if begin.elapsed() > CONNECT_FOR {
                self.failed(began_ms, format!("connecting: {error}"));
                return None;
            }
            self.count(|group| group.connect_retries += 1);
            tokio::time::sleep(CONNECT_PAUSE).await;
        }
    }

    /// One request on `kept`, or on a new connection, which is left there if it can be used again. Whether it was answered.
    pub(crate) async fn ask(&self, kept: &mut Option<Connection>, closes: bool) -> bool {
        loop {
            let began_ms = unix_ms();
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => match self.connect().await {
                    Some(connection) => connection,
                    None => return false,
                },
            };
            // The server has closed it meanwhile: nothing was sent on it.
            if connection.ready().await.is_err() {
                continue;
            }
            let exchange = async {
                let response = connection.send_request(self.request("/", closes)).await?;
                let body = response.into_body().collect().await?.to_bytes();
                Ok::<_, hyper::Error>(body)
            };
            match tokio::time::timeout(self.patience, exchange).await {
                Ok(Ok(body)) => {
                    let pod = String::from_utf8_lossy(&body).trim().to_owned();
                    let took = unix_ms().saturating_sub(began_ms);
                    self.count(|group| group.answer(&pod, took));
                    *kept = (!closes).then_some(connection);
                    return true;
                }
                // The same, a moment later: hyper has given the request back unsent.
                Ok(Err(error)) if error.is_canceled() => {}
                Ok(Err(error)) => {
                    self.failed(began_ms, told(&error));
                    return false;
                }
                Err(_) => {
                    self.failed(began_ms, format!("no answer within {:?}", self.patience));
                    return false;
                }
            }
        }
    }

    /// Holds one stream until it ends.
    pub(crate) async fn hold(&self) {
        let Some(mut connection) = self.connect().await else {
            return;
        };
        let began_ms = unix_ms();
        let request = self.request("/stream", false);
        let head = tokio::time::timeout(self.patience, connection.send_request(request)).await;
        let mut body = match head {
            Ok(Ok(response)) => response.into_body(),
            Ok(Err(error)) => return self.failed(began_ms, told(&error)),
            Err(_) => return self.failed(began_ms, "no stream came".to_owned()),
        };
        let mut pod = String::new();
        let ended = loop {
            let last = Instant::now();
            let piece = match tokio::time::timeout(self.patience, body.frame()).await {
                Err(_) => break Err(format!("no piece within {:?}", self.patience)),
                Ok(None) => break Ok(()),
                Ok(Some(Err(error))) => break Err(told(&error)),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            let text = String::from_utf8_lossy(&piece);
            let name = text.lines().next().unwrap_or_default();
            self.count(|group| {
                if pod.is_empty() {
                    name.clone_into(&mut pod);
                    *group.streams_open.entry(pod.clone()).or_default() += 1;
                }
                group.answer(&pod, last.elapsed().as_millis() as u64);
            });
        };
        self.count(|group| {
            if let Some(open) = group.streams_open.get_mut(&pod) {
                *open -= 1;
            }
            match ended {
                Ok(()) => group.streams_ended += 1,
                Err(reason) => group.failure(began_ms, format!("stream of {pod}: {reason}")),
            }
        });
    }

    fn request(&self, path: &str, closes: bool) -> Request<Empty<Bytes>> {
        let mut request = Request::builder().uri(path).header(HOST, &self.target);
        if closes {
            request = request.header(CONNECTION, "close");
        }
        let request = request.body(Empty::new());
        request.expect("a target that is a host's name and a port")
    }
}

/// An error with what caused it.
fn told(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

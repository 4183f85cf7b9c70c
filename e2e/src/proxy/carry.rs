//! The proxy's thread: connections are taken, requests passed on or not, answers passed back.
//!
//! It does what faults say and remembers what came by; it decides nothing.

use std::fmt;
use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use kube::config::AuthInfo;
use kube::{Client, Config};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Fault, Orders, Seen, State, fault};
use crate::apiserver::Identity;

/// The API server takes 3 MiB.
const MAX_REQUEST_BYTES: usize = 16 << 20;

/// TLS with the proxy's own certificate; without HTTP/2, so that a connection cut is a request cut.
pub(super) fn tls(identity: &Identity) -> TlsAcceptor {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.serialize_der()));
    let chain = vec![identity.certificate.der().clone()];
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the versions of TLS that the provider has")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate with its key");
    TlsAcceptor::from(Arc::new(config))
}

/// The two ways to the API server.
#[derive(Clone)]
struct Upstream {
    /// As whoever may do everything.
    admin: Client,
    /// The header of who may have that.
    admin_header: HeaderValue,
    /// As nobody: what is passed on says who it is.
    bare: Client,
}

/// Runs until nobody can give orders any more; what is open ends with the runtime.
pub(super) fn serve(
    listener: std::net::TcpListener,
    tls: TlsAcceptor,
    config: &Config,
    token: &str,
    state: Arc<State>,
    mut orders: watch::Receiver<Orders>,
) {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime for the proxy");
    let admin_header = HeaderValue::from_str(&format!("Bearer {token}"));
    let admin_header = admin_header.expect("a token of letters and digits");
    runtime.block_on(async move {
        let mut config = config.clone();
        let admin = Client::try_from(config.clone()).expect("a client of a good configuration");
        config.auth_info = AuthInfo::default();
        let bare = Client::try_from(config).expect("a client of a good configuration");
        let upstream = Upstream {
            admin,
            admin_header,
            bare,
        };
        let listener = TcpListener::from_std(listener).expect("a listener for the runtime");
        loop {
            tokio::select! {
                changed = orders.changed() => if changed.is_err() { return },
                accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                    let tls = tls.clone();
                    tokio::spawn(connection(stream, tls, upstream.clone(), Arc::clone(&state), orders.clone()));
                },
            }
        }
    });
}

/// One connection, to its end or until it is cut.
async fn connection(
    stream: TcpStream,
    tls: TlsAcceptor,
    upstream: Upstream,
    state: Arc<State>,
    mut orders: watch::Receiver<Orders>,
) {
    let begun = orders.borrow().cuts;
    let waiting = orders.clone();
    let served = async move {
        let stream = tls.accept(stream).await.map_err(|_| ())?;
        let service = service_fn(move |request| {
            answer(
                request,
                upstream.clone(),
                Arc::clone(&state),
                waiting.clone(),
            )
        });
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await
            .map_err(|_| ())
    };
    tokio::select! {
        biased;
        // An error here is the proxy's end.
        _ = orders.wait_for(|now| now.cuts != begun) => {}
        // Why a connection failed is its client's to know.
        _ = served => {}
    }
}

/// One request. An error ends its connection without an answer.
async fn answer(
    request: Request<Incoming>,
    upstream: Upstream,
    state: Arc<State>,
    mut orders: watch::Receiver<Orders>,
) -> Result<Response<Body>, Cut> {
    let lifted = orders.borrow().lifted;
    let mut seen = Seen {
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        is_watch: is_watch(request.uri().query().unwrap_or_default()),
        status: None,
    };
    let fault = state.next_fault(&seen);
    let answer = match fault {
        Some(Fault::Answer(status)) => Ok(fault::answer(status)),
        Some(Fault::ExpireWatch) => Ok(fault::expired_watch()),
        Some(Fault::Cut) => Err(Cut),
        Some(Fault::LoseAnswer) => {
            pass_on(request, &upstream).await;
            Err(Cut)
        }
        Some(Fault::Delay(time)) => {
            tokio::time::sleep(time).await;
            Ok(pass_on(request, &upstream).await)
        }
        Some(Fault::Hang) => {
            let on = orders.wait_for(|now| now.lifted != lifted).await;
            on.map_err(|_| Cut)?;
            Ok(pass_on(request, &upstream).await)
        }
        None => Ok(pass_on(request, &upstream).await),
    };
    seen.status = answer.as_ref().ok().map(Response::status);
    state.remember(seen);
    answer
}

/// Whether what is asked for is a watch.
fn is_watch(query: &str) -> bool {
    query
        .split('&')
        .any(|word| matches!(word, "watch" | "watch=1" | "watch=true"))
}

/// What the API server says; a failure on the way there is an answer as well, as of any gateway.
async fn pass_on(request: Request<Incoming>, upstream: &Upstream) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_REQUEST_BYTES).collect().await else {
        return fault::answer(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let body: Bytes = body.to_bytes();
    for header in [HOST, CONNECTION, TRANSFER_ENCODING] {
        head.headers.remove(header);
    }
    let client = if head.headers.get(AUTHORIZATION) == Some(&upstream.admin_header) {
        head.headers.remove(AUTHORIZATION);
        &upstream.admin
    } else {
        &upstream.bare
    };
    let request = Request::from_parts(head, Body::from(body));
    // The connection may have been closed by a server that restarts: one that could not be begun is begun again by
    // whoever asked.
    match client.send(request).await {
        Ok(mut response) => {
            for header in [CONNECTION, TRANSFER_ENCODING] {
                response.headers_mut().remove(header);
            }
            response
        }
        Err(_) => fault::answer(StatusCode::BAD_GATEWAY),
    }
}

/// The connection ends here.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("cut on command")
    }
}

impl std::error::Error for Cut {}

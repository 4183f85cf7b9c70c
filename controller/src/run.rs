//! The controller at work: every part of it started, joined, and ended together.
//!
//! It owns the order of start and end. A replica answers admission and serves certificates whether it leads or not; what speaks for the
//! whole, sidecars' calls and statuses, is the leader's.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use axum::http::StatusCode;
use axum::{Json, Router};
use kube::Client;
use ringside_api::plain;
use ringside_api::sync::{HOLD_MILLIS, Refusal, fingerprint_of_trust};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admission;
use crate::certificates::{Handle, Keeper, Managed, Setup, Terms, Webhooks};
use crate::fleet::Fleet;
use crate::http::{self, Sources};
use crate::inject::Injection;
use crate::leader::{self, Candidate, Leadership};
use crate::listen::listen;
use crate::live::Live;
use crate::observe::{self, Seen};
use crate::serve::{Limits, Server};
use crate::status::uninjected::Uninjected;
use crate::status::writer::{Writer, Written};
use crate::sync::identity::Identities;
use crate::sync::{self, Sync, Trust};

/// How often it is looked for a first certificate, if nobody tells of one.
const CERTIFICATE_LOOK: Duration = Duration::from_millis(250);

/// How often it is looked for pods that have fallen silent.
const SILENCE_LOOKED_FOR_EVERY: Duration = Duration::from_secs(1);

/// Of a path that is not there so much is repeated.
const PATH_CHARACTERS_TOLD: usize = 100;

/// What a replica is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where sidecars and API servers are answered, by TLS.
    pub listen: SocketAddr,
    /// Where kubelets, Prometheus and people are answered.
    pub http: SocketAddr,
    /// The namespace of the release: of the lease and of the certificates' Secret.
    pub namespace: String,
    /// The Service's name: the certificate's, and that of the lease.
    pub service: String,
    /// This replica's name, such as its pod's.
    pub identity: String,
    /// Where other replicas send sidecars while this one leads, `IP:port`; the TLS listener's own where it is left out.
    pub address: Option<SocketAddr>,
    /// The Secret of the certificates.
    pub secret: String,
    /// Who makes them.
    pub managed: Managed,
    /// Names and addresses besides the Service's that the certificate is for.
    pub names: Vec<String>,
    /// Both webhook configurations' name; empty for none.
    pub webhooks: String,
    /// What pods get.
    pub injection: Injection,
    /// For how long it goes on answering webhooks once it is to end, and leads no more: API servers may be sent to it still.
    pub linger: Duration,
}

/// Where a replica answers, once it does.
#[derive(Clone, Copy, Debug)]
pub struct Listening {
    /// Sidecars and API servers.
    pub tls: SocketAddr,
    /// Everybody else.
    pub http: SocketAddr,
}

/// Runs a replica until `stop`.
///
/// # Errors
/// It cannot listen, or a part of it ended, which none should.
pub async fn run(
    client: Client,
    options: Options,
    stop: watch::Receiver<bool>,
    listening: impl FnOnce(Listening),
) -> anyhow::Result<()> {
    let tls = listen(options.listen, "sidecars and webhooks")?;
    let plain = listen(options.http, "probes and metrics")?;
    let address = options.address.unwrap_or(tls.local_addr()?);
    listening(Listening {
        tls: tls.local_addr()?,
        http: plain.local_addr()?,
    });

    let (leadership, led) = watch::channel(Leadership::Follows { leader: None });
    let (known, leadership_known) = watch::channel(Leadership::Follows { leader: None });
    let (leads, is_leading) = watch::channel(false);
    let (trust, trusted) = watch::channel(Trust::default());
    let terms = Terms::for_service(&options.service, &options.namespace, &options.names)?;
    let names = Some(options.webhooks.clone()).filter(|name| !name.is_empty());
    let setup = Setup {
        namespace: options.namespace.clone(),
        secret: options.secret.clone(),
        managed: options.managed,
        terms,
        webhooks: Webhooks {
            mutating: names.clone().into_iter().collect(),
            validating: names.into_iter().collect(),
        },
    };
    let (keeper, certificates) = Keeper::new(client.clone(), setup, is_leading);
    let fleet = Fleet::new(session(), Duration::from_millis(HOLD_MILLIS));
    let identities = Identities::new(client.clone());
    let sync = Arc::new(Sync::new(fleet, identities, leadership_known, trusted));
    let live = Arc::new(Live::new(sync.clone(), options.injection.clone()));
    let (seen, written) = (Arc::new(Seen::default()), Arc::new(Written::default()));
    let router = Router::new()
        .merge(sync::router(sync.clone()))
        .merge(admission::router(live.clone()))
        .fallback(nothing_here)
        .method_not_allowed_fallback(another_method);
    let server = Server::new(router, certificates.resolver(), Limits::default());
    let sources = Sources {
        sync: sync.clone(),
        seen: seen.clone(),
        written: written.clone(),
        live: live.clone(),
        certificates: certificates.clone(),
        served: server.counts(),
    };

    let mut parts = JoinSet::new();
    parts.spawn(keeper.run(stop.clone()));
    let (close, closes) = watch::channel(false);
    parts.spawn(serve_tls(
        server,
        tls,
        certificates.clone(),
        stop.clone(),
        closes.clone(),
    ));
    parts.spawn(serve_plain(plain, http::router(sources), closes));
    parts.spawn(observe::policies(
        client.clone(),
        sync.clone(),
        seen.clone(),
    ));
    parts.spawn(observe::cluster_policy(
        client.clone(),
        sync.clone(),
        seen.clone(),
    ));
    let uninjected = Arc::new(Mutex::new(Uninjected::default()));
    parts.spawn(observe::pods(
        client.clone(),
        sync.clone(),
        seen.clone(),
        uninjected.clone(),
        options.namespace.clone(),
    ));
    parts.spawn(follow_leadership(led, leads, known, sync.clone()));
    parts.spawn(follow_trust(certificates.changed(), trust, live));
    parts.spawn(look_for_silence(sync.clone()));
    parts.spawn(Writer::new(client.clone(), sync, uninjected, &options.identity, written).run());
    let candidate = Candidate {
        namespace: options.namespace,
        lease: options.service,
        identity: options.identity,
        address: address.to_string(),
    };
    // Last, and ended first, so that another replica leads while this one still answers what is open.
    let (stops, mut stopped_early) = (stop.clone(), stop.clone());
    let election = tokio::spawn(async move {
        // Who does not know all pods and policies would take a limit for another one.
        tokio::select! {
            () = seen.everything() => {}
            _ = stopped_early.wait_for(|stop| *stop) => return,
        }
        leader::run(client, candidate, leadership, stops).await;
    });

    let mut stopped = stop.clone();
    tokio::select! {
        _ = stopped.wait_for(|stop| *stop) => {}
        Some(ended) = parts.join_next() => {
            ended.context("a part of the controller panicked")?;
            // One that has been told to may be gone before this here is told.
            if !*stop.borrow() {
                anyhow::bail!("a part of the controller ended, which none should");
            }
        }
    }
    election.await.context("the election panicked")?;
    // A pod that would be made while nobody answers would have no relay. Sidecars are told that it does not lead, and go elsewhere.
    tokio::time::sleep(options.linger).await;
    close.send_replace(true);
    tokio::time::sleep(Duration::from_millis(100)).await;
    parts.shutdown().await;
    Ok(())
}

/// A number for a leadership: any but 0.
fn session() -> u64 {
    fastrand::u64(1..)
}

/// Once there is a certificate to show: without one sidecars would take it for somebody else. Until then they wait in the backlog.
async fn serve_tls(
    server: Server,
    listener: TcpListener,
    certificates: Handle,
    leaves: watch::Receiver<bool>,
    stop: watch::Receiver<bool>,
) {
    let mut changed = certificates.changed();
    while !certificates.is_ready() && !*stop.borrow() {
        let _ = tokio::time::timeout(CERTIFICATE_LOOK, changed.changed()).await;
    }
    server.serve(listener, leaves, stop).await;
}

/// As bounded as the port beside it: whoever opens connections and is silent keeps nobody from being answered, and takes no descriptors from it.
async fn serve_plain(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        () = plain::accept(listener, "the listener of probes and metrics", router, || ()) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

async fn nothing_here(uri: axum::http::Uri) -> (StatusCode, Json<Refusal>) {
    let path: String = uri.path().chars().take(PATH_CHARACTERS_TOLD).collect();
    let why = format!(
        "there is nothing at {path}: sidecars POST to {}, API servers to {} and {}",
        ringside_api::sync::PATH,
        admission::INJECT_PATH,
        admission::VALIDATE_PATH
    );
    let refusal = Refusal { why, leader: None };
    (StatusCode::NOT_FOUND, Json(refusal))
}

async fn another_method() -> (StatusCode, Json<Refusal>) {
    let why = "only POST is answered here".to_owned();
    let refusal = Refusal { why, leader: None };
    (StatusCode::METHOD_NOT_ALLOWED, Json(refusal))
}

/// A new leadership begins with nothing known of sidecars, and calls are taken after that: those that waited for a leader all come in the
/// moment in which there is one, and what they said would be forgotten again.
async fn follow_leadership(
    mut led: watch::Receiver<Leadership>,
    leads: watch::Sender<bool>,
    known: watch::Sender<Leadership>,
    sync: Arc<Sync>,
) {
    loop {
        let leadership = led.borrow_and_update().clone();
        let is_leading = leadership == Leadership::Leads;
        if is_leading && !*leads.borrow() {
            let now = sync.now();
            sync.fleet().lead(session(), now);
        }
        leads.send_if_modified(|was| std::mem::replace(was, is_leading) != is_leading);
        known.send_replace(leadership);
        if led.changed().await.is_err() {
            // Nobody renews the lease any more, for whatever reason: another one may lead.
            leads.send_replace(false);
            known.send_replace(Leadership::Follows { leader: None });
            return std::future::pending().await;
        }
    }
}

/// What pods and sidecars are told to trust follows the certificates.
async fn follow_trust(
    mut certificates: watch::Receiver<crate::certificates::Trusted>,
    trust: watch::Sender<Trust>,
    live: Arc<Live>,
) {
    loop {
        let pem = certificates.borrow_and_update().ca_bundle.to_string();
        live.trust(&pem);
        trust.send_replace(Trust {
            fingerprint: fingerprint_of_trust(&pem),
            pem,
        });
        if certificates.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn look_for_silence(sync: Arc<Sync>) {
    loop {
        tokio::time::sleep(SILENCE_LOOKED_FOR_EVERY).await;
        let now = sync.now();
        sync.fleet().expire(now);
    }
}

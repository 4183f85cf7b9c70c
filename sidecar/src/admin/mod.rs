//! The admin listener: probes, metrics, status, configuration, drain, log level and the live page.
//!
//! It runs on the thread that owns no ring and reads what workers publish, so that it answers also while they are
//! stalled. It never asks a worker anything, and it bounds what its own clients can cost.

pub mod ask;
mod config;
mod controller;
mod drain;
pub mod history;
mod log_level;
mod metrics;
mod origin;
mod page;
mod probes;
mod status;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{get, post, put};

use ringside_api::plain;

use crate::backend::listen;
use crate::process::State;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 128;

/// The most bytes of a request's body.
const BODY_BYTES_MAX: usize = 4096;

/// Takes the admin listener's port.
///
/// # Errors
/// The address cannot be listened on.
pub fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = listen::plain(address, BACKLOG).map_err(|error| {
        anyhow!("the admin listener cannot listen on {address}: {error}; choose another address with --admin IP:PORT, or --admin off")
    })?;
    listener
        .set_nonblocking(true)
        .context("the admin listener cannot be made non-blocking")?;
    Ok(listener)
}

/// Serves on the runtime of the calling thread until that ends.
///
/// # Errors
/// The listener cannot be registered with the runtime.
pub fn serve(listener: TcpListener, state: Arc<State>) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)
        .context("the admin listener cannot be registered")?;
    let router = router(state.clone())?;
    let hold = move || Descriptor::of(&state);
    tokio::spawn(plain::accept(listener, "the admin listener", router, hold));
    Ok(())
}

/// A descriptor that counts towards the process's limit for as long as this lives. Those that the listener has in reserve are part of what
/// `accept.descriptorReserve` keeps back, and so not counted beside it.
struct Descriptor(Arc<State>);

impl Descriptor {
    fn of(state: &Arc<State>) -> Self {
        state.team.shared().count_descriptors(1);
        Descriptor(state.clone())
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.0.team.shared().count_descriptors(-1);
    }
}

fn router(state: Arc<State>) -> anyhow::Result<Router> {
    let metrics = metrics::Exporter::new(state.clone()).context("metrics cannot be set up")?;
    Ok(Router::new()
        .route("/", get(page::page))
        .route("/livez", get(probes::livez))
        .route("/readyz", get(probes::readyz))
        .route("/startupz", get(probes::startupz))
        .route("/statusz", get(status::statusz))
        .route("/history", get(history::history))
        .route("/config", get(config::config))
        .route("/drain", post(drain::drain))
        .route("/log-level", put(log_level::put).get(log_level::get))
        .route("/metrics", get(move || async move { metrics.text() }))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(axum::middleware::from_fn(origin::refuse_other_sites))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(state))
}

async fn unknown() -> (StatusCode, &'static str) {
    (
        StatusCode::NOT_FOUND,
        "there is nothing here; there are /, /livez, /readyz, /startupz, /statusz, /history, /metrics, /config, POST /drain and PUT /log-level\n",
    )
}

async fn wrong_method() -> (StatusCode, &'static str) {
    (
        StatusCode::METHOD_NOT_ALLOWED,
        "this takes another method: POST /drain, PUT /log-level, and GET for everything else\n",
    )
}

//! Clients at a pace, in groups that behave alike, and what they saw as JSON on a port, at any time. It owns paces and groups; what becomes of a
//! request is `asking`'s.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use ringside_e2e::story::report::{Group, Report};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::asking::Asker;
use crate::number;

/// How a client uses connections.
#[derive(Clone, Copy)]
enum Mode {
    /// Keeps one for as long as it can.
    Keep,
    /// One for each request.
    Each,
    /// One stream on one connection, for as long as it lasts.
    Held,
}

pub(crate) async fn load(port: &str, target: &str, groups: &[&str]) -> Result<(), String> {
    let port: u16 = number(port)?;
    let mut seen: BTreeMap<String, Arc<Mutex<Group>>> = BTreeMap::new();
    for group in groups {
        let (name, mode, clients, pause, patience) = read(group)?;
        let asker = Asker {
            target: target.to_owned(),
            patience,
            seen: Arc::default(),
        };
        seen.insert(name, Arc::clone(&asker.seen));
        for client in 0..clients {
            // Not all at the same moment.
            let wait = pause * client / clients;
            tokio::spawn(go_on(asker.clone(), mode, pause, wait));
        }
    }
    let listener = TcpListener::bind(("0.0.0.0", port)).await;
    let listener = listener.map_err(|error| format!("cannot listen at {port}: {error}"))?;
    println!("load on {target}; the report is at {port}");
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| format!("no SIGTERM: {error}"))?;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = terminate.recv() => break,
        };
        let Ok((stream, _)) = accepted else { continue };
        let text = report(&seen);
        tokio::spawn(async move {
            let answering = service_fn(move |_: Request<_>| {
                let body = Full::new(Bytes::from(text.clone()));
                async { Ok::<_, Infallible>(Response::new(body)) }
            });
            // Whoever asked and went away has no one to tell.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answering)
                .await;
        });
    }
    println!("{}", report(&seen));
    Ok(())
}

pub(crate) async fn ask(target: &str, requests: &str, pause: &str) -> Result<(), String> {
    let requests: u64 = number(requests)?;
    let pause = Duration::from_millis(number(pause)?);
    let asker = Asker {
        target: target.to_owned(),
        patience: Duration::from_secs(10),
        seen: Arc::default(),
    };
    for _ in 0..requests {
        asker.ask(&mut None, true).await;
        tokio::time::sleep(pause).await;
    }
    let group = asker.seen.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{} of {requests} answered: {:?}", group.answered, *group);
    if group.answered == requests {
        Ok(())
    } else {
        Err("not all were answered".to_owned())
    }
}

async fn go_on(asker: Asker, mode: Mode, pause: Duration, wait: Duration) {
    tokio::time::sleep(wait).await;
    let mut kept = None;
    loop {
        match mode {
            Mode::Keep => drop(asker.ask(&mut kept, false).await),
            Mode::Each => drop(asker.ask(&mut None, true).await),
            Mode::Held => asker.hold().await,
        }
        tokio::time::sleep(pause).await;
    }
}

/// `NAME=MODE:CLIENTS:PAUSE_MS:PATIENCE_MS`.
fn read(group: &str) -> Result<(String, Mode, u32, Duration, Duration), String> {
    let wrong =
        || format!("`{group}` is no group: NAME=keep|each|held:CLIENTS:PAUSE_MS:PATIENCE_MS");
    let (name, rest) = group.split_once('=').ok_or_else(wrong)?;
    let words: Vec<&str> = rest.split(':').collect();
    let [mode, clients, pause, patience] = words[..] else {
        return Err(wrong());
    };
    let mode = match mode {
        "keep" => Mode::Keep,
        "each" => Mode::Each,
        "held" => Mode::Held,
        _ => return Err(wrong()),
    };
    Ok((
        name.to_owned(),
        mode,
        number::<u32>(clients)?.max(1),
        Duration::from_millis(number(pause)?),
        Duration::from_millis(number(patience)?),
    ))
}

fn report(seen: &BTreeMap<String, Arc<Mutex<Group>>>) -> String {
    let groups = seen.iter().map(|(name, group)| {
        let group = group.lock().unwrap_or_else(PoisonError::into_inner);
        (name.clone(), group.clone())
    });
    let report = Report(groups.collect());
    serde_json::to_string(&report).unwrap_or_else(|error| format!("no report: {error}"))
}

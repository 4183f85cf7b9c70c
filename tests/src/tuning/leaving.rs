//! Trials of a drain: what becomes of connections that are open, and of those that still come.

use std::thread;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;

use super::{Area, Side, Trial};
use crate::relay::Relay;
use crate::traffic::{Pattern, Server, Stream, echo};

pub(super) const AREA: Area = Area {
    name: "When the pod ends",
    trials: &[
        Trial {
            symptom: "connections are cut when pods end",
            look: "`ringside_connections_closed_total{reason=\"drain_limit\"}`",
            before: "timeouts: {drain: 1s}",
            after: "timeouts: {drain: 5s}",
            figures: &["cut short, of 20 that need 2 s more"],
            measure: drain,
        },
        Trial {
            symptom: "connections are refused in a rollout",
            look: "clients' errors; kube-proxy follows within about a second",
            before: "timeouts: {drainNotice: 0s}",
            after: "timeouts: {drainNotice: 1s}",
            figures: &["refused, of 50 that come within 0.5 s of the drain's begin"],
            measure: newcomers,
        },
    ],
};

const UP: Pattern = Pattern::new(4);

fn server() -> Server {
    Server::local(|stream, number| echo(stream, number).or(Ok(())))
}

fn begin_drain(relay: &Relay) -> anyhow::Result<()> {
    let answer = relay.admin("POST", "/drain")?;
    ensure!(answer.status < 300, "{answer:?}");
    Ok(())
}

fn drain(side: &Side) -> anyhow::Result<Vec<f64>> {
    let server = server();
    let side = side
        .clone()
        .over(json!({"timeouts": {"drainNotice": "0s"}}));
    let mut relay = side.setup(&server.target()).start();
    let streams: Vec<Stream> = (0..20).map(|_| relay.connect()).collect();
    for stream in &streams {
        stream.ping(UP, 0, 10)?;
    }
    begin_drain(&relay)?;
    thread::sleep(Duration::from_secs(2));
    let is_whole = |stream: &Stream| {
        let ends = stream.ping(UP, 10, 20).is_ok() && stream.finish().is_ok();
        ends && stream.receive_end(20).is_ok()
    };
    let cut = streams.iter().filter(|stream| !is_whole(stream)).count();
    relay.process_mut().await_end();
    Ok(vec![cut as f64])
}

fn newcomers(side: &Side) -> anyhow::Result<Vec<f64>> {
    let server = server();
    let relay = side.setup(&server.target()).start();
    // One stays, so that the process does.
    let stays = relay.connect();
    stays.ping(UP, 0, 10)?;
    let address = relay.address();
    begin_drain(&relay)?;
    let mut refused = 0.0;
    for _ in 0..50 {
        let answered = Stream::connect(address).is_ok_and(|stream| stream.ping(UP, 0, 10).is_ok());
        refused += f64::from(u8::from(!answered));
        thread::sleep(Duration::from_millis(10));
    }
    drop(stays);
    Ok(vec![refused])
}

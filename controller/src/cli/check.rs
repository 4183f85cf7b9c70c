//! `ringside-controller check`: whether a controller answers as the API server needs it to. It owns the flags, the waiting and the sentence.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use ringside_controller::check::{self, Whom};

/// How long it waits between two questions.
const PAUSE: Duration = Duration::from_secs(1);

/// Ask a controller to inject a pod, over TLS as the API server does, and judge its answer
///
/// Nothing comes of it in the cluster. `helm test` runs this in a pod.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The controller, by the name that its certificate is for
    #[arg(
        long,
        value_name = "NAME:PORT",
        default_value = "ringside-controller.ringside.svc:443",
        value_parser = super::inject::name_and_port
    )]
    controller: (String, u16),

    /// Where to connect, so that no DNS is needed [default: the name is resolved]
    #[arg(long, value_name = "IP:PORT")]
    address: Option<SocketAddr>,

    /// The certificates to trust it by, in PEM
    #[arg(long, value_name = "FILE")]
    ca_file: PathBuf,

    /// For how long it is asked again, in seconds, while it does not answer well
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let (name, port) = &arguments.controller;
    let whom = Whom {
        name: name.clone(),
        port: *port,
        address: arguments.address,
        ca_pem: super::inject::certificates(&arguments.ca_file)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    let begin = Instant::now();
    let answered = runtime.block_on(async {
        loop {
            let failure = match check::ask(&whom).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if begin.elapsed() >= Duration::from_secs(arguments.wait) {
                return Err(failure);
            }
            eprintln!("ringside-controller: {failure}; once more in {PAUSE:?}");
            tokio::time::sleep(PAUSE).await;
        }
    })?;
    println!("{name}:{port} answers: it would inject {}", answered.image);
    Ok(())
}

//! `ringside-controller inject`: sidecars into manifests, offline. It owns the flags, and reads and writes the text.

use std::fs;
use std::io::{Read, Write, stderr, stdin, stdout};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ringside_api::Layers;
use ringside_api::sync::Assigned;
use ringside_controller::inject::{Controller, Injection, Unlabelled, manifest};

use super::sidecar::Sidecar;

/// Put sidecars into manifests, as the webhook would: what comes out is for kubectl apply -f -
///
/// Takes YAML or JSON with any number of documents: Pods, PodTemplates, Deployments, ReplicaSets, StatefulSets, DaemonSets,
/// ReplicationControllers, Jobs, CronJobs and Lists of them. Everything else comes out as it went in, byte for byte; what gets a
/// sidecar loses its comments, save those at its top. A template that has a sidecar is left alone, so injecting twice changes
/// nothing. Warnings go to standard error.
///
/// Naming a file is asking for it: templates get a sidecar, and the label ringside.dev/inject: enabled, also where they do not
/// have that label. Where the label says anything else, they do not. The sidecar is a native one, which needs Kubernetes
/// 1.29 or later.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  ringside-controller inject -f deployment.yaml | kubectl apply -f -\n  \
kubectl get deployment web -o yaml | ringside-controller inject -f - | kubectl apply -f -"
)]
pub(super) struct Arguments {
    /// The manifest; - is standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,

    /// Leave templates without the label ringside.dev/inject: enabled alone, as the webhook does
    #[arg(long)]
    only_labelled: bool,

    /// The controller, by the name that its certificate is for; without it sidecars are on their own
    #[arg(long, value_name = "NAME:PORT", requires = "controller_ca", value_parser = name_and_port)]
    controller: Option<(String, u16)>,

    /// Where to connect to the controller, so that no DNS is needed
    #[arg(long, value_name = "IP:PORT", requires = "controller")]
    controller_address: Option<SocketAddr>,

    /// The certificates to trust the controller by, in PEM
    #[arg(long, value_name = "FILE", requires = "controller")]
    controller_ca: Option<PathBuf>,

    #[command(flatten)]
    sidecar: Sidecar,
}

pub(super) fn name_and_port(given: &str) -> Result<(String, u16), String> {
    let parts = given.rsplit_once(':');
    let known = parts.and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)));
    match known {
        Some((name, port)) if port > 0 && !name.is_empty() && !name.contains(['/', ':']) => {
            Ok((name.to_owned(), port))
        }
        _ => Err("write NAME:PORT, such as ringside-controller.ringside.svc:443".to_owned()),
    }
}

/// Reads, injects, writes.
pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let text = read(&arguments.file)?;
    let injection = injection(&arguments)?;
    injection.check()?;
    // What policies assign, nobody knows here: the sidecar hears of it from its controller.
    let layers = Layers::default();
    let assigned = Assigned {
        hash: layers.hash(),
        policy: String::new(),
        layers,
    };
    let name = arguments.file.display();
    let manifest =
        manifest::inject_all(&text, &injection, &assigned).with_context(|| name.to_string())?;
    for warning in &manifest.warnings {
        // Whether anybody reads them is not this command's to fail for.
        let _ = writeln!(stderr(), "warning: {warning}");
    }
    stdout()
        .write_all(manifest.text.as_bytes())
        .context("the manifest could not be written")
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        stdin()
            .read_to_string(&mut text)
            .context("standard input could not be read")?;
        return Ok(text);
    }
    fs::read_to_string(file).with_context(|| format!("{} could not be read", file.display()))
}

/// A file of certificates in PEM.
pub(super) fn certificates(file: &Path) -> anyhow::Result<String> {
    let pem = read(file)?;
    if !pem.contains("-----BEGIN CERTIFICATE-----") {
        bail!("{} holds no certificate in PEM", file.display());
    }
    Ok(pem)
}

fn injection(arguments: &Arguments) -> anyhow::Result<Injection> {
    let controller = match (&arguments.controller, &arguments.controller_ca) {
        (Some((name, port)), Some(file)) => {
            let ca_pem = certificates(file)?;
            Some(Controller {
                name: name.clone(),
                port: *port,
                address: arguments.controller_address,
                ca_pem,
            })
        }
        _ => None,
    };
    Ok(Injection {
        controller,
        unlabelled: if arguments.only_labelled {
            Unlabelled::Skip
        } else {
            Unlabelled::InjectAndLabel
        },
        ..arguments.sidecar.injection()
    })
}

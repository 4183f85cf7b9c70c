//! `ringside-controller inject`: sidecars into manifests, offline. It owns the flags, and reads and writes the text.

use std::fs;
use std::io::{Read, Write, stderr, stdin, stdout};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ringside_api::Layers;
use ringside_api::config::ADMIN_PORT_DEFAULT;
use ringside_api::sync::Assigned;
use ringside_controller::inject::{
    Controller, FIRST_LISTEN_PORT_DEFAULT, Injection, Resources, Seccomp, Unlabelled, manifest,
};

/// The sidecar's image unless another is named.
const IMAGE_DEFAULT: &str = concat!("ringside:", env!("CARGO_PKG_VERSION"));

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

    /// The sidecar's image
    #[arg(long, value_name = "IMAGE", default_value = IMAGE_DEFAULT)]
    image: String,

    /// When the image is pulled: Always, IfNotPresent or Never [default: Kubernetes decides]
    #[arg(long, value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: Option<String>,

    /// The controller, by the name that its certificate is for; without it sidecars are on their own
    #[arg(long, value_name = "NAME:PORT", requires = "controller_ca", value_parser = name_and_port)]
    controller: Option<(String, u16)>,

    /// Where to connect to the controller, so that no DNS is needed
    #[arg(long, value_name = "IP:PORT", requires = "controller")]
    controller_address: Option<SocketAddr>,

    /// The certificates to trust the controller by, in PEM
    #[arg(long, value_name = "FILE", requires = "controller")]
    controller_ca: Option<PathBuf>,

    /// The seccomp profile: RuntimeDefault, Unconfined or Localhost:PATH below the kubelet's folder
    ///
    /// containerd's own default blocks io_uring since 2.0: there the sidecar runs on epoll, unless it is given the profile of
    /// manifests/seccomp.
    #[arg(long, value_name = "PROFILE", default_value = "RuntimeDefault", value_parser = seccomp)]
    seccomp: Seccomp,

    /// The port of probes and metrics
    #[arg(long, value_name = "PORT", default_value_t = ADMIN_PORT_DEFAULT, value_parser = clap::value_parser!(u16).range(1..))]
    admin_port: u16,

    /// The first port for relays that no annotation names
    #[arg(long, value_name = "PORT", default_value_t = FIRST_LISTEN_PORT_DEFAULT, value_parser = clap::value_parser!(u16).range(1..))]
    first_port: u16,

    /// The sidecars' log level [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// CPU kept for each sidecar; empty for none
    #[arg(long, value_name = "AMOUNT", default_value = "10m")]
    cpu_request: String,

    /// CPU that each sidecar may use; empty for no limit
    #[arg(long, value_name = "AMOUNT", default_value = "")]
    cpu_limit: String,

    /// Memory kept for each sidecar; empty for none
    #[arg(long, value_name = "AMOUNT", default_value = "32Mi")]
    memory_request: String,

    /// Memory that each sidecar may use; empty for no limit
    #[arg(long, value_name = "AMOUNT", default_value = "256Mi")]
    memory_limit: String,
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

pub(super) fn seccomp(given: &str) -> Result<Seccomp, String> {
    match given.split_once(':') {
        None if given == "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        None if given == "Unconfined" => Ok(Seccomp::Unconfined),
        Some(("Localhost", path)) if !path.is_empty() && !path.starts_with('/') => {
            Ok(Seccomp::Localhost(path.to_owned()))
        }
        _ => Err(
            "write RuntimeDefault, Unconfined or Localhost:PATH, such as Localhost:ringside.json"
                .to_owned(),
        ),
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
    let amount = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    Ok(Injection {
        image_pull_policy: arguments.image_pull_policy.clone(),
        controller,
        resources: Resources {
            cpu_request: amount(&arguments.cpu_request),
            cpu_limit: amount(&arguments.cpu_limit),
            memory_request: amount(&arguments.memory_request),
            memory_limit: amount(&arguments.memory_limit),
        },
        seccomp: arguments.seccomp.clone(),
        admin_port: arguments.admin_port,
        first_listen_port: arguments.first_port,
        log_level: arguments.log_level.clone(),
        unlabelled: if arguments.only_labelled {
            Unlabelled::Skip
        } else {
            Unlabelled::InjectAndLabel
        },
        ..Injection::new(env!("CARGO_PKG_VERSION"), &arguments.image)
    })
}

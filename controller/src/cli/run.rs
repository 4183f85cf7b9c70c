//! `ringside-controller run`: the controller, until it is told to end.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use ringside_controller::certificates::Managed;
use ringside_controller::inject::{Controller, Injection};
use ringside_controller::run::{self, Listening, Options};
use ringside_controller::serve::Limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Run the controller until SIGTERM
///
/// It answers sidecars and the API server's webhooks over TLS, writes the status of policies while it leads, and never touches traffic:
/// without it relays go on as they are.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where sidecars and webhooks are answered, over TLS: IP:PORT
    #[arg(
        long,
        value_name = "ADDR",
        env = "RINGSIDE_LISTEN",
        default_value = "[::]:8443"
    )]
    listen: SocketAddr,

    /// Where probes, metrics and /readyz/policies are served: IP:PORT
    #[arg(
        long,
        value_name = "ADDR",
        env = "RINGSIDE_HTTP",
        default_value = "[::]:8080"
    )]
    http: SocketAddr,

    /// The namespace that it runs in
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "RINGSIDE_NAMESPACE",
        default_value = "ringside"
    )]
    namespace: String,

    /// The name of its Service, and of its Lease
    #[arg(
        long,
        value_name = "NAME",
        env = "RINGSIDE_SERVICE",
        default_value = "ringside-controller"
    )]
    service: String,

    /// The port of its Service
    #[arg(
        long,
        value_name = "PORT",
        env = "RINGSIDE_SERVICE_PORT",
        default_value_t = 443
    )]
    service_port: u16,

    /// Where sidecars connect, so that they need no DNS: the Service's cluster IP and port [default: they resolve the Service's name]
    #[arg(long, value_name = "ADDR", env = "RINGSIDE_SERVICE_ADDRESS")]
    service_address: Option<SocketAddr>,

    /// The name of this replica's pod [default: the host's name]
    #[arg(long, value_name = "NAME", env = "RINGSIDE_POD_NAME")]
    pod_name: Option<String>,

    /// The IP of this replica's pod, where sidecars are sent while it leads
    #[arg(long, value_name = "IP", env = "RINGSIDE_POD_IP")]
    pod_ip: Option<IpAddr>,

    /// The Secret of its certificates
    #[arg(
        long,
        value_name = "NAME",
        env = "RINGSIDE_SECRET",
        default_value = "ringside-controller-tls"
    )]
    secret: String,

    /// The Secret is somebody else's, such as cert-manager's: it is read, and never written
    #[arg(long, env = "RINGSIDE_EXTERNAL_CERTIFICATES")]
    external_certificates: bool,

    /// A name or address besides the Service's that the certificate is for; may be given several times
    #[arg(
        long,
        value_name = "NAME",
        env = "RINGSIDE_CERTIFICATE_NAME",
        value_delimiter = ','
    )]
    certificate_name: Vec<String>,

    /// The name of both webhook configurations, whose caBundle it keeps; empty for none
    #[arg(
        long,
        value_name = "NAME",
        env = "RINGSIDE_WEBHOOKS",
        default_value = "ringside"
    )]
    webhooks: String,

    #[command(flatten)]
    sidecar: super::sidecar::OfAll,

    /// Write where it listens to this file, as JSON, once it does
    #[arg(long, value_name = "PATH", env = "RINGSIDE_PORTS_FILE")]
    ports_file: Option<PathBuf>,

    /// For how long it goes on answering once it is told to end, while API servers may be sent to it still: 0 to 20 seconds
    #[arg(
        long,
        value_name = "SECONDS",
        env = "RINGSIDE_LINGER_SECONDS",
        default_value_t = 3,
        value_parser = clap::value_parser!(u64).range(..=20)
    )]
    linger_seconds: u64,

    /// Which log lines are written: error, warn, info, debug or trace
    #[arg(
        long,
        value_name = "LEVEL",
        env = "RINGSIDE_LOG_LEVEL",
        default_value = "info"
    )]
    log_level: tracing::Level,
}

impl Arguments {
    fn options(&self) -> Options {
        let controller = Controller {
            name: format!("{}.{}.svc", self.service, self.namespace),
            port: self.service_port,
            address: self.service_address,
            ca_pem: String::new(),
        };
        let injection = Injection {
            controller: Some(controller),
            ..self.sidecar.0.injection()
        };
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "controller".to_owned());
        Options {
            listen: self.listen,
            http: self.http,
            namespace: self.namespace.clone(),
            service: self.service.clone(),
            identity: self
                .pod_name
                .clone()
                .unwrap_or_else(|| format!("{host}-{}", std::process::id())),
            address: self
                .pod_ip
                .map(|ip| SocketAddr::new(ip, self.listen.port())),
            secret: self.secret.clone(),
            managed: if self.external_certificates {
                Managed::External
            } else {
                Managed::Here
            },
            names: self.certificate_name.clone(),
            webhooks: self.webhooks.clone(),
            injection,
            linger: Duration::from_secs(self.linger_seconds),
        }
    }
}

/// Runs until SIGTERM or SIGINT.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(arguments.log_level)
        .with_writer(std::io::stderr)
        .init();
    arguments.sidecar.0.injection().check()?;
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("ending");
            stop.send_replace(true);
        });
        let client = Client::try_default().await.context(
            "there is no way to an API server: neither a kubeconfig nor a pod's service account",
        )?;
        let ports_file = arguments.ports_file.clone();
        let told = move |listening: Listening| {
            let Listening { tls, http } = listening;
            tracing::info!(%tls, %http, "listening");
            if let Some(path) = ports_file
                && let Err(error) = write_ports(&path, listening)
            {
                tracing::error!("{} could not be written: {error}", path.display());
            }
        };
        run::run(client, arguments.options(), stopped, told).await
    })
}

/// A connection is a descriptor, and many systems grant a process 1,024 unless it asks for what it may have.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("the limit of open files stays as it was: {error}");
    }
    let most = Limits::default().connections_most as u64;
    if let Some(granted) = getrlimit(Resource::Nofile).current
        && granted <= most
    {
        tracing::warn!(
            granted,
            "fewer files may be open than connections are allowed ({most}): raise the limit of open files"
        );
    }
}

/// Whole or not at all, for whoever waits for it.
fn write_ports(path: &std::path::Path, Listening { tls, http }: Listening) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    writeln!(file, "{}", serde_json::json!({"tls": tls, "http": http}))?;
    std::fs::rename(new, path)
}

//! What is the same for all pods that get a sidecar: image, controller, security, probes, defaults. It owns the defaults of
//! these; where they come from (chart, flags) is the caller's.

use std::net::SocketAddr;
use std::time::Duration;

use ringside_api::BackendChoice;
use ringside_api::config::ADMIN_PORT_DEFAULT;

/// The first port that a relay listens on when nobody says which.
pub const FIRST_LISTEN_PORT_DEFAULT: u16 = 15_080;

/// The user and group that the sidecar runs as by default.
pub const USER_DEFAULT: i64 = 65_532;

/// What the injector knows beside the pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Injection {
    /// The version that is stamped on the pod.
    pub version: String,
    /// The sidecar's image.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`; left out, Kubernetes decides by the image's tag.
    pub image_pull_policy: Option<String>,
    /// The controller that the sidecar speaks with; without one it is on its own.
    pub controller: Option<Controller>,
    /// What the sidecar asks for and may use.
    pub resources: Resources,
    /// Which calls the kernel lets it make.
    pub seccomp: Seccomp,
    /// The user and group that it runs as where the pod does not say; `None` leaves it to the platform (OpenShift gives each
    /// namespace a range and refuses others).
    pub run_as: Option<i64>,
    /// The port of probes and metrics, 1 to 65535. A pod where it is taken gets the next free one.
    pub admin_port: u16,
    /// The first port for relays that the pod does not name, 1 to 65535.
    pub first_listen_port: u16,
    /// What it goes through where the pod does not say; left out, the sidecar chooses.
    pub backend: Option<BackendChoice>,
    /// The level of its log; left out, the sidecar's own default.
    pub log_level: Option<String>,
    /// Whether pods get `prometheus.io` annotations that lead to its metrics.
    pub scrape_annotations: bool,
    /// When it is probed.
    pub probes: Probes,
    /// What to do with a pod that does not ask by its label.
    pub unlabelled: Unlabelled,
}

impl Injection {
    /// What holds when nothing else is said, for this version and image.
    pub fn new(version: impl Into<String>, image: impl Into<String>) -> Self {
        Self {
            version: version.into(),
            image: image.into(),
            image_pull_policy: None,
            controller: None,
            resources: Resources::default(),
            seccomp: Seccomp::RuntimeDefault,
            run_as: Some(USER_DEFAULT),
            admin_port: ADMIN_PORT_DEFAULT,
            first_listen_port: FIRST_LISTEN_PORT_DEFAULT,
            backend: None,
            log_level: None,
            scrape_annotations: false,
            probes: Probes::default(),
            unlabelled: Unlabelled::Skip,
        }
    }
}

/// How a sidecar finds and trusts its controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// The name that its certificate must be for.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// Where to connect, so that no DNS is needed; left out, the name is resolved.
    pub address: Option<SocketAddr>,
    /// The certificates to trust it by, in PEM.
    pub ca_pem: String,
}

/// What the sidecar asks for and may use, as Kubernetes writes quantities. One that is left out is not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resources {
    /// CPU that is kept for it.
    pub cpu_request: Option<String>,
    /// CPU that it may use. Unset by default: a throttled relay stalls every connection of its pod.
    pub cpu_limit: Option<String>,
    /// Memory that is kept for it.
    pub memory_request: Option<String>,
    /// Memory that it may use.
    pub memory_limit: Option<String>,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu_request: Some("10m".to_owned()),
            cpu_limit: None,
            memory_request: Some("32Mi".to_owned()),
            memory_limit: Some("256Mi".to_owned()),
        }
    }
}

/// The seccomp profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seccomp {
    /// The runtime's own, which blocks io_uring on containerd 2.0 and later: the sidecar then runs on epoll.
    RuntimeDefault,
    /// A profile on the node, by its path below the kubelet's folder of profiles.
    Localhost(String),
    /// None, which Pod Security "restricted" refuses.
    Unconfined,
}

/// When the kubelet asks, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probes {
    /// Between two questions whether it has started, and whether it is ready. 1 s at least.
    pub readiness_period: Duration,
    /// For how long it may be starting.
    pub startup_limit: Duration,
    /// Between two questions whether it lives.
    pub liveness_period: Duration,
    /// Questions in a row that must fail before it is restarted.
    pub liveness_failures: u32,
}

impl Default for Probes {
    fn default() -> Self {
        Self {
            readiness_period: Duration::from_secs(1),
            startup_limit: Duration::from_secs(60),
            liveness_period: Duration::from_secs(10),
            liveness_failures: 6,
        }
    }
}

/// What to do with a pod without the label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlabelled {
    /// Leave it alone.
    Skip,
    /// Inject, and add the label, by which the controller knows its pods. One whose label says something else is left alone.
    InjectAndLabel,
}

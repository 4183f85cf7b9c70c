//! Flags about the sidecars that pods get, for `inject`, and with a prefix and in the environment for `run`. It owns their names and what is
//! allowed; what a pod says of itself wins over them.

use clap::error::Error;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use ringside_api::BackendChoice;
use ringside_api::config::ADMIN_PORT_DEFAULT;
use ringside_controller::inject::{
    FIRST_LISTEN_PORT_DEFAULT, Injection, Resources, Seccomp, USER_DEFAULT,
};

/// What sidecars have in common.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sidecars")]
pub(super) struct Sidecar {
    /// The sidecar's image
    #[arg(id = "sidecar_image", long = "image", value_name = "IMAGE", default_value = concat!("ringside:", env!("CARGO_PKG_VERSION")))]
    image: String,

    /// When the image is pulled: Always, IfNotPresent or Never [default: Kubernetes decides]
    #[arg(id = "sidecar_image_pull_policy", long = "image-pull-policy", value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    image_pull_policy: Option<String>,

    /// The seccomp profile: RuntimeDefault, Unconfined or Localhost:PATH below the kubelet's folder
    ///
    /// containerd's own default blocks io_uring since 2.0: there the sidecar runs on epoll, unless it is given the profile of manifests/seccomp.
    #[arg(id = "sidecar_seccomp", long = "seccomp", value_name = "PROFILE", default_value = "RuntimeDefault", value_parser = seccomp)]
    seccomp: Seccomp,

    /// auto, ring, epoll or tokio-uring
    #[arg(
        id = "sidecar_backend",
        long = "backend",
        value_name = "BACKEND",
        default_value = "auto"
    )]
    backend: BackendChoice,

    /// The sidecars' log level [default: info]
    #[arg(id = "sidecar_log_level", long = "log-level", value_name = "LEVEL")]
    log_level: Option<String>,

    /// CPU kept for each sidecar; empty for none
    #[arg(
        id = "sidecar_cpu_request",
        long = "cpu-request",
        value_name = "AMOUNT",
        default_value = "10m"
    )]
    cpu_request: String,

    /// CPU that each sidecar may use; empty for no limit
    #[arg(
        id = "sidecar_cpu_limit",
        long = "cpu-limit",
        value_name = "AMOUNT",
        default_value = ""
    )]
    cpu_limit: String,

    /// Memory kept for each sidecar; empty for none
    #[arg(
        id = "sidecar_memory_request",
        long = "memory-request",
        value_name = "AMOUNT",
        default_value = "32Mi"
    )]
    memory_request: String,

    /// Memory that each sidecar may use; empty for no limit
    #[arg(
        id = "sidecar_memory_limit",
        long = "memory-limit",
        value_name = "AMOUNT",
        default_value = "256Mi"
    )]
    memory_limit: String,

    /// The port of sidecars' probes and metrics
    #[arg(id = "sidecar_admin_port", long = "admin-port", value_name = "PORT", default_value_t = ADMIN_PORT_DEFAULT, value_parser = clap::value_parser!(u16).range(1..))]
    admin_port: u16,

    /// The first port for relays that no annotation names
    #[arg(id = "sidecar_first_port", long = "first-port", value_name = "PORT", default_value_t = FIRST_LISTEN_PORT_DEFAULT, value_parser = clap::value_parser!(u16).range(1..))]
    first_port: u16,

    /// The user that sidecars run as where the pod does not say; empty leaves it to the platform [default: 65532]
    #[arg(id = "sidecar_user", long = "user", value_name = "UID", default_value_t = USER_DEFAULT.to_string(), value_parser = user, hide_default_value = true)]
    user: String,

    /// Give injected pods prometheus.io annotations that lead to the sidecar's metrics, unless they have some
    #[arg(id = "sidecar_scrape_annotations", long = "scrape-annotations")]
    scrape_annotations: bool,
}

/// The same for `run`: what they are called there begins with `--sidecar-`, and each is also looked for in the environment.
#[derive(Debug)]
pub(super) struct OfAll(pub(super) Sidecar);

impl Args for OfAll {
    fn augment_args(command: Command) -> Command {
        // One who says it in two ways: declared once, named twice.
        let plain = Sidecar::augment_args(Command::new("sidecar"));
        plain.get_arguments().fold(command, |command, plain| {
            let name = plain.get_long().unwrap_or_default();
            let variable = name.replace('-', "_").to_uppercase();
            let prefixed = plain.clone().long(format!("sidecar-{name}"));
            command.arg(prefixed.env(format!("RINGSIDE_SIDECAR_{variable}")))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for OfAll {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Sidecar::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}

/// A profile.
fn seccomp(given: &str) -> Result<Seccomp, String> {
    match given.split_once(':') {
        None if given == "RuntimeDefault" => Ok(Seccomp::RuntimeDefault),
        None if given == "Unconfined" => Ok(Seccomp::Unconfined),
        // As an API server refuses it in every pod, and then the pod with it.
        Some(("Localhost", path)) if path.split('/').any(|part| part == "..") => Err(
            "the profile's path leads out of the kubelet's folder: write it without `..`"
                .to_owned(),
        ),
        Some(("Localhost", path)) if !path.is_empty() && !path.starts_with('/') => {
            Ok(Seccomp::Localhost(path.to_owned()))
        }
        _ => Err(
            "write RuntimeDefault, Unconfined or Localhost:PATH, such as Localhost:ringside.json"
                .to_owned(),
        ),
    }
}

/// A user, or nothing.
fn user(given: &str) -> Result<String, String> {
    match given.parse::<u32>() {
        Ok(0) => Err("the sidecar does not run as root: write another user, or nothing".to_owned()),
        Ok(_) => Ok(given.to_owned()),
        Err(_) if given.is_empty() => Ok(String::new()),
        Err(_) => {
            Err("write the number of a user, or nothing to leave it to the platform".to_owned())
        }
    }
}

impl Sidecar {
    /// What pods get by these flags.
    pub(super) fn injection(&self) -> Injection {
        let amount = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        Injection {
            image_pull_policy: self.image_pull_policy.clone(),
            resources: Resources {
                cpu_request: amount(&self.cpu_request),
                cpu_limit: amount(&self.cpu_limit),
                memory_request: amount(&self.memory_request),
                memory_limit: amount(&self.memory_limit),
            },
            seccomp: self.seccomp.clone(),
            run_as: self.user.parse().ok(),
            admin_port: self.admin_port,
            first_listen_port: self.first_port,
            backend: Some(self.backend).filter(|backend| *backend != BackendChoice::Auto),
            log_level: self.log_level.clone(),
            scrape_annotations: self.scrape_annotations,
            ..Injection::new(env!("CARGO_PKG_VERSION"), &self.image)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        sidecar: OfAll,
    }

    fn of(flags: &[&str]) -> Result<Injection, String> {
        let line = Line::try_parse_from(["run"].iter().chain(flags));
        line.map(|line| line.sidecar.0.injection())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn without_flags_it_is_what_holds_when_nothing_is_said() {
        let version = env!("CARGO_PKG_VERSION");
        let default = Injection::new(version, format!("ringside:{version}"));
        assert_eq!(of(&[]).unwrap(), default);
    }

    #[test]
    fn flags_are_what_they_are_named() {
        let injection = of(&[
            "--sidecar-image=r:1",
            "--sidecar-image-pull-policy=Never",
            "--sidecar-seccomp=Localhost:ringside.json",
            "--sidecar-backend=epoll",
            "--sidecar-log-level=debug",
            "--sidecar-cpu-request=",
            "--sidecar-cpu-limit=2",
            "--sidecar-memory-request=64Mi",
            "--sidecar-memory-limit=",
            "--sidecar-admin-port=1234",
            "--sidecar-first-port=2345",
            "--sidecar-user=",
            "--sidecar-scrape-annotations",
        ]);
        let expected = Injection {
            image_pull_policy: Some("Never".to_owned()),
            resources: Resources {
                cpu_request: None,
                cpu_limit: Some("2".to_owned()),
                memory_request: Some("64Mi".to_owned()),
                memory_limit: None,
            },
            seccomp: Seccomp::Localhost("ringside.json".to_owned()),
            run_as: None,
            admin_port: 1234,
            first_listen_port: 2345,
            backend: Some(BackendChoice::Epoll),
            log_level: Some("debug".to_owned()),
            scrape_annotations: true,
            ..Injection::new(env!("CARGO_PKG_VERSION"), "r:1")
        };
        assert_eq!(injection.unwrap(), expected);
    }

    #[test]
    fn a_profile_is_below_the_kubelets_folder() {
        for path in ["ringside.json", "profiles/ringside.json", "a..b/..c"] {
            let profile = Seccomp::Localhost(path.to_owned());
            assert_eq!(seccomp(&format!("Localhost:{path}")), Ok(profile));
        }
        for (path, told) in [
            ("..", "`..`"),
            ("../ringside.json", "`..`"),
            ("profiles/../../ringside.json", "`..`"),
            ("profiles/..", "`..`"),
            ("/ringside.json", "Localhost:PATH"),
            ("", "Localhost:PATH"),
        ] {
            let refused = seccomp(&format!("Localhost:{path}")).unwrap_err();
            assert!(refused.contains(told), "{path}: {refused}");
        }
    }

    #[test]
    fn root_and_words_are_no_users() {
        for (flag, told) in [
            ("--sidecar-user=0", "root"),
            ("--sidecar-user=nobody", "number"),
            ("--sidecar-backend=uring", "tokio-uring"),
        ] {
            let error = of(&[flag]).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}

//! Flags that say what a relay is to be: relays or a file of them, and what overrides that. `relay` runs it, `check` tries it before.
//!
//! It owns their names and what goes together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ringside::process::{AdminListener, Overrides};
use ringside::settings::{self, Loaded};
use ringside_api::{BackendChoice, Config, Relay, Workers};

use super::Failure;

/// What a relay is to be.
#[derive(Debug, clap::Args)]
pub(super) struct PlanFlags {
    /// A relay; may be given several times
    ///
    /// Such as web=0.0.0.0:15080:127.0.0.1:8080. LISTEN is IP:PORT, where [::]:PORT takes IPv6 and IPv4 and port 0 lets
    /// the kernel choose. TARGET is IP:PORT, HOST:PORT or unix:/PATH, or *:PORT, which is where a connection was to go that
    /// `ringside intercept` redirected here; ?proxy=v2 behind it tells the target who the client is, by a PROXY header.
    /// Several in the environment are separated by commas.
    #[arg(
        long,
        value_name = "NAME=LISTEN:TARGET",
        env = "RINGSIDE_RELAY",
        value_delimiter = ','
    )]
    relay: Vec<Relay>,

    /// A YAML file with relays and settings; not together with --relay
    ///
    /// --admin, --backend and --workers override what it says about them, also after a reload.
    #[arg(long, value_name = "FILE", env = "RINGSIDE_CONFIG")]
    config: Option<PathBuf>,

    /// How the kernel is asked: auto, ring, epoll or tokio-uring [default: auto]
    ///
    /// auto takes ring (io_uring) where it works and epoll elsewhere, and never tokio-uring, which is io_uring by that
    /// runtime and slower; /statusz says which and why.
    #[arg(long, value_name = "BACKEND", env = "RINGSIDE_BACKEND")]
    backend: Option<BackendChoice>,

    /// Threads that relay: auto or a number [default: auto]
    ///
    /// auto is as many as the CPUs that the cgroup and the affinity mask grant, and as fit into the cgroup's memory.
    #[arg(
        long,
        value_name = "N",
        env = "RINGSIDE_WORKERS",
        allow_negative_numbers = true
    )]
    workers: Option<Workers>,

    /// Where probes, metrics and status are served: IP:PORT or off [default: 0.0.0.0:15490]
    #[arg(long, value_name = "ADDR", env = "RINGSIDE_ADMIN", value_parser = admin)]
    admin: Option<AdminListener>,
}

/// What the flags say, read and checked.
pub(super) struct Planned {
    /// Without what overrides it.
    pub(super) config: Arc<Config>,
    /// The file, if there is one.
    pub(super) file: Option<(PathBuf, Loaded)>,
}

impl PlanFlags {
    /// What overrides a file.
    pub(super) fn overrides(&self) -> Overrides {
        Overrides {
            admin: self.admin,
            backend: self.backend,
            workers: self.workers,
        }
    }

    /// What is to be relayed; nothing if no relay and no file is named.
    ///
    /// # Errors
    /// If both are, or what is named cannot be read, or does not go together.
    pub(super) fn load(self) -> Result<Option<Planned>, Failure> {
        let overrides = self.overrides();
        match (self.config, self.relay) {
            (None, relays) if relays.is_empty() => Ok(None),
            (Some(_), relays) if !relays.is_empty() => Err(Failure::Usage(
                "--config and --relay (or RINGSIDE_CONFIG and RINGSIDE_RELAY) are both given: choose one; a file has its relays under `relays:`".to_owned(),
            )),
            (Some(path), _) => {
                let loaded = settings::load(&path).map_err(anyhow::Error::from)?;
                Ok(Some(Planned {
                    config: loaded.config.clone(),
                    file: Some((path, loaded)),
                }))
            }
            (None, relays) => {
                let config = Config::of_relays(relays);
                let together = overrides.over(&config).check();
                together.map_err(|error| Failure::Usage(error.to_string()))?;
                Ok(Some(Planned {
                    config: Arc::new(config),
                    file: None,
                }))
            }
        }
    }
}

fn admin(given: &str) -> Result<AdminListener, String> {
    if given == "off" {
        return Ok(AdminListener::Off);
    }
    given
        .parse::<SocketAddr>()
        .map(AdminListener::At)
        .map_err(|_| format!("`{given}` is no address for the admin listener: write IP:PORT, such as 127.0.0.1:15490, or off"))
}

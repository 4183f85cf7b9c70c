//! `ringside relay`: relays connections until it is told to end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ringside::logging::{self, LogFormat, LogLevel};
use ringside::process::{self, AdminListener, Ended, Options, Overrides};
use ringside::settings;
use ringside_api::{BackendChoice, Config, Relay, Workers};

use super::Failure;

/// The exit code after a second interrupt, as a shell tells of one: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

/// Relay connections until SIGTERM
///
/// Accepts TCP connections and relays each to its target. What to relay comes from --relay, or from the file of
/// --config, which is watched: a change takes effect without dropping a connection, and a bad one is refused and
/// reported while the last good one stays.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Ends: SIGTERM, SIGINT or POST /drain begin the drain: unready at once, listeners closed after \
timeouts.drainNotice, connections ended in their own time, at the latest after timeouts.drain. A second SIGINT ends at once.\n\n\
Exit codes: 0 drained, 1 failed, 2 usage, 130 ended by a second SIGINT.",
    after_long_help = "Ends:\n  SIGTERM, SIGINT or POST /drain begin the drain: unready at once, listeners closed after \
timeouts.drainNotice,\n  connections ended in their own time, at the latest after timeouts.drain. A second SIGINT ends at once.\n\n\
Exit codes:\n  0    drained\n  1    failed\n  2    usage\n  130  ended by a second SIGINT\n\n\
Examples:\n  ringside relay --relay web=0.0.0.0:15080:127.0.0.1:8080\n  ringside relay --relay 'db=[::]:15432:unix:/run/db.sock' --admin 127.0.0.1:9000\n  \
ringside relay --config /etc/ringside/relay.yaml"
)]
pub(crate) struct Arguments {
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

    /// Write the admin listener's IP:PORT to this file once ready
    #[arg(long, value_name = "PATH", env = "RINGSIDE_ADMIN_PORT_FILE")]
    admin_port_file: Option<PathBuf>,

    #[command(flatten)]
    controller: super::controller::Flags,

    /// Which log lines are written: off, error, warn, info, debug, trace, or directives such as info,ringside::worker=debug
    #[arg(
        long,
        value_name = "LEVEL",
        env = "RINGSIDE_LOG_LEVEL",
        default_value = "info"
    )]
    log_level: LogLevel,

    /// How log lines are written: text, json, or auto, which is text on a terminal
    #[arg(
        long,
        value_name = "FORMAT",
        env = "RINGSIDE_LOG_FORMAT",
        default_value = "auto"
    )]
    log_format: LogFormat,
}

pub(super) fn admin(given: &str) -> Result<AdminListener, String> {
    if given == "off" {
        return Ok(AdminListener::Off);
    }
    given
        .parse::<SocketAddr>()
        .map(AdminListener::At)
        .map_err(|_| format!("`{given}` is no address for the admin listener: write IP:PORT, such as 127.0.0.1:15490, or off"))
}

/// Runs until it has ended.
pub(super) fn run(arguments: Arguments, epoch: Instant) -> Result<(), Failure> {
    let overrides = Overrides {
        admin: arguments.admin,
        backend: arguments.backend,
        workers: arguments.workers,
    };
    let (config, file) = match (arguments.config, arguments.relay) {
        (Some(_), relays) if !relays.is_empty() => {
            return Err(Failure::Usage(
                "--config and --relay (or RINGSIDE_CONFIG and RINGSIDE_RELAY) are both given: choose one; a file has its relays under `relays:`".to_owned(),
            ));
        }
        (None, relays) if relays.is_empty() => {
            return Err(Failure::Usage(
                "there is nothing to relay: give --relay NAME=LISTEN:TARGET, such as --relay web=0.0.0.0:15080:127.0.0.1:8080, or --config FILE".to_owned(),
            ));
        }
        (Some(path), _) => {
            let loaded = settings::load(&path).map_err(anyhow::Error::from)?;
            (loaded.config.clone(), Some((path, loaded)))
        }
        (None, relays) => {
            let config = Config::of_relays(relays);
            let together = overrides.over(&config).check();
            together.map_err(|error| Failure::Usage(error.to_string()))?;
            (Arc::new(config), None)
        }
    };
    if arguments.admin == Some(AdminListener::Off) && arguments.admin_port_file.is_some() {
        return Err(Failure::Usage(
            "--admin-port-file has nothing to say with --admin off: leave one of them out"
                .to_owned(),
        ));
    }
    let controller = arguments.controller.check()?;
    let (log, _log_end) =
        logging::start(&arguments.log_level, arguments.log_format).map_err(anyhow::Error::msg)?;
    let ended = process::run(Options {
        epoch,
        config,
        file,
        overrides,
        controller,
        admin_port_file: arguments.admin_port_file,
        log,
        log_level: arguments.log_level,
    })?;
    match ended {
        Ended::Drained => Ok(()),
        Ended::Interrupted => Err(Failure::Code(INTERRUPTED)),
    }
}

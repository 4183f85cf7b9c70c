//! `ringside relay`: relays connections until it is told to end.

use std::path::PathBuf;
use std::time::Instant;

use ringside::logging::{self, LogFormat, LogLevel};
use ringside::process::{self, AdminListener, Ended, Options};

use super::Failure;
use super::plan::Planned;

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
    #[command(flatten)]
    plan: super::plan::PlanFlags,

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

/// Runs until it has ended.
pub(super) fn run(arguments: Arguments, epoch: Instant) -> Result<(), Failure> {
    let overrides = arguments.plan.overrides();
    let Some(Planned { config, file }) = arguments.plan.load()? else {
        return Err(Failure::Usage(
            "there is nothing to relay: give --relay NAME=LISTEN:TARGET, such as --relay web=0.0.0.0:15080:127.0.0.1:8080, or --config FILE".to_owned(),
        ));
    };
    if overrides.admin == Some(AdminListener::Off) && arguments.admin_port_file.is_some() {
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

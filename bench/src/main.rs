//! The load tool: makes the traffic that a benchmark measures, is the application behind the relay, and measures
//! relays beside each other. This file owns the command line only.

mod application;
mod bulk;
mod churn;
mod compare;
mod endpoint;
mod latency;
mod ping;
mod process;
mod report;
mod service;
mod system;
mod wire;
mod workload;

use std::io::BufRead;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};

use crate::bulk::Way;
use crate::compare::Comparison;
use crate::endpoint::Endpoint;
use crate::process::Processes;
use crate::report::Report;
use crate::workload::Aim;

/// Load, application and measurements for TCP relays.
///
/// Every workload checks what comes back. It prints a line for people on standard error and one of JSON on standard
/// output. With --pid it also says what the relay's processes spent per unit of work.
#[derive(Debug, Parser)]
#[command(name = "ringside-load", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be the application: answers every workload below on one address.
    Serve {
        /// IP:port (port 0: the kernel chooses, and the first line printed says) or unix:/path.
        #[arg(long, value_name = "ADDRESS")]
        listen: Endpoint,
    },
    /// Ping-pong: one message at a time on each of some standing connections.
    Ping {
        #[command(flatten)]
        aim: AimArguments,
        /// Standing connections.
        #[arg(long, default_value_t = 64, value_parser = positive)]
        connections: usize,
        /// Bytes of a message, 1 to 16777216.
        #[arg(long, default_value_t = 64, value_parser = message_bytes)]
        bytes: usize,
        /// Seconds to measure.
        #[arg(long, default_value = "2", value_parser = seconds)]
        seconds: Duration,
    },
    /// Bulk: a number of gigabytes in one direction.
    Bulk {
        #[command(flatten)]
        aim: AimArguments,
        /// Connections that share the bytes evenly.
        #[arg(long, default_value_t = 8, value_parser = positive)]
        connections: usize,
        /// Gigabytes (10^9 bytes) to move in all.
        #[arg(long, default_value = "2", value_parser = gigabytes)]
        gigabytes: f64,
        /// From the application to the client instead of the other way.
        #[arg(long)]
        reverse: bool,
    },
    /// Churn: connect, 64 bytes, 64 bytes back, close, and again.
    Churn {
        #[command(flatten)]
        aim: AimArguments,
        /// Connections under way at a time.
        #[arg(long, default_value_t = 32, value_parser = positive)]
        concurrency: usize,
        /// Seconds to measure.
        #[arg(long, default_value = "2", value_parser = seconds)]
        seconds: Duration,
        /// The client ends a connection first, not the application (leaves TIME_WAIT with whoever connected).
        #[arg(long)]
        client_closes: bool,
    },
    /// Idle: connections that have spoken once and stand.
    Idle {
        #[command(flatten)]
        aim: AimArguments,
        /// Connections to open.
        #[arg(long, default_value_t = 1000, value_parser = positive)]
        connections: usize,
        /// Seconds to let them stand; without it, until a line (or the end) is read on standard input.
        #[arg(long, value_parser = seconds)]
        seconds: Option<Duration>,
    },
    /// Mixed: ping-pong beside 8 streams of bulk; its latency shows whether small messages wait for large ones.
    Mixed {
        #[command(flatten)]
        aim: AimArguments,
        /// Standing connections of the ping-pong.
        #[arg(long, default_value_t = 1, value_parser = positive)]
        connections: usize,
        /// Bytes of a message, 1 to 16777216.
        #[arg(long, default_value_t = 64, value_parser = message_bytes)]
        bytes: usize,
        /// Seconds to measure.
        #[arg(long, default_value = "2", value_parser = seconds)]
        seconds: Duration,
    },
    /// Compare relays on the same work: HAProxy, nginx, Ringside, and none at all.
    Compare(Box<Comparison>),
}

#[derive(Debug, Args)]
struct AimArguments {
    /// Where to connect: IP:port or unix:/path.
    #[arg(long, value_name = "ADDRESS")]
    target: Endpoint,
    /// A process of the relay whose CPU and memory are measured; repeatable.
    #[arg(long, value_name = "PID")]
    pid: Vec<u32>,
    /// Seconds to run before measuring begins (workloads of time only).
    #[arg(long, default_value = "0.3", value_parser = seconds)]
    warm_up: Duration,
}

impl From<AimArguments> for Aim {
    fn from(arguments: AimArguments) -> Self {
        Self {
            target: arguments.target,
            relay: Processes::of(&arguments.pid),
            warm_up: arguments.warm_up,
        }
    }
}

fn positive(text: &str) -> anyhow::Result<usize> {
    match text.parse() {
        Ok(number @ 1..=1_000_000) => Ok(number),
        _ => bail!("give a whole number from 1 to 1000000"),
    }
}

fn message_bytes(text: &str) -> anyhow::Result<usize> {
    match text.parse() {
        Ok(number @ 1..=16_777_216) => Ok(number),
        _ => bail!("give a whole number of bytes from 1 to 16777216"),
    }
}

fn seconds(text: &str) -> anyhow::Result<Duration> {
    match text.parse() {
        Ok(number @ 0.0..=86_400.0) => Ok(Duration::from_secs_f64(number)),
        _ => bail!("give a number of seconds from 0 to 86400, such as 2 or 0.5"),
    }
}

fn gigabytes(text: &str) -> anyhow::Result<f64> {
    match text.parse() {
        Ok(number @ 0.000_001..=1_000_000.0) => Ok(number),
        _ => bail!("give a number of gigabytes from 0.000001 to 1000000"),
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringside-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    system::raise_descriptor_limit().context("cannot raise the limit of open descriptors")?;
    match command {
        Command::Serve { listen } => application::serve(&listen),
        Command::Ping {
            aim,
            connections,
            bytes,
            seconds,
        } => show(&Aim::from(aim).ping(connections, bytes, seconds)?),
        Command::Bulk {
            aim,
            connections,
            gigabytes,
            reverse,
        } => {
            let way = if reverse { Way::Download } else { Way::Upload };
            show(&Aim::from(aim).bulk(connections, (gigabytes * 1e9) as u64, way)?)
        }
        Command::Churn {
            aim,
            concurrency,
            seconds,
            client_closes,
        } => show(&Aim::from(aim).churn(concurrency, seconds, client_closes)?),
        Command::Idle {
            aim,
            connections,
            seconds,
        } => {
            let report = Aim::from(aim).idle(connections, 64, || {
                match seconds {
                    Some(seconds) => std::thread::sleep(seconds),
                    None => {
                        eprintln!("{connections} connections stand; press Enter to close them");
                        std::io::stdin().lock().read_line(&mut String::new())?;
                    }
                }
                Ok(())
            })?;
            show(&report)
        }
        Command::Mixed {
            aim,
            connections,
            bytes,
            seconds,
        } => show(&Aim::from(aim).mixed(connections, bytes, seconds)?),
        Command::Compare(comparison) => comparison.run(),
    }
}

fn show(report: &Report) -> anyhow::Result<()> {
    eprintln!("{report}");
    println!("{}", report.json()?);
    if report.errors > 0 {
        bail!("{} units of work failed", report.errors);
    }
    Ok(())
}

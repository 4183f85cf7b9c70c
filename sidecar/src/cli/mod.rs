//! Commands and their flags. Each command has a file with its `Arguments` and its `run`; this one lists them, turns
//! failures into sentences and exit codes, and knows nothing else about any.

mod check;
mod controller;
mod intercept;
mod plan;
mod relay;
#[cfg(feature = "top")]
mod top;

use std::process::ExitCode;
use std::time::Instant;

use clap::{CommandFactory as _, Parser, Subcommand};
use ringside_api::command_line;

/// The exit code of what failed.
const FAILED: u8 = 1;
/// The exit code of flags that are not understood, as clap has it too.
const USAGE: u8 = 2;

const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("RINGSIDE_COMMIT"),
    ")"
);

/// An io_uring TCP relay that rides in a pod and stays calm when the kernel pushes back.
#[derive(Debug, Parser)]
#[command(name = "ringside", version = VERSION, max_term_width = 100, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Relay(Box<relay::Arguments>),
    Check(Box<check::Arguments>),
    Intercept(intercept::Arguments),
    #[cfg(feature = "top")]
    Top(top::Arguments),
    Completions(command_line::Completions),
    Man(command_line::Man),
    /// Show the whole story on this machine, in about half a minute.
    ///
    /// Starts an application, a sidecar before it and clients that check every byte; makes the kernel refuse the
    /// sidecar's submissions for six seconds, and shows how it backs off, goes unready and comes back. Exits 0 if
    /// nothing was lost, else 1.
    Demo,
}

/// How a command that did not succeed ends.
#[derive(Debug)]
enum Failure {
    /// The flags make no sense together; a sentence.
    Usage(String),
    /// It failed; a sentence and what it came from.
    Failed(anyhow::Error),
    /// It has said what there was to say.
    Code(u8),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Failed(error)
    }
}

/// Reads the command line and does what it says.
pub(crate) fn main() -> ExitCode {
    let epoch = Instant::now();
    let done = match Arguments::parse().command {
        Command::Relay(arguments) => relay::run(*arguments, epoch),
        Command::Check(arguments) => check::run(*arguments),
        Command::Intercept(arguments) => intercept::run(arguments),
        #[cfg(feature = "top")]
        Command::Top(arguments) => top::run(&arguments),
        Command::Completions(arguments) => {
            command_line::completions(Arguments::command(), &arguments).map_err(Failure::from)
        }
        Command::Man(arguments) => {
            command_line::man(Arguments::command(), &arguments).map_err(Failure::from)
        }
        Command::Demo => demo(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Code(code)) => ExitCode::from(code),
        Err(Failure::Usage(sentence)) => {
            eprintln!("error: {sentence}\n\nFor more information, try '--help'.");
            ExitCode::from(USAGE)
        }
        Err(Failure::Failed(error)) => {
            eprintln!("error: {}", command_line::with_causes(&error));
            ExitCode::from(FAILED)
        }
    }
}

fn demo() -> Result<(), Failure> {
    if ringside::demo::run()? {
        Ok(())
    } else {
        Err(Failure::Code(FAILED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }
}

//! The command line of `ringside-controller`. It owns names, flags and exit codes; what a command does is elsewhere.

mod check;
mod inject;
mod install_seccomp;
mod roles;
mod run;
mod sidecar;
mod webhooks;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory as _, Parser, Subcommand};
use ringside_api::command_line;

/// Ringside's controller: policies down to the sidecars, their state up to kubectl
#[derive(Debug, Parser)]
#[command(name = "ringside-controller", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Arguments),
    /// Print the custom resource definitions, for kubectl apply -f -
    Crds,
    Completions(command_line::Completions),
    Man(command_line::Man),
    Inject(Box<inject::Arguments>),
    InstallSeccomp(install_seccomp::Arguments),
    Roles(roles::Arguments),
    Run(Box<run::Arguments>),
    Webhooks(webhooks::Arguments),
}

/// Runs the command that the arguments name. Exit codes: 0 done, 1 failed, 2 usage.
pub(crate) fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Crds => crds(),
        Command::Completions(arguments) => command_line::completions(Cli::command(), &arguments),
        Command::Man(arguments) => command_line::man(Cli::command(), &arguments),
        Command::Inject(arguments) => inject::run(*arguments),
        Command::InstallSeccomp(arguments) => install_seccomp::run(&arguments),
        Command::Roles(arguments) => roles::run(arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Webhooks(arguments) => webhooks::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringside-controller: {}", command_line::with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

fn crds() -> anyhow::Result<()> {
    let definitions = ringside_controller::generated::definitions()?;
    std::io::stdout()
        .write_all(definitions.as_bytes())
        .context("the definitions could not be written")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn no_two_flags_are_in_each_others_way() {
        super::Cli::command().debug_assert();
    }
}

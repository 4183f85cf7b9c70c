//! `ringside-inject`: starts any command and makes its `io_uring_enter` fail on order, to see how it takes that.
//!
//! It is the command line of `backend::inject` and nothing more: it parses, starts, passes signals on, and ends as its
//! child ends.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::Arc;

use anyhow::Context;
use clap::{ArgGroup, Parser};
use ringside::backend::inject::{
    Control, Denial, Errno, Injector, LaunchSignal, LaunchSignals, Syscalls, deny, end_with_parent,
    pass_on, unblock_in_child,
};

/// Start COMMAND and make its io_uring calls fail on order.
///
/// With --control, lines written to the socket order faults, and each is answered by one line:
///   fail COUNT [ERRNO]      the next COUNT io_uring_enter calls that submit fail (EAGAIN)
///   fail-for TIME [ERRNO]   all of them fail for a time: 500ms, 2s, 1m
///   stop                    they go on again
///   counts                  what happened: seen, failed, continued, waits
#[derive(Debug, Parser)]
#[command(name = "ringside-inject", version, verbatim_doc_comment)]
#[command(group(ArgGroup::new("how").required(true).args(["control", "deny", "deny_above"])))]
struct Arguments {
    /// Take orders on a Unix socket at this path
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Watch every io_uring_enter, so that `counts` tells the waits too (slower)
    #[arg(long, requires = "control")]
    waits: bool,
    /// io_uring_setup fails with this error for as long as COMMAND lives
    #[arg(long, value_name = "ERRNO")]
    deny: Option<Errno>,
    /// io_uring_enter fails with EAGAIN whenever it submits more than this
    #[arg(long, value_name = "ENTRIES")]
    deny_above: Option<u32>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ringside-inject: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let signals = LaunchSignals::block().context("cannot wait for signals")?;
    let (program, rest) = arguments
        .command
        .split_first()
        .context("no command was given")?;
    let mut command = Command::new(program);
    command.args(rest);
    end_with_parent(&mut command);
    unblock_in_child(&mut command);

    let Some(path) = &arguments.control else {
        let denial = match arguments.deny_above {
            Some(most) => Denial::SubmitsAbove(most, Errno::EAGAIN),
            None => Denial::Setup(arguments.deny.unwrap_or(Errno::EPERM)),
        };
        deny(&mut command, denial)?;
        let child = command
            .spawn()
            .with_context(|| format!("cannot start `{}`", program.display()))?;
        return wait(child, &signals);
    };
    let control = Control::bind(path)
        .with_context(|| format!("cannot take orders at `{}`", path.display()))?;
    let syscalls = if arguments.waits {
        Syscalls::Enters
    } else {
        Syscalls::Submissions
    };
    let (child, injector) = Injector::spawn(command, syscalls)?;
    control
        .serve(&Arc::new(injector))
        .context("cannot take orders")?;
    wait(child, &signals)
}

/// Passes signals on until the child has ended, and ends as it did.
fn wait(mut child: Child, signals: &LaunchSignals) -> anyhow::Result<ExitCode> {
    loop {
        match signals.wait().context("cannot wait for signals")? {
            LaunchSignal::Child => {
                if let Some(status) = child
                    .try_wait()
                    .context("cannot learn how the command ended")?
                {
                    return Ok(ExitCode::from(code(status)));
                }
            }
            LaunchSignal::Sent(signal) => {
                pass_on(signal, &child).context("cannot pass the signal on")?;
            }
            LaunchSignal::Terminal(_) => {}
        }
    }
}

/// As a shell tells it: the command's own code, or 128 and the signal that ended it.
fn code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    u8::try_from(code.unwrap_or(1)).unwrap_or(1)
}

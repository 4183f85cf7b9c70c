//! Faults on order: runs a command so that its `io_uring_enter` calls can be made to fail from outside.
//!
//! The command, which may be a static binary and needs no privilege, starts under a seccomp filter. With
//! [`Injector`] the filter asks a supervisor in this process about each call (USER_NOTIF), which lets it go on
//! or answers with the error that was ordered. With [`deny`] the filter itself answers, for as long as the command
//! lives. A failed call never reached the kernel's io_uring: nothing was submitted, as with a real EAGAIN.
//!
//! It never touches a process that it did not start, and the relay itself never uses it: it is there for the
//! tests, the demo and whoever wants to see how a program takes pushback.

mod control;
mod errno;
mod filter;
mod handover;
mod launch;
mod plan;
mod supervisor;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

pub use control::{Control, Order, OrderError};
pub use errno::{Errno, UnknownErrno};
pub use launch::{LaunchSignal, LaunchSignals, end_with_parent, pass_on, unblock_in_child};
pub use plan::Counts;
pub use supervisor::Injector;

use handover::Step;

/// Which calls the supervisor is asked about. Each costs the command one round trip to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Syscalls {
    /// `io_uring_enter` that submits (`to_submit` is not 0); waiting and reaping stay free.
    #[default]
    Submissions,
    /// Every `io_uring_enter`, so that [`Counts::waits`] tells how often the command woke. Only those that submit fail.
    Enters,
}

/// What a filter without a supervisor answers, for as long as the command lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// `io_uring_setup` fails: a kernel or a container without io_uring.
    Setup(Errno),
    /// `io_uring_enter` fails whenever it submits more than this.
    SubmitsAbove(u32, Errno),
    /// `socket` fails for IPv6: a machine that was started without it.
    Ipv6,
}

/// Why a command could not be started with faults.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// The filters know two architectures.
    #[error(
        "faults can be injected on x86_64 and aarch64 only, and this program was built for {}",
        std::env::consts::ARCH
    )]
    Architecture,
    /// The kernel or the container forbids the filter.
    #[error(
        "the kernel refused the seccomp filter that injects faults ({source}): {}",
        refusal(source)
    )]
    Refused {
        /// What the kernel answered.
        source: io::Error,
    },
    /// The command itself could not be started.
    #[error("`{program}` could not be started: {source}")]
    Spawn {
        /// The program's name as it was given.
        program: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// Something that the supervisor needs was not to be had.
    #[error("the fault injector has no {what}: {source}")]
    Supervisor {
        /// What was wanted.
        what: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
}

impl From<InjectError> for io::Error {
    fn from(error: InjectError) -> Self {
        Self::other(error)
    }
}

fn refusal(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EINVAL) => "it needs Linux 5.5 or later",
        Some(libc::EBUSY) => {
            "this process already runs under a filter with a supervisor, and there can be only one"
        }
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => {
            "the container's seccomp profile has to allow `seccomp` and `prctl`; try outside the container"
        }
        _ => "try again, or look at the kernel's log",
    }
}

/// Makes `command` start under a filter that answers by itself, without a supervisor.
///
/// # Errors
/// Another architecture than x86_64 and aarch64. That the kernel refuses the filter shows as an error of the
/// command's spawn.
pub fn deny(command: &mut Command, denial: Denial) -> Result<(), InjectError> {
    let arch = filter::ARCHITECTURE.ok_or(InjectError::Architecture)?;
    let program = match denial {
        Denial::Setup(errno) => filter::deny_setup(arch, errno),
        Denial::SubmitsAbove(most, errno) => filter::deny_submits_above(arch, most, errno),
        Denial::Ipv6 => filter::deny_ipv6(arch),
    };
    // SAFETY: the closure only makes system calls on memory that was there before the fork.
    unsafe { command.pre_exec(move || filter::install(&program)) };
    Ok(())
}

impl Injector {
    /// Starts `command` with its calls under supervision; nothing fails until it is ordered.
    ///
    /// # Errors
    /// See [`InjectError`]; the command does not run then.
    pub fn spawn(mut command: Command, syscalls: Syscalls) -> Result<(Child, Self), InjectError> {
        let arch = filter::ARCHITECTURE.ok_or(InjectError::Architecture)?;
        let room = |source| InjectError::Supervisor {
            what: "sockets to its child",
            source,
        };
        let (theirs, ours) = handover::pair().map_err(room)?;
        let text = match syscalls {
            Syscalls::Submissions => filter::watch_submissions(arch),
            Syscalls::Enters => filter::watch_enters(arch),
        };
        let socket = theirs.as_raw_fd();
        // SAFETY: the closure only makes system calls on memory that was there before the fork, and `theirs` stays
        // open until the spawn below is over, so that `socket` is the child's copy of it.
        unsafe {
            command.pre_exec(move || {
                let socket = std::os::fd::BorrowedFd::borrow_raw(socket);
                match filter::install_watched(&text) {
                    Ok(listener) => {
                        handover::tell(socket, Step::FilterInstalled, Some(listener.as_fd()))
                    }
                    Err(error) => {
                        handover::tell(socket, Step::FilterRefused, None)?;
                        Err(error)
                    }
                }
            });
        }
        let spawned = command.spawn();
        drop(theirs);
        let heard = handover::hear(&ours).map_err(room)?;
        match (spawned, heard) {
            (Ok(mut child), Some((Step::FilterInstalled, Some(listener)))) => {
                match Self::supervise(listener, syscalls) {
                    Ok(injector) => Ok((child, injector)),
                    Err(source) => {
                        end(&mut child);
                        Err(InjectError::Supervisor {
                            what: "thread",
                            source,
                        })
                    }
                }
            }
            (Ok(mut child), _) => {
                end(&mut child);
                let source = io::Error::from_raw_os_error(libc::EMFILE);
                Err(InjectError::Supervisor {
                    what: "room for the notification descriptor",
                    source,
                })
            }
            (Err(source), Some((Step::FilterRefused, _))) => Err(InjectError::Refused { source }),
            (Err(source), _) => {
                let program = command.get_program().to_string_lossy().into_owned();
                Err(InjectError::Spawn { program, source })
            }
        }
    }
}

/// Ends a child that nobody will supervise.
fn end(child: &mut Child) {
    // It may be gone already, and then there is nothing to end.
    let _ = child.kill();
    let _ = child.wait();
}

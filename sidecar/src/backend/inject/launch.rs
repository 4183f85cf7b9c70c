//! What a launcher needs around its child: signals as something to wait for, passed on to the child, and a child
//! that does not outlive it.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::ptr;

/// A signal that a launcher waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchSignal {
    /// The child ended, stopped or went on.
    Child,
    /// SIGTERM or SIGINT (its number), sent by a process and so meant to be passed on.
    Sent(i32),
    /// SIGINT of a terminal (its number), which the child got as well.
    Terminal(i32),
}

/// SIGTERM, SIGINT and SIGCHLD, blocked in this thread and those that it starts, and waited for here.
#[derive(Debug)]
pub struct LaunchSignals(OwnedFd);

impl LaunchSignals {
    /// Blocks the signals. To be called before other threads are there. A child inherits that, and never hears of
    /// SIGTERM, unless it is started with [`unblock_in_child`].
    ///
    /// # Errors
    /// What the kernel answered, such as EMFILE.
    pub fn block() -> io::Result<Self> {
        // SAFETY: all zeroes is a valid set, which sigemptyset then makes empty; all calls only touch `set`.
        let fd = unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD] {
                libc::sigaddset(&raw mut set, signal);
            }
            let blocked = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut());
            if blocked != 0 {
                return Err(io::Error::from_raw_os_error(blocked));
            }
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor, which nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Waits for the next signal.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn wait(&self) -> io::Result<LaunchSignal> {
        // SAFETY: all zeroes is a valid signalfd_siginfo.
        let mut info: libc::signalfd_siginfo = unsafe { mem::zeroed() };
        let size = mem::size_of::<libc::signalfd_siginfo>();
        loop {
            // SAFETY: `info` has room for the `size` bytes that are asked for.
            let got = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut info).cast(), size) };
            if got < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            }
            let number = info.ssi_signo as i32;
            return Ok(match number {
                libc::SIGCHLD => LaunchSignal::Child,
                _ if info.ssi_code == libc::SI_KERNEL => LaunchSignal::Terminal(number),
                _ => LaunchSignal::Sent(number),
            });
        }
    }
}

/// Sends `signal` to a child that has not been waited for (so that its id is still its own).
///
/// # Errors
/// What the kernel answered.
pub fn pass_on(signal: i32, child: &Child) -> io::Result<()> {
    // SAFETY: kill takes numbers only.
    if unsafe { libc::kill(child.id() as libc::pid_t, signal) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The child starts with no signal blocked, whatever is blocked here.
pub fn unblock_in_child(command: &mut Command) {
    // SAFETY: the closure only makes async-signal-safe calls on memory of its own.
    unsafe {
        command.pre_exec(|| {
            let mut none: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&raw mut none);
            match libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        });
    }
}

/// The child gets SIGKILL when the thread that starts it ends, also when that is by a crash.
pub fn end_with_parent(command: &mut Command) {
    // SAFETY: the closure makes one system call.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

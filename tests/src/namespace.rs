//! A network namespace for each test: ports and congestion control of its own, and nothing leaves the machine.
//!
//! It owns how a test gets there: as root by a thread's own namespace, otherwise by running the test again in a user
//! namespace. A test that can have neither is skipped, loudly.
#![allow(unsafe_code)]

use std::env;
use std::fs;
use std::io;
use std::mem;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::panic;
use std::process::{Command, Stdio};
use std::thread;

use crate::skip::skip;

/// A test `NAME` whose `BODY` runs in a network namespace of its own.
#[macro_export]
macro_rules! namespaced {
    ($name:ident, $body:expr) => {
        #[test]
        fn $name() {
            $crate::namespace::run(concat!(module_path!(), "::", stringify!($name)), || $body);
        }
    };
}

/// Set in a test that was started again inside a user namespace.
const INSIDE: &str = "RINGSIDE_TESTS_INSIDE";

/// Runs `body` in a network namespace of its own, on a thread of its own. `test` is the test's full path as
/// [`module_path!`] and its name give it; threads and processes that `body` starts are in the namespace too.
pub fn run(test: &str, body: impl FnOnce() + Send + 'static) {
    // Cargo's tests do not know the name of their crate.
    let name = test
        .split_once("::")
        .map_or(test, |(_, rest)| rest)
        .to_owned();
    raise_descriptor_limit();
    let inside = {
        let name = name.clone();
        thread::Builder::new().name(name).spawn(move || {
            enter()?;
            body();
            Ok::<(), io::Error>(())
        })
    };
    match inside.expect("a thread for the test").join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) if env::var_os(INSIDE).is_some() => {
            skip(&name, &format!("no network namespace: {error}"));
        }
        Ok(Err(error)) => run_again(&name, &error),
        Err(panicked) => panic::resume_unwind(panicked),
    }
}

/// Runs one test of this executable again, where this user is root of a user namespace.
fn run_again(name: &str, error: &io::Error) {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user"]);
        command
    };
    let permitted = unshare()
        .arg("true")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !permitted.is_ok_and(|status| status.success()) {
        skip(
            name,
            &format!("no network namespace ({error}) and no user namespace; run the tests as root"),
        );
        return;
    }
    let output = unshare()
        .arg(env::current_exe().expect("a running test has a path"))
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("the test runs again in a user namespace");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "in a user namespace:\n{said}");
    assert!(
        said.contains("1 passed"),
        "`{name}` is not the name of a test:\n{said}"
    );
}

/// Runs `body` of a program in a network namespace of its own: as root on this thread, otherwise by becoming root of a user
/// namespace first, which starts the program again.
///
/// # Errors
/// That neither can be had, or `body`'s own.
pub fn run_program<T>(body: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    use std::os::unix::process::CommandExt;

    raise_descriptor_limit();
    match enter() {
        Ok(()) => body(),
        Err(error) if env::var_os(INSIDE).is_some() => {
            anyhow::bail!("no network namespace of its own can be had ({error}); run it as root")
        }
        Err(_) => {
            let again = Command::new("unshare")
                .args(["--user", "--map-root-user"])
                .arg(env::current_exe()?)
                .args(env::args_os().skip(1))
                .env(INSIDE, "1")
                .exec();
            anyhow::bail!("no user namespace can be had ({again}); run it as root")
        }
    }
}

/// Moves this thread into a new network namespace with a loopback that works and does not pace.
pub(crate) fn enter() -> io::Result<()> {
    // SAFETY: unshare takes a number and concerns this thread only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    bring_up_loopback()?;
    // The machine's default may be BBR, whose pacing on loopback hides what is measured.
    fs::write("/proc/sys/net/ipv4/tcp_congestion_control", "reno")
}

/// Bounds what the kernel buffers of one stream for its sender, in this test's namespace, so that a stalled stream
/// comes to a standstill soon.
pub fn set_send_buffers(most_bytes: usize) -> io::Result<()> {
    let sizes = format!("4096 16384 {most_bytes}");
    fs::write("/proc/sys/net/ipv4/tcp_wmem", sizes)
}

/// How long the kernel remembers a stream that one side has closed and the other has not, in this test's namespace. It
/// answers for that long with the window that the stream had, so that a sender that found it shut learns of the end no
/// earlier; the default is a minute.
pub fn set_half_closed_memory(seconds: u32) -> io::Result<()> {
    fs::write("/proc/sys/net/ipv4/tcp_fin_timeout", seconds.to_string())
}

fn bring_up_loopback() -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: `request` is a whole ifreq with a name and flags, as this ioctl reads it.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A thousand connections need more descriptors than a shell grants at first.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel fills `limit`, then reads it.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max.min(65_536);
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

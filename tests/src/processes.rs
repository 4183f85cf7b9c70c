//! Other people's programs: found, started, and ended when dropped; their output is kept and shown when a test fails.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use ringside::backend::inject::{self, Injector, Syscalls};
use tempfile::TempDir;

use crate::skip::skip;
use crate::{PATIENCE, await_some, await_that};

/// Where `program` is, also in the folders that only root's PATH names.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Whether all `programs` are installed; if not, `test` is written down as skipped and should return.
pub fn installed(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<&str> = programs
        .iter()
        .copied()
        .filter(|program| find(program).is_none())
        .collect();
    if !missing.is_empty() {
        skip(
            test,
            &format!(
                "{} not installed; `make test` installs it",
                missing.join(", ")
            ),
        );
    }
    missing.is_empty()
}

/// A command for an installed `program`.
pub fn command(program: &str) -> Command {
    Command::new(find(program).unwrap_or_else(|| panic!("`{program}` is not installed")))
}

/// A port of 127.0.0.1 that nobody uses, for programs that cannot be told to choose. In a namespace of the
/// test's own nobody else can take it.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback");
    listener
        .local_addr()
        .expect("a bound listener has an address")
        .port()
}

/// Waits until somebody listens at `address`, without a connection that would have to be explained to them.
#[track_caller]
pub fn await_listening(address: SocketAddr) {
    await_that(&format!("a listener at {address}"), || {
        is_listening(address.port())
    });
}

/// Whether this thread's namespace has a TCP listener at `port`, by the kernel's table: `sl local remote state ...`,
/// with the port in hexadecimal at the end of `local`, and 0A for listening.
fn is_listening(port: u16) -> bool {
    let end = format!(":{port:04X}");
    ["tcp", "tcp6"].iter().any(|table| {
        let table =
            fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
        table.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.len() > 3 && words[1].ends_with(&end) && words[3] == "0A"
        })
    })
}

/// A running process with a folder of its own; killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    folder: TempDir,
    /// Dropped after the child is gone.
    injector: Option<Injector>,
}

impl Process {
    /// Starts a process whose output goes to a log. `prepare` is given the process's folder and makes the command.
    #[track_caller]
    pub fn start(name: &str, prepare: impl FnOnce(&Path) -> Command) -> Self {
        Self::start_watched(name, None, prepare)
    }

    /// As [`start`](Self::start), with an injector where `watched`.
    #[track_caller]
    pub fn start_watched(
        name: &str,
        watched: Option<Syscalls>,
        prepare: impl FnOnce(&Path) -> Command,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder for a process");
        let mut command = prepare(folder.path());
        let log = File::create(folder.path().join("log")).expect("a log for a process");
        let same = log.try_clone().expect("a second descriptor of the log");
        command.stdin(Stdio::null()).stdout(log).stderr(same);
        inject::end_with_parent(&mut command);
        let (child, injector) = match watched {
            Some(syscalls) => {
                let (child, injector) =
                    Injector::spawn(command, syscalls).unwrap_or_else(|error| panic!("{error}"));
                (child, Some(injector))
            }
            None => (
                command
                    .spawn()
                    .unwrap_or_else(|error| panic!("`{name}` cannot be started: {error}")),
                None,
            ),
        };
        Self {
            name: name.to_owned(),
            child,
            folder,
            injector,
        }
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A folder that lives as long as the process.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What orders its faults; only of a process that was started so.
    pub fn injector(&self) -> &Injector {
        self.injector
            .as_ref()
            .expect("this process was started without an injector")
    }

    /// Sends it a signal.
    #[track_caller]
    pub fn signal(&self, signal: i32) {
        inject::pass_on(signal, &self.child)
            .unwrap_or_else(|error| panic!("`{}` got no signal: {error}", self.name));
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn await_end(&mut self) -> ExitStatus {
        let what = format!("`{}` to end", self.name);
        await_some(&what, || self.ended())
    }

    /// The CPU time of all its threads that are alive, at the scheduler's resolution.
    #[track_caller]
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid()))
            .expect("a running process has threads");
        tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
            .filter_map(|text| text.split_whitespace().next()?.parse().ok())
            .map(Duration::from_nanos)
            .sum()
    }

    /// How many descriptors it has open.
    #[track_caller]
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("a running process has descriptors")
            .count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let ended = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("--- the last lines of `{}` ({ended:?}):", self.name);
            for line in last.iter().rev() {
                eprintln!("    {line}");
            }
        }
    }
}

/// Runs a command to its end, at most [`PATIENCE`] long, and returns what it printed; panics if it fails.
#[track_caller]
pub fn output(name: &str, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> String {
    let mut process = Process::start(name, |_| {
        let mut command = command(name);
        command.args(arguments);
        command
    });
    let status = process.await_end();
    let log = process.log();
    assert!(
        status.success(),
        "`{name}` failed ({status}) within {PATIENCE:?}:\n{log}"
    );
    log
}

/// Whether a listener of this kind can be had, as IPv6 cannot everywhere.
pub fn can_listen(address: &str) -> io::Result<()> {
    TcpListener::bind(address).map(drop)
}

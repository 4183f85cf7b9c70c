//! What is done inside a cluster's network, where pods and Services have addresses: by programs of this machine, and by the test itself.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::{Command, ExitStatus};
use std::{fmt, panic, thread};

use ringside::backend::inject;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Cluster, scripts};

/// What a program said.
#[derive(Debug, Clone)]
pub struct Said {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl fmt::Display for Said {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}\n{}{}", self.status, self.out, self.err)
    }
}

impl Cluster {
    /// A program of this machine in the network of the first node, with kubectl and helm on its `PATH`; it ends with the thread that
    /// starts it. Standard input is empty.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.scripts.command("shell");
        command.arg(program);
        inject::end_with_parent(&mut command);
        command
    }

    /// A program of this machine among a node's namespaces and files, such as `ctr` or `nft`. Nodes count from 1.
    pub fn node_command(&self, node: u32, program: &str) -> Command {
        let mut command = self.command(program);
        command.env("NODE", format!("n{node}"));
        command
    }

    /// Runs a program as [`command`](Self::command) does, which must succeed, and returns its standard output.
    ///
    /// # Panics
    /// If it fails, with what it said.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let said = self.attempt(program, arguments);
        assert!(
            said.status.success(),
            "{program} {arguments:?} failed: {said}"
        );
        said.out
    }

    /// Runs a program as [`command`](Self::command) does, whatever comes of it.
    #[track_caller]
    pub fn attempt(&self, program: &str, arguments: &[&str]) -> Said {
        let mut command = self.command(program);
        command.args(arguments);
        let output = scripts::output(command);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            status: output.status,
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// Does `work` on a thread in the network of the first node: its sockets, and those of the threads and processes that it starts, reach
    /// pods and Services, by address: names are those of [`command`](Self::command) alone. kubectl and Helm work there as well, so a whole
    /// story may be told there. Processes of the tests' own (such as a Prometheus) end with the thread that started them, so they have to
    /// be started and used within `work`.
    ///
    /// # Panics
    /// As `work` does, and if the cluster is not there.
    #[track_caller]
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = self.scripts.state().join("pid");
        let pid =
            fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let network = File::open(format!("/proc/{}/ns/net", pid.trim()));
        let network = network.unwrap_or_else(|error| panic!("the cluster's network: {error}"));
        let done = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap_or_else(|error| panic!("the cluster's network: {error}"));
                work()
            });
            inside.join()
        });
        done.unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    }
}

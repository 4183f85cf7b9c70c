//! The scripts of `e2e/cluster/`, as a test runs them on the cluster of one name, and the end that comes however the test ends.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use ringside::backend::inject;

use crate::chart::project;

/// What `up` ends with where there can be no cluster.
const CANNOT_BE_HAD: i32 = 3;

/// Why there is no cluster.
#[derive(Debug)]
pub(super) enum Failure {
    /// It cannot be had here: a reason to skip.
    Absent(String),
    /// It should have come up.
    Broken(String),
}

/// The scripts for one cluster.
#[derive(Debug, Clone)]
pub(super) struct Scripts {
    name: String,
    state: PathBuf,
}

impl Scripts {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: PathBuf::new(),
        }
    }

    /// With the cluster's files.
    pub(super) fn at(self, state: PathBuf) -> Self {
        Self { state, ..self }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    /// A script, to be given arguments.
    pub(super) fn command(&self, script: &str) -> Command {
        let mut command = Command::new(project().join("e2e/cluster").join(script));
        command.env("CLUSTER", &self.name).stdin(Stdio::null());
        command
    }

    /// Brings the cluster up, or finds it up.
    pub(super) fn up(&self, nodes: u32) -> Result<(), Failure> {
        let mut command = self.command("up");
        command.arg("--prepared").env("NODES", nodes.to_string());
        let output = output(command);
        let said = text(&output);
        match output.status.code() {
            Some(0) => Ok(()),
            Some(CANNOT_BE_HAD) => Err(Failure::Absent(
                said.lines().last().unwrap_or_default().to_owned(),
            )),
            _ => Err(Failure::Broken(said)),
        }
    }

    /// Runs a script, which must succeed, and returns its standard output.
    #[track_caller]
    pub(super) fn run(&self, script: &str, arguments: &[&str]) -> String {
        let mut command = self.command(script);
        command.args(arguments);
        let output = output(command);
        assert!(
            output.status.success(),
            "e2e/cluster/{script} {arguments:?} failed ({}): {}",
            output.status,
            text(&output)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Runs a command to its end; with the test it ends as well.
pub(super) fn output(mut command: Command) -> Output {
    inject::end_with_parent(&mut command);
    let output = command.output();
    output.unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Ends a cluster when it is dropped, and at the latest with this process, however that ends: a shell holds the reading end of a
/// pipe whose writing end is ours.
#[derive(Debug)]
pub struct Keeper(Child);

impl Keeper {
    pub(super) fn new(scripts: &Scripts) -> Self {
        let down = scripts.command("down");
        let shell = Command::new("/bin/sh")
            .args(["-c", r#"trap "" INT TERM HUP; read -r _; exec "$1""#, "sh"])
            .arg(down.get_program())
            .env("CLUSTER", &scripts.name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // An interrupt from the terminal is for the tests; this one has to come after them.
            .process_group(0)
            .spawn();
        Self(shell.expect("a shell that ends a cluster"))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

//! The load of a trial: the bench's tool as application and as clients, on a CPU of their own, and a relay between them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::Side;
use crate::await_some;
use crate::processes::Process;
use crate::relay::{Relay, program};

/// Clients and application; the relay has the other one.
const LOAD_CPU: &str = "0";

/// Seconds that a workload of time is measured for.
pub(super) const SECONDS: &str = "1.5";

/// The load tool, which is built beside the relay.
fn tool() -> anyhow::Result<PathBuf> {
    let path = program().with_file_name("ringside-load");
    ensure!(
        path.is_file(),
        "there is no {}: `make tuning` builds it",
        path.display()
    );
    Ok(path)
}

/// The tool with these words, on its CPU.
fn command(words: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new("taskset");
    command.args(["-c", LOAD_CPU]).arg(tool()?).args(words);
    Ok(command)
}

/// An application and a relay before it.
pub(super) struct Stage {
    /// The relay.
    pub relay: Relay,
    _application: Process,
}

impl Stage {
    /// Starts both.
    pub(super) fn start(side: &Side) -> anyhow::Result<Self> {
        Self::start_as(side, |setup| setup)
    }

    /// The same with a relay that is changed before it starts.
    pub(super) fn start_as(
        side: &Side,
        change: impl FnOnce(crate::relay::Setup) -> crate::relay::Setup,
    ) -> anyhow::Result<Self> {
        tool()?;
        let is_unix = side.is_unix();
        let application = Process::start("the application", |folder| {
            let listen = if is_unix {
                format!("unix:{}", folder.join("app.sock").display())
            } else {
                "127.0.0.1:0".to_owned()
            };
            command(&["serve", "--listen", &listen]).expect("the tool is there")
        });
        let target = await_some("the application to listen", || {
            let log = application.log();
            let line = log.lines().find_map(|line| line.strip_prefix("listening "));
            line.map(str::to_owned)
        });
        Ok(Self {
            relay: change(side.setup(&target)).start(),
            _application: application,
        })
    }

    /// Runs a workload to its end; the tool's record of it.
    pub(super) fn run(&self, words: &[&str]) -> anyhow::Result<Value> {
        let address = self.relay.address().to_string();
        let pid = self.relay.process().pid().to_string();
        let aim = ["--target", &address, "--pid", &pid];
        let output = command(&[words, &aim].concat())?
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "{words:?}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_str(&said).with_context(|| format!("{words:?} said {said}"))
    }

    /// Starts a workload that goes on beside another one.
    pub(super) fn beside(&self, words: &[&str]) -> anyhow::Result<Process> {
        let address = self.relay.address().to_string();
        let mut command = command(&[words, &["--target", &address]].concat())?;
        command.stdin(Stdio::null());
        Ok(Process::start("load beside", |_| command))
    }

    /// The relay's resident memory, in MiB.
    pub(super) fn resident_mib(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/status", self.relay.process().pid());
        let text = fs::read_to_string(path)?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        let kib: f64 = kib.context("VmRSS of the relay")?.parse()?;
        Ok(kib / 1024.0)
    }
}

/// A number of a record.
pub(super) fn number(record: &Value, path: &str) -> anyhow::Result<f64> {
    let value = record.pointer(path).and_then(Value::as_f64);
    value.with_context(|| format!("no {path} in {record}"))
}

/// The relay's CPU for a unit of work, in microseconds.
pub(super) fn cpu(record: &Value) -> anyhow::Result<f64> {
    number(record, "/relay_cpu_us_per_unit")
}

/// Units of work in a second.
pub(super) fn rate(record: &Value) -> anyhow::Result<f64> {
    Ok(number(record, "/units")? / number(record, "/seconds")?)
}

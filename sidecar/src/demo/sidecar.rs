//! The sidecar of the demo: this program in a process of its own, whose submissions can be made to fail.
//! It owns that process and a folder for its configuration, and ends both when dropped.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::backend::inject::{self, Errno, Injector, Syscalls};

/// How long the sidecar may take to be ready, or to end after its drain.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether submissions can be made to fail here.
pub(super) enum Injection {
    /// They can.
    Possible,
    /// They cannot; says why.
    Refused(String),
}

pub(super) struct Sidecar {
    process: Child,
    injector: Result<Injector, String>,
    folder: tempfile::TempDir,
    pub(super) address: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) backend: String,
}

impl Sidecar {
    /// Starts a sidecar before `application`, and returns once it is ready.
    pub(super) fn start(application: SocketAddr) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no folder for the sidecar's configuration")?;
        std::fs::write(
            folder.path().join("ringside.yaml"),
            configuration(application),
        )?;
        let (process, injector) =
            match Injector::spawn(command(folder.path())?, Syscalls::Submissions) {
                Ok((process, injector)) => (process, Ok(injector)),
                Err(refused) => {
                    let mut plain = command(folder.path())?;
                    let process = plain.spawn().context("the sidecar could not be started")?;
                    (process, Err(refused.to_string()))
                }
            };
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut sidecar = Sidecar {
            process,
            injector,
            folder,
            address: unknown,
            admin: unknown,
            backend: String::new(),
        };
        sidecar.await_ready()?;
        Ok(sidecar)
    }

    fn await_ready(&mut self) -> anyhow::Result<()> {
        let port_file = self.folder.path().join("admin");
        let began = Instant::now();
        while !port_file.exists() {
            self.check_alive()?;
            if began.elapsed() > PATIENCE {
                bail!("the sidecar was not ready within {PATIENCE:?}; its log is above");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.admin = std::fs::read_to_string(&port_file)?
            .trim()
            .parse()
            .context("the sidecar's admin address")?;
        let status = super::measurement::status(self.admin)?;
        let address = status["relays"][0]["listen"][0]
            .as_str()
            .unwrap_or_default();
        self.address = address
            .parse()
            .context("the sidecar's status names no address for its relay")?;
        self.backend = status["workers"][0]["backend"]
            .as_str()
            .unwrap_or("?")
            .to_owned();
        if self.injector.is_ok() && self.backend != "ring" {
            let reason = status["workers"][0]["reason"].as_str().unwrap_or_default();
            self.injector = Err(format!(
                "the sidecar runs on {} ({reason}), which submits nothing",
                self.backend
            ));
        }
        Ok(())
    }

    pub(super) fn injection(&self) -> Injection {
        match &self.injector {
            Ok(_) => Injection::Possible,
            Err(why) => Injection::Refused(why.clone()),
        }
    }

    /// Makes all its submissions fail for so long.
    pub(super) fn refuse_submissions(&self, time: Duration, errno: Errno) {
        if let Ok(injector) = &self.injector {
            injector.fail_for(time, errno);
        }
    }

    /// Lets its submissions through again.
    pub(super) fn stop_refusing(&self) {
        if let Ok(injector) = &self.injector {
            injector.stop();
        }
    }

    /// How many submissions were made to fail so far.
    pub(super) fn refused(&self) -> u64 {
        self.injector
            .as_ref()
            .map_or(0, |injector| injector.counts().failed)
    }

    /// An error if the process has ended.
    pub(super) fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the sidecar ended on its own ({status}); its log is above"),
        }
    }

    /// Ends it as Kubernetes would, by SIGTERM; whether it drained and ended well within its time.
    pub(super) fn drain(&mut self) -> anyhow::Result<bool> {
        inject::pass_on(libc::SIGTERM, &self.process)?;
        let began = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status.success());
            }
            if began.elapsed() > PATIENCE {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // Already over, unless the demo failed half-way.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(folder: &Path) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("this program's own path is not known")?;
    let mut command = Command::new(program);
    command
        .arg("relay")
        .arg("--config")
        .arg(folder.join("ringside.yaml"));
    command.arg("--admin-port-file").arg(folder.join("admin"));
    // Its log would run through the demo's lines; warnings and errors are shown where the demo fails.
    command.args(["--log-level", "error"]).stdin(Stdio::null());
    inject::end_with_parent(&mut command);
    Ok(command)
}

/// Shorter times for readiness than the defaults, so that the story fits half a minute.
fn configuration(application: SocketAddr) -> String {
    format!(
        "relays:\n  - {{name: demo, listen: \"127.0.0.1:0\", target: \"{application}\"}}\n\
         admin: \"127.0.0.1:0\"\nworkers: 1\nsettings:\n  \
         readiness: {{unreadyAfter: 1s, recoverAfter: 3s}}\n  \
         timeouts: {{drain: 5s, drainNotice: 100ms}}\n"
    )
}

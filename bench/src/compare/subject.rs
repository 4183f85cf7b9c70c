//! The relays that are compared, and how each is started, awaited and ended.
//!
//! Owns the processes that it starts: they end when the value is dropped, also after a failure. Must never measure
//! anything but the time to readiness.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use crate::process::Processes;
use crate::system;
use crate::wire::Purpose;

const READY_PATIENCE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_micros(200);
const END_PATIENCE: Duration = Duration::from_millis(500);

/// A relay to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Subject {
    /// HAProxy, mode tcp, one thread: what the others are measured against.
    Haproxy,
    /// The same with splice(2).
    HaproxySplice,
    /// nginx's stream module, one worker.
    Nginx,
    /// Ringside on io_uring, one worker.
    RingsideRing,
    /// Ringside on epoll, one worker.
    RingsideEpoll,
    /// Ringside on the tokio-uring runtime, one worker.
    RingsideTokioUring,
    /// No relay: the client calls the application.
    Direct,
}

impl Subject {
    /// Its name on the command line and in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::HaproxySplice => "haproxy-splice",
            Self::Nginx => "nginx",
            Self::RingsideRing => "ringside-ring",
            Self::RingsideEpoll => "ringside-epoll",
            Self::RingsideTokioUring => "ringside-tokio-uring",
            Self::Direct => "direct",
        }
    }
}

/// How Ringside is told what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RingsideSettings {
    /// By flags, with its default limits (their rate of accepts bounds churn).
    Flags,
    /// By a settings file with the limits that the peers have (bench/peers/ringside.yaml).
    File,
}

/// Where the relays' programs are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Programs {
    /// HAProxy's program.
    #[arg(long, default_value = "/usr/sbin/haproxy", value_name = "PATH")]
    haproxy: PathBuf,
    /// nginx's program.
    #[arg(long, default_value = "/usr/sbin/nginx", value_name = "PATH")]
    nginx: PathBuf,
    /// nginx's stream module.
    #[arg(
        long,
        default_value = "/usr/lib/nginx/modules/ngx_stream_module.so",
        value_name = "PATH"
    )]
    nginx_stream_module: PathBuf,
    /// Ringside's program [default: the one beside this program].
    #[arg(long, value_name = "PATH")]
    ringside: Option<PathBuf>,
    /// How Ringside is configured.
    #[arg(long, value_enum, default_value = "flags")]
    ringside_settings: RingsideSettings,
}

/// Where one start of a relay listens and what it relays to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The application.
    pub target: SocketAddr,
    /// Where Ringside answers probes.
    pub admin: SocketAddr,
}

impl Programs {
    fn ringside(&self) -> PathBuf {
        let beside = || {
            std::env::current_exe()
                .map(|own| own.with_file_name("ringside"))
                .unwrap_or_default()
        };
        self.ringside.clone().unwrap_or_else(beside)
    }

    /// Why `subject` cannot be started on this machine, if so.
    pub(crate) fn missing(&self, subject: Subject) -> Option<String> {
        let needed: &[&Path] = match subject {
            Subject::Haproxy | Subject::HaproxySplice => &[&self.haproxy],
            Subject::Nginx => &[&self.nginx, &self.nginx_stream_module],
            Subject::RingsideRing | Subject::RingsideEpoll | Subject::RingsideTokioUring => {
                &[&self.ringside()]
            }
            Subject::Direct => &[],
        };
        let absent = needed.iter().find(|path| !path.exists())?;
        Some(format!("{} is not there", absent.display()))
    }

    /// The version that `subject`'s program gives itself, in a line.
    pub(crate) fn version(&self, subject: Subject) -> Option<String> {
        let (program, flag) = match subject {
            Subject::Haproxy | Subject::HaproxySplice => (self.haproxy.clone(), "-v"),
            Subject::Nginx => (self.nginx.clone(), "-v"),
            Subject::RingsideRing | Subject::RingsideEpoll | Subject::RingsideTokioUring => {
                (self.ringside(), "--version")
            }
            Subject::Direct => return None,
        };
        let output = Command::new(program).arg(flag).output().ok()?;
        if !output.status.success() {
            return Some(format!("{} gives no version", subject.name()));
        }
        let text = [output.stdout, output.stderr].concat();
        let line = String::from_utf8_lossy(&text)
            .lines()
            .next()?
            .trim()
            .to_owned();
        Some(
            line.split(" - http")
                .next()
                .unwrap_or_default()
                .trim_start_matches("nginx version: ")
                .to_owned(),
        )
    }

    /// Writes what configuration `subject` needs into `folder` and returns the command that starts it.
    fn command(&self, subject: Subject, at: Addresses, folder: &Path) -> anyhow::Result<Command> {
        let write =
            |name: &str, template: &str, more: &[(&str, String)]| -> anyhow::Result<PathBuf> {
                let mut text = template
                    .replace("{listen}", &at.listen.to_string())
                    .replace("{target}", &at.target.to_string())
                    .replace("{admin}", &at.admin.to_string())
                    .replace("{folder}", &folder.display().to_string());
                for (place, value) in more {
                    text = text.replace(place, value);
                }
                let path = folder.join(name);
                fs::write(&path, text)
                    .with_context(|| format!("cannot write {}", path.display()))?;
                Ok(path)
            };
        let haproxy = |template| -> anyhow::Result<Command> {
            let mut command = Command::new(&self.haproxy);
            command
                .arg("-db")
                .arg("-f")
                .arg(write("haproxy.cfg", template, &[])?);
            Ok(command)
        };
        Ok(match subject {
            Subject::Haproxy => haproxy(include_str!("../../peers/haproxy.cfg"))?,
            Subject::HaproxySplice => haproxy(include_str!("../../peers/haproxy-splice.cfg"))?,
            Subject::Nginx => {
                let module = [(
                    "{stream_module}",
                    self.nginx_stream_module.display().to_string(),
                )];
                let mut command = Command::new(&self.nginx);
                command.arg("-c").arg(write(
                    "nginx.cfg",
                    include_str!("../../peers/nginx.cfg"),
                    &module,
                )?);
                command.arg("-e").arg("stderr");
                command
            }
            Subject::RingsideRing | Subject::RingsideEpoll | Subject::RingsideTokioUring => {
                let backend = subject.name().trim_start_matches("ringside-");
                let mut command = Command::new(self.ringside());
                command.arg("relay");
                match self.ringside_settings {
                    RingsideSettings::Flags => {
                        command
                            .arg("--relay")
                            .arg(format!("web={}:{}", at.listen, at.target));
                        command.arg("--admin").arg(at.admin.to_string());
                        command.args(["--backend", backend, "--workers", "1"]);
                    }
                    RingsideSettings::File => {
                        let backend = [("{backend}", backend.to_owned())];
                        let file = write(
                            "ringside.yaml",
                            include_str!("../../peers/ringside.yaml"),
                            &backend,
                        )?;
                        command.arg("--config").arg(file);
                    }
                }
                command
            }
            Subject::Direct => bail!("without a relay there is nothing to start"),
        })
    }

    /// Starts `subject` on `cpu` and waits until a byte has come back through it. The caller's own CPU is `own_cpu`.
    pub(crate) fn start(
        &self,
        subject: Subject,
        at: Addresses,
        folder: &Path,
        cpu: usize,
        own_cpu: usize,
    ) -> anyhow::Result<Running> {
        let command = self.command(subject, at, folder)?;
        let begin = Instant::now();
        let mut running = Running::spawn(command, &folder.join("output"), cpu, own_cpu)?;
        running.await_byte_through(at.listen, begin + READY_PATIENCE)?;
        running.ready = begin.elapsed();
        running.processes = Processes::tree(running.child.id());
        Ok(running)
    }
}

/// A process started here, with what it starts itself. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    output: PathBuf,
    /// Itself and its descendants.
    pub processes: Processes,
    /// From before it was started until the first byte came back through it.
    pub ready: Duration,
}

impl Running {
    /// Starts `command` on `cpu`, its output going to a file. The calling thread is back on `own_cpu` afterwards.
    pub(crate) fn spawn(
        mut command: Command,
        output: &Path,
        cpu: usize,
        own_cpu: usize,
    ) -> anyhow::Result<Self> {
        let file =
            File::create(output).with_context(|| format!("cannot write {}", output.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        system::end_with_parent(&mut command);
        system::pin_to_cpu(cpu)
            .with_context(|| format!("cannot run on CPU {cpu}: does it exist?"))?;
        let child = command.spawn();
        system::pin_to_cpu(own_cpu)
            .with_context(|| format!("cannot run on CPU {own_cpu}: does it exist?"))?;
        let child =
            child.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let processes = Processes::of(&[child.id()]);
        Ok(Self {
            child,
            output: output.to_owned(),
            processes,
            ready: Duration::ZERO,
        })
    }

    /// Connects until a byte comes back from the application by way of `listen`.
    pub(crate) fn await_byte_through(
        &mut self,
        listen: SocketAddr,
        deadline: Instant,
    ) -> anyhow::Result<()> {
        loop {
            if byte_comes_back(listen).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended at once ({status}): {}", self.last_words());
            }
            if Instant::now() > deadline {
                bail!(
                    "no byte came back through it within {} s: {}",
                    READY_PATIENCE.as_secs(),
                    self.last_words()
                );
            }
            thread::sleep(RETRY);
        }
    }

    /// The last lines that it printed.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.output).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        if lines.is_empty() {
            return "it printed nothing".into();
        }
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = system::ask_to_end(self.child.id());
        let deadline = Instant::now() + END_PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // A drain that takes its time: nothing is left to lose. Children first, or they would be orphans.
                for pid in Processes::tree(self.child.id()).pids().iter().rev() {
                    let _ = system::end_at_once(*pid);
                }
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn byte_comes_back(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(&[&Purpose::Echo.header()[..], b"?"].concat())?;
    stream.read_exact(&mut [0; 1])
}

//! What a test asks of the relay: which one, where it leads, with which settings, limits and faults.
//!
//! It owns how that becomes a command line and a configuration document. It starts nothing.

use std::env;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringside::backend::inject::{self, Denial, Syscalls};
use serde_json::{Value, json};

use crate::seccomp::Filter;
use crate::skip::build_folder;
use crate::traffic::Server;
use crate::{configuration, reference};

/// Which relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ringside on io_uring.
    Ring,
    /// Ringside on epoll.
    Epoll,
    /// Ringside on the tokio-uring runtime.
    TokioUring,
    /// Ringside, which chooses.
    Auto,
    /// HAProxy.
    Reference,
}

impl Kind {
    /// The name of its backend, as `--backend` takes it.
    ///
    /// # Panics
    /// HAProxy has none.
    pub fn backend(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Epoll => "epoll",
            Self::TokioUring => "tokio-uring",
            Self::Auto => "auto",
            Self::Reference => unreachable!("HAProxy takes no backend"),
        }
    }
}

/// One way through the relay, as its configuration has it.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Where it listens; port 0 lets the kernel choose.
    pub listen: String,
    /// Where it leads.
    pub target: String,
    /// `None` or `V2`.
    pub proxy_protocol: &'static str,
}

impl Route {
    /// From a port of 127.0.0.1 to `target`.
    pub fn new(name: &str, target: &str) -> Self {
        let (name, target) = (name.to_owned(), target.to_owned());
        Self {
            name,
            listen: "127.0.0.1:0".to_owned(),
            target,
            proxy_protocol: "None",
        }
    }

    /// Listening somewhere else.
    #[must_use]
    pub fn listening(mut self, listen: &str) -> Self {
        listen.clone_into(&mut self.listen);
        self
    }

    /// With a PROXY protocol header of version 2.
    #[must_use]
    pub fn with_proxy_header(mut self) -> Self {
        self.proxy_protocol = "V2";
        self
    }

    fn json(&self) -> Value {
        let Self {
            name,
            listen,
            target,
            proxy_protocol,
        } = self;
        json!({"name": name, "listen": listen, "target": target, "proxyProtocol": proxy_protocol})
    }
}

/// What to start. One worker unless said otherwise.
#[derive(Debug, Clone)]
pub struct Setup {
    pub(crate) kind: Kind,
    pub(crate) routes: Vec<Route>,
    settings: Value,
    workers: u32,
    descriptors: Option<u32>,
    pub(crate) watched: Option<Syscalls>,
    denial: Option<Denial>,
    filter: Option<Filter>,
    for_anyone: bool,
    under: Vec<OsString>,
    flags: Vec<OsString>,
    pub(crate) mounted: bool,
}

impl Setup {
    /// A relay with the built-in settings and no route.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            routes: Vec::new(),
            settings: json!({}),
            workers: 1,
            descriptors: None,
            watched: None,
            denial: None,
            filter: None,
            for_anyone: false,
            under: Vec::new(),
            flags: Vec::new(),
            mounted: false,
        }
    }

    /// With a route `web` to a server of the test.
    #[must_use]
    pub fn to(self, server: &Server) -> Self {
        self.route(Route::new("web", &server.target()))
    }

    /// With another route.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// With these settings, as the document's `settings` takes them.
    #[must_use]
    pub fn settings(mut self, settings: Value) -> Self {
        self.settings = settings;
        self
    }

    /// With so many workers.
    #[must_use]
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// With a descriptor limit.
    #[must_use]
    pub fn descriptors(mut self, limit: u32) -> Self {
        self.descriptors = Some(limit);
        self
    }

    /// Under the fault injector.
    #[must_use]
    pub fn watched(mut self, syscalls: Syscalls) -> Self {
        self.watched = Some(syscalls);
        self
    }

    /// Under a filter that denies.
    #[must_use]
    pub fn denied(mut self, denial: Denial) -> Self {
        self.denial = Some(denial);
        self
    }

    /// Held to a seccomp profile.
    #[must_use]
    pub fn held_to(mut self, filter: &Filter) -> Self {
        self.filter = Some(filter.clone());
        self
    }

    /// With a program and a folder that any user may use, whoever runs the tests.
    #[must_use]
    pub fn for_anyone(mut self) -> Self {
        self.for_anyone = true;
        self
    }

    /// Started by this command line, which must replace itself by the relay or stay in its background.
    #[must_use]
    pub fn under<S: Into<OsString>>(mut self, command: impl IntoIterator<Item = S>) -> Self {
        self.under = command.into_iter().map(Into::into).collect();
        self
    }

    /// With more flags.
    #[must_use]
    pub fn flags(mut self, flags: impl IntoIterator<Item = OsString>) -> Self {
        self.flags = flags.into_iter().collect();
        self
    }

    /// With the configuration reached through the two symlinks of a mounted ConfigMap.
    #[must_use]
    pub fn mounted(mut self) -> Self {
        self.mounted = true;
        self
    }

    /// The configuration document.
    pub fn document(&self) -> Value {
        json!({
            "relays": self.routes.iter().map(Route::json).collect::<Vec<_>>(),
            "settings": self.settings,
            "admin": "127.0.0.1:0",
            "backend": self.kind.backend(),
            "workers": self.workers,
        })
    }

    /// The command, its files in `folder`, and where it will listen if that is known.
    pub(crate) fn prepare(&self, folder: &Path) -> (Command, Vec<SocketAddr>) {
        let (inner, addresses) = match self.kind {
            Kind::Reference => reference::prepare(folder, &self.routes),
            _ => {
                let config = folder.join(configuration::FILE);
                configuration::write(folder, self.mounted, &self.document().to_string());
                let program = if self.for_anyone {
                    open_to_all(folder)
                } else {
                    program()
                };
                let mut command = Command::new(program);
                command.arg("relay").arg("--config").arg(config);
                command
                    .arg("--admin-port-file")
                    .arg(folder.join("admin-port"))
                    .args(&self.flags);
                (command, Vec::new())
            }
        };
        let mut words: Vec<OsString> = self.under.clone();
        if let Some(limit) = self.descriptors {
            let shell = format!("ulimit -n {limit}; exec \"$@\"");
            words.extend(["/bin/sh", "-c", &shell, "sh"].map(OsString::from));
        }
        words.push(inner.get_program().to_owned());
        words.extend(inner.get_args().map(ToOwned::to_owned));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        if let Some(denial) = self.denial {
            inject::deny(&mut command, denial).unwrap_or_else(|error| panic!("{error}"));
        }
        if let Some(filter) = &self.filter {
            filter.hold(&mut command);
        }
        (command, addresses)
    }
}

/// Lets everybody use `folder`, and puts the relay's program there: the build's own folder may be for one user only.
fn open_to_all(folder: &Path) -> PathBuf {
    let path = folder.join("ringside");
    fs::hard_link(program(), &path)
        .or_else(|_| fs::copy(program(), &path).map(drop))
        .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(0o777)))
        .unwrap_or_else(|error| panic!("{} cannot be opened to all: {error}", folder.display()));
    path
}

/// The relay's program, which cargo puts beside the tests' own; `RINGSIDE_PROGRAM` names another.
pub fn program() -> PathBuf {
    if let Some(path) = env::var_os("RINGSIDE_PROGRAM") {
        return path.into();
    }
    let path = build_folder().join("ringside");
    assert!(
        path.is_file(),
        "there is no {}: run `cargo build -p ringside` first, or `make test`",
        path.display()
    );
    path
}

//! An API server with etcd, on loopback: shared by the tests of a program, or a test's own, which it may kill.
//!
//! It owns both processes, their folder, and whatever is written there. Nothing runs pods or controllers: namespaces are
//! never emptied, service accounts are made by nobody, and pods stay as [`crate::kubelet`] says they are.
//!
//! `KUBEBUILDER_ASSETS` names a folder with kube-apiserver, etcd and kubectl; else what `make apiserver` built is used.
//! `E2E_KUBECONFIG` names a cluster that is there already, in which each test makes namespaces of its own.

mod audit;
mod certificates;
mod folder;
mod kubectl;
mod processes;
mod programs;
mod tokens;

pub use audit::Asked;
pub(crate) use certificates::{Authority, Identity, random_token};
pub(crate) use folder::Folder;
pub(crate) use kubectl::unique;
pub use kubectl::{Answer, Namespace};
pub use programs::version;
pub(crate) use programs::{cache, find_program};
pub use tokens::signed_by_a_stranger;

use std::borrow::Borrow;
use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use ringside_tests::skip::skip;
use serde_json::json;

use processes::{Plan, Port, Processes};
use programs::Programs;

/// An API server, and the right to do everything there.
#[derive(Debug)]
pub struct ApiServer {
    // Ended before the folder goes.
    processes: Option<Processes>,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    config: Config,
    folder: Folder,
}

impl ApiServer {
    /// The one that all tests of this program share, started by the first; it ends with the program. Each test makes
    /// a [`namespace`](Self::namespace) of its own.
    ///
    /// `None` if there can be none here: then `test` has been written down as skipped, and should return.
    ///
    /// # Panics
    /// When it should start and does not.
    #[track_caller]
    pub fn shared(test: &str) -> Option<&'static Self> {
        static SHARED: OnceLock<Result<ApiServer, Unavailable>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| match env::var_os("E2E_KUBECONFIG") {
            Some(path) => Self::given(Path::new(&path)),
            None => Self::start(),
        });
        available(test, shared.as_ref())
    }

    /// One of the test's own, which may be killed and restarted; it ends when it is dropped.
    ///
    /// `None` if there can be none here, as in [`shared`](Self::shared), or if `E2E_KUBECONFIG` says which to use.
    ///
    /// # Panics
    /// When it should start and does not.
    #[track_caller]
    pub fn own(test: &str) -> Option<Self> {
        if env::var_os("E2E_KUBECONFIG").is_some() {
            let reason = "it restarts the API server, and that of E2E_KUBECONFIG is not the test's to restart";
            skip(test, reason);
            return None;
        }
        available(test, Self::start())
    }

    fn start() -> Result<Self, Unavailable> {
        let programs = Programs::find().map_err(Unavailable::Absent)?;
        let (etcd, apiserver) = (Port::reserve(), Port::reserve());
        let folder = Folder::new();

        let authority = Authority::new("ringside-e2e");
        let server = authority.server();
        let admin = authority.client("admin", "system:masters");
        let tokens = certificates::key();
        folder.write("ca.crt", authority.pem());
        folder.write("server.crt", server.certificate.pem());
        folder.write("server.key", server.key.serialize_pem());
        folder.write("sa.key", tokens.serialize_pem());
        folder.write("sa.pub", tokens.public_key_pem());
        folder.write(audit::POLICY_FILE, audit::policy());
        let user = User::Certificate(&admin);
        let text = kubeconfig(apiserver.address, &authority.pem(), &user);
        let kubeconfig = folder.write("admin.kubeconfig", text);

        let config = read(&kubeconfig).map_err(Unavailable::Broken)?;
        let kubectl = programs.kubectl.clone();
        let plan = Plan {
            programs,
            folder: folder.path().to_owned(),
            etcd,
            apiserver,
            config: config.clone(),
        };
        let processes = Processes::start(plan).map_err(Unavailable::Broken)?;
        Ok(Self {
            processes: Some(processes),
            kubeconfig,
            kubectl,
            config,
            folder,
        })
    }

    fn given(kubeconfig: &Path) -> Result<Self, Unavailable> {
        let config = read(kubeconfig).map_err(Unavailable::Broken)?;
        let kubectl = Programs::find_kubectl().map_err(Unavailable::Absent)?;
        Ok(Self {
            processes: None,
            kubeconfig: kubeconfig.to_owned(),
            kubectl,
            config,
            folder: Folder::new(),
        })
    }

    /// That of a cluster which is up, and somebody else's to end.
    pub(crate) fn of_cluster(kubeconfig: &Path) -> Result<Self, String> {
        Self::given(kubeconfig).map_err(|unavailable| match unavailable {
            Unavailable::Absent(reason) | Unavailable::Broken(reason) => reason,
        })
    }

    /// The kubectl that it is asked by.
    pub fn kubectl_program(&self) -> &Path {
        &self.kubectl
    }

    /// A kubeconfig of whoever may do everything.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A kubeconfig of whoever has `token`, such as a service account that may do little.
    pub fn kubeconfig_with_token(&self, token: &str) -> PathBuf {
        let mut written = Kubeconfig::read_from(&self.kubeconfig).expect("read before");
        for user in &mut written.auth_infos {
            user.auth_info = Some(kube::config::AuthInfo {
                token: Some(token.to_owned().into()),
                ..Default::default()
            });
        }
        self.write_kubeconfig(&written)
    }

    pub(crate) fn write_kubeconfig(&self, kubeconfig: &Kubeconfig) -> PathBuf {
        let text = serde_json::to_string(kubeconfig).expect("a kubeconfig can be written");
        let name = format!("{}.kubeconfig", kubectl::unique("user"));
        self.folder.write(&name, text)
    }

    /// Where its keys and certificates are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How `kube` is to reach it as whoever may do everything.
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// A client of the runtime that this is called in.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn client(&self) -> Client {
        Client::try_from(self.config()).expect("a client of a kubeconfig that was read before")
    }

    /// Kills the API server as a crash would, keeps etcd's data, starts it again at the same address, and returns when it
    /// is ready.
    ///
    /// # Panics
    /// If it does not start again, or is not the test's [`own`](Self::own).
    #[track_caller]
    pub fn restart(&self) {
        self.kill();
        self.start_again();
    }

    /// Kills the API server as a crash would.
    ///
    /// # Panics
    /// If it is not the test's [`own`](Self::own).
    #[track_caller]
    pub fn kill(&self) {
        let killed = self.processes().kill_apiserver();
        killed.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Starts the API server again after [`kill`](Self::kill), and returns when it is ready.
    ///
    /// # Panics
    /// If it does not start, or is not the test's [`own`](Self::own).
    #[track_caller]
    pub fn start_again(&self) {
        let started = self.processes().start_apiserver();
        started.unwrap_or_else(|error| panic!("{error}"));
    }

    #[track_caller]
    fn processes(&self) -> &Processes {
        let processes = self.processes.as_ref();
        processes.expect("a given cluster is not the test's to restart")
    }
}

/// Why there is no API server.
#[derive(Debug)]
enum Unavailable {
    /// It cannot be had here: a reason to skip.
    Absent(String),
    /// It should have started.
    Broken(String),
}

/// What was found, unless `test` is to be skipped.
#[track_caller]
fn available<T>(test: &str, found: Result<T, impl Borrow<Unavailable>>) -> Option<T> {
    let unavailable = match found {
        Ok(found) => return Some(found),
        Err(unavailable) => unavailable,
    };
    match unavailable.borrow() {
        Unavailable::Absent(reason) => skip(test, reason),
        Unavailable::Broken(error) => panic!("no API server: {error}"),
    }
    None
}

/// Who a kubeconfig speaks for.
pub(crate) enum User<'a> {
    Certificate(&'a Identity),
    Token(&'a str),
}

/// A kubeconfig for the server at `address`, whose certificate `authority` (PEM) signed. JSON, which is YAML as well.
pub(crate) fn kubeconfig(address: SocketAddr, authority: &str, user: &User<'_>) -> String {
    let user = match user {
        User::Certificate(identity) => json!({
            "client-certificate-data": base64(&identity.certificate.pem()),
            "client-key-data": base64(&identity.key.serialize_pem()),
        }),
        User::Token(token) => json!({"token": token}),
    };
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "e2e",
        "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
        "clusters": [{"name": "e2e", "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority-data": base64(authority),
        }}],
        "users": [{"name": "e2e", "user": user}],
    })
    .to_string()
}

/// `serde_json` writes the bytes of a Kubernetes value so.
fn base64(text: &str) -> serde_json::Value {
    let bytes = k8s_openapi::ByteString(text.as_bytes().to_vec());
    serde_json::to_value(bytes).expect("bytes can be written")
}

/// What a kubeconfig says.
pub(crate) fn read(path: &Path) -> Result<Config, String> {
    let fail = |error: &dyn std::fmt::Display| {
        format!("the kubeconfig {} cannot be used: {error}", path.display())
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| fail(&error))?;
    // Reading the files that it names is all that this waits for.
    let runtime = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        Ok::<_, std::io::Error>(runtime.block_on(Config::from_custom_kubeconfig(
            kubeconfig,
            &KubeConfigOptions::default(),
        )))
    });
    let config = runtime.join().map_err(|_| fail(&"a panic"))?;
    let config = config.map_err(|error| fail(&error))?;
    config.map_err(|error| fail(&error))
}

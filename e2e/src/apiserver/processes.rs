//! etcd and kube-apiserver as children of one thread, which lives as long as they should.
//!
//! The kernel ends a child when the *thread* that started it ends; a test's own thread ends with the test, and what is
//! shared would go with it. So a thread of their own starts them, kills them on order, and ends them when it is let go.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kube::Client;
use ringside::backend::inject;
use socket2::{Domain, Protocol, Socket, Type};

use super::programs::Programs;
use crate::PATIENCE;

/// What to run, and with what.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) programs: Programs,
    pub(super) folder: PathBuf,
    pub(super) etcd: Port,
    pub(super) apiserver: Port,
    /// As whoever may do everything.
    pub(super) config: kube::Config,
}

/// A port of 127.0.0.1 that the kernel chose and that stays ours: the socket is bound and never listens, and only who
/// shares the port on purpose can have it, now and after a restart.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) address: SocketAddr,
    _held: Socket,
}

impl Port {
    pub(super) fn reserve() -> Self {
        let reserve = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_port(true)?;
            socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
            let address = socket
                .local_addr()?
                .as_socket()
                .expect("an address of IPv4");
            Ok::<_, std::io::Error>(Self {
                address,
                _held: socket,
            })
        };
        reserve().expect("a port of the loopback")
    }
}

/// What the thread is asked to do; it answers when it is done, or with what went wrong.
enum Order {
    Kill,
    Start,
}

/// An order, and where its outcome goes.
type Errand = (Order, Sender<Result<(), String>>);

/// The running pair. Dropped, both are ended.
#[derive(Debug)]
pub(super) struct Processes {
    orders: Option<Sender<Errand>>,
    owner: Option<JoinHandle<()>>,
}

impl Processes {
    /// Starts both, and returns when the API server says that it is ready.
    pub(super) fn start(plan: Plan) -> Result<Self, String> {
        let (orders, taken) = mpsc::channel();
        let owner = thread::Builder::new().name("apiserver".to_owned());
        let owner = owner.spawn(move || Owner::run(plan, &taken));
        let this = Self {
            orders: Some(orders),
            owner: Some(owner.expect("a thread for an API server")),
        };
        this.order(Order::Start)?;
        Ok(this)
    }

    /// Kills the API server, as a crash would. etcd goes on.
    pub(super) fn kill_apiserver(&self) -> Result<(), String> {
        self.order(Order::Kill)
    }

    /// Starts what does not run, and returns when the API server says that it is ready.
    pub(super) fn start_apiserver(&self) -> Result<(), String> {
        self.order(Order::Start)
    }

    fn order(&self, order: Order) -> Result<(), String> {
        let (answer, answered) = mpsc::channel();
        let orders = self.orders.as_ref().expect("only a drop takes it");
        let sent = orders.send((order, answer)).is_ok();
        let answer = answered.recv();
        match answer {
            Ok(answer) if sent => answer,
            _ => Err("the thread of the API server has ended".to_owned()),
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(owner) = self.owner.take() {
            let _ = owner.join();
        }
    }
}

struct Owner {
    plan: Plan,
    etcd: Option<Running>,
    apiserver: Option<Running>,
}

impl Owner {
    fn run(plan: Plan, orders: &Receiver<Errand>) {
        let mut this = Self {
            plan,
            etcd: None,
            apiserver: None,
        };
        while let Ok((order, answer)) = orders.recv() {
            let done = match order {
                Order::Kill => {
                    this.apiserver = None;
                    Ok(())
                }
                Order::Start => this.start(),
            };
            // Who asked waits for it.
            let _ = answer.send(done);
        }
        // The API server first: it would only complain.
        this.apiserver = None;
    }

    fn start(&mut self) -> Result<(), String> {
        if self.etcd.is_none() {
            self.etcd = Some(Running::start(
                "etcd",
                &self.plan.folder,
                &etcd(&self.plan),
            )?);
        }
        if self.apiserver.is_none() {
            let command = apiserver(&self.plan);
            self.apiserver = Some(Running::start(
                "kube-apiserver",
                &self.plan.folder,
                &command,
            )?);
        }
        self.await_ready()
    }

    /// Asks `/readyz` until it says yes.
    fn await_ready(&mut self) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime to ask the API server by: {error}"))?;
        let _inside = runtime.enter();
        let client = Client::try_from(self.plan.config.clone())
            .map_err(|error| format!("no client for the API server: {error}"))?;
        let begin = Instant::now();
        loop {
            let request = http_request("/readyz");
            let asked = tokio::time::timeout(Duration::from_secs(5), client.request_text(request));
            let said = match runtime.block_on(asked) {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            for running in [&mut self.etcd, &mut self.apiserver] {
                running.as_mut().map_or(Ok(()), Running::check)?;
            }
            if begin.elapsed() > PATIENCE {
                let log = self.apiserver.as_ref().map(Running::last_lines);
                return Err(format!(
                    "the API server was not ready after {PATIENCE:?} ({said}):\n{}",
                    log.unwrap_or_default()
                ));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn http_request(path: &str) -> hyper::Request<Vec<u8>> {
    let request = hyper::Request::get(path).body(Vec::new());
    request.expect("a request of constants")
}

/// One server: a child, and where its log is.
struct Running {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(name: &'static str, folder: &Path, words: &[String]) -> Result<Self, String> {
        let fail = |error: std::io::Error| format!("`{name}` cannot be started: {error}");
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.map_err(fail)?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(folder);
        command
            .stdin(Stdio::null())
            .stderr(file.try_clone().map_err(fail)?);
        command.stdout(file);
        inject::end_with_parent(&mut command);
        Ok(Self {
            name,
            child: command.spawn().map_err(fail)?,
            log,
        })
    }

    /// That it has not ended by itself.
    fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            ended => Err(format!(
                "`{}` has ended ({ended:?}):\n{}",
                self.name,
                self.last_lines()
            )),
        }
    }

    fn last_lines(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn etcd(plan: &Plan) -> Vec<String> {
    let address = plan.etcd.address;
    words(
        &plan.programs.etcd,
        &[
            format!("--data-dir={}", plan.folder.join("etcd").display()),
            format!("--listen-client-urls=http://{address}"),
            format!("--advertise-client-urls=http://{address}"),
            // There are no peers; it wants to listen for them all the same.
            "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
            "--socket-reuse-port=true".to_owned(),
            "--unsafe-no-fsync=true".to_owned(),
            "--log-level=warn".to_owned(),
        ],
    )
}

fn apiserver(plan: &Plan) -> Vec<String> {
    let address = plan.apiserver.address;
    let file = |name: &str| plan.folder.join(name).display().to_string();
    words(
        &plan.programs.kube_apiserver,
        &[
            format!("--etcd-servers=http://{}", plan.etcd.address),
            format!("--bind-address={}", address.ip()),
            format!("--advertise-address={}", address.ip()),
            format!("--secure-port={}", address.port()),
            "--permit-port-sharing=true".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            // Loopback is no address for the endpoints of a Service.
            "--endpoint-reconciler-type=none".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--allow-privileged=true".to_owned(),
            // Nothing here makes default service accounts, without which it would refuse every pod.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            format!("--audit-policy-file={}", file(super::audit::POLICY_FILE)),
            format!("--audit-log-path={}", file(super::audit::LOG_FILE)),
            // A test that asks quickly is not to be slowed down for being one client.
            "--enable-priority-and-fairness=false".to_owned(),
        ],
    )
}

fn words(program: &Path, arguments: &[String]) -> Vec<String> {
    let mut words = vec![program.display().to_string()];
    words.extend_from_slice(arguments);
    words
}

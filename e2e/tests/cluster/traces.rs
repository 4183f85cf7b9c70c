//! What a cluster leaves on a machine while it is there, counted by what cannot hide: processes by their control groups, namespaces by their numbers, mounts,
//! interfaces, groups and files by its name; and the machine's settings. It only looks, and kills a cluster's first process when it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use ringside_e2e::await_that;

/// Where clusters are kept, as `e2e/cluster/place` says.
pub(super) fn clusters() -> PathBuf {
    let set = |variable: &str| {
        env::var_os(variable)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("RINGSIDE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("ringside")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/ringside")))
        .expect("a folder for caches")
        .join("clusters")
}

/// A cluster's, while it is up.
#[derive(Debug)]
pub(super) struct Traces {
    name: String,
    state: PathBuf,
    namespaces: BTreeSet<String>,
    seen: Found,
}

/// What was found of it.
#[derive(Debug, PartialEq, Eq, Default)]
struct Found {
    processes: Vec<String>,
    namespaces: BTreeSet<String>,
    interfaces: Vec<String>,
    groups: Vec<PathBuf>,
    mounts: Vec<String>,
    files: Vec<PathBuf>,
}

impl Traces {
    /// What there is of the cluster `name` now.
    pub(super) fn of(name: &str) -> Self {
        let ours = namespaces_of("self");
        let mut this = Self {
            name: name.to_owned(),
            state: clusters().join(name),
            namespaces: BTreeSet::new(),
            seen: Found::default(),
        };
        for process in this.processes() {
            this.namespaces.extend(namespaces_of(&process));
        }
        this.namespaces
            .retain(|namespace| !ours.contains(namespace));
        this.seen = this.find();
        this
    }

    /// Whether every kind of thing that is to be gone was there before.
    pub(super) fn found_all(&self) -> bool {
        let seen = &self.seen;
        seen.processes.len() > 5
            && seen.namespaces.len() > 5
            && !seen.interfaces.is_empty()
            && !seen.groups.is_empty()
            && !seen.files.is_empty()
    }

    /// SIGKILL to it.
    #[track_caller]
    pub(super) fn kill_first_process(&self) {
        let pid = fs::read_to_string(self.state.join("pid")).expect("its first process");
        let pid = pid.trim();
        assert!(
            self.seen.processes.iter().any(|process| process == pid),
            "{pid} is not the cluster's"
        );
        let killed = Command::new("kill").args(["-KILL", pid]).status();
        assert!(killed.expect("kill can be run").success());
    }

    /// Waits until no process is left, and nothing that goes with the last one.
    #[track_caller]
    pub(super) fn await_end_of_processes(&self) {
        await_that("the end of all its processes", || {
            let now = self.find();
            now.processes.is_empty() && now.namespaces.is_empty() && now.interfaces.is_empty()
        });
    }

    /// Nothing is left, after its end has been told. The kernel needs a moment for a process that it has killed.
    #[track_caller]
    pub(super) fn assert_gone(&self) {
        await_that("the end of its namespaces", || {
            self.find().namespaces.is_empty()
        });
        assert_eq!(self.find(), Found::default(), "left of '{}'", self.name);
    }

    fn find(&self) -> Found {
        let group = format!("ringside-{}", self.name);
        let mut groups = Vec::new();
        walk(Path::new("/sys/fs/cgroup"), &mut |folder| {
            if folder
                .file_name()
                .is_some_and(|name| name == group.as_str())
            {
                groups.push(folder.to_owned());
            }
        });
        let state = self.state.display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
        Found {
            processes: self.processes(),
            namespaces: all_processes()
                .iter()
                .flat_map(|process| namespaces_of(process))
                .filter(|namespace| self.namespaces.contains(namespace))
                .collect(),
            interfaces: entries(Path::new("/sys/class/net"))
                .into_iter()
                .filter(|name| *name == format!("rs-{}", self.name))
                .collect(),
            groups,
            mounts: mounts
                .lines()
                .filter(|line| line.contains(&state))
                .map(str::to_owned)
                .collect(),
            files: entries(&clusters())
                .into_iter()
                .filter(|file| file.split('.').next() == Some(&self.name))
                .map(|file| clusters().join(file))
                .collect(),
        }
    }

    /// All in its control groups, by number.
    fn processes(&self) -> Vec<String> {
        let ends = [
            format!("/ringside-{}/", self.name),
            format!("/ringside-{}\n", self.name),
        ];
        let mut all = all_processes();
        all.retain(|process| {
            let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
            ends.iter().any(|end| groups.contains(end))
        });
        all
    }
}

fn all_processes() -> Vec<String> {
    let mut all = entries(Path::new("/proc"));
    all.retain(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    all
}

/// Such as `net:[4026531840]`.
fn namespaces_of(process: &str) -> BTreeSet<String> {
    let folder = PathBuf::from(format!("/proc/{process}/ns"));
    let links = entries(&folder).into_iter();
    let links = links.filter_map(|name| fs::read_link(folder.join(name)).ok());
    links.map(|link| link.display().to_string()).collect()
}

/// The names in a folder; none where it has gone meanwhile.
fn entries(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

/// Every folder below, without following links.
fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path());
            walk(&entry.path(), visit);
        }
    }
}

/// The kernel's settings that a kubelet, kube-proxy or container runtime may change, and that hold for the whole machine or for this
/// network.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings(BTreeMap<PathBuf, String>);

/// Whole folders, and single files.
const READ: [&str; 11] = [
    "vm",
    "kernel/keys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/hostname",
    "net/core",
    "net/bridge",
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all",
    "net/ipv4/conf/default",
    "net/netfilter/nf_conntrack_max",
];

impl Settings {
    /// As they are now.
    pub(super) fn read() -> Self {
        let mut settings = BTreeMap::new();
        for name in READ {
            let path = Path::new("/proc/sys").join(name);
            let files = if path.is_dir() {
                entries(&path).iter().map(|file| path.join(file)).collect()
            } else {
                vec![path]
            };
            for file in files {
                // Some are there only to be written.
                if let Ok(text) = fs::read_to_string(&file) {
                    settings.insert(file, text);
                }
            }
        }
        Self(settings)
    }

    /// None has changed since.
    #[track_caller]
    pub(super) fn assert_unchanged(&self) {
        assert!(
            self.0.len() > 20,
            "settings are looked for in vain: {self:?}"
        );
        assert_eq!(*self, Self::read());
    }
}

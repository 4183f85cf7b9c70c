//! Helm as `e2e/tools/build` makes it. It owns where it is and how it is run; it never touches a user's own configuration of Helm.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt, fs};

use ringside::backend::inject;
use tempfile::TempDir;

/// Versions are said once, in the modules that the tools are built from.
const GO_MODS: [&str; 2] = [
    include_str!("../../tools/charts/go.mod"),
    include_str!("../../tools/helm4/go.mod"),
];

/// Which Helm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelmVersion {
    /// The one that most clusters are still run with: three-way merges on the client's side.
    Three,
    /// Server-side apply.
    Four,
}

/// Helm, with folders of its own that go when it is dropped.
#[derive(Debug)]
pub struct Helm {
    program: PathBuf,
    kubeconfig: Option<PathBuf>,
    home: TempDir,
}

/// What Helm said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Whether it succeeded.
    pub succeeded: bool,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl fmt::Display for Said {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", self.out, self.err)
    }
}

impl Helm {
    /// Helm, or the sentence that says what to do about there being none.
    ///
    /// # Errors
    /// It is not built.
    pub fn find(version: HelmVersion) -> Result<Self, String> {
        let (name, module, go_mod) = match version {
            HelmVersion::Three => ("helm", "helm.sh/helm/v3", GO_MODS[0]),
            HelmVersion::Four => ("helm4", "helm.sh/helm/v4", GO_MODS[1]),
        };
        let required = go_mod.split_whitespace().skip_while(|word| *word != module);
        let required = required
            .skip(1)
            .find(|word| word.starts_with('v'))
            .ok_or_else(|| format!("no go.mod of e2e/tools requires {module}"))?;
        let program = tools()?.join(format!("{name}-{required}")).join("helm");
        if !program.is_file() {
            return Err(format!(
                "there is no {}: `e2e/tools/build {name}` builds it, with Go alone",
                program.display()
            ));
        }
        let home = tempfile::tempdir().map_err(|error| format!("no folder for Helm: {error}"))?;
        Ok(Self {
            program,
            kubeconfig: None,
            home,
        })
    }

    /// With a cluster.
    pub fn with(mut self, kubeconfig: &Path) -> Self {
        self.kubeconfig = Some(kubeconfig.to_owned());
        self
    }

    /// Where it is.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// What has it keep its files in folders of its own, for whoever runs it by other means.
    pub fn environment(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "config"),
            ("HELM_DATA_HOME", "data"),
        ]
        .map(|(variable, folder)| (variable, self.home.path().join(folder)))
    }

    /// Runs it, which must succeed, and returns its standard output.
    ///
    /// # Panics
    /// If it fails, with what it said.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        let said = self.attempt(arguments);
        assert!(said.succeeded, "helm {arguments:?} failed: {said}");
        said.out
    }

    /// Runs it, whatever comes of it.
    ///
    /// # Panics
    /// If it cannot be started.
    #[track_caller]
    pub fn attempt(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(super::project());
        command.envs(self.environment());
        // Without one it must not find a user's.
        let nothing = self.home.path().join("no-kubeconfig");
        command.env("KUBECONFIG", self.kubeconfig.as_ref().unwrap_or(&nothing));
        inject::end_with_parent(&mut command);
        let output = command.output().expect("helm can be started");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said {
            succeeded: output.status.success(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Renders the chart as the release `ringside` in the namespace `ringside`, with more flags.
    ///
    /// # Panics
    /// If it cannot be rendered.
    #[track_caller]
    pub fn render(&self, flags: &[&str]) -> String {
        let name = super::NAMESPACE;
        let chart = super::folder();
        let chart = chart.to_str().expect("a path in UTF-8");
        let arguments = ["template", name, chart, "--namespace", name];
        self.run(&[&arguments[..], flags].concat())
    }
}

/// The tool `name`, if it is built.
pub(super) fn tools() -> Result<PathBuf, String> {
    let set = |variable: &str| {
        let value = env::var_os(variable).filter(|value| !value.is_empty())?;
        Some(PathBuf::from(value))
    };
    let cache = set("RINGSIDE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("ringside")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/ringside")))
        .ok_or("none of RINGSIDE_CACHE, XDG_CACHE_HOME and HOME says where tools are kept")?;
    Ok(cache.join("tools"))
}

impl Drop for Helm {
    fn drop(&mut self) {
        // Helm makes its folders unreadable for others; whoever owns them may still take them away.
        let _ = fs::remove_dir_all(self.home.path());
    }
}

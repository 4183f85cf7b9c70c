//! `ringside-controller install-seccomp`: a seccomp profile into the kubelet's folder, and kept there. It owns that one file and nothing
//! beside it; it never takes a profile away, as a pod that names it could not start again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

/// How often it is looked whether the file is still there.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Put a seccomp profile into the kubelet's folder of profiles, and keep it there until SIGTERM
///
/// A DaemonSet runs this on every node, so that sidecars can be given the profile by `Localhost:FILE`. What stands at that path already is replaced, whole or not
/// at all. It stays when this ends.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The profile, as JSON
    #[arg(long, value_name = "FILE")]
    profile: PathBuf,

    /// Where it is to be, such as /var/lib/kubelet/seccomp/ringside.json
    #[arg(long, value_name = "PATH")]
    to: PathBuf,

    /// End once it is there
    #[arg(long)]
    once: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    install(arguments)?;
    if arguments.once {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime could not be started")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                () = tokio::time::sleep(LOOK_AGAIN) => install(arguments)?,
            }
        }
    })
}

fn install(Arguments { profile, to, .. }: &Arguments) -> anyhow::Result<()> {
    let text = fs::read(profile)
        .with_context(|| format!("the profile {} could not be read", profile.display()))?;
    let parsed: serde_json::Value = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no JSON", profile.display()))?;
    if !parsed["defaultAction"].is_string() {
        bail!(
            "{} is no seccomp profile: it has no defaultAction",
            profile.display()
        );
    }
    if fs::read(to).is_ok_and(|there| there == text) {
        return Ok(());
    }
    write(to, &text).with_context(|| format!("{} could not be written", to.display()))?;
    // It is, whether anybody can be told or not.
    let _ = writeln!(std::io::stdout(), "{} is installed", to.display());
    Ok(())
}

/// Whole or not at all: a kubelet may read it at any moment.
fn write(to: &Path, text: &[u8]) -> std::io::Result<()> {
    let new = to.with_extension("new");
    let mut file = fs::File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(new, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_put_where_it_is_to_be_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let arguments = Arguments {
            profile: at("profile.json"),
            to: at("ringside.json"),
            once: true,
        };
        let missing = run(&arguments).unwrap_err().to_string();
        assert!(missing.contains("could not be read"), "{missing}");
        for (text, told) in [("-", "no JSON"), ("{}", "no seccomp profile")] {
            fs::write(at("profile.json"), text).unwrap();
            let error = run(&arguments).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
            assert!(!at("ringside.json").exists());
        }
        let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO"}"#;
        fs::write(at("profile.json"), profile).unwrap();
        fs::write(at("ringside.json"), "what was there").unwrap();
        run(&arguments).unwrap();
        assert_eq!(fs::read_to_string(at("ringside.json")).unwrap(), profile);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}

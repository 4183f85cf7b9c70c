//! Tells the program which commit it was built from. Without git, or outside of a checkout, it is `unknown`.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rustc-env=RINGSIDE_COMMIT={}", commit());
    println!("cargo:rerun-if-changed=build.rs");
    // Where HEAD points changes with each checkout; what it points at with each commit. A worktree keeps both
    // elsewhere, which git knows. A path that is not there would have this run at every build.
    let mut watched = vec!["HEAD".to_owned()];
    watched.extend(git(&["symbolic-ref", "-q", "HEAD"]));
    for name in watched {
        if let Some(path) = git(&["rev-parse", "--path-format=absolute", "--git-path", &name])
            && Path::new(&path).exists()
        {
            println!("cargo:rerun-if-changed={path}");
        }
    }
}

fn commit() -> String {
    git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned())
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

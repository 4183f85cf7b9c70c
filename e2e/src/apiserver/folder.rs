//! A folder that goes away with this process, however that ends.
//!
//! What is shared by all tests of a program is never dropped, and a test may be killed. So a shell holds the reading end
//! of a pipe whose writing end is ours: at its end it removes the folder, and nothing else.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Tries for up to ten seconds, because a server that has just been killed may be writing there still.
const KEEP: &str = r#"trap "" INT TERM HUP
read -r _
for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf -- "$1" 2>/dev/null && exit; sleep 1; done"#;

#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    keeper: Child,
}

impl Folder {
    /// A new, empty folder that only this user may read.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("ringside-e2e.").tempdir();
        let folder = folder.expect("a folder for an API server");
        let keeper = Command::new("/bin/sh")
            .args(["-c", KEEP, "sh"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // An interrupt from the terminal is for the tests; this one has to come after them.
            .process_group(0)
            .spawn()
            .expect("a shell that keeps a folder");
        Self {
            path: folder.keep(),
            keeper,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file, and says where it is.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        fs::write(&path, content)
            .unwrap_or_else(|error| panic!("{} cannot be written: {error}", path.display()));
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_with_its_owner() {
        let folder = Folder::new();
        let path = folder.path().to_owned();
        folder.write("file", "content");
        assert!(path.is_dir());
        drop(folder);
        assert!(!path.exists());
    }
}

//! Where the facts are read: the files of /proc and /sys, or of a folder in their place.

use std::path::PathBuf;

/// The machine that is looked at.
#[derive(Debug, Clone)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// This machine.
    pub fn this() -> Self {
        Machine::at("/")
    }

    /// The one whose /proc and /sys are in this folder.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Machine { root: root.into() }
    }

    /// The text of a file such as `proc/sys/net/core/somaxconn`, without spaces at its ends; none if it cannot be read.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// The number in a file.
    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// The soft and hard limit of this line of /proc/self/limits; `u64::MAX` where there is none.
    pub(super) fn limits(&self, name: &str) -> Option<(u64, u64)> {
        let text = self.text("proc/self/limits")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let mut columns = line.split_whitespace().map(|column| match column {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        });
        Some((columns.next()??, columns.next()??))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A machine of these files.
    pub(in crate::check) fn of(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let machine = Machine::at(folder.path());
        (folder, machine)
    }

    #[test]
    fn limits_are_read_by_name() {
        let (_folder, machine) = of(&[(
            "proc/self/limits",
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max open files            1024                 20000                files     \n\
             Max locked memory         unlimited            unlimited            bytes     \n",
        )]);
        assert_eq!(machine.limits("Max open files"), Some((1024, 20000)));
        assert_eq!(
            machine.limits("Max locked memory"),
            Some((u64::MAX, u64::MAX))
        );
        assert_eq!(machine.limits("Max dreams"), None);
    }

    #[test]
    fn this_machine_has_limits() {
        assert!(Machine::this().limits("Max open files").is_some());
    }
}

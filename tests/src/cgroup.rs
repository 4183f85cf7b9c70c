//! A memory cgroup of version 1 below the test's own, for one process: the kernel refuses it memory at a limit that can be
//! set and lifted while it runs. Removed when dropped.
//!
//! Without the OOM killer what is over the limit fails where the kernel asks for memory of its own, as in io_uring, and
//! waits where a program touches a new page.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::await_that;

/// Where systems mount the controller.
const MOUNTED: &str = "/sys/fs/cgroup/memory";

/// A group.
#[derive(Debug)]
pub struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// A group of the test's own. It has to outlive whoever is in it.
    ///
    /// # Errors
    /// A sentence that says why this machine, or this user, cannot have one.
    pub fn new(name: &str) -> Result<Self, String> {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        // `4:memory:/path`
        let own = groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let is_memory = controllers.split(',').any(|one| one == "memory");
            is_memory.then(|| path.trim_start_matches('/').to_owned())
        });
        let own = own.ok_or("no memory controller of cgroup version 1 here")?;
        let unique = format!("ringside-{name}-{}", std::process::id());
        let path = PathBuf::from(MOUNTED).join(own).join(unique);
        fs::create_dir(&path)
            .map_err(|error| format!("{} cannot be made: {error}", path.display()))?;
        let group = MemoryGroup(path);
        // Before anybody is in it.
        group
            .write("memory.oom_control", "1")
            .map_err(|error| format!("the OOM killer cannot be turned off in it: {error}"))?;
        Ok(group)
    }

    /// The command line, without its end, that starts a process in the group.
    pub fn start_inside(&self) -> [String; 4] {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        ["/bin/sh", "-c", &script, "sh"].map(str::to_owned)
    }

    /// What it uses, in bytes.
    #[track_caller]
    pub fn usage(&self) -> u64 {
        self.number("memory.usage_in_bytes")
    }

    /// How often it was refused memory.
    #[track_caller]
    pub fn refusals(&self) -> u64 {
        self.number("memory.failcnt")
    }

    /// Sets its limit in bytes, or lifts it.
    #[track_caller]
    pub fn limit(&self, bytes: Option<u64>) {
        let text = bytes.map_or("-1".to_owned(), |bytes| bytes.to_string());
        self.write("memory.limit_in_bytes", &text)
            .unwrap_or_else(|error| panic!("a limit of {text} cannot be set: {error}"));
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.0.join(file), text)
    }

    #[track_caller]
    fn number(&self, file: &str) -> u64 {
        let text = fs::read_to_string(self.0.join(file)).expect("a group can be read");
        text.trim().parse().expect("a number")
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Whoever waits for memory has to be able to end.
        let _ = self.write("memory.limit_in_bytes", "-1");
        let path = &self.0;
        let gone = || fs::remove_dir(path).is_ok() || !path.exists();
        if std::thread::panicking() {
            // A second panic would hide the first.
            let _ = (0..100).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                gone()
            });
        } else {
            await_that("the group to be empty and removed", gone);
        }
    }
}

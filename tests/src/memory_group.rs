//! A memory cgroup of a test's own, of either version, removed when dropped.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::await_that;

/// A group that limits memory.
#[derive(Debug)]
pub struct MemoryGroup {
    folder: PathBuf,
    is_v2: bool,
}

impl MemoryGroup {
    /// A new group with a limit, without processes.
    ///
    /// # Errors
    /// This machine has no memory controller for this user.
    pub fn new(limit_bytes: u64) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringside-test-{}-{number}", process::id());
        let (v1, v2) = (
            Path::new("/sys/fs/cgroup/memory"),
            Path::new("/sys/fs/cgroup"),
        );
        let is_v2 = v2.join("cgroup.controllers").is_file();
        let folder = if is_v2 { v2 } else { v1 }.join(name);
        fs::create_dir(&folder)?;
        let group = Self { folder, is_v2 };
        let limit = if is_v2 {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        // Without the controller in this part of the tree there is no such file, and the group goes again.
        fs::write(group.folder.join(limit), limit_bytes.to_string())?;
        Ok(group)
    }

    /// Where a process writes its id to be in it.
    pub fn entrance(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// The most memory that its processes had at once, where the kernel tells.
    pub fn peak_bytes(&self) -> Option<u64> {
        let name = if self.is_v2 {
            "memory.peak"
        } else {
            "memory.max_usage_in_bytes"
        };
        fs::read_to_string(self.folder.join(name))
            .ok()?
            .trim()
            .parse()
            .ok()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A process that has just ended is in it for a moment.
        await_that("a memory group to be removed", || {
            match fs::remove_dir(&self.folder) {
                Ok(()) => true,
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            }
        });
    }
}

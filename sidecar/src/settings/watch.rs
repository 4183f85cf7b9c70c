//! Sees when a configuration file changes, however it is replaced: written in place, renamed over, or swapped by the
//! symlinks of a mounted ConfigMap. It owns one thread that sleeps until something happens; it decides nothing about what
//! it reads, and tells nothing when the contents stayed the same.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use ringside_api::Config;
use tracing::warn;

use super::file::{LoadError, Loaded, parse, read};

/// What a changed file gives.
pub type Change = Result<Arc<Config>, LoadError>;

/// How long a folder must be quiet before the file is read, so that a file that is being written is read once.
const QUIET: Duration = Duration::from_millis(50);

/// The longest wait for quiet, so that a busy neighbour in the folder cannot hide a change.
const QUIET_LIMIT: Duration = Duration::from_millis(500);

/// How often the file is looked at without any event: network file systems send none for changes made elsewhere.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The same while the kernel does not watch, for want of inotify instances or because the folder is gone.
const LOOK_UNWATCHED: Duration = Duration::from_secs(1);

/// A watched file. Dropping it ends the watch and waits for a callback that is running.
#[derive(Debug)]
pub struct Watch {
    messages: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Message {
    Touched,
    End,
}

impl Watch {
    /// Watches `path`, whose contents at the last look were `loaded`, and calls `on_change` from a thread of its own with
    /// each change since, each failure to read it, and each recovery.
    ///
    /// Where the kernel cannot watch, the file is looked at once a second instead, and the log says so.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start<F>(path: &Path, loaded: &Loaded, on_change: F) -> io::Result<Self>
    where
        F: FnMut(Change) + Send + 'static,
    {
        let (messages, inbox) = mpsc::channel();
        let observer = observer(messages.clone());
        Self::start_with(path, loaded, on_change, messages, inbox, observer)
    }

    fn start_with<F>(
        path: &Path,
        loaded: &Loaded,
        on_change: F,
        messages: Sender<Message>,
        inbox: Receiver<Message>,
        observer: Option<RecommendedWatcher>,
    ) -> io::Result<Self>
    where
        F: FnMut(Change) + Send + 'static,
    {
        // A path without a folder names a file in the working directory, which has to be watched by a name.
        let path = if path.is_absolute() {
            path.to_owned()
        } else {
            Path::new(".").join(path)
        };
        let mut look = Look {
            path,
            seen: Ok(loaded.text.clone()),
            on_change,
        };
        let mut folders = Folders {
            observer,
            watched: BTreeSet::new(),
        };
        let thread = thread::Builder::new()
            .name("settings-watch".to_owned())
            .spawn(move || {
                loop {
                    // Watching first and reading then: what changes between the two is seen by one of them.
                    let all_watched = folders.follow(&look.path);
                    look.now();
                    if !wait(
                        &inbox,
                        if all_watched {
                            LOOK_AGAIN
                        } else {
                            LOOK_UNWATCHED
                        },
                    ) {
                        return;
                    }
                }
            })?;
        Ok(Self {
            messages,
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The thread may be gone already, after a panic in the callback; then there is nothing to end.
        let _ = self.messages.send(Message::End);
        if let Some(thread) = self
            .thread
            .take()
            .filter(|thread| thread.thread().id() != thread::current().id())
        {
            let _ = thread.join();
        }
    }
}

/// The kernel's eyes; `None` when it lends none, which is said once.
fn observer(messages: Sender<Message>) -> Option<RecommendedWatcher> {
    let touched = move |event: notify::Result<notify::Event>| {
        // Reading the file is an event too, and would be answered by reading it again, for ever.
        let by_reading = event.is_ok_and(|event| match event.kind {
            EventKind::Access(kind) => kind != AccessKind::Close(AccessMode::Write),
            _ => false,
        });
        if !by_reading {
            let _ = messages.send(Message::Touched);
        }
    };
    notify::recommended_watcher(touched)
        .inspect_err(|error| {
            warn!("cannot watch the configuration: {error}; looking at it every second instead (see fs.inotify.max_user_instances)");
        })
        .ok()
}

/// Sleeps until something was touched and the folder is quiet again, or for `at_most`. False when the watch ends.
fn wait(inbox: &Receiver<Message>, at_most: Duration) -> bool {
    match inbox.recv_timeout(at_most) {
        Err(RecvTimeoutError::Timeout) => return true,
        Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return false,
        Ok(Message::Touched) => {}
    }
    let deadline = Instant::now() + QUIET_LIMIT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match inbox.recv_timeout(QUIET.min(left)) {
            Err(RecvTimeoutError::Timeout) => return true,
            Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return false,
            Ok(Message::Touched) if left.is_zero() => return true,
            Ok(Message::Touched) => {}
        }
    }
}

/// The folders in which something happens when the file changes.
struct Folders {
    observer: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

impl Folders {
    /// Watches the folder of `path` and, where `path` is a symlink, the folder of the file that it leads to now. False
    /// when one of them is not watched.
    ///
    /// The folder and not the file: a file that is renamed over or deleted takes the watch on it away.
    fn follow(&mut self, path: &Path) -> bool {
        let Some(observer) = &mut self.observer else {
            return false;
        };
        let real = path.canonicalize().ok();
        let wanted: BTreeSet<PathBuf> = [Some(path), real.as_deref()]
            .into_iter()
            .flatten()
            .filter_map(Path::parent)
            .map(Path::to_owned)
            .collect();
        for left in self.watched.difference(&wanted) {
            // It is gone with its folder as a rule.
            let _ = observer.unwatch(left);
        }
        // Asked for each time: a folder that was deleted and made again has the same name and no watch.
        self.watched = wanted
            .iter()
            .filter(|folder| observer.watch(folder, RecursiveMode::NonRecursive).is_ok())
            .cloned()
            .collect();
        self.watched == wanted
    }
}

/// Looking at the file and telling what is new.
struct Look<F> {
    path: PathBuf,
    /// The text at the last look, or the sentence why there was none.
    seen: Result<String, String>,
    on_change: F,
}

impl<F: FnMut(Change)> Look<F> {
    fn now(&mut self) {
        let found = read(&self.path);
        let seen = found
            .as_ref()
            .map(String::clone)
            .map_err(ToString::to_string);
        if seen != self.seen {
            self.seen = seen;
            (self.on_change)(found.and_then(|text| parse(&self.path, &text)));
        }
    }
}

#[cfg(test)]
mod tests;

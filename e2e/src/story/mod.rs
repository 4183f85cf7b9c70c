//! What a story is told with: the shared cluster, namespaces that go with it, steps that are printed, times that are measured, and rows of the
//! table. When a story fails, what is needed to see why is kept before anything of it is deleted.
//!
//! It owns a story's namespaces, its row file and its folder in `target/stories`. It never decides whether something is right.

mod application;
mod evidence;
mod load;
pub mod report;
mod ringside;
mod row;
mod timeline;

pub use application::{
    APP_IMAGE, Application, INJECTED_SIDECAR_IMAGE, INJECTOR_SOCKET, container, deployment,
    is_ready, load_image, load_injected_sidecar, service,
};
pub use load::Load;
pub use ringside::{RELEASE, Ringside};
pub use row::{Row, Shown, rows, table};
pub use timeline::{Change, Timeline};

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use ringside_tests::await_within;
use ringside_tests::skip::build_folder;

use crate::apiserver::Namespace;
use crate::cluster::Cluster;

/// `target/stories`: rows of the table, and a folder for each story that failed.
pub fn folder() -> PathBuf {
    build_folder().with_file_name("stories")
}

/// A story that is being told. Dropped, it writes its row and deletes its namespaces; while panicking it first keeps the evidence.
#[derive(Debug)]
pub struct Story {
    number: u32,
    title: String,
    cluster: &'static Cluster,
    begin: Instant,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    step: String,
    shown: Vec<Shown>,
    namespaces: Vec<Arc<Namespace<'static>>>,
}

impl Story {
    /// Begins story `number` on the cluster that all stories share. `None` if there can be none here: then it was written down as skipped.
    ///
    /// # Panics
    /// If the cluster should come up and does not.
    #[track_caller]
    pub fn begin(number: u32, title: &str) -> Option<Self> {
        let name = format!("story {number}, {title}");
        let begin = Instant::now();
        let cluster = Cluster::shared(&name)?;
        if !cluster.is_ours(&name) {
            return None;
        }
        let story = Self {
            number,
            title: title.to_owned(),
            cluster,
            begin: Instant::now(),
            told: Mutex::default(),
        };
        let waited = story.begin - begin;
        println!(
            "== {name} (the cluster after {:.1} s)",
            waited.as_secs_f64()
        );
        // What an earlier run kept is not of this one.
        let _ = std::fs::remove_dir_all(story.folder());
        Some(story)
    }

    /// The cluster.
    pub fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    /// Where evidence of this story is kept.
    pub fn folder(&self) -> PathBuf {
        folder().join(row::file_name(self.number, &self.title))
    }

    /// Says what happens next.
    pub fn step(&self, what: &str) {
        println!("   {:6.1} s  {what}", self.begin.elapsed().as_secs_f64());
        what.clone_into(&mut self.told().step);
    }

    /// A point of the story that was asserted, with what was seen: a line of the table.
    pub fn shown(&self, what: &str, value: impl Display) {
        let value = value.to_string();
        let at = self.begin.elapsed().as_secs_f64();
        println!("   {at:6.1} s     shown: {what}: {value}");
        let what = what.to_owned();
        self.told().shown.push(Shown { what, value });
    }

    /// A time that was measured: a line of the table.
    pub fn took(&self, what: &str, time: Duration) {
        self.shown(what, format_args!("{:.2} s", time.as_secs_f64()));
    }

    /// Does `work`, and shows how long it took.
    pub fn timed<T>(&self, what: &str, work: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let done = work();
        self.took(what, begin.elapsed());
        done
    }

    /// A new namespace, whose name begins with `prefix`. It goes with the story, not when what is returned is dropped, so that evidence can be kept
    /// of it.
    ///
    /// # Panics
    /// If it cannot be made.
    #[track_caller]
    pub fn namespace(&self, prefix: &str) -> Arc<Namespace<'static>> {
        let namespace = Arc::new(self.cluster.namespace(prefix));
        self.told().namespaces.push(Arc::clone(&namespace));
        namespace
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        let told = std::mem::take(&mut *self.told());
        let failed = thread::panicking();
        if failed {
            let names: Vec<&str> = told.namespaces.iter().map(|one| one.name()).collect();
            evidence::keep(self.cluster, &self.folder(), &names);
            eprintln!(
                "story {}: evidence is in {}",
                self.number,
                self.folder().display()
            );
        }
        let seconds = self.begin.elapsed().as_secs_f64();
        let row = Row {
            number: self.number,
            title: self.title.clone(),
            failed_at: failed.then_some(told.step),
            seconds,
            shown: told.shown,
        };
        row.write();
        println!("   {seconds:6.1} s  the end");
    }
}

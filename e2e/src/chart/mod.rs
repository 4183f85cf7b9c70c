//! The chart as files: where it is, what is generated of it and for it, and Helm to render and install it with.
//!
//! It owns what generated files hold; `make manifests` writes them, and tests compare. It never edits what people write.

mod generated;
mod helm;
mod plain;
mod schemas;
mod table;

pub use generated::{Generated, generated};
pub use helm::{Helm, HelmVersion};
pub use plain::{documents, plain};
pub use schemas::schemas;
pub use table::{Value, read as values_table};

use std::fs;
use std::path::{Path, PathBuf};

/// The namespace that plain manifests install into, and release and objects in it are called by.
pub const NAMESPACE: &str = "ringside";

/// The folder of the whole project.
pub fn project() -> &'static Path {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    folder.expect("the crate is in the project's folder")
}

/// The chart's folder.
pub fn folder() -> PathBuf {
    project().join("charts/ringside")
}

/// The documented values, by name and path.
///
/// # Panics
/// If the chart has no folder of examples.
pub fn examples() -> Vec<(String, PathBuf)> {
    let files = fs::read_dir(folder().join("examples")).expect("the chart has examples");
    let mut examples: Vec<(String, PathBuf)> = files
        .map(|file| file.expect("a folder can be read").path())
        .map(|path| {
            let name = path.file_stem().expect("a file has a name");
            (name.to_string_lossy().into_owned(), path)
        })
        .collect();
    examples.sort();
    examples
}

//! Tests that cannot run here: said aloud and written down, never passed over in silence.
//!
//! Each adds a line `test: reason` to a file that whoever runs the tests prints at the end: `RINGSIDE_SKIPPED`, or
//! `skipped-tests.txt` in the build's folder.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// Writes down that `test` did not run, and why. The test should return at once.
pub fn skip(test: &str, reason: &str) {
    // Straight to standard error: cargo hides what a test that passes prints.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
    let path = list();
    let written = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .and_then(|mut file| file.write_all(format!("{test}: {reason}\n").as_bytes()));
    assert!(
        written.is_ok(),
        "{test} is skipped ({reason}), and {} cannot be written: {written:?}",
        path.display()
    );
}

/// Where skipped tests are written down.
pub fn list() -> PathBuf {
    match env::var_os("RINGSIDE_SKIPPED") {
        Some(path) => path.into(),
        None => build_folder().with_file_name("skipped-tests.txt"),
    }
}

/// The folder of this build's programs, such as `target/debug`.
pub fn build_folder() -> PathBuf {
    let mut path = env::current_exe().expect("a running test has a path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path
}

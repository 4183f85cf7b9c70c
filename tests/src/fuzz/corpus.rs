//! Inputs that are kept: a few in the tree, what a long run found in the build's folder, findings beside them.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::skip::build_folder;

/// Distilled inputs longer than this are left out of the tree.
const TREE_BYTES_MAX: usize = 1024;

/// A target's inputs.
pub(super) struct Corpus {
    inputs: Vec<Vec<u8>>,
    tree: PathBuf,
    build: PathBuf,
}

impl Corpus {
    pub(super) fn open(name: &str) -> Self {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(name);
        let build = build_folder().join("fuzz").join(name);
        // Without a corpus it begins with nothing.
        let mut inputs = vec![Vec::new()];
        for folder in [&tree, &build] {
            let files = fs::read_dir(folder).into_iter().flatten().flatten();
            let mut paths: Vec<PathBuf> = files.map(|file| file.path()).collect();
            paths.sort();
            inputs.extend(paths.iter().filter_map(|path| fs::read(path).ok()));
        }
        Self {
            inputs,
            tree,
            build,
        }
    }

    pub(super) fn inputs(&self) -> &[Vec<u8>] {
        &self.inputs
    }

    /// Keeps an input, for this run and the next.
    pub(super) fn add(&mut self, input: Vec<u8>) {
        write(&self.build, &input);
        self.inputs.push(input);
    }

    /// Puts those into the tree that reach what shorter ones do not.
    pub(super) fn distill(&mut self, mut reaches_new: impl FnMut(&[u8]) -> bool) {
        self.inputs.sort_by_key(Vec::len);
        let short = |input: &&Vec<u8>| input.len() <= TREE_BYTES_MAX;
        for input in self.inputs.iter().filter(short) {
            if reaches_new(input) {
                write(&self.tree, input);
            }
        }
    }
}

/// Writes down an input that fails.
pub(super) fn keep_finding(name: &str, input: &[u8]) -> PathBuf {
    write(
        &build_folder().join("fuzz").join("findings").join(name),
        input,
    )
}

fn write(folder: &Path, input: &[u8]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let path = folder.join(format!("{:016x}", hasher.finish()));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, input))
        .unwrap_or_else(|error| panic!("an input cannot be kept in {}: {error}", path.display()));
    path
}

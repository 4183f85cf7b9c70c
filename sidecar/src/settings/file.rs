//! A configuration file, read and understood or refused with a sentence. It owns the limits of what is read; it never
//! decides what happens with a configuration.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringside_api::{Config, ConfigError, Problem};
use thiserror::Error;

/// The largest configuration file that is read, in bytes: as much as a ConfigMap can hold.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a configuration file gives no configuration. The message names the file, and the line and field where there are.
#[derive(Debug, Error)]
pub enum LoadError {
    /// It is not there, or may not be read.
    #[error("cannot read the configuration {}: {error}{}", path.display(), advice(error))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error("the configuration {} is no regular file: name a YAML file", path.display())]
    NotAFile {
        /// What is there instead.
        path: PathBuf,
    },
    /// It is larger than anything that could be meant.
    #[error("the configuration {} is larger than {FILE_BYTES_MAX} bytes (1 MiB), the most that is read", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is no text.
    #[error("the configuration {} is not UTF-8 text: its byte {offset} belongs to no character", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// How many bytes before it are text.
        offset: usize,
    },
    /// It is text that says something that is not allowed.
    #[error("the configuration {} is refused: {error}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What is wrong, with lines.
        error: ConfigError,
    },
}

impl LoadError {
    /// What is wrong inside the file, if it could be read at all.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Refused { error, .. } => error.problems(),
            _ => &[],
        }
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "; check the path, and that the volume which holds it is mounted"
        }
        io::ErrorKind::PermissionDenied => "; let the user that the relay runs as read it",
        _ => "",
    }
}

/// A file that was read and understood.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Arc<Config>,
    /// The text itself, by which a later look knows whether anything changed.
    pub text: String,
}

/// Reads and checks the configuration in `path`.
///
/// # Errors
/// A [`LoadError`], whose message is fit to be shown as it is.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let text = read(path)?;
    let config = parse(path, &text)?;
    Ok(Loaded { config, text })
}

/// The text of `path`, at most [`FILE_BYTES_MAX`] bytes of it. It never waits, whatever `path` turns out to be.
pub(super) fn read(path: &Path) -> Result<String, LoadError> {
    let unreadable = |error| LoadError::Unreadable {
        path: path.to_owned(),
        error,
    };
    // Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(LoadError::NotAFile {
            path: path.to_owned(),
        });
    }
    let mut bytes = Vec::new();
    // The size is judged by what is read and not by what was announced: the file may be growing.
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(LoadError::TooLarge {
            path: path.to_owned(),
        });
    }
    String::from_utf8(bytes).map_err(|error| LoadError::NotText {
        path: path.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })
}

pub(super) fn parse(path: &Path, text: &str) -> Result<Arc<Config>, LoadError> {
    Config::from_yaml(text)
        .map(Arc::new)
        .map_err(|error| LoadError::Refused {
            path: path.to_owned(),
            error,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const GOOD: &str = "relays: [{name: web, listen: '127.0.0.1:0', target: 'app:80'}]\n";

    fn refusal(path: &Path) -> String {
        let text = load(path).unwrap_err().to_string();
        assert!(
            text.contains(&path.display().to_string()),
            "names the file: {text}"
        );
        text
    }

    #[test]
    fn a_good_file_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.yaml");
        fs::write(&path, GOOD).unwrap();
        let loaded = load(&path).unwrap();
        assert_eq!(loaded.config.relays[0].name, "web");
        assert_eq!(loaded.text, GOOD);
    }

    #[test]
    fn what_is_no_configuration_gets_a_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.yaml");
        assert!(refusal(&path).contains("check the path"));
        assert!(refusal(dir.path()).contains("no regular file"));
        fs::write(&path, b"relays: \xff").unwrap();
        assert!(refusal(&path).contains("byte 8 belongs to no character"));
        fs::write(&path, "relays: []\nworkers: many\n").unwrap();
        let error = load(&path).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("is refused: line 2, column 10: workers: `many`"),
            "{error}"
        );
        assert_eq!(error.problems()[0].line, Some(2));
        std::os::unix::fs::symlink("loop.yaml", dir.path().join("loop.yaml")).unwrap();
        assert!(refusal(&dir.path().join("loop.yaml")).contains("cannot read"));
    }

    #[test]
    fn a_file_that_never_ends_is_not_waited_for() {
        assert!(refusal(Path::new("/dev/zero")).contains("no regular file"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large.yaml");
        fs::write(&path, vec![b'#'; 10 << 20]).unwrap();
        assert!(refusal(&path).contains("larger than 1048576 bytes (1 MiB)"));
        // Exactly the limit is read: it is refused for what it says.
        fs::write(&path, vec![b'#'; 1 << 20]).unwrap();
        assert!(refusal(&path).contains("the document is empty"));
    }

    #[test]
    fn a_pipe_without_a_writer_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        assert!(refusal(&path).contains("no regular file"));
    }
}

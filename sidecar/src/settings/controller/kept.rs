//! What is kept from one process to the next, on a volume of the pod: the last good assignment, the permit and the certificates. It
//! owns that the file is whole or not there; it never judges what is in it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ringside_api::sync::Assigned;
use serde::{Deserialize, Serialize};

use super::reading;

/// The file in the folder.
const FILE: &str = "controller.json";

/// The most bytes of it: an answer's most, and room for JSON.
const BYTES_MOST: u64 = 512 << 10;

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Kept {
    /// The last assignment that took effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assigned: Option<Assigned>,
    /// Whether the pod may leave when no answer comes.
    pub permit: bool,
    /// The certificates to trust the controller by, in PEM, where it has renewed those of the injection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// Where it is kept.
#[derive(Clone, Debug)]
pub(super) struct Store {
    path: PathBuf,
}

impl Store {
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            path: folder.join(FILE),
        }
    }

    /// What an earlier process kept; `None` where none did.
    ///
    /// # Errors
    /// A sentence: it cannot be read or understood.
    pub(super) fn load(&self) -> Result<Option<Kept>, String> {
        let path = self.path.display();
        let text = match reading::text(&self.path, BYTES_MOST) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("what was kept in {path} cannot be read: {error}")),
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| format!("what was kept in {path} is not understood: {error}"))
    }

    /// Keeps it, whole or not at all, also when the machine fails. Where that cannot be, and a permit was taken back, what was kept is
    /// removed: it must not be believed again.
    ///
    /// # Errors
    /// A sentence: the folder cannot be written.
    pub(super) fn save(&self, kept: &Kept) -> Result<(), String> {
        let written = self.write(kept);
        if written.is_err() && !kept.permit {
            // A file that cannot be replaced can often be removed, as on a full volume.
            let _ = std::fs::remove_file(&self.path);
        }
        written.map_err(|error| {
            let path = self.path.display();
            format!(
                "{path} cannot be written: {error}; a restarted sidecar will not know what it ran"
            )
        })
    }

    fn write(&self, kept: &Kept) -> io::Result<()> {
        let text = serde_json::to_string(kept)?;
        let beside = self.path.with_extension("json.new");
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)
            .inspect_err(|_| drop(std::fs::remove_file(&beside)))?;
        // Until the folder is on the disk, a machine that fails may come back with the file before, and a permit that was taken back.
        match self.path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(permit: bool) -> Kept {
        Kept {
            assigned: Some(Assigned {
                hash: "00".to_owned(),
                policy: "api".to_owned(),
                layers: serde_yaml::from_str("{policy: {timeouts: {idle: 90s}}}").unwrap(),
            }),
            permit,
            ca: Some("PEM".to_owned()),
        }
    }

    #[test]
    fn what_was_kept_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        assert_eq!(store.load(), Ok(None));
        store.save(&kept(true)).unwrap();
        store.save(&kept(false)).unwrap();
        assert_eq!(store.load(), Ok(Some(kept(false))));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_half_written_or_foreign_gets_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let text = serde_json::to_string(&kept(true)).unwrap();
        for cut in 0..text.len() {
            std::fs::write(&store.path, &text[..cut]).unwrap();
            assert!(
                store
                    .load()
                    .unwrap_err()
                    .contains("controller.json is not understood")
            );
        }
        std::fs::write(&store.path, vec![b' '; 1 << 20]).unwrap();
        assert!(store.load().unwrap_err().contains("larger"));
    }

    #[test]
    fn a_permit_that_was_taken_back_is_not_believed_though_the_file_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        store.save(&kept(true)).unwrap();
        // Nobody, not even root, can create a file where a folder is.
        std::fs::create_dir(store.path.with_extension("json.new")).unwrap();
        assert!(
            store
                .save(&kept(false))
                .unwrap_err()
                .contains("cannot be written")
        );
        assert_eq!(store.load(), Ok(None));
    }
}

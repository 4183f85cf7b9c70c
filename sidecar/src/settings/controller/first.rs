//! What a sidecar begins with, before the controller answers: what an earlier process kept, else what was stamped into the pod at its
//! injection. It owns the order; it reads and applies nothing by itself.

use std::io;

use ringside_api::sync::Assigned;

use super::kept::{Kept, Store};
use super::{Controller, reading};
use crate::settings::{Assignment, FoundIn};

/// The file of the pod's annotation.
const FILE: &str = "settings.json";

/// The most bytes of it: a pod's annotations are 256 KiB at most.
const BYTES_MOST: u64 = 256 << 10;

/// What there is to begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct First {
    /// What to try, in this order.
    pub assignments: Vec<Assignment>,
    /// What an earlier process kept.
    pub kept: Kept,
    /// A sentence for each file that is passed over.
    pub passed_over: Vec<String>,
}

/// Looks for what there is to begin with.
pub fn first(controller: &Controller) -> First {
    let mut first = First::default();
    if let Some(folder) = &controller.state {
        match Store::new(folder).load() {
            Ok(kept) => first.kept = kept.unwrap_or_default(),
            Err(sentence) => first.passed_over.push(sentence),
        }
    }
    if let Some(assigned) = first.kept.assigned.clone() {
        let from = FoundIn::Kept;
        first.assignments.push(Assignment { assigned, from });
    }
    match stamped(controller) {
        Ok(Some(assigned)) => first.assignments.push(Assignment {
            assigned,
            from: FoundIn::Stamped,
        }),
        Ok(None) => {}
        Err(sentence) => first.passed_over.push(sentence),
    }
    first
}

fn stamped(controller: &Controller) -> Result<Option<Assigned>, String> {
    let path = controller.pod_files.join(FILE);
    let shown = path.display();
    let text = match reading::text(&path, BYTES_MOST) {
        // An annotation that is not there makes an empty file.
        Ok(text) if text.trim().is_empty() => return Ok(None),
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{shown} cannot be read: {error}")),
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| format!("{shown} is not understood: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller(folder: &std::path::Path) -> Controller {
        Controller {
            address: "https://controller:8443".parse().unwrap(),
            connect_to: None,
            pod: ringside_api::sync::PodIdentity::default(),
            pod_files: folder.to_owned(),
            state: Some(folder.to_owned()),
        }
    }

    #[test]
    fn what_was_kept_comes_before_what_was_stamped() {
        let folder = tempfile::tempdir().unwrap();
        let controller = controller(folder.path());
        assert_eq!(first(&controller), First::default());
        std::fs::write(folder.path().join(FILE), "").unwrap();
        assert_eq!(first(&controller), First::default());
        std::fs::write(
            folder.path().join(FILE),
            r#"{"hash": "1", "policy": "stamped"}"#,
        )
        .unwrap();
        let kept = Kept {
            assigned: Some(Assigned {
                policy: "kept".to_owned(),
                ..Assigned::default()
            }),
            permit: true,
            ca: None,
        };
        Store::new(folder.path()).save(&kept).unwrap();
        let found = first(&controller);
        let policies: Vec<_> = found
            .assignments
            .iter()
            .map(|a| a.assigned.policy.as_str())
            .collect();
        assert_eq!(policies, ["kept", "stamped"]);
        assert!(found.kept.permit && found.passed_over.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_told_and_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join(FILE),
            r#"{"hash": "1", "layers": {"polic"#,
        )
        .unwrap();
        std::fs::write(folder.path().join("controller.json"), "{").unwrap();
        let found = first(&controller(folder.path()));
        assert!(found.assignments.is_empty());
        assert_eq!(found.passed_over.len(), 2, "{found:?}");
        assert!(found.passed_over[1].contains("settings.json is not understood"));
    }
}

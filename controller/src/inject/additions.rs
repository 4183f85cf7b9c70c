//! Additions to a JSON document as a JSON Patch: only `add`, and the missing parents first. It owns pointers and their escaping.
//! It replaces nothing but null, which means "missing", and the annotations that are the injector's own.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation};
use serde_json::{Map, Value};

/// Additions to one document.
pub(super) struct Additions {
    /// As it is with the additions so far.
    document: Value,
    operations: Vec<PatchOperation>,
}

impl Additions {
    /// None so far.
    pub(super) fn to(document: &Value) -> Self {
        Self {
            document: document.clone(),
            operations: Vec::new(),
        }
    }

    /// The patch.
    pub(super) fn into_patch(self) -> Vec<PatchOperation> {
        self.operations
    }

    fn add(&mut self, path: &[&str], value: Value) {
        let path = PointerBuf::from_tokens(path.iter().copied());
        let operation = PatchOperation::Add(AddOperation { path, value });
        let applied = json_patch::patch(&mut self.document, std::slice::from_ref(&operation));
        debug_assert!(applied.is_ok(), "{operation}: {applied:?}");
        // One that does not fit would make an API server refuse the whole patch.
        if applied.is_ok() {
            self.operations.push(operation);
        }
    }

    fn find(&self, path: &[&str]) -> Option<&Value> {
        let mut steps = path.iter();
        steps
            .try_fold(&self.document, |value, step| value.get(step))
            .filter(|value| !value.is_null())
    }

    /// Adds members to the object at `path`, and the objects on the way to it that are missing.
    pub(super) fn members(&mut self, path: &[&str], members: Map<String, Value>) {
        if members.is_empty() {
            return;
        }
        let there = (0..=path.len())
            .rev()
            .find(|length| self.find(&path[..*length]).is_some())
            .unwrap_or(0);
        if there == path.len() {
            for (key, value) in members {
                let mut path = path.to_vec();
                path.push(&key);
                self.add(&path, value);
            }
            return;
        }
        // The first one that is missing comes with all that is in it.
        let within = path[there + 1..]
            .iter()
            .rev()
            .fold(Value::Object(members), |value, step| {
                Value::Object(Map::from_iter([((*step).to_owned(), value)]))
            });
        self.add(&path[..=there], within);
    }

    /// Adds to the front of the list at `path`, or the list.
    pub(super) fn first(&mut self, path: &[&str], member: Value) {
        match self.find(path) {
            Some(_) => self.add(&[path, &["0"]].concat(), member),
            None => self.add(path, Value::Array(vec![member])),
        }
    }

    /// Adds to the end of the list at `path`, or the list.
    pub(super) fn last(&mut self, path: &[&str], members: Vec<Value>) {
        if members.is_empty() {
            return;
        }
        match self.find(path) {
            Some(_) => {
                for member in members {
                    self.add(&[path, &["-"]].concat(), member);
                }
            }
            None => self.add(path, Value::Array(members)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parents_that_are_missing_come_first_and_keys_are_escaped() {
        for (before, after) in [
            (json!({}), json!({"a": {"b": {"c/d~e": 1}}})),
            (json!({"a": null}), json!({"a": {"b": {"c/d~e": 1}}})),
            (
                json!({"a": {"x": 2}}),
                json!({"a": {"x": 2, "b": {"c/d~e": 1}}}),
            ),
            (
                json!({"a": {"b": {"y": 3}}}),
                json!({"a": {"b": {"y": 3, "c/d~e": 1}}}),
            ),
        ] {
            let mut document = before.clone();
            let mut additions = Additions::to(&before);
            additions.members(
                &["a", "b"],
                Map::from_iter([("c/d~e".to_owned(), json!(1))]),
            );
            json_patch::patch(&mut document, &additions.into_patch()).unwrap();
            assert_eq!(document, after);
        }
    }

    #[test]
    fn lists_grow_at_either_end() {
        let before = json!({"there": [1], "null": null});
        let mut additions = Additions::to(&before);
        additions.first(&["there"], json!(0));
        additions.last(&["there"], vec![json!(2), json!(3)]);
        additions.first(&["null"], json!(0));
        additions.last(&["new"], vec![json!(4), json!(5)]);
        let mut document = before;
        json_patch::patch(&mut document, &additions.into_patch()).unwrap();
        assert_eq!(
            document,
            json!({"there": [0, 1, 2, 3], "null": [0], "new": [4, 5]})
        );
    }
}

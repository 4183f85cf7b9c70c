//! Which metrics a PromQL expression asks for. It knows names, and nothing of what the rest means.

use std::collections::BTreeSet;

/// The metrics of Ringside in `expression`, among them recorded ones, and those of a process. What is in braces or quotes is no name.
pub fn metrics(expression: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let (mut in_braces, mut in_quotes, mut begin) = (false, false, None);
    // One more than there are, so that a name at the end is ended as well.
    for (at, letter) in expression.char_indices().chain([(expression.len(), ' ')]) {
        let is_outside = !in_braces && !in_quotes;
        if is_outside && (letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':')) {
            begin.get_or_insert(at);
            continue;
        }
        if let Some(begin) = begin.take() {
            let name = &expression[begin..at];
            if name.contains("ringside_") || name.starts_with("process_") {
                found.insert(name);
            }
        }
        match letter {
            '"' => in_quotes = !in_quotes,
            '{' if !in_quotes => in_braces = true,
            '}' if !in_quotes => in_braces = false,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_labels_are_not() {
        let text = r#"sum by (ringside) (rate(ringside_a_total{b="}ringside_no", ringside_c!="x"}[5m])) / instance:ringside_d:sum"#;
        let found: Vec<&str> = metrics(text).into_iter().collect();
        assert_eq!(found, ["instance:ringside_d:sum", "ringside_a_total"]);
        assert_eq!(metrics("1 + process_open_fds").len(), 1);
        assert!(metrics("time() - vector(0)").is_empty());
    }
}

//! A text cut into its documents, so that one that is not changed can be written as it was. It owns where documents begin and end;
//! it never changes a byte.

use serde_json::Value;

/// One document of a YAML stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Document<'a> {
    /// The line that separates it from the one before, if there is one.
    pub(super) mark: &'a str,
    /// All that follows up to the next.
    pub(super) body: &'a str,
    /// The line in which the body begins, from 1.
    pub(super) line: usize,
}

/// The documents of a JSON text, each with the white space before it; `None` for a text that is not JSON.
pub(super) fn json(text: &str) -> Option<Vec<(&str, Value)>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut documents = Vec::new();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut start = 0;
    while let Some(value) = values.next() {
        let end = values.byte_offset();
        documents.push((&text[start..end], value.ok()?));
        start = end;
    }
    // A line break at the end belongs to the last.
    if let Some((last, _)) = documents.last_mut() {
        *last = &text[start - last.len()..];
    }
    Some(documents)
}

/// The documents of a YAML text. At the beginning of a line `---` and `...` can be nothing but marks.
pub(super) fn yaml(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut mark, mut body_start, mut line) = (0..0, 0, 1);
    let mut at = 0;
    for (number, text_line) in text.split_inclusive('\n').enumerate() {
        if let Some(length) = mark_length(text_line) {
            if at > body_start || mark.start < mark.end {
                documents.push(Document {
                    mark: &text[mark],
                    body: &text[body_start..at],
                    line,
                });
            }
            mark = at..at + length;
            body_start = at + length;
            // What follows the mark in its own line is the body's.
            line = number + 1 + usize::from(length == text_line.len());
        }
        at += text_line.len();
    }
    documents.push(Document {
        mark: &text[mark],
        body: &text[body_start..],
        line,
    });
    documents
}

/// The length of the mark that this line is, or begins with.
fn mark_length(line: &str) -> Option<usize> {
    let rest = line
        .strip_prefix("---")
        .or_else(|| line.strip_prefix("..."))?;
    let after = rest.trim_start();
    match (rest.chars().next(), after.chars().next()) {
        (_, None | Some('#')) => Some(line.len()),
        (Some(' ' | '\t'), Some(_)) => Some(4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_documents() {
        for (text, bodies) in [
            ("", vec![""]),
            ("a: 1\n", vec!["a: 1\n"]),
            ("---\na: 1\n---\nb: 2", vec!["a: 1\n", "b: 2"]),
            (
                "# x\n--- # y\n\n---\n---\nb: 2\n...\n",
                vec!["# x\n", "\n", "", "b: 2\n", ""],
            ),
            (
                "a: |\n  ---\n ---\nb: ---x\n---x\n",
                vec!["a: |\n  ---\n ---\nb: ---x\n---x\n"],
            ),
            ("--- {a: 1}\n", vec!["{a: 1}\n"]),
        ] {
            let documents = yaml(text);
            let found: Vec<&str> = documents.iter().map(|document| document.body).collect();
            assert_eq!(found, bodies);
            let together: String = documents
                .iter()
                .flat_map(|document| [document.mark, document.body])
                .collect();
            assert_eq!(together, text);
            for Document { body, line, .. } in documents {
                let before: usize = text
                    .split_inclusive('\n')
                    .take(line - 1)
                    .map(str::len)
                    .sum();
                assert!(text[before..].contains(body));
            }
        }
    }

    #[test]
    fn json_is_told_from_yaml_in_flow_style() {
        let text = " {\"a\": 1}\n\n{\"b\": [2]} \n";
        let together: String = json(text).unwrap().iter().map(|(raw, _)| *raw).collect();
        assert_eq!(together, text);
        assert_eq!(json("{a: 1}"), None);
        assert_eq!(json("a: 1"), None);
    }
}

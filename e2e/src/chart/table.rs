//! The table of the chart's values, from the comments of `values.yaml`. It owns how such a comment looks: `# -- ` before the key, in one or more
//! lines. It writes nothing.

use serde_json::Value as Json;

/// One documented value.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Its path, with dots.
    pub path: String,
    /// Its default.
    pub default: Json,
    /// What it does.
    pub text: String,
}

/// Every documented value, in the file's order.
///
/// # Errors
/// A value that nobody documents, or a comment that no key follows: a sentence that names the line.
pub fn read(text: &str) -> Result<Vec<Value>, String> {
    let defaults: Json = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let mut values: Vec<Value> = Vec::new();
    // Keys on the way to a line, with their indentation.
    let mut path: Vec<(usize, &str)> = Vec::new();
    let mut comment: Option<String> = None;
    for (index, line) in text.lines().enumerate() {
        let at = |what: &str| format!("values.yaml, line {}: {what}", index + 1);
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if let Some(begun) = content.strip_prefix("# -- ") {
            comment = Some(begun.to_owned());
            continue;
        }
        if let Some(more) = content.strip_prefix("# ") {
            if let Some(comment) = &mut comment {
                comment.push(' ');
                comment.push_str(more);
            }
            continue;
        }
        if content.is_empty() || content.starts_with(['#', '-']) {
            continue;
        }
        let Some((key, _)) = content.split_once(':') else {
            return Err(at("this is no key"));
        };
        path.retain(|(depth, _)| *depth < indent);
        let is_covered = |values: &[Value], path: &[(usize, &str)]| {
            let joined = join(path);
            values.iter().any(|value| {
                joined == value.path || joined.starts_with(&format!("{}.", value.path))
            })
        };
        let below_documented = is_covered(&values, &path);
        path.push((indent, key));
        let joined = join(&path);
        let pointer = format!(
            "/{}",
            joined
                .replace('~', "~0")
                .replace('/', "~1")
                .replace('.', "/")
        );
        match comment.take() {
            Some(_) if below_documented => {
                return Err(at("what is above it is documented as a whole"));
            }
            Some(text) => {
                let default = defaults.pointer(&pointer);
                let default = default.ok_or_else(|| at("this key cannot be found again"))?;
                values.push(Value {
                    path: joined,
                    default: default.clone(),
                    text,
                });
            }
            // A map whose members are documented needs no words of its own.
            None if below_documented || content.trim_end().ends_with(':') => {}
            None => {
                return Err(at(&format!(
                    "{joined} has no comment that begins with `# -- `"
                )));
            }
        }
    }
    Ok(values)
}

fn join(path: &[(usize, &str)]) -> String {
    let keys: Vec<&str> = path.iter().map(|(_, key)| *key).collect();
    keys.join(".")
}

/// As a table in Markdown.
pub(super) fn markdown(values: &[Value]) -> String {
    let mut table = String::from("| value | default | what it does |\n|---|---|---|\n");
    for Value {
        path,
        default,
        text,
    } in values
    {
        let default = default.to_string().replace('|', "\\|");
        table.push_str(&format!("| `{path}` | `{default}` | {text} |\n"));
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn comments_become_rows_and_none_may_be_missing() {
        let text = "# About it all.\n# -- One.\na: 1\nb:\n  # -- Two,\n  # in two lines.\n  c:\n    d: {e: x}\n  # -- Three.\n  f: []\n";
        let rows = read(text).unwrap();
        let row = |path: &str, default: Json, text: &str| Value {
            path: path.to_owned(),
            default,
            text: text.to_owned(),
        };
        assert_eq!(
            rows,
            [
                row("a", json!(1), "One."),
                row("b.c", json!({"d": {"e": "x"}}), "Two, in two lines."),
                row("b.f", json!([]), "Three."),
            ]
        );
        let error = read("a:\n  b: 1\n").unwrap_err();
        assert_eq!(
            error,
            "values.yaml, line 2: a.b has no comment that begins with `# -- `"
        );
    }
}

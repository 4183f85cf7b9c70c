//! YAML for Kubernetes: read, added to, written. It owns that what it writes means the same to kubectl, whose YAML is of version 1.1:
//! there `on` is a truth, `0644` is octal and `1_000` a number, so whatever could be read in two ways is put in quotes.

use json_patch::PatchOperation;
use serde_yaml::{Mapping, Value};

use super::stream::Document;

/// Words that some reader takes for a truth or nothing.
const RESERVED: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// A document's value; it may begin with the mark that Windows' editors write.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut value: Value = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    value.apply_merge().map_err(|error| error.to_string())?;
    read_modes(&mut value);
    Ok(value)
}

/// Modes of files are mostly written as `0644`, octal to kubectl and text to a reader of YAML 1.2. No other text is allowed there.
fn read_modes(value: &mut Value) {
    match value {
        Value::Mapping(fields) => {
            for (key, value) in fields {
                let is_mode = matches!(key.as_str(), Some("mode" | "defaultMode"));
                let octal = value.as_str().and_then(|text| text.strip_prefix('0'));
                match octal.and_then(|digits| u32::from_str_radix(digits, 8).ok()) {
                    Some(mode) if is_mode => *value = Value::Number(mode.into()),
                    _ => read_modes(value),
                }
            }
        }
        Value::Sequence(members) => members.iter_mut().for_each(read_modes),
        _ => {}
    }
}

/// Words of a document that mean one thing to kubectl and another here.
pub(super) fn warnings(document: &Document<'_>) -> Vec<String> {
    let lines = document.body.lines().enumerate();
    let ambiguous = lines.filter_map(|(index, line)| {
        let value = line.split(" #").next().unwrap_or_default().trim_end();
        let word = value.rsplit_once(": ").or_else(|| value.rsplit_once("- "))?.1;
        let is_truth = RESERVED[..6].contains(&word.trim().to_ascii_lowercase().as_str());
        is_truth.then(|| {
            let (line, word) = (document.line + index, word.trim());
            format!("line {line}: {word} is written as text, \"{word}\": if a truth is meant, say true or false")
        })
    });
    ambiguous.collect()
}

/// Comments before anything else, such as a licence. Others are not kept in a document that is written anew.
pub(super) fn leading_comments(text: &str) -> &str {
    let lines = text.split_inclusive('\n');
    let length = lines
        .take_while(|line| line.starts_with('#'))
        .map(str::len)
        .sum();
    &text[..length]
}

/// Adds to what is at `path`. The operations are all `add`, of a patch that fits.
pub(super) fn apply(document: &mut Value, path: &str, patch: &[PatchOperation]) {
    for operation in patch {
        let PatchOperation::Add(add) = operation else {
            continue;
        };
        let Ok(value) = serde_yaml::to_value(&add.value) else {
            continue;
        };
        let steps = path.split('/').skip(1).map(str::to_owned);
        let mut steps: Vec<String> = steps
            .chain(add.path.tokens().map(|token| token.decoded().into_owned()))
            .collect();
        let Some(last) = steps.pop() else { continue };
        let parent = steps.iter().try_fold(&mut *document, |at, step| match at {
            Value::Mapping(fields) => fields.get_mut(step.as_str()),
            Value::Sequence(members) => members.get_mut(step.parse::<usize>().ok()?),
            _ => None,
        });
        match parent {
            Some(Value::Mapping(fields)) => {
                fields.insert(Value::String(last), value);
            }
            Some(Value::Sequence(members)) => {
                let index = last.parse().unwrap_or(members.len());
                members.insert(index.min(members.len()), value);
            }
            _ => {}
        }
    }
}

/// The value in block style, with a line break at the end.
pub(super) fn write(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

/// Writes lines that are indented by so many spaces.
fn block(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Mapping(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                spaces(indent, text);
                text.push_str(&scalar(key, indent));
                text.push(':');
                match value {
                    Value::Mapping(fields) if !fields.is_empty() => {
                        text.push('\n');
                        block(value, indent + 2, text);
                    }
                    Value::Sequence(members) if !members.is_empty() => {
                        text.push('\n');
                        block(value, indent, text);
                    }
                    _ => {
                        text.push(' ');
                        text.push_str(&scalar(value, indent + 2));
                        text.push('\n');
                    }
                }
            }
        }
        Value::Sequence(members) if !members.is_empty() => {
            for member in members {
                let start = text.len();
                block(member, indent + 2, text);
                text.replace_range(start + indent..start + indent + 1, "-");
            }
        }
        _ => {
            spaces(indent, text);
            text.push_str(&scalar(value, indent));
            text.push('\n');
        }
    }
}

fn spaces(count: usize, text: &mut String) {
    text.extend(std::iter::repeat_n(' ', count));
}

/// A value in its line; a text of several lines goes on below, indented.
fn scalar(value: &Value, indent: usize) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if is_plain(text) => text.clone(),
        Value::String(text) => literal(text, indent).unwrap_or_else(|| quoted(text)),
        Value::Sequence(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|member| scalar(member, indent))
                .collect();
            format!("[{}]", members.join(", "))
        }
        Value::Mapping(fields) => flow(fields, indent),
        // Kubernetes has none.
        Value::Tagged(tagged) => format!("{} {}", tagged.tag, scalar(&tagged.value, indent)),
    }
}

fn flow(fields: &Mapping, indent: usize) -> String {
    let pair = |(key, value)| format!("{}: {}", scalar(key, indent), scalar(value, indent));
    let pairs: Vec<String> = fields.iter().map(pair).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// Whether every reader takes this for the same text without quotes.
fn is_plain(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_./@:-".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.bytes().all(allowed)
        && !text.ends_with(':')
        && !RESERVED.contains(&text.to_ascii_lowercase().as_str())
}

/// A text of several lines as a literal block, where that keeps every character.
fn literal(text: &str, indent: usize) -> Option<String> {
    let body = text.strip_suffix('\n').unwrap_or(text);
    let is_safe = |c: char| c == '\n' || !(c.is_control() || is_break(c));
    if indent == 0
        || !body.contains('\n')
        || body.ends_with('\n')
        || body.starts_with([' ', '\n'])
        || !body.chars().all(is_safe)
    {
        return None;
    }
    let mut block = String::from(if body.len() < text.len() { "|" } else { "|-" });
    for line in body.split('\n') {
        block.push('\n');
        if !line.is_empty() {
            spaces(indent, &mut block);
        }
        block.push_str(line);
    }
    Some(block)
}

/// Characters that YAML 1.1 takes for line breaks or marks.
fn is_break(c: char) -> bool {
    matches!(
        c,
        '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}'
    )
}

/// In double quotes, where JSON's escapes are YAML's.
fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for c in serde_json::Value::from(text).to_string().chars() {
        if is_break(c) {
            quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            quoted.push(c);
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_kubectl_could_read_otherwise_is_quoted() {
        let value = read(r#"{a: "on", b: "0644", c: "1_000", d: nginx:1.25, e: "", f: [], g: {}, h: "2001-01-01", i: "12:30", defaultMode: 0644, k: 7, l: "NO"}"#).unwrap();
        assert_eq!(
            write(&value),
            "a: \"on\"\nb: \"0644\"\nc: \"1_000\"\nd: nginx:1.25\ne: \"\"\nf: []\ng: {}\nh: \"2001-01-01\"\ni: \"12:30\"\ndefaultMode: 420\nk: 7\nl: \"NO\"\n"
        );
    }

    #[test]
    fn truths_of_yaml_1_1_are_told_with_their_line() {
        let body = "a: 1\nb: yes # x\nc:\n- off\nd: \"on\"\ne: no way\n";
        let document = Document {
            mark: "",
            body,
            line: 10,
        };
        let told = warnings(&document);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("line 11: yes") && told[1].starts_with("line 13: off"));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            "[ a\n\t:#'\"-]{0,12}".prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Sequence),
                prop::collection::btree_map("[ -~]{0,6}", inner, 0..4).prop_map(|fields| {
                    let fields = fields.into_iter();
                    Value::Mapping(
                        fields
                            .map(|(key, value)| (Value::String(key), value))
                            .collect(),
                    )
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in value()) {
            let text = write(&value);
            let again: Value = serde_yaml::from_str(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
            prop_assert_eq!(again, value, "{}", text);
        }
    }
}

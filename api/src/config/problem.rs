//! What is wrong with a document, told by place and field. It owns how a refusal reads; what is refused is decided
//! elsewhere.

use std::fmt;

use serde::Serialize;

/// What an empty document is answered with.
pub(super) const EMPTY: &str = "the document is empty: write at least `relays:` with one relay";

/// One thing that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Line from 1, where the document has lines.
    pub line: Option<usize>,
    /// Column from 1.
    pub column: Option<usize>,
    /// The field's path, such as `relays[0].listen`; empty when the document itself is broken.
    pub field: String,
    /// What is wrong and what is allowed; it names the field.
    pub sentence: String,
}

impl Problem {
    pub(super) fn new(field: String, sentence: String) -> Self {
        Self {
            line: None,
            column: None,
            field,
            sentence,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.sentence)
    }
}

/// Why a document is refused: at least one problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError(pub(super) Vec<Problem>);

impl ConfigError {
    /// What is wrong, at least one thing.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let between = if index == 0 { "" } else { "; " };
            write!(f, "{between}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Takes a YAML error apart: `relays[0].listen: SENTENCE at line 3 column 5`.
pub(super) fn problem_of(error: &serde_yaml::Error, yaml: &str) -> Problem {
    let (line, column) = error
        .location()
        .map(|location| (location.line(), location.column()))
        .unzip();
    let text = error.to_string();
    let place = line
        .zip(column)
        .map(|(line, column)| format!(" at line {line} column {column}"));
    let text = place
        .and_then(|place| text.strip_suffix(&place))
        .unwrap_or(&text);
    // Only fields that are known are ever walked into, so a path consists of these characters.
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b".[]_-".contains(&byte);
    let (field, said) = match text.split_once(": ") {
        Some((path, said)) if path.bytes().all(in_path) => (path, said),
        _ => ("", text),
    };
    let (field, sentence) = match said {
        // The parser's words for an empty file.
        "EOF while parsing a value" => (field.to_owned(), EMPTY.to_owned()),
        // The parser does not say where.
        said if said.starts_with("deserializing from YAML containing more than one document") => {
            return Problem {
                line: Some(second_document(yaml)),
                column: Some(1),
                field: String::new(),
                sentence: "this begins a second document: write one, without `---` or `...` in it"
                    .to_owned(),
            };
        }
        // This one names its place itself, and is about the field that it quotes.
        said if said.starts_with("unknown field") => {
            let name = said.split('`').nth(1).unwrap_or_default();
            let path = if field.is_empty() {
                name.to_owned()
            } else {
                format!("{field}.{name}")
            };
            (path, shortened(said))
        }
        _ => (field.to_owned(), shortened(text)),
    };
    Problem {
        line,
        column,
        field,
        sentence,
    }
}

/// The parser's words repeat what it was given, however long that is: the beginning and the end tell enough.
fn shortened(sentence: &str) -> String {
    const BEGINNING_CHARS: usize = 300;
    const END_CHARS: usize = 200;
    let count = sentence.chars().count();
    if count <= BEGINNING_CHARS + END_CHARS {
        return sentence.to_owned();
    }
    let beginning: String = sentence.chars().take(BEGINNING_CHARS).collect();
    let end: String = sentence.chars().skip(count - END_CHARS).collect();
    format!("{beginning} … {end}")
}

/// The line on which a second document begins, as far as markers tell; else the first one.
fn second_document(yaml: &str) -> usize {
    let mut has_begun = false;
    for (index, line) in yaml.lines().enumerate() {
        let is_marker = line.starts_with("---") || line.starts_with("...");
        if is_marker && has_begun {
            return index + 1;
        }
        has_begun |= !is_marker && !line.is_empty() && !line.starts_with(['#', '%']);
    }
    1
}

//! What documents show as code: the blocks of a language, and the commands under each heading. It reads; running them is the tests'.

use std::fs;
use std::path::PathBuf;

/// The project's folder.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A document of the project, such as `docs/quick-start.md`.
///
/// # Panics
/// If it is not there.
#[track_caller]
pub fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The fenced blocks of one language, in order.
pub fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let parts = text.split(&fence).skip(1);
    parts
        .map(|part| part.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

/// A line of a `sh` block, with the lines that continue it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The heading that it stands under, without its marks.
    pub heading: String,
    /// What is to be typed.
    pub command: String,
}

/// All commands of a document, in order; comments and empty lines are none.
pub fn commands(text: &str) -> Vec<Shown> {
    let (mut heading, mut is_inside, mut begun) = (String::new(), None, String::new());
    let mut commands = Vec::new();
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            is_inside = match is_inside {
                None => Some(language == "sh"),
                Some(_) => None,
            };
        } else if is_inside.is_none() && line.starts_with('#') {
            line.trim_start_matches('#').trim().clone_into(&mut heading);
        } else if is_inside == Some(true) {
            if let Some(part) = line.strip_suffix('\\') {
                begun += part;
                continue;
            }
            let command = std::mem::take(&mut begun) + line.trim_start();
            if !command.is_empty() && !command.starts_with('#') {
                commands.push(Shown {
                    heading: heading.clone(),
                    command,
                });
            }
        }
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_what_stands_around_them() {
        let text = "# One\n```sh\n# a comment\na b \\\n  c\n\nd\n```\ntext\n```text\n# not a heading\ne\n```\n## Two\n```sh\nf\n```\n";
        let found: Vec<(String, String)> = commands(text)
            .into_iter()
            .map(|shown| (shown.heading, shown.command))
            .collect();
        let expected = [("One", "a b c"), ("One", "d"), ("Two", "f")];
        assert_eq!(
            found,
            expected.map(|(heading, command)| (heading.to_owned(), command.to_owned()))
        );
        assert_eq!(blocks(text, "text"), ["# not a heading\ne\n"]);
    }
}

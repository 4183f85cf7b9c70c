//! What stories have shown, as rows: written by each story when it ends, read together for the table. It owns the files' form.

use std::fmt::Write;
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use super::folder;

/// A point that a story has shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// What.
    pub what: String,
    /// What was seen, such as a time.
    pub value: String,
}

/// A story that was told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its number.
    pub number: u32,
    /// Its title.
    pub title: String,
    /// The step at which it failed, if it did.
    pub failed_at: Option<String>,
    /// How long it took, without the cluster's start.
    pub seconds: f64,
    /// What it has shown.
    pub shown: Vec<Shown>,
}

impl Row {
    /// Writes it, in place of an earlier run's.
    pub(super) fn write(&self) {
        let path = folder().join(format!("story-{:02}.json", self.number));
        let text = serde_json::to_string(self).expect("a row can be written as JSON");
        let written = fs::create_dir_all(folder()).and_then(|()| fs::write(&path, text));
        if let Err(error) = written {
            eprintln!("{}: {error}", path.display());
        }
    }
}

/// The rows of all stories that were told, in their order.
///
/// # Errors
/// One of the files is none.
pub fn rows() -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for file in fs::read_dir(folder())? {
        let path = file?.path();
        if path.extension().is_some_and(|end| end == "json") {
            let text = fs::read_to_string(&path)?;
            rows.push(serde_json::from_str::<Row>(&text)?);
        }
    }
    rows.sort_by_key(|row| row.number);
    Ok(rows)
}

/// The table of stories, what was shown, and times; Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from("| story | what was shown | seen |\n|---|---|---|\n");
    for row in rows {
        let how = match &row.failed_at {
            None => "told".to_owned(),
            Some(step) => format!("**failed** at: {step}"),
        };
        let seconds = row.seconds;
        let line = format!("| {}. {} | {how} | {seconds:.0} s |", row.number, row.title);
        let _ = writeln!(text, "{line}");
        for Shown { what, value } in &row.shown {
            let _ = writeln!(text, "| | {} | {} |", cell(what), cell(value));
        }
    }
    let seconds: f64 = rows.iter().map(|row| row.seconds).sum();
    let failed = rows.iter().filter(|row| row.failed_at.is_some()).count();
    let _ = writeln!(
        text,
        "| {} stories | {failed} failed | {seconds:.0} s |",
        rows.len()
    );
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_point_and_says_what_failed() {
        let row = |number, failed_at: Option<&str>| Row {
            number,
            title: "Title".to_owned(),
            failed_at: failed_at.map(ToOwned::to_owned),
            seconds: 2.4,
            shown: vec![Shown {
                what: "a | b".to_owned(),
                value: "1.00 s".to_owned(),
            }],
        };
        let text = table(&[row(1, None), row(2, Some("a step"))]);
        assert!(text.contains("| 1. Title | told | 2 s |"), "{text}");
        assert!(text.contains("**failed** at: a step"), "{text}");
        assert!(text.contains("| | a \\| b | 1.00 s |"), "{text}");
        assert!(text.ends_with("| 2 stories | 1 failed | 5 s |\n"), "{text}");
    }
}

//! Prints the table of the stories that were told, from what they have written. Ends with 1 where one of them failed, or none was told.

use std::process::ExitCode;

use ringside_e2e::story::{rows, table};

fn main() -> ExitCode {
    let rows = rows().unwrap_or_default();
    print!("{}", table(&rows));
    if rows.is_empty() || rows.iter().any(|row| row.failed_at.is_some()) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

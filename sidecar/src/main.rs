//! The command line `ringside`.
//!
//! It owns what people type and read, and the exit codes: 0, 1 for what failed, 2 for what was not understood.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}

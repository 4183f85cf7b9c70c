//! The binary `ringside-controller`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}

//! `ringside top`: what sidecars do, live in a terminal or once as a table.

use std::io::{IsTerminal as _, Write as _, stdout};

use ringside::top;

use super::{FAILED, Failure};

/// Show what sidecars do, live in a terminal
///
/// A line for each sidecar; of the chosen one throughput, connections, pushback, backoff, batch limit, gate and readiness over the last minutes,
/// and its events. It goes on when a sidecar is started anew. Keys: q quits, arrows choose, s sorts, p pauses, ? helps.
///
/// In a pipe it prints a table once, as with --once.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 done, 1 with --once where a sidecar does not answer, 2 usage."
)]
pub(crate) struct Arguments {
    /// The admin ports to ask: HOST:PORT, or HOST alone for port 15490; NAME=HOST:PORT gives one a name
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:15490")]
    places: Vec<top::Place>,

    /// Print a table once and end; rates are those of the last second
    #[arg(long)]
    once: bool,
}

/// Shows until the user has seen enough.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.once || !stdout().is_terminal() {
        let (table, all) = top::once(&arguments.places);
        // Whoever reads may have seen enough.
        let _ = stdout().write_all(table.as_bytes());
        return if all {
            Ok(())
        } else {
            Err(Failure::Code(FAILED))
        };
    }
    let has_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    top::live(&arguments.places, has_colours)?;
    Ok(())
}

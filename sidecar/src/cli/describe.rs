//! `ringside completions` and `ringside man`: the command line told to shells and as manual pages, from its own declaration.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;

use super::Failure;

/// Print completions for a shell
///
/// For bash: source <(ringside completions bash), or into /etc/bash_completion.d/ringside. For zsh: into a folder of $fpath, as _ringside. For
/// fish: into ~/.config/fish/completions/ringside.fish.
#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Write manual pages into a folder, one for each command
#[derive(Debug, clap::Args)]
pub(crate) struct Man {
    /// The folder, which is made where it is not there
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Prints completions of `command`.
pub(super) fn completions(mut command: Command, arguments: &Completions) -> Result<(), Failure> {
    let (mut text, name) = (Vec::new(), command.get_name().to_owned());
    clap_complete::generate(arguments.shell, &mut command, name, &mut text);
    // Whoever reads may have seen enough.
    let _ = std::io::stdout().write_all(&text);
    Ok(())
}

/// Writes pages of `command` and of each below it.
pub(super) fn man(command: Command, arguments: &Man) -> Result<(), Failure> {
    let folder = &arguments.folder;
    let written = fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command.disable_help_subcommand(true), folder));
    written
        .with_context(|| format!("the manual pages cannot be written to {}", folder.display()))?;
    Ok(())
}

//! What the command lines of both programs have in common: they are told to shells and as manual pages from their own declaration, and tell
//! what failed in one line.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context;
use clap::Command;
use clap_complete::Shell;

/// Print completions for a shell
///
/// PROGRAM stands for this one. For bash: source <(PROGRAM completions bash), or into /etc/bash_completion.d/PROGRAM. For zsh: into a folder of
/// $fpath, as _PROGRAM. For fish: into ~/.config/fish/completions/PROGRAM.fish.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Write manual pages into a folder, one for each command
#[derive(Debug, clap::Args)]
pub struct Man {
    /// The folder, which is made where it is not there
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Prints completions of `command`.
///
/// # Errors
/// Never: whoever reads may have seen enough.
pub fn completions(mut command: Command, arguments: &Completions) -> anyhow::Result<()> {
    let (mut text, name) = (Vec::new(), command.get_name().to_owned());
    clap_complete::generate(arguments.shell, &mut command, name, &mut text);
    // Whoever reads may have seen enough.
    let _ = std::io::stdout().write_all(&text);
    Ok(())
}

/// Writes pages of `command` and of each below it.
///
/// # Errors
/// The folder or a page cannot be written.
pub fn man(command: Command, arguments: &Man) -> anyhow::Result<()> {
    let folder = &arguments.folder;
    let written = fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command.disable_help_subcommand(true), folder));
    written
        .with_context(|| format!("the manual pages cannot be written to {}", folder.display()))?;
    Ok(())
}

/// The sentence and its causes on one line; a cause that the sentence tells already is not told again.
pub fn with_causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = std::io::Error::other("the port is taken");
        let error =
            anyhow::Error::new(cause).context("cannot listen: the port is taken; stop the other");
        assert_eq!(
            with_causes(&error.context("no start")),
            "no start: cannot listen: the port is taken; stop the other"
        );
    }
}

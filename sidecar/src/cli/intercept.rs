//! `ringside intercept`: has the kernel redirect connections from an application's own port to a relay.

use std::io::Write as _;

use anyhow::Context;
use ringside::intercept::{self, Redirect, Rules};

use super::Failure;

/// Redirect connections from an application's own port to a relay
///
/// Sets rules of nftables in this network, which is the pod's where it runs in a pod, in the place of those that it set
/// before, and ends. Connections that come from outside to port FROM go to port TO, of IPv4 and IPv6; what the pod sends to
/// itself, and what it passes on to others, does not. A relay at TO leads them to where they were to go when its target is
/// *:FROM, such as `ringside relay --relay 'web=[::]:15080:*:8080'`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Needs root with the capability NET_ADMIN, save with --print.\n\nExit codes: 0 done, 1 failed, 2 usage."
)]
pub(crate) struct Arguments {
    /// What to redirect, such as 8080:15080; may be given several times, or separated by commas
    #[arg(
        long,
        value_name = "FROM:TO",
        env = "RINGSIDE_INTERCEPT",
        value_delimiter = ','
    )]
    redirect: Vec<Redirect>,

    /// Only show the rules, as `nft -f -` reads them
    #[arg(long)]
    print: bool,

    /// Take the rules out; connections that are redirected at the moment are cut
    #[arg(long, conflicts_with = "print")]
    remove: bool,
}

/// A line. What is done is done, whether anybody can be told or not.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Sets, shows or removes.
pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    if arguments.remove {
        intercept::remove().context("the rules are not removed")?;
        say("nothing is redirected any more");
        return Ok(());
    }
    let rules = Rules::new(arguments.redirect).map_err(Failure::Usage)?;
    if arguments.print {
        let _ = std::io::stdout().write_all(rules.to_string().as_bytes());
        return Ok(());
    }
    intercept::apply(&rules).context("nothing is redirected")?;
    for Redirect { from, to } in rules.redirects() {
        say(&format!(
            "connections from outside to port {from} go to port {to}"
        ));
    }
    Ok(())
}

//! soon
use super::Failure;
/// x
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}
pub(super) fn run(_: &Arguments) -> Result<(), Failure> {
    Err(Failure::Code(1))
}

//! `ringside-controller roles`: what the controller needs to be allowed, for kubectl. It owns the flags, and applies nothing.

use std::io::Write;

use anyhow::Context;
use ringside_controller::certificates::Managed;
use ringside_controller::permissions::Installation;

/// Print the controller's service account, its roles and their bindings, for kubectl apply -f -
///
/// It is all that the controller needs, and nothing more. The flags are those of `run`; the namespace must exist.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The namespace that it runs in
    #[arg(long, value_name = "NAMESPACE", default_value = "ringside")]
    namespace: String,

    /// The name of its Service, its Lease and its service account
    #[arg(long, value_name = "NAME", default_value = "ringside-controller")]
    service: String,

    /// The Secret of its certificates
    #[arg(long, value_name = "NAME", default_value = "ringside-controller-tls")]
    secret: String,

    /// The name of both webhook configurations; empty for none
    #[arg(long, value_name = "NAME", default_value = "ringside")]
    webhooks: String,

    /// The Secret is somebody else's, such as cert-manager's: it is read, and never written
    #[arg(long)]
    external_certificates: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        namespace,
        service,
        secret,
        webhooks,
        external_certificates,
    } = arguments;
    let roles = ringside_controller::generated::roles(&Installation {
        namespace,
        service,
        secret,
        webhooks,
        managed: if external_certificates {
            Managed::External
        } else {
            Managed::Here
        },
    })?;
    std::io::stdout()
        .write_all(roles.as_bytes())
        .context("the roles could not be written")
}

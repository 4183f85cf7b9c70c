//! The flags of `ringside relay` that name its controller. They make sense together or not at all.

use std::net::SocketAddr;
use std::path::PathBuf;

use ringside::settings::controller::{Address, Controller};
use ringside_api::sync::PodIdentity;

use super::Failure;

/// Where the controller is, and who asks it. An injected sidecar has all of them from its environment.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Controller")]
pub(crate) struct Flags {
    /// The controller that assigns settings: https://NAME:PORT, where NAME is what its certificate is for
    ///
    /// Without it the relay runs by its own settings alone. With it, what policies assign lies over them; losing the controller changes
    /// nothing for traffic.
    #[arg(long, value_name = "URL", env = "RINGSIDE_CONTROLLER")]
    controller: Option<Address>,

    /// Where to connect to it, so that no name is looked up
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "RINGSIDE_CONTROLLER_ADDRESS",
        value_parser = connect_to
    )]
    controller_address: Option<SocketAddr>,

    /// The name of this pod
    #[arg(long, value_name = "NAME", env = "RINGSIDE_POD_NAME")]
    pod_name: Option<String>,

    /// The namespace of this pod
    #[arg(long, value_name = "NAME", env = "RINGSIDE_POD_NAMESPACE")]
    pod_namespace: Option<String>,

    /// The UID of this pod
    #[arg(long, value_name = "UID", env = "RINGSIDE_POD_UID")]
    pod_uid: Option<String>,

    /// A folder with token (shown to the controller), ca.pem (to trust it by) and settings.json (to begin with)
    #[arg(long, value_name = "FOLDER", env = "RINGSIDE_POD_FILES")]
    pod_files: Option<PathBuf>,

    /// A folder where the last good settings are kept for a restart
    #[arg(long, value_name = "FOLDER", env = "RINGSIDE_STATE")]
    state: Option<PathBuf>,
}

fn connect_to(given: &str) -> Result<SocketAddr, String> {
    given.parse().map_err(|_| {
        format!("`{given}` is no address to connect to: write IP:PORT, such as 10.96.0.17:443")
    })
}

impl Flags {
    /// The controller, if one is named.
    pub(super) fn check(self) -> Result<Option<Controller>, Failure> {
        let Some(address) = self.controller else {
            let alone = [
                ("--controller-address", self.controller_address.is_some()),
                ("--pod-name", self.pod_name.is_some()),
                ("--pod-namespace", self.pod_namespace.is_some()),
                ("--pod-uid", self.pod_uid.is_some()),
                ("--pod-files", self.pod_files.is_some()),
                ("--state", self.state.is_some()),
            ];
            return match alone.iter().find(|(_, is_given)| *is_given) {
                None => Ok(None),
                Some((flag, _)) => Err(Failure::Usage(format!(
                    "{flag} has nothing to say without --controller https://NAME:PORT (or RINGSIDE_CONTROLLER): give both or neither"
                ))),
            };
        };
        let needed = |flag: &str, given: Option<String>| {
            given.filter(|given| !given.is_empty()).ok_or_else(|| {
                Failure::Usage(format!(
                    "--controller needs {flag} as well: the controller has to know which pod asks"
                ))
            })
        };
        let pod = PodIdentity {
            name: needed("--pod-name", self.pod_name)?,
            namespace: needed("--pod-namespace", self.pod_namespace)?,
            uid: needed("--pod-uid", self.pod_uid)?,
        };
        let pod_files = self.pod_files.ok_or_else(|| {
            Failure::Usage(
                "--controller needs --pod-files FOLDER as well, with the token to show and the certificates to trust it by (token, ca.pem)".to_owned(),
            )
        })?;
        Ok(Some(Controller {
            address,
            connect_to: self.controller_address,
            pod,
            pod_files,
            state: self.state,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Flags {
        Flags {
            controller: Some("https://controller:8443".parse().unwrap()),
            controller_address: None,
            pod_name: Some("web-1".to_owned()),
            pod_namespace: Some("shop".to_owned()),
            pod_uid: Some("u-1".to_owned()),
            pod_files: Some("/pod".into()),
            state: None,
        }
    }

    fn refusal(arguments: Flags) -> String {
        match arguments.check() {
            Err(Failure::Usage(sentence)) => sentence,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_or_none_are_given() {
        assert!(Flags::default().check().unwrap().is_none());
        assert_eq!(whole().check().unwrap().unwrap().pod.name, "web-1");
        let alone = Flags {
            state: Some("/state".into()),
            ..Flags::default()
        };
        assert!(refusal(alone).contains("--state has nothing to say without --controller"));
        let (mut nobody, mut bare) = (whole(), whole());
        nobody.pod_uid = Some(String::new());
        assert!(refusal(nobody).contains("--pod-uid"));
        bare.pod_files = None;
        assert!(refusal(bare).contains("--pod-files"));
    }
}

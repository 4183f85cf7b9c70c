//! `ringside-controller webhooks`: what the API server is told of the controller, for kubectl. It owns the flags, and applies nothing.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use ringside_controller::admission::configuration::{Reach, Webhooks};

/// Print both webhook configurations, for kubectl apply -f -
///
/// With them injection begins: from then on the API server asks the controller about pods that want a sidecar, and about policies. While nobody
/// answers, pods are created without a sidecar. The flags are those of `run`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The namespace that the controller runs in, whose own pods get no sidecar
    #[arg(long, value_name = "NAMESPACE", default_value = "ringside")]
    namespace: String,

    /// The name of its Service
    #[arg(long, value_name = "NAME", default_value = "ringside-controller")]
    service: String,

    /// The port of its Service
    #[arg(long, value_name = "PORT", default_value_t = 443, value_parser = clap::value_parser!(u16).range(1..))]
    service_port: u16,

    /// The name of both configurations: what `run` and `roles` have as --webhooks
    #[arg(long, value_name = "NAME", default_value = "ringside")]
    name: String,

    /// The certificates to trust the controller by, in PEM [default: the controller writes its own into the configurations]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl Arguments {
    fn webhooks(&self) -> anyhow::Result<Webhooks> {
        let ca_pem = self.ca_file.as_deref().map(super::inject::certificates);
        Ok(Webhooks {
            name: self.name.clone(),
            labels: BTreeMap::new(),
            reach: Reach::Service {
                namespace: self.namespace.clone(),
                name: self.service.clone(),
                port: self.service_port,
            },
            ca_pem: ca_pem.transpose()?,
            release_namespace: self.namespace.clone(),
        })
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let text = ringside_controller::generated::webhooks(&arguments.webhooks()?)?;
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("the webhook configurations could not be written")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// What is printed for these flags, and the configurations that it should be.
    fn printed(flags: &[&str]) -> (Vec<Value>, [Value; 2]) {
        let line = ["webhooks"].iter().chain(flags);
        let webhooks = Line::parse_from(line).arguments.webhooks().unwrap();
        let text = ringside_controller::generated::webhooks(&webhooks).unwrap();
        let documents = serde_yaml::Deserializer::from_str(&text)
            .map(|document| Value::deserialize(document).unwrap())
            .filter(|document| !document.is_null());
        (
            documents.collect(),
            [webhooks.mutating(), webhooks.validating()],
        )
    }

    #[test]
    fn what_is_printed_are_the_configurations() {
        let (documents, configurations) = printed(&[]);
        assert_eq!(documents, configurations);
        for document in &documents {
            assert_eq!(document["metadata"]["name"], "ringside");
            let client = &document["webhooks"][0]["clientConfig"];
            assert_eq!(client.get("caBundle"), None);
            assert_eq!(client["service"]["namespace"], "ringside");
        }
    }

    #[test]
    fn flags_are_what_they_are_named() {
        let mut ca = tempfile::NamedTempFile::new().unwrap();
        ca.write_all(b"-----BEGIN CERTIFICATE-----\n").unwrap();
        let file = ca.path().to_str().unwrap();
        let names = "--namespace=prod --service=control --service-port=8443 --name=mine";
        let mut flags: Vec<&str> = names.split(' ').collect();
        flags.extend(["--ca-file", file]);
        let (documents, configurations) = printed(&flags);
        assert_eq!(documents, configurations);
        let client = &documents[0]["webhooks"][0]["clientConfig"];
        assert_eq!(
            client["service"],
            json!({"namespace": "prod", "name": "control", "port": 8443, "path": "/inject"})
        );
        assert_eq!(
            client["caBundle"],
            "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg=="
        );
        assert_eq!(documents[1]["metadata"]["name"], "mine");
        ca.as_file().set_len(0).unwrap();
        let error = Line::parse_from(["webhooks", "--ca-file", file])
            .arguments
            .webhooks()
            .unwrap_err();
        assert!(error.to_string().contains("no certificate"), "{error}");
    }
}

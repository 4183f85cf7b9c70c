//! By which certificates the controller is trusted, and what is wrong with one that is not. It owns TLS as it is used here: version
//! 1.3, HTTP/1.1 alone, no certificate of the sidecar's own.

use std::io;
use std::sync::Arc;

use ringside_api::sync::fingerprint_of_trust;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, RootCertStore, version};

use super::reading;
use super::{Controller, failure::Failure};

/// The file of the certificates that came with the pod.
const FILE: &str = "ca.pem";

/// What is spoken within TLS.
pub(super) const PROTOCOL: &[u8] = b"http/1.1";

/// The most bytes of certificates.
pub(super) const BYTES_MOST: u64 = 64 << 10;

/// Certificates, ready for use.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    pub(super) tls: Arc<ClientConfig>,
    pub(super) fingerprint: String,
}

impl Trust {
    /// Those of this text.
    ///
    /// # Errors
    /// A sentence: there is no certificate in it that can be used.
    pub(super) fn new(pem: &str) -> Result<Self, String> {
        if pem.len() as u64 > BYTES_MOST {
            return Err(format!("they are larger than {BYTES_MOST} bytes"));
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| format!("they are no PEM: {error:?}"))?;
            roots
                .add(certificate)
                .map_err(|error| format!("one of them cannot be used: {error}"))?;
        }
        if roots.is_empty() {
            return Err("there is none".to_owned());
        }
        let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(|error| format!("TLS 1.3 is not there: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![PROTOCOL.to_vec()];
        // One connection that lasts gains nothing from tickets.
        tls.resumption = Resumption::disabled();
        Ok(Self {
            tls: Arc::new(tls),
            fingerprint: fingerprint_of_trust(pem),
        })
    }

    /// Those that the controller gave last, else those that came with the pod.
    ///
    /// # Errors
    /// There are none that can be used.
    pub(super) fn find(controller: &Controller, renewed: Option<&str>) -> Result<Self, Failure> {
        if let Some(Ok(trust)) = renewed.map(Self::new) {
            return Ok(trust);
        }
        let path = controller.pod_files.join(FILE);
        let no_use = |problem: String| {
            Failure::Untrusted(format!(
                "the certificates to trust it by, {}, are of no use: {problem}",
                path.display()
            ))
        };
        let pem = reading::text(&path, BYTES_MOST).map_err(|error| no_use(error.to_string()))?;
        Self::new(&pem).map_err(no_use)
    }
}

/// Why TLS with `name` failed.
pub(super) fn failure(error: &io::Error, name: &str) -> Failure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let Some(error) = inner else {
        return Failure::Unreachable(format!("TLS broke off: {error}"));
    };
    let sentence = match error {
        Error::InvalidCertificate(problem) => certificate(problem, name),
        Error::NoApplicationProtocol => {
            "it does not speak HTTP/1.1: the address is another server's".to_owned()
        }
        other => other.to_string(),
    };
    Failure::Untrusted(sentence)
}

fn certificate(problem: &CertificateError, name: &str) -> String {
    match problem {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => format!(
            "the certificate of {name} has expired by this pod's clock: the controller has not renewed it, or the clock is fast"
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => format!(
            "the certificate of {name} is not valid yet by this pod's clock: the clock is slow"
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "its certificate is not for {name}: the address is another server's, or --controller names it wrongly"
            )
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "the certificate of {name} was issued by none of those that this pod trusts: the pod was injected before they changed, or the address is another server's"
        ),
        other => format!("the certificate of {name} is refused: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_gets_a_sentence() {
        let refusal = |pem: &str| Trust::new(pem).unwrap_err();
        assert_eq!(refusal(""), "there is none");
        assert!(refusal(&"x".repeat(70_000)).contains("larger"));
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(refusal(nonsense).contains("cannot be used"));
        let broken = "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n";
        assert!(refusal(broken).contains("no PEM"));
    }
}

//! A question to a controller, such as the API server would ask: a pod that wants a relay, over TLS. It owns the question and what a good
//! answer is. It changes nothing anywhere, and trusts the controller by the certificates that it is given alone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::admission::INJECT_PATH;
use crate::inject::{CONTAINER_NAME, INJECT_LABEL};

/// What an API server waits for an answer by default.
const PATIENCE: Duration = Duration::from_secs(5);

/// More than any answer to this question.
const ANSWER_BYTES_MOST: usize = 1 << 20;

/// Who is asked.
#[derive(Clone, Debug)]
pub struct Whom {
    /// The name that its certificate is for.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// Where to connect; left out, the name is resolved.
    pub address: Option<SocketAddr>,
    /// The certificates to trust it by, in PEM.
    pub ca_pem: String,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The image of the sidecar that it would inject.
    pub image: String,
}

/// No good answer.
#[derive(Debug, Error)]
pub enum Failure {
    /// Nobody to ask.
    #[error(
        "{0} cannot be reached: {1}; does its Service have endpoints, and does every NetworkPolicy let this through?"
    )]
    Unreachable(String, std::io::Error),
    /// Somebody else, or certificates of somebody else.
    #[error("{0} is not trusted by these certificates: {1}")]
    Untrusted(String, std::io::Error),
    /// These certificates are none.
    #[error("the certificates to trust cannot be used: {0}")]
    Certificates(String),
    /// It is no name that a certificate can be for.
    #[error("{0:?} is no name that a certificate can be for")]
    Name(String),
    /// It did not answer in time.
    #[error("{0} did not answer within {PATIENCE:?}")]
    Late(String),
    /// It speaks something else.
    #[error("{0} does not answer in HTTP: {1}")]
    Http(String, String),
    /// It answered something else than asked for.
    #[error("{0} answered {1}, instead of a patch that adds a container {CONTAINER_NAME:?}")]
    Answer(String, String),
}

/// Asks once.
///
/// # Errors
/// There was no good answer within 5 s.
pub async fn ask(whom: &Whom) -> Result<Answered, Failure> {
    let place = match whom.address {
        Some(address) => format!("{}:{} at {address}", whom.name, whom.port),
        None => format!("{}:{}", whom.name, whom.port),
    };
    let asking = tokio::time::timeout(PATIENCE, ask_unbounded(whom, &place));
    asking.await.unwrap_or(Err(Failure::Late(place)))
}

async fn ask_unbounded(whom: &Whom, place: &str) -> Result<Answered, Failure> {
    let tls = trusting(&whom.ca_pem)?;
    let name =
        ServerName::try_from(whom.name.clone()).map_err(|_| Failure::Name(whom.name.clone()))?;
    let stream = connect(whom).await;
    let stream = stream.map_err(|error| Failure::Unreachable(place.to_owned(), error))?;
    let stream = TlsConnector::from(tls).connect(name, stream).await;
    let stream = stream.map_err(|error| Failure::Untrusted(place.to_owned(), error))?;
    let http = |error: &dyn std::fmt::Display| Failure::Http(place.to_owned(), error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| http(&error))?;
    let driver = tokio::spawn(connection);
    let request = Request::post(INJECT_PATH)
        .header(HOST, &whom.name)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(question().to_string())))
        .map_err(|error| http(&error))?;
    let answer = async {
        let answer = sender.send_request(request).await;
        let (head, body) = answer.map_err(|error| http(&error))?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MOST).collect().await;
        let body = body.map_err(|error| http(&error))?.to_bytes();
        judge(&body).ok_or_else(|| {
            let text: String = String::from_utf8_lossy(&body).chars().take(500).collect();
            Failure::Answer(place.to_owned(), format!("{}: {text}", head.status))
        })
    };
    let answer = answer.await;
    driver.abort();
    answer
}

async fn connect(whom: &Whom) -> std::io::Result<TcpStream> {
    if let Some(address) = whom.address {
        return TcpStream::connect(address).await;
    }
    let mut last = std::io::Error::other("it has no address");
    for address in lookup_host((whom.name.as_str(), whom.port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn trusting(ca_pem: &str) -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        let certificate = certificate.map_err(|error| Failure::Certificates(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| Failure::Certificates(error.to_string()))?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::Certificates(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A review of a pod that nobody makes.
fn question() -> Value {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "ringside-check", "namespace": "default", "labels": {INJECT_LABEL: "enabled"}},
        "spec": {"containers": [{"name": "app", "image": "app", "ports": [{"containerPort": 8080}]}]},
    });
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "ringside-check", "operation": "CREATE", "dryRun": true,
            "name": "ringside-check", "namespace": "default",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": pod,
        },
    })
}

/// The sidecar of an answer; `None` where there is none.
fn judge(body: &[u8]) -> Option<Answered> {
    let review: Value = serde_json::from_slice(body).ok()?;
    let response = review.get("response")?;
    if response.get("allowed")?.as_bool() != Some(true) {
        return None;
    }
    let patch = BASE64_STANDARD.decode(response.get("patch")?.as_str()?);
    let operations: Vec<Value> = serde_json::from_slice(&patch.ok()?).ok()?;
    let mut values = operations.iter().filter_map(|one| one.get("value"));
    // The list of containers, or one more in it.
    values.find_map(|value| {
        let containers = value
            .as_array()
            .map_or(std::slice::from_ref(value), Vec::as_slice);
        let ours = containers
            .iter()
            .find(|container| container["name"] == CONTAINER_NAME)?;
        let image = ours.get("image")?.as_str()?.to_owned();
        Some(Answered { image })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(response: Value) -> Vec<u8> {
        json!({"response": response}).to_string().into_bytes()
    }

    fn patch(operations: Value) -> Value {
        json!({"allowed": true, "patch": BASE64_STANDARD.encode(operations.to_string())})
    }

    #[test]
    fn only_an_added_sidecar_is_a_good_answer() {
        let sidecar = json!({"name": "ringside", "image": "ringside:1"});
        let found = Some(Answered {
            image: "ringside:1".to_owned(),
        });
        for value in [sidecar.clone(), json!([sidecar])] {
            let operations = json!([{"op": "add", "path": "/spec/initContainers", "value": value}]);
            assert_eq!(judge(&response(patch(operations))), found);
        }
        for bad in [
            json!({"allowed": true}),
            json!({"allowed": false, "patch": patch(json!([{"value": sidecar}]))["patch"]}),
            patch(json!([{"op": "add", "value": {"name": "other", "image": "i"}}])),
            json!({"allowed": true, "patch": "-"}),
        ] {
            assert_eq!(judge(&response(bad.clone())), None, "{bad}");
        }
        assert_eq!(judge(b"nonsense"), None);
    }
}

//! Pods that are to be injected, asked about at a steady rate as the API server would: over one connection that stays, whether the answer
//! before has come or not. It measures from when a question was due.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ringside_controller::admission::INJECT_PATH;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Asks `per_second` times a second; returns how many seconds each answer took, and how many questions had none.
///
/// On a thread of its own, where no sidecar waits for the answer to be taken.
pub(crate) fn at(
    tls: SocketAddr,
    ca: &str,
    namespace: &str,
    per_second: u32,
    duration: Duration,
) -> (Vec<f64>, usize) {
    let asking = || {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(ask(tls, ca, namespace, per_second, duration))
    };
    thread::scope(|scope| scope.spawn(asking).join().expect("it asks to the end"))
}

async fn ask(
    server: SocketAddr,
    ca: &str,
    namespace: &str,
    per_second: u32,
    duration: Duration,
) -> (Vec<f64>, usize) {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.expect("PEM")).expect("a CA");
    }
    let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(server).await.expect("a connection");
    stream.set_nodelay(true).expect("an option of TCP");
    let name = ServerName::from(server.ip());
    let stream = TlsConnector::from(Arc::new(tls))
        .connect(name, stream)
        .await;
    let io = TokioIo::new(stream.expect("TLS"));
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
        .await
        .expect("HTTP/2");
    let driver = tokio::spawn(connection);

    let (begin, every) = (Instant::now(), Duration::from_secs(1) / per_second);
    let (mut asked, mut index) = (JoinSet::new(), 0_u32);
    let url = format!("https://{server}{INJECT_PATH}");
    while every * index < duration {
        let due = begin + every * index;
        sleep_until(due).await;
        let body = Bytes::from(review(namespace, index).to_string());
        let request = Request::post(&url)
            .header("content-type", "application/json")
            .body(Full::new(body))
            .expect("a request");
        let answer = sender.clone().send_request(request);
        asked.spawn(async move {
            let body = answer
                .await
                .ok()?
                .into_body()
                .collect()
                .await
                .ok()?
                .to_bytes();
            let took = due.elapsed().as_secs_f64();
            let answer: Value = serde_json::from_slice(&body).ok()?;
            answer["response"]["patch"].is_string().then_some(took)
        });
        index += 1;
    }
    let answers = asked.join_all().await;
    driver.abort();
    let took: Vec<f64> = answers.iter().copied().flatten().collect();
    let missed = answers.len() - took.len();
    (took, missed)
}

/// A review of a new pod, such as a Deployment's.
fn review(namespace: &str, index: u32) -> Value {
    let container = |name: &str| {
        json!({
            "name": name, "image": format!("registry/{name}:1"), "ports": [{"name": "http", "containerPort": 8080}],
            "env": (0..20).map(|n| json!({"name": format!("V{n}"), "value": "something"})).collect::<Vec<_>>(),
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
            "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
        })
    };
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": format!("u-{index}"), "operation": "CREATE", "namespace": namespace,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "object": {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"generateName": "web-7d4f9c-", "namespace": namespace,
                    "labels": {"app": "web", "ringside.dev/inject": "enabled"},
                    "annotations": {"ringside.dev/relay": "web=15080:8080"}},
                "spec": {"serviceAccountName": "default", "containers": [container("app"), container("exporter")],
                    "volumes": [{"name": "token", "projected": {"sources": []}}]},
            },
        },
    })
}

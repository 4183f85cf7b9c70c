//! Service account tokens that nobody asked the API server for: signed with its own key, or with a stranger's.
//!
//! They show what becomes of what a real token may be in time (expired), and of what only looks like one.

use k8s_openapi::ByteString;
use rcgen::{KeyPair, SigningKey};
use serde_json::{Value, json};

use super::{ApiServer, certificates};

/// Half of a signature by a key on P-256.
const HALF_BYTES: usize = 32;

impl ApiServer {
    /// `token` with its claims as `change` makes them, signed with this server's own key; `None` of a cluster that was given.
    ///
    /// # Panics
    /// If it is no token.
    pub fn signed_anew(&self, token: &str, change: impl FnOnce(&mut Value)) -> Option<String> {
        self.processes.as_ref()?;
        let path = self.folder.path().join("sa.key");
        let pem = std::fs::read_to_string(path).expect("the key of this server's tokens");
        let key = KeyPair::from_pem(&pem).expect("a key that was written here");
        Some(sign(&key, token, change))
    }
}

/// `token` with its claims as `change` makes them, signed by somebody whom no API server knows.
///
/// # Panics
/// If it is no token.
pub fn signed_by_a_stranger(token: &str, change: impl FnOnce(&mut Value)) -> String {
    sign(&certificates::key(), token, change)
}

fn sign(key: &KeyPair, token: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims(token);
    change(&mut claims);
    let head = encode(json!({"alg": "ES256", "typ": "JWT"}).to_string().as_bytes());
    let signed = format!("{head}.{}", encode(claims.to_string().as_bytes()));
    let signature = key.sign(signed.as_bytes()).expect("a key signs");
    format!("{signed}.{}", encode(&both_halves(&signature)))
}

fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).expect("a token has three parts");
    let mut standard = claims.replace('-', "+").replace('_', "/");
    while !standard.len().is_multiple_of(4) {
        standard.push('=');
    }
    let bytes: ByteString = serde_json::from_value(json!(standard)).expect("base64");
    serde_json::from_slice(&bytes.0).expect("claims are JSON")
}

/// As tokens have it: without padding, and fit for an address.
fn encode(bytes: &[u8]) -> String {
    let standard = serde_json::to_value(ByteString(bytes.to_vec())).expect("bytes can be written");
    let standard = standard.as_str().unwrap_or_default().trim_end_matches('=');
    standard.replace('+', "-").replace('/', "_")
}

/// A signature as ASN.1 has it (a sequence of two integers), as tokens have it (both in a row, each of 32 bytes).
fn both_halves(signature: &[u8]) -> Vec<u8> {
    let mut halves = Vec::new();
    // After the sequence's own type and length.
    let mut rest = &signature[2..];
    while let [_, length, integer @ ..] = rest {
        let (integer, after) = integer.split_at(usize::from(*length));
        // With a zero before a high bit, and without zeros otherwise.
        let used = integer.len().min(HALF_BYTES);
        halves.extend(std::iter::repeat_n(0, HALF_BYTES - used));
        halves.extend(&integer[integer.len() - used..]);
        rest = after;
    }
    halves
}

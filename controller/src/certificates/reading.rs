//! Reads certificates and keys from their texts, and judges them as a verifier would at a given time.
//!
//! It owns the sentences for what is wrong with them. It changes nothing and makes nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::sign::CertifiedKey;

use super::contents::Contents;
use super::terms::BACKDATED;

/// What is wrong with a Secret's contents.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is no Secret.
    #[error("there is no Secret")]
    NoSecret,
    /// A key of the Secret is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A text is not what it should be.
    #[error("{key} holds no {what} in PEM that can be read")]
    Garbage {
        /// The key of the Secret.
        key: &'static str,
        /// What it should hold.
        what: &'static str,
    },
    /// A private key that belongs to no certificate beside it.
    #[error("the key in {key} does not fit {certificate}")]
    KeyDoesNotFit {
        /// The key of the Secret with the private key.
        key: &'static str,
        /// That with the certificate.
        certificate: &'static str,
    },
    /// A certificate that may not sign.
    #[error("the certificate in ca.crt that ca.key fits is none of a CA")]
    NotACa,
    /// A certificate whose time is over.
    #[error("the certificate in {key} ended at {ended}")]
    Expired {
        /// The key of the Secret.
        key: &'static str,
        /// When it ended.
        ended: Timestamp,
    },
    /// A certificate whose time has not come.
    #[error(
        "the certificate in {key} begins at {begins} only: was it made by a clock that is ahead?"
    )]
    NotYet {
        /// The key of the Secret.
        key: &'static str,
        /// When it begins.
        begins: Timestamp,
    },
    /// A leaf that no CA of the bundle signed.
    #[error("the certificate in tls.crt is signed by none of those in ca.crt ({0})")]
    Foreign(String),
    /// A leaf that is not for all names.
    #[error("the certificate in tls.crt is not for {}", .0.join(", "))]
    Names(Vec<String>),
}

/// A CA of the bundle.
#[derive(Clone, Debug)]
pub(crate) struct Ca {
    pub(crate) pem: String,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) span: Span,
    key: Vec<u8>,
    may_sign: bool,
}

/// When a certificate is good, in Unix seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) begins: i64,
    pub(crate) ends: i64,
}

impl Span {
    /// When it was made: it is dated back.
    pub(crate) fn made(self) -> i64 {
        let backdated = i64::try_from(BACKDATED.as_secs()).unwrap_or(0);
        self.begins.saturating_add(backdated)
    }

    /// When two thirds of its life are over.
    pub(crate) fn due(self) -> i64 {
        let life = self.ends.saturating_sub(self.made()).max(0);
        self.made().saturating_add(life / 3 * 2)
    }

    fn check(self, key: &'static str, now: i64) -> Result<(), Fault> {
        if now >= self.ends {
            let ended = timestamp(self.ends);
            return Err(Fault::Expired { key, ended });
        }
        if now < self.begins {
            let begins = timestamp(self.begins);
            return Err(Fault::NotYet { key, begins });
        }
        Ok(())
    }
}

/// A leaf that a server can show.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) span: Span,
    /// Which CA of the bundle signed it.
    pub(crate) issuer: usize,
}

/// What verifying told: until when the leaf and its CA are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The earlier of the two ends.
    pub until: Timestamp,
}

/// Judges contents that somebody else keeps, as a verifier of all `names` would at `now`; `ca.key` is not looked at.
///
/// # Errors
/// The first thing that is wrong with them.
pub fn verify(contents: &Contents, names: &[String], now: Timestamp) -> Result<Verified, Fault> {
    let now = now.as_second();
    let bundle = bundle(&contents.ca_crt);
    if bundle.cas.is_empty() {
        return Err(bundle.fault.unwrap_or(Fault::Missing("ca.crt")));
    }
    let leaf = leaf(contents, &bundle.cas, now)?;
    let missing = missing_names(contents, names);
    if !missing.is_empty() {
        return Err(Fault::Names(missing));
    }
    let ends = leaf.span.ends.min(bundle.cas[leaf.issuer].span.ends);
    Ok(Verified {
        until: timestamp(ends),
    })
}

/// The certificates of a bundle that can be read, and what is wrong with the rest.
pub(crate) struct Bundle {
    pub(crate) cas: Vec<Ca>,
    pub(crate) fault: Option<Fault>,
}

pub(crate) fn bundle(text: &str) -> Bundle {
    let mut cas: Vec<Ca> = Vec::new();
    let key = "ca.crt";
    let mut fault = text.trim().is_empty().then_some(Fault::Missing(key));
    let mut garbage = |read: Option<Ca>| match read {
        Some(ca) if cas.iter().all(|known| known.der != ca.der) => cas.push(ca),
        Some(_) => {}
        None => {
            let what = "certificate";
            fault = Some(Fault::Garbage { key, what });
        }
    };
    let mut blocks = 0;
    for block in blocks_of(text) {
        blocks += 1;
        garbage(ca(block));
    }
    if blocks == 0 && !text.trim().is_empty() {
        garbage(None);
    }
    Bundle { cas, fault }
}

/// The certificates of a text, each with its first and last line.
fn blocks_of(text: &str) -> impl Iterator<Item = &str> {
    const LAST: &str = "-----END CERTIFICATE-----";
    let after_begin = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    after_begin.map(|block| match block.find(LAST) {
        Some(end) => &block[..end],
        None => "",
    })
}

fn ca(body: &str) -> Option<Ca> {
    let pem = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        body.trim()
    );
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (span, key, may_sign) = facts(&der)?;
    Some(Ca {
        pem,
        der,
        span,
        key,
        may_sign,
    })
}

fn facts(der: &CertificateDer<'_>) -> Option<(Span, Vec<u8>, bool)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let validity = certificate.validity();
    let span = Span {
        begins: validity.not_before.timestamp(),
        ends: validity.not_after.timestamp(),
    };
    let key = certificate.public_key().raw.to_vec();
    Some((span, key, certificate.is_ca()))
}

/// Which CA of the bundle `ca.key` fits, if it can sign at `now`.
pub(crate) fn signer(contents: &Contents, cas: &[Ca], now: i64) -> Result<usize, Fault> {
    let key = "ca.key";
    if contents.ca_key.trim().is_empty() {
        return Err(Fault::Missing(key));
    }
    let what = "private key";
    let pair = KeyPair::from_pem(&contents.ca_key).map_err(|_| Fault::Garbage { key, what })?;
    let public = pair.subject_public_key_info();
    let certificate = "ca.crt";
    let fits = cas.iter().position(|ca| ca.key == public);
    let fits = fits.ok_or(Fault::KeyDoesNotFit { key, certificate })?;
    if !cas[fits].may_sign {
        return Err(Fault::NotACa);
    }
    cas[fits].span.check(certificate, now)?;
    Ok(fits)
}

/// The leaf, if whoever trusts the bundle accepts it at `now`, whatever it is for.
pub(crate) fn leaf(contents: &Contents, cas: &[Ca], now: i64) -> Result<Leaf, Fault> {
    let certified = certified(contents)?;
    let key = "tls.crt";
    let what = "certificate";
    let end = &certified.cert[0];
    let (span, ..) = facts(end).ok_or(Fault::Garbage { key, what })?;
    span.check(key, now)?;
    let mut why = String::from("ca.crt holds no CA");
    let mut over = None;
    for (issuer, ca) in cas.iter().enumerate() {
        match signed_by(&certified, std::slice::from_ref(&ca.der), now) {
            Ok(()) => match ca.span.check("ca.crt", now) {
                Ok(()) => return Ok(Leaf { span, issuer }),
                Err(fault) => over = Some(fault),
            },
            Err(error) => why = error,
        }
    }
    Err(over.unwrap_or(Fault::Foreign(why)))
}

/// What a server shows and signs with.
pub(crate) fn certified(contents: &Contents) -> Result<CertifiedKey, Fault> {
    for (key, text) in [
        ("tls.crt", &contents.tls_crt),
        ("tls.key", &contents.tls_key),
    ] {
        if text.trim().is_empty() {
            return Err(Fault::Missing(key));
        }
    }
    let (certificate, key) = ("tls.crt", "tls.key");
    let garbage = |key, what| Fault::Garbage { key, what };
    let chain = CertificateDer::pem_slice_iter(contents.tls_crt.as_bytes());
    let chain: Result<Vec<_>, _> = chain.collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| garbage(certificate, "certificate"))?;
    if ParsedCertificate::try_from(&chain[0]).is_err() {
        return Err(garbage(certificate, "certificate"));
    }
    let private = PrivateKeyDer::from_pem_slice(contents.tls_key.as_bytes());
    let private = private.map_err(|_| garbage(key, "private key"))?;
    let private = ring::sign::any_supported_type(&private);
    let private = private.map_err(|_| garbage(key, "private key"))?;
    let certified = CertifiedKey::new(chain, private);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(_) => Err(Fault::KeyDoesNotFit { key, certificate }),
    }
}

fn signed_by(
    certified: &CertifiedKey,
    anchors: &[CertificateDer<'static>],
    now: i64,
) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(anchors.iter().cloned());
    let end = ParsedCertificate::try_from(&certified.cert[0]).map_err(|error| error.to_string())?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
    let algorithms = ring::default_provider().signature_verification_algorithms;
    let between = &certified.cert[1..];
    verify_server_cert_signed_by_trust_anchor(&end, &roots, between, now, algorithms.all)
        .map_err(|error| error.to_string())
}

/// The names that the leaf is not for.
pub(crate) fn missing_names(contents: &Contents, names: &[String]) -> Vec<String> {
    let Ok(certified) = certified(contents) else {
        return names.to_vec();
    };
    let Ok(end) = ParsedCertificate::try_from(&certified.cert[0]) else {
        return names.to_vec();
    };
    let is_for = |name: &String| {
        let server = match name.parse::<IpAddr>() {
            Ok(address) => Ok(ServerName::from(address)),
            Err(_) => ServerName::try_from(name.clone()),
        };
        server.is_ok_and(|server| verify_server_name(&end, &server).is_ok())
    };
    names.iter().filter(|name| !is_for(name)).cloned().collect()
}

/// What a server shows, as many connections share it.
/// When the leaf ends, in Unix seconds, whatever else is wrong with it.
pub(crate) fn leaf_end(contents: &Contents) -> Option<i64> {
    let certified = certified(contents).ok()?;
    let (span, ..) = facts(certified.cert.first()?)?;
    Some(span.ends)
}

pub(crate) fn shared(contents: &Contents) -> Result<Arc<CertifiedKey>, Fault> {
    certified(contents).map(Arc::new)
}

pub(crate) fn timestamp(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap_or(if second < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

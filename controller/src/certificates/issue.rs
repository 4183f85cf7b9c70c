//! Makes keys and certificates: a CA that signs itself, and leaves signed by it.
//!
//! It owns what stands in them. It is told the time, and takes from the machine only the randomness of keys.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::terms::{BACKDATED, Terms};

/// The last second that a certificate can name, at the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// A key or a certificate that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("no certificate could be made: {0}; it needs the kernel's random numbers and good names")]
pub struct CannotMake(#[from] rcgen::Error);

/// A certificate and its key, in PEM.
pub(crate) struct Made {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A new CA.
pub(crate) fn ca(now: Timestamp, terms: &Terms) -> Result<Made, CannotMake> {
    let mut params = CertificateParams::default();
    lasting(
        &mut params,
        now,
        seconds(now).saturating_add(life(terms.ca_life())),
    );
    // Two CAs that are trusted at once have two names, so that no verifier takes one for the other.
    params.distinguished_name = named(&format!("ringside CA of {now:.0}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    Ok(Made {
        certificate: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}

/// A new leaf, signed by the CA `certificate` (PEM), which ends at `ca_ends` (Unix seconds).
pub(crate) fn leaf(
    certificate: &str,
    ca_key: &str,
    ca_ends: i64,
    now: Timestamp,
    terms: &Terms,
) -> Result<Made, CannotMake> {
    let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(ca_key)?)?;
    let mut params = CertificateParams::new(terms.names())?;
    let ends = seconds(now).saturating_add(life(terms.leaf_life()));
    lasting(&mut params, now, ends.min(ca_ends));
    params.distinguished_name = named("ringside-controller");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    Ok(Made {
        certificate: params.signed_by(&key, &issuer)?.pem(),
        key: key.serialize_pem(),
    })
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::OrganizationName, "ringside.dev");
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn lasting(params: &mut CertificateParams, now: Timestamp, ends: i64) {
    let at = |second: i64| {
        let second = u64::try_from(second).unwrap_or(0).min(LAST_SECOND);
        date_time_ymd(1970, 1, 1) + Duration::from_secs(second)
    };
    params.not_before = at(seconds(now).saturating_sub(life(BACKDATED)));
    params.not_after = at(ends);
}

fn seconds(time: Timestamp) -> i64 {
    time.as_second()
}

fn life(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

//! The keys of a cluster: an authority, certificates for a server and for whoever may do everything, and the key that
//! service account tokens are signed with. Made anew for each cluster, and never outside its folder.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

/// An authority that can sign.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct Identity {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = named(name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, key());
        Self(issuer.expect("an authority signs itself"))
    }

    /// Its certificate, in PEM.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// For a server on this machine, by any of its names.
    pub(crate) fn server(&self) -> Identity {
        let names = [
            "127.0.0.1",
            "::1",
            "localhost",
            "kubernetes.default.svc",
            "10.96.0.1",
        ];
        let mut params = CertificateParams::new(names.map(str::to_owned)).expect("good names");
        params.distinguished_name = named("server", None).distinguished_name;
        self.sign(params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// For a user, of a group.
    pub(crate) fn client(&self, user: &str, group: &str) -> Identity {
        let params = named(user, Some(group));
        self.sign(params, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Identity {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = key();
        let certificate = params.signed_by(&key, &self.0);
        Identity {
            certificate: certificate.expect("an authority signs"),
            key,
        }
    }
}

/// A new key on the curve P-256.
pub(crate) fn key() -> KeyPair {
    KeyPair::generate().expect("a key of random bytes")
}

/// Letters and digits that nobody guesses.
pub(crate) fn random_token() -> String {
    let bytes = key();
    let digits = bytes.public_key_raw().iter().skip(1).take(32);
    digits.map(|byte| format!("{byte:02x}")).collect()
}

fn named(name: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
    }
    params
}

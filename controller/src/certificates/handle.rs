//! What the rest of the controller sees of its certificates: what servers show, and what whoever calls them has to trust.
//!
//! It owns what is in effect. What cannot be used never replaces what can: the last good stays.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use ringside_api::sync::fingerprint_of_trust;
use tokio::sync::watch;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::contents::Contents;
use super::reading::{self, Fault};

/// The certificates to trust the controller by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trusted {
    /// In PEM; empty until there are any.
    pub ca_bundle: Arc<str>,
    /// As sidecars tell it in their reports' `trusts`; empty until there are any.
    pub fingerprint: String,
}

/// The certificates in effect. Clones are the same.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    shown: Arc<Shown>,
    trusted: watch::Sender<Trusted>,
    problem: ArcSwapOption<String>,
    // What was loaded last, with its leaf: one load at a time.
    last: Mutex<Option<Contents>>,
}

/// What servers show. `None` until there is a leaf: handshakes fail until then.
#[derive(Debug, Default)]
struct Shown(ArcSwapOption<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("fingerprint", &self.ca_fingerprint())
            .field("problem", &self.problem())
            .finish_non_exhaustive()
    }
}

impl Default for Handle {
    fn default() -> Self {
        Self(Arc::new(Inner {
            shown: Arc::default(),
            trusted: watch::Sender::new(Trusted::default()),
            problem: ArcSwapOption::empty(),
            last: Mutex::default(),
        }))
    }
}

impl Handle {
    /// What whoever calls has to trust, in PEM; empty until it is known.
    pub fn ca_bundle(&self) -> Arc<str> {
        self.0.trusted.borrow().ca_bundle.clone()
    }

    /// The bundle's fingerprint, as sidecars report it in `trusts`; empty until it is known.
    pub fn ca_fingerprint(&self) -> String {
        self.0.trusted.borrow().fingerprint.clone()
    }

    /// What servers show: the leaf of the moment, also after it was reloaded.
    pub fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        self.0.shown.clone()
    }

    /// Tells of each change of the bundle.
    pub fn changed(&self) -> watch::Receiver<Trusted> {
        self.0.trusted.subscribe()
    }

    /// Whether there is a leaf to show.
    pub fn is_ready(&self) -> bool {
        self.0.shown.0.load().is_some()
    }

    /// When the leaf that is shown ends, and the last CA of the bundle, in Unix seconds; `None` until there are any.
    pub fn ends(&self) -> Option<(i64, i64)> {
        let last = self.last();
        let contents = last.as_ref()?;
        let cas = reading::bundle(&contents.ca_crt).cas;
        let ca = cas.iter().map(|ca| ca.span.ends).max()?;
        Some((reading::leaf_end(contents)?, ca))
    }

    /// What is wrong with the Secret at present: a sentence.
    pub fn problem(&self) -> Option<String> {
        let problem = self.0.problem.load();
        problem.as_deref().cloned()
    }

    pub(crate) fn set_problem(&self, problem: Option<String>) {
        self.0.problem.store(problem.map(Arc::new));
    }

    /// The last contents of which everything could be used.
    pub(crate) fn last_good(&self) -> Option<Contents> {
        self.last().clone()
    }

    /// Takes what a Secret holds; true where the leaf is another one now.
    ///
    /// # Errors
    /// Something in it cannot be used. Then all stays as it was.
    pub fn load(&self, contents: &Contents) -> Result<bool, Fault> {
        let mut last = self.last();
        if last.as_ref() == Some(contents) {
            return Ok(false);
        }
        let bundle = reading::bundle(&contents.ca_crt);
        if let Some(fault) = bundle.fault {
            return Err(fault);
        }
        let certified = reading::shared(contents)?;
        let before = self.0.shown.0.load();
        let is_new = before
            .as_ref()
            .is_none_or(|before| before.cert != certified.cert);
        // The bundle first: whoever asks for it after a handshake trusts what was shown there.
        let pem = contents.ca_crt.as_str();
        let trusted = Trusted {
            ca_bundle: Arc::from(pem),
            fingerprint: fingerprint_of_trust(pem),
        };
        self.0.trusted.send_if_modified(|now| {
            let differs = *now != trusted;
            *now = trusted;
            differs
        });
        self.0.shown.0.store(Some(certified));
        *last = Some(contents.clone());
        Ok(is_new)
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<Contents>> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Who calls: a service account token becomes a pod, by the API server's word, kept until the token expires.
//!
//! It owns the cache and how many tokens are checked at a time; it never believes a token that the API server has not reviewed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use ring::digest::{SHA256, digest};
use ringside_api::sync::{AUDIENCE, PodIdentity};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::refusal::Refused;
use crate::answered::answered;

/// Reviews under way at a time: a restart brings every sidecar at once, and the API server has other work.
const REVIEWS_AT_ONCE: usize = 16;

/// Calls that wait for a review at most, each with some 15 KiB of connection; more are told to come back, which is after all others. A fleet that comes back
/// after a restart spreads itself and needs far fewer; one that starts at the same moment does not.
const WAITING_MOST: usize = 3_000;

/// Tokens kept at most.
const KEPT_MOST: usize = 40_000;

/// Refused tokens kept at most: anybody can make them, as long as a token may be.
const REFUSED_KEPT_MOST: usize = 1_000;

/// How long a refused token is refused without asking again.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// How long a token without an expiry is believed.
const BELIEVED_FOR: Duration = Duration::from_secs(300);

/// A token longer than this is none.
const TOKEN_BYTES_MOST: usize = 6 << 10;

/// What was found out about a token.
#[derive(Clone, Debug)]
struct Known {
    found: Result<PodIdentity, Refused>,
    until: SystemTime,
}

/// The SHA-256 of a token: a tenth of its size, and nothing that anybody could use.
type Fingerprint = [u8; 32];

fn fingerprint(token: &str) -> Fingerprint {
    let digest = digest(&SHA256, token.as_bytes());
    digest.as_ref().try_into().expect("32 bytes")
}

/// The tokens that were reviewed.
pub struct Identities {
    client: Client,
    known: Mutex<HashMap<Fingerprint, Known>>,
    refused: Mutex<HashMap<Fingerprint, Known>>,
    reviewing: Arc<Semaphore>,
    waiting: Semaphore,
    /// Reviews asked of the API server so far.
    pub reviews: AtomicU64,
}

impl std::fmt::Debug for Identities {
    /// Without the tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identities")
            .field("reviews", &self.reviews)
            .finish_non_exhaustive()
    }
}

impl Identities {
    /// Nobody is known yet.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            known: Mutex::default(),
            refused: Mutex::default(),
            reviewing: Arc::new(Semaphore::new(REVIEWS_AT_ONCE)),
            waiting: Semaphore::new(WAITING_MOST),
            reviews: AtomicU64::new(0),
        }
    }

    /// The pod whose token this is.
    ///
    /// # Errors
    /// The token is not accepted, or cannot be checked now.
    pub(super) async fn of(&self, token: &str) -> Result<PodIdentity, Refused> {
        if token.len() > TOKEN_BYTES_MOST {
            return Err(Refused::BadToken(format!(
                "it has more than {TOKEN_BYTES_MOST} bytes"
            )));
        }
        let fingerprint = fingerprint(token);
        if let Some(found) = self.known(&fingerprint) {
            return found;
        }
        // So that nonsense costs the API server nothing, and nobody waits behind it.
        could_be_for_us(token).map_err(|why| Refused::BadToken(why.to_owned()))?;
        let _waiting = self.waiting.try_acquire().map_err(|_| Refused::Busy)?;
        let _reviewing = self.reviewing.acquire().await.map_err(|_| Refused::Busy)?;
        // Another call with it may have been first.
        if let Some(found) = self.known(&fingerprint) {
            return found;
        }
        self.reviews.fetch_add(1, Ordering::Relaxed);
        let status = self
            .review(token)
            .await
            .map_err(|error| Refused::CannotAsk(error.to_string()))?;
        let found = pod_of(&status).map_err(Refused::BadToken);
        let now = SystemTime::now();
        let until = match &found {
            Ok(_) => expiry(token).unwrap_or(now + BELIEVED_FOR),
            Err(_) => now + REFUSED_FOR,
        };
        self.keep(
            fingerprint,
            Known {
                found: found.clone(),
                until,
            },
            now,
        );
        found
    }

    fn known(&self, token: &Fingerprint) -> Option<Result<PodIdentity, Refused>> {
        [&self.known, &self.refused].into_iter().find_map(|known| {
            let known = known.lock().unwrap_or_else(PoisonError::into_inner);
            let known = known.get(token)?;
            (known.until > SystemTime::now()).then(|| known.found.clone())
        })
    }

    fn keep(&self, token: Fingerprint, found: Known, now: SystemTime) {
        let (known, most) = match found.found {
            Ok(_) => (&self.known, KEPT_MOST),
            Err(_) => (&self.refused, REFUSED_KEPT_MOST),
        };
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= most {
            known.retain(|_, known| known.until > now);
            if known.len() >= most {
                known.clear();
            }
        }
        known.insert(token, found);
    }

    async fn review(&self, token: &str) -> kube::Result<TokenReviewStatus> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                audiences: Some(vec![AUDIENCE.to_owned()]),
                token: Some(token.to_owned()),
            },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let reviewed = answered(reviews.create(&PostParams::default(), &review)).await?;
        Ok(reviewed.status.unwrap_or_default())
    }
}

/// The pod that a review tells of, or why it tells of none.
fn pod_of(status: &TokenReviewStatus) -> Result<PodIdentity, String> {
    if status.authenticated != Some(true) {
        let error = status.error.clone().filter(|error| !error.is_empty());
        return Err(error.unwrap_or_else(|| "the API server does not know it".to_owned()));
    }
    let audiences = status.audiences.as_deref().unwrap_or_default();
    if !audiences.iter().any(|audience| audience == AUDIENCE) {
        return Err(format!("it is not for the audience {AUDIENCE}"));
    }
    let user = status.user.clone().unwrap_or_default();
    let namespace = user
        .username
        .as_deref()
        .and_then(|name| {
            name.strip_prefix("system:serviceaccount:")?
                .split(':')
                .next()
                .map(str::to_owned)
        })
        .ok_or("it is no service account's")?;
    let extra = user.extra.unwrap_or_default();
    let claim = |name: &str| {
        let values = extra.get(&format!("authentication.kubernetes.io/{name}"))?;
        values.first().cloned()
    };
    match (claim("pod-name"), claim("pod-uid")) {
        (Some(name), Some(uid)) => Ok(PodIdentity {
            namespace,
            name,
            uid,
        }),
        _ => Err("it is bound to no pod".to_owned()),
    }
}

/// Whether a token has the form of a service account's for our audience. It may still be anybody's: what it says is believed only when the
/// API server has reviewed it.
fn could_be_for_us(token: &str) -> Result<(), &'static str> {
    #[derive(Deserialize)]
    struct Claims {
        #[serde(default)]
        aud: Audiences,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audiences {
        One(String),
        Several(Vec<String>),
    }
    impl Default for Audiences {
        fn default() -> Self {
            Self::Several(Vec::new())
        }
    }
    let claims: Claims = claims(token).ok_or("it is no service account token")?;
    let audiences = match claims.aud {
        Audiences::One(audience) => vec![audience],
        Audiences::Several(audiences) => audiences,
    };
    let is_for_us = audiences.iter().any(|audience| audience == AUDIENCE);
    if is_for_us {
        Ok(())
    } else {
        Err("it is not for the audience ringside.dev")
    }
}

/// What a token says of itself.
fn claims<C: DeserializeOwned>(token: &str) -> Option<C> {
    let mut parts = token.split('.');
    let (_, claims, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice(&claims).ok()
}

/// When a token expires, as it says itself. Only told of one that was reviewed.
fn expiry(token: &str) -> Option<SystemTime> {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    let claims: Claims = claims(token)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(claims.exp))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judged(status: Value) -> Result<PodIdentity, String> {
        pod_of(&serde_json::from_value(status).unwrap())
    }

    fn status(username: &str, audience: &str) -> Value {
        json!({"authenticated": true, "audiences": [audience], "user": {"username": username, "extra": {
            "authentication.kubernetes.io/pod-name": ["web-1"], "authentication.kubernetes.io/pod-uid": ["u-1"],
        }}})
    }

    #[test]
    fn a_pods_token_is_that_pod() {
        let pod = judged(status("system:serviceaccount:shop:default", "ringside.dev")).unwrap();
        assert_eq!(
            (pod.namespace.as_str(), pod.name.as_str(), pod.uid.as_str()),
            ("shop", "web-1", "u-1")
        );
    }

    #[test]
    fn what_is_not_a_pods_token_for_us_is_refused_with_a_reason() {
        let unbound = json!({"authenticated": true, "audiences": ["ringside.dev"], "user": {"username": "system:serviceaccount:shop:default"}});
        for (status, reason) in [
            (json!({}), "does not know it"),
            (
                json!({"authenticated": false, "error": "token has expired"}),
                "expired",
            ),
            (
                status("system:serviceaccount:shop:default", "api"),
                "audience",
            ),
            (status("jane", "ringside.dev"), "no service account's"),
            (unbound, "bound to no pod"),
        ] {
            let refused = judged(status).unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn nonsense_is_refused_without_asking() {
        let of = |claims: Value| {
            format!(
                "e30.{}.x",
                BASE64_URL_SAFE_NO_PAD.encode(claims.to_string())
            )
        };
        for good in [json!("ringside.dev"), json!(["api", "ringside.dev"])] {
            assert_eq!(could_be_for_us(&of(json!({"aud": good}))), Ok(()));
        }
        for bad in [json!({"aud": ["api"]}), json!({"aud": []}), json!({})] {
            let refused = could_be_for_us(&of(bad)).unwrap_err();
            assert!(refused.contains("audience ringside.dev"), "{refused}");
        }
        for bad in ["", "nonsense", "a.b.c", "a.e30.c.d", "a.MQ.c"] {
            let refused = could_be_for_us(bad).unwrap_err();
            assert!(refused.contains("no service account token"), "{bad}");
        }
    }

    #[test]
    fn a_token_says_itself_until_when_it_is_good() {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"exp": 1000}"#);
        assert_eq!(
            expiry(&format!("e30.{claims}.x")),
            Some(UNIX_EPOCH + Duration::from_secs(1_000))
        );
        for bad in ["", "a.b", "a.!!.c", "..", "a.e30.c"] {
            assert_eq!(expiry(bad), None, "{bad}");
        }
    }
}

//! Which replica leads: a Lease, renewed by its holder and taken over when it is not.
//!
//! The decision is pure, told what was seen and when. A leader stops leading by its own clock before another one may begin.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;

/// A lease that was not renewed for so long is anybody's.
pub const LEASE: Duration = Duration::from_secs(10);

/// A leader that could not renew for so long leads no more: well before another one may. Counted from when it asked, and nothing that it waits
/// for takes it past that.
const GIVES_UP_AFTER: Duration = Duration::from_secs(7);

/// How often it is renewed and looked at, from one question to the next.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(2);

/// A holder that has not renewed for so long is not named to sidecars: it is likely gone, and they would call it in vain.
const NAMED_FOR: Duration = Duration::from_secs(5);

/// The most that one request may take.
const REQUEST_PATIENCE: Duration = Duration::from_secs(3);

/// The annotation of the lease that says where its holder answers sidecars.
const ADDRESS_ANNOTATION: &str = "ringside.dev/address";

/// Who leads, as a replica knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This replica.
    Leads,
    /// Another, or nobody yet.
    Follows {
        /// Where the leader answers sidecars, `IP:port`.
        leader: Option<String>,
    },
}

/// Which lease, and who takes part.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The lease's namespace.
    pub namespace: String,
    /// Its name.
    pub lease: String,
    /// This replica's name, such as its pod's.
    pub identity: String,
    /// Where it answers sidecars, `IP:port`.
    pub address: String,
}

/// A lease as it was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    holder: String,
    renewed: Option<Timestamp>,
}

/// What is known of the lease, by this replica's own clock: others' may be wrong.
#[derive(Clone, Debug, Default)]
struct Observed {
    seen: Seen,
    /// When it was first seen as it is.
    since: Duration,
}

impl Observed {
    /// Whether its holder renewed it lately.
    fn is_fresh(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) < NAMED_FOR
    }

    /// Takes what was seen. Returns whether this replica may take the lease.
    fn look(&mut self, seen: Seen, own: &str, now: Duration) -> bool {
        if seen != self.seen {
            *self = Self { seen, since: now };
        }
        let holder = self.seen.holder.as_str();
        holder.is_empty() || holder == own || now.saturating_sub(self.since) >= LEASE
    }
}

/// For how long a replica may lead still; `None` for one that does not lead.
fn leads_for(renewed_at: Option<Duration>, now: Duration) -> Option<Duration> {
    let until = renewed_at? + GIVES_UP_AFTER;
    Some(until.saturating_sub(now))
}

/// How long to wait: no longer than it may lead still.
fn wait(most: Duration, renewed_at: Option<Duration>, now: Duration) -> Duration {
    leads_for(renewed_at, now).map_or(most, |left| left.min(most))
}

/// Takes part until `stop`; tells by `leadership`. At the end it gives the lease back if it holds it.
pub async fn run(
    client: Client,
    candidate: Candidate,
    leadership: watch::Sender<Leadership>,
    mut stop: watch::Receiver<bool>,
) {
    let leases: Api<Lease> = Api::namespaced(client, &candidate.namespace);
    let epoch = Instant::now();
    let mut observed = Observed::default();
    let mut renewed_at: Option<Duration> = None;
    loop {
        let asked_at = epoch.elapsed();
        if leads_for(renewed_at, asked_at) == Some(Duration::ZERO) {
            renewed_at = None;
            tell(&leadership, Leadership::Follows { leader: None });
        }
        let patience = wait(REQUEST_PATIENCE, renewed_at, asked_at);
        let turn = turn(&leases, &candidate, &mut observed, epoch);
        match tokio::time::timeout(patience, turn).await {
            Ok(Ok(Leadership::Leads)) => {
                // As of when it was asked: the answer may have been slow.
                renewed_at = Some(asked_at);
                tell(&leadership, Leadership::Leads);
            }
            Ok(Ok(follows)) => {
                renewed_at = None;
                tell(&leadership, follows);
            }
            Ok(Err(error)) => tracing::warn!(
                "the lease {} could not be renewed or read: {error}",
                candidate.lease
            ),
            Err(_) => tracing::warn!(
                "the lease {} could not be renewed or read within {patience:?}",
                candidate.lease
            ),
        }
        let now = epoch.elapsed();
        let left = LOOKED_AT_EVERY.saturating_sub(now - asked_at);
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep(wait(left, renewed_at, now)) => {}
        }
    }
    if renewed_at.is_some() {
        tell(&leadership, Leadership::Follows { leader: None });
        let given_back =
            tokio::time::timeout(REQUEST_PATIENCE, give_back(&leases, &candidate)).await;
        if !matches!(given_back, Ok(Ok(()))) {
            tracing::warn!(
                "the lease {} could not be given back: another replica takes it in {LEASE:?}",
                candidate.lease
            );
        }
    }
}

fn tell(leadership: &watch::Sender<Leadership>, is: Leadership) {
    leadership.send_if_modified(|was| {
        if *was == is {
            return false;
        }
        tracing::info!(was = ?*was, is = ?is, "leadership");
        *was = is;
        true
    });
}

/// Reads the lease, and renews or takes it if it is ours to take.
async fn turn(
    leases: &Api<Lease>,
    candidate: &Candidate,
    observed: &mut Observed,
    epoch: Instant,
) -> kube::Result<Leadership> {
    let Some(lease) = leases.get_opt(&candidate.lease).await? else {
        let lease = held(None, candidate);
        return Ok(match leases.create(&PostParams::default(), &lease).await {
            Ok(_) => Leadership::Leads,
            Err(error) if is_conflict(&error) => Leadership::Follows { leader: None },
            Err(error) => return Err(error),
        });
    };
    let spec = lease.spec.clone().unwrap_or_default();
    let seen = Seen {
        holder: spec.holder_identity.unwrap_or_default(),
        renewed: spec.renew_time.map(|time| time.0),
    };
    let leader = lease
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(ADDRESS_ANNOTATION))
        .cloned();
    // Not when it was asked: what was renewed meanwhile would seem older than it is, and could be taken too early.
    let now = epoch.elapsed();
    let is_ours = seen.holder == candidate.identity;
    if !observed.look(seen, &candidate.identity, now) {
        let leader = leader.filter(|_| observed.is_fresh(now));
        return Ok(Leadership::Follows { leader });
    }
    match leases
        .replace(
            &candidate.lease,
            &PostParams::default(),
            &held(Some(lease), candidate),
        )
        .await
    {
        Ok(_) => Ok(Leadership::Leads),
        // Somebody wrote it meanwhile. What was ours may be so still: the next look tells, well before it is anybody's.
        Err(error) if is_conflict(&error) && !is_ours => Ok(Leadership::Follows { leader: None }),
        Err(error) => Err(error),
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// The lease with this replica as its holder.
fn held(before: Option<Lease>, candidate: &Candidate) -> Lease {
    let before = before.unwrap_or_default();
    let spec = before.spec.unwrap_or_default();
    let now = MicroTime(Timestamp::now());
    let is_held = spec.holder_identity.as_deref() == Some(&candidate.identity);
    let mut metadata = before.metadata;
    metadata.name = Some(candidate.lease.clone());
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(ADDRESS_ANNOTATION.to_owned(), candidate.address.clone());
    Lease {
        metadata: ObjectMeta {
            managed_fields: None,
            ..metadata
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(candidate.identity.clone()),
            lease_duration_seconds: Some(LEASE.as_secs() as i32),
            acquire_time: if is_held {
                spec.acquire_time
            } else {
                Some(now.clone())
            },
            lease_transitions: Some(spec.lease_transitions.unwrap_or(0) + i32::from(!is_held)),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    }
}

async fn give_back(leases: &Api<Lease>, candidate: &Candidate) -> kube::Result<()> {
    let mut lease = leases.get(&candidate.lease).await?;
    if let Some(spec) = lease
        .spec
        .as_mut()
        .filter(|spec| spec.holder_identity.as_deref() == Some(&candidate.identity))
    {
        spec.holder_identity = Some(String::new());
        leases
            .replace(&candidate.lease, &PostParams::default(), &lease)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: &str, second: i64) -> Seen {
        Seen {
            holder: holder.to_owned(),
            renewed: Some(Timestamp::from_second(second).unwrap()),
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_is_taken_when_it_stands_still_by_ones_own_clock() {
        let mut observed = Observed::default();
        assert!(!observed.look(seen("a", 1), "b", at(0)));
        assert!(!observed.look(seen("a", 1), "b", at(9)));
        // Renewed, whatever the holder's clock says.
        assert!(!observed.look(seen("a", 0), "b", at(10)));
        assert!(!observed.look(seen("a", 0), "b", at(19)));
        assert!(observed.look(seen("a", 0), "b", at(20)));
    }

    #[test]
    fn a_holder_is_named_for_as_long_as_it_renews() {
        let mut observed = Observed::default();
        for second in [0, 4, 8] {
            observed.look(seen("a", second), "b", at(second as u64));
            assert!(observed.is_fresh(at(second as u64 + 4)));
        }
        assert!(!observed.is_fresh(at(13)));
        assert!(!observed.look(seen("a", 8), "b", at(13)));
        // Longer than two looks: one may have been just too early.
        assert!(NAMED_FOR > LOOKED_AT_EVERY * 2);
    }

    #[test]
    fn what_is_given_back_or_ones_own_is_taken_at_once() {
        assert!(Observed::default().look(seen("", 1), "b", at(0)));
        assert!(Observed::default().look(seen("b", 1), "b", at(0)));
    }

    #[test]
    fn a_leader_gives_up_before_another_may_begin() {
        // Others' clocks may be faster, and what it had begun needs a moment.
        assert!(GIVES_UP_AFTER + REQUEST_PATIENCE <= LEASE);
        // Neither the sleep nor a request takes it past that, whenever it begins.
        let renewed_at = at(100);
        for millis in 0..20_000 {
            let now = renewed_at + Duration::from_millis(millis);
            for most in [LOOKED_AT_EVERY, REQUEST_PATIENCE] {
                let end = now + wait(most, Some(renewed_at), now);
                assert!(end <= now.max(renewed_at + GIVES_UP_AFTER), "{now:?}");
            }
            let is_over = leads_for(Some(renewed_at), now) == Some(Duration::ZERO);
            assert_eq!(is_over, millis >= GIVES_UP_AFTER.as_millis() as u64);
        }
        assert_eq!(wait(LOOKED_AT_EVERY, None, at(9)), LOOKED_AT_EVERY);
        // A request that is as slow as may be, the sleep that is left, and one as slow again: it leads on.
        assert!(LOOKED_AT_EVERY.max(REQUEST_PATIENCE) + REQUEST_PATIENCE < GIVES_UP_AFTER);
    }
}

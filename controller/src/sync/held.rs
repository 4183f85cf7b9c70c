//! A call that is open: held until the fleet has something to say to it.
//!
//! It owns that the fleet knows of it, and knows when it is given up. What is answered is the fleet's to decide.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringside_api::sync::{Answer, Report};
use tokio::sync::{Notify, watch};

use super::Sync;
use super::refusal::Refused;
use crate::fleet::Turn;
use crate::fleet::permits::PodId;
use crate::leader::Leadership;

/// An open call. Dropped without an answer, the sidecar is gone or has called again.
pub(super) struct Held {
    sync: Arc<Sync>,
    pod: PodId,
    number: u64,
    /// The fingerprint of the certificates that the sidecar trusts.
    trusts: String,
    waiter: Arc<Notify>,
    leadership: watch::Receiver<Leadership>,
    is_answered: bool,
}

impl Held {
    /// Tells the fleet of it. The pod's call before, if it is still open, is over.
    pub(super) fn begin(sync: &Arc<Sync>, pod: PodId, report: Report) -> Result<Self, Refused> {
        let leadership = sync.leadership.clone();
        let trusts = report.trusts.clone();
        let (number, waiter) = {
            let mut fleet = sync.fleet();
            let number = fleet.begin_call(pod, report, sync.now());
            let number = number.ok_or(Refused::Gone)?;
            (number, fleet.waiter(pod).ok_or(Refused::Gone)?)
        };
        sync.counts.open.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            sync: sync.clone(),
            pod,
            number,
            trusts,
            waiter,
            leadership,
            is_answered: false,
        })
    }

    /// The answer, once there is one, of a replica that leads. Not asked for again after it.
    pub(super) async fn answer(&mut self) -> Result<Answer, Refused> {
        let sync = self.sync.clone();
        loop {
            // Before looking, so that what happens in between is not missed.
            let stirred = self.waiter.notified();
            tokio::pin!(stirred);
            stirred.as_mut().enable();
            // Another one may permit by now.
            if let Leadership::Follows { leader } = sync.leadership() {
                return Err(Refused::NotLeading { leader });
            }
            let turn = sync.fleet().turn(self.pod, self.number, sync.now());
            match turn {
                Turn::Answer(mut answer) => {
                    self.is_answered = true;
                    sync.counts.answered.fetch_add(1, Ordering::Relaxed);
                    let trust = sync.trust.borrow();
                    if !trust.pem.is_empty() && trust.fingerprint != self.trusts {
                        answer.ca = Some(trust.pem.clone());
                    }
                    return Ok(*answer);
                }
                Turn::Over => return Err(Refused::Overtaken),
                Turn::Wait(until) => {
                    tokio::select! {
                        () = stirred => {}
                        () = tokio::time::sleep_until(sync.epoch + until) => {}
                        _ = self.leadership.changed() => {}
                    }
                }
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let counts = &self.sync.counts;
        counts.open.fetch_sub(1, Ordering::Relaxed);
        if !self.is_answered {
            counts.given_up.fetch_add(1, Ordering::Relaxed);
            let now = self.sync.now();
            self.sync.fleet().end_call(self.pod, self.number, now);
        }
    }
}

//! What to answer the next watched call with: the standing order and the counts. Pure; it is told the time.

use std::time::Instant;

use super::Errno;

/// What the injector saw and did since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Watched calls: `failed + continued`.
    pub seen: u64,
    /// Calls that were answered with the ordered error.
    pub failed: u64,
    /// Calls that went on into the kernel.
    pub continued: u64,
    /// Of those seen, calls that submitted nothing and only waited or reaped. They never fail. Always 0 with
    /// [`Syscalls::Submissions`](super::Syscalls::Submissions), whose filter lets them through unseen.
    pub waits: u64,
}

/// The standing order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Continue,
    Next { left: u64, errno: Errno },
    Until { end: Instant, errno: Errno },
}

/// The answer to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Continue,
    Fail(Errno),
}

/// The standing order and what became of it.
#[derive(Debug)]
pub(super) struct Plan {
    order: Order,
    counts: Counts,
}

impl Plan {
    pub(super) fn new() -> Self {
        Self {
            order: Order::Continue,
            counts: Counts::default(),
        }
    }

    /// Replaces the standing order: the next `count` submitting calls fail.
    pub(super) fn fail_next(&mut self, count: u64, errno: Errno) {
        self.order = if count == 0 {
            Order::Continue
        } else {
            Order::Next { left: count, errno }
        };
    }

    /// Replaces the standing order: submitting calls fail until `end`.
    pub(super) fn fail_until(&mut self, end: Instant, errno: Errno) {
        self.order = Order::Until { end, errno };
    }

    /// Ends the standing order.
    pub(super) fn stop(&mut self) {
        self.order = Order::Continue;
    }

    /// What a call should be answered with now. Nothing is counted until [`answered`](Self::answered), because
    /// the caller may be gone before the answer reaches it.
    pub(super) fn answer(&self, submits: bool, now: Instant) -> Answer {
        match self.order {
            Order::Next { errno, .. } if submits => Answer::Fail(errno),
            Order::Until { end, errno } if submits && now < end => Answer::Fail(errno),
            _ => Answer::Continue,
        }
    }

    /// Counts an answer that reached its caller.
    pub(super) fn answered(&mut self, answer: Answer, submits: bool) {
        self.counts.seen += 1;
        self.counts.waits += u64::from(!submits);
        match answer {
            Answer::Continue => self.counts.continued += 1,
            Answer::Fail(_) => {
                self.counts.failed += 1;
                if let Order::Next { left, .. } = &mut self.order {
                    *left -= 1;
                    if *left == 0 {
                        self.order = Order::Continue;
                    }
                }
            }
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn turn(plan: &mut Plan, submits: bool, now: Instant) -> Answer {
        let answer = plan.answer(submits, now);
        plan.answered(answer, submits);
        answer
    }

    #[test]
    fn exactly_the_ordered_number_fails() {
        let now = Instant::now();
        let mut plan = Plan::new();
        assert_eq!(turn(&mut plan, true, now), Answer::Continue);
        plan.fail_next(2, Errno::EAGAIN);
        assert_eq!(turn(&mut plan, true, now), Answer::Fail(Errno::EAGAIN));
        assert_eq!(
            turn(&mut plan, false, now),
            Answer::Continue,
            "a pure wait never fails"
        );
        assert_eq!(turn(&mut plan, true, now), Answer::Fail(Errno::EAGAIN));
        assert_eq!(turn(&mut plan, true, now), Answer::Continue);
        assert_eq!(
            plan.counts(),
            Counts {
                seen: 5,
                failed: 2,
                continued: 3,
                waits: 1
            }
        );
    }

    #[test]
    fn an_answer_that_did_not_arrive_is_not_counted() {
        let now = Instant::now();
        let mut plan = Plan::new();
        plan.fail_next(1, Errno::EPERM);
        assert_eq!(plan.answer(true, now), Answer::Fail(Errno::EPERM));
        assert_eq!(plan.answer(true, now), Answer::Fail(Errno::EPERM));
        assert_eq!(plan.counts(), Counts::default());
    }

    #[test]
    fn a_timed_order_ends_by_itself() {
        let start = Instant::now();
        let end = start + Duration::from_secs(2);
        let mut plan = Plan::new();
        plan.fail_until(end, Errno::EBUSY);
        assert_eq!(turn(&mut plan, true, start), Answer::Fail(Errno::EBUSY));
        assert_eq!(
            turn(&mut plan, true, end - Duration::from_nanos(1)),
            Answer::Fail(Errno::EBUSY)
        );
        assert_eq!(turn(&mut plan, true, end), Answer::Continue);
    }

    #[test]
    fn a_new_order_replaces_the_old_one() {
        let now = Instant::now();
        let mut plan = Plan::new();
        plan.fail_next(100, Errno::EAGAIN);
        plan.fail_next(1, Errno::ENOMEM);
        assert_eq!(turn(&mut plan, true, now), Answer::Fail(Errno::ENOMEM));
        assert_eq!(turn(&mut plan, true, now), Answer::Continue);
        plan.fail_next(3, Errno::EAGAIN);
        plan.stop();
        assert_eq!(turn(&mut plan, true, now), Answer::Continue);
        plan.fail_next(0, Errno::EAGAIN);
        assert_eq!(turn(&mut plan, true, now), Answer::Continue);
    }
}

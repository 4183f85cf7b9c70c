//! tokio-uring's runtime, driven a turn at a time from a loop that is not asynchronous.
//!
//! It owns the runtime and what is known of its ring from outside: how many requests are on the way, and whether
//! the last batch has been taken. tokio-uring submits when its thread parks, throws the call's error away, and then
//! sleeps; so every batch ends in a no-op, the canary, whose answer tells that all before it was taken, and nothing
//! is handed over while one is out. Nothing here ever waits without a deadline, and no panic leaves it.

use std::future::{Future, poll_fn};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;
use std::time::{Duration, Instant};

use ::tokio_uring::{OneshotOutputTransform, Runtime, UnsubmittedOneshot};
use tokio::io::unix::AsyncFd;
use tokio::time::sleep_until;
use tokio_uring_entries::cqueue;

use super::answers::Answers;
use super::entries::{Kind, LATE_AFTER, Memory, Request};
use super::setup;
use crate::backend::Waker;
use crate::backend::choice::SetupError;
use crate::backend::epoll::calls::Interest;

/// How long the end of a ring may take before it is left behind.
const END_PATIENCE: Duration = Duration::from_millis(200);

/// A runtime and what is on the way in it.
pub(super) struct Driven {
    runtime: ManuallyDrop<Runtime>,
    answers: Answers,
    /// Requests of the batch whose canary is out.
    unconfirmed: u32,
    /// The runtime panicked: it is never driven or dropped again.
    is_broken: bool,
    has_ended: Option<bool>,
}

/// What a turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// There was nothing to take, or nobody asked for it to be.
    Nothing,
    /// So many requests are known to have been taken.
    Taken(u32),
    /// So many should have been, and the ring has not answered.
    Late(u32),
    /// The runtime is broken.
    Broken,
}

impl Driven {
    /// A runtime with a ring for `entries` submissions and `completions` completions, which `waker` wakes, and which
    /// listens to `streams`.
    pub(super) fn new(
        entries: u32,
        completions: u32,
        waker: &Waker,
        streams: &Interest,
    ) -> Result<Self, SetupError> {
        let runtime = setup::build(entries, completions)?;
        let driven = Driven {
            runtime: ManuallyDrop::new(runtime),
            answers: Answers::default(),
            unconfirmed: 0,
            is_broken: false,
            has_ended: None,
        };
        let duplicate = streams
            .duplicate()
            .map_err(|errno| SetupError::new("a descriptor for tokio-uring", errno))?;
        let (waker, answers) = (waker.clone(), driven.answers.clone());
        let listens = driven.runtime.block_on(async move {
            let clears = waker.clone();
            let woken = answers.clone();
            listen(Listened::Waker(waker), move || {
                clears.clear();
                woken.woken();
            })?;
            listen(Listened::Streams(duplicate), move || {
                answers.streams_ready();
            })
        });
        listens.map_err(SetupError::at("epoll_ctl for tokio-uring"))?;
        Ok(driven)
    }

    pub(super) fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Requests that were handed over and are not known to have been taken.
    pub(super) fn unconfirmed(&self) -> u32 {
        self.unconfirmed
    }

    /// Whether a batch may be handed over: the one before it has been taken.
    pub(super) fn takes_more(&self) -> bool {
        !self.answers.awaits_canary() && !self.is_broken
    }

    /// Hands `batch` over, which has room in the queue, and runs what is ready. With `judges` it is found out
    /// whether it was taken. If there is no news then, waits so long for some.
    pub(super) fn turn(
        &mut self,
        batch: Vec<Request>,
        wait: Option<Duration>,
        judges: bool,
    ) -> Turned {
        if self.is_broken {
            return Turned::Broken;
        }
        let began = Instant::now();
        debug_assert!(batch.is_empty() || self.takes_more(), "two batches at once");
        self.unconfirmed += batch.len() as u32;
        let (answers, runtime) = (&self.answers, &self.runtime);
        let hands_over = !batch.is_empty();
        // What a panic leaves behind is never used again.
        let ran = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(async {
                if hands_over {
                    for request in batch {
                        hand_over(request, answers);
                    }
                    hand_over(Request::of(-1, Kind::Canary), answers);
                }
                let is_late = judges && answers.awaits_canary() && is_late(answers).await;
                if let Some(wait) = wait.filter(|_| !is_late) {
                    until(answers, began + wait, || answers.has_news()).await;
                } else if !is_late && !hands_over {
                    round().await;
                }
            });
        }));
        if ran.is_err() || self.answers.is_broken() {
            self.is_broken = true;
            return Turned::Broken;
        }
        match (self.answers.awaits_canary(), self.unconfirmed) {
            (_, 0) => Turned::Nothing,
            (false, taken) if judges => {
                self.unconfirmed = 0;
                Turned::Taken(taken)
            }
            (true, offered) if judges => Turned::Late(offered),
            (_, _) => Turned::Nothing,
        }
    }

    /// Hands a batch over and waits for all answers, also to what was handed over before. False if they do not
    /// come in time.
    pub(super) fn finish(&mut self, batch: Vec<Request>, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut turned = self.turn(batch, None, true);
        while turned != Turned::Broken && self.answers.open() > 0 && Instant::now() < deadline {
            let answers = self.answers.clone();
            let ran = catch_unwind(AssertUnwindSafe(|| {
                // Driven in short turns: each flushes the queue again.
                let end = deadline.min(Instant::now() + LATE_AFTER);
                self.runtime
                    .block_on(until(&answers, end, || answers.open() == 0));
            }));
            self.is_broken |= ran.is_err();
            turned = self.turn(Vec::new(), None, false);
        }
        let is_over = turned != Turned::Broken && self.answers.open() == 0;
        if is_over {
            self.unconfirmed = 0;
        }
        is_over
    }

    /// What happens when tokio-uring panics while it works on a request.
    #[cfg(test)]
    pub(super) fn panic_in_a_task(&self) {
        let owed = self.answers.owe(0, Kind::Send);
        self.runtime.block_on(async move {
            ::tokio_uring::spawn(async move {
                let _unpaid = owed;
                panic!("as it does when it cannot submit");
            });
        });
    }

    /// Ends all requests. False if the ring does not let it happen in time, and may still use their memory.
    pub(super) fn end(&mut self) -> bool {
        if let Some(has_ended) = self.has_ended {
            return has_ended;
        }
        let ends = if self.answers.open() > 0 && self.takes_more() {
            vec![Request::of(-1, Kind::CancelAll)]
        } else {
            Vec::new()
        };
        let has_ended = self.finish(ends, END_PATIENCE);
        self.has_ended = Some(has_ended);
        has_ended
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        // Dropped with requests in its hands tokio-uring waits for them without end, and panics where it cannot
        // submit, which while unwinding ends the process. So one that does not end is left behind.
        if self.end() {
            // SAFETY: it is not used again; this is the one place that drops it.
            unsafe { ManuallyDrop::drop(&mut self.runtime) };
        }
    }
}

/// What the runtime listens to beside its ring. Each holds its descriptor open.
enum Listened {
    Waker(Waker),
    Streams(OwnedFd),
}

impl AsRawFd for Listened {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Listened::Waker(waker) => waker.fd(),
            Listened::Streams(epoll) => epoll.as_raw_fd(),
        }
    }
}

/// Calls `tell` whenever there is something to read.
fn listen(to: Listened, tell: impl Fn() + 'static) -> std::io::Result<()> {
    // SAFETY: what is listened to holds its descriptor open for as long as the result holds it.
    let listened = unsafe { AsyncFd::register_with_interest(to, tokio::io::Interest::READABLE)? };
    ::tokio_uring::spawn(async move {
        while let Ok(mut guard) = listened.readable().await {
            guard.clear_ready();
            tell();
        }
    });
    Ok(())
}

/// The number that a completion carries, as it is.
struct Number;

impl OneshotOutputTransform for Number {
    type Output = i32;
    type StoredData = Memory;

    fn transform_oneshot_output(self, _memory: Memory, completion: cqueue::Entry) -> i32 {
        completion.result()
    }
}

/// Puts a request into the queue and spawns the task that waits for its answer.
fn hand_over(mut request: Request, answers: &Answers) {
    let owed = answers.owe(request.fd, request.kind);
    let entry = request.entry();
    // Should its task be dropped, tokio-uring keeps the memory until the kernel is done with it.
    let on_the_way = UnsubmittedOneshot::new(request.memory, Number, entry).submit();
    ::tokio_uring::spawn(async move {
        owed.waits();
        owed.pay(on_the_way.await);
    });
}

/// Whether the canary stays out although the queue has been flushed.
async fn is_late(answers: &Answers) -> bool {
    // A queue is flushed when all tasks have run. How long that takes says nothing about the ring.
    poll_fn(|context| {
        if answers.canary_has_left() {
            return Poll::Ready(());
        }
        answers.tell(context.waker());
        Poll::Pending
    })
    .await;
    let deadline = Instant::now() + LATE_AFTER;
    !until(answers, deadline, || !answers.awaits_canary()).await
}

/// Waits until `holds` or the deadline; says which. The thread parks meanwhile, and flushes the queue as it does.
async fn until(answers: &Answers, deadline: Instant, holds: impl Fn() -> bool) -> bool {
    if holds() {
        return true;
    }
    let timer = sleep_until(deadline.into());
    tokio::pin!(timer);
    poll_fn(|context| {
        if holds() {
            return Poll::Ready(());
        }
        answers.tell(context.waker());
        timer.as_mut().poll(context)
    })
    .await;
    if !holds() {
        // The ring may have answered just when the time was over.
        round().await;
    }
    holds()
}

/// Lets the runtime look once at what is ready, and run all that follows from it.
async fn round() {
    let run_all_before = || ::tokio_uring::spawn(async {});
    // Tasks run in the order in which they became ready. So: those that are ready now; what the kernel has told
    // meanwhile; the task that reads the ring; and those whose answers it found.
    let _ = run_all_before().await;
    tokio::task::yield_now().await;
    let _ = run_all_before().await;
    let _ = run_all_before().await;
}

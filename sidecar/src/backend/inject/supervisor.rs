//! The supervisor: a thread that answers the kernel's notifications according to the standing order.
//!
//! It owns the notification descriptor. While it runs, every watched call of the command waits for it, so it must
//! never do anything but answer; when it ends, the kernel answers watched calls with ENOSYS.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::plan::{Answer, Plan};
use super::{Counts, Errno, Syscalls, handover};

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`: wake the other side on this CPU, as this side is about to sleep.
const SYNC_WAKE_UP: libc::c_ulong = 1;

/// A command under supervision: orders faults and tells what became of them.
///
/// Drop it after the command has ended: without it, the calls that it watched fail with ENOSYS.
#[derive(Debug)]
pub struct Injector {
    shared: Arc<Shared>,
    // Taken when dropped: closing it is what ends the thread.
    quit: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    failed: Condvar,
}

#[derive(Debug)]
struct State {
    plan: Plan,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The plan is whole between any two statements, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Injector {
    pub(super) fn supervise(listener: OwnedFd, syscalls: Syscalls) -> io::Result<Self> {
        let mut sizes = libc::seccomp_notif_sizes {
            seccomp_notif: 0,
            seccomp_notif_resp: 0,
            seccomp_data: 0,
        };
        // SAFETY: the kernel fills `sizes`, which outlives the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_GET_NOTIF_SIZES,
                0,
                &raw mut sizes,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        if usize::from(sizes.seccomp_notif.max(sizes.seccomp_notif_resp)) > mem::size_of::<Room>() {
            return Err(io::Error::other(
                "this kernel's notifications are larger than the injector knows",
            ));
        }
        // Kernels before 6.6 refuse, and answering is a little slower there.
        // SAFETY: an ioctl that takes a number.
        let _ = unsafe {
            libc::ioctl(
                listener.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS,
                SYNC_WAKE_UP,
            )
        };
        let (theirs, quit) = handover::pair()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                plan: Plan::new(),
                ended: false,
            }),
            failed: Condvar::new(),
        });
        let supervisor = Supervisor {
            listener,
            quit: theirs,
            syscalls,
            shared: Arc::clone(&shared),
        };
        let thread = thread::Builder::new()
            .name("inject".to_owned())
            .spawn(move || supervisor.run())?;
        Ok(Self {
            shared,
            quit: Some(quit),
            thread: Some(thread),
        })
    }

    /// The next `count` submitting calls, of whatever thread, fail with `errno`. Replaces any standing order.
    pub fn fail_next(&self, count: u64, errno: Errno) {
        self.shared.lock().plan.fail_next(count, errno);
    }

    /// Every submitting call from now on for `time` fails with `errno`. Replaces any standing order.
    pub fn fail_for(&self, time: Duration, errno: Errno) {
        let now = Instant::now();
        // A century is as good as for ever, and an Instant has an end.
        let end = now
            .checked_add(time)
            .unwrap_or_else(|| now + Duration::from_secs(3_000_000_000));
        self.shared.lock().plan.fail_until(end, errno);
    }

    /// Ends the standing order: calls go on again.
    pub fn stop(&self) {
        self.shared.lock().plan.stop();
    }

    /// What happened since the start.
    pub fn counts(&self) -> Counts {
        self.shared.lock().plan.counts()
    }

    /// Waits until `failed` calls in all were made to fail, the command has ended, or `patience` is over; returns the
    /// counts of that moment.
    pub fn wait_failed(&self, failed: u64, patience: Duration) -> Counts {
        let (state, _) = self
            .shared
            .failed
            .wait_timeout_while(self.shared.lock(), patience, |state| {
                !state.ended && state.plan.counts().failed < failed
            })
            .unwrap_or_else(PoisonError::into_inner);
        state.plan.counts()
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        drop(self.quit.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread was already printed by it.
            let _ = thread.join();
        }
    }
}

/// Room for a notification and for an answer, whichever kernel wrote the one and reads the other.
type Room = [u64; 32];

struct Supervisor {
    listener: OwnedFd,
    quit: OwnedFd,
    syscalls: Syscalls,
    shared: Arc<Shared>,
}

impl Supervisor {
    fn run(self) {
        // Declared after nothing and before everything: also on a panic the waiters learn that it is over.
        struct Ended<'a>(&'a Shared);
        impl Drop for Ended<'_> {
            fn drop(&mut self) {
                self.0.lock().ended = true;
                self.0.failed.notify_all();
            }
        }
        let _ended = Ended(&self.shared);
        loop {
            match self.wait() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(%error, "the fault injector cannot wait for calls and ends");
                    return;
                }
            }
            if let Err(error) = self.turn() {
                tracing::error!(%error, "the fault injector cannot answer calls and ends");
                return;
            }
        }
    }

    /// Waits for a notification; `false` when there will be none.
    fn wait(&self) -> io::Result<bool> {
        let watch = |fd: &OwnedFd| libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let mut fds = [watch(&self.listener), watch(&self.quit)];
        // SAFETY: `fds` is valid for its two entries.
        if unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) } < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted {
                Ok(true)
            } else {
                Err(error)
            };
        }
        // The listener hangs up when the last thread under the filter is gone; the other end closes on drop.
        let gone = fds[0].revents & libc::POLLIN == 0 && fds[0].revents != 0;
        Ok(!gone && fds[1].revents == 0)
    }

    /// Receives one notification, if it is still there, and answers it.
    fn turn(&self) -> io::Result<()> {
        let mut room: Room = [0; 32];
        let fd = self.listener.as_raw_fd();
        // SAFETY: `room` is zeroed, as the kernel wants it, and at least as large as its notification.
        if unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_RECV, room.as_mut_ptr()) } != 0 {
            return gone_is_fine(io::Error::last_os_error());
        }
        // SAFETY: the kernel wrote a seccomp_notif there; `room` is large enough and aligned to 8 bytes.
        let call = unsafe { room.as_ptr().cast::<libc::seccomp_notif>().read() };
        // The kernel's own view of the argument: an unsigned int.
        let submits = self.syscalls == Syscalls::Submissions || call.data.args[1] as u32 != 0;

        let mut state = self.shared.lock();
        let answer = state.plan.answer(submits, Instant::now());
        let mut response = libc::seccomp_notif_resp {
            id: call.id,
            val: 0,
            error: 0,
            flags: 0,
        };
        match answer {
            Answer::Continue => response.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
            Answer::Fail(errno) => response.error = -errno.number(),
        }
        let mut room: Room = [0; 32];
        let place = room.as_mut_ptr().cast::<libc::seccomp_notif_resp>();
        // SAFETY: `room` is large enough and aligned for the answer, and zeroed beyond it.
        unsafe { place.write(response) };
        // SAFETY: `room` holds an answer as large as the kernel reads.
        if unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, room.as_mut_ptr()) } != 0 {
            return gone_is_fine(io::Error::last_os_error());
        }
        state.plan.answered(answer, submits);
        drop(state);
        if matches!(answer, Answer::Fail(_)) {
            self.shared.failed.notify_all();
        }
        Ok(())
    }
}

/// The caller can be killed, or interrupted by a signal, between any two steps: then there is nothing to answer.
fn gone_is_fine(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::EINTR | libc::EINPROGRESS | libc::ENOTCONN) => Ok(()),
        _ => Err(error),
    }
}

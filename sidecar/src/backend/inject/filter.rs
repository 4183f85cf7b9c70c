//! The seccomp filters: how they are written, and how a child installs one between fork and exec.
//!
//! It owns the filter's text and nothing that runs later. Everything from [`install`] on happens in a forked child
//! of a process that may have many threads: system calls only, never an allocation or a lock.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use libc::{sock_filter, sock_fprog};

use super::Errno;

/// The architecture as seccomp names it; none where the injector was not written for it. A call made under
/// another one (a 32-bit program on a 64-bit kernel) has other numbers, and is let through.
pub(super) const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xC000_003E)
} else if cfg!(target_arch = "aarch64") {
    Some(0xC000_00B7)
} else {
    None
};

// Where `struct seccomp_data` keeps what the filters look at. `to_submit` is an unsigned int, so only the low half of
// the second argument counts, which is the first half on both (little-endian) architectures.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const TO_SUBMIT: u32 = 24;
const FAMILY: u32 = 16;

/// A filter's instructions.
pub(super) type Program = Vec<sock_filter>;

fn load(offset: u32) -> sock_filter {
    sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: offset,
    }
}

/// `then` and `otherwise` are how many of the following instructions to skip.
fn jump(condition: u32, value: u32, then: u8, otherwise: u8) -> sock_filter {
    sock_filter {
        code: (libc::BPF_JMP | condition | libc::BPF_K) as u16,
        jt: then,
        jf: otherwise,
        k: value,
    }
}

fn give(action: u32) -> sock_filter {
    sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: action,
    }
}

fn action(errno: Errno) -> u32 {
    libc::SECCOMP_RET_ERRNO | (errno.number() as u32 & libc::SECCOMP_RET_DATA)
}

/// Every call of `syscall` gets `action`.
fn on_call(arch: u32, syscall: libc::c_long, action: u32) -> Program {
    vec![
        load(ARCH),
        jump(libc::BPF_JEQ, arch, 0, 3),
        load(NUMBER),
        jump(libc::BPF_JEQ, syscall as u32, 0, 1),
        give(action),
        give(libc::SECCOMP_RET_ALLOW),
    ]
}

/// Every `io_uring_enter` that submits more than `most` gets `action`.
fn on_submitting(arch: u32, most: u32, action: u32) -> Program {
    vec![
        load(ARCH),
        jump(libc::BPF_JEQ, arch, 0, 5),
        load(NUMBER),
        jump(libc::BPF_JEQ, libc::SYS_io_uring_enter as u32, 0, 3),
        load(TO_SUBMIT),
        jump(libc::BPF_JGT, most, 0, 1),
        give(action),
        give(libc::SECCOMP_RET_ALLOW),
    ]
}

/// The supervisor decides about every `io_uring_enter` that submits.
pub(super) fn watch_submissions(arch: u32) -> Program {
    on_submitting(arch, 0, libc::SECCOMP_RET_USER_NOTIF)
}

/// The supervisor sees every `io_uring_enter`.
pub(super) fn watch_enters(arch: u32) -> Program {
    on_call(arch, libc::SYS_io_uring_enter, libc::SECCOMP_RET_USER_NOTIF)
}

/// `io_uring_setup` always fails.
pub(super) fn deny_setup(arch: u32, errno: Errno) -> Program {
    on_call(arch, libc::SYS_io_uring_setup, action(errno))
}

/// `io_uring_enter` fails whenever it submits more than `most`.
pub(super) fn deny_submits_above(arch: u32, most: u32, errno: Errno) -> Program {
    on_submitting(arch, most, action(errno))
}

/// `socket` for IPv6 always fails, as where the kernel has none.
pub(super) fn deny_ipv6(arch: u32) -> Program {
    let no_such_family = libc::EAFNOSUPPORT as u32 & libc::SECCOMP_RET_DATA;
    vec![
        load(ARCH),
        jump(libc::BPF_JEQ, arch, 0, 5),
        load(NUMBER),
        jump(libc::BPF_JEQ, libc::SYS_socket as u32, 0, 3),
        load(FAMILY),
        jump(libc::BPF_JEQ, libc::AF_INET6 as u32, 0, 1),
        give(libc::SECCOMP_RET_ERRNO | no_such_family),
        give(libc::SECCOMP_RET_ALLOW),
    ]
}

/// Installs `program` for this process and whatever it starts, without a supervisor.
///
/// # Errors
/// What the kernel answered. Safe between fork and exec.
pub(super) fn install(program: &[sock_filter]) -> io::Result<()> {
    seccomp(program, 0).map(drop)
}

/// Installs `program` and returns the descriptor on which its notifications arrive (closed on exec).
///
/// # Errors
/// What the kernel answered. Safe between fork and exec.
pub(super) fn install_watched(program: &[sock_filter]) -> io::Result<OwnedFd> {
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // A signal must not take back a call that the supervisor has already counted. Kernels before 5.19 cannot
    // promise that; there a signal makes the call come again, and an exact count may be one too high.
    let fd = match seccomp(
        program,
        listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    ) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => seccomp(program, listener)?,
        other => other?,
    };
    // SAFETY: with NEW_LISTENER a success is a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn seccomp(program: &[sock_filter], flags: libc::c_ulong) -> io::Result<i32> {
    let text = sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: prctl with numbers only. Without this, a process that is not root may not install a filter.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `text` points at `program`, both outlive the call, and the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const text,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel would: enough of classic BPF for the instructions used here.
    fn run(program: &Program, arch: u32, number: i64, to_submit: u32) -> u32 {
        let (mut at, mut word) = (0, 0);
        loop {
            let step = program[at];
            at += 1;
            let code = u32::from(step.code);
            if code & 7 == libc::BPF_RET {
                return step.k;
            } else if code & 7 == libc::BPF_LD {
                word = match step.k {
                    NUMBER => number as u32,
                    ARCH => arch,
                    TO_SUBMIT => to_submit,
                    other => panic!("offset {other} is not looked at"),
                };
            } else {
                let holds = if code & 0xf0 == libc::BPF_JEQ {
                    word == step.k
                } else {
                    word > step.k
                };
                at += usize::from(if holds { step.jt } else { step.jf });
            }
        }
    }

    const HERE: u32 = 0xC000_003E;
    const ELSEWHERE: u32 = 0x4000_0003;

    #[test]
    fn only_submitting_enters_are_watched() {
        let program = watch_submissions(HERE);
        assert_eq!(
            run(&program, HERE, libc::SYS_io_uring_enter, 1),
            libc::SECCOMP_RET_USER_NOTIF
        );
        assert_eq!(
            run(&program, HERE, libc::SYS_io_uring_enter, u32::MAX),
            libc::SECCOMP_RET_USER_NOTIF
        );
        assert_eq!(
            run(&program, HERE, libc::SYS_io_uring_enter, 0),
            libc::SECCOMP_RET_ALLOW
        );
        assert_eq!(
            run(&program, HERE, libc::SYS_io_uring_setup, 1),
            libc::SECCOMP_RET_ALLOW
        );
        assert_eq!(
            run(&program, ELSEWHERE, libc::SYS_io_uring_enter, 1),
            libc::SECCOMP_RET_ALLOW
        );
        assert_eq!(
            run(&watch_enters(HERE), HERE, libc::SYS_io_uring_enter, 0),
            libc::SECCOMP_RET_USER_NOTIF
        );
        assert_eq!(
            run(&watch_enters(HERE), HERE, libc::SYS_read, 0),
            libc::SECCOMP_RET_ALLOW
        );
    }

    #[test]
    fn denials_answer_with_their_error() {
        let program = deny_setup(HERE, Errno::ENOSYS);
        let answer = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        assert_eq!(run(&program, HERE, libc::SYS_io_uring_setup, 0), answer);
        assert_eq!(
            run(&program, HERE, libc::SYS_io_uring_enter, 0),
            libc::SECCOMP_RET_ALLOW
        );
        assert_eq!(
            run(&program, ELSEWHERE, libc::SYS_io_uring_setup, 0),
            libc::SECCOMP_RET_ALLOW
        );

        let program = deny_submits_above(HERE, 8, Errno::EAGAIN);
        let answer = libc::SECCOMP_RET_ERRNO | libc::EAGAIN as u32;
        assert_eq!(
            run(&program, HERE, libc::SYS_io_uring_enter, 8),
            libc::SECCOMP_RET_ALLOW
        );
        assert_eq!(run(&program, HERE, libc::SYS_io_uring_enter, 9), answer);
    }
}

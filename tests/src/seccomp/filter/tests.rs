//! The filter, asked by real calls of a real child.
#![allow(unsafe_code)]

use serde_json::json;

use super::*;
use crate::seccomp::{IO_URING, profile};

/// The error that a call ends with in a child held to `profile`.
fn answer(profile: &Value, call: impl Fn() -> libc::c_long + Send + Sync + 'static) -> Option<i32> {
    let mut command = Command::new("true");
    Filter::of(profile).unwrap().hold(&mut command);
    // SAFETY: the closure makes one system call with numbers, or with memory of its own.
    unsafe {
        command.pre_exec(move || {
            if call() < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Some(error.raw_os_error().unwrap()),
    };
    assert!(child.wait().unwrap().success());
    None
}

fn socket(family: i32) -> impl Fn() -> libc::c_long {
    // SAFETY: numbers only.
    move || unsafe { libc::socket(family, libc::SOCK_STREAM, 0) }.into()
}

#[test]
fn arguments_are_compared() {
    let profile = profile(&[]);
    assert_eq!(answer(&profile, socket(libc::AF_INET)), None);
    assert_eq!(answer(&profile, socket(libc::AF_VSOCK)), Some(libc::EPERM));
    assert_eq!(answer(&profile, socket(libc::AF_ALG)), Some(libc::EPERM));
    // Between the two, and above: let through, to what the kernel itself says of it.
    for family in [libc::AF_ALG + 1, libc::AF_VSOCK + 1] {
        assert_ne!(answer(&profile, socket(family)), Some(libc::EPERM));
    }
    // SAFETY: numbers only.
    let persona = |wanted: u64| move || unsafe { libc::syscall(libc::SYS_personality, wanted) };
    assert_eq!(answer(&profile, persona(0xffff_ffff)), None);
    assert_eq!(answer(&profile, persona(0x4_0000)), Some(libc::EPERM));
    // A high half counts as well.
    assert_eq!(answer(&profile, persona(1 << 32)), Some(libc::EPERM));
}

#[test]
fn namespaces_are_not_made() {
    let profile = profile(&IO_URING);
    // Without a stack and with flags that make no sense together, so that no thread or process comes of it.
    let clone = |flags: libc::c_int| {
        // SAFETY: refused by the filter, or by the kernel as CLONE_SIGHAND without CLONE_VM makes no sense.
        move || unsafe { libc::syscall(libc::SYS_clone, flags | libc::CLONE_SIGHAND, 0, 0, 0, 0) }
    };
    assert_eq!(answer(&profile, clone(0)), Some(libc::EINVAL));
    assert_eq!(
        answer(&profile, clone(libc::CLONE_NEWUSER)),
        Some(libc::EPERM)
    );
    // SAFETY: refused by the filter before it looks at anything.
    let clone3 = || unsafe { libc::syscall(libc::SYS_clone3, 0, 0) };
    assert_eq!(answer(&profile, clone3), Some(libc::ENOSYS));
    // SAFETY: numbers only.
    let unshare = || unsafe { libc::unshare(libc::CLONE_NEWNET) }.into();
    assert_eq!(answer(&profile, unshare), Some(libc::EPERM));
}

#[test]
fn what_is_not_named_is_refused() {
    // SAFETY: the kernel refuses a ring without entries, if it is asked at all.
    let ring = || unsafe { libc::syscall(libc::SYS_io_uring_setup, 0, 0) };
    assert_eq!(answer(&profile(&[]), ring), Some(libc::EPERM));
    assert_ne!(answer(&profile(&IO_URING), ring), Some(libc::EPERM));
}

#[test]
fn what_is_not_understood_is_no_profile() {
    let unknown = [
        json!({"defaultAction": "SCMP_ACT_TRACE", "syscalls": []}),
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [], "listenerPath": "/run/x"}),
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}}
        ]}),
    ];
    for profile in unknown {
        assert!(Filter::of(&profile).is_err(), "{profile}");
    }
}

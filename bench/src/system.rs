//! The few system calls that the standard library has no name for. The only unsafe code of the tool.
//!
//! Each function wraps one call and says what it asks of the kernel; nothing here decides anything.
#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// CPU time that process `pid` has used since it began: all of its threads, io_uring's kernel workers among them, and
/// those that have ended. In nanoseconds, where /proc/PID/stat counts in hundredths of a second.
pub(crate) fn process_cpu(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a valid place for the result.
    let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the result; a clock whose process has gone is an error, not a fault.
    check(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    Ok(Duration::new(
        time.tv_sec.max(0) as u64,
        time.tv_nsec as u32,
    ))
}

/// Lets the calling thread, and what it starts from now on, run on `cpu` only.
pub(crate) fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: a cpu_set_t is plain bits, for which all zeros is a valid value; `cpu` is within its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        check(libc::sched_setaffinity(
            0,
            size_of::<libc::cpu_set_t>(),
            &raw const set,
        ))
    }
}

/// Raises the limit of open descriptors to the hard limit and returns it.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for both calls.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
    }
    Ok(limit.rlim_cur)
}

/// Clock ticks per second in /proc/PID/stat.
pub(crate) fn ticks_per_second() -> u64 {
    // SAFETY: no arguments that could be wrong.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).unwrap_or(100).max(1)
}

/// Moves this process into a network namespace of its own; without root, by way of a user namespace in which it is root.
/// Must be called before the process has a second thread.
pub(crate) fn enter_own_network() -> io::Result<()> {
    // SAFETY: these calls take no pointers; what they change is documented above.
    unsafe {
        if libc::geteuid() == 0 {
            return check(libc::unshare(libc::CLONE_NEWNET));
        }
        let (uid, gid) = (libc::geteuid(), libc::getegid());
        check(libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET))?;
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
    }
}

/// Brings up the loopback interface of this process's network namespace.
pub(crate) fn bring_up_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: an ifreq is plain data, for which all zeros is a valid value; both requests read a name that ends in a zero
    // and touch the flags only, which are what is read from the union here.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (place, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
            *place = byte as libc::c_char;
        }
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&socket);
        check(libc::ioctl(
            descriptor,
            libc::SIOCGIFFLAGS,
            &raw mut request,
        ))?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(
            descriptor,
            libc::SIOCSIFFLAGS,
            &raw const request,
        ))
    }
}

/// Has the kernel end `command`'s process (SIGTERM) when the calling thread ends, however that comes about.
pub(crate) fn end_with_parent(command: &mut std::process::Command) {
    // SAFETY: between fork and exec the closure makes one system call without pointers and allocates nothing.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(command, || {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM))
        });
    }
}

/// Asks process `pid`, which must be a child that has not been waited for, to end (SIGTERM).
pub(crate) fn ask_to_end(pid: u32) -> io::Result<()> {
    signal(pid, libc::SIGTERM)
}

/// Ends process `pid`, a descendant known to be alive a moment ago, at once (SIGKILL).
pub(crate) fn end_at_once(pid: u32) -> io::Result<()> {
    signal(pid, libc::SIGKILL)
}

fn signal(pid: u32, signal: libc::c_int) -> io::Result<()> {
    match libc::pid_t::try_from(pid) {
        // SAFETY: no pointers; 0 and negative values, which would mean groups of processes, are kept out.
        Ok(pid) if pid > 0 => check(unsafe { libc::kill(pid, signal) }),
        _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

//! The seccomp profile that is shipped for clusters whose RuntimeDefault blocks io_uring.
//!
//! It owns the list: what containerd's and moby's defaults both allow a container without capabilities, and the three
//! calls of io_uring; no more. The checked-in file is made from it and never edited.

use serde_json::{Value, json};

/// What the ring needs beyond RuntimeDefault.
pub const IO_URING: [&str; 3] = ["io_uring_enter", "io_uring_register", "io_uring_setup"];

/// Allowed with any arguments by the default profiles of containerd (2.x, August 2026) and of moby (June 2026), as far as
/// x86-64 and arm64 have them. A runtime passes over names that its architecture does not have.
const RUNTIME_DEFAULT: &str = "
    accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown
    clock_adjtime clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup
    dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate
    fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock
    fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv
    futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid geteuid
    getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
    getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr getxattrat
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents
    io_pgetevents io_setup io_submit ioctl ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lgetxattr link linkat listen listmount listxattr listxattrat llistxattr
    lremovexattr lseek lsetxattr lstat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore
    mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap modify_ldt mprotect mq_getsetattr mq_notify mq_open
    mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall
    munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe
    pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease
    process_vm_readv process_vm_writev pselect6 ptrace pwrite64 pwritev pwritev2 read readahead readlink
    readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr removexattrat rename renameat
    renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity
    sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop
    sendfile sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid
    setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt
    setuid setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair
    splice stat statfs statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time
    timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime
    timerfd_settime times tkill truncate umask uname unlink unlinkat uretprobe utime utimensat utimes vfork
    vmsplice wait4 waitid write writev
";

const AF_VSOCK: u64 = 40;
const AF_ALG: u64 = 38;

/// The flags of `clone` that make namespaces: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// What `personality` may be asked for: Linux, Linux of 32 bits, both with UNAME26, and what it is.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The profile that is shipped: RuntimeDefault, and `more` calls allowed.
///
/// It is of the OCI runtime's form and so without the `includes` of moby's, which containerd would pass over and so
/// allow all. It names no architecture: then a runtime takes its own, and calls of a 32-bit program are refused.
pub fn profile(more: &[&str]) -> Value {
    let mut names: Vec<&str> = RUNTIME_DEFAULT.split_whitespace().collect();
    names.extend(more);
    names.sort_unstable();
    let mut rules = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    // All address families but those of virtual machines and of the kernel's cryptography.
    rules.push(allow_if("socket", AF_ALG, 0, "SCMP_CMP_LT"));
    rules.push(allow_if("socket", AF_ALG + 1, 0, "SCMP_CMP_EQ"));
    rules.push(allow_if("socket", AF_VSOCK, 0, "SCMP_CMP_GT"));
    for persona in PERSONALITIES {
        rules.push(allow_if("personality", persona, 0, "SCMP_CMP_EQ"));
    }
    rules.push(allow_if("clone", NEW_NAMESPACES, 0, "SCMP_CMP_MASKED_EQ"));
    // A filter cannot look into its arguments; told that it is not there, a C library takes `clone`.
    rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "syscalls": rules,
    })
}

/// Allows a call whose first argument compares so.
fn allow_if(name: &str, value: u64, value_two: u64, operator: &str) -> Value {
    json!({
        "names": [name],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": value, "valueTwo": value_two, "op": operator}],
    })
}

/// The text of the file that is shipped.
pub fn shipped() -> String {
    let profile = profile(&IO_URING);
    format!("{profile:#}\n")
}

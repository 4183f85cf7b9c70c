//! The fault injector against a real io_uring program: as many calls fail as were ordered, and nothing else.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ringside::backend::inject::{
    Counts, Denial, Errno, InjectError, Injector, Syscalls, deny, pass_on,
};

const NOOPS: &str = env!("CARGO_BIN_EXE_submit-noops");

fn noops(count: u64, threads: u64) -> Command {
    let mut command = Command::new(NOOPS);
    command
        .args([count.to_string(), threads.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// Lets the program begin, and returns the line that it ends with.
fn finish(mut child: Child) -> String {
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut line = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut line)
        .unwrap();
    assert!(child.wait().unwrap().success());
    line.trim().to_owned()
}

#[test]
fn without_an_order_every_call_goes_on() {
    let (child, injector) = Injector::spawn(noops(500, 1), Syscalls::Submissions).unwrap();
    assert_eq!(finish(child), "taken=500 waits=500");
    assert_eq!(
        injector.counts(),
        Counts {
            seen: 500,
            failed: 0,
            continued: 500,
            waits: 0
        }
    );
}

#[test]
fn exactly_the_ordered_number_fails() {
    for (errno, count) in [
        (Errno::EAGAIN, 1),
        (Errno::EAGAIN, 20),
        (Errno::EPERM, 3),
        (Errno::EINTR, 7),
    ]
    .into_iter()
    .chain([(Errno::EBUSY, 2), (Errno::ENOMEM, 2), (Errno::EBADR, 1)])
    {
        let (child, injector) = Injector::spawn(noops(100, 1), Syscalls::Submissions).unwrap();
        injector.fail_next(count, errno);
        assert_eq!(
            finish(child),
            format!("taken=100 waits=100 {}={count}", errno.number())
        );
        assert_eq!(
            injector.counts(),
            Counts {
                seen: 100 + count,
                failed: count,
                continued: 100,
                waits: 0
            }
        );
    }
}

#[test]
fn all_threads_of_the_command_are_watched() {
    let (child, injector) = Injector::spawn(noops(200, 8), Syscalls::Submissions).unwrap();
    injector.fail_next(1000, Errno::EAGAIN);
    assert_eq!(finish(child), "taken=1600 waits=1600 11=1000");
    assert_eq!(injector.counts().failed, 1000);
}

#[test]
fn waits_are_counted_when_asked_for_and_never_fail() {
    let (child, injector) = Injector::spawn(noops(100, 1), Syscalls::Enters).unwrap();
    injector.fail_next(5, Errno::EAGAIN);
    assert_eq!(finish(child), "taken=100 waits=100 11=5");
    assert_eq!(
        injector.counts(),
        Counts {
            seen: 205,
            failed: 5,
            continued: 200,
            waits: 100
        }
    );
}

#[test]
fn a_timed_fault_lasts_as_long_as_ordered() {
    let (child, injector) = Injector::spawn(noops(1, 1), Syscalls::Submissions).unwrap();
    let begin = Instant::now();
    injector.fail_for(Duration::from_millis(300), Errno::EAGAIN);
    let line = finish(child);
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(
        line,
        format!("taken=1 waits=1 11={}", injector.counts().failed)
    );
}

#[test]
fn stop_ends_a_fault_and_waiting_for_failures_is_possible() {
    let (mut child, injector) = Injector::spawn(noops(1, 1), Syscalls::Submissions).unwrap();
    injector.fail_for(Duration::MAX, Errno::EAGAIN);
    child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    assert!(injector.wait_failed(50, Duration::from_secs(20)).failed >= 50);
    assert!(
        child.try_wait().unwrap().is_none(),
        "it cannot end before its no-op was taken"
    );
    injector.stop();
    assert!(finish(child).starts_with("taken=1 waits=1 11="));
    let counts = injector.wait_failed(u64::MAX, Duration::from_secs(20));
    assert_eq!(counts.continued, 1, "the wait ends with the command");
}

#[test]
fn a_killed_command_leaves_no_supervisor_behind() {
    let (mut child, injector) = Injector::spawn(noops(u64::MAX, 4), Syscalls::Submissions).unwrap();
    injector.fail_next(100, Errno::EAGAIN);
    child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(
        injector.wait_failed(100, Duration::from_secs(20)).failed,
        100
    );
    child.kill().unwrap();
    child.wait().unwrap();
    drop(injector);
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    let error =
        Injector::spawn(Command::new("/nonexistent/relay"), Syscalls::Submissions).unwrap_err();
    assert!(matches!(error, InjectError::Spawn { .. }), "{error:?}");
    assert!(
        error.to_string().contains("`/nonexistent/relay`"),
        "{error}"
    );
}

#[test]
fn a_denied_setup_fails_as_ordered() {
    for errno in [Errno::EPERM, Errno::ENOSYS] {
        let mut command = noops(1, 1);
        deny(&mut command, Denial::Setup(errno)).unwrap();
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains(&format!("code: {}", errno.number())),
            "{said}"
        );
    }
}

#[test]
fn small_submissions_pass_a_bound_that_is_above_them() {
    let mut command = noops(10, 1);
    deny(&mut command, Denial::SubmitsAbove(1, Errno::EAGAIN)).unwrap();
    assert_eq!(finish(command.spawn().unwrap()), "taken=10 waits=10");
}

/// The launcher, which cargo puts beside the tests' own programs.
fn launcher() -> PathBuf {
    let path = Path::new(NOOPS).with_file_name("ringside-inject");
    assert!(
        path.exists(),
        "{} is not there: run `cargo build -p ringside` first",
        path.display()
    );
    path
}

fn order(socket: &UnixStream, line: &str) -> String {
    let mut writer = socket;
    writeln!(writer, "{line}").unwrap();
    let mut answer = String::new();
    BufReader::new(socket).read_line(&mut answer).unwrap();
    answer.trim().to_owned()
}

/// The launcher with its socket, which is there once it answers.
fn launch(folder: &Path, command: &[&str]) -> (Child, UnixStream) {
    let path = folder.join("control.sock");
    let mut child = Command::new(launcher())
        .arg("--control")
        .arg(&path)
        .arg("--")
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    loop {
        if let Ok(socket) = UnixStream::connect(&path) {
            return (child, socket);
        }
        assert!(child.try_wait().unwrap().is_none(), "the launcher ended");
        std::thread::yield_now();
    }
}

#[test]
fn the_launcher_takes_orders_on_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let (child, socket) = launch(folder.path(), &[NOOPS, "100", "2"]);
    assert_eq!(
        order(&socket, "fail 20 EAGAIN"),
        "ok seen=0 failed=0 continued=0 waits=0"
    );
    assert!(order(&socket, "fail 20 EWHAT").starts_with("error `EWHAT`"));
    assert_eq!(finish(child), "taken=200 waits=200 11=20");
    assert!(
        !folder.path().join("control.sock").exists(),
        "the socket's file goes with the launcher"
    );
}

#[test]
fn the_launcher_passes_signals_on_and_ends_as_its_command_does() {
    let folder = tempfile::tempdir().unwrap();
    let script = "trap 'echo got; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let (mut child, _socket) = launch(folder.path(), &["/bin/sh", "-c", script]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    pass_on(libc::SIGTERM, &child).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "got");
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn the_launcher_denies_without_a_socket() {
    let output = Command::new(launcher())
        .args(["--deny", "ENOSYS", "--", NOOPS, "1"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("code: 38"),
        "{output:?}"
    );
}

#[test]
fn the_launcher_explains_wrong_use() {
    for (arguments, part) in [
        (vec!["--", "/bin/true"], "--control"),
        (
            vec!["--deny", "EWHAT", "--", "/bin/true"],
            "`EWHAT` is not an error that can be injected",
        ),
        (vec!["--deny", "EPERM"], "COMMAND"),
    ] {
        let output = Command::new(launcher()).args(&arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

#[test]
fn the_launchers_command_starts_with_no_signal_blocked() {
    let output = Command::new(launcher())
        .args([
            "--deny",
            "EPERM",
            "--",
            "grep",
            "SigBlk",
            "/proc/self/status",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.trim(), "SigBlk:\t0000000000000000");
}

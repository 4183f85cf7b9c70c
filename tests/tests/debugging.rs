//! `docs/debugging.md`: each of its commands is run against a relay with traffic, and shows what the document says that it shows.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ringside_tests::document;
use ringside_tests::memory_group::MemoryGroup;
use ringside_tests::namespaced;
use ringside_tests::processes::{find, installed};
use ringside_tests::relay::{Kind, Relay, Setup};
use ringside_tests::skip::{build_folder, skip};
use ringside_tests::traffic::{Pattern, Server, echo};

const UP: Pattern = Pattern::new(5);

/// Too little for sixteen workers.
const LITTLE_BYTES: u64 = 20 << 20;

/// The commands of the document that a tool is needed for, and what each must show, in the document's order.
const SHOWN: [(&str, &str); 12] = [
    ("curl", "debug"),
    ("curl", "outcome=\"all\""),
    ("ps", "worker-0"),
    ("strace", "io_uring_enter"),
    ("strace", "IORING_ENTER_GETEVENTS"),
    ("strace", "(INJECTED)"),
    ("perf", "io_uring:io_uring_submit_req"),
    ("perf", "worker-0"),
    ("bpftrace", "@[SEND]"),
    ("bpftrace", "@["),
    ("ringside", "kernel"),
    (DMESG, "(ringside)"),
];

/// Shows something only after somebody was killed, which is another test's affair.
const DMESG: &str = "dmesg";

/// Runs a block; returns all that it said.
fn run(block: &str, relay: &Relay) -> String {
    let admin = relay.admin_address().to_string();
    let block = block.replace("127.0.0.1:15490", &admin);
    let folder = tempfile::tempdir().unwrap();
    let block = block.replace("/tmp/", &format!("{}/", folder.path().display()));
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["-c", &block])
        .env("PID", relay.process().pid().to_string())
        .env("PATH", format!("{}:{path}", build_folder().display()))
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

/// Whether a tool may do here what it does.
fn may(tool: &str) -> bool {
    let tried = match tool {
        "perf" => "perf stat -e io_uring:io_uring_create true",
        "bpftrace" => {
            "timeout 20 bpftrace -e 'tracepoint:io_uring:io_uring_create { } BEGIN { exit(); }'"
        }
        "strace" => "strace -o /dev/null true",
        _ => return true,
    };
    let tried = Command::new("bash").args(["-c", tried]).output();
    tried.is_ok_and(|output| output.status.success())
}

namespaced!(each_command_shows_what_the_document_says, {
    let test = "each_command_shows_what_the_document_says";
    let blocks = document::blocks(&document::read("docs/debugging.md"), "sh");
    assert_eq!(blocks.len(), SHOWN.len(), "a command without its test");
    if !installed(test, &["curl", "ps"]) {
        return;
    }
    let server = Server::local(echo);
    let relay = Setup::new(Kind::Ring).to(&server).start();
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            let stream = relay.connect();
            let mut at = 0;
            while !ends.load(Ordering::Relaxed) {
                stream.ping(UP, at, at + 64).unwrap();
                at += 64;
            }
            stream.finish().unwrap();
            stream.receive_end(at).unwrap();
        });
        for (block, (tool, shows)) in blocks.iter().zip(SHOWN) {
            assert!(block.contains(tool), "{tool} is not in {block}");
            if tool == DMESG {
                continue;
            }
            if tool != "ringside" && find(tool).is_none() {
                skip(test, &format!("{tool} is not installed"));
            } else if may(tool) {
                let said = run(block, &relay);
                assert!(
                    said.contains(shows),
                    "{block}says nothing of {shows}: {said}"
                );
            } else {
                skip(test, &format!("{tool} may not look at a process here"));
            }
        }
        ends.store(true, Ordering::Relaxed);
        client.join().unwrap();
    });
    server.check();
});

namespaced!(the_kernel_says_who_was_killed_for_memory, {
    let test = "the_kernel_says_who_was_killed_for_memory";
    let (block, shows) = document::blocks(&document::read("docs/debugging.md"), "sh")
        .into_iter()
        .zip(SHOWN)
        .find_map(|(block, (tool, shows))| (tool == DMESG).then_some((block, shows)))
        .expect("the document shows the kernel's log");
    let bash = |script: &str| Command::new("bash").args(["-c", script]).output().unwrap();
    if !bash("dmesg").status.success() {
        return skip(test, "the kernel's log may not be read here");
    }
    let group = match MemoryGroup::new(LITTLE_BYTES) {
        Ok(group) => group,
        Err(error) => return skip(test, &format!("no memory group: {error}")),
    };
    let enter = format!("echo $$ >{}; exec \"$@\"", group.entrance().display());
    let server = Server::local(echo);
    let setup = Setup::new(Kind::Ring).to(&server).workers(16);
    let (status, said) = setup.under(["sh", "-c", &enter, "sh"]).start_in_vain();
    assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}: {said}");
    let output = bash(&block);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        told.contains(shows) && told.contains("CONSTRAINT_MEMCG"),
        "{told}"
    );
});

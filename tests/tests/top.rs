//! `ringside top` before real relays: in a pseudo-terminal as a user has it, and in a pipe as a script has it.
#![allow(unsafe_code)]

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::{io, ptr};

use ringside::backend::inject;
use ringside_tests::processes::free_port;
use ringside_tests::relay::{Kind, Setup};
use ringside_tests::setup::program;
use ringside_tests::steady::Steady;
use ringside_tests::traffic::{Server, echo};
use ringside_tests::{PATIENCE, await_some, await_that, await_within, namespaced};

/// A program in a terminal of 80 columns and 24 lines, which an emulator shows.
struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let (master, slave) = open_terminal();
        let end = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end());
        command.env("TERM", "xterm-256color");
        inject::end_with_parent(&mut command);
        // SAFETY: both calls are safe between fork and exec; the terminal becomes the child's own, so that it has its signals.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        drop(slave);
        let [rows, columns] = [24, 80].map(|count| NonZero::new(count).unwrap());
        let screen = vt100::Parser::new(rows, columns, 0);
        let screen = Arc::new(Mutex::new(screen));
        let (mut output, shown) = (File::from(master.try_clone().unwrap()), screen.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It ends with the last who has the other end open.
            while let Ok(got @ 1..) = output.read(&mut buffer) {
                let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
                shown.process(&buffer[..got]);
            }
        });
        Terminal {
            child,
            keys: File::from(master),
            screen,
        }
    }

    fn text(&self) -> String {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        screen.screen().contents()
    }

    fn is_alternate(&self) -> bool {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        screen.screen().alternate_screen()
    }

    #[track_caller]
    fn await_text(&self, what: &str, holds: impl Fn(&str) -> bool) {
        let last = Mutex::new(String::new());
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            await_within(PATIENCE * 4, what, || {
                let text = self.text();
                let is_there = holds(&text);
                *last.lock().unwrap() = text;
                is_there.then_some(())
            });
        }));
        assert!(tried.is_ok(), "no {what} on:\n{}", last.lock().unwrap());
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    #[track_caller]
    fn await_end(&mut self) -> ExitStatus {
        await_some("its end", || self.child.try_wait().unwrap())
    }

    /// Whether lines are echoed and edited, as a shell wants it.
    fn is_cooked(&self) -> bool {
        // SAFETY: an all-zero termios is a valid value to be filled in, by a call on a descriptor that is open.
        let settings = unsafe {
            let mut settings: libc::termios = std::mem::zeroed();
            assert_eq!(libc::tcgetattr(self.keys.as_raw_fd(), &mut settings), 0);
            settings
        };
        settings.c_lflag & (libc::ECHO | libc::ICANON) == libc::ECHO | libc::ICANON
    }

    #[track_caller]
    fn check_restored(&self) {
        await_that("the terminal to be as it was", || {
            !self.is_alternate() && self.is_cooked()
        });
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn open_terminal() -> (OwnedFd, OwnedFd) {
    let size = libc::winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let (mut master, mut slave) = (0, 0);
    // SAFETY: the pointers are to values that live until it returns, or null where that is allowed; both descriptors are new and ours.
    unsafe {
        let opened = libc::openpty(&mut master, &mut slave, ptr::null_mut(), ptr::null(), &size);
        assert_eq!(
            opened,
            0,
            "no pseudo-terminal: {}",
            io::Error::last_os_error()
        );
        // The program is not to have the end that we hold.
        libc::fcntl(master, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::fcntl(slave, libc::F_SETFD, libc::FD_CLOEXEC);
        (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
    }
}

fn top(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("top").args(arguments);
    command
}

namespaced!(a_user_sees_relays_live_and_gets_the_terminal_back, {
    let server = Server::local(echo);
    let admin = format!("127.0.0.1:{}", free_port());
    let flags = ["--admin", &admin].map(OsString::from);
    let setup = Setup::new(Kind::Ring).to(&server).flags(flags);
    let relay = setup.clone().start();
    let second = Setup::new(Kind::Epoll).to(&server).start();
    let other = second.admin_address().to_string();
    let traffic = Steady::start(relay.address(), 5, 3000);
    let mut terminal = Terminal::start(top(&[&admin, &other]));
    terminal.await_text("both relays with figures", |text| {
        text.contains("2 ready")
            && text.contains(&other)
            && text.contains("KiB")
            && text.contains("█")
    });
    let line = |text: &str, address: &str| -> String {
        let lines = text.lines();
        lines
            .filter(|line| line.starts_with(address))
            .take(1)
            .collect()
    };
    terminal.await_text("five connections", |text| {
        let words: Vec<String> = line(text, &admin)
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        words.get(2).is_some_and(|open| open == "5")
    });
    assert!(terminal.is_alternate() && !terminal.is_cooked());

    // Keys: down chooses, s sorts, p pauses, ? helps.
    terminal.press("\x1b[B");
    terminal.await_text("the other one", |text| {
        text.contains(&format!("{other} · the last"))
    });
    terminal.await_text("its backend", |text| text.contains("1 worker on epoll"));
    terminal.press("s");
    terminal.await_text("another order", |text| text.contains("sorted: worst first"));
    terminal.press("?");
    terminal.await_text("help", |text| text.contains("the other way round"));
    terminal.press("?k");
    terminal.press("p");
    terminal.await_text("a pause", |text| text.contains("paused: p goes on"));
    terminal.press("p");
    terminal.await_text("no pause", |text| !text.contains("paused: p goes on"));

    // A relay that is gone is told of, and found again.
    drop(traffic);
    drop(relay);
    terminal.await_text("its loss", |text| {
        text.contains("1 of 2 ready") && text.contains("silent")
    });
    let relay = setup.start();
    terminal.await_text("its return", |text| text.contains("2 ready"));
    terminal.press("q");
    assert!(terminal.await_end().success());
    terminal.check_restored();
    drop(relay);
});

namespaced!(a_signal_gives_the_terminal_back, {
    let server = Server::local(echo);
    let relay = Setup::new(Kind::Ring).to(&server).start();
    let admin = relay.admin_address().to_string();
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let mut terminal = Terminal::start(top(&[&admin]));
        terminal.await_text("the relay", |text| text.contains("1 ready"));
        inject::pass_on(signal, &terminal.child).unwrap();
        assert!(terminal.await_end().success());
        terminal.check_restored();
    }
});

namespaced!(a_script_gets_a_table_once, {
    let server = Server::local(echo);
    let relay = Setup::new(Kind::Ring).to(&server).start();
    let admin = relay.admin_address().to_string();
    // Without `--once` as well, since nobody could see it live.
    for arguments in [&["--once", &admin][..], &[&admin]] {
        let output = top(arguments).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{said}");
        let lines: Vec<Vec<&str>> = said
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[0][0..3], ["SIDECAR", "STATE", "BACKEND"]);
        assert_eq!(lines[1][0..4], [admin.as_str(), "ready", "ring", "0"]);
        assert!(!said.contains('\x1b'), "{said}");
    }
    let nobody = format!("127.0.0.1:{}", free_port());
    let output = top(&["--once", &admin, &nobody]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("no answer") && said.contains("refused"),
        "{said}"
    );
});

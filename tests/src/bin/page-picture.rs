//! `make page-picture`: the live page of a real relay with real traffic, whose submissions fail for a few seconds, as a PNG.
//!
//! Arguments: the file, then seconds of traffic, width, height, and `dark` or `light`.

use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;
use std::{env, fs};

use ringside::backend::inject::{Errno, Syscalls};
use ringside_tests::browser::Browser;
use ringside_tests::namespace;
use ringside_tests::relay::{Kind, Setup};
use ringside_tests::steady::Steady;
use ringside_tests::traffic::{Server, echo};
use serde_json::json;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let given = |place: usize| arguments.get(place).cloned();
    let Some(path) = given(0) else {
        eprintln!("page-picture FILE [SECONDS [WIDTH [HEIGHT [dark|light]]]]");
        return ExitCode::from(2);
    };
    let number = |place: usize, otherwise: u32| {
        given(place).map_or(Some(otherwise), |text| text.parse().ok())
    };
    let (Some(seconds), Some(width), Some(height)) =
        (number(1, 200), number(2, 1160), number(3, 626))
    else {
        eprintln!("page-picture: seconds, width and height are numbers");
        return ExitCode::from(2);
    };
    let scheme = given(4).unwrap_or_else(|| "light".to_owned());
    match namespace::run_program(move || {
        draw(
            Path::new(&path),
            u64::from(seconds),
            (width, height),
            &scheme,
        );
        Ok(())
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("page-picture: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn draw(path: &Path, seconds: u64, (width, height): (u32, u32), scheme: &str) {
    let server = Server::local(echo);
    let relay = Setup::new(Kind::Ring)
        .to(&server)
        .workers(2)
        .settings(json!({
            "accept": {"maxPerSecond": 2000},
            "readiness": {"unreadyAfter": "1s", "recoverAfter": "4s"},
        }))
        .watched(Syscalls::Submissions)
        .start();
    let browser = Browser::start("page-picture").expect("chromium and chromedriver are installed");
    let traffic = Steady::start(relay.address(), 24, 6000);
    // A picture is of a time: nothing else tells when it has passed.
    sleep(Duration::from_secs(seconds * 3 / 5));
    relay
        .injector()
        .fail_for(Duration::from_secs(4), Errno::EAGAIN);
    sleep(Duration::from_secs(seconds * 2 / 5));
    browser.prefer(&[("prefers-color-scheme", scheme)]);
    browser.resize(width, height);
    browser.open(&format!("http://{}/", relay.admin_address()));
    browser.await_true(
        "figures",
        "document.querySelector('#relays tr') && samples.length > 3",
    );
    browser.picture(path);
    assert!(traffic.rounds() > 0, "nothing was relayed");
    let length = fs::metadata(path).expect("the picture is there").len();
    println!("{}: {length} bytes", path.display());
    for (level, message) in browser.console() {
        println!("console: {level}: {message}");
    }
    println!("sideways: {}", browser.scrolls_sideways());
}

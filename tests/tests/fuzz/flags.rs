//! What flags and their variables of the environment take: relays, addresses, times, sizes, levels, orders. The first byte
//! of an input says which.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use ringside::backend::inject::{Errno, Order};
use ringside::logging::LogLevel;
use ringside_api::{
    BackendChoice, Listen, ProxyProtocol, Relay, Size, Span, Target as RelayTarget, Workers,
};
use ringside_tests::fuzz::Target;

use crate::assert_tells;

const TARGET: Target = Target {
    name: "flags",
    words: &[
        "web=0.0.0.0:15080:127.0.0.1:8080",
        "db=[::]:15432:unix:/run/db.sock",
        "localhost:80",
        "unix:/",
        "[::1]",
        "[",
        "]",
        ":",
        "=",
        "127.0.0.1",
        "::ffff:1.2.3.4",
        "%eth0",
        "us",
        "ms",
        "s",
        "m",
        "h",
        "Ki",
        "Mi",
        "Gi",
        "K",
        "1h30m",
        "1.5s",
        "auto",
        "ring",
        "epoll",
        "tokio-uring",
        "V2",
        "None",
        "info",
        "debug",
        "off",
        "info,ringside::worker=debug",
        "fail 3",
        "fail-for 2s EAGAIN",
        "EPERM",
        "stop",
        "counts",
        "[field]",
        "\u{e9}",
    ],
};

/// What is accepted says itself, and is read again as the same.
fn both_ways<T: FromStr<Err: Display> + Display + PartialEq + Debug>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => {
            let written = value.to_string();
            let read = written.parse::<T>();
            assert!(
                read.is_ok(),
                "{value:?} writes itself as {written:?}, which is refused"
            );
            assert_eq!(read.ok(), Some(value), "written as {written:?}");
        }
        Err(error) => assert_tells(&error.to_string()),
    }
}

fn relay(text: &str) {
    match text.parse::<Relay>() {
        Ok(relay) => {
            let written = format!("{}={}:{}", relay.name, relay.listen, relay.target);
            assert_eq!(written.parse(), Ok(relay), "written as {written:?}");
        }
        Err(error) => assert_tells(&error.to_string()),
    }
}

fn log_level(text: &str) {
    match text.parse::<LogLevel>() {
        Ok(level) => {
            let written = level.to_string();
            let again = written.parse::<LogLevel>().expect("a level reads itself");
            assert_eq!(again.to_string(), written);
        }
        Err(error) => assert_tells(&error),
    }
}

fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut characters = text.chars();
    let which = characters.next().map_or(0, |first| first as u32);
    let text = characters.as_str();
    match which % 11 {
        0 => relay(text),
        1 => both_ways::<Listen>(text),
        2 => both_ways::<RelayTarget>(text),
        3 => both_ways::<Workers>(text),
        4 => both_ways::<Span>(text),
        5 => both_ways::<Size>(text),
        6 => both_ways::<BackendChoice>(text),
        7 => both_ways::<ProxyProtocol>(text),
        8 => log_level(text),
        9 => both_ways::<Errno>(text),
        _ => {
            if let Err(error) = text.parse::<Order>() {
                assert_tells(&error.to_string());
            }
        }
    }
}

#[test]
fn flags() {
    TARGET.fuzz(check);
}

//! `ringside top`: sidecars as a live view in a terminal, or once as a plain table.
//!
//! It owns the loop that brings answers, keys and signals together, and a thread for each sidecar that asks it. What is known of a
//! sidecar is `sidecar`'s, what keys do is `view`'s, how it looks is `screen`'s: pure, all three.

mod plain;
mod screen;
mod sidecar;
mod terminal;
mod view;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ringside_api::config::ADMIN_PORT_DEFAULT;

use crate::admin::ask;
use sidecar::{Answer, Sidecar};
use terminal::Terminal;
use view::{Next, View};

/// The time between two looks at a sidecar.
const EVERY: Duration = Duration::from_secs(1);

/// How long a sidecar may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A sidecar to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What it is called; its address where it was given no name.
    pub name: String,
    /// Its admin port, as HOST:PORT.
    pub address: String,
}

impl std::str::FromStr for Place {
    type Err = String;

    /// From HOST:PORT, or HOST alone with the default port, or NAME= before either.
    fn from_str(given: &str) -> Result<Self, String> {
        let (name, bare) = match given.split_once('=') {
            Some((name, bare)) => (Some(name), bare),
            None => (None, given),
        };
        let address = address(bare).ok_or_else(|| {
            format!("`{given}` is no address: write HOST:PORT, such as 10.0.0.7:{ADMIN_PORT_DEFAULT}, or HOST alone, or NAME=HOST:PORT")
        })?;
        let name = name.unwrap_or(&address).to_owned();
        Ok(Place { name, address })
    }
}

/// HOST:PORT of what was given as an address: HOST alone has the default port.
fn address(given: &str) -> Option<String> {
    let bare = given.strip_prefix("http://").unwrap_or(given);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let is_strange =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '@' | '?' | '#');
    if bare.is_empty() || bare.contains(is_strange) {
        return None;
    }
    let inside = bare
        .strip_prefix('[')
        .and_then(|bare| bare.strip_suffix(']'));
    if let Ok(ip) = inside.unwrap_or(bare).parse::<std::net::IpAddr>() {
        return Some(std::net::SocketAddr::new(ip, ADMIN_PORT_DEFAULT).to_string());
    }
    match bare.rsplit_once(':') {
        Some((host, port)) => {
            let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
            (!host.is_empty()).then(|| format!("{host}:{port}"))
        }
        None => Some(format!("{bare}:{ADMIN_PORT_DEFAULT}")),
    }
}

/// The state of all sidecars as a table, and whether all of them answered.
pub fn once(places: &[Place]) -> (String, bool) {
    let began = Instant::now();
    let asked: Vec<_> = thread::scope(|scope| {
        let asking: Vec<_> = places
            .iter()
            .map(|place| scope.spawn(|| look(&place.address, 0)))
            .collect();
        let answers = asking.into_iter();
        answers
            .map(|asking| {
                asking
                    .join()
                    .unwrap_or_else(|_| Err("asking it went wrong".to_owned()))
            })
            .collect()
    });
    let mut sidecars: Vec<Sidecar> = places
        .iter()
        .map(|place| Sidecar::new(&place.name, began))
        .collect();
    for (sidecar, answer) in sidecars.iter_mut().zip(asked) {
        sidecar.take(answer, began);
    }
    let all = sidecars.iter().all(|sidecar| sidecar.answers());
    (plain::table(&sidecars), all)
}

/// Shows them until the user, or a signal, ends it; the terminal is then as it was.
///
/// # Errors
/// The terminal cannot be used.
pub fn live(places: &[Place], has_colours: bool) -> anyhow::Result<()> {
    let (says, messages) = channel();
    terminal::heed_signals(says.clone()).context("signals cannot be taken over")?;
    let mut asking = Vec::new();
    for (index, place) in places.iter().enumerate() {
        let (address, says) = (place.address.clone(), says.clone());
        let (asks, marks) = channel();
        let thread = thread::Builder::new().name(format!("asking-{index}"));
        let work = move || ask_again(index, &address, &marks, &says);
        thread.spawn(work).context("a thread cannot be started")?;
        asking.push(asks);
    }
    let mut terminal = Terminal::take_over()
        .context("the terminal cannot be used; `--once` prints a plain table")?;
    let keys = thread::Builder::new().name("keys".to_owned());
    keys.spawn(move || read_keys(&says))
        .context("a thread cannot be started")?;
    let began = Instant::now();
    let sidecars = places
        .iter()
        .map(|place| Sidecar::new(&place.name, began))
        .collect();
    let mut view = View::new(sidecars, has_colours);
    for asks in &asking {
        let _ = asks.send(0);
    }
    run(&mut terminal, &mut view, &messages, &asking)
}

/// What the loop is told.
enum Message {
    /// A sidecar's answer, or why there is none.
    Looked(usize, Box<Result<Answer, String>>),
    /// Something was typed, or the terminal's size changed.
    Typed(Event),
    /// A signal asks for the end, or there is no more input.
    End,
}

fn run(
    terminal: &mut Terminal,
    view: &mut View,
    messages: &Receiver<Message>,
    asking: &[Sender<u64>],
) -> anyhow::Result<()> {
    loop {
        terminal
            .draw(|frame| screen::draw(frame, view, Instant::now()))
            .context("the terminal cannot be written to")?;
        // Also where nothing comes, as it is told how long a sidecar has not answered.
        match messages.recv_timeout(EVERY) {
            Ok(Message::Looked(index, answer)) => {
                let mark = view.take(index, *answer, Instant::now());
                let _ = asking[index].send(mark);
            }
            Ok(Message::Typed(Event::Key(key))) if key.kind != KeyEventKind::Release => {
                if view.typed(key) == Next::End {
                    return Ok(());
                }
            }
            Ok(Message::Typed(_)) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Asks a sidecar once for each mark that comes, one after the other, [`EVERY`] so long.
fn ask_again(index: usize, address: &str, marks: &Receiver<u64>, says: &Sender<Message>) {
    let mut next = Instant::now();
    while let Ok(mark) = marks.recv() {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next = Instant::now() + EVERY;
        if says
            .send(Message::Looked(index, Box::new(look(address, mark))))
            .is_err()
        {
            return;
        }
    }
}

/// One look at a sidecar.
fn look(address: &str, mark: u64) -> Result<Answer, String> {
    let document = |path: &str| {
        let (status, body) =
            ask::get(address, path, PATIENCE).map_err(|error| error.to_string())?;
        match status {
            200 => Ok(body),
            status => Err(format!(
                "{path} answers {status}: is this the admin port of a relay?"
            )),
        }
    };
    let unread = |error: serde_json::Error| format!("what it answers is not understood: {error}");
    Ok(Answer {
        status: serde_json::from_str(&document("/statusz")?).map_err(unread)?,
        history: serde_json::from_str(&document(&format!("/history?after={mark}"))?)
            .map_err(unread)?,
    })
}

fn read_keys(says: &Sender<Message>) {
    while let Ok(event) = event::read() {
        if says.send(Message::Typed(event)).is_err() {
            return;
        }
    }
    let _ = says.send(Message::End);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_or_the_default_one() {
        for (given, expected) in [
            ("10.0.0.7:9000", "10.0.0.7:9000"),
            ("10.0.0.7", "10.0.0.7:15490"),
            ("::1", "[::1]:15490"),
            ("[::1]", "[::1]:15490"),
            ("[::1]:9000", "[::1]:9000"),
            ("relay.shop", "relay.shop:15490"),
            ("http://relay.shop:80/", "relay.shop:80"),
        ] {
            let place: Place = given.parse().unwrap();
            assert_eq!((&*place.name, &*place.address), (expected, expected));
        }
        let named: Place = "web-1=10.0.0.7".parse().unwrap();
        assert_eq!((&*named.name, &*named.address), ("web-1", "10.0.0.7:15490"));
        for wrong in [
            "",
            ":80",
            "host:",
            "host:0",
            "host:70000",
            "a b",
            "host/path",
            "https://host",
        ] {
            let refused = wrong.parse::<Place>().unwrap_err();
            assert!(refused.contains("HOST:PORT"), "{refused}");
        }
    }
}

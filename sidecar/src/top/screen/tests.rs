//! What is drawn, into a terminal in memory.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::top::sidecar::tests::{answer, sample};

fn drawn(view: &View, width: u16, height: u16, now: Instant) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, view, now)).unwrap();
    let buffer = terminal.backend().buffer().clone();
    let lines = buffer.content().chunks(usize::from(width));
    lines
        .map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>())
        .map(|line| line.trim_end().to_owned())
        .collect()
}

fn view(count: usize) -> (View, Instant) {
    let now = Instant::now();
    let sidecars = (0..count).map(|number| {
        let mut sidecar = Sidecar::new(&format!("10.0.0.{number}:15490"), now);
        let samples: Vec<Sample> = (1..=100)
            .map(|at| Sample {
                connections_open: at,
                pushback_percent: if at > 50 { 100 } else { 0 },
                ..sample(at * 1000)
            })
            .collect();
        let mut said = answer(1000, 1, &samples);
        said.status.reason = "ready".to_owned();
        said.status.uptime_seconds = 100.0;
        sidecar.take(Ok(said), now);
        sidecar
    });
    (View::new(sidecars.collect(), true), now)
}

#[test]
fn everything_is_there_on_24_lines_of_80() {
    let (view, now) = view(1);
    let lines = drawn(&view, 80, 24, now);
    assert!(lines[0].starts_with("ringside top  1 ready"), "{lines:#?}");
    assert!(lines[1].ends_with("PUSHB GATE"), "{lines:#?}");
    assert!(lines[2].starts_with("10.0.0.0:15490"), "{lines:#?}");
    assert!(
        lines[2].contains("1.0 MiB") && lines[2].ends_with("open"),
        "{lines:#?}"
    );
    let line = |name: &str| {
        let found = lines.iter().find(|line| line.starts_with(name));
        found.unwrap_or_else(|| panic!("{name}: {lines:#?}"))
    };
    for figure in &FIGURES {
        line(figure.name);
    }
    assert!(line("pushback").ends_with(&"█".repeat(50)), "{lines:#?}");
    assert!(line("connections").contains("100 "), "{lines:#?}");
    assert!(
        lines
            .iter()
            .any(|line| line.contains("ago  ready: relays listen")),
        "{lines:#?}"
    );
    assert!(lines[23].starts_with("q quit"), "{lines:#?}");
}

#[test]
fn of_many_the_chosen_one_is_in_sight() {
    let (mut view, now) = view(30);
    for _ in 0..29 {
        view.typed(ratatui::crossterm::event::KeyCode::Down.into());
    }
    let lines = drawn(&view, 80, 24, now);
    assert!(
        lines.iter().any(|line| line.starts_with("10.0.0.29:15490")),
        "{lines:#?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.contains("10.0.0.29:15490 · the last"))
    );
}

#[test]
fn a_silent_one_says_since_when() {
    let (mut view, now) = view(2);
    view.take(0, Err("Connection refused".to_owned()), now);
    let lines = drawn(&view, 80, 24, now + Duration::from_secs(7));
    assert!(lines[0].contains("1 of 2 ready"), "{lines:#?}");
    assert!(lines[2].contains("silent"), "{lines:#?}");
    let told = "no answer for 7 s: Connection refused";
    assert!(
        lines.iter().any(|line| line.starts_with(told)),
        "{lines:#?}"
    );
}

#[test]
fn any_size_can_be_drawn_and_help_fits_the_smallest_sensible_one() {
    let (mut view, now) = view(3);
    for (width, height) in [(1, 1), (5, 3), (20, 8), (40, 12), (300, 100)] {
        drawn(&view, width, height, now);
    }
    view.shows_help = true;
    let lines = drawn(&view, 80, 24, now);
    assert!(
        lines.iter().any(|line| line.contains("worst first")),
        "{lines:#?}"
    );
    drawn(&view, 3, 2, now);
}

#[test]
fn without_colours_there_are_none() {
    let (mut view, now) = view(1);
    view.has_colours = false;
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(frame, &view, now)).unwrap();
    let buffer = terminal.backend().buffer();
    assert!(buffer.content().iter().all(|cell| cell.fg == Color::Reset));
}

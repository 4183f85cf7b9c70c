//! How it looks: a table of the sidecars, the chosen one's last minutes as lines of small bars, its events, and help. Pure: it draws
//! what it is given. Everything fits 80 columns and 24 lines; more of both shows more.

use std::time::Instant;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{
    Block, Cell, Clear, Paragraph, RenderDirection, Row, Sparkline, Table, Wrap,
};

use super::plain::{bytes, micros, span};
use super::sidecar::Sidecar;
use super::view::View;
use crate::process::history::Sample;

/// Sidecars that the table shows at most while there is a lower part.
const ROWS_MOST: u16 = 8;

/// The widths of a figure's name and of its value.
const NAME_WIDTH: u16 = 13;
const VALUE_WIDTH: u16 = 12;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View, now: Instant) {
    let ink = Ink(view.has_colours);
    let rows = (view.sidecars.len() as u16).clamp(1, ROWS_MOST);
    let [head, table, lower, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(rows + 1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(headline(view, &ink), head);
    sidecars(frame, view, &ink, table);
    if let Some(chosen) = view.chosen() {
        detail(frame, view, chosen, &ink, now, lower);
    }
    let keys = "q quit  ↑↓ choose  s sort  r reverse  p pause  ←→ events  ? help";
    frame.render_widget(Line::styled(keys, ink.soft()), foot);
    if view.shows_help {
        help(frame);
    }
}

/// Styles, or none where colours are not wanted.
struct Ink(bool);

impl Ink {
    fn of(&self, colour: Color) -> Style {
        if self.0 {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn soft(&self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    fn state(&self, sidecar: &Sidecar) -> Style {
        let bold = Modifier::BOLD;
        match sidecar.state() {
            (_, true) => self.of(Color::Green),
            ("asked" | "draining", _) => self.of(Color::Yellow),
            _ => self.of(Color::Red).add_modifier(bold),
        }
    }
}

fn headline(view: &View, ink: &Ink) -> Line<'static> {
    let count = view.sidecars.len();
    let ready = view.sidecars.iter().filter(|s| s.state().1).count();
    let (ready, colour) = match ready {
        all if all == count => (format!("{all} ready"), Color::Green),
        some => (format!("{some} of {count} ready"), Color::Red),
    };
    let mut spans = vec![
        Span::styled("ringside top  ", Style::new().add_modifier(Modifier::BOLD)),
        Span::styled(ready, ink.of(colour)),
    ];
    if count > 1 {
        let reversed = if view.is_reversed { ", reversed" } else { "" };
        let order = format!("  sorted: {}{reversed}", view.order.label());
        spans.push(Span::styled(order, ink.soft()));
    }
    if view.is_paused {
        let paused = Style::new().add_modifier(Modifier::REVERSED);
        spans.push(Span::raw("  "));
        spans.push(Span::styled(" paused: p goes on ", paused));
    }
    Line::from(spans)
}

fn sidecars(frame: &mut Frame<'_>, view: &View, ink: &Ink, area: Rect) {
    let ordered = view.ordered();
    let chosen = ordered.iter().position(|place| view.is_chosen(*place));
    let shown = usize::from(area.height.saturating_sub(1));
    // The chosen one is always in sight.
    let first = chosen.map_or(0, |at| (at + 1).saturating_sub(shown));
    let rows = ordered.iter().skip(first).take(shown).map(|place| {
        let sidecar = &view.sidecars[*place];
        let mut style = Style::new();
        if view.is_chosen(*place) && view.sidecars.len() > 1 {
            style = style.add_modifier(Modifier::REVERSED);
        }
        row(sidecar, ink).style(style)
    });
    let head = [
        "SIDECAR",
        "STATE",
        "OPEN",
        "NEW/S",
        "→TARGET/S",
        "→CLIENT/S",
        "PUSHB",
        "GATE",
    ];
    let widths = [
        Constraint::Min(21),
        Constraint::Length(9),
        Constraint::Length(5),
        Constraint::Length(5),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(5),
        Constraint::Length(10),
    ];
    let table = Table::new(rows, widths).header(Row::new(head).style(ink.soft()));
    frame.render_widget(table, area);
}

fn row<'a>(sidecar: &'a Sidecar, ink: &Ink) -> Row<'a> {
    let newest = sidecar.newest();
    let figure = |value: fn(&Sample) -> String| newest.map_or_else(|| "-".to_owned(), value);
    let pushback = sidecar.pushback_percent();
    let gate = sidecar.gate();
    let warn = |is_bad: bool| {
        if is_bad && sidecar.answers() {
            ink.of(Color::Yellow)
        } else {
            Style::new()
        }
    };
    let (silent, is_paused) = (!sidecar.answers(), gate != "open");
    let or_silent = |text: String| if silent { "-".to_owned() } else { text };
    Row::new([
        Cell::from(sidecar.name.as_str()),
        Cell::from(sidecar.state().0).style(ink.state(sidecar)),
        Cell::from(figure(|sample| sample.connections_open.to_string())),
        Cell::from(figure(|sample| sample.opened.to_string())),
        Cell::from(figure(|sample| bytes(sample.bytes_to_upstream))),
        Cell::from(figure(|sample| bytes(sample.bytes_to_client))),
        Cell::from(or_silent(format!("{pushback} %"))).style(warn(pushback > 0)),
        Cell::from(or_silent(gate)).style(warn(is_paused)),
    ])
}

/// A figure of a sample as a line of bars.
struct Figure {
    name: &'static str,
    value: fn(&Sample) -> u64,
    shown: fn(u64) -> String,
    /// What a full bar is; the most that is seen where none is said.
    most: Option<u64>,
    colour: Color,
}

const FIGURES: [Figure; 8] = [
    Figure {
        name: "to targets/s",
        value: |sample| sample.bytes_to_upstream,
        shown: bytes,
        most: None,
        colour: Color::Blue,
    },
    Figure {
        name: "to clients/s",
        value: |sample| sample.bytes_to_client,
        shown: bytes,
        most: None,
        colour: Color::Cyan,
    },
    Figure {
        name: "connections",
        value: |sample| sample.connections_open,
        shown: |value| value.to_string(),
        most: None,
        colour: Color::Green,
    },
    Figure {
        name: "pushback",
        value: |sample| sample.pushback_percent,
        shown: |value| format!("{value} %"),
        most: Some(100),
        colour: Color::Yellow,
    },
    Figure {
        name: "backoff/s",
        value: |sample| sample.backoff_micros,
        shown: micros,
        most: None,
        colour: Color::Yellow,
    },
    Figure {
        name: "batch limit",
        value: |sample| sample.batch_limit,
        shown: |value| value.to_string(),
        most: None,
        colour: Color::Magenta,
    },
    Figure {
        name: "gate paused",
        value: |sample| sample.paused_workers,
        shown: |value| match value {
            0 => "no".to_owned(),
            1 => "1 worker".to_owned(),
            many => format!("{many} workers"),
        },
        most: None,
        colour: Color::Yellow,
    },
    Figure {
        name: "readiness",
        value: |sample| u64::from(!sample.ready),
        shown: |value| if value == 0 { "ready" } else { "NOT READY" }.to_owned(),
        most: Some(1),
        colour: Color::Red,
    },
];

fn detail(
    frame: &mut Frame<'_>,
    view: &View,
    sidecar: &Sidecar,
    ink: &Ink,
    now: Instant,
    area: Rect,
) {
    let [title, about, bars, events] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(3),
        Constraint::Length(FIGURES.len() as u16),
        Constraint::Min(0),
    ])
    .areas(area);
    let minutes = area.width.saturating_sub(NAME_WIDTH + VALUE_WIDTH);
    let name = format!(
        " {} · the last {} ",
        sidecar.name,
        span(u64::from(minutes).min(300))
    );
    let line = Block::new()
        .borders(ratatui::widgets::Borders::TOP)
        .border_style(ink.soft())
        .title(name);
    frame.render_widget(line, title);
    let told = Paragraph::new(told(sidecar, ink, now));
    frame.render_widget(told.wrap(Wrap { trim: true }), about);
    for (figure, area) in FIGURES.iter().zip(bars.rows()) {
        self::bars(frame, sidecar, figure, ink, area);
    }
    frame.render_widget(last_events(sidecar, view, ink), events);
}

/// What it says of itself, or since when it says nothing.
fn told(sidecar: &Sidecar, ink: &Ink, now: Instant) -> Text<'static> {
    let first = match (&sidecar.silent, &sidecar.status, sidecar.silent_for(now)) {
        (Some((_, why)), status, Some(time)) => {
            let since = span(time.as_secs());
            let seen = if status.is_some() {
                "; what is shown is what was known then"
            } else {
                ""
            };
            Line::styled(
                format!("no answer for {since}: {why}{seen}"),
                ink.of(Color::Red),
            )
        }
        (_, Some(status), _) => Line::styled(status.reason.clone(), ink.state(sidecar)),
        _ => Line::default(),
    };
    let second = sidecar.status.as_ref().map(|status| {
        let why = status.workers.first().map_or("", |worker| worker.reason.as_str());
        let relays: Vec<String> = status
            .relays
            .iter()
            .map(|relay| {
                let target = relay.target.as_deref().unwrap_or("nowhere");
                format!("{} {}→{target}", relay.name, relay.listen.join(","))
            })
            .collect();
        Line::styled(
            format!(
                "{}, up {}, {} of {} connections, {} on {} ({why}), settings {} generation {} from {}; {}",
                status.version,
                span(status.uptime_seconds as u64),
                status.connections_open,
                status.connections_limit,
                count_of(status.workers.len(), "worker"),
                sidecar.backend(),
                status.settings.hash,
                status.settings.generation,
                status.settings.source,
                relays.join(", ")
            ),
            ink.soft(),
        )
    });
    Text::from(vec![first, second.unwrap_or_default()])
}

fn count_of(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

fn bars(frame: &mut Frame<'_>, sidecar: &Sidecar, figure: &Figure, ink: &Ink, area: Rect) {
    let [name, value, graph] = Layout::horizontal([
        Constraint::Length(NAME_WIDTH),
        Constraint::Length(VALUE_WIDTH),
        Constraint::Min(0),
    ])
    .areas(area);
    frame.render_widget(Line::styled(figure.name, ink.soft()), name);
    let newest = sidecar.newest().map(figure.value);
    let text = newest.map_or_else(|| "-".to_owned(), figure.shown);
    frame.render_widget(Line::raw(text), value);
    let newest_first: Vec<u64> = sidecar
        .samples
        .iter()
        .rev()
        .take(usize::from(graph.width))
        .map(|(_, sample)| (figure.value)(sample))
        .collect();
    let most = newest_first.iter().copied().max().unwrap_or(0).max(1);
    let sparkline = Sparkline::default()
        .data(&newest_first)
        .max(figure.most.unwrap_or(most))
        .direction(RenderDirection::RightToLeft)
        .style(ink.of(figure.colour));
    frame.render_widget(sparkline, graph);
}

/// Events, the newest first.
fn last_events(sidecar: &Sidecar, view: &View, ink: &Ink) -> Paragraph<'static> {
    let mut events: Vec<_> = sidecar.events.values().collect();
    events.sort_by_key(|event| std::cmp::Reverse((event.until_millis, event.number)));
    let now = sidecar.status.as_ref().map_or(0.0, |s| s.uptime_seconds);
    let lines = events.into_iter().skip(view.scrolled).map(|event| {
        let ago = (now - event.until_millis as f64 / 1000.0).max(0.0) as u64;
        let often = match event.count {
            1 => String::new(),
            count => format!(" ({count} times)"),
        };
        Line::from(vec![
            Span::styled(format!("{:>7} ago  ", span(ago)), ink.soft()),
            Span::raw(format!("{}{often}", event.sentence)),
        ])
    });
    let mut text = vec![Line::styled("events, newest first", ink.soft())];
    text.extend(lines);
    Paragraph::new(text)
}

fn help(frame: &mut Frame<'_>) {
    let text = "q, Esc, Ctrl-C  quit\n\
                ↑ ↓, k j        choose a sidecar\n\
                Home, End       the first, the last\n\
                s               sort: as named, worst first, connections, throughput\n\
                r               the other way round\n\
                p, space        pause; what comes meanwhile is shown afterwards\n\
                ← →, PgUp PgDn  earlier and later events\n\
                ?, h            this, and away again\n\n\
                Rates are of the last second. PUSHB is the worst worker's share of\n\
                submissions that the kernel pushed back; GATE says whether arrivals\n\
                are accepted, and if not, in how many workers and why.";
    let (width, height) = (72, 14);
    let area = frame.area();
    let area = Rect {
        x: area.x + area.width.saturating_sub(width) / 2,
        y: area.y + area.height.saturating_sub(height) / 2,
        width: width.min(area.width),
        height: height.min(area.height),
    };
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(" Keys ");
    frame.render_widget(Paragraph::new(text).block(block), area);
}

#[cfg(test)]
mod tests;

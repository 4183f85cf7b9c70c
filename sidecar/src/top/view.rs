//! What is looked at and how: order, choice, pause, help; and what keys do to them. Pure.

use std::cmp::Reverse;
use std::time::Instant;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::sidecar::{Answer, Sidecar};

/// What sidecars are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// As they were named.
    Named,
    /// The worst off first: silent, not ready, then by pushback.
    WorstFirst,
    /// The most connections first.
    Connections,
    /// The most bytes a second first.
    Throughput,
}

impl Order {
    const ALL: [Order; 4] = [
        Order::Named,
        Order::WorstFirst,
        Order::Connections,
        Order::Throughput,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Order::Named => "as named",
            Order::WorstFirst => "worst first",
            Order::Connections => "connections",
            Order::Throughput => "throughput",
        }
    }
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    GoOn,
    End,
}

/// What is shown.
#[derive(Debug)]
pub(super) struct View {
    pub(super) sidecars: Vec<Sidecar>,
    pub(super) order: Order,
    pub(super) is_reversed: bool,
    /// Stands still; what comes meanwhile comes when it goes on.
    pub(super) is_paused: bool,
    pub(super) shows_help: bool,
    pub(super) has_colours: bool,
    /// Events that are scrolled past.
    pub(super) scrolled: usize,
    /// The chosen sidecar, by its place in `sidecars`: it stays chosen when the order changes.
    chosen: usize,
}

impl View {
    pub(super) fn new(sidecars: Vec<Sidecar>, has_colours: bool) -> Self {
        View {
            sidecars,
            order: Order::Named,
            is_reversed: false,
            is_paused: false,
            shows_help: false,
            has_colours,
            scrolled: 0,
            chosen: 0,
        }
    }

    /// Takes an answer; returns the mark to ask by the next time.
    pub(super) fn take(
        &mut self,
        index: usize,
        answer: Result<Answer, String>,
        now: Instant,
    ) -> u64 {
        let sidecar = &mut self.sidecars[index];
        if self.is_paused {
            sidecar.mark()
        } else {
            sidecar.take(answer, now)
        }
    }

    /// The sidecars' places in the order that is wanted.
    pub(super) fn ordered(&self) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.sidecars.len()).collect();
        let of = |place: &usize| &self.sidecars[*place];
        let newest = |place: &usize| of(place).newest().copied().unwrap_or_default();
        match self.order {
            Order::Named => {}
            Order::WorstFirst => places.sort_by_key(|place| {
                let sidecar = of(place);
                (
                    sidecar.answers(),
                    sidecar.state().1,
                    Reverse(sidecar.pushback_percent()),
                )
            }),
            Order::Connections => {
                places.sort_by_key(|place| Reverse(newest(place).connections_open));
            }
            Order::Throughput => places.sort_by_key(|place| {
                let sample = newest(place);
                let both = sample
                    .bytes_to_upstream
                    .saturating_add(sample.bytes_to_client);
                Reverse(both)
            }),
        }
        if self.is_reversed {
            places.reverse();
        }
        places
    }

    /// The chosen sidecar.
    pub(super) fn chosen(&self) -> Option<&Sidecar> {
        self.sidecars.get(self.chosen)
    }

    /// Whether the sidecar at this place is the chosen one.
    pub(super) fn is_chosen(&self, place: usize) -> bool {
        place == self.chosen
    }

    fn choose(&mut self, by: isize) {
        let ordered = self.ordered();
        let Some(at) = ordered.iter().position(|place| *place == self.chosen) else {
            return;
        };
        let to = at.saturating_add_signed(by).min(ordered.len() - 1);
        if ordered[to] != self.chosen {
            self.scrolled = 0;
        }
        self.chosen = ordered[to];
    }

    fn scroll(&mut self, by: isize) {
        let most = self.chosen().map_or(0, |sidecar| sidecar.events.len());
        let to = self.scrolled.saturating_add_signed(by);
        self.scrolled = to.min(most.saturating_sub(1));
    }

    /// Does what a key asks for.
    pub(super) fn typed(&mut self, key: KeyEvent) -> Next {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c' | 'd') if is_control => return Next::End,
            KeyCode::Char('?' | 'h') => self.shows_help = !self.shows_help,
            KeyCode::Esc | KeyCode::Char('q') if self.shows_help => self.shows_help = false,
            KeyCode::Esc | KeyCode::Char('q') => return Next::End,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('s') => {
                let at = Order::ALL.iter().position(|order| *order == self.order);
                self.order = Order::ALL[(at.unwrap_or(0) + 1) % Order::ALL.len()];
            }
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Up | KeyCode::Char('k') => self.choose(-1),
            KeyCode::Down | KeyCode::Char('j') => self.choose(1),
            KeyCode::Home => self.choose(isize::MIN),
            KeyCode::End => self.choose(isize::MAX),
            KeyCode::PageUp | KeyCode::Left => self.scroll(-1),
            KeyCode::PageDown | KeyCode::Right => self.scroll(1),
            _ => {}
        }
        Next::GoOn
    }
}

#[cfg(test)]
mod tests {
    use super::super::sidecar::tests::{answer, sample};
    use super::*;
    use crate::process::history::Sample;

    fn key(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    fn view(open: &[u64]) -> View {
        let now = Instant::now();
        let sidecars = open.iter().map(|open| {
            let mut sidecar = Sidecar::new(&format!("host-{open}:1"), now);
            let sample = Sample {
                connections_open: *open,
                ..sample(1)
            };
            sidecar.take(Ok(answer(1, 1, &[sample])), now);
            sidecar
        });
        View::new(sidecars.collect(), true)
    }

    #[test]
    fn sorting_keeps_the_choice() {
        let mut view = view(&[3, 9, 5]);
        view.typed(key(KeyCode::Down));
        let chosen = view.chosen().unwrap().name.clone();
        assert_eq!(chosen, "host-9:1");
        while view.order != Order::Connections {
            view.typed(key(KeyCode::Char('s')));
        }
        assert_eq!(view.ordered(), [1, 2, 0]);
        assert_eq!(view.chosen().unwrap().name, chosen);
        view.typed(key(KeyCode::Down));
        assert_eq!(view.chosen().unwrap().name, "host-5:1");
        view.typed(key(KeyCode::End));
        view.typed(key(KeyCode::Down));
        assert_eq!(view.chosen().unwrap().name, "host-3:1");
        view.typed(key(KeyCode::Char('r')));
        assert_eq!(view.ordered(), [0, 2, 1]);
    }

    #[test]
    fn who_does_not_answer_is_worst_off() {
        let mut view = view(&[1, 2]);
        view.take(1, Err("refused".to_owned()), Instant::now());
        view.order = Order::WorstFirst;
        assert_eq!(view.ordered(), [1, 0]);
    }

    #[test]
    fn a_pause_loses_nothing() {
        let mut view = view(&[1]);
        view.typed(key(KeyCode::Char('p')));
        let now = Instant::now();
        let later = || Ok(answer(1, 7, &[sample(2)]));
        assert_eq!(view.take(0, later(), now), 1);
        assert_eq!(view.sidecars[0].samples.len(), 1);
        view.typed(key(KeyCode::Char(' ')));
        assert_eq!(view.take(0, later(), now), 7);
        assert_eq!(view.sidecars[0].samples.len(), 2);
    }

    #[test]
    fn the_first_escape_closes_the_help_and_the_second_ends() {
        let mut view = view(&[1]);
        view.typed(key(KeyCode::Char('?')));
        assert_eq!(view.typed(key(KeyCode::Esc)), Next::GoOn);
        assert_eq!(view.typed(key(KeyCode::Esc)), Next::End);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(view.typed(interrupt), Next::End);
    }

    #[test]
    fn no_key_is_too_much_for_an_empty_view() {
        let mut view = View::new(Vec::new(), false);
        for code in [
            KeyCode::Down,
            KeyCode::Home,
            KeyCode::PageDown,
            KeyCode::Char('s'),
        ] {
            assert_eq!(view.typed(key(code)), Next::GoOn);
        }
    }
}

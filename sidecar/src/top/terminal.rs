//! The terminal, taken over and given back: whatever ends the program, a panic and a signal among it, leaves it as it was.

use std::io;
use std::sync::mpsc::Sender;
use std::thread;

use ratatui::{DefaultTerminal, Frame};
use tokio::signal::unix::{SignalKind, signal};

use super::Message;

/// The terminal while it is ours.
pub(super) struct Terminal(DefaultTerminal);

impl Terminal {
    /// Takes it over: keys come one by one, and what was on the screen comes back in the end. A panic gives it back before it tells.
    pub(super) fn take_over() -> io::Result<Self> {
        ratatui::try_init().map(Terminal)
    }

    pub(super) fn draw(&mut self, draws: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(draws).map(drop)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The user's shell would be unusable: whoever cannot give it back says so, and there is nothing else to do.
        ratatui::restore();
    }
}

/// Has signals that end a program end the view instead, so that the terminal is given back.
pub(super) fn heed_signals(says: Sender<Message>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    drop(entered);
    let thread = thread::Builder::new().name("signals".to_owned());
    thread.spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                    _ = hang_up.recv() => {}
                }
                if says.send(Message::End).is_err() {
                    return;
                }
            }
        });
    })?;
    Ok(())
}

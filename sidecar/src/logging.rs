//! Logs: text for people on a terminal, JSON for machines elsewhere, at a level that can change while the process runs.
//!
//! It owns how a line is written and which lines are. Lines go to standard error; none is written per message or per
//! refusal of the kernel, only per change of state. The access log is the target `access`, which the settings rule
//! and no level hides unless a directive names it.

use std::io::IsTerminal;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Registry, fmt, reload};

/// The target of the access log's lines.
pub const ACCESS_TARGET: &str = "access";

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// A line for people.
    Text,
    /// A JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        match given {
            "auto" => Ok(LogFormat::Auto),
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!(
                "`{given}` is no log format: write auto, text or json"
            )),
        }
    }
}

/// Which lines are written.
#[derive(Debug, Clone, PartialEq)]
pub struct LogLevel {
    written: String,
    targets: Targets,
}

/// The longest directive that is read, in bytes.
const DIRECTIVE_BYTES_MAX: usize = 1024;

/// Somebody's words, short and on one line.
fn shown(given: &str) -> String {
    given
        .chars()
        .take(80)
        .flat_map(char::escape_debug)
        .collect()
}

impl FromStr for LogLevel {
    type Err = String;

    /// A level (`off`, `error`, `warn`, `info`, `debug`, `trace`), or directives such as `info,ringside::worker=debug`.
    fn from_str(given: &str) -> Result<Self, String> {
        const ALLOWED: &str = "write off, error, warn, info, debug or trace, or directives such as info,ringside::worker=debug";
        let given = given.trim();
        if given.is_empty() {
            return Err(format!("an empty text is no log level: {ALLOWED}"));
        }
        if given.len() > DIRECTIVE_BYTES_MAX {
            let bytes = given.len();
            return Err(format!(
                "a log level of {bytes} bytes is more than the {DIRECTIVE_BYTES_MAX} that are read: {ALLOWED}"
            ));
        }
        let directives: Vec<&str> = given.split(',').map(str::trim).collect();
        // A bare word that is no level would be taken for the name of a module that does not exist.
        for directive in &directives {
            if !directive.contains('=') && directive.parse::<LevelFilter>().is_err() {
                let shown = shown(directive);
                return Err(format!("`{shown}` is no log level: {ALLOWED}"));
            }
        }
        let mut targets: Targets = directives
            .join(",")
            .parse()
            .map_err(|_| format!("`{}` is no log level or directive: {ALLOWED}", shown(given)))?;
        let is_access = |directive: &&str| directive.starts_with(ACCESS_TARGET);
        if !directives.iter().any(is_access) {
            targets = targets.with_target(ACCESS_TARGET, LevelFilter::INFO);
        }
        Ok(LogLevel {
            written: given.to_owned(),
            targets,
        })
    }
}

impl std::fmt::Display for LogLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.written)
    }
}

/// Changes which lines are written, from any thread.
#[derive(Debug, Clone)]
pub struct LogControl {
    filter: reload::Handle<Targets, Registry>,
    dropped: ErrorCounter,
}

/// Lines that wait for whoever reads the log; more are dropped and counted.
const LINES_WAITING: usize = 4096;

/// When dropped, the lines that wait are written, for a second at most.
#[derive(Debug)]
pub struct LogEnd {
    _guard: WorkerGuard,
}

impl LogControl {
    /// Lines that were not written, as nobody read the log.
    pub fn dropped_lines(&self) -> u64 {
        self.dropped.dropped_lines() as u64
    }

    /// From now on writes the lines of this level.
    ///
    /// # Errors
    /// Logging is not set up any more.
    pub fn set(&self, level: &LogLevel) -> Result<(), String> {
        self.filter
            .reload(level.targets.clone())
            .map_err(|error| format!("the log level cannot be changed: {error}"))
    }
}

/// Begins to log. To be called once per process.
///
/// # Errors
/// Something else in this process has set up logging before.
pub fn start(level: &LogLevel, format: LogFormat) -> Result<(LogControl, LogEnd), String> {
    let (filter, control) = reload::Layer::new(level.targets.clone());
    let on_terminal = std::io::stderr().is_terminal();
    let as_text = match format {
        LogFormat::Auto => on_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let colours = on_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // A reader that stops reading must stop nobody but this writer's own thread.
    let (writer, end) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_WAITING)
        .lossy(true)
        .thread_name("log")
        .finish(std::io::stderr());
    let dropped = writer.error_counter();
    let lines = fmt::layer().with_writer(writer);
    let lines = if as_text {
        lines.with_ansi(colours).boxed()
    } else {
        lines.json().flatten_event(true).boxed()
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .try_init()
        .map_err(|error| format!("logging cannot be set up: {error}"))?;
    std::panic::set_hook(Box::new(log_panic));
    let control = LogControl {
        filter: control,
        dropped,
    };
    Ok((control, LogEnd { _guard: end }))
}

/// A panic is a line of the log like any other, so that whoever collects lines gets it whole.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let thread = std::thread::current();
    tracing::error!(
        thread = thread.name().unwrap_or("unnamed"),
        place = panic.location().map(ToString::to_string),
        "panic: {}",
        panic.payload_as_str().unwrap_or("without a message")
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    fn level(given: &str) -> LogLevel {
        given.parse().unwrap()
    }

    #[test]
    fn a_level_leaves_the_access_log_alone() {
        let warn = level("warn").targets;
        assert!(warn.would_enable("ringside::worker", &Level::WARN));
        assert!(!warn.would_enable("ringside::worker", &Level::INFO));
        assert!(warn.would_enable(ACCESS_TARGET, &Level::INFO));
        assert!(
            !level("info,access=off")
                .targets
                .would_enable(ACCESS_TARGET, &Level::ERROR)
        );
    }

    #[test]
    fn directives_speak_of_modules() {
        let targets = level("warn, ringside::worker=trace").targets;
        assert!(targets.would_enable("ringside::worker::team", &Level::TRACE));
        assert!(!targets.would_enable("ringside::process", &Level::INFO));
    }

    #[test]
    fn what_is_no_level_gets_a_sentence() {
        for given in [
            "",
            "  ",
            "loud",
            "ringside=loud",
            "a=b=c=d",
            "\u{1b}[2J",
            &"x".repeat(5000),
        ] {
            let error = given.parse::<LogLevel>().unwrap_err();
            assert!(error.contains("write off, error, warn"), "{given}: {error}");
            assert!(!error.contains('\u{1b}') && error.len() < 1000, "{error}");
        }
    }

    #[test]
    fn a_format_is_one_of_three() {
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert!(
            "yaml"
                .parse::<LogFormat>()
                .unwrap_err()
                .contains("auto, text or json")
        );
    }
}

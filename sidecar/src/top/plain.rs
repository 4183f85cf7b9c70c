//! Sidecars as a plain table, for scripts and pipes, and the words for figures that the screen uses too. Pure.

use super::sidecar::Sidecar;

/// The table's head. Rates are of the last second.
const HEAD: [&str; 11] = [
    "SIDECAR",
    "STATE",
    "BACKEND",
    "OPEN",
    "NEW/S",
    "TO-TARGETS/S",
    "TO-CLIENTS/S",
    "PUSHBACK",
    "BATCH",
    "GATE",
    "REASON",
];

/// What is shown where nothing is known.
const UNKNOWN: &str = "-";

/// A line of heads and a line for each sidecar, columns aligned; the last one is free text.
pub(super) fn table(sidecars: &[Sidecar]) -> String {
    let mut lines = vec![HEAD.map(str::to_owned)];
    lines.extend(sidecars.iter().map(line));
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|column| {
            let cells = lines.iter().map(|line| line[column].chars().count());
            cells.max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in &lines {
        for (cell, width) in line.iter().zip(&widths).take(HEAD.len() - 1) {
            text.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(&line[HEAD.len() - 1]);
        text.push('\n');
    }
    text
}

fn line(sidecar: &Sidecar) -> [String; HEAD.len()] {
    let unknown = || UNKNOWN.to_owned();
    let (Some(status), true) = (&sidecar.status, sidecar.answers()) else {
        let why = sidecar.silent.as_ref().map_or("", |(_, why)| why);
        let mut cells = [(); HEAD.len()].map(|()| unknown());
        cells[0] = sidecar.name.clone();
        cells[1] = "no answer".to_owned();
        cells[HEAD.len() - 1] = why.to_owned();
        return cells;
    };
    let rate = |value: fn(&crate::process::history::Sample) -> String| {
        sidecar.newest().map_or_else(unknown, value)
    };
    [
        sidecar.name.clone(),
        sidecar.state().0.to_lowercase(),
        sidecar.backend(),
        status.connections_open.to_string(),
        rate(|sample| sample.opened.to_string()),
        rate(|sample| bytes(sample.bytes_to_upstream).replace(' ', "")),
        rate(|sample| bytes(sample.bytes_to_client).replace(' ', "")),
        format!("{}%", sidecar.pushback_percent()),
        rate(|sample| sample.batch_limit.to_string()),
        sidecar.gate().replace(' ', ":"),
        status.reason.clone(),
    ]
}

/// Bytes in the unit that leaves three digits or so.
pub(super) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1000.0 {
            return if value < 10.0 && unit != "B" {
                format!("{value:.1} {unit}")
            } else {
                format!("{value:.0} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// Microseconds in the unit that leaves three digits or so.
pub(super) fn micros(count: u64) -> String {
    match count {
        0..1000 => format!("{count} µs"),
        1000..1_000_000 => format!("{} ms", count / 1000),
        _ => format!("{:.1} s", count as f64 / 1e6),
    }
}

/// A time in its largest unit.
pub(super) fn span(seconds: u64) -> String {
    for (size, unit) in [(86400, "d"), (3600, "h"), (60, "min")] {
        if seconds >= size {
            return format!("{} {unit}", seconds / size);
        }
    }
    format!("{seconds} s")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::sidecar::tests::{answer, sample};
    use super::*;

    #[test]
    fn each_sidecar_has_a_line_of_as_many_words_as_the_head() {
        let now = Instant::now();
        let (mut there, mut gone) = (Sidecar::new("a:1", now), Sidecar::new("bb:22", now));
        let mut said = answer(1, 1, &[sample(1)]);
        said.status.reason = "ready".to_owned();
        there.take(Ok(said), now);
        gone.take(Err("refused".to_owned()), now);
        let text = table(&[there, gone]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("SIDECAR  STATE      BACKEND"),
            "{text}"
        );
        let words: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(
            words,
            [
                "a:1", "ready", "ring", "0", "0", "0B", "1.0MiB", "0%", "256", "open", "ready"
            ]
        );
        assert!(lines[2].starts_with("bb:22    no answer"), "{text}");
        assert!(lines[2].ends_with("refused"), "{text}");
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [0, 999, 1000, 10240, u64::MAX].map(bytes),
            ["0 B", "999 B", "1.0 KiB", "10 KiB", "16777216.0 TiB"]
        );
        assert_eq!([0, 1500, 2_500_000].map(micros), ["0 µs", "1 ms", "2.5 s"]);
        assert_eq!([59, 60, 90_000].map(span), ["59 s", "1 min", "1 d"]);
    }
}

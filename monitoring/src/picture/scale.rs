//! Values as people read them: with their unit and few digits, and the round numbers beside an axis.

use crate::panels::Unit;

/// A value with its unit.
pub(super) fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Count | Unit::Cpus => scaled(value, 1000.0, &["", " K", " M", " G"]),
        Unit::Share => format!("{} %", few(value * 100.0)),
        Unit::Bytes => scaled(value, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB"]),
        Unit::BytesPerSecond => scaled(value, 1000.0, &[" B/s", " kB/s", " MB/s", " GB/s"]),
        Unit::PerSecond => scaled(value, 1000.0, &["/s", " K/s", " M/s"]),
        Unit::Seconds if value == 0.0 => "0 s".to_owned(),
        Unit::Seconds if value < 1e-3 => format!("{} µs", few(value * 1e6)),
        Unit::Seconds if value < 1.0 => format!("{} ms", few(value * 1e3)),
        Unit::Seconds if value < 120.0 => format!("{} s", few(value)),
        Unit::Seconds if value < 172_800.0 => format!("{} h", few(value / 3600.0)),
        Unit::Seconds => format!("{} days", few(value / 86_400.0)),
    }
}

/// Round values from 0 to `highest` at least, three to six of them.
pub(super) fn ticks(highest: f64, unit: Unit) -> Vec<f64> {
    let highest = if highest > 0.0 { highest } else { 1.0 };
    let base = if unit == Unit::Bytes {
        1024_f64.powf(highest.log(1024.0).floor())
    } else {
        1.0
    };
    let rough = highest / base / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0];
    let step = steps.iter().find(|step| **step * power >= rough);
    let step = step.unwrap_or(&10.0) * power * base;
    let count = (highest / step - 1e-9).ceil() as u32;
    (0..=count).map(|number| f64::from(number) * step).collect()
}

fn scaled(value: f64, by: f64, names: &[&str]) -> String {
    let mut value = value;
    let mut names = names.iter();
    let mut name = names.next().copied().unwrap_or_default();
    for larger in names {
        if value < by {
            break;
        }
        value /= by;
        name = larger;
    }
    few(value) + name
}

/// With three digits at most behind which nobody would look.
fn few(value: f64) -> String {
    let digits = match value {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_in_their_unit() {
        for (value, unit, told) in [
            (3.0, Unit::Count, "3"),
            (12_345.0, Unit::Count, "12.3 K"),
            (0.6667, Unit::Share, "66.7 %"),
            (8.0 * 1024.0 * 1024.0, Unit::Bytes, "8 MiB"),
            (47.3e6, Unit::BytesPerSecond, "47.3 MB/s"),
            (0.25, Unit::PerSecond, "0.25/s"),
            (0.000_05, Unit::Seconds, "50 µs"),
            (0.0125, Unit::Seconds, "12.5 ms"),
            (2_592_000.0, Unit::Seconds, "30 days"),
            (0.0, Unit::Seconds, "0 s"),
        ] {
            assert_eq!(shown(value, unit), told);
        }
    }

    #[test]
    fn an_axis_has_few_round_numbers_and_reaches_the_highest() {
        for highest in [0.0, 0.03, 1.0, 3.0, 7.7, 99.0, 1e6, 3.3e9] {
            for unit in [Unit::Count, Unit::Bytes] {
                let ticks = ticks(highest, unit);
                assert!((2..=6).contains(&ticks.len()), "{highest}: {ticks:?}");
                assert!(ticks.last().is_some_and(|last| *last >= highest * 0.999));
            }
        }
        assert_eq!(ticks(3.0, Unit::Count), [0.0, 1.0, 2.0, 3.0]);
    }
}

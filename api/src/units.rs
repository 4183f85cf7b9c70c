//! Durations and sizes as people write them: `50us`, `256Ki`. It owns parsing, the shortest exact way of writing them,
//! and the sentences for what is not one; it never rounds, so what is written back is what was read.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::sentence::quoted;
use crate::wire::{FromScalar, Scalar};

/// Units of a [`Span`], in microseconds, longest first.
const SPAN_UNITS: [(&str, u64); 5] = [
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// Units of a [`Size`], in bytes, largest first.
const SIZE_UNITS: [(&str, u64); 4] = [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10), ("", 1)];

/// A text that is not a duration or a size. Its message quotes the text and says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{given} {problem}: {allowed}")]
pub struct UnitError {
    given: String,
    problem: String,
    allowed: &'static str,
}

/// A duration in whole microseconds, from 0 to `u64::MAX` of them, written as an integer and a unit: `50us`, `5ms`,
/// `30s`, `2m`, `1h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(Duration);

impl Span {
    /// No time at all, `0s`.
    pub const ZERO: Self = Self(Duration::ZERO);

    const ALLOWED: &'static str =
        "write a whole number and a unit of us, ms, s, m or h, such as 50us or 30s";

    /// A span of `micros` microseconds.
    pub const fn from_micros(micros: u64) -> Self {
        Self(Duration::from_micros(micros))
    }

    /// A span of `millis` milliseconds, at most what `u64` microseconds hold.
    pub const fn from_millis(millis: u64) -> Self {
        Self::from_micros(millis.saturating_mul(1_000))
    }

    /// A span of `secs` seconds, at most what `u64` microseconds hold.
    pub const fn from_secs(secs: u64) -> Self {
        Self::from_micros(secs.saturating_mul(1_000_000))
    }

    /// The same as std's type.
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// The whole span in microseconds.
    pub const fn as_micros(self) -> u64 {
        // Every constructor starts from u64 microseconds, so this loses nothing.
        self.0.as_micros() as u64
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        write_exact(f, self.as_micros(), &SPAN_UNITS)
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(given: &str) -> Result<Self, UnitError> {
        parse(given, &SPAN_UNITS, Self::ALLOWED).map(Self::from_micros)
    }
}

impl FromScalar for Span {
    const EXPECTED: &'static str = "a duration such as 50us or 30s";

    fn from_scalar(scalar: &Scalar<'_>) -> Result<Self, String> {
        match scalar {
            Scalar::Text(text) => text.parse().map_err(|error: UnitError| error.to_string()),
            // A bare number takes the same way, to be told that its unit is missing.
            other => other
                .to_string()
                .parse()
                .map_err(|error: UnitError| error.to_string()),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

deserialize_as_field!(Span);

/// A number of bytes, from 0 to `u64::MAX`, written plain or with a unit: `1024`, `256Ki`, `8Mi`, `1Gi`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

impl Size {
    const ALLOWED: &'static str =
        "write a whole number of bytes, or one with a unit of Ki, Mi or Gi, such as 256Ki";

    /// A size of `bytes`.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A size of `kib` times 1024 bytes, at most what `u64` holds.
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib.saturating_mul(1 << 10))
    }

    /// A size of `mib` times 1024 KiB, at most what `u64` holds.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib.saturating_mul(1 << 20))
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0");
        }
        write_exact(f, self.0, &SIZE_UNITS)
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(given: &str) -> Result<Self, UnitError> {
        parse(given, &SIZE_UNITS, Self::ALLOWED).map(Self)
    }
}

impl FromScalar for Size {
    const EXPECTED: &'static str = "a size such as 256Ki or 8Mi";

    fn from_scalar(scalar: &Scalar<'_>) -> Result<Self, String> {
        match scalar {
            Scalar::Text(text) => text.parse().map_err(|error: UnitError| error.to_string()),
            // A number of bytes may come without quotes.
            other => other
                .to_string()
                .parse()
                .map_err(|error: UnitError| error.to_string()),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

deserialize_as_field!(Size);

/// Writes `amount` (not 0) in the largest unit that divides it, which is the shortest exact form.
fn write_exact(f: &mut fmt::Formatter<'_>, amount: u64, units: &[(&str, u64)]) -> fmt::Result {
    for (unit, factor) in units {
        if amount.is_multiple_of(*factor) {
            return write!(f, "{}{unit}", amount / factor);
        }
    }
    unreachable!("the smallest unit is 1")
}

fn parse(given: &str, units: &[(&str, u64)], allowed: &'static str) -> Result<u64, UnitError> {
    let refuse = |problem: &str| UnitError {
        given: quoted(given),
        problem: problem.to_owned(),
        allowed,
    };
    let digits = given.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = given.split_at(digits);
    if given.trim().is_empty() {
        return Err(refuse("is empty"));
    }
    if given.starts_with('-') {
        return Err(refuse("is negative"));
    }
    if number.is_empty() {
        return Err(refuse("does not start with a number"));
    }
    if unit.starts_with('.') || unit.starts_with(',') {
        return Err(refuse("is not a whole number"));
    }
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(match unit {
            "" => refuse("has no unit"),
            _ => refuse(&format!("has the unknown unit {}", quoted(unit))),
        });
    };
    let amount = number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(*factor));
    amount.ok_or_else(|| refuse("is too large to be held"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span_error(given: &str) -> String {
        given.parse::<Span>().unwrap_err().to_string()
    }

    #[test]
    fn spans_are_read_and_written_in_their_shortest_form() {
        for (given, micros, written) in [
            ("50us", 50, "50us"),
            ("1000us", 1_000, "1ms"),
            ("60s", 60_000_000, "1m"),
            ("90s", 90_000_000, "90s"),
            ("1h", 3_600_000_000, "1h"),
            ("0ms", 0, "0s"),
            ("007ms", 7_000, "7ms"),
        ] {
            let span: Span = given.parse().unwrap();
            assert_eq!(span.as_micros(), micros, "{given}");
            assert_eq!(span.to_string(), written, "{given}");
        }
    }

    #[test]
    fn sizes_are_read_and_written_in_their_shortest_form() {
        for (given, bytes, written) in [
            ("1024", 1024, "1Ki"),
            ("256Ki", 262_144, "256Ki"),
            ("1000", 1000, "1000"),
            ("0Gi", 0, "0"),
            ("2Gi", 1 << 31, "2Gi"),
        ] {
            let size: Size = given.parse().unwrap();
            assert_eq!(size.bytes(), bytes, "{given}");
            assert_eq!(size.to_string(), written, "{given}");
        }
    }

    #[test]
    fn refusals_name_what_was_given_and_what_is_allowed() {
        assert_eq!(
            span_error("5"),
            "`5` has no unit: write a whole number and a unit of us, ms, s, m or h, such as 50us or 30s"
        );
        assert!(span_error("").contains("is empty"));
        assert!(span_error("-5s").contains("`-5s` is negative"));
        assert!(span_error("1.5s").contains("is not a whole number"));
        assert!(span_error("5d").contains("unknown unit `d`"));
        assert!(span_error("1h30m").contains("unknown unit `h30m`"));
        assert!(span_error("5 s").contains("unknown unit ` s`"));
        assert!(span_error("ms").contains("does not start with a number"));
        assert!(span_error("99999999999999999999s").contains("too large"));
        assert!(span_error(&format!("{}h", u64::MAX)).contains("too large"));
        let size = "8MB".parse::<Size>().unwrap_err().to_string();
        assert!(
            size.contains("unknown unit `MB`") && size.contains("Ki, Mi or Gi"),
            "{size}"
        );
        assert!(
            format!("{}Gi", u64::MAX)
                .parse::<Size>()
                .unwrap_err()
                .to_string()
                .contains("too large")
        );
    }

    #[test]
    fn a_bare_number_is_bytes_but_never_a_duration() {
        assert_eq!(
            serde_yaml::from_str::<Size>("4096").unwrap(),
            Size::from_kib(4)
        );
        assert!(
            serde_yaml::from_str::<Span>("4096")
                .unwrap_err()
                .to_string()
                .contains("`4096` has no unit")
        );
        assert!(
            serde_yaml::from_str::<Size>("-1")
                .unwrap_err()
                .to_string()
                .contains("is negative")
        );
        assert!(serde_yaml::from_str::<Size>("~").is_err());
    }

    proptest! {
        #[test]
        fn spans_round_trip(micros: u64) {
            let span = Span::from_micros(micros);
            prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
            let yaml = serde_yaml::to_string(&span).unwrap();
            prop_assert_eq!(serde_yaml::from_str::<Span>(&yaml).unwrap(), span);
        }

        #[test]
        fn sizes_round_trip(bytes: u64) {
            let size = Size::from_bytes(bytes);
            prop_assert_eq!(size.to_string().parse::<Size>(), Ok(size));
            let yaml = serde_yaml::to_string(&size).unwrap();
            prop_assert_eq!(serde_yaml::from_str::<Size>(&yaml).unwrap(), size);
        }

        #[test]
        fn whatever_is_accepted_is_written_back_as_the_same(number: u64, unit in "(us|ms|s|m|h|Ki|Mi|Gi|)") {
            let given = format!("{number}{unit}");
            if let Ok(span) = given.parse::<Span>() {
                prop_assert!(span.to_string().len() <= given.len().max(2));
                prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
            }
            if let Ok(size) = given.parse::<Size>() {
                prop_assert_eq!(size.to_string().parse::<Size>(), Ok(size));
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            if let Err(error) = text.parse::<Span>() {
                prop_assert!(error.to_string().ends_with(Span::ALLOWED));
            }
            let _ = text.parse::<Size>();
        }
    }
}

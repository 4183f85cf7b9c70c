//! Kubernetes' quantities, as far as resources need them: whether a text is one, and which of two is more. It never writes one.

/// The longest quantity that is read, in bytes.
const BYTES_MAX: usize = 24;

/// The suffixes, each as a factor in thousand millionths.
const SUFFIXES: [(&str, i128); 16] = [
    ("Ki", NANOS << 10),
    ("Mi", NANOS << 20),
    ("Gi", NANOS << 30),
    ("Ti", NANOS << 40),
    ("Pi", NANOS << 50),
    ("Ei", NANOS << 60),
    ("n", 1),
    ("u", 1_000),
    ("m", 1_000_000),
    ("k", NANOS * 1_000),
    ("M", NANOS * 1_000_000),
    ("G", NANOS * 1_000_000_000),
    ("T", NANOS * 1_000_000_000_000),
    ("P", NANOS * 1_000_000_000_000_000),
    ("E", NANOS * 1_000_000_000_000_000_000),
    ("", NANOS),
];

const NANOS: i128 = 1_000_000_000;

/// An amount in thousand millionths of a CPU or byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Quantity(i128);

impl Quantity {
    /// None.
    pub(super) const NOTHING: Self = Self(0);

    /// A thousandth of a CPU.
    pub(super) const MILLI: Self = Self(NANOS / 1_000);

    /// So many MiB.
    pub(super) const fn mib(count: i128) -> Self {
        Self(count * (NANOS << 20))
    }

    /// Both together; what is too much to count stays the most that can be.
    pub(super) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Reads digits with at most one point and a suffix or an exponent; `None` for anything else, signs among it.
    pub(super) fn read(text: &str) -> Option<Self> {
        if text.len() > BYTES_MAX {
            return None;
        }
        let digits = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        let mantissa: i128 = format!("0{whole}{fraction}").parse().ok()?;
        let known = SUFFIXES.iter().find(|(known, _)| *known == suffix);
        let scaled = match known {
            Some((_, factor)) => mantissa.checked_mul(*factor)?,
            None => {
                let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
                let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
                let nanos = mantissa.checked_mul(NANOS)?;
                if exponent < 0 {
                    nanos / power
                } else {
                    nanos.checked_mul(power)?
                }
            }
        };
        let places = u32::try_from(fraction.len()).ok()?;
        Some(Self(scaled / 10_i128.checked_pow(places)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_amounts_are_equal_however_they_are_written() {
        for (one, other) in [
            ("1", "1000m"),
            ("0.5", "500m"),
            (".5", "5e-1"),
            ("1Gi", "1024Mi"),
            ("129000000", "129e6"),
            ("1k", "1E3"),
            ("1.", "1"),
        ] {
            assert_eq!(Quantity::read(one).unwrap(), Quantity::read(other).unwrap());
        }
        assert!(Quantity::read("64Mi").unwrap() > Quantity::read("64M").unwrap());
        assert_eq!(Quantity::read("1m"), Some(Quantity::MILLI));
        assert_eq!(Quantity::read("3Mi"), Some(Quantity::mib(3)));
    }

    #[test]
    fn what_is_no_quantity_is_none() {
        for text in [
            "",
            ".",
            "-1",
            "+1",
            "1 Mi",
            "1MB",
            "1mi",
            "ten",
            "1.2.3",
            "1e",
            "1e999",
            "e3",
            "１",
            "99999999999999999999Ei",
            "0000000000000000000000000001",
        ] {
            assert_eq!(Quantity::read(text), None, "{text}");
        }
    }
}

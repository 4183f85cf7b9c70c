//! How errors speak: what was given is quoted and kept short, and the nearest known name is suggested.
//! It owns wording shared by all parsers; it never decides what is valid.

/// The longest piece of somebody's input that an error repeats, in characters.
const QUOTED_CHARS_MAX: usize = 80;

/// `given` between backticks, cut to a readable length, with control characters made visible.
pub fn quoted(given: &str) -> String {
    let mut shown = String::from("`");
    for character in given.chars().take(QUOTED_CHARS_MAX) {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    if given.chars().nth(QUOTED_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown.push('`');
    shown
}

/// The known name nearest to `given`, when it is near enough to be a slip of the fingers.
pub fn nearest<'n>(given: &str, known: &[&'n str]) -> Option<&'n str> {
    // A long text is no misspelt name, and comparing it would cost its length times each name's.
    if given.len() > QUOTED_CHARS_MAX {
        return None;
    }
    let given = given.to_lowercase();
    let allowed = (given.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|name| {
            (
                strsim::damerau_levenshtein(&given, &name.to_lowercase()),
                *name,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// What an unknown field is answered with: the nearest known name, or all of them.
pub(crate) fn unknown_field(given: &str, place: &str, known: &[&str]) -> String {
    let hint = match nearest(given, known) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known are {}", known.join(", ")),
    };
    format!("unknown field {} in {place}: {hint}", quoted(given))
}

/// What a word outside a fixed list is answered with.
pub(crate) fn unknown_word(given: &str, known: &[&str]) -> String {
    let hint =
        nearest(given, known).map_or(String::new(), |name| format!("; did you mean `{name}`?"));
    format!(
        "{} must be one of {}{hint}",
        quoted(given),
        known.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_what_is_near() {
        let known = ["backoff", "batch", "accept"];
        assert_eq!(nearest("backof", &known), Some("backoff"));
        assert_eq!(nearest("Batch", &known), Some("batch"));
        assert_eq!(nearest("timeouts", &known), None);
        assert_eq!(nearest(&"b".repeat(1_000_000), &known), None);
    }

    #[test]
    fn quotes_stay_short_and_printable() {
        assert_eq!(quoted("a\nb"), "`a\\nb`");
        assert!(quoted(&"x".repeat(10_000)).chars().count() < 100);
    }
}

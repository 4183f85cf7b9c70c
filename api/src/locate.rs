//! Where in a YAML text a field is, so that an error found after reading still names its line. It owns walking along a
//! path; it never judges what it walks over.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Line and column, both from 1, of the field at `path` (such as `relays[1].target`), or of the last part of the path that
/// the text has. `None` when the text is no YAML.
pub(crate) fn locate(yaml: &str, path: &str) -> Option<(usize, usize)> {
    let steps: Vec<Step<'_>> = path.split('.').flat_map(steps_of).collect();
    // The parser tells positions only with errors, so the walk ends in one on purpose.
    let arrived = Walk(&steps)
        .deserialize(serde_yaml::Deserializer::from_str(yaml))
        .err()?;
    arrived
        .location()
        .map(|location| (location.line(), location.column()))
}

enum Step<'p> {
    Key(&'p str),
    Index(usize),
}

/// `relays[1]` is a key and an index.
fn steps_of(part: &str) -> impl Iterator<Item = Step<'_>> {
    let (key, indices) = part.split_once('[').unwrap_or((part, ""));
    let indices = indices
        .split(['[', ']'])
        .filter_map(|index| index.parse().ok());
    std::iter::once(Step::Key(key)).chain(indices.map(Step::Index))
}

struct Walk<'s, 'p>(&'s [Step<'p>]);

fn arrived<T, E: Error>() -> Result<T, E> {
    Err(E::custom("arrived"))
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whatever has no inside is the end of the way, and the error for it tells the position as well.
        f.write_str("a map or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if let Some((Step::Key(wanted), rest)) = self.0.split_first() {
            while let Some(key) = map.next_key::<Key>()? {
                if key.0 == *wanted {
                    return map.next_value_seed(Walk(rest));
                }
                map.next_value::<IgnoredAny>()?;
            }
        }
        arrived()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if let Some((Step::Index(wanted), rest)) = self.0.split_first() {
            for _ in 0..*wanted {
                list.next_element::<IgnoredAny>()?;
            }
            if list.next_element_seed(Walk(rest))?.is_some() {
                return Ok(());
            }
        }
        arrived()
    }
}

#[derive(Deserialize)]
struct Key(String);

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "\
# a comment
relays:
  - name: a
    target: x
  - {name: b, target: y}
settings:
  backoff:
    initial: 60ms
";

    #[test]
    fn finds_fields_entries_and_the_nearest_parent() {
        assert_eq!(locate(YAML, "settings.backoff.initial"), Some((8, 14)));
        assert_eq!(locate(YAML, "relays[0].target"), Some((4, 13)));
        assert_eq!(locate(YAML, "relays[1].target"), Some((5, 23)));
        assert_eq!(locate(YAML, "relays[1]"), Some((5, 5)));
        // Not there: the group that would hold it.
        assert_eq!(locate(YAML, "settings.backoff.max"), Some((8, 5)));
        assert_eq!(locate(YAML, "relays[7]").map(|(line, _)| line), Some(3));
    }
}

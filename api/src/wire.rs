//! How documents become values, alike for YAML and JSON: scalars with sentences for errors, null as "unset", unknown
//! and repeated fields refused. It owns the reading of records; it never knows a setting by name.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::sentence::{quoted, unknown_field};

/// A single value as the document had it.
pub(crate) enum Scalar<'a> {
    Text(&'a str),
    Integer(i128),
    Float(f64),
    Bool(bool),
}

impl fmt::Display for Scalar<'_> {
    /// The value as an error repeats it: quoted, and not longer than an eye takes in.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::Bool(truth) => write!(f, "{truth}"),
        }
    }
}

/// A value that one scalar holds.
pub(crate) trait FromScalar: Sized {
    /// What the document should have had, as in "expected EXPECTED".
    const EXPECTED: &'static str;

    /// The value, or a sentence that names what was given and what is allowed.
    fn from_scalar(scalar: &Scalar<'_>) -> Result<Self, String>;
}

impl FromScalar for u32 {
    const EXPECTED: &'static str = "a whole number";

    fn from_scalar(scalar: &Scalar<'_>) -> Result<Self, String> {
        match scalar {
            Scalar::Integer(number) => Self::try_from(*number).map_err(|_| {
                format!(
                    "{number} is out of range: write a whole number from 0 to {}",
                    Self::MAX
                )
            }),
            Scalar::Text(text) if text.parse::<u32>().is_ok() => Err(format!(
                "{scalar} is text, but must be a number: leave out the quotes"
            )),
            _ => Err(format!(
                "{scalar} is not a whole number: write digits only, such as 128"
            )),
        }
    }
}

impl FromScalar for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_scalar(scalar: &Scalar<'_>) -> Result<Self, String> {
        match scalar {
            Scalar::Bool(truth) => Ok(*truth),
            _ => Err(format!("{scalar} must be true or false")),
        }
    }
}

impl FromScalar for String {
    const EXPECTED: &'static str = "text";

    fn from_scalar(scalar: &Scalar<'_>) -> Result<Self, String> {
        match scalar {
            Scalar::Text(text) => Ok((*text).to_owned()),
            _ => Err(format!("{scalar} is not text: put it in quotes")),
        }
    }
}

/// A field of a record: `None` where the document says null, which means "unset".
pub(crate) trait Field: Sized {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Self>, D::Error>;
}

impl<T: FromScalar> Field for T {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Self>, D::Error> {
        from.deserialize_any(ScalarVisitor(PhantomData))
    }
}

struct ScalarVisitor<T>(PhantomData<T>);

impl<T: FromScalar> ScalarVisitor<T> {
    fn take<E: Error>(scalar: &Scalar<'_>) -> Result<Option<T>, E> {
        T::from_scalar(scalar).map(Some).map_err(E::custom)
    }
}

impl<'de, T: FromScalar> Visitor<'de> for ScalarVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Self::take(&Scalar::Text(text))
    }
    fn visit_bool<E: Error>(self, truth: bool) -> Result<Self::Value, E> {
        Self::take(&Scalar::Bool(truth))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Self::take(&Scalar::Integer(number.into()))
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Self::take(&Scalar::Integer(number.into()))
    }
    fn visit_i128<E: Error>(self, number: i128) -> Result<Self::Value, E> {
        Self::take(&Scalar::Integer(number))
    }
    fn visit_u128<E: Error>(self, number: u128) -> Result<Self::Value, E> {
        // Nothing allowed is near i128::MAX, so a number beyond it is refused just as well from there.
        Self::take(&Scalar::Integer(
            i128::try_from(number).unwrap_or(i128::MAX),
        ))
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Self::take(&Scalar::Float(number))
    }
    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<T: Field> Field for Vec<T> {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Self>, D::Error> {
        struct Items<T>(PhantomData<T>);

        impl<'de, T: Field> Visitor<'de> for Items<T> {
            type Value = Option<Vec<T>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element_seed(Reading::new())? {
                    items.push(
                        item.ok_or_else(|| A::Error::custom("an entry of the list is empty"))?,
                    );
                }
                Ok(Some(items))
            }
            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
        }

        from.deserialize_any(Items(PhantomData))
    }
}

/// Reads a [`Field`] where serde asks for a seed.
pub(crate) struct Reading<T>(PhantomData<T>);

impl<T> Reading<T> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<'de, T: Field> DeserializeSeed<'de> for Reading<T> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        T::read(from)
    }
}

/// Reads a key that must be one of `names`. It fails on the key itself, so that YAML's line is the key's.
struct KnownName {
    place: &'static str,
    names: &'static [&'static str],
}

impl<'de> DeserializeSeed<'de> for KnownName {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for KnownName {
    type Value = &'static str;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }
    fn visit_str<E: Error>(self, given: &str) -> Result<Self::Value, E> {
        let known = self.names.iter().copied().find(|name| *name == given);
        known.ok_or_else(|| E::custom(unknown_field(given, self.place, self.names)))
    }
}

/// The next key of a record, each of which may come once.
pub(crate) fn next_name<'de, A: MapAccess<'de>>(
    map: &mut A,
    place: &'static str,
    names: &'static [&'static str],
    seen: &mut Vec<&'static str>,
) -> Result<Option<&'static str>, A::Error> {
    let Some(name) = map.next_key_seed(KnownName { place, names })? else {
        return Ok(None);
    };
    if seen.contains(&name) {
        return Err(A::Error::custom(format!(
            "field `{name}` is given twice in {place}: keep one of them"
        )));
    }
    seen.push(name);
    Ok(Some(name))
}

/// `impl Field` for a struct whose fields are all `Option`: one that the document leaves out stays `None`.
macro_rules! read_record {
    ($record:ident in $place:literal { $($field:ident $wire:literal),+ $(,)? }) => {
        impl $crate::wire::Field for $record {
            fn read<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Self>, D::Error> {
                const NAMES: &[&str] = &[$($wire),+];
                struct Fields;

                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = Option<$record>;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        write!(f, "the fields of {}: {}", $place, NAMES.join(", "))
                    }
                    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
                        Ok(None)
                    }
                    fn visit_none<E: serde::de::Error>(self) -> Result<Self::Value, E> {
                        Ok(None)
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                        let mut record = $record::default();
                        let mut seen = Vec::new();
                        while let Some(name) = $crate::wire::next_name(&mut map, $place, NAMES, &mut seen)? {
                            match name {
                                $($wire => record.$field = map.next_value_seed($crate::wire::Reading::new())?,)+
                                _ => unreachable!("next_name yields only what it was given"),
                            }
                        }
                        Ok(Some(record))
                    }
                }

                from.deserialize_any(Fields)
            }
        }
    };
}

/// `impl Deserialize` through [`Field`]; null is refused, because a bare value cannot be unset.
macro_rules! deserialize_as_field {
    ($type:ident) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                <$type as $crate::wire::Field>::read(from)?.ok_or_else(|| {
                    serde::de::Error::custom(concat!(
                        "a value of ",
                        stringify!($type),
                        " is missing"
                    ))
                })
            }
        }
    };
}

/// An enum of words: its names on the wire, `Display`, `FromStr` and serde both ways.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident = $wire:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
        pub enum $name {
            $($(#[$word_doc])* #[serde(rename = $wire)] $word,)+
        }

        impl $name {
            /// Every word, as it is written.
            pub const WORDS: &'static [&'static str] = &[$($wire),+];
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$word => $wire,)+ })
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            /// The word, or a sentence that lists the known ones.
            fn from_str(given: &str) -> Result<Self, Self::Err> {
                match given {
                    $($wire => Ok(Self::$word),)+
                    _ => Err($crate::sentence::unknown_word(given, Self::WORDS)),
                }
            }
        }

        impl $crate::wire::FromScalar for $name {
            const EXPECTED: &'static str = concat!("one word of" $(, " ", $wire)+);

            fn from_scalar(scalar: &$crate::wire::Scalar<'_>) -> Result<Self, String> {
                match scalar {
                    $crate::wire::Scalar::Text(text) => text.parse(),
                    other => Err($crate::sentence::unknown_word(&other.to_string(), Self::WORDS)),
                }
            }
        }

        deserialize_as_field!($name);

        #[cfg(feature = "resources")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "enum": Self::WORDS})
            }
        }
    };
}

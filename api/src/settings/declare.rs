//! How a group of settings is declared: each field once, with its name on the wire, type, default and range. It makes
//! the resolved struct, the patch struct, merging, resolving and reading; it never holds a setting itself.

/// A group: `Group` has plain values, `Patch` has every field optional and nothing defaulted.
macro_rules! group {
    (
        $(#[$doc:meta])*
        $group:ident, $patch:ident, $place:literal {
            $(
                $(#[doc = $field_doc:literal])*
                $field:ident $wire:literal: $type:ty = $default:expr $(, in $range:expr)?;
            )+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
        pub struct $group {
            $($(#[doc = $field_doc])* #[serde(rename = $wire)] pub $field: $type,)+
        }

        impl Default for $group {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        #[doc = concat!("What a document says about `", $place, "`; a field that it leaves out is `None`.")]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct $patch {
            $($(#[doc = $field_doc])* #[serde(rename = $wire, skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)+
        }

        impl $patch {
            /// Both together, field by field; where both say something, `over` is believed.
            pub fn merge(&self, over: &Self) -> Self {
                Self { $($field: over.$field.or(self.$field),)+ }
            }

            /// Adds the path and the value of each field that is set, as it is written in a document.
            fn describe(&self, fields: &mut Vec<(&'static str, String)>) {
                $(fields.extend(self.$field.map(|value| (concat!($place, ".", $wire), value.to_string())));)+
            }
        }

        impl From<$group> for $patch {
            fn from(group: $group) -> Self {
                Self { $($field: Some(group.$field),)+ }
            }
        }

        impl $group {
            /// Takes each field from the last layer that sets it, and reports where from and whether it is in range.
            fn resolve(layers: &[(Source, $patch)], report: &mut Report) -> Self {
                let mut group = Self::default();
                $(
                    let mut source = Source::Default;
                    for (from, patch) in layers {
                        if let Some(value) = patch.$field {
                            (group.$field, source) = (value, *from);
                        }
                    }
                    report.origin(concat!($place, ".", $wire), source);
                    $(report.range(concat!($place, ".", $wire), group.$field, $range);)?
                )+
                group
            }

            /// Adds each field's path and its value, as it is written in a document.
            fn describe(&self, fields: &mut Vec<(&'static str, String)>) {
                $(fields.push((concat!($place, ".", $wire), self.$field.to_string()));)+
            }
        }

        read_record!($patch in $place { $($field $wire),+ });
        deserialize_as_field!($patch);

        #[cfg(feature = "resources")]
        described!($patch as $place { $([$($field_doc)*] $wire: $type $(, in $range)?;)+ });
    };
}

/// The whole: one field for each group.
macro_rules! whole {
    ($($(#[doc = $doc:literal])* $field:ident $wire:literal: $group:ident, $patch:ident;)+) => {
        /// The settings that a relay obeys, complete. Its `Default` is what runs when nobody says anything.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct Settings {
            $($(#[doc = $doc])* #[serde(rename = $wire)] pub $field: $group,)+
        }

        /// What one document says about the settings. Nothing is defaulted in it, so that documents can be merged.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct Patch {
            $($(#[doc = $doc])* #[serde(rename = $wire, skip_serializing_if = "Option::is_none")] pub $field: Option<$patch>,)+
        }

        impl Patch {
            /// Both together, field by field; where both say something, `over` is believed.
            pub fn merge(&self, over: &Self) -> Self {
                Self {
                    $($field: match (self.$field, over.$field) {
                        (Some(under), Some(over)) => Some(under.merge(&over)),
                        (under, over) => over.or(under),
                    },)+
                }
            }

            /// The path of every field that is set, such as `backoff.initial`, and its value as it is written in a document.
            pub fn fields(&self) -> Vec<(&'static str, String)> {
                let mut fields = Vec::new();
                $(if let Some(group) = &self.$field { group.describe(&mut fields); })+
                fields
            }
        }

        impl From<Settings> for Patch {
            fn from(settings: Settings) -> Self {
                Self { $($field: Some(settings.$field.into()),)+ }
            }
        }

        impl Settings {
            pub(super) fn from_layers(layers: &[(Source, &Patch)], report: &mut Report) -> Self {
                Self {
                    $($field: {
                        let layers: Vec<_> =
                            layers.iter().map(|(source, patch)| (*source, patch.$field.unwrap_or_default())).collect();
                        $group::resolve(&layers, report)
                    },)+
                }
            }

            /// Every field's path, such as `backoff.initial`, and its value as it is written in a document.
            pub fn fields(&self) -> Vec<(&'static str, String)> {
                let mut fields = Vec::new();
                $(self.$field.describe(&mut fields);)+
                fields
            }
        }

        read_record!(Patch in "settings" { $($field $wire),+ });
        deserialize_as_field!(Patch);

        #[cfg(feature = "resources")]
        described!(Patch as "settings" { $([$($doc)*] $wire: $patch;)+ });
    };
}

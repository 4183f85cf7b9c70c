//! What the settings are to a Kubernetes API server: types, patterns, ranges and rules that one object shows by itself, made
//! from their declaration. It never gives a default: a defaulted field could not be left out, and nothing would merge.

use std::fmt::Display;
use std::ops::RangeInclusive;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::units::{Size, Span};

/// Characters of a text that is a duration or a size, at most: enough for every value, and a bound for the cost of rules.
const TEXT_CHARACTERS_MOST: u32 = 24;

/// A value of a setting, as a schema describes it.
pub(super) trait Described {
    /// Its type and pattern.
    fn schema(generator: &mut SchemaGenerator) -> Map<String, Value>;

    /// What says that a value is in `range`.
    fn bounds(range: &RangeInclusive<Self>) -> Map<String, Value>
    where
        Self: Sized;
}

/// `impl Described` for types that have no range: words, truths, groups.
macro_rules! described_by {
    ($($type:ty),+ $(,)?) => {$(
        impl Described for $type {
            fn schema(generator: &mut SchemaGenerator) -> Map<String, Value> {
                object(<$type as schemars::JsonSchema>::json_schema(generator))
            }
            fn bounds(_: &RangeInclusive<Self>) -> Map<String, Value> {
                Map::new()
            }
        }
    )+};
}

impl Described for u32 {
    fn schema(_: &mut SchemaGenerator) -> Map<String, Value> {
        object(json_schema!({"type": "integer", "format": "int64"}))
    }
    fn bounds(range: &RangeInclusive<Self>) -> Map<String, Value> {
        object(json_schema!({"minimum": range.start(), "maximum": range.end()}))
    }
}

impl Described for Span {
    fn schema(_: &mut SchemaGenerator) -> Map<String, Value> {
        object(
            json_schema!({"type": "string", "maxLength": TEXT_CHARACTERS_MOST, "pattern": "^[0-9]+(us|ms|s|m|h)$"}),
        )
    }
    fn bounds(range: &RangeInclusive<Self>) -> Map<String, Value> {
        let (least, most) = (range.start(), range.end());
        between(
            format!(
                "duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"
            ),
            range,
        )
    }
}

impl Described for Size {
    fn schema(_: &mut SchemaGenerator) -> Map<String, Value> {
        object(json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": TEXT_CHARACTERS_MOST,
            "pattern": "^[0-9]+(Ki|Mi|Gi)?$",
        }))
    }
    fn bounds(range: &RangeInclusive<Self>) -> Map<String, Value> {
        let compared =
            |bound: &Self| format!("quantity(string(self)).compareTo(quantity('{bound}'))");
        let (least, most) = (compared(range.start()), compared(range.end()));
        between(format!("{least} >= 0 && {most} <= 0"), range)
    }
}

fn between<T: Display>(rule: String, range: &RangeInclusive<T>) -> Map<String, Value> {
    let (least, most) = (range.start(), range.end());
    let message = format!("must be between {least} and {most}");
    object(json_schema!({"x-kubernetes-validations": [{"rule": rule, "message": message}]}))
}

/// The rules between fields of a group, of which each may be left out.
fn rules(group: &str) -> Vec<Value> {
    let duration = |field: &str| format!("duration(self.{field})");
    let size = |field: &str| format!("quantity(string(self.{field}))");
    let number = |field: &str| format!("self.{field}");
    let rule = |[low, high]: [&str; 2], comparison: String, problem: &str| {
        vec![json!({
            "rule": format!("!has(self.{low}) || !has(self.{high}) || {comparison}"),
            "message": format!("{group}.{low} must be {problem} {group}.{high}"),
            "fieldPath": format!(".{low}"),
        })]
    };
    match group {
        "backoff" => {
            let comparison = format!("{} <= {}", duration("initial"), duration("max"));
            rule(["initial", "max"], comparison, "at most")
        }
        "batch" => {
            let comparison = format!("{} <= {}", number("min"), number("max"));
            rule(["min", "max"], comparison, "at most")
        }
        "accept" => {
            let fields = ["resumeBelowPercent", "pauseAbovePercent"];
            let comparison = fields.map(number).join(" < ");
            rule(fields, comparison, "less than")
        }
        "buffers" => {
            let (direction, pool) = (size("perDirection"), size("pool"));
            let comparison = format!("{direction}.compareTo({pool}) <= 0");
            rule(["perDirection", "pool"], comparison, "at most")
        }
        "timeouts" => {
            let comparison = format!("{} <= {}", duration("drainNotice"), duration("drain"));
            rule(["drainNotice", "drain"], comparison, "at most")
        }
        _ => Vec::new(),
    }
}

/// The schema of a group: its fields, none of which is required, and its rules.
pub(super) fn group(name: &str, fields: Map<String, Value>) -> Schema {
    let mut group = Map::new();
    group.insert("type".to_owned(), json!("object"));
    group.insert("properties".to_owned(), fields.into());
    let rules = rules(name);
    if !rules.is_empty() {
        group.insert("x-kubernetes-validations".to_owned(), rules.into());
    }
    group.into()
}

/// One field: its type, what it means, and its bounds.
pub(super) fn field(meaning: &[&str], parts: [Map<String, Value>; 2]) -> Value {
    let meaning = meaning.iter().map(|line| line.trim()).collect::<Vec<_>>();
    let mut field: Map<String, Value> = parts.into_iter().flatten().collect();
    field.insert("description".to_owned(), meaning.join(" ").into());
    field.into()
}

fn object(schema: Schema) -> Map<String, Value> {
    match schema.to_value() {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// `impl JsonSchema` for a group or the whole, from its fields.
macro_rules! described {
    ($patch:ident as $place:literal {
        $([$($meaning:literal)*] $wire:literal: $type:ty $(, in $range:expr)?;)+
    }) => {
        impl schemars::JsonSchema for $patch {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($patch).into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                use super::schema::Described;
                let mut fields = serde_json::Map::new();
                $(
                    #[allow(unused_mut, unused_assignments)]
                    let mut bounds = serde_json::Map::new();
                    $(bounds = <$type>::bounds(&($range));)?
                    let parts = [<$type>::schema(generator), bounds];
                    fields.insert($wire.to_owned(), super::schema::field(&[$($meaning),*], parts));
                )+
                super::schema::group($place, fields)
            }
        }
    };
}

mod described_types {
    use std::ops::RangeInclusive;

    use schemars::SchemaGenerator;
    use serde_json::{Map, Value};

    use super::super::groups::{
        AcceptPatch, AccessLogMode, AccessLogPatch, BackoffPatch, BatchMode, BatchPatch,
        BuffersPatch, Jitter, ReadinessMode, ReadinessPatch, TargetCheckMode, TargetCheckPatch,
        TcpPatch, TimeoutsPatch,
    };
    use super::{Described, object};

    described_by!(
        bool,
        Jitter,
        BatchMode,
        ReadinessMode,
        TargetCheckMode,
        AccessLogMode,
        BackoffPatch,
        BatchPatch,
        AcceptPatch,
        BuffersPatch,
        TimeoutsPatch,
        ReadinessPatch,
        TargetCheckPatch,
        TcpPatch,
        AccessLogPatch,
    );
}

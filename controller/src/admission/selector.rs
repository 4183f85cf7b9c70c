//! The syntax of label selectors, which the schema of a resource cannot express: one that is wrong would match nothing, silently. It
//! owns Kubernetes' rules for labels; it matches nothing itself.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use ringside_api::sentence::quoted;

/// The longest name and value of a label, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// The longest prefix of a label, in bytes.
const PREFIX_BYTES_MAX: usize = 253;

/// Checks every label of a selector.
pub(crate) fn check_syntax(selector: &LabelSelector) -> Result<(), String> {
    for (key, value) in selector.match_labels.iter().flatten() {
        check_key("podSelector.matchLabels", key)?;
        check_value("podSelector.matchLabels", value)?;
    }
    for expression in selector.match_expressions.iter().flatten() {
        const FIELD: &str = "podSelector.matchExpressions";
        check_key(FIELD, &expression.key)?;
        let values = expression.values.as_deref().unwrap_or_default();
        values
            .iter()
            .try_for_each(|value| check_value(FIELD, value))?;
        let operator = expression.operator.as_str();
        let takes_values = matches!(operator, "In" | "NotIn");
        if !takes_values && !matches!(operator, "Exists" | "DoesNotExist") {
            return Err(format!(
                "{FIELD}: {} is no operator: write In, NotIn, Exists or DoesNotExist",
                quoted(operator)
            ));
        }
        if takes_values == values.is_empty() {
            let needed = if takes_values {
                "at least one value"
            } else {
                "no values"
            };
            return Err(format!(
                "{FIELD}: {operator} of {} takes {needed}",
                quoted(&expression.key)
            ));
        }
    }
    Ok(())
}

fn check_key(field: &str, key: &str) -> Result<(), String> {
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_prefix = |prefix: &str| {
        let is_part = |part: &str| {
            let allowed =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(allowed)
        };
        prefix.len() <= PREFIX_BYTES_MAX && prefix.split('.').all(is_part)
    };
    if !name.is_empty() && is_label(name) && prefix.is_none_or(is_prefix) {
        return Ok(());
    }
    Err(format!(
        "{field}: {} is no label: write NAME or PREFIX/NAME, NAME of 1 to {LABEL_BYTES_MAX} letters, digits and -_. with a letter or digit at either end",
        quoted(key)
    ))
}

fn check_value(field: &str, value: &str) -> Result<(), String> {
    if is_label(value) {
        return Ok(());
    }
    Err(format!(
        "{field}: {} is no label's value: write at most {LABEL_BYTES_MAX} letters, digits and -_. with a letter or digit at either end",
        quoted(value)
    ))
}

fn is_label(text: &str) -> bool {
    let is_end = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= LABEL_BYTES_MAX
        && text.bytes().all(allowed)
        && is_end(text.bytes().next())
        && is_end(text.bytes().next_back())
}

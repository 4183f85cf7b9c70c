//! An answer of the controller, understood as far as it can be: settings that this version does not know are an offer that it refuses,
//! and not an answer that it cannot read.

use ringside_api::sync::{Answer, Assigned, Offer, RefusedOffer};
use serde_json::Value;

/// The longest hash that is repeated.
const HASH_CHARS_MAX: usize = 64;

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Understood {
    /// All but the offer.
    pub(super) answer: Answer,
    /// The offer.
    pub(super) offer: Offered,
}

/// An offer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Offered {
    /// What runs already, and why.
    Keep(String),
    /// These settings, or why they cannot be read.
    Run(Result<Box<Assigned>, RefusedOffer>),
}

/// Reads an answer.
///
/// # Errors
/// A sentence: it is none.
pub(super) fn understand(body: &[u8]) -> Result<Understood, String> {
    let no_answer = |error: serde_json::Error| format!("it is no answer: {error}");
    let mut value: Value = serde_json::from_slice(body).map_err(no_answer)?;
    if value.get("offer").is_none() {
        return Err("it is no answer: it has no offer".to_owned());
    }
    let offered = value
        .pointer_mut("/offer/Run")
        .map(std::mem::take)
        .filter(Value::is_object);
    let run = offered.map(|offered| {
        if let Some(offer) = value.get_mut("offer") {
            *offer = serde_json::json!({"Keep": ""});
        }
        assigned(offered)
    });
    let answer: Answer = serde_json::from_value(value).map_err(no_answer)?;
    let offer = match (run, &answer.offer) {
        (Some(run), _) => Offered::Run(run),
        (None, Offer::Keep(why)) => Offered::Keep(why.clone()),
        (None, Offer::Run(assigned)) => Offered::Run(Ok(assigned.clone())),
    };
    Ok(Understood { answer, offer })
}

fn assigned(offered: Value) -> Result<Box<Assigned>, RefusedOffer> {
    let hash = offered.get("hash").and_then(Value::as_str);
    let hash: String = hash
        .unwrap_or_default()
        .chars()
        .take(HASH_CHARS_MAX)
        .collect();
    match serde_json::from_value::<Assigned>(offered) {
        Ok(assigned) if assigned.hash.is_empty() => Ok(Box::new(Assigned {
            hash: assigned.layers.hash(),
            ..assigned
        })),
        Ok(assigned) => Ok(Box::new(Assigned { hash, ..assigned })),
        Err(error) => Err(RefusedOffer {
            hash,
            why: format!(
                "the settings are not understood by version {}: {error}",
                crate::VERSION
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringside_api::sync::LeaveAnswer;

    use super::*;

    #[test]
    fn an_answer_is_read_with_what_it_has_beyond_this_version() {
        let text = r#"{"offer": {"Run": {"hash": "ab", "policy": "api", "layers": {"policy": {"timeouts": {"idle": "9s"}}},
            "since": 4}}, "permit": true, "leave": {"granted": {"forMillis": 5000}}, "news": []}"#;
        let read = understand(text.as_bytes()).unwrap();
        assert!(read.answer.permit);
        assert_eq!(
            read.answer.leave,
            Some(LeaveAnswer::Granted { for_millis: 5000 })
        );
        let Offered::Run(Ok(assigned)) = read.offer else {
            panic!("{read:?}")
        };
        assert_eq!(
            (assigned.hash.as_str(), assigned.policy.as_str()),
            ("ab", "api")
        );
        let keep = understand(br#"{"offer": {"Keep": "not accepted"}}"#).unwrap();
        assert_eq!(keep.offer, Offered::Keep("not accepted".to_owned()));
    }

    #[test]
    fn an_offer_that_is_not_understood_is_refused_and_the_rest_believed() {
        for layers in [
            r#"{"policy": {"warp": {"speed": 9}}}"#,
            r#"{"policy": {"timeouts": {"idle": "soon"}}}"#,
        ] {
            let text = format!(
                r#"{{"offer": {{"Run": {{"hash": "cd", "layers": {layers}}}}}, "permit": true}}"#
            );
            let read = understand(text.as_bytes()).unwrap();
            assert!(read.answer.permit);
            let Offered::Run(Err(refused)) = read.offer else {
                panic!("{read:?}")
            };
            assert_eq!(refused.hash, "cd");
            assert!(
                refused.why.contains("warp") || refused.why.contains("soon"),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn what_is_no_answer_gets_a_sentence() {
        for text in [
            "",
            "{",
            "[]",
            "{}",
            "\"ok\"",
            "<html>",
            r#"{"offer": 3}"#,
            r#"{"offer": {"Run": 3}}"#,
            r#"{"permit": "yes"}"#,
        ] {
            let said = understand(text.as_bytes()).unwrap_err();
            assert!(said.starts_with("it is no answer"), "{text}: {said}");
        }
        assert!(understand("[".repeat(100_000).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = understand(&bytes);
        }
    }
}

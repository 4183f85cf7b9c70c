//! `/history`: the last minutes, for the live page and `ringside top`: a sample of each second, and events. It owns how they are sent;
//! `?after=MARK` asks for what came after an answer's `mark`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Of;
use axum::http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};

use crate::process::State;
use crate::process::history::{Columns, EVERY, Event, Kind, SAMPLES_KEPT, Since};
use crate::time::Time;

/// The document. Times are in milliseconds since the process's epoch; add `startedMillis` for the calendar's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Document {
    /// When the process began, in milliseconds since 1970. Tells one process from the next.
    pub started_millis: u64,
    /// The time now, since the process's epoch.
    pub now_millis: u64,
    /// The time between samples.
    pub every_millis: u64,
    /// Samples that are kept at most.
    pub samples_kept: u64,
    /// What to ask by the next time.
    pub mark: u64,
    /// Samples, oldest first.
    pub samples: Columns,
    /// Events that are new or were told again.
    pub events: Vec<ShownEvent>,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownEvent {
    /// Its number, from 1.
    pub number: u64,
    /// When it happened first.
    pub at_millis: u64,
    /// When it happened last.
    pub until_millis: u64,
    /// What it is about.
    pub kind: Kind,
    /// What happened.
    pub sentence: String,
    /// How often.
    pub count: u64,
}

fn millis(time: Time) -> u64 {
    time.as_nanos() / 1_000_000
}

impl From<Event> for ShownEvent {
    fn from(event: Event) -> Self {
        ShownEvent {
            number: event.number,
            at_millis: millis(event.at),
            until_millis: millis(event.until),
            kind: event.kind,
            sentence: event.sentence,
            count: event.count,
        }
    }
}

/// The mark that is asked by; 0 where none is.
fn mark(query: Option<&str>) -> Result<u64, ()> {
    match query {
        None | Some("") => Ok(0),
        Some(query) => query
            .strip_prefix("after=")
            .and_then(|number| number.parse().ok())
            .ok_or(()),
    }
}

/// Shows the last minutes.
pub(super) async fn history(
    Of(state): Of<Arc<State>>,
    uri: Uri,
) -> Result<Json<Document>, (StatusCode, &'static str)> {
    let mark = mark(uri.query()).map_err(|()| {
        let sentence = "this is not understood: ask for /history, or /history?after=MARK with the mark of an answer\n";
        (StatusCode::BAD_REQUEST, sentence)
    })?;
    let Since {
        mark,
        samples,
        events,
    } = state.history.since(mark);
    let since_1970 = state.started.duration_since(std::time::UNIX_EPOCH);
    Ok(Json(Document {
        started_millis: since_1970.map_or(0, |since| since.as_millis() as u64),
        now_millis: millis(state.now()),
        every_millis: EVERY.as_millis() as u64,
        samples_kept: SAMPLES_KEPT as u64,
        mark,
        samples,
        events: events.into_iter().map(ShownEvent::from).collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_a_number_or_nothing() {
        assert_eq!(mark(None), Ok(0));
        assert_eq!(mark(Some("after=12")), Ok(12));
        for nonsense in [
            "after=",
            "after=-1",
            "before=3",
            "after=99999999999999999999",
        ] {
            assert_eq!(mark(Some(nonsense)), Err(()), "{nonsense}");
        }
    }
}

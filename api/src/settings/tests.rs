use proptest::prelude::*;

use super::*;
use crate::{Size, Span};

fn patch(yaml: &str) -> Patch {
    serde_yaml::from_str(yaml).unwrap()
}

fn refusals(yaml: &str) -> Vec<String> {
    let violations = Settings::resolve(&[(Source::File, &patch(yaml))]).unwrap_err();
    violations.iter().map(ToString::to_string).collect()
}

fn reading_error(yaml: &str) -> String {
    serde_yaml::from_str::<Patch>(yaml).unwrap_err().to_string()
}

/// The defaults as the documentation of a RelayPolicy shows them.
const DOCUMENTED: &str = "
backoff: {initial: 50us, max: 50ms, multiplierPercent: 200, jitter: Full, maxRetries: 10}
batch: {mode: Adaptive, min: 8, max: 256}
accept: {maxConnections: 4096, perSource: 0, maxPerSecond: 5000, backlog: 4096, pauseAbovePercent: 95,
  resumeBelowPercent: 80, descriptorReserve: 32}
buffers: {pool: 8Mi, perDirection: 256Ki, pipes: 128}
timeouts: {connect: 2s, idle: 1h, halfClose: 60s, drain: 30s, drainNotice: 1s}
readiness: {mode: Leave, pushbackPercent: 50, unreadyAfter: 2s, recoverAfter: 10s, maxUnreadyPercent: 50}
targetCheck: {mode: Close, interval: 1s, failures: 2, successes: 1}
tcp: {keepalive: 60s, userTimeout: 30s, noDelay: true}
accessLog: {mode: Errors, maxPerSecond: 100}
";

#[test]
fn the_defaults_are_the_documented_ones() {
    assert_eq!(patch(DOCUMENTED), Patch::from(Settings::default()));
    assert_eq!(Settings::resolve(&[]).unwrap(), Resolved::default());
}

#[test]
fn a_patch_is_written_as_it_was_read_and_leaves_out_what_is_unset() {
    let written =
        serde_yaml::to_string(&patch("{tcp: {noDelay: false}, buffers: {pool: 1048576}}")).unwrap();
    assert_eq!(written, "buffers:\n  pool: 1Mi\ntcp:\n  noDelay: false\n");
}

#[test]
fn null_is_unset() {
    assert_eq!(
        patch("{backoff: ~, batch: {min: ~}}").batch.unwrap().min,
        None
    );
    assert_eq!(patch("{backoff: }").merge(&patch("{}")), Patch::default());
}

#[test]
fn words_that_other_yaml_readers_take_for_truth_or_null_are_words() {
    let patch = patch("{accessLog: {mode: Off}, backoff: {jitter: None}}");
    assert_eq!(patch.access_log.unwrap().mode, Some(AccessLogMode::Off));
    assert_eq!(patch.backoff.unwrap().jitter, Some(Jitter::None));
}

#[test]
fn the_last_layer_wins_and_each_field_knows_its_layer() {
    let file = patch("{backoff: {initial: 100us, max: 80ms}, tcp: {noDelay: false}}");
    let controller = patch("{backoff: {max: 90ms}}");
    let resolved =
        Settings::resolve(&[(Source::File, &file), (Source::Controller, &controller)]).unwrap();
    assert_eq!(resolved.settings.backoff.initial, Span::from_micros(100));
    assert_eq!(resolved.settings.backoff.max, Span::from_millis(90));
    assert_eq!(resolved.source_of("backoff.initial"), Some(Source::File));
    assert_eq!(resolved.source_of("backoff.max"), Some(Source::Controller));
    assert_eq!(resolved.source_of("backoff.jitter"), Some(Source::Default));
    assert_eq!(resolved.source_of("backoff.jittre"), None);
    let shown = resolved
        .fields()
        .into_iter()
        .find(|field| field.field == "backoff.max")
        .unwrap();
    assert_eq!(
        (shown.value.as_str(), shown.source),
        ("90ms", Source::Controller)
    );
}

#[test]
fn violations_name_field_value_and_what_is_allowed() {
    assert_eq!(
        refusals("backoff: {initial: 60ms}"),
        ["backoff.initial is 60ms, but must be at most backoff.max (50ms)"]
    );
    assert_eq!(
        refusals("batch: {min: 300}"),
        ["batch.min is 300, but must be at most batch.max (256)"]
    );
    assert_eq!(
        refusals("accept: {resumeBelowPercent: 95}"),
        ["accept.resumeBelowPercent is 95, but must be less than accept.pauseAbovePercent (95)"]
    );
    assert_eq!(
        refusals("buffers: {pool: 128Ki}"),
        ["buffers.perDirection is 256Ki, but must be at most buffers.pool (128Ki)"]
    );
    assert_eq!(
        refusals("timeouts: {drain: 0s}"),
        ["timeouts.drainNotice is 1s, but must be at most timeouts.drain (0s)"]
    );
    assert_eq!(
        refusals("accept: {maxPerSecond: 0}"),
        ["accept.maxPerSecond is 0, but must be between 1 and 1000000"]
    );
    assert_eq!(
        refusals("tcp: {keepalive: 1500ms}"),
        ["tcp.keepalive is 1500ms, but must be a number of whole seconds"]
    );
    assert_eq!(
        refusals("tcp: {userTimeout: 10us}"),
        ["tcp.userTimeout is 10us, but must be a number of whole milliseconds"]
    );
}

#[test]
fn all_violations_are_reported_but_one_per_field() {
    let refused = refusals("{backoff: {initial: 2s, maxRetries: 0}, batch: {max: 0}}");
    assert_eq!(
        refused,
        [
            "backoff.initial is 2s, but must be between 1us and 1s",
            "backoff.maxRetries is 0, but must be between 1 and 1000",
            "batch.max is 0, but must be between 1 and 4096",
            "batch.min is 8, but must be at most batch.max (0)",
        ]
    );
}

#[test]
fn a_violation_knows_who_set_the_value() {
    let (file, over) = (patch("batch: {min: 100}"), patch("batch: {max: 50}"));
    let violations =
        Settings::resolve(&[(Source::File, &file), (Source::Controller, &over)]).unwrap_err();
    assert_eq!(violations[0].source_of_value, Source::File);
}

#[test]
fn unknown_repeated_and_misshapen_fields_get_a_sentence() {
    assert_eq!(
        reading_error("backof: {}"),
        "unknown field `backof` in settings: did you mean `backoff`?"
    );
    assert_eq!(
        reading_error("batch:\n  mode: Fixed\n  maxi: 3"),
        "batch: unknown field `maxi` in batch: did you mean `max`? at line 3 column 3"
    );
    assert!(reading_error("podSelector: {}").contains("known are backoff, batch, accept"));
    assert!(
        reading_error("batch: {min: 1, min: 2}").contains("field `min` is given twice in batch")
    );
    assert!(reading_error("batch: 5").contains("expected the fields of batch: mode, min, max"));
    assert!(reading_error("batch: {min: [1]}").contains("expected a whole number"));
    assert!(reading_error("batch: {min: '8'}").contains("`8` is text, but must be a number"));
    assert!(reading_error("batch: {min: -1}").contains("-1 is out of range"));
    assert!(reading_error("batch: {min: 1.5}").contains("1.5 is not a whole number"));
    assert!(
        reading_error("batch: {mode: adaptive}")
            .contains("must be one of Adaptive, Fixed; did you mean `Adaptive`?")
    );
    assert!(reading_error("tcp: {noDelay: yes}").contains("`yes` must be true or false"));
    assert!(reading_error("timeouts: {idle: 5}").contains("`5` has no unit"));
}

#[test]
fn the_hash_follows_meaning_not_writing() {
    let hash = |yaml: &str| {
        Settings::resolve(&[(Source::File, &patch(yaml))])
            .unwrap()
            .settings
            .hash()
    };
    assert_eq!(hash("{}"), hash(DOCUMENTED));
    assert_eq!(
        hash("timeouts: {idle: 60m}"),
        hash("timeouts: {idle: 3600s}")
    );
    assert_ne!(hash("{}"), hash("timeouts: {idle: 61m}"));
    // Written down, so that a change of its making, which a mixed fleet would show as a difference, is noticed.
    assert_eq!(hash("{}"), "3654ab0f104413f6");
}

#[test]
fn the_bounds_of_every_range_are_themselves_allowed_sizes() {
    let largest = patch("buffers: {pool: 4Gi, perDirection: 1Gi, pipes: 0}");
    let settings = Settings::resolve(&[(Source::File, &largest)])
        .unwrap()
        .settings;
    assert_eq!(settings.buffers.pool, Size::from_mib(4_096));
    let smallest = patch(
        "{buffers: {pool: 128Ki, perDirection: 4Ki}, timeouts: {drain: 0s, drainNotice: 0s}, tcp: {keepalive: 0s}}",
    );
    assert!(Settings::resolve(&[(Source::File, &smallest)]).is_ok());
}

prop_compose! {
    /// A patch with some fields of several groups and types, valid or not.
    fn any_patch()(
        initial in proptest::option::of(any::<u64>()),
        jitter in proptest::option::of(prop_oneof![Just(Jitter::Full), Just(Jitter::Equal), Just(Jitter::None)]),
        has_backoff: bool,
        min in proptest::option::of(any::<u32>()),
        max in proptest::option::of(any::<u32>()),
        has_batch: bool,
        pool in proptest::option::of(any::<u64>()),
        no_delay in proptest::option::of(any::<bool>()),
    ) -> Patch {
        let backoff = BackoffPatch { initial: initial.map(Span::from_micros), jitter, ..BackoffPatch::default() };
        let batch = BatchPatch { min, max, ..BatchPatch::default() };
        Patch {
            backoff: has_backoff.then_some(backoff),
            batch: has_batch.then_some(batch),
            buffers: pool.map(|pool| BuffersPatch { pool: Some(Size::from_bytes(pool)), ..BuffersPatch::default() }),
            tcp: no_delay.map(|no_delay| TcpPatch { no_delay: Some(no_delay), ..TcpPatch::default() }),
            ..Patch::default()
        }
    }
}

proptest! {
    #[test]
    fn merging_nothing_changes_nothing(patch in any_patch()) {
        prop_assert_eq!(patch.merge(&Patch::default()), patch);
        prop_assert_eq!(Patch::default().merge(&patch), patch);
        prop_assert_eq!(patch.merge(&patch), patch);
    }

    #[test]
    fn merging_groups_as_one_likes(a in any_patch(), b in any_patch(), c in any_patch()) {
        prop_assert_eq!(a.merge(&b).merge(&c), a.merge(&b.merge(&c)));
    }

    #[test]
    fn the_last_that_says_something_wins(under in any_patch(), over in any_patch()) {
        let merged = under.merge(&over);
        let min = |patch: &Patch| patch.batch.and_then(|batch| batch.min);
        prop_assert_eq!(min(&merged), min(&over).or(min(&under)));
        let jitter = |patch: &Patch| patch.backoff.and_then(|backoff| backoff.jitter);
        prop_assert_eq!(jitter(&merged), jitter(&over).or(jitter(&under)));
    }

    #[test]
    fn resolving_layers_is_resolving_their_merge(under in any_patch(), over in any_patch()) {
        let apart = Settings::resolve(&[(Source::File, &under), (Source::Controller, &over)]);
        let merged = Settings::resolve(&[(Source::File, &under.merge(&over))]);
        match (apart, merged) {
            (Ok(apart), Ok(merged)) => prop_assert_eq!(apart.settings, merged.settings),
            (Err(apart), Err(merged)) => prop_assert_eq!(apart.len(), merged.len()),
            _ => prop_assert!(false, "one was allowed and the other was not"),
        }
    }

    #[test]
    fn a_patch_survives_being_written(patch in any_patch()) {
        let yaml = serde_yaml::to_string(&patch).unwrap();
        prop_assert_eq!(serde_yaml::from_str::<Patch>(&yaml).unwrap(), patch);
    }

    #[test]
    fn no_text_panics(text in any::<String>(), value in "[ -~]{0,12}") {
        let _ = serde_yaml::from_str::<Patch>(&text);
        for field in ["backoff: {initial: ", "batch: {mode: ", "batch: {min: ", "buffers: {pool: ", "tcp: {noDelay: "] {
            if let Ok(patch) = serde_yaml::from_str::<Patch>(&format!("{field}{value}}}")) {
                let _ = Settings::resolve(&[(Source::File, &patch)]);
            }
        }
    }
}

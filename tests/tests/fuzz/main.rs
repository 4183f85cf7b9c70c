//! What outsiders write, mutated: the configuration, flags, admin requests, and the header told to targets. Nothing of it
//! may panic, hang or cost more than its length, and every refusal says what is wrong and where.

mod admin;
mod configuration;
mod flags;
mod length;
mod proxy_header;

/// A refusal that a person can use: a sentence or more, on one line, of a readable length.
#[track_caller]
fn assert_tells(sentence: &str) {
    assert!(
        sentence.len() > 10,
        "a refusal without a reason: {sentence:?}"
    );
    assert!(
        sentence.chars().count() < 2000,
        "a refusal too long to read"
    );
    let broken = sentence.chars().find(|character| character.is_control());
    assert_eq!(broken, None, "a refusal of several lines: {sentence:?}");
}

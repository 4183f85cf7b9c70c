//! Long inputs: eight times the length may take about eight times the time, and not sixty-four.

use std::time::Duration;

use ringside::logging::LogLevel;
use ringside_api::{Config, Relay};
use ringside_tests::fuzz::cpu_time;

/// A long input of about so many bytes.
type Make = fn(usize) -> String;

fn relays(bytes: usize, one: impl Fn(usize) -> String) -> String {
    let mut text = "relays:\n".to_owned();
    for number in 0.. {
        if text.len() >= bytes {
            break;
        }
        text.push_str(&one(number));
    }
    text
}

const CONFIGURATIONS: [(&str, Make); 16] = [
    ("relays that are fine", |bytes| {
        relays(bytes, |n| {
            format!(
                "- {{name: r{n}, listen: '127.0.0.1:{}', target: 'a:1'}}\n",
                n % 60_000 + 1
            )
        })
    }),
    ("relays of one name", |bytes| {
        relays(bytes, |_| {
            "- {name: web, listen: '127.0.0.1:0', target: 'a:1'}\n".to_owned()
        })
    }),
    ("relays of one port", |bytes| {
        relays(bytes, |n| {
            format!("- {{name: r{n}, listen: '127.0.0.1:1', target: 'a:1'}}\n")
        })
    }),
    ("relays that lead on to the next", |bytes| {
        relays(bytes, |n| {
            format!(
                "- {{name: r{n}, listen: '127.0.0.1:{}', target: '127.0.0.1:{}'}}\n",
                n + 1,
                n + 2
            )
        })
    }),
    ("relays without a target", |bytes| {
        relays(bytes, |n| format!("- {{name: r{n}}}\n"))
    }),
    ("relays of nothing", |bytes| {
        relays(bytes, |_| "- {}\n".to_owned())
    }),
    ("unknown fields", |bytes| {
        relays(bytes, |n| format!("x{n}: 1\n"))
    }),
    ("one long name", |bytes| {
        format!("relays: [{{name: {}}}]", "x".repeat(bytes))
    }),
    ("one long address", |bytes| {
        format!("admin: '{}'", "1".repeat(bytes))
    }),
    ("one long number", |bytes| {
        format!("workers: {}", "1".repeat(bytes))
    }),
    ("one long key", |bytes| format!("{}: 1", "k".repeat(bytes))),
    ("aliases of aliases", |bytes| {
        let mut text = "a0: &a0 [x, x]\n".to_owned();
        for n in 1..(bytes / 40).min(40) {
            text.push_str(&format!("a{n}: &a{n} [*a{}, *a{}]\n", n - 1, n - 1));
        }
        text + &"#".repeat(bytes)
    }),
    ("many aliases", |bytes| {
        format!("a: &a x\nrelays: [{}]", "*a, ".repeat(bytes / 4))
    }),
    ("many documents", |bytes| "---\n".repeat(bytes / 4)),
    ("many tags", |bytes| {
        format!("relays: {}x", "!a ".repeat(bytes / 3))
    }),
    ("line breaks", |bytes| "\n".repeat(bytes)),
];

/// The shortest of a few tries.
fn time(mut work: impl FnMut()) -> Duration {
    let once = |_| {
        let before = cpu_time();
        work();
        cpu_time().saturating_sub(before)
    };
    (0..3).map(once).min().unwrap_or_default()
}

/// Below this nothing is said about growth: it is all beginning and no length.
const TOO_SHORT: Duration = Duration::from_millis(5);

#[track_caller]
fn assert_grows_like_length(what: &str, bytes: usize, work: impl Fn(usize)) {
    let short = time(|| work(bytes)).max(TOO_SHORT);
    let long = time(|| work(8 * bytes));
    assert!(
        long < short * 24,
        "{what}: {short:?} for {bytes} bytes, {long:?} for eight times as many"
    );
}

#[test]
fn long_configurations() {
    for (what, make) in CONFIGURATIONS {
        assert_grows_like_length(what, 32 << 10, |bytes| {
            // Accepted or refused is another test's question.
            let _ = std::hint::black_box(Config::from_yaml(&make(bytes)));
        });
    }
}

#[test]
fn long_flags() {
    let texts: [(&str, Make); 5] = [
        ("a relay of colons", |bytes| {
            format!("a={}", ":".repeat(bytes))
        }),
        ("a relay of brackets", |bytes| {
            format!("a=[{}", "]".repeat(bytes))
        }),
        ("a relay of labels", |bytes| {
            format!("a=0.0.0.0:1:{}:1", "a.".repeat(bytes / 2))
        }),
        ("a relay of a long name", |bytes| {
            format!("{}=0.0.0.0:1:a:1", "a".repeat(bytes))
        }),
        ("a level of commas", |bytes| ",".repeat(bytes)),
    ];
    for (what, make) in texts {
        assert_grows_like_length(what, 32 << 10, |bytes| {
            let text = make(bytes);
            let _ = std::hint::black_box(text.parse::<Relay>());
            let _ = std::hint::black_box(text.parse::<LogLevel>());
        });
    }
}

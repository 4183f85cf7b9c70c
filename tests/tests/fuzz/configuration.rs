//! The configuration: what is accepted is valid and survives being written and read; what is not is told by line or field.

use ringside_api::Config;
use ringside_tests::fuzz::Target;

use crate::assert_tells;

const TARGET: Target = Target {
    name: "configuration",
    words: &[
        "relays:\n",
        "  - {name: web, listen: \"0.0.0.0:15080\", target: \"127.0.0.1:8080\"}\n",
        "name: ",
        "listen: ",
        "target: ",
        "proxyProtocol: ",
        "V2",
        "None",
        "settings:\n",
        "settings: {",
        "admin: ",
        "backend: ",
        "workers: ",
        "auto",
        "ring",
        "epoll",
        "tokio-uring",
        "backoff",
        "initial",
        "max",
        "multiplierPercent",
        "jitter",
        "Full",
        "Equal",
        "maxRetries",
        "batch",
        "mode",
        "Adaptive",
        "Fixed",
        "min",
        "accept",
        "maxConnections",
        "maxPerSecond",
        "backlog",
        "pauseAbovePercent",
        "resumeBelowPercent",
        "descriptorReserve",
        "buffers",
        "pool",
        "perDirection",
        "pipes",
        "timeouts",
        "connect",
        "idle",
        "halfClose",
        "drain",
        "drainNotice",
        "readiness",
        "Leave",
        "Report",
        "pushbackPercent",
        "unreadyAfter",
        "recoverAfter",
        "maxUnreadyPercent",
        "tcp",
        "keepalive",
        "userTimeout",
        "noDelay",
        "true",
        "false",
        "accessLog",
        "Off",
        "Errors",
        "All",
        "null",
        "~",
        "50us",
        "50ms",
        "2s",
        "10m",
        "1h",
        "8Mi",
        "256Ki",
        "1Gi",
        "[::]:15080",
        "unix:/run/app.sock",
        "*:8080",
        "localhost:80",
        "&a ",
        "*a",
        "<<: *a\n",
        "---\n",
        "...\n",
        "!!str ",
        "!!binary ",
        "? ",
        "|\n",
        ">\n",
        "%YAML 1.2\n",
        "\u{feff}",
        "\u{85}",
        "\u{2028}",
    ],
};

fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match Config::from_yaml(&text) {
        Ok(config) => {
            config.check().expect("what is accepted is valid");
            config
                .resolve_settings()
                .expect("what is accepted has settings");
            let written = serde_yaml::to_string(&config).expect("what is accepted can be written");
            let read = Config::from_yaml(&written)
                .unwrap_or_else(|error| panic!("what it writes is refused: {error}\n{written}"));
            assert_eq!(
                read, config,
                "what is written is read otherwise:\n{written}"
            );
        }
        Err(error) => {
            assert!(!error.problems().is_empty(), "refused for nothing");
            for problem in error.problems() {
                assert_tells(&problem.sentence);
                assert!(
                    problem.line.is_some()
                        || !problem.field.is_empty()
                        || problem.sentence.contains("empty")
                        || problem.sentence.contains("more problems"),
                    "neither line nor field: {problem:?}"
                );
                // By its own name, or as the entry of a list that it is.
                let name = problem.field.rsplit('.').next().unwrap_or_default();
                assert!(
                    problem.sentence.contains(name),
                    "the field is not named: {problem:?}"
                );
                // What YAML takes for an end of line, which is more than an editor does.
                let lines = text
                    .split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'])
                    .count()
                    + 1;
                assert!(
                    problem.line.is_none_or(|line| (1..=lines).contains(&line)),
                    "{problem:?}"
                );
            }
        }
    }
}

#[test]
fn configuration() {
    TARGET.fuzz(check);
}

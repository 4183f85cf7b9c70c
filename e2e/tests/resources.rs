//! The custom resources at a real API server, as a user meets them: what is allowed, what is refused and by which sentence, and
//! how kubectl shows them.

use ringside_e2e::apiserver::Namespace;
use ringside_e2e::definitions::installed;

fn policy(spec: &str) -> String {
    format!(
        "{{apiVersion: ringside.dev/v1alpha1, kind: RelayPolicy, metadata: {{name: web}}, spec: {spec}}}"
    )
}

/// Applies a policy, and returns what is said of it.
fn offer(namespace: &Namespace<'_>, spec: &str) -> Result<String, String> {
    let answer = namespace.try_kubectl_with(&["apply", "-f", "-"], &policy(spec));
    if answer.status.success() {
        Ok(answer.out)
    } else {
        Err(answer.err)
    }
}

/// Each rule, with what it allows and what it refuses, and a part of the sentence.
const RULES: [(&str, &str, &str); 24] = [
    (
        "backoff: {initial: 50us, max: 50us}",
        "backoff: {initial: 1s, max: 50ms}",
        "backoff.initial must be at most backoff.max",
    ),
    (
        "backoff: {initial: 1us}",
        "backoff: {initial: 0us}",
        "must be between 1us and 1s",
    ),
    (
        "backoff: {max: 10s}",
        "backoff: {max: 11s}",
        "must be between 1us and 10s",
    ),
    (
        "backoff: {initial: 1ms}",
        "backoff: {initial: 1 ms}",
        "should match",
    ),
    (
        "backoff: {multiplierPercent: 100}",
        "backoff: {multiplierPercent: 99}",
        "greater than or equal to 100",
    ),
    (
        "backoff: {jitter: None}",
        "backoff: {jitter: none}",
        "supported values: \"Full\", \"Equal\", \"None\"",
    ),
    (
        "batch: {min: 8, max: 8}",
        "batch: {min: 9, max: 8}",
        "batch.min must be at most batch.max",
    ),
    (
        "batch: {mode: Fixed}",
        "batch: {mode: Adaptiv}",
        "supported values: \"Adaptive\", \"Fixed\"",
    ),
    (
        "accept: {resumeBelowPercent: 80, pauseAbovePercent: 81}",
        "accept: {resumeBelowPercent: 80, pauseAbovePercent: 80}",
        "accept.resumeBelowPercent must be less than accept.pauseAbovePercent",
    ),
    (
        "accept: {maxConnections: 1}",
        "accept: {maxConnections: 0}",
        "greater than or equal to 1",
    ),
    (
        "accept: {perSource: 0}",
        "accept: {perSource: -1}",
        "greater than or equal to 0",
    ),
    (
        "accept: {backlog: 65535}",
        "accept: {backlog: 65536}",
        "less than or equal to 65535",
    ),
    (
        "buffers: {pool: 128Ki}",
        "buffers: {pool: 127Ki}",
        "must be between 128Ki and 4Gi",
    ),
    (
        "buffers: {pool: 1048576}",
        "buffers: {pool: 1}",
        "must be between 128Ki and 4Gi",
    ),
    (
        "buffers: {perDirection: 1Mi, pool: 1048576}",
        "buffers: {perDirection: 2Mi, pool: 1048576}",
        "buffers.perDirection must be at most buffers.pool",
    ),
    (
        "buffers: {perDirection: 256Ki}",
        "buffers: {perDirection: 256K}",
        "should match",
    ),
    (
        "timeouts: {drainNotice: 30s, drain: 30s}",
        "timeouts: {drainNotice: 31s, drain: 30s}",
        "timeouts.drainNotice must be at most timeouts.drain",
    ),
    (
        "timeouts: {idle: 720h}",
        "timeouts: {idle: 721h}",
        "must be between 10ms and 720h",
    ),
    (
        "timeouts: {connect: 1ms}",
        "timeouts: {connect: 2}",
        "must be of type string",
    ),
    (
        "readiness: {maxUnreadyPercent: 100}",
        "readiness: {maxUnreadyPercent: 101}",
        "less than or equal to 100",
    ),
    (
        "readiness: {mode: Report}",
        "readiness: {mode: Off}",
        "supported values",
    ),
    (
        "tcp: {noDelay: false}",
        "tcp: {noDelay: 'no'}",
        "must be of type boolean",
    ),
    (
        "targetCheck: {failures: 1}",
        "targetCheck: {failures: 0}",
        "greater than or equal to 1",
    ),
    (
        "accessLog: {maxPerSecond: 100}",
        "accessLog: {maxPersecond: 100}",
        "unknown field \"spec.accessLog.maxPersecond\"",
    ),
];

#[test]
fn each_rule_allows_what_it_should_and_refuses_the_rest_with_a_sentence() {
    let Some(server) =
        installed("each_rule_allows_what_it_should_and_refuses_the_rest_with_a_sentence")
    else {
        return;
    };
    let namespace = server.namespace("rules");
    for (allowed, refused, sentence) in RULES {
        offer(&namespace, &format!("{{{allowed}}}"))
            .unwrap_or_else(|error| panic!("{allowed}: {error}"));
        let error = offer(&namespace, &format!("{{{refused}}}")).expect_err(refused);
        assert!(error.contains(sentence), "{refused}: {error}");
    }
}

#[test]
fn the_one_cluster_policy_is_named_default() {
    let Some(server) = installed("the_one_cluster_policy_is_named_default") else {
        return;
    };
    let named = |name: &str| {
        let policy = format!(
            "{{apiVersion: ringside.dev/v1alpha1, kind: ClusterRelayPolicy, metadata: {{name: {name}}}, spec: {{batch: {{min: 8}}}}}}"
        );
        server.try_kubectl_with(&["apply", "-f", "-"], &policy)
    };
    let other = named("other");
    assert!(
        other
            .err
            .contains("the one ClusterRelayPolicy that applies is named default"),
        "{other}"
    );
    assert!(named("default").status.success());
    server.kubectl(&["delete", "clusterrelaypolicy", "default"]);
}

#[test]
fn kubectl_shows_explains_and_keeps_what_was_written() {
    let Some(server) = installed("kubectl_shows_explains_and_keeps_what_was_written") else {
        return;
    };
    let namespace = server.namespace("shown");
    offer(
        &namespace,
        "{podSelector: {matchLabels: {app: web}}, batch: {max: 64}}",
    )
    .unwrap();
    // Nothing that was not written is there: what is unset stays unset.
    let spec = namespace.kubectl(&["get", "rlp", "web", "-o=jsonpath={.spec}"]);
    assert_eq!(
        spec,
        r#"{"batch":{"max":64},"podSelector":{"matchLabels":{"app":"web"}}}"#
    );
    let table = namespace.kubectl(&["get", "rlp", "-o", "wide"]);
    for column in [
        "NAME",
        "ACCEPTED",
        "PROGRAMMED",
        "READY",
        "DEGRADED",
        "RING",
        "EPOLL",
        "REASON",
        "AGE",
    ] {
        assert!(table.contains(column), "{table}");
    }
    let explained = server.kubectl(&["explain", "rlp.spec.backoff.initial"]);
    assert!(
        explained.contains("The most that the first delay may be"),
        "{explained}"
    );
    // Two owners of different fields do not take each other's away.
    let apply = |manager: &str, spec: &str| {
        namespace.try_kubectl_with(
            &[
                "apply",
                "--server-side",
                "--field-manager",
                manager,
                "-f",
                "-",
            ],
            &policy(spec),
        )
    };
    assert!(apply("one", "{accept: {backlog: 128}}").status.success());
    assert!(
        apply("two", "{accept: {maxConnections: 100}}")
            .status
            .success()
    );
    let accept = namespace.kubectl(&["get", "rlp", "web", "-o=jsonpath={.spec.accept}"]);
    assert_eq!(accept, r#"{"backlog":128,"maxConnections":100}"#);
}

#[test]
fn statuses_merge_by_the_type_of_their_conditions() {
    let Some(server) = installed("statuses_merge_by_the_type_of_their_conditions") else {
        return;
    };
    let namespace = server.namespace("status");
    offer(&namespace, "{}").unwrap();
    let condition = |kind: &str, manager: &str| {
        let status = format!(
            "{{apiVersion: ringside.dev/v1alpha1, kind: RelayPolicy, metadata: {{name: web}}, status: {{conditions: [{{type: {kind}, status: \"True\", \
             reason: Good, message: well, observedGeneration: 1, lastTransitionTime: \"2026-01-01T00:00:00Z\"}}]}}}}"
        );
        let arguments = [
            "apply",
            "--server-side",
            "--subresource=status",
            "--field-manager",
            manager,
            "-f",
            "-",
        ];
        let answer = namespace.try_kubectl_with(&arguments, &status);
        assert!(answer.status.success(), "{answer}");
    };
    condition("Accepted", "one");
    condition("Ready", "two");
    namespace.kubectl(&[
        "wait",
        "rlp/web",
        "--for=condition=Accepted",
        "--timeout=5s",
    ]);
    namespace.kubectl(&["wait", "rlp/web", "--for=condition=Ready", "--timeout=5s"]);
    let described = namespace.kubectl(&["describe", "rlp", "web"]);
    assert!(
        described.contains("Accepted") && described.contains("Observed Generation"),
        "{described}"
    );
}

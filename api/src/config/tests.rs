use proptest::prelude::*;

use super::*;

fn refusal(yaml: &str) -> String {
    Config::from_yaml(yaml).unwrap_err().to_string()
}

fn relay(yaml: &str) -> String {
    format!("relays:\n  - {yaml}\n")
}

#[test]
fn a_whole_document_is_read() {
    let config = Config::from_yaml(
        r#"
relays:
  - {name: web, listen: "0.0.0.0:15080", target: "127.0.0.1:8080", proxyProtocol: V2}
  - {name: db, listen: "[::]:15432", target: "unix:/run/db.sock"}
  - {name: far, listen: "127.0.0.1:0", target: "app.shop.svc:80"}
settings:
  backoff: {initial: 100us}
admin: "127.0.0.1:0"
backend: tokio-uring
workers: 3
"#,
    )
    .unwrap();
    assert_eq!(config.relays.len(), 3);
    assert_eq!(config.relays[0].proxy_protocol, ProxyProtocol::V2);
    assert_eq!(
        config.relays[0].target,
        Target::Address("127.0.0.1:8080".parse().unwrap())
    );
    assert!(config.relays[1].listen.is_dual_stack());
    assert_eq!(config.relays[1].target, Target::Unix("/run/db.sock".into()));
    assert_eq!(
        config.relays[2].target,
        Target::Host {
            host: "app.shop.svc".into(),
            port: 80
        }
    );
    assert_eq!(config.backend, BackendChoice::TokioUring);
    assert_eq!(config.workers.to_string(), "3");
    let resolved = config.resolve_settings().unwrap();
    assert_eq!(resolved.source_of("backoff.initial"), Some(Source::File));
}

#[test]
fn what_is_left_out_is_defaulted() {
    let config = Config::from_yaml(&relay(
        r#"{name: web, listen: "0.0.0.0:80", target: "app:8080"}"#,
    ))
    .unwrap();
    assert_eq!(config.admin.to_string(), "0.0.0.0:15490");
    assert_eq!(config.backend, BackendChoice::Auto);
    assert_eq!(config.workers, Workers::Auto);
    assert_eq!(
        config,
        Config::of_relays(vec!["web=0.0.0.0:80:app:8080".parse().unwrap()])
    );
}

#[test]
fn reading_errors_name_line_field_and_what_is_allowed() {
    assert_eq!(
        refusal("relays: []\nsettings:\n  backof: {}\n"),
        "line 3, column 3: unknown field `backof` in settings: did you mean `backoff`?"
    );
    assert_eq!(
        refusal("relays: []\nsettings:\n  timeouts:\n    idle: 5\n"),
        "line 4, column 11: settings.timeouts.idle: `5` has no unit: write a whole number and a unit of us, ms, s, m or h, such as 50us or 30s"
    );
    assert_eq!(
        refusal("relays:\n  - name: web\n    listen: 15080\n"),
        "line 3, column 13: relays[0].listen: `15080` is no address to listen on: write IP:PORT, such as 0.0.0.0:15080, or [::]:15080 for IPv6 and IPv4"
    );
    let error = Config::from_yaml("relays: []\nbackend: rings\n").unwrap_err();
    let problem = &error.problems()[0];
    assert_eq!(
        (problem.line, problem.column, problem.field.as_str()),
        (Some(2), Some(10), "backend")
    );
    assert!(
        problem.sentence.contains("did you mean `ring`?"),
        "{problem}"
    );
    assert!(refusal("workers: 0").contains("write auto or a number from 1 to 1024"));
    assert!(refusal("workers: 5000").contains("`5000` is no number of workers"));
    assert!(refusal("admin: here").contains("`here` is no address for the admin port"));
    assert!(refusal("worker: 2").contains("did you mean `workers`?"));
    assert!(refusal("relays: {}").contains("expected a list"));
    assert!(refusal("relays: [~]").contains("an entry of the list is empty"));
}

#[test]
fn broken_rules_name_line_and_field_too() {
    let yaml = "relays:\n  - {name: web, listen: '0.0.0.0:80', target: 'a:1'}\nsettings:\n  backoff:\n    initial: 60ms\n";
    assert_eq!(
        refusal(yaml),
        "line 5, column 14: backoff.initial is 60ms, but must be at most backoff.max (50ms)"
    );
    let error = Config::from_yaml(yaml).unwrap_err();
    assert_eq!(error.problems()[0].field, "settings.backoff.initial");
    assert_eq!(
        refusal(&relay("{name: web, listen: '0.0.0.0:80'}")),
        "line 2, column 5: relays[0]: `target` is missing"
    );
}

#[test]
fn documents_that_are_none_are_refused() {
    for nothing in ["", "# nothing\n", "~", "---\n"] {
        assert!(
            refusal(nothing).contains("the document is empty"),
            "{nothing:?}: {}",
            refusal(nothing)
        );
    }
    assert!(refusal("{}").contains("relays has no entry"));
    assert!(
        refusal("relays: [").contains("line "),
        "{}",
        refusal("relays: [")
    );
    assert!(
        refusal("a: {}\n---\nb: {}\n").contains("unknown field")
            || refusal("a: 1\n---\n").contains("document")
    );
    assert!(refusal("just text").contains("expected the fields of the configuration"));
    assert!(!refusal("\u{0}").is_empty());
}

#[test]
fn names_are_unique_and_label_safe() {
    for name in ["Web", "", "-a", "a-", "a_b", "a.b", &"a".repeat(64)] {
        let text = refusal(&relay(&format!(
            "{{name: '{name}', listen: '0.0.0.0:80', target: 'a:1'}}"
        )));
        assert!(
            text.contains("relays[0].name") && text.contains("is no name for a relay"),
            "{text}"
        );
    }
    let twice = "relays:\n  - {name: a, listen: '0.0.0.0:0', target: 'a:1'}\n  - {name: a, listen: '0.0.0.0:0', target: 'a:1'}\n";
    assert_eq!(
        refusal(twice),
        "line 3, column 12: relays[1].name: `a` is the name of another relay too: give each a name of its own"
    );
}

#[test]
fn listeners_are_unique() {
    let both = |first: &str, second: &str| {
        let relays = vec![
            format!("a={first}:app:1").parse().unwrap(),
            format!("b={second}:app:1").parse().unwrap(),
        ];
        Config::of_relays(relays)
            .check()
            .err()
            .map(|error| error.to_string())
    };
    assert!(
        both("0.0.0.0:80", "0.0.0.0:80")
            .unwrap()
            .contains("taken by relay `a`")
    );
    assert!(
        both("[::]:80", "0.0.0.0:80")
            .unwrap()
            .contains("taken by relay `a`")
    );
    assert_eq!(both("127.0.0.1:80", "127.0.0.2:80"), None);
    assert_eq!(both("127.0.0.1:0", "127.0.0.1:0"), None);
    let mut config = Config::of_relays(vec!["a=0.0.0.0:15490:app:1".parse().unwrap()]);
    assert!(
        config
            .check()
            .unwrap_err()
            .to_string()
            .contains("admin address")
    );
    config.admin = "127.0.0.1:1".parse().unwrap();
    config.check().unwrap();
}

#[test]
fn a_relay_that_leads_back_to_itself_is_refused() {
    let check = |relays: &[&str]| {
        let relays = relays.iter().map(|relay| relay.parse().unwrap()).collect();
        Config::of_relays(relays)
            .check()
            .err()
            .map(|error| error.to_string())
    };
    for own in [
        "a=127.0.0.1:80:127.0.0.1:80",
        "a=0.0.0.0:80:127.0.0.1:80",
        "a=[::]:80:127.0.0.1:80",
        "a=[::]:80:[::1]:80",
        "a=0.0.0.0:80:0.0.0.0:80",
        "a=0.0.0.0:80:localhost:80",
        "a=127.0.0.1:80:LOCALHOST:80",
        "a=[::1]:80:[::]:80",
    ] {
        assert!(
            check(&[own])
                .is_some_and(|text| text.contains("leads back to this relay's own listener")),
            "{own}"
        );
    }
    for other in [
        "a=0.0.0.0:80:127.0.0.1:81",
        "a=[::1]:80:127.0.0.1:80",
        "a=127.0.0.1:80:10.0.0.1:80",
        "a=0.0.0.0:80:app:80",
    ] {
        assert_eq!(check(&[other]), None, "{other}");
    }
    let round = check(&["a=127.0.0.1:80:127.0.0.1:81", "b=127.0.0.1:81:127.0.0.1:80"]).unwrap();
    assert!(round.contains("by way of `b`"), "{round}");
    // A chain that ends, and one that leads into somebody else's circle.
    assert_eq!(
        check(&["a=127.0.0.1:80:127.0.0.1:81", "b=127.0.0.1:81:app:80"]),
        None
    );
    let into = check(&["a=127.0.0.1:80:127.0.0.1:81", "b=127.0.0.1:81:127.0.0.1:81"]).unwrap();
    assert!(
        into.contains("relays[1].target") && !into.contains("relays[0]"),
        "{into}"
    );
}

#[test]
fn relays_of_the_command_line_are_read() {
    for given in [
        "web=0.0.0.0:15080:127.0.0.1:8080",
        "web=[::]:15080:[::1]:8080",
        "web=0.0.0.0:0:app.shop:8080",
        "web=127.0.0.1:1:unix:/run/a:b.sock",
    ] {
        let relay: Relay = given.parse().unwrap();
        assert_eq!(
            format!("{}={}:{}", relay.name, relay.listen, relay.target),
            given
        );
    }
    for (given, said) in [
        ("", "has no name"),
        ("web", "has no name"),
        ("=0.0.0.0:1:a:1", "is no name for a relay"),
        ("web=0.0.0.0:15080", "has no target"),
        ("web=[::", "has no target"),
        ("web=0.0.0.0:70000:a:1", "is no address to listen on"),
        ("web=localhost:80:a:1", "is no address to listen on"),
        ("web=0.0.0.0:80:app", "has no port"),
        ("web=0.0.0.0:80:app:0", "has the port `0`"),
        ("web=0.0.0.0:80:app:+5", "has the port `+5`"),
        ("web=0.0.0.0:80:127.0.0.1:0", "has port 0"),
        ("web=0.0.0.0:80:::1:80", "write it in brackets"),
        ("web=0.0.0.0:80:10.0.0.300:80", "has no valid host name"),
        ("web=0.0.0.0:80::80", "has no valid host name"),
        ("web=0.0.0.0:80:unix:app.sock", "has no absolute path"),
    ] {
        let error = given.parse::<Relay>().unwrap_err().to_string();
        assert!(error.contains(said), "{given}: {error}");
    }
    let long = format!("unix:/{}", "x".repeat(107));
    assert!(
        long.parse::<Target>()
            .unwrap_err()
            .to_string()
            .contains("108 bytes, but the kernel allows at most 107")
    );
    assert!(long[..long.len() - 1].parse::<Target>().is_ok());
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>(), value in "[ -~\n]{0,20}") {
        let _ = text.parse::<Relay>();
        let _ = text.parse::<Target>();
        let _ = text.parse::<Listen>();
        let _ = text.parse::<Workers>();
        let _ = text.parse::<BackendChoice>();
        let _ = value.parse::<Relay>();
        let _ = format!("web=[{value}").parse::<Relay>();
        let _ = format!("web=0.0.0.0:1:{value}").parse::<Relay>();
        for yaml in [text, value.clone(), format!("relays: [{value}]"), format!("settings: {{{value}}}"), relay(&value)] {
            if let Err(error) = Config::from_yaml(&yaml) {
                prop_assert!(!error.problems().is_empty());
                prop_assert!(error.problems().iter().all(|problem| !problem.sentence.is_empty()));
            }
        }
    }

    #[test]
    fn what_is_accepted_is_written_back_as_the_same(
        v6 in any::<[u16; 8]>(), port in 1u16.., name in "[a-z0-9]{1,20}", host in "[a-z]{1,9}(\\.[a-z]{1,9}){0,2}",
    ) {
        let listen = Listen(SocketAddr::from((v6, port)));
        prop_assert_eq!(listen.to_string().parse::<Listen>(), Ok(listen));
        for target in [Target::Address(listen.0), Target::Host { host, port }, Target::Original { port }, Target::Unix(format!("/{name}").into())] {
            prop_assert_eq!(target.to_string().parse::<Target>(), Ok(target.clone()));
            let relay: Relay = format!("{name}={listen}:{target}").parse().unwrap();
            prop_assert_eq!((relay.listen, relay.target), (listen, target));
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "long documents take minutes under an interpreter")]
fn refusals_stay_short_and_in_place() {
    let long = refusal(&"a".repeat(100_000));
    assert!(long.chars().count() < 600, "{} bytes", long.len());
    assert!(long.contains("relays, settings, admin"), "{long}");
    let two = refusal("# first\nworkers: 1\n---\nworkers: 2\n");
    assert!(
        two.starts_with("line 3, column 1: ") && two.contains("second document"),
        "{two}"
    );
    // As many relays as a file has room for would take time that grows with the square of it.
    let relays = |count: usize| {
        let one = |n| {
            format!(
                "- {{name: r{n}, listen: '127.0.0.1:{}', target: 'a:1'}}\n",
                n + 1
            )
        };
        format!("relays:\n{}", (0..count).map(one).collect::<String>())
    };
    assert!(Config::from_yaml(&relays(RELAYS_MAX)).is_ok());
    assert!(refusal(&relays(RELAYS_MAX + 1)).contains("at most 256"));
    let many = Config::from_yaml(&format!("relays:\n{}", "- {}\n".repeat(50))).unwrap_err();
    assert_eq!(many.problems().len(), PROBLEMS_MOST + 1);
    assert!(many.to_string().contains("130 more problems"), "{many}");
}

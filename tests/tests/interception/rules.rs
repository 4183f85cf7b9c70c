//! The rules themselves: what `ringside intercept` sets, beside what nft(8) shows and would set.

use ringside_tests::namespaced;
use ringside_tests::processes::{Process, command, output};
use ringside_tests::relay::program;
use ringside_tests::skip::skip;

use crate::{REDIRECT, can_redirect, intercept, redirect};

const SEVERAL: &str = "8080:15080,9090:15081,443:15082";

/// All rules of this network, without what they counted.
fn listed() -> String {
    output("nft", ["--stateless", "list", "ruleset"])
}

/// The rules as instructions of the kernel, handles aside.
fn instructions() -> Vec<String> {
    let text = output("nft", ["--debug=netlink", "list", "ruleset"]);
    let lines = text.lines().filter(|line| line.trim().starts_with('['));
    // nft itself leaves out the end of a range of one, which the kernel fills in for both.
    lines
        .map(|line| line.replace(" proto_max reg 1", ""))
        .collect()
}

/// Has nft read rules.
fn load(rules: &str) {
    let mut nft = Process::start("nft", |folder| {
        let file = folder.join("rules");
        std::fs::write(&file, rules).expect("a file for the rules");
        let mut command = command("nft");
        command.arg("--file").arg(file);
        command
    });
    let status = nft.await_end();
    assert!(status.success(), "{}", nft.log());
}

fn printed(redirects: &str) -> String {
    let (is_done, rules) = intercept(&["--redirect", redirects, "--print"]);
    assert!(is_done, "{rules}");
    rules
}

/// What is printed behind the two lines that clear the table.
fn table(printed: &str) -> String {
    printed
        .lines()
        .skip(2)
        .map(|line| format!("{line}\n"))
        .collect()
}

namespaced!(what_is_set_is_what_is_printed_and_what_nft_sets, {
    if can_redirect("what_is_set_is_what_is_printed_and_what_nft_sets") {
        for redirects in [REDIRECT, SEVERAL] {
            let printed = printed(redirects);
            assert_eq!(listed(), "", "printing changes nothing");
            redirect(redirects);
            let (ours, in_kernel) = (listed(), instructions());
            assert_eq!(ours, table(&printed));
            assert!(in_kernel.len() >= 11, "{in_kernel:?}");
            assert!(intercept(&["--remove"]).0);
            load(&printed);
            assert_eq!(listed(), ours);
            assert_eq!(instructions(), in_kernel);
            // As nft reads it, too, it takes the place of what was there.
            load(&printed);
            assert_eq!(listed(), ours);
            assert!(intercept(&["--remove"]).0);
        }
    }
});

namespaced!(applied_again_it_is_the_same_and_others_take_its_place, {
    if can_redirect("applied_again_it_is_the_same_and_others_take_its_place") {
        redirect(SEVERAL);
        let once = listed();
        redirect(SEVERAL);
        assert_eq!(listed(), once);
        redirect(REDIRECT);
        assert_eq!(listed(), table(&printed(REDIRECT)));
        for _ in 0..2 {
            let (is_done, said) = intercept(&["--remove"]);
            assert!(is_done, "{said}");
            assert_eq!(listed(), "");
        }
    }
});

namespaced!(as_many_as_are_allowed_are_set_and_one_more_is_refused, {
    if can_redirect("as_many_as_are_allowed_are_set_and_one_more_is_refused") {
        let redirects = |count: u16| -> Vec<String> {
            (1..=count).map(|port| format!("{port}:15080")).collect()
        };
        redirect(&redirects(64).join(","));
        let all = listed();
        assert_eq!(all.matches("redirect to :15080").count(), 64, "{all}");
        let (is_done, said) = intercept(&["--redirect", &redirects(65).join(",")]);
        assert!(!is_done && said.contains("at most 64"), "{said}");
        assert_eq!(listed(), all);
    }
});

namespaced!(rules_of_others_are_left_alone, {
    if can_redirect("rules_of_others_are_left_alone") {
        load("table ip other {\n\tchain c {\n\t\ttcp dport 1 accept\n\t}\n}\n");
        let before = listed();
        redirect(REDIRECT);
        assert!(listed().starts_with(&before), "{}", listed());
        assert!(intercept(&["--remove"]).0);
        assert_eq!(listed(), before);
    }
});

namespaced!(without_the_right_to_it_nothing_changes_and_it_is_said, {
    let test = "without_the_right_to_it_nothing_changes_and_it_is_said";
    if can_redirect(test) {
        // Root of a user namespace of its own, to which this network does not belong.
        let mut process = Process::start("ringside intercept", |_| {
            let mut command = command("unshare");
            command.args(["--user", "--map-root-user"]);
            command
                .arg(program())
                .args(["intercept", "--redirect", REDIRECT]);
            command
        });
        let status = process.await_end();
        let said = process.log();
        if said.contains("unshare") {
            skip(test, &format!("no user namespace: {}", said.trim()));
            return;
        }
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("NET_ADMIN"), "{said}");
        assert_eq!(listed(), "");
    }
});

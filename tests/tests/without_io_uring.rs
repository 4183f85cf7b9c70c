//! A kernel or a container without io_uring: the relay starts on epoll and says why; asked for the ring or tokio-uring,
//! it says that it cannot.

use ringside::backend::inject::{Denial, Errno};
use ringside_tests::namespaced;
use ringside_tests::relay::{Kind, Setup, program};
use ringside_tests::traffic::{Pattern, Server, echo};

/// Words of which one tells a person what the kernel answered.
const WORDS: [(Errno, &[&str]); 4] = [
    (Errno::EPERM, &["not permitted", "eperm"]),
    (Errno::ENOSYS, &["not implemented", "enosys"]),
    (Errno::EINVAL, &["invalid argument", "einval"]),
    (Errno::EOPNOTSUPP, &["not supported", "eopnotsupp"]),
];

#[track_caller]
fn assert_tells(text: &str, errno: Errno, words: &[&str]) {
    let lower = text.to_lowercase();
    assert!(
        words.iter().any(|word| lower.contains(word)),
        "{errno} is not told by {text:?}"
    );
}

fn falls_back(errno: Errno) {
    let words = WORDS.iter().find(|(known, _)| *known == errno).unwrap().1;
    let server = Server::local(echo);
    let relay = Setup::new(Kind::Auto)
        .to(&server)
        .denied(Denial::Setup(errno))
        .start();
    let stream = relay.connect();
    stream
        .exchange(Pattern::new(1), Pattern::new(1), 0..8 << 20, 64 << 10)
        .unwrap();
    drop(stream);
    relay.settle();
    server.settle();

    let metrics = relay.metrics();
    let info = metrics
        .matching("ringside_backend_info", &[("backend", "epoll")])
        .next();
    let info = info.unwrap_or_else(|| panic!("the backend in use is not told: {metrics:?}"));
    assert_eq!(info.value, 1.0);
    assert_tells(&info.labels["reason"], errno, words);
    assert_tells(&relay.status().to_string(), errno, words);
    assert_tells(&relay.process().log(), errno, words);
}

namespaced!(eperm_falls_back_to_epoll, falls_back(Errno::EPERM));
namespaced!(enosys_falls_back_to_epoll, falls_back(Errno::ENOSYS));
namespaced!(einval_falls_back_to_epoll, falls_back(Errno::EINVAL));
namespaced!(
    eopnotsupp_falls_back_to_epoll,
    falls_back(Errno::EOPNOTSUPP)
);

fn is_refused_with_a_reason(kind: Kind) {
    for (errno, words) in WORDS {
        let server = Server::local(echo);
        let setup = Setup::new(kind).to(&server).denied(Denial::Setup(errno));
        let (status, said) = setup.start_in_vain();
        assert_eq!(status.code(), Some(1), "{said}");
        assert_tells(&said, errno, words);
        assert!(
            said.contains(kind.backend()) && said.contains("--backend auto"),
            "what to try is not told: {said}"
        );
    }
}

namespaced!(
    the_ring_asked_for_by_name_is_refused_with_a_reason,
    is_refused_with_a_reason(Kind::Ring)
);

namespaced!(
    tokio_uring_asked_for_by_name_is_refused_with_a_reason,
    is_refused_with_a_reason(Kind::TokioUring)
);

namespaced!(check_tells_what_is_blocked, {
    let mut command = std::process::Command::new(program());
    command.arg("check");
    ringside::backend::inject::deny(&mut command, Denial::Setup(Errno::EPERM)).unwrap();
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_tells(&said, Errno::EPERM, WORDS[0].1);
    assert!(said.contains("epoll"), "{said}");
});

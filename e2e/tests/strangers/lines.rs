//! Strangers on a line: that the first call was believed makes nobody believed who speaks after it.

use kube::ResourceExt;
use ringside_e2e::caller::{Caller, upgrade};
use ringside_e2e::definitions::installed;
use ringside_e2e::forwarder::{Forwarder, Passage};
use ringside_e2e::installation::Installation;
use ringside_tests::await_that;
use serde_json::{Value, json};

use crate::story::{Sidecar, Story, another_token};

fn call(number: u32, token: &str, report: &Value) -> Vec<u8> {
    json!({"number": number, "token": token, "report": report})
        .to_string()
        .into_bytes()
}

/// A line of the sidecar, after its first answer.
fn line(story: &Story, of: &Sidecar) -> Caller {
    let mut caller = story.connect();
    let agreed = caller.upgrade(Some(&of.token), &of.report.to_string());
    assert_eq!(agreed.unwrap().status, 101);
    let (number, answer) = caller.reply().unwrap();
    assert_eq!((number, answer.status), (0, 200), "{answer:?}");
    caller
}

#[test]
fn each_call_on_a_line_is_judged_by_itself() {
    let test = "each_call_on_a_line_is_judged_by_itself";
    let Some(server) = installed(test) else {
        return;
    };
    let (release, shop) = (Installation::new(server), server.namespace("shop"));
    let story = Story::begin(server, &release, &shop);
    let neighbour = Sidecar::new(server, &shop, "neighbour");
    let (token, report) = (story.honest.token.as_str(), &story.honest.report);

    // Who is honest goes on as long as it likes, and each reply says which call it is for.
    let mut honest = line(&story, &story.honest);
    for number in [7, 8, 4_000_000_000] {
        honest.send_frame(&call(number, token, report)).unwrap();
        let (replied, answer) = honest.reply().unwrap();
        assert_eq!((replied, answer.status), (number, 200), "{answer:?}");
    }
    // A call that is held gives way to the next.
    let held = without_news(&mut honest, token, report);
    honest.send_frame(&call(9, token, &held)).unwrap();
    honest.send_frame(&call(10, token, report)).unwrap();
    assert_eq!(honest.reply().unwrap().0, 10);

    let whose = |report: &Value, name: &str, uid: &str| {
        let mut report = report.clone();
        report["pod"]["name"] = json!(name);
        report["pod"]["uid"] = json!(uid);
        report
    };
    let neighbour_uid = neighbour.pod.uid().unwrap();
    for (frame, status, why) in [
        (call(1, "", report), 401, "service account token"),
        (call(1, "nonsense", report), 401, "service account token"),
        (call(1, &neighbour.token, report), 403, "neighbour"),
        (
            call(1, token, &whose(report, "neighbour", &neighbour_uid)),
            403,
            "neighbour",
        ),
        (b"{".to_vec(), 400, "EOF"),
        (b"[1]".to_vec(), 400, ""),
        (Vec::new(), 400, "EOF"),
        (vec![0xff; 20_000], 400, ""),
    ] {
        let mut caller = line(&story, &story.honest);
        caller.send_frame(&frame).unwrap();
        let (_, answer) = caller.reply().unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.why().contains(why), "{answer:?}");
        assert_eq!(caller.rest().unwrap(), b"", "the line goes on");
    }

    // Longer than any call: nothing is kept for it.
    let before = story.most_resident_bytes();
    let mut large = line(&story, &story.honest);
    large.send(&(1_u32 << 30).to_be_bytes()).unwrap();
    assert_eq!(large.rest().unwrap(), b"");
    // Half a call, many times: bounded by what a call may have.
    let mut halves = Vec::new();
    for _ in 0..100 {
        let mut half = line(&story, &story.honest);
        half.send(&20_000_u32.to_be_bytes()).unwrap();
        half.send(&[b' '; 10_000]).unwrap();
        halves.push(half);
    }
    honest.send_frame(&call(11, token, report)).unwrap();
    assert_eq!(honest.reply().unwrap().0, 11, "others hold it up");
    let grown = story.most_resident_bytes() - before;
    assert!(grown < 16 << 20, "{grown} bytes for 100 halves");

    // Before the line begins.
    let body = report.to_string();
    let mut nobody = story.connect();
    assert_eq!(nobody.upgrade(None, &body).unwrap().status, 401);
    let mut other = story.connect();
    other
        .send(upgrade(Some(token), &body, "websocket").as_bytes())
        .unwrap();
    assert_eq!(other.answer().unwrap().status, 200, "as without");
    // Whoever speaks before the answer to its first call speaks to nobody.
    let mut hasty = story.connect();
    let first = upgrade(Some(token), &body, "ringside-sync");
    let mut bytes = first.into_bytes();
    bytes.extend(ringside_api::sync::frames::frame(&[&call(
        1, token, report,
    )]));
    hasty.send(&bytes).unwrap();
    assert_eq!(hasty.answer().unwrap().status, 101);
    assert_eq!(hasty.rest().unwrap(), b"");
}

#[test]
fn a_call_whose_sidecar_has_gone_takes_nobodys_place() {
    let Some(server) = installed("a_call_whose_sidecar_has_gone_takes_nobodys_place") else {
        return;
    };
    let (release, shop) = (Installation::new(server), server.namespace("shop"));
    let (way, kubeconfig) = Forwarder::to(server);
    let controller = release.start_by(&kubeconfig, "one");
    let story = Story::of(server, &release, &shop, controller);
    let neighbour = Sidecar::new(server, &shop, "neighbour");
    let (token, report) = (story.honest.token.as_str(), &story.honest.report);

    // It has shown another token, which the API server is slow to review, when its connection breaks.
    let mut gone = line(&story, &story.honest);
    let held = without_news(&mut gone, token, report);
    let anew = another_token(server, &shop, &story.honest.pod);
    let before = story.count("token_reviews_total");
    way.set(Passage::Stalled);
    gone.send_frame(&call(6, &anew, report)).unwrap();
    await_that("the token to be reviewed", || {
        story.count("token_reviews_total") > before
    });
    drop(gone);
    let mut here = line(&story, &story.honest);
    here.send_frame(&call(9, token, &held)).unwrap();
    way.set(Passage::Open);
    // Whoever comes later has been reviewed, and so has it.
    for _ in 0..3 {
        let anew = another_token(server, &shop, &neighbour.pod);
        let answer = story
            .connect()
            .call(Some(&anew), &neighbour.report.to_string());
        assert_eq!(answer.unwrap().status, 200);
    }
    shop.apply("{apiVersion: ringside.dev/v1alpha1, kind: RelayPolicy, metadata: {name: web}, spec: {podSelector: {}, batch: {max: 77}}}");
    let (number, answer) = here.reply().unwrap();
    assert_eq!((number, answer.status), (9, 200), "{answer:?}");
}

/// The report of one that has taken all that the controller says, so that its call is held.
fn without_news(line: &mut Caller, token: &str, report: &Value) -> Value {
    line.send_frame(&call(5, token, report)).unwrap();
    let answer = line.reply().unwrap().1.json();
    let ca = answer["ca"].as_str().expect("what to trust");
    let mut held = report.clone();
    held["atOnce"] = json!(false);
    held["trusts"] = json!(ringside_api::sync::fingerprint_of_trust(ca));
    held["runs"] = answer["offer"]["Run"]["hash"].clone();
    held["permit"] = answer["permit"].clone();
    assert!(held["runs"].is_string(), "{answer}");
    held
}

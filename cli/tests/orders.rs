//! Orders and waiting: exit codes 0, 1, 3, 4 and 5, over streams that break and servers without one.

mod support;

use expect_test::{Expect, expect};
use proto::MoveId;
use proto::api::{Accepted, ApiError, ConsoleText, Refusal};
use proto::view::{MovePhase, PlanView, RackView, VmPhase};
use std::io::{BufRead, BufReader};
use support::sample::{events, host_id, moving, rack, with_events};
use support::{Home, Reply, Request, Server};

/// Answers as a server with `web-1` running would; the streams are the test's.
fn with_streams(stream: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |request, before| match request.line.as_str() {
        "GET /v1/rack" => Reply::json(&rack(VmPhase::Running, 1)),
        "GET /v1/stream" => stream(before),
        "POST /v1/vms/web-1/migrate" => Reply::json(&Accepted::Moving { r#move: MoveId(7) }),
        "POST /v1/vms/web-1/shutdown" | "DELETE /v1/vms/web-1" => Reply::json(&Accepted::Begun),
        "POST /v1/vms/web-1/ha" => Reply::json(&Accepted::Done),
        "POST /v1/vms/web-1/start" => {
            let refusal = Refusal::VmIs { vm: "web-1".parse().expect("a name"), phase: VmPhase::Running };
            Reply::status(409, &ApiError::from(refusal))
        }
        _ => Reply::status(404, &ApiError::from(Refusal::NoSuchPath)),
    })
}

fn check(server: &Server, line: &str, expect: Expect) {
    expect.assert_eq(&Home::with_session(server).run(line).text(server));
}

#[test]
fn a_refusal_is_told_in_its_own_words() {
    let server = with_streams(|_| Reply::Nothing);
    check(
        &server,
        "vm start web-1",
        expect![[r#"
        exit 1
        tsubame: starting VM web-1: VM web-1 is running, so this cannot be done
    "#]],
    );
    check(
        &server,
        "host show 52:54:00:aa:bb:09",
        expect![[r#"
        exit 1
        tsubame: showing host 52:54:00:aa:bb:09: there is no host h525400aabb09
    "#]],
    );
    let newer = Server::start(|_, _| {
        Reply::Whole(409, "application/json", r#"{"refusal":{"why":"too_new"},"message":"the moon is full"}"#.into())
    });
    check(
        &newer,
        "vm list",
        expect![[r#"
        exit 1
        tsubame: listing VMs: the moon is full
    "#]],
    );
}

#[test]
fn how_a_vm_is_started_again_is_said_in_parts() {
    let server = with_streams(|_| Reply::Nothing);
    check(
        &server,
        "vm ha web-1 --on-crash stop",
        expect![[r#"
        exit 0
        VM web-1 is started again after its host has failed: after those of high priority; left stopped if it crashes
    "#]],
    );
    let asked = server.requests();
    let order = asked.iter().find(|r| r.line == "POST /v1/vms/web-1/ha").expect("it was given");
    assert_eq!(order.body, r#"{"priority":"normal","delay_s":0,"on_crash":"stop"}"#);
}

#[test]
fn a_migration_is_waited_for_over_broken_streams() {
    let server = with_streams(|before| match before {
        // Begun before the move is in any view, then cut.
        0 => Reply::Events(vec![rack(VmPhase::Running, 1)]),
        1 => Reply::Nothing,
        2 => Reply::Events(vec![moving(MovePhase::Copying, None)]),
        _ => Reply::EventsThenSilence(vec![moving(MovePhase::Releasing, None), moving(MovePhase::Done, None)]),
    });
    check(
        &server,
        "vm migrate web-1 --to node-2",
        expect![[r#"
        exit 0
        VM web-1 runs on node-2 after 3.2 s; it stood still for 187 ms
    "#]],
    );
    let asked = server.requests();
    let order = asked.iter().find(|r| r.line == "POST /v1/vms/web-1/migrate").expect("it was given");
    assert_eq!(order.body, format!(r#"{{"to":"{}"}}"#, host_id(2)));
    assert!(asked.iter().all(|r| r.authorization == "Bearer secret-token"), "{asked:?}");
    assert_eq!(asked.iter().filter(|r| r.line == "GET /v1/stream").count(), 4);
}

#[test]
fn a_migration_that_is_called_off_has_failed() {
    let server = with_streams(|_| {
        Reply::EventsThenSilence(vec![
            moving(MovePhase::Aborting, None),
            moving(MovePhase::Aborted, Some("the stream \u{1b}[31mbroke")),
        ])
    });
    check(
        &server,
        "vm migrate web-1",
        expect![[r#"
        exit 1
        tsubame: migrating VM web-1: the stream [31mbroke; the VM runs on at node-1
    "#]],
    );
    check(
        &server,
        "vm migrate web-1 --no-wait",
        expect![[r#"
        exit 0
        migrating VM web-1: begun as move 7
    "#]],
    );
    check(
        &server,
        "vm migrate web-1 --no-wait -o json",
        expect![[r#"
        exit 0
        {
          "did": "moving",
          "move": 7
        }
    "#]],
    );
}

#[test]
fn a_view_from_before_the_order_decides_nothing() {
    let server = with_streams(|_| {
        Reply::EventsThenSilence(vec![rack(VmPhase::Running, 1), rack(VmPhase::Stopping, 2), rack(VmPhase::Stopped, 3)])
    });
    check(
        &server,
        "vm stop web-1",
        expect![[r#"
        exit 0
        VM web-1 is stopped
    "#]],
    );
    let back = with_streams(|_| Reply::EventsThenSilence(vec![rack(VmPhase::Stopping, 2), rack(VmPhase::Running, 3)]));
    check(
        &back,
        "vm shutdown web-1",
        expect![[r#"
        exit 1
        tsubame: shutting down VM web-1: the VM is running
    "#]],
    );
}

/// Shuts `web-1` down within a time, and within a longer one when that was not enough, as it may be on a machine that stalls. Gives the text
/// of the last try, and how often it asked for the stream.
fn shut_down_in_time(server: &Server, enough: impl Fn(&str, usize) -> bool) -> (String, usize) {
    let streams = || server.lines().iter().filter(|l| *l == "GET /v1/stream").count();
    let mut last = (String::new(), 0);
    for time in ["400ms", "4s", "40s"] {
        let before = streams();
        let ran = Home::with_session(server).run(&format!("vm shutdown web-1 --timeout {time}"));
        let text = ran.text(server).replace(&format!("not done after {time};"), "not done after TIME;");
        last = (text, streams() - before);
        if enough(&last.0, last.1) {
            break;
        }
    }
    last
}

#[test]
fn time_runs_out() {
    let silent = with_streams(|_| Reply::EventsThenSilence(vec![rack(VmPhase::Stopping, 2)]));
    let (text, _) = shut_down_in_time(&silent, |text, _| text.contains("it was last seen"));
    expect![[r#"
        exit 5
        tsubame: shutting down VM web-1: not done after TIME; it was last seen stopping. It goes on: look again, or wait longer with --timeout
    "#]]
    .assert_eq(&text);
    // Never an answer to the stream.
    let gone = with_streams(|_| Reply::Nothing);
    let (text, asked) = shut_down_in_time(&gone, |_, asked| asked > 1);
    assert!(text.starts_with("exit 5\n") && text.contains("was not reached"), "{text}");
    assert!(asked > 1, "it was asked again");
}

#[test]
fn what_waiting_does_not_mend_ends_it() {
    let ended = with_streams(|_| Reply::status(401, &ApiError::from(Refusal::NotLoggedIn)));
    check(
        &ended,
        "vm shutdown web-1",
        expect![[r#"
        exit 4
        tsubame: shutting down VM web-1: not logged in; log in with `tsubame login URL`, or set TSUBAME_TOKEN
    "#]],
    );
    let garbled = with_streams(|_| Reply::Whole(200, "text/event-stream", "event: rack\ndata: {\n\n".into()));
    check(
        &garbled,
        "vm shutdown web-1",
        expect![[r#"
        exit 3
        tsubame: shutting down VM web-1: URL answered, but not as a Tsubame server of this version (0.1.0): event rack: EOF while parsing an object at line 1 column 1
    "#]],
    );
}

#[test]
fn a_server_without_streams_is_asked_again_and_again() {
    let server = Server::start(|request, before| match request.line.as_str() {
        "GET /v1/rack" if before < 2 => Reply::json(&rack(VmPhase::Stopped, 1)),
        "GET /v1/rack" => Reply::json(&RackView::default()),
        "DELETE /v1/vms/web-1" => Reply::json(&Accepted::Begun),
        _ => Reply::status(404, &ApiError::from(Refusal::NoSuchPath)),
    });
    check(
        &server,
        "vm delete web-1",
        expect![[r#"
        exit 0
        VM web-1 is deleted
    "#]],
    );
    assert_eq!(server.lines().iter().filter(|l| *l == "GET /v1/rack").count(), 3);
}

#[test]
fn values_are_printed_as_they_are() {
    let server = Server::start(|request, _| match request.line.as_str() {
        "GET /v1/rack" => Reply::json(&rack(VmPhase::Running, 1)),
        "POST /v1/balance" => Reply::json(&PlanView::default()),
        "GET /v1/vms/web-1/console" => Reply::json(&ConsoleText { text: "a\u{1b}[1mb".into() }),
        _ => Reply::Nothing,
    });
    let home = Home::with_session(&server);
    let json: RackView = RackView {
        hosts: serde_json::from_str(&home.run("host list -o json").stdout).expect("hosts as JSON"),
        vms: serde_yaml::from_str(&home.run("vm list -o yaml").stdout).expect("VMs as YAML"),
        ..rack(VmPhase::Running, 1)
    };
    assert_eq!(json, rack(VmPhase::Running, 1));
    check(
        &server,
        "balance --dry-run -o json",
        expect![[r#"
        exit 0
        {
          "moves": [],
          "score_before": 0.0,
          "score_after": 0.0,
          "stays": []
        }
    "#]],
    );
    let body = server.requests().into_iter().find(|r| r.line == "POST /v1/balance").map(|r| r.body);
    assert_eq!(body.as_deref(), Some(r#"{"dry_run":true}"#));
    // Not on a terminal: as the guest wrote it.
    assert_eq!(home.run("vm console web-1").stdout, "a\u{1b}[1mb\n");
}

/// A log of events 1 to 12: the rack shows 5 when asked, the stream 5, then 6, then 8 (7 fell between two views), then all.
fn log(request: &Request, before: usize) -> Reply {
    let after = |line: &str| line.strip_prefix("GET /v1/events?after=")?.split_once('&')?.0.parse::<u64>().ok();
    match request.line.as_str() {
        "GET /v1/rack" => Reply::json(&with_events(3..=5)),
        "GET /v1/stream" if before == 0 => Reply::Events(vec![with_events(3..=5), with_events(4..=6)]),
        "GET /v1/stream" => Reply::EventsThenSilence(vec![with_events(8..=8), with_events(8..=12)]),
        line => match after(line) {
            // Two at a time: a server may give less than was asked for.
            Some(after) => Reply::json(&events(after + 1..=(after + 2).min(12))),
            None => Reply::Nothing,
        },
    }
}

#[test]
fn events_are_listed() {
    let server = Server::start(log);
    check(
        &server,
        "events -n 4",
        expect![[r#"
        exit 0
        1970-01-01 00:00:02  info     server    event 2
        1970-01-01 00:00:03  info     server    event 3
        1970-01-01 00:00:04  info     server    event 4
        1970-01-01 00:00:05  info     server    event 5
    "#]],
    );
    check(
        &server,
        "events -n 0 -o json",
        expect![[r#"
        exit 0
        []
    "#]],
    );
}

#[test]
fn events_are_followed_without_gap_or_repeat() {
    let server = Server::start(log);
    for (line, text) in [("events -f -n 3", "event "), ("events --follow -n 3 -o json", "\"seq\":")] {
        let mut child = Home::with_session(&server).command(line).spawn().expect("the command was built");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let seen: Vec<String> = lines.map(|l| l.expect("UTF-8")).take(6).collect();
        child.kill().expect("it follows until it is stopped");
        child.wait().expect("it was started");
        assert_eq!(seen.len(), 6, "{seen:?}");
        for (line, seq) in seen.iter().zip(3..=8) {
            assert!(line.contains(&format!("{text}{seq}")), "{seq}: {line}");
        }
    }
}

#[test]
fn a_reader_that_goes_is_no_failure() {
    let server = Server::start(log);
    let mut child = Home::with_session(&server).command("events -f -n 3").spawn().expect("the command was built");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it was started").code(), Some(0));
}

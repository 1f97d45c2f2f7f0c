//! Power: what is sent, what is waited for, and that a password is in no output and no argument.

mod support;

use expect_test::{Expect, expect};
use proto::api::{Accepted, ApiError, Refusal};
use proto::power::{BmcKind, PowerOrderView, PowerStage, PowerState, PowerVerb, PowerView};
use proto::view::{RackView, VmPhase};
use support::sample::{host_id, rack};
use support::{Home, Reply, Server};

fn power(stage: Option<PowerStage>) -> PowerView {
    PowerView {
        kind: BmcKind::Ipmi,
        address: "10.9.0.7".to_owned(),
        user: "boot".to_owned(),
        trust: String::new(),
        system: String::new(),
        state: PowerState::On,
        at_ms: Some(1_795_000_000_000),
        failing_since_ms: None,
        failure: String::new(),
        order: stage.map(|stage| PowerOrderView {
            verb: PowerVerb::Off,
            network: false,
            stage,
            asked_ms: 1_795_000_000_000,
            ended_ms: None,
            tries: 2,
            cause: if stage == PowerStage::Done { String::new() } else { "BMC 10.9.0.7 (ipmi): no".to_owned() },
        }),
    }
}

fn with(stage: Option<PowerStage>) -> RackView {
    let mut view = rack(VmPhase::Running, 1);
    view.hosts[0].power = Some(power(stage));
    view
}

fn check(server: &Server, line: &str, expect: Expect) {
    expect.assert_eq(&Home::with_session(server).run(line).text(server));
}

fn server(last: PowerStage) -> Server {
    Server::start(move |request, _| match request.line.as_str() {
        "GET /v1/rack" => Reply::json(&with(None)),
        "GET /v1/stream" => Reply::EventsThenSilence(vec![with(Some(PowerStage::Doing)), with(Some(last))]),
        "POST /v1/hosts/h525400aabb01/power" => Reply::json(&Accepted::Begun),
        "GET /v1/hosts/h525400aabb01/power" => Reply::json(&power(None)),
        "POST /v1/hosts/h525400aabb01/bmc" | "DELETE /v1/hosts/h525400aabb01/bmc" => Reply::json(&Accepted::Done),
        "POST /v1/hosts/h525400aabb02/power" => {
            let refusal = Refusal::HostHasVms { host: host_id(2), count: 3 };
            Reply::status(409, &ApiError::from(refusal))
        }
        _ => Reply::status(404, &ApiError::from(Refusal::NoSuchPath)),
    })
}

#[test]
fn an_order_is_waited_for() {
    check(
        &server(PowerStage::Done),
        "host power node-1 off",
        expect![[r#"
        exit 0
        power of node-1: off is done
    "#]],
    );
    check(
        &server(PowerStage::Failed),
        "host power node-1 off",
        expect![[r#"
        exit 1
        tsubame: switching the power of node-1 off: BMC 10.9.0.7 (ipmi): no
    "#]],
    );
    check(
        &server(PowerStage::Done),
        "host power node-2 cycle --network",
        expect![[r#"
        exit 1
        tsubame: switching the power of node-2 cycle: host h525400aabb02 still has 3 VMs
    "#]],
    );
    check(
        &server(PowerStage::Done),
        "host power node-1 status",
        expect![[r#"
        exit 0
        Power        on, as it said 2026-11-18 11:06:40
        Switched by  ipmi 10.9.0.7 as boot
    "#]],
    );
    let server = server(PowerStage::Done);
    Home::with_session(&server).run("host power node-1 cycle --network --no-wait");
    let sent = server.requests().into_iter().find(|request| request.line.starts_with("POST")).expect("it was sent");
    assert_eq!(sent.body, r#"{"verb":"cycle","network":true}"#);
}

#[test]
fn a_password_is_read_and_never_shown() {
    let server = server(PowerStage::Done);
    let home = Home::with_session(&server);
    std::fs::write(home.path("password"), "hunter2\nnot this\n").expect("written");
    let file = home.path("password");
    let line = format!("host bmc node-1 --kind ipmi --address 10.9.0.7 --user boot --password-file {}", file.display());
    for ran in [home.run(&line), home.run_with("host bmc node-1 --kind redfish --user root --trust any", "hunter2\n")] {
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        assert!(!ran.stdout.contains("hunter2"), "{}", ran.stdout);
    }
    home.run("host bmc node-1 --kind redfish --user root --keep-password --trust first");
    home.run("host bmc node-1 --kind wake");
    home.run("host bmc node-1 --forget");
    let sent = server.requests().into_iter().filter(|request| request.line.contains("/bmc"));
    let sent: Vec<String> = sent.map(|request| format!("{} {}\n", request.line, request.body)).collect();
    expect![[r#"
        POST /v1/hosts/h525400aabb01/bmc {"kind":"ipmi","address":"10.9.0.7","user":"boot","password":"hunter2","trust":null,"system":null}
        POST /v1/hosts/h525400aabb01/bmc {"kind":"redfish","address":null,"user":"root","password":"hunter2","trust":"any","system":null}
        POST /v1/hosts/h525400aabb01/bmc {"kind":"redfish","address":null,"user":"root","password":null,"trust":"first","system":null}
        POST /v1/hosts/h525400aabb01/bmc {"kind":"wake","address":null,"user":"","password":null,"trust":null,"system":null}
        DELETE /v1/hosts/h525400aabb01/bmc 
    "#]].assert_eq(&sent.concat());
    expect![[r#"
        exit 2
        error: unexpected argument '--password' found

          tip: a similar argument exists: '--keep-password'

        Usage: tsubame host bmc --kind <KIND> --keep-password <HOST>

        For more information, try '--help'.
    "#]]
    .assert_eq(&home.run("host bmc node-1 --kind ipmi --password hunter2").text(&server));
}

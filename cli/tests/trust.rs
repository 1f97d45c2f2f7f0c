//! Login, trust and the session: exit codes 0 to 4.

mod support;

use expect_test::{Expect, expect};
use proto::api::{About, Accepted, ApiError, Refusal, Session};
use proto::view::VmPhase;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use support::sample::rack;
use support::{Home, Reply, Request, Server};

const PASSWORD: &str = "correct horse";

/// A server that was set up unless `needs_setup`, and that knows one password.
fn appliance(needs_setup: bool) -> Server {
    Server::start(move |request, _| {
        let session = Session { token: "secret-token".into(), expires_ms: 86_400_000 };
        match request.line.as_str() {
            "GET /v1/about" => Reply::json(&About { version: "0.1.0".into(), needs_setup }),
            "POST /v1/login" | "POST /v1/setup" if request.body.contains(PASSWORD) => Reply::json(&session),
            "POST /v1/login" => refuse(401, Refusal::WrongPassword),
            _ if request.authorization != "Bearer secret-token" => refuse(401, Refusal::NotLoggedIn),
            "POST /v1/logout" => Reply::json(&Accepted::Done),
            "GET /v1/rack" => Reply::json(&rack(VmPhase::Running, 1)),
            _ => refuse(404, Refusal::NoSuchPath),
        }
    })
}

fn refuse(status: u16, refusal: Refusal) -> Reply {
    Reply::status(status, &ApiError::from(refusal))
}

fn check(server: &Server, ran: &support::Ran, expect: Expect) {
    expect.assert_eq(&ran.text(server));
}

#[test]
fn login_use_and_logout() {
    let server = appliance(false);
    let home = Home::new();
    let login = format!("login {} --ca-sha256 {}", server.url, server.ca_sha256);
    check(
        &server,
        &home.run_with(&login, "wrong password\n"),
        expect![[r#"
        exit 1
        tsubame: logging in to URL: the password or code is wrong
    "#]],
    );
    assert!(!home.path("tsubame/session.json").exists(), "a refused login leaves no session");
    check(
        &server,
        &home.run_with(&login, &format!("{PASSWORD}\n")),
        expect![[r#"
        exit 0
        logged in to URL; the session ends 1970-01-02 00:00:00 UTC
    "#]],
    );
    let file = home.path("tsubame/session.json");
    assert_eq!(fs::metadata(&file).expect("kept").permissions().mode() & 0o777, 0o600);

    check(
        &server,
        &home.run("vm list"),
        expect![[r#"
        exit 0
        VM     PHASE    FOR  HOST    VCPUS  MEMORY   CPU  NOTE
        web-1  running  59s  node-1      1  96 MiB  0.00
    "#]],
    );
    check(
        &server,
        &home.run("logout"),
        expect![[r#"
        exit 0
        logged out
    "#]],
    );
    let kept = fs::read_to_string(&file).expect("server and CA stay known");
    assert!(!kept.contains("secret-token"), "{kept}");
    check(
        &server,
        &home.run("vm list"),
        expect![[r#"
        exit 4
        tsubame: listing VMs: there is no session at URL; log in with `tsubame login URL`, or set TSUBAME_TOKEN
    "#]],
    );
    // Server and CA are known: neither is asked for again.
    check(
        &server,
        &home.run_with("login", &format!("{PASSWORD}\n")),
        expect![[r#"
        exit 0
        logged in to URL; the session ends 1970-01-02 00:00:00 UTC
    "#]],
    );
}

#[test]
fn first_password_by_the_set_up_code() {
    let server = appliance(true);
    let home = Home::new();
    let login = format!("login {} --trust-on-first-use", server.url);
    check(
        &server,
        &home.run_with(&login, &format!("CODE-1\n{PASSWORD}\n")),
        expect![[r#"
        exit 0
        logged in to URL; the session ends 1970-01-02 00:00:00 UTC
        tsubame: URL is trusted from now on by its CA with the sha256 SHA256
    "#]],
    );
    fs::write(home.path("password"), format!("{PASSWORD}\n")).expect("written");
    let by_file = format!("login --setup-code CODE-2 --password-file {}", home.path("password").display());
    assert_eq!(home.run(&by_file).code, 0);
    let setups: Vec<_> = server.requests().into_iter().filter(|r| r.line == "POST /v1/setup").collect();
    let bodies: Vec<_> = setups.iter().map(|r| r.body.as_str()).collect();
    assert_eq!(
        bodies,
        [r#"{"code":"CODE-1","password":"correct horse"}"#, r#"{"code":"CODE-2","password":"correct horse"}"#]
    );
}

#[test]
fn an_unknown_ca_is_shown_and_nothing_is_sent() {
    let server = appliance(false);
    let home = Home::new();
    check(
        &server,
        &home.run_with(&format!("login {}", server.url), PASSWORD),
        expect![[r#"
        exit 3
        tsubame: URL is not trusted yet: its CA has the sha256 SHA256. Compare it with the one the boot server prints, then give --ca-sha256 SHA256 (or --trust-on-first-use to take it unseen)
    "#]],
    );
    let other = "00".repeat(32);
    check(
        &server,
        &home.run_with(&format!("login {} --ca-sha256 {other}", server.url), PASSWORD),
        expect![[r#"
        exit 3
        tsubame: URL is not trusted: it shows a CA with the sha256 SHA256, expected 0000000000000000000000000000000000000000000000000000000000000000. Either this is another server, or its CA was made anew: ask the boot server for its fingerprint and log in with --ca-sha256
    "#]],
    );
    assert_eq!(server.requests(), Vec::<Request>::new());
}

#[test]
fn another_server_at_the_same_address_gets_no_token() {
    let [server, impostor] = [appliance(false), appliance(false)];
    let ca = Home::new();
    fs::write(ca.path("ca.pem"), &server.ca_pem).expect("written");
    let home = Home::with_session(&impostor).set("TSUBAME_CA", &ca.path("ca.pem").display().to_string());
    check(
        &impostor,
        &home.run("vm list"),
        expect![[r#"
        exit 3
        tsubame: URL is not trusted: its certificate does not hold under the CA that was pinned (BadSignature). Either this is another server, or its CA was made anew: ask the boot server for its fingerprint and log in with --ca-sha256
    "#]],
    );
    let home = Home::with_session(&impostor).set("TSUBAME_CA", &server.ca_sha256);
    let ran = home.run("vm list");
    assert_eq!((ran.code, ran.stderr.contains("is not trusted")), (3, true), "{ran:?}");
    assert_eq!(impostor.requests(), Vec::<Request>::new());
    // The right file is trusted.
    let home = Home::with_session(&server).set("TSUBAME_CA", &ca.path("ca.pem").display().to_string());
    assert_eq!(home.run("vm list").code, 0);

    // A saved session: its CA stands, also where first use would be trusted.
    let home = Home::new();
    let login = format!("login {} --ca-sha256 {}", server.url, server.ca_sha256);
    assert_eq!(home.run_with(&login, PASSWORD).code, 0);
    let file = home.path("tsubame/session.json");
    let moved = fs::read_to_string(&file).expect("kept").replace(&server.url, &impostor.url);
    fs::write(&file, moved).expect("written");
    for line in ["vm list", "login --trust-on-first-use"] {
        let ran = home.run_with(line, PASSWORD);
        assert_eq!((ran.code, ran.stderr.contains("is not trusted")), (3, true), "{line}: {ran:?}");
    }
    assert_eq!(impostor.requests(), Vec::<Request>::new());
}

#[test]
fn no_server_and_no_tsubame_server() {
    let server = Server::start(|request, _| match request.line.as_str() {
        "GET /v1/rack" => Reply::Whole(200, "text/html", "<html>".into()),
        "GET /v1/vms/web-1/console" => Reply::Whole(302, "text/html", String::new()),
        "POST /v1/hosts" => Reply::Nothing,
        _ => Reply::Whole(502, "text/html", "<html>".into()),
    });
    let home = Home::with_session(&server);
    check(
        &server,
        &home.run("vm list"),
        expect![[r#"
        exit 3
        tsubame: listing VMs: URL answered, but not as a Tsubame server of this version (0.1.0): expected value at line 1 column 1
    "#]],
    );
    check(
        &server,
        &home.run("vm console web-1"),
        expect![[r#"
        exit 3
        tsubame: reading the console of VM web-1: URL answered, but not as a Tsubame server of this version (0.1.0): HTTP status 302 Found
    "#]],
    );
    check(
        &server,
        &home.run("disk grow a --size 2G"),
        expect![[r#"
        exit 3
        tsubame: growing disk a to 2 GiB: URL answered, but not as a Tsubame server of this version (0.1.0): HTTP status 502 Bad Gateway
    "#]],
    );
    check(
        &server,
        &home.run("host add 52:54:00:aa:bb:01"),
        expect![[r#"
            exit 3
            tsubame: adding host 52:54:00:aa:bb:01: URL was not reached: it closed the connection without an answer; whether it was done is not known: look before you try again
        "#]],
    );
    // Nothing listens on port 1 (tcpmux).
    fs::write(home.path("ca.pem"), &server.ca_pem).expect("written");
    let home = home.set("TSUBAME_URL", "https://127.0.0.1:1");
    let pem = home.path("ca.pem").display().to_string();
    let home = home.set("TSUBAME_CA", &pem);
    let ran = home.run("vm list");
    assert_eq!((ran.code, ran.stderr.contains("Connection refused")), (3, true), "{ran:?}");
    // A server that speaks no TLS.
    let plain = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("https://{}", plain.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for mut socket in plain.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut socket, b"HTTP/1.1 400 X\r\n\r\n");
        }
    });
    let ran = home.set("TSUBAME_URL", &url).run("vm list");
    assert_eq!(ran.code, 3, "{ran:?}");
}

#[test]
fn no_session() {
    let server = appliance(false);
    check(
        &server,
        &Home::new().run("vm list"),
        expect![[r#"
        exit 4
        tsubame: listing VMs: no server is known; log in with `tsubame login URL`, or set TSUBAME_TOKEN
    "#]],
    );
    check(
        &server,
        &Home::new().set("TSUBAME_URL", &server.url).run("vm start web-1"),
        expect![[r#"
        exit 4
        tsubame: starting VM web-1: there is no session at URL; log in with `tsubame login URL`, or set TSUBAME_TOKEN
    "#]],
    );
    let ended = Home::with_session(&server).set("TSUBAME_TOKEN", "an-old-one");
    check(
        &server,
        &ended.run("vm list"),
        expect![[r#"
        exit 4
        tsubame: listing VMs: not logged in; log in with `tsubame login URL`, or set TSUBAME_TOKEN
    "#]],
    );
    check(
        &server,
        &Home::new().run("logout"),
        expect![[r#"
        exit 0
        no session is kept
    "#]],
    );
}

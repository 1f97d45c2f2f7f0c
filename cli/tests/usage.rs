//! The help, wrong usage, completions and manual pages.

mod support;

use expect_test::{Expect, expect, expect_file};
use support::Home;

fn check(line: &str, expect: Expect) {
    let ran = Home::new().run(line);
    expect.assert_eq(&format!("exit {}\n{}{}", ran.code, ran.stdout, ran.stderr));
}

#[test]
fn help() {
    let mut text = String::new();
    for line in [
        "--help",
        "login --help",
        "host --help",
        "host accept --help",
        "host power --help",
        "host confirm-off --help",
        "host bmc --help",
        "vm --help",
        "vm create --help",
        "vm ha --help",
        "vm migrate --help",
        "disk --help",
        "release --help",
        "pool --help",
        "pool rollout --help",
        "events --help",
    ] {
        let ran = Home::new().run(line);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
        text += &format!("$ tsubame {line}\n{}\n", ran.stdout);
    }
    expect_file!["./golden/help.txt"].assert_eq(&text);
}

#[test]
fn wrong_usage() {
    check(
        "vm start",
        expect![[r#"
        exit 2
        error: the following required arguments were not provided:
          <VM>

        Usage: tsubame vm start <VM>

        For more information, try '--help'.
    "#]],
    );
    check(
        "vm ha a",
        expect![[r#"
        exit 2
        error: the following required arguments were not provided:
          --priority <PRIORITY>

        Usage: tsubame vm ha --priority <PRIORITY> <VM>

        For more information, try '--help'.
    "#]],
    );
    check(
        "host confirm-off a --it-is-off b",
        expect![[r#"
        exit 2
        tsubame: confirming that host a is off: --it-is-off is "b", expected "a" once more: if it has power all the same, its VMs run twice
    "#]],
    );
    check(
        "vm start Web_1",
        expect![[r#"
        exit 2
        error: invalid value 'Web_1' for '<VM>': "Web_1" is no name: expected 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit

        For more information, try '--help'.
    "#]],
    );
    check(
        "vm create web-1 --template tiny --memory 1.5G",
        expect![[r#"
        exit 2
        error: invalid value '1.5G' for '--memory <SIZE>': "1.5G" is no size: expected MiB, or a number with M, G or T, 1 MiB or more

        For more information, try '--help'.
    "#]],
    );
    check(
        "host add 52:54",
        expect![[r#"
        exit 2
        error: invalid value '52:54' for '<MAC>': "52:54" is no MAC address: expected six bytes as 52:54:00:aa:bb:01

        For more information, try '--help'.
    "#]],
    );
    check(
        "frobnicate",
        expect![[r#"
        exit 2
        error: unrecognized subcommand 'frobnicate'

        Usage: tsubame [OPTIONS] <COMMAND>

        For more information, try '--help'.
    "#]],
    );
    check(
        "vm list -o xml",
        expect![[r#"
        exit 2
        error: invalid value 'xml' for '--output <OUTPUT>'
          [possible values: table, json, yaml]

          tip: a similar value exists: 'yaml'

        For more information, try '--help'.
    "#]],
    );
    check(
        "login http://10.77.0.1",
        expect![[r#"
        exit 2
        tsubame: login: "http://10.77.0.1" is not https: a password is never sent without TLS
    "#]],
    );
    check(
        "login",
        expect![[r#"
        exit 2
        tsubame: login: which server? Give its address: tsubame login https://HOST[:PORT]
    "#]],
    );
    check(
        "login a --ca-sha256 abc",
        expect![[r#"
        exit 2
        error: invalid value 'abc' for '--ca-sha256 <HEX>': "abc" is no sha256 of a certificate: expected 64 hexadecimal digits (colons allowed), or 43 characters of base64url

        For more information, try '--help'.
    "#]],
    );
    check(
        "login a --ca-sha256 --trust-on-first-use",
        expect![[r#"
        exit 2
        error: a value is required for '--ca-sha256 <HEX>' but none was supplied

        For more information, try '--help'.
    "#]],
    );
    assert_eq!(Home::new().run("").code, 2);
    assert_eq!(Home::new().run("vm").code, 2);
}

#[test]
fn wrong_environment() {
    let check = |name, value: &str, expect: Expect| {
        let ran = Home::new().set("TSUBAME_URL", "https://127.0.0.1:1").set(name, value).run("vm list");
        expect.assert_eq(&format!("exit {}\n{}", ran.code, ran.stderr));
    };
    check(
        "TSUBAME_URL",
        "http://a",
        expect![[r#"
        exit 2
        tsubame: TSUBAME_URL: "http://a" is not https: a password is never sent without TLS
    "#]],
    );
    check(
        "TSUBAME_CA",
        "/nowhere/ca.pem",
        expect![[r#"
        exit 2
        tsubame: TSUBAME_CA: "/nowhere/ca.pem" is no sha256 of a certificate: expected 64 hexadecimal digits (colons allowed), or 43 characters of base64url, and no file either: No such file or directory (os error 2)
    "#]],
    );
    check(
        "TSUBAME_TOKEN",
        "a b",
        expect![[r#"
        exit 2
        tsubame: TSUBAME_TOKEN is no session's token: it has characters that none has
    "#]],
    );
    let home = Home::new();
    std::fs::create_dir(home.path("tsubame")).expect("made");
    std::fs::write(home.path("tsubame/session.json"), "{").expect("written");
    let ran = home.run("vm list");
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("session.json"), "{ran:?}");
}

#[test]
fn completions_and_manual_pages() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = Home::new().run(&format!("completions {shell}"));
        assert!(ran.code == 0 && ran.stdout.contains("undrain"), "{shell}: {}", ran.stderr);
    }
    let home = Home::new();
    let ran = home.run(&format!("man {}", home.path("").display()));
    assert_eq!(ran.code, 0, "{ran:?}");
    let page = std::fs::read_to_string(home.path("tsubame-vm-migrate.1")).expect("a page for each command");
    assert!(page.contains(".TH"), "{page}");
    assert_eq!(home.run("man /nowhere/at/all").code, 2);
}

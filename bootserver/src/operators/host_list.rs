//! Lists of machines to come, as an operator writes them: CSV with a line of headings, or YAML.
//!
//! Owns: the two forms, and errors that name the line. Never does: decide whether such a machine may be; the rack does.

use super::routes::NOT_SHOWN;
use proto::Mac;
use proto::agent::Secret;
use proto::api::Refusal;
use proto::power::{BmcKind, SetBmc};
use rack::event::ListedHost;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The headings that there are, one or more of the first three among them. In YAML what is of the controller is a mapping `bmc`.
const HEADINGS: [&str; 11] = [
    "mac",
    "uuid",
    "serial",
    "name",
    "labels",
    "bmc",
    "bmc_address",
    "bmc_user",
    "bmc_password",
    "bmc_trust",
    "bmc_system",
];

/// A machine in YAML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Entry {
    mac: Option<Mac>,
    uuid: String,
    serial: String,
    name: Option<String>,
    labels: BTreeMap<String, String>,
    bmc: Option<SetBmc>,
}

/// Takes a list apart. What begins with `-` or `[` is YAML.
///
/// # Errors
/// `BadValue` with the line, counted from 1.
pub(super) fn parse(text: &str) -> Result<Vec<ListedHost>, Refusal> {
    let hosts = parts(text);
    if !text.contains("password") {
        return hosts;
    }
    // Neither a line nor what is said of a value in it may show a secret.
    hosts.map_err(|refusal| match refusal {
        Refusal::BadValue { field, expected, .. } => {
            let expected = if expected.starts_with("other YAML") { "other YAML".to_owned() } else { expected };
            Refusal::BadValue { field, given: NOT_SHOWN.to_owned(), expected }
        }
        other => other,
    })
}

fn parts(text: &str) -> Result<Vec<ListedHost>, Refusal> {
    let told = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let first = text.lines().find(told).unwrap_or_default();
    let hosts = if first.trim_start().starts_with(['-', '[']) { yaml(text) } else { csv(text) }?;
    match hosts.is_empty() {
        true => Err(bad(1, "", first, "a machine or more")),
        false => Ok(hosts),
    }
}

fn bad(line: usize, what: &str, given: &str, expected: &str) -> Refusal {
    let field = if what.is_empty() { format!("line {line}") } else { format!("line {line}, {what}") };
    Refusal::BadValue { field, given: given.chars().take(80).collect(), expected: expected.to_owned() }
}

fn yaml(text: &str) -> Result<Vec<ListedHost>, Refusal> {
    let entries: Vec<Entry> = serde_yaml::from_str(text).map_err(|err| {
        let line = err.location().map_or(1, |at| at.line());
        bad(line, "", text.lines().nth(line.saturating_sub(1)).unwrap_or_default(), &format!("other YAML: {err}"))
    })?;
    // A machine begins where a line begins with a dash; a list on one line has but one.
    let lines: Vec<usize> =
        text.lines().enumerate().filter(|(_, line)| line.starts_with('-')).map(|(at, _)| at + 1).collect();
    let last = lines.last().copied().unwrap_or(1);
    let hosts = entries.into_iter().enumerate().map(|(at, entry)| ListedHost {
        line: lines.get(at).copied().unwrap_or(last),
        mac: entry.mac,
        uuid: entry.uuid,
        serial: entry.serial,
        name: entry.name.filter(|name| !name.is_empty()),
        labels: entry.labels,
        bmc: entry.bmc,
    });
    Ok(hosts.collect())
}

fn csv(text: &str) -> Result<Vec<ListedHost>, Refusal> {
    let mut headings: Option<Vec<String>> = None;
    let mut hosts = Vec::new();
    for (at, content) in text.lines().enumerate() {
        let line = at + 1;
        if content.trim().is_empty() || content.trim_start().starts_with('#') {
            continue;
        }
        let fields = fields(content).ok_or_else(|| bad(line, "", content, "as many quotes as close"))?;
        let Some(headings) = &headings else {
            let names: Vec<String> = fields.iter().map(|name| name.to_lowercase()).collect();
            if let Some(other) = names.iter().find(|name| !HEADINGS.contains(&name.as_str())) {
                return Err(bad(line, "heading", other, &format!("one of {}", HEADINGS.join(", "))));
            }
            headings = Some(names);
            continue;
        };
        if fields.len() > headings.len() {
            return Err(bad(line, "", content, &format!("{} fields, as there are headings", headings.len())));
        }
        let mut host = ListedHost { line, ..ListedHost::default() };
        let mut bmc = Vec::new();
        for (heading, value) in headings.iter().zip(fields).filter(|(_, value)| !value.is_empty()) {
            match heading.as_str() {
                "mac" => {
                    let mac = value.parse().map_err(|_| bad(line, "mac", &value, "six bytes as 52:54:00:aa:bb:01"))?;
                    host.mac = Some(mac);
                }
                "uuid" => host.uuid = value,
                "serial" => host.serial = value,
                "name" => host.name = Some(value),
                _ if heading.starts_with("bmc") => bmc.push((heading.as_str(), value)),
                _ => {
                    for label in value.split_whitespace() {
                        let (key, value) =
                            label.split_once('=').ok_or_else(|| bad(line, "labels", label, "key=value"))?;
                        host.labels.insert(key.to_owned(), value.to_owned());
                    }
                }
            }
        }
        host.bmc = controller(line, bmc)?;
        hosts.push(host);
    }
    Ok(hosts)
}

/// A controller in fields that are not empty, each with its heading.
fn controller(line: usize, fields: Vec<(&str, String)>) -> Result<Option<SetBmc>, Refusal> {
    if fields.is_empty() {
        return Ok(None);
    }
    let of = |heading: &str| fields.iter().find(|(name, _)| *name == heading).map(|(_, value)| value.clone());
    let kind = match of("bmc").unwrap_or_default().as_str() {
        "wake" => BmcKind::Wake,
        "ipmi" => BmcKind::Ipmi,
        "redfish" => BmcKind::Redfish,
        other => return Err(bad(line, "bmc", other, "wake, ipmi or redfish")),
    };
    Ok(Some(SetBmc {
        kind,
        address: of("bmc_address"),
        user: of("bmc_user").unwrap_or_default(),
        password: of("bmc_password").map(Secret),
        trust: of("bmc_trust"),
        system: of("bmc_system"),
    }))
}

/// The fields of a line of CSV (RFC 4180), without the spaces around them; `None` when a quote is not closed. No field goes over a line's end.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let begun = rest.trim_start();
        let (field, after) = match begun.strip_prefix('"') {
            None => {
                let end = begun.find(',').unwrap_or(begun.len());
                (begun[..end].trim_end().to_owned(), &begun[end..])
            }
            Some(quoted) => {
                let mut field = String::new();
                let mut left = quoted;
                loop {
                    let end = left.find('"')?;
                    field.push_str(&left[..end]);
                    left = &left[end + 1..];
                    match left.strip_prefix('"') {
                        Some(more) => {
                            field.push('"');
                            left = more;
                        }
                        None => break,
                    }
                }
                let left = left.trim_start();
                if !left.is_empty() && !left.starts_with(',') {
                    return None;
                }
                (field, left)
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Some(fields),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::fmt::Write;

    fn check(text: &str, expected: Expect) {
        let mut shown = String::new();
        match parse(text) {
            Ok(hosts) => {
                for h in hosts {
                    let mac = h.mac.map(|mac| mac.to_string()).unwrap_or_default();
                    writeln!(shown, "{}: {mac}|{}|{}|{:?} {:?}", h.line, h.uuid, h.serial, h.name, h.labels)
                        .expect("a String");
                }
            }
            Err(refusal) => writeln!(shown, "{refusal}").expect("a String"),
        }
        expected.assert_eq(&shown);
    }

    #[test]
    fn controllers() {
        let hosts = parse(
            "mac,bmc,bmc_address,bmc_user,bmc_password\n52:54:00:aa:bb:01,ipmi,10.0.0.1,admin,\"p,w\"\n52:54:00:aa:bb:02\n",
        );
        let [first, second] = &hosts.expect("a list")[..] else { panic!("two machines") };
        let bmc = first.bmc.as_ref().expect("a controller");
        assert_eq!((bmc.kind, bmc.address.as_deref(), bmc.user.as_str()), (BmcKind::Ipmi, Some("10.0.0.1"), "admin"));
        assert_eq!(bmc.password, Some(Secret("p,w".to_owned())));
        assert_eq!(second.bmc, None);
        let hosts = parse("- mac: 52:54:00:aa:bb:01\n  bmc: { kind: redfish, user: a, password: b, trust: any }\n");
        assert_eq!(hosts.expect("a list")[0].bmc.as_ref().expect("a controller").kind, BmcKind::Redfish);
    }

    /// Whatever is wrong with a list, what is said of it shows no password.
    #[test]
    fn no_error_shows_a_password() {
        for bad in [
            "mac,bmc_password\n52:54:00:aa:bb:01,\"hunter2\n",
            "mac,bmc_password\n52:54:00:aa:bb:01,hunter2,x\n",
            "mac,bmc,bmc_password\n52:54:00:aa:bb:01,,hunter2\n",
            "mac,bmc,bmc_password\n52:54,ipmi,hunter2\n",
            "- mac: 52:54:00:aa:bb:01\n  bmc: { kind: ipmi, password: [hunter2] }\n",
            "- mac: 52:54:00:aa:bb:01\n  bmc: { kind: ipmi, password: hunter2, colour: red }\n",
            "- mac: 52:54:00:aa:bb:01\n  bmc: { password: hunter2 }\n",
            "- { mac: 1, bmc: { kind: ipmi, password: hunter2 }\n",
        ] {
            let refusal = parse(bad).expect_err(bad).to_string();
            assert!(!refusal.contains("hunter2"), "{refusal}");
            assert!(refusal.contains("line"), "{refusal}");
        }
    }

    #[test]
    fn comma_separated() {
        check(
            "# rack 3\nMAC,serial,name,labels\n52-54-00-AA-BB-01,S1,\"a, \"\"b\"\"\",row=a power=b\n\n , S2 ,n{n}\n",
            expect![[r#"
                3: 52:54:00:aa:bb:01||S1|Some("a, \"b\"") {"power": "b", "row": "a"}
                5: ||S2|Some("n{n}") {}
            "#]],
        );
        check(
            "mac,colour\n",
            expect![[r#"
            line 1, heading is "colour", expected one of mac, uuid, serial, name, labels, bmc, bmc_address, bmc_user, bmc_password, bmc_trust, bmc_system
        "#]],
        );
        check(
            "mac\n52:54:00:aa:bb\n",
            expect![[r#"
            line 2, mac is "52:54:00:aa:bb", expected six bytes as 52:54:00:aa:bb:01
        "#]],
        );
        check(
            "mac,labels\n52:54:00:aa:bb:01,row\n",
            expect![[r#"
            line 2, labels is "row", expected key=value
        "#]],
        );
        check(
            "serial\nS1,S2\n",
            expect![[r#"
            line 2 is "S1,S2", expected 1 fields, as there are headings
        "#]],
        );
        check(
            "serial\n\"S1\n",
            expect![[r#"
            line 2 is "\"S1", expected as many quotes as close
        "#]],
        );
        check(
            "serial\n",
            expect![[r#"
            line 1 is "serial", expected a machine or more
        "#]],
        );
        check(
            "",
            expect![[r#"
            line 1 is "", expected a machine or more
        "#]],
        );
    }

    #[test]
    fn yaml_lists() {
        check(
            "# rack 3\n- { mac: \"52:54:00:aa:bb:01\", name: a }\n- uuid: 00112233-4455-6677-8899-aabbccddeeff\n  labels: { row: a }\n",
            expect![[r#"
                2: 52:54:00:aa:bb:01|||Some("a") {}
                3: |00112233-4455-6677-8899-aabbccddeeff||None {"row": "a"}
            "#]],
        );
        check(
            "- serial: S1\n- colour: red\n",
            expect![[r#"
            line 2 is "- colour: red", expected other YAML: .[1]: unknown field `colour`, expected one of `mac`, `uuid`, `serial`, `name`, `labels`, `bmc` at line 2 column 3
        "#]],
        );
        check(
            "- mac: 52:54\n",
            expect![[r#"
            line 1 is "- mac: 52:54", expected other YAML: .[0]: "52:54" is no MAC address: expected six bytes as 52:54:00:aa:bb:01 at line 1 column 3
        "#]],
        );
        check(
            "- [1]\n",
            expect![[r#"
            line 1 is "- [1]", expected other YAML: .[0]: invalid type: sequence, expected struct Entry at line 1 column 3
        "#]],
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[-a-c,\"\\n: =\\[{é#]{0,60}") {
            let _ = parse(&text);
            let _ = parse(&format!("mac,serial,labels\n{text}"));
        }
    }
}

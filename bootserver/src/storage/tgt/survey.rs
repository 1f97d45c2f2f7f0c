//! Reads what tgtd shows of its targets (usr/target.c, tgt_target_show_all; seen with tgt 1.0.85).

/// A target and who is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) tid: i32,
    pub(super) name: String,
    pub(super) nexuses: Vec<Nexus>,
    /// CHAP users bound to it, in tgtd's order.
    pub(super) accounts: Vec<String>,
}

/// A session, in SCSI's words an I_T nexus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nexus {
    pub(super) id: u64,
    pub(super) initiator: String,
    pub(super) connections: Vec<u32>,
    pub(super) addresses: Vec<String>,
}

const ACCOUNTS: &str = "Account information:";

/// Lines that are not understood are passed over: tgtd adds kinds of line between versions.
pub(super) fn parse(text: &str) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    let mut section = "";
    for line in text.lines() {
        if line.ends_with("information:") {
            section = line.trim();
        } else if let (ACCOUNTS, Some(target)) = (section, targets.last_mut())
            && line.starts_with("        ")
        {
            target.accounts.push(line.trim().to_owned());
        }
        let Some((key, value)) = line.trim().split_once(": ") else { continue };
        if let Some(tid) = key.strip_prefix("Target ").and_then(|n| n.parse().ok()) {
            targets.push(Target { tid, name: value.to_owned(), nexuses: Vec::new(), accounts: Vec::new() });
            section = "";
            continue;
        }
        let Some(target) = targets.last_mut() else { continue };
        match (key, target.nexuses.last_mut()) {
            ("I_T nexus", _) => {
                if let Ok(id) = value.parse() {
                    target.nexuses.push(Nexus {
                        id,
                        initiator: String::new(),
                        connections: Vec::new(),
                        addresses: Vec::new(),
                    });
                }
            }
            ("Initiator", Some(nexus)) => {
                // "NAME alias: ALIAS", where the alias is the initiator's to choose: only what is before counts.
                value.split(" alias: ").next().unwrap_or(value).clone_into(&mut nexus.initiator);
            }
            ("Connection", Some(nexus)) => nexus.connections.extend(value.parse::<u32>().ok()),
            ("IP Address", Some(nexus)) => nexus.addresses.push(value.to_owned()),
            _ => {}
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn as_tgt_1_0_85_shows_it() {
        let text = "Target 1: iqn.2026-11.org.tsubame:d1\n    System information:\n        Driver: iscsi\n        State: ready\n    \
                    I_T nexus information:\n        I_T nexus: 3\n            Initiator: iqn.x:h1 alias: none\n            \
                    Connection: 0\n                IP Address: 127.0.0.1\n    LUN information:\n        LUN: 0\n            \
                    Type: controller\n            SCSI ID: IET     00010000\n    Account information:\n        u1\n        u2\n    \
                    ACL information:\n        127.0.0.1\n        iqn.x:h1\nTarget 12: iqn.2026-11.org.tsubame:d2\n    I_T nexus information:\n";
        expect![[r#"
            [
                Target {
                    tid: 1,
                    name: "iqn.2026-11.org.tsubame:d1",
                    nexuses: [
                        Nexus {
                            id: 3,
                            initiator: "iqn.x:h1",
                            connections: [
                                0,
                            ],
                            addresses: [
                                "127.0.0.1",
                            ],
                        },
                    ],
                    accounts: [
                        "u1",
                        "u2",
                    ],
                },
                Target {
                    tid: 12,
                    name: "iqn.2026-11.org.tsubame:d2",
                    nexuses: [],
                    accounts: [],
                },
            ]
        "#]]
        .assert_debug_eq(&parse(text));
    }
}

use super::*;
use expect_test::{Expect, expect};
use rack::release::{UNIFIED_ROLE, id_of};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

/// A configuration on the loopback interface, which every machine has.
const GOOD: &str = "\
state: state
interface: lo
subnet:
  network: 127.0.0.0/24
  address: 127.0.0.1
  pool: 127.0.0.50-127.0.0.99
reservations: { \"52:54:00:aa:bb:01\": 127.0.0.60 }
release: dom0-1
loaders: loaders
templates:
  tiny: { kernel: k, initrd: i, cmdline: quiet, memory_mib: 96, disk_mib: 64 }
  own: { loader: l, disk_image: d, memory_mib: 256, disk_mib: 2 }
listen: { operator: 127.0.0.1:8443 }
";

fn directory() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for sub in ["dom0-1", "loaders"] {
        fs::create_dir(dir.path().join(sub)).expect("made");
    }
    for (name, content) in [
        ("dom0-1/xen", "xen"),
        ("dom0-1/xen.efi", "xen.efi"),
        ("dom0-1/vmlinuz", "vmlinuz"),
        ("dom0-1/initrd", "initrd"),
        ("dom0-1/dom0.squashfs", "dom0.squashfs"),
        ("loaders/undionly.kpxe", "u"),
        ("loaders/ipxe.efi", "e"),
        ("k", "kernel"),
        ("i", "initrd"),
        ("l", "loader"),
    ] {
        fs::write(dir.path().join(name), content).expect("written");
    }
    fs::write(dir.path().join("d"), vec![0; (1 << 20) + 1]).expect("written");
    dir
}

fn load(dir: &Path, text: &str) -> Result<Config, ConfigError> {
    let file = dir.join("c.yaml");
    fs::write(&file, text).expect("written");
    Config::load(&file)
}

fn check(from: &str, to: &str, expect: Expect) {
    let dir = directory();
    assert!(GOOD.contains(from), "{from:?} is not in the good configuration");
    let err = load(dir.path(), &GOOD.replacen(from, to, 1)).map(|_| ()).expect_err("it is wrong");
    expect.assert_eq(&err.to_string().replace(&dir.path().display().to_string(), "DIR"));
}

#[test]
fn a_good_one() {
    let dir = directory();
    let config = load(dir.path(), GOOD).expect("it is right");
    let policy = config.policy("x".repeat(43));
    assert_eq!(policy.release.title(), "dom0-1-0");
    assert_eq!(policy.dom0.xen_args, "dom0_mem=512M,max:512M");
    assert_eq!(policy.release.files.len(), 5);
    let names: Vec<_> =
        config.imports.iter().map(|import| (import.manifest.name.as_str(), import.files.len())).collect();
    assert_eq!(names, [("dom0-1", 5), ("own", 1), ("tiny", 2)]);
    assert_eq!(policy.release_keep_ms, 30 * 86_400_000);
    assert_eq!(config.template_images, BTreeMap::from([("own".to_owned(), dir.path().join("d"))]));
    assert_eq!(policy.storage, rack::policy::Storage::Own { portal: ([127, 0, 0, 1], 3260).into() });
    assert_eq!(config.state, dir.path().join("state"));
}

#[test]
fn keys_and_types() {
    check("state: state\n", "", expect!["DIR/c.yaml:1: missing field `state`"]);
    check(
        "interface: lo",
        "interfaces: lo",
        expect![
            "DIR/c.yaml:2: unknown field `interfaces`, expected one of `state`, `interface`, `subnet`, `relayed`, `reservations`, `join`, `accept`, `release`, `loaders`, `dom0`, `templates`, `listen`, `storage`, `timing`, `balancing`, `boot`, `releases`, `backup`"
        ],
    );
    check(
        "  pool:",
        "  pol:",
        expect![
            "DIR/c.yaml:6: subnet: unknown field `pol`, expected one of `network`, `address`, `dhcp`, `pool`, `gateway`, `dns`, `lease_s`"
        ],
    );
    check(
        "memory_mib: 96",
        "memory_mib: lots",
        expect![[r#"DIR/c.yaml:11: templates.tiny.memory_mib: invalid type: string "lots", expected u64"#]],
    );
    check(
        "127.0.0.0/24",
        "127.0.0.1/24",
        expect![[
            r#"DIR/c.yaml:4: subnet.network: is "127.0.0.1/24", expected one such as 10.77.0.0/24, /8 to /30, its host bits zero"#
        ]],
    );
    check(
        "127.0.0.50-127.0.0.99",
        "127.0.0.99-127.0.0.50",
        expect![[
            r#"DIR/c.yaml:6: subnet.pool: is "127.0.0.99-127.0.0.50", expected the first and the last address as 10.77.0.50-10.77.0.99"#
        ]],
    );
    check(
        "52:54:00:aa:bb:01",
        "52:54:00:aa:bb",
        expect![[
            r#"DIR/c.yaml:7: reservations: "52:54:00:aa:bb" is no MAC address: expected six bytes as 52:54:00:aa:bb:01"#
        ]],
    );
    check("release:", "release: [", expect!["DIR/c.yaml:8: release: invalid type: sequence, expected path string"]);
}

#[test]
fn kinds_of_storage() {
    check(
        "state: state\n",
        "state: state\nstorage: { kind: ceph }\n",
        expect![[r#"DIR/c.yaml:2: storage.kind: unknown variant `ceph`, expected one of `tgt`, `lio`, `external`"#]],
    );
    check(
        "state: state\n",
        "state: state\nstorage:\n  kind: lio\n  tgt_control_port: 7\n",
        expect!["DIR/c.yaml:4: storage.tgt_control_port: is given, expected with storage.kind: tgt only"],
    );
    check(
        "state: state\n",
        "state: state\nstorage:\n  portal: 0.0.0.0:3260\n",
        expect![[
            "DIR/c.yaml:3: storage.portal: is 0.0.0.0:3260, expected an address that hosts can reach, and a port"
        ]],
    );
    let san = "storage:\n  kind: external\n  heartbeat: { portal: 10.9.0.5:3260, target: \"iqn.x:hb\", lun: 0, user: tsubame, secret_file: secret, size_mib: 4, device: hb }\n  disks:\n    web-1-0: { portal: 10.9.0.5:3260, target: \"iqn.x:a\", lun: 3, user: tsubame, secret_file: secret, size_mib: 64 }\n";
    let dir = directory();
    let secret = dir.path().join("secret");
    fs::write(dir.path().join("hb"), []).expect("written");
    fs::write(&secret, "0123456789abcd\n").expect("written");
    let mode = |mode| fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).expect("set");
    mode(0o600);
    let config = load(dir.path(), &format!("{GOOD}{san}")).expect("it is right");
    let StorageKind::External { disks, .. } = &config.storage.kind else { panic!("{:?}", config.storage) };
    assert_eq!(disks.keys().map(DiskId::as_str).collect::<Vec<_>>(), ["tsubame-heartbeat", "web-1-0"]);
    assert_eq!(disks.values().map(|disk| (disk.lun, disk.secret.0.as_str())).next_back(), Some((3, "0123456789abcd")));
    let wrong = |from: &str, to: &str| {
        let text = format!("{GOOD}{san}").replace(from, to);
        assert_ne!(text, format!("{GOOD}{san}"), "{from}");
        load(dir.path(), &text).expect_err("it is wrong").what
    };
    let same = wrong("\"iqn.x:a\", lun: 3", "\"iqn.x:hb\", lun: 7");
    assert!(same.contains("is the target of tsubame-heartbeat too, expected one of its own"), "{same}");
    assert!(wrong("lun: 3", "lun: 99999").contains("expected 0 to 16383"));
    assert!(wrong(", device: hb", "").contains("expected the path by which this machine reaches"));
    assert!(wrong("device: hb", "device: none").contains("is no block device"));
    assert!(wrong("size_mib: 4,", "size_mib: 3,").contains("expected 4 to"));
    assert!(wrong("iqn.x:a", "a b").contains("expected a target's name"));
    assert!(wrong("kind: external", "kind: lio").contains("expected with storage.kind: external only"));
    mode(0o644);
    assert!(wrong("lun: 3", "lun: 4").contains("can be read by others (mode 644)"));
    let dir = directory();
    let config = load(dir.path(), &format!("{GOOD}storage: {{ kind: lio }}\n")).expect("it is right");
    assert_eq!(config.storage.kind, StorageKind::Lio { portal: ([127, 0, 0, 1], 3260).into() });
}

#[test]
fn the_manuals_balancing_is_right() {
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating.md")).expect("the manual");
    let (_, section) = manual.split_once("```yaml\nbalancing:\n").expect("it shows the section");
    let (section, _) = section.split_once("```").expect("the section ends");
    let dir = directory();
    let config = load(dir.path(), &format!("{GOOD}balancing:\n{section}")).expect("it is right");
    assert_eq!(config.policy(String::new()).balancing.rules.len(), 2);
}

#[test]
fn balancing() {
    check(
        "listen:",
        "balancing:\n  goall: pack\nlisten:",
        expect![
            "DIR/c.yaml:14: balancing: unknown field `goall`, expected one of `goal`, `weights`, `thresholds`, `thresholds_for`, `quantile`, `horizon_ms`, `rules`, `spare_hosts`, `light_hosts`, `light_share`, `slack`, `moves_max`, `move_mib_max`, `streams_in_max`, `streams_out_max`, `expires_ms`, `cost`, `learnt`, `rest`, `groups`, `sites`, `energy_weight`, `site_weight`"
        ],
    );
    check(
        "listen:",
        "balancing:\n  spare_hosts: 1\n  quantile: 2\nlisten:",
        expect!["DIR/c.yaml:15: balancing.quantile: is 2, expected a number from 0.5 to 0.999"],
    );
    check(
        "listen:",
        "balancing:\n  rules:\n  - { name: a, ask: apart, vms: { names: [x, y] } }\n  - { name: a, ask: together, vms: { names: [x] } }\nlisten:",
        expect![[r#"DIR/c.yaml:14: balancing.rules: rules[1].name is "a" again, expected each name once"#]],
    );
}

#[test]
fn rules_on_whom_to_let_in() {
    check(
        "release:",
        "accept: [{ product: \"Dell*\", name: \"r{n}\" }, { labels: { a: b } }]\nrelease:",
        expect!["DIR/c.yaml:8: accept: rule 2 has no condition, expected product, cpu, memory_mib, nic or network"],
    );
    check(
        "release:",
        "accept: [{ network: 10.77.0.1/24 }]\nrelease:",
        expect![[
            r#"DIR/c.yaml:8: accept.network: is "10.77.0.1/24", expected one such as 10.77.0.0/24, /8 to /30, its host bits zero"#
        ]],
    );
    check(
        "release:",
        "accept: [{ vendor: Dell }]\nrelease:",
        expect![
            "DIR/c.yaml:8: accept[0]: unknown field `vendor`, expected one of `product`, `cpu`, `memory_mib`, `nic`, `network`, `name`, `labels`"
        ],
    );
}

#[test]
fn values_at_odds() {
    check(
        "address: 127.0.0.1",
        "address: 127.0.1.1",
        expect![
            "DIR/c.yaml:5: subnet.address: interface lo does not have the address 127.0.1.1; give it to it first: ip address add 127.0.1.1/24 dev lo"
        ],
    );
    check(
        "127.0.0.50-",
        "127.0.0.1-",
        expect!["DIR/c.yaml:6: subnet.pool: holds 127.0.0.1, which is the server's own; expected a range without it"],
    );
    check(
        "-127.0.0.99",
        "-127.0.1.99",
        expect!["DIR/c.yaml:6: subnet.pool: is 127.0.0.50-127.0.1.99, expected hosts' addresses of 127.0.0.0/24"],
    );
    check(
        "127.0.0.60 }",
        "127.0.0.1 }",
        expect![
            "DIR/c.yaml:7: reservations.52:54:00:aa:bb:01: is 127.0.0.1, which is the server's own address; expected an address of its own"
        ],
    );
    check(
        "127.0.0.60 }",
        "127.0.0.60, \"52:54:00:aa:bb:02\": 127.0.0.60 }",
        expect![
            "DIR/c.yaml:7: reservations.52:54:00:aa:bb:02: is 127.0.0.60, which is reserved for 52:54:00:aa:bb:01; expected an address of its own"
        ],
    );
    check(
        "127.0.0.99\n",
        "127.0.0.99\n  gateway: 127.0.0.70\n",
        expect!["DIR/c.yaml:6: subnet.pool: holds 127.0.0.70, which is the gateway's; expected a range without it"],
    );
    check(
        "{ operator",
        "{ boot_port: 7443, operator",
        expect!["DIR/c.yaml:13: listen.agent_port: is the same as boot_port, expected another port"],
    );
    check(
        "127.0.0.1:8443 }",
        "0.0.0.0:8080 }",
        expect!["DIR/c.yaml:13: listen.operator: has the port of boot_port or agent_port, expected another"],
    );
    check(
        "memory_mib: 96",
        "memory_mib: 8",
        expect!["DIR/c.yaml:11: templates.tiny.memory_mib: is 8, expected 16 to 16777216 MiB"],
    );
    check(
        "loader: l,",
        "loader: l, kernel: k,",
        expect![
            "DIR/c.yaml:12: templates.own: expected either kernel (with initrd and cmdline, if wanted) or loader, and not both"
        ],
    );
    check(
        "disk_mib: 2 ",
        "disk_mib: 1 ",
        expect!["DIR/c.yaml:12: templates.own.disk_mib: is 1, expected 2 or more, the size of DIR/d"],
    );
    check(
        "listen:",
        "timing: { report_ms: 2000, lost_ms: 2500 }\nlisten:",
        expect!["DIR/c.yaml:13: timing.lost_ms: is 2500, expected 4000 to 3600000 ms (at least twice report_ms)"],
    );
    let long = format!("dom0: {{ kernel_args: \"{}\" }}\nlisten:", "x".repeat(300));
    check(
        "listen:",
        &long,
        expect![
            "DIR/c.yaml:13: dom0: boot URLs and command lines take up to 726 bytes under BIOS, of which iPXE holds 512; shorten dom0.xen_args (now 22) or dom0.kernel_args (now 300)"
        ],
    );
    check(
        "listen:",
        "dom0: { xen_args: \"a\\nb\" }\nlisten:",
        expect![[
            r#"DIR/c.yaml:13: dom0: dom0.xen_args is "dom0_mem=512M,max:512M a\nb", expected printable ASCII without line breaks"#
        ]],
    );
}

#[test]
fn subnets() {
    let dir = directory();
    let pool = "  pool: 127.0.0.50-127.0.0.99\nreservations: { \"52:54:00:aa:bb:01\": 127.0.0.60 }\n";
    let far = "relayed:\n- { network: 10.78.0.0/24, pool: 10.78.0.50-10.78.0.99, gateway: 10.78.0.1 }\n\
               - { network: 10.79.0.0/24, dhcp: proxy, gateway: 10.79.0.1 }\n";
    let config = load(dir.path(), &GOOD.replace(pool, &format!("  dhcp: proxy\n{far}"))).expect("it is right");
    let policy = config.policy("x".repeat(43));
    let shown: Vec<_> =
        policy.subnets().map(|s| format!("{} {:?} {}-{}", s.network, s.serves, s.pool.0, s.pool.1)).collect();
    expect![[r#"
        127.0.0.0 Proxy 127.0.0.1-127.0.0.254
        10.78.0.0 Full 10.78.0.50-10.78.0.99
        10.79.0.0 Proxy 10.79.0.1-10.79.0.254"#]]
    .assert_eq(&shown.join("\n"));
    assert!(policy.subnets().all(|s| s.ca_digest.len() == 43 && s.server == policy.subnet.server));
    let given = format!("{pool}{}", far.replace("pool:", "lease_s: 600, pool:"));
    let reserved = given.replace("127.0.0.60", "10.78.0.60");
    let config = load(dir.path(), &GOOD.replace(pool, &reserved)).expect("it is right");
    let policy = config.policy(String::new());
    assert_eq!((policy.subnet.reservations.len(), policy.relayed[0].reservations.len()), (0, 1));

    check(
        "  pool: 127.0.0.50-127.0.0.99\n",
        "",
        expect!["DIR/c.yaml:3: subnet.pool: is not there; expected a range, or dhcp: proxy"],
    );
    check(
        "  pool:",
        "  dhcp: proxy\n  pool:",
        expect!["DIR/c.yaml:7: subnet.pool: is there, but with dhcp: proxy another server gives out the addresses"],
    );
    check(
        "  pool: 127.0.0.50-127.0.0.99\n",
        "  dhcp: proxy\n",
        expect![
            "DIR/c.yaml:7: reservations.52:54:00:aa:bb:01: is of 127.0.0.0/24, whose addresses another server gives out: reserve it there"
        ],
    );
    check(
        "  pool:",
        "  dhcp: none\n  pool:",
        expect!["DIR/c.yaml:6: subnet.dhcp: unknown variant `none`, expected `full` or `proxy`"],
    );
    let relayed = |text: &str| format!("{text}\nreservations:");
    check(
        "reservations:",
        &relayed("relayed: [{ network: 10.78.0.0/24, pool: 10.78.0.5-10.78.0.9 }]"),
        expect!["DIR/c.yaml:7: relayed[0]: missing field `gateway`"],
    );
    let overlap = "relayed: [{ network: 127.0.0.0/16, dhcp: proxy, gateway: 127.0.9.9 }]";
    check(
        "reservations:",
        &relayed(overlap),
        expect!["DIR/c.yaml:7: relayed.network: is 127.0.0.0/16, which overlaps 127.0.0.0/24"],
    );
    let gateway = "relayed: [{ network: 10.78.0.0/24, dhcp: proxy, gateway: 10.79.0.1 }]";
    check(
        "reservations:",
        &relayed(gateway),
        expect!["DIR/c.yaml:7: relayed.gateway: is 10.79.0.1, expected a host's address of 10.78.0.0/24"],
    );
}

#[test]
fn the_machine_and_its_files() {
    let dir = directory();
    let text = GOOD.replace("interface: lo", "interface: nowhere0");
    let err = load(dir.path(), &text).map(|_| ()).expect_err("it is wrong");
    assert_eq!((err.line, err.key.as_str()), (Some(2), "interface"));
    assert!(
        err.what.starts_with("there is no interface \"nowhere0\" here, expected one of: ") && err.what.contains("lo")
    );
    check(
        "address: 127.0.0.1",
        "address: 127.0.0.9",
        expect![
            "DIR/c.yaml:5: subnet.address: interface lo does not have the address 127.0.0.9; give it to it first: ip address add 127.0.0.9/24 dev lo"
        ],
    );
    check(
        "release: dom0-1",
        "release: dom0-2",
        expect![
            "DIR/c.yaml:8: release: DIR/dom0-2/dom0.squashfs cannot be read: No such file or directory (os error 2); expected a file"
        ],
    );
    check(
        "loaders: loaders",
        "loaders: dom0-1",
        expect!["DIR/c.yaml:9: loaders: DIR/dom0-1/undionly.kpxe is not there; expected iPXE's loaders"],
    );
    check(
        "kernel: k",
        "kernel: dom0-1",
        expect![
            "DIR/c.yaml:11: templates.tiny.kernel: DIR/dom0-1 cannot be read: is not a regular file; expected a file"
        ],
    );
    check(
        "disk_image: d",
        "disk_image: none",
        expect![
            "DIR/c.yaml:12: templates.own.disk_image: DIR/none cannot be read: No such file or directory (os error 2)"
        ],
    );
}

#[test]
fn a_release_that_is_not_what_its_manifest_says() {
    let dir = directory();
    let manifest = |sha256: &str| {
        let text =
            format!("{{\"name\":\"dom0\",\"version\":7,\"files\":{{\"xen\":{{\"sha256\":\"{sha256}\",\"size\":3}}}}}}");
        fs::write(dir.path().join("dom0-1/manifest.json"), text).expect("written");
        load(dir.path(), GOOD)
    };
    let digest = files::ServedFile::digest(&dir.path().join("dom0-1/xen")).expect("read").sha256;
    assert_eq!(manifest(&digest).expect("it is right").policy(String::new()).release.title(), "dom0-7");
    let err = manifest(&"0".repeat(64)).map(|_| ()).expect_err("another digest").to_string();
    expect![
        "DIR/c.yaml:8: release: DIR/dom0-1/xen is not what manifest.json says by its sha256; build the release again"
    ]
    .assert_eq(&err.replace(&dir.path().display().to_string(), "DIR"));
}

#[test]
fn a_fence_that_does_not_outlast_lease_and_watchdog() {
    let timing = |text: &str| load_timing(text).map(|config| config.policy(String::new()).ha.fence_ms);
    assert_eq!(timing("{}"), Ok(44_390));
    assert_eq!(timing("{ fence_ms: 60000 }"), Ok(60_000));
    let said = |text: &str| timing(text).expect_err("it is wrong");
    expect!["timing.fence_ms: is 44389, expected 44390 to 3600000 ms ((lease_ms + watchdog_ms + 4000) * 1.01 + 5000 or more, or a guest could run twice)"]
        .assert_eq(&said("{ fence_ms: 44389 }"));
    expect!["timing.fence_ms: is 60000, expected 74690 to 3600000 ms ((lease_ms + watchdog_ms + 4000) * 1.01 + 5000 or more, or a guest could run twice)"]
        .assert_eq(&said("{ lease_ms: 50000, fence_ms: 60000 }"));
    expect!["timing.lease_ms: is 8000, expected 9000 to 600000 ms (at least three times heartbeat_ms)"]
        .assert_eq(&said("{ lease_ms: 8000 }"));
    expect!["timing.watchdog_ms: is 15500, expected whole seconds, as Xen counts them"]
        .assert_eq(&said("{ watchdog_ms: 15500 }"));
    assert_eq!(timing("{ lost_ms: 36390 }"), Ok(44_390));
    let late = expect![
        "timing.lost_ms: is 36391, expected no more than 36390 ms (fence_ms, 44390, less the longer of heartbeat_ms and report_ms, less 5000: that all hosts vanished together is to be seen before the first is fenced)"
    ];
    late.assert_eq(&said("{ lost_ms: 36391 }"));
}

/// The good configuration with this `timing`; an error from its key on.
fn load_timing(text: &str) -> Result<Config, String> {
    let dir = directory();
    load(dir.path(), &format!("{GOOD}\ntiming: {text}\n")).map_err(|err| {
        err.to_string().split_once(".yaml:").and_then(|(_, rest)| rest.split_once(": ")).expect("a place").1.to_owned()
    })
}

#[test]
fn the_budget_of_boots() {
    let dir = directory();
    let with = |text: &str| load(dir.path(), &format!("{GOOD}\nboot: {text}\n"));
    let config = with("{ at_once: 4, rate_mbit: 800 }").expect("it is right");
    assert_eq!((config.policy(String::new()).boots_at_once, config.boot_rate_bytes_s), (4, 100_000_000));
    let said = |text: &str| {
        let err = with(text).map(|_| ()).expect_err("it is wrong").to_string();
        err.split_once(".yaml:").and_then(|(_, rest)| rest.split_once(": ")).expect("a place").1.to_owned()
    };
    expect!["boot.at_once: is 0, expected 1 to 1000 machines"].assert_eq(&said("{ at_once: 0 }"));
    expect!["boot.rate_mbit: is 2000000, expected 0 to 1000000 Mbit/s, 0 for no limit"]
        .assert_eq(&said("{ rate_mbit: 2000000 }"));
}

#[test]
fn a_release_with_a_signed_image() {
    let dir = directory();
    let read = || load(dir.path(), GOOD).expect("it is right").policy(String::new()).release;
    let plain = read();
    assert!(!plain.files.contains_key(UNIFIED_ROLE));
    fs::write(dir.path().join("dom0-1/unified.efi"), "unified").expect("written");
    let signed = read();
    assert_eq!(signed.files[UNIFIED_ROLE].bytes, 7);
    assert_ne!(id_of(&plain), id_of(&signed), "it is another release");
}

//! The command as a person meets it.

use expect_test::{Expect, expect};
use std::path::{Path, PathBuf};
use std::process::Command;

const RACK: &str = "
sample_ms: 300000
hosts:
  - {id: a, memory_mib: 8192, cpu_cores: 4}
  - {id: b, memory_mib: 8192, cpu_cores: 4}
vms:
  - {id: web, host: a, memory_mib: 1024, vcpus: 4, cpu_cores: 2.0, cpu_history: [2.0, 2.0, 2.0]}
  - {id: db, host: a, memory_mib: 2048, vcpus: 4, cpu_cores: 2.5, cpu_history: [2.5, 2.5, 2.5]}
";

const CLUSTER: &str = "group-01|uuid|preferred||

n1|4096|1024|512|1000|1000|4|M|uuid|8||N|0|1|1.0
n2|4096|1024|3072|1000|1000|4|N|uuid|8||N|0|1|1.0

web|1536|10|1|running|Y|n1||ext||1|-|N
db|1024|10|1|running|Y|n1||ext||1|-|N


|128,1,1024,1,1,1|128,1,0,0,0,1;1048576,256,1048576,16,8,12|ext|4.0|32.0
";

/// Files of one test, in a folder of its own.
fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("command").join(name);
    std::fs::create_dir_all(&folder).expect("the build folder is writable");
    for (name, text) in files {
        std::fs::write(folder.join(name), text).expect("the build folder is writable");
    }
    folder
}

fn check(folder: &Path, line: &str, expected: Expect) {
    let done = Command::new(env!("CARGO_BIN_EXE_balancer"))
        .args(line.split(' '))
        .current_dir(folder)
        .output()
        .expect("the command is built");
    let text = format!(
        "{}{}exit {}\n",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
        done.status.code().unwrap_or(-1)
    );
    expected.assert_eq(&text);
}

#[test]
fn plan_and_explain() {
    let here = folder("plan", &[("rack.yaml", RACK), ("quiet.yaml", "goal: quiet\n")]);
    check(
        &here,
        "plan rack.yaml",
        expect![[r#"
              no  vm    from  to     after   MiB sent  why
               1  web   a     b          -       1024  its host is expected at 112 % of its processors, above 90 %
            db stays: its host is expected at 112 % of its processors, above 90 %, but other moves settle it
            moves: 1, score 28.2305 -> 0.0117
            exit 0
        "#]],
    );
    check(
        &here,
        "plan rack.yaml --max-vms 0",
        expect![[r#"
            db stays: its host is expected at 112 % of its processors, above 90 %, but the plan's limit was reached
            web stays: its host is expected at 112 % of its processors, above 90 %, but the plan's limit was reached
            moves: 0, score 28.2305 -> 28.2305
            exit 0
        "#]],
    );
    check(
        &here,
        "plan rack.yaml --policy quiet.yaml -o yaml",
        expect![[r#"
            moves:
            - vm: web
              from: a
              to: b
              reason:
                because: overload
                expected: 1.125
                threshold: 0.9
              after: []
              gain: 27.562499999999996
              cost:
                sent_mib: 1024.0
                brownout_ms: 8589.934592000001
                downtime_ms: 300.0
                score: 0.0034589934592
            score_before: 27.562499999999996
            score_after: 0.0
            before:
              overload: 27.562499999999996
              imbalance: 0.0
              energy: 0.0
            after:
              overload: 0.0
              imbalance: 0.0
              energy: 0.0
            stays:
            - vm: db
              concern:
                concern: overload
                expected: 1.125
                threshold: 0.9
              why:
                why: settled
            broken: []
            remedies: []
            power_off: []
            refused: null
            made_ms: 0
            expires_ms: 300000
            exit 0
        "#]],
    );
    check(
        &here,
        "explain rack.yaml db",
        expect![[r#"
        db stays: its host is expected at 112 % of its processors, above 90 %, but other moves settle it
          a has it
          b could take it: gain 28.21875, cost 0.00632
        exit 0
    "#]],
    );
    check(
        &here,
        "replay rack.yaml",
        expect![[r#"
                     0  web: a -> b, its host is expected at 112 % of its processors, above 90 %
        3 samples, 1 plans, 1 moves, 1024 MiB moved
                             with plans   without
        overload, host-s            300       900
        unserved, core-s            150       450
        running, host-s            1500
        exit 0
    "#]],
    );
}

#[test]
fn wrong_files() {
    let wrong = [
        ("lots.yaml", RACK.replace("2048", "lots")),
        ("nan.yaml", RACK.replace("cpu_cores: 2.5", "cpu_cores: .nan")),
        ("nowhere.yaml", RACK.replace("db, host: a", "db, host: z")),
        ("field.json", r#"{"hosts": [{"id": "a", "memory": 1}]}"#.to_owned()),
        ("cut.json", r#"{"hosts": ["#.to_owned()),
        ("quantile.yaml", "quantile: 2\n".to_owned()),
        ("rack.yaml", RACK.to_owned()),
    ];
    let here = folder("wrong", &wrong.each_ref().map(|(name, text)| (*name, text.as_str())));
    for (line, expected) in [
        (
            "plan lots.yaml",
            expect![[r#"
            balancer: lots.yaml: vms[1].memory_mib: invalid type: string "lots", expected u64 at line 8 column 35
            exit 2
        "#]],
        ),
        (
            "plan nan.yaml",
            expect![[r#"
                balancer: nan.yaml: line 8: vms[db].cpu_cores: NaN; expected a finite number, 0 or more
                exit 2
            "#]],
        ),
        (
            "plan nowhere.yaml",
            expect![[r#"
                balancer: nowhere.yaml: line 8: vms[db].host: host "z"; expected the id of a host of this snapshot
                exit 2
            "#]],
        ),
        (
            "plan field.json",
            expect![[r#"
            balancer: field.json: hosts[0].memory: unknown field `memory`, expected one of `id`, `state`, `memory_mib`, `cpu_cores`, `net_bytes_s`, `io_bytes_s`, `migration_bytes_s`, `cpu_features`, `networks`, `storages`, `site`, `labels`, `group`, `moves_in`, `moves_out`, `watts` at line 1 column 31
            exit 2
        "#]],
        ),
        (
            "plan cut.json",
            expect![[r#"
            balancer: cut.json: hosts: EOF while parsing a list at line 1 column 11
            exit 2
        "#]],
        ),
        (
            "plan rack.yaml --policy quantile.yaml",
            expect![[r#"
                balancer: quantile.yaml: line 1: quantile: 2; expected a number from 0.5 to 0.999
                exit 2
            "#]],
        ),
        (
            "plan missing.yaml",
            expect![[r#"
            balancer: reading missing.yaml: No such file or directory (os error 2)
            exit 2
        "#]],
        ),
        (
            "explain rack.yaml nobody",
            expect![[r#"
            balancer: rack.yaml: no VM nobody; expected the id of a VM of the snapshot
            exit 2
        "#]],
        ),
    ] {
        check(&here, line, expected);
    }
}

#[test]
fn sites_from_a_sensor() {
    let rack = "
at_ms: 1800000000000
sample_ms: 300000
hosts:
  - {id: a, memory_mib: 8192, cpu_cores: 4, site: north}
  - {id: b, memory_mib: 8192, cpu_cores: 4, site: south}
vms:
  - {id: batch, host: a, memory_mib: 1024, vcpus: 4, cpu_cores: 2.0, cpu_history: [2.0, 2.0, 2.0, 2.0], flexible: true}
";
    let sky = "site,at_ms,sun,wind,temperature\n\
        north,1799999000000,0.9,0.8,1\nnorth,1799999500000,0.1,,\nsouth,1799999000000,0.7,0.8,1\n";
    let files = [
        ("rack.yaml", rack.to_owned()),
        ("green.yaml", "goal: quiet\nsite_weight: 0.1\n".to_owned()),
        ("sky.csv", sky.to_owned()),
        ("wrong.csv", sky.replace("0.7", "70")),
    ];
    let here = folder("sites", &files.each_ref().map(|(name, text)| (*name, text.as_str())));
    check(
        &here,
        "plan rack.yaml --policy green.yaml",
        expect![[r#"
        moves: 0, score 0.0500 -> 0.0500
        exit 0
    "#]],
    );
    check(
        &here,
        "plan rack.yaml --policy green.yaml --sites sky.csv",
        expect![[r#"
          no  vm     from  to     after   MiB sent  why
           1  batch  a     b          -       1024  its site's green score is 0.08, the other site's 0.56
        moves: 1, score 0.0460 -> 0.0220
        exit 0
    "#]],
    );
    check(
        &here,
        "explain rack.yaml batch --policy green.yaml --sites sky.csv",
        expect![[r#"
        batch: a -> b, its site's green score is 0.08, the other site's 0.56
          gain 0.02400, cost 0.00346: 1024 MiB sent in 8.6 s, stands still 300 ms
          a has it
          b could take it: gain 0.02400, cost 0.00346
        exit 0
    "#]],
    );
    check(
        &here,
        "replay rack.yaml --policy green.yaml --sites sky.csv",
        expect![[r#"
         1799999100000  batch: a -> b, its site's green score is 0.29, the other site's 0.56
        4 samples, 1 plans, 1 moves, 1024 MiB moved
                             with plans   without
        overload, host-s              0         0
        unserved, core-s              0         0
        running, host-s            1200
        exit 0
    "#]],
    );
    check(
        &here,
        "plan rack.yaml --policy green.yaml --sites wrong.csv",
        expect![[r#"
        balancer: wrong.csv: line 4: sun "70"; expected a number from 0 to 1
        exit 2
    "#]],
    );
}

#[test]
fn ganeti() {
    let files = [
        ("c.data", CLUSTER.to_owned()),
        ("c.util", "web 0.5 0.1 0.1 0.1\ndb 0.2 0.1 0.1 0.1\n".to_owned()),
        ("few.data", CLUSTER.replace("n2|4096|1024", "n2|4096")),
        ("word.data", CLUSTER.replace("n2|4096", "n2|much")),
        ("home.data", CLUSTER.replace("Y|n1||ext||1|-|N\ndb", "Y|n9||ext||1|-|N\ndb")),
        ("who.util", "mail 1 1 1 1\n".to_owned()),
        ("three.util", "web 1 1 1\n".to_owned()),
    ];
    let here = folder("ganeti", &files.each_ref().map(|(name, text)| (*name, text.as_str())));
    for (line, expected) in [
        (
            "plan --ganeti c.data --util c.util --score ganeti",
            expect![[r#"
            gnt-instance migrate -f --target-node n2 db
            score 1.21250000 -> 0.21250000, 1 instances and 1024 MiB moved
            exit 0
        "#]],
        ),
        (
            "plan --ganeti c.data --util c.util --score ganeti --max-mib 1024",
            expect![[r#"
            gnt-instance migrate -f --target-node n2 db
            score 1.21250000 -> 0.21250000, 1 instances and 1024 MiB moved
            exit 0
        "#]],
        ),
        (
            "plan --ganeti c.data --score ganeti --max-vms 0 -o json",
            expect![[r#"
            {
              "moved": 0,
              "moved_mib": 0,
              "score_after": 4.5625,
              "score_before": 4.5625,
              "steps": 0
            }
            exit 0
        "#]],
        ),
        (
            "plan --ganeti few.data --score ganeti",
            expect![[r#"
            balancer: few.data: line 4: "N"; expected processors (field 7): a number, 0 or more
            exit 2
        "#]],
        ),
        (
            "plan --ganeti word.data --score ganeti",
            expect![[r#"
            balancer: word.data: line 4: "much"; expected memory (field 2): a number, 0 or more
            exit 2
        "#]],
        ),
        (
            "plan --ganeti home.data --score ganeti",
            expect![[r#"
            balancer: home.data: line 6: node "n9" (field 7); expected a node of the cluster
            exit 2
        "#]],
        ),
        (
            "plan --ganeti c.data --util who.util --score ganeti",
            expect![[r#"
            balancer: who.util: line 1: instance "mail"; expected an instance of the cluster
            exit 2
        "#]],
        ),
        (
            "plan --ganeti c.data --util three.util --score ganeti",
            expect![[r#"
            balancer: three.util: line 1: 3 loads; expected an instance and its four loads
            exit 2
        "#]],
        ),
    ] {
        check(&here, line, expected);
    }
}

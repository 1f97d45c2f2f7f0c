use super::file::BackupError;
use super::*;
use crate::ca::Ca;
use crate::store::tests::{counters, lease};
use crate::store::{FILE, Store};
use rack::record::{Kind, Record};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

fn schedule(dir: &Path) -> Schedule {
    Schedule { directory: dir.join("backups"), every_s: 0, keep: 3 }
}

/// The state of a server that has just been set up.
fn state(dir: &Path) -> PathBuf {
    let state = dir.join("state");
    crate::state_dir::make(&state).expect("made");
    Ca::open(&state).expect("a CA");
    drop(Store::open(&state).expect("a store"));
    state
}

fn now_ms() -> u64 {
    u64::try_from(unix_now().as_millis()).expect("a time of this age")
}

/// A store that is written all the while, two records to a commit: every backup has both, and is of what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn whole_under_write_load_and_restored_elsewhere() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = dir.path().join("state");
    let ca = Ca::open(&state).map(|ca| ca.digest());
    let ca = ca.or_else(|_| {
        crate::state_dir::make(&state).expect("made");
        Ca::open(&state).map(|ca| ca.digest())
    });
    let ca = ca.expect("a CA");
    let (store, _) = Store::open(&state).expect("a store");
    store.commit((0..200).map(|n| lease(n, 0)).chain([counters(0)]).collect()).await.expect("a commit");
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let (writer, ends) = (store.clone(), stop.clone());
    let writing = tokio::spawn(async move {
        let mut version = 1;
        while !ends.load(Ordering::Relaxed) {
            writer.commit(vec![counters(version), lease(7, version)]).await.expect("a commit");
            version += 1;
        }
        version
    });
    let mut versions = Vec::new();
    for round in 0..6 {
        let (from, schedule) = (state.clone(), schedule(dir.path()));
        let taken = tokio::task::spawn_blocking(move || take(&from, &schedule)).await.expect("no panic");
        let taken = taken.expect("a backup");
        let file = dir.path().join("backups").join(&taken.name);
        let mode = fs::metadata(&file).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let to = dir.path().join(format!("new-{round}"));
        fs::create_dir_all(to.join("disks")).expect("made");
        fs::write(to.join("disks/web-0.img"), "a guest's").expect("written");
        restore(&file, &to, now_ms(), false).expect("restored");
        let (_, records) = Store::open(&to).expect("it opens");
        let version = |kind: Kind, name: &str| {
            records.iter().find(|r| r.key.kind == kind && r.key.name == name).expect("it is there").version
        };
        let (counters, lease) = (version(Kind::Counters, "counters"), version(Kind::Lease, "02:00:00:00:00:07"));
        assert_eq!(counters, lease, "both of one transaction");
        versions.push(counters);
        let term = records.iter().find_map(|r| match &r.record {
            Record::Term(term) => Some(term.clone()),
            _ => None,
        });
        let term = term.expect("a restore begins a term");
        assert!(term.surveying && term.term.0 >= term.backup_ms && term.term.0 > counters);
        assert_eq!(Ca::open(&to).expect("the CA is there").digest(), ca);
        assert_eq!(fs::read_to_string(to.join("disks/web-0.img")).expect("it is left"), "a guest's");
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writing.await.expect("no panic");
    assert!(versions.windows(2).all(|pair| pair[0] <= pair[1]) && versions[5] <= acknowledged, "{versions:?}");
    assert!(versions[0] < versions[5], "it was written meanwhile: {versions:?}");
    assert_eq!(list(&dir.path().join("backups")).len(), 3, "the oldest are removed");
}

#[test]
fn what_is_not_restored() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = state(dir.path());
    let taken = take(&state, &schedule(dir.path())).expect("a backup");
    let file = dir.path().join("backups").join(&taken.name);
    let whole = fs::read(&file).expect("read");
    let to = dir.path().join("new");
    let refused = |bytes: &[u8]| {
        fs::write(&file, bytes).expect("written");
        let refused = restore(&file, &to, now_ms(), false).expect_err("it is refused");
        assert!(!to.join(FILE).exists(), "nothing is left that a server would start on");
        refused
    };
    // Every byte of the content counts, and every part of the first line.
    for at in [whole.len() / 3, whole.len() / 2, whole.len() - 1, 20] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        assert!(matches!(refused(&bytes), BackupError::Damaged { .. }), "byte {at}");
    }
    assert!(matches!(refused(&whole[..whole.len() - 4096]), BackupError::Damaged { .. }));
    assert!(matches!(refused(&whole[..15]), BackupError::Damaged { .. }));
    assert!(matches!(refused(b"SQLite format 3"), BackupError::NotOne { .. }));
    let newer = String::from_utf8_lossy(&whole[..16]).replace("backup 1", "backup 2").into_bytes();
    let newer: Vec<u8> = newer.into_iter().chain(whole[16..].iter().copied()).collect();
    assert!(matches!(refused(&newer), BackupError::TooNew { found: 2, .. }));
    fs::write(&file, &whole).expect("written");
    assert!(matches!(restore(&file, &to, taken.taken_ms - 1, false), Err(BackupError::Clock { behind_s: 1 })));
    assert!(matches!(restore(&file, &state, now_ms(), false), Err(BackupError::StateExists { .. })));
    // SQLite would take it for the new store's, and bring it in.
    crate::state_dir::make(&to).expect("made");
    let log = to.join(format!("{FILE}-wal"));
    fs::write(&log, b"of a store that was removed").expect("written");
    assert!(matches!(restore(&file, &to, now_ms(), false), Err(BackupError::StateExists { path }) if path == log));
    fs::remove_file(&log).expect("removed");
    // Another rack's keys are there: also without a store.
    let other = dir.path().join("other");
    crate::state_dir::make(&other).expect("made");
    Ca::open(&other).expect("another CA");
    assert!(matches!(restore(&file, &other, now_ms(), false), Err(BackupError::StateExists { .. })));
    restore(&file, &to, now_ms(), false).expect("and this one is restored");
    assert!(matches!(restore(&file, &to, now_ms(), false), Err(BackupError::StateExists { .. })));
}

#[test]
fn two_that_are_taken_at_once_are_both_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = state(dir.path());
    let schedule = Schedule { keep: 1000, ..schedule(dir.path()) };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..8 {
                    take(&state, &schedule).expect("a backup");
                }
            });
        }
    });
    let taken = list(&schedule.directory);
    for (n, file) in taken.iter().enumerate() {
        let restored =
            restore(&schedule.directory.join(&file.name), &dir.path().join(format!("new-{n}")), now_ms(), false);
        restored.unwrap_or_else(|err| panic!("{}: {err}", file.name));
    }
    assert!(taken.len() >= 8, "two of one moment have one name: {taken:?}");
}

#[test]
fn an_old_one_that_cannot_be_removed_is_no_failure_of_the_new() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = state(dir.path());
    let schedule = Schedule { keep: 1, ..schedule(dir.path()) };
    // A directory is no file to be removed, for root neither.
    fs::create_dir_all(schedule.directory.join("tsubame-0000000000001.backup")).expect("made");
    let taken = take(&state, &schedule).expect("a backup was taken");
    assert_eq!(list(&schedule.directory)[0].name, taken.name);
}

#[test]
fn what_an_interrupted_restore_left_is_not_served_but_restored_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (state, to) = (state(dir.path()), dir.path().join("new"));
    let taken = take(&state, &schedule(dir.path())).expect("a backup");
    crate::state_dir::make(&to).expect("made");
    fs::copy(state.join("ca.pem"), to.join("ca.pem")).expect("the keys come before the store");
    for name in ["restore.part", "restore.part-journal", "restore.part-wal", "restore.part-shm"] {
        fs::write(to.join(name), "half a page").expect("written");
    }
    let said = was_not_interrupted(&to).expect_err("it was").to_string();
    assert!(said.contains(&format!("bootserver restore BACKUP --state {}", to.display())), "{said}");
    restore(&dir.path().join("backups").join(&taken.name), &to, now_ms(), false).expect("restored");
    was_not_interrupted(&to).expect("it has ended");
    drop(Store::open(&to).expect("it opens"));
    let entries = fs::read_dir(&to).expect("listed").map(|entry| entry.expect("an entry").file_name());
    let left: Vec<_> = entries.filter(|name| name.to_string_lossy().starts_with("restore")).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// What could not be put in place is done again, and no server begins an empty record beside the keys that were.
#[test]
fn a_restore_that_fails_amid_the_keys_is_not_served_but_done_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (state, to) = (state(dir.path()), dir.path().join("new"));
    crate::state_dir::make(&state.join("operator")).expect("made");
    fs::write(state.join("operator/password"), "a hash").expect("written");
    let file = dir.path().join("backups").join(take(&state, &schedule(dir.path())).expect("a backup").name);
    crate::state_dir::make(&to).expect("made");
    fs::write(to.join("operator"), "no directory can be made here").expect("written");
    restore(&file, &to, now_ms(), false).expect_err("the password has no place");
    assert!(to.join("ca.pem").exists(), "the first of the keys");
    assert!(matches!(was_not_interrupted(&to), Err(BackupError::Interrupted { .. })));
    // Nor is it for want of what another try refuses.
    let ours = fs::read(to.join("ca.pem")).expect("read");
    fs::write(to.join("ca.pem"), "of another rack").expect("written");
    assert!(matches!(restore(&file, &to, now_ms(), false), Err(BackupError::StateExists { .. })));
    assert!(matches!(was_not_interrupted(&to), Err(BackupError::Interrupted { .. })));
    fs::write(to.join("ca.pem"), ours).expect("written");
    fs::remove_file(to.join("operator")).expect("removed");
    restore(&file, &to, now_ms(), false).expect("it is done again");
    was_not_interrupted(&to).expect("it has ended");
    assert_eq!(fs::read_to_string(to.join("operator/password")).expect("it is there"), "a hash");
}

/// Another writer that commits more often than the copy takes a step; a backup ends all the same, and holds nobody up.
#[test]
fn ends_while_commits_never_cease() {
    let dir = tempfile::tempdir().expect("a directory");
    let (state, schedule) = (state(dir.path()), schedule(dir.path()));
    let writer = rusqlite::Connection::open(state.join(FILE)).expect("opened");
    writer
        .execute_batch(
            "PRAGMA synchronous = OFF; CREATE TABLE other (body BLOB); INSERT INTO other VALUES (zeroblob(32 << 20)), (0);",
        )
        .expect("as large as a record of many machines");
    let (done, taken) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(take(&state, &schedule)));
    let (begun, mut commits) = (std::time::Instant::now(), 0);
    let taken = loop {
        assert!(begun.elapsed() < Duration::from_secs(30), "it does not end");
        writer.execute("UPDATE other SET body = body + 1 WHERE rowid = 2", []).expect("a commit is not held up");
        commits += 1;
        if let Ok(taken) = taken.try_recv() {
            break taken;
        }
    };
    taken.expect("a backup");
    assert!(commits > 1, "it was written meanwhile");
}

/// Two small file systems, in a mount namespace of this thread's own: where the records are, room is kept for them.
#[test]
fn none_is_taken_for_which_there_is_no_room() {
    use nix::mount::{MsFlags, mount};
    state_dir::on_small_file_system("64m", |root| {
        let state = state(root);
        let beside = schedule(root);
        let refused = take(&state, &beside).expect_err("there would be less than 64 MiB left").to_string();
        assert!(
            refused.contains("1 MiB, and 63 MiB are free, of which 64 MiB are kept for the server's records"),
            "{refused}"
        );
        assert_eq!(list(&beside.directory), []);
        let elsewhere = Schedule { directory: root.join("elsewhere"), ..beside };
        fs::create_dir(&elsewhere.directory).expect("made");
        state_dir::mount_small(&elsewhere.directory, "1m");
        take(&state, &elsewhere).expect("nothing is kept free where no record is");
        fs::write(elsewhere.directory.join("others"), vec![1; 960 << 10]).expect("others write as well");
        let refused = take(&state, &elsewhere);
        assert!(matches!(refused, Err(BackupError::NoRoom { needed_mib: 1, free_mib: 0, .. })), "{refused:?}");
        let none = None::<&str>;
        mount(none, &elsewhere.directory, none, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).expect("mounted");
        let refused = take(&state, &elsewhere).expect_err("it cannot be written").to_string();
        let way = format!("`ReadWritePaths={}`", elsewhere.directory.display());
        assert!(refused.contains("Read-only file system") && refused.contains(&way), "{refused}");
    });
}

/// Most of them are rather elsewhere than lost; one may have been deleted after the backup.
#[tokio::test]
async fn is_not_restored_without_its_disks_unless_that_is_wanted() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = state(dir.path());
    let (store, _) = Store::open(&state).expect("a store");
    let disk = |name: &str, ready| {
        let name: proto::DiskId = name.parse().expect("a name");
        let record = rack::record::DiskRecord {
            name: name.clone(),
            size_mib: 64,
            vm: None,
            ready,
            doing: None,
            grants: Default::default(),
            granted: 0,
            found: Default::default(),
            failure: String::new(),
        };
        let key = rack::record::Key { kind: Kind::Disk, name: name.to_string() };
        rack::record::Change { key, expect: 0, to: Some(Record::Disk(record)) }
    };
    let disks = [disk("a-0", true), disk("b-0", true), disk(proto::heartbeat::DISK, true), disk("c-0", false)];
    store.commit(disks.into()).await.expect("a commit");
    let schedule = schedule(dir.path());
    let file = schedule.directory.join(take(&state, &schedule).expect("a backup").name);
    let to = dir.path().join("new");
    let refused = restore(&file, &to, now_ms(), false).expect_err("both are missing").to_string();
    assert!(refused.starts_with("2 of the 2 disks") && refused.contains("--without-disks"), "{refused}");
    assert!(!to.join("restore.part").exists());
    restore(&file, &dir.path().join("wanted"), now_ms(), true).expect("it is wanted");
    fs::create_dir_all(to.join("disks")).expect("made");
    fs::write(to.join("disks/a-0.img"), "").expect("written");
    restore(&file, &to, now_ms(), false).expect("one of two is there");
}

#[test]
fn when_the_next_is_due() {
    let dir = tempfile::tempdir().expect("a directory");
    let on_command = schedule(dir.path());
    let hourly = Schedule { every_s: 3600, ..on_command.clone() };
    assert_eq!(hourly.wait(false), Some(Duration::ZERO), "there is none");
    assert_eq!(hourly.wait(true), Some(AGAIN));
    take(&state(dir.path()), &hourly).expect("a backup");
    assert!(hourly.wait(false).is_some_and(|wait| wait > Duration::from_secs(3500)), "also after a restart");
    assert_eq!((on_command.wait(false), on_command.wait(true)), (None, None), "never by itself");
}

//! Files in dom0's RAM that may go when they take too much of it.
//!
//! Owns: which go first. Never does: knowing what they are for.

use std::fs;
use std::path::Path;

/// Lets the oldest files of `dir` go until those that are not `spared` have at most `bytes_max` in all. What cannot be read or removed stays.
pub(crate) fn keep_newest(dir: &Path, bytes_max: u64, spared: impl Fn(&str) -> bool) {
    let file = |entry: fs::DirEntry| {
        let about = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        let may_go = !entry.file_name().to_str().is_some_and(&spared);
        may_go.then_some((about.modified().ok()?, about.len(), entry.path()))
    };
    let mut files: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().filter_map(file).collect();
    files.sort();
    let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, of_it, path) in files {
        if bytes <= bytes_max {
            break;
        }
        bytes -= of_it;
        // What cannot be removed only takes room.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn the_oldest_go_and_the_spared_stay() {
        let check = |bytes_max: u64, left: &str| {
            let dir = tempfile::tempdir().expect("a directory");
            for (age_s, name) in ["new", "spared", "middle", "old"].into_iter().enumerate() {
                let path = dir.path().join(name);
                fs::write(&path, [0; 100]).expect("a file");
                let file = fs::File::options().write(true).open(path).expect("the file");
                let at = SystemTime::now() - Duration::from_secs(age_s as u64);
                file.set_modified(at).expect("its time");
            }
            keep_newest(dir.path(), bytes_max, |name| name == "spared");
            let names = fs::read_dir(dir.path()).expect("the directory");
            let mut names: Vec<_> =
                names.map(|e| e.expect("a file").file_name().into_string().expect("UTF-8")).collect();
            names.sort();
            assert_eq!(names.join(" "), left, "{bytes_max}");
        };
        check(300, "middle new old spared");
        check(299, "middle new spared");
        check(100, "new spared");
        check(0, "spared");
        keep_newest(Path::new("/nowhere"), 0, |_| false);
    }
}

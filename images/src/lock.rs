//! A recipe's lock: the exact version of every Debian package that its image is picked from.
//!
//! Owns: the lock's text, apt's preferences made of it, and in what a build departs from it. Never does: refusing a build. Debian's
//! archive keeps one version of a package, and drops it when a security fix replaces it: a machine that builds later gets the fix, and is told so.

use std::collections::BTreeMap;
use std::fmt;

/// Package to version; empty for a recipe that has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lock {
    versions: BTreeMap<String, String>,
}

/// A package whose version is not the lock's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// Which.
    pub package: String,
    /// In the lock.
    pub locked: Option<String>,
    /// In the image.
    pub found: Option<String>,
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |version: &Option<String>| version.clone().unwrap_or_else(|| "none".to_owned());
        write!(f, "{} is {}, locked {}", self.package, shown(&self.found), shown(&self.locked))
    }
}

impl Lock {
    /// Of these versions.
    pub fn of(versions: BTreeMap<String, String>) -> Self {
        Self { versions }
    }

    /// Reads a lock: a line for each package, `NAME VERSION`; what begins with `#` is a remark.
    ///
    /// # Errors
    /// The first line that is neither: its number, and what it says.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut versions = BTreeMap::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let good = |word: &str| {
                !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.+:~".contains(&b))
            };
            match line.split_once(' ') {
                Some((package, version)) if good(package) && good(version) => {
                    versions.insert(package.to_owned(), version.to_owned());
                }
                _ => return Err((number + 1, line.chars().take(80).collect())),
            }
        }
        Ok(Self { versions })
    }

    /// As a file.
    pub fn render(&self) -> String {
        let lines: String = self.versions.iter().map(|(package, version)| format!("{package} {version}\n")).collect();
        format!("# Written by `images lock`: the packages that the image is picked from.\n{lines}")
    }

    /// For apt (apt_preferences(5)): above 1000 a version is taken even where it is the older one. One that the archive does not have is ignored.
    pub fn preferences(&self) -> String {
        let stanza = |(package, version)| format!("Package: {package}\nPin: version {version}\nPin-Priority: 1001\n\n");
        self.versions.iter().map(stanza).collect()
    }

    /// In what an image of these versions is not what the lock says; nothing for a recipe without a lock.
    pub fn departures(&self, found: &BTreeMap<String, String>) -> Vec<Departure> {
        if self.versions.is_empty() {
            return Vec::new();
        }
        let mut packages: Vec<&String> = self.versions.keys().chain(found.keys()).collect();
        packages.sort();
        packages.dedup();
        let departs = |package: &&String| self.versions.get(*package) != found.get(*package);
        let departure = |package: &String| Departure {
            package: package.clone(),
            locked: self.versions.get(package).cloned(),
            found: found.get(package).cloned(),
        };
        packages.into_iter().filter(departs).map(departure).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_lock_is_read_as_it_was_written() {
        let text =
            "# Written by `images lock`: the packages that the image is picked from.\nbash 5.2-1+b1\nkmod 30+1-1\n";
        let lock = Lock::parse(text).expect("a lock");
        assert_eq!(lock.render(), text);
        expect![[r#"
            Package: bash
            Pin: version 5.2-1+b1
            Pin-Priority: 1001

            Package: kmod
            Pin: version 30+1-1
            Pin-Priority: 1001

        "#]]
        .assert_eq(&lock.preferences());
        for (wrong, line) in [("bash\n", 1), ("# x\n\nbash 1\nkmod 1 2\n", 4), ("bash 1\nPin: version *\n", 2)] {
            assert_eq!(Lock::parse(wrong).expect_err(wrong).0, line, "{wrong:?}");
        }
    }

    #[test]
    fn departures_are_named() {
        let of = |text: &str| Lock::parse(text).expect("a lock");
        let lock = of("bash 1\nkmod 2\nold 3\n");
        assert_eq!(lock.departures(&lock.versions), []);
        assert_eq!(Lock::default().departures(&lock.versions), []);
        let said: Vec<String> =
            lock.departures(&of("bash 1\nkmod 2.1\nnew 4\n").versions).iter().map(ToString::to_string).collect();
        assert_eq!(said, ["kmod is 2.1, locked 2", "new is 4, locked none", "old is none, locked 3"]);
    }
}

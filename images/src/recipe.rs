//! A recipe: what goes into an image. Parsed once; a wrong key, type or value names its place.

use crate::lock::Lock;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What an image is made of.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the release: its directory is `NAME-VERSION-DIGEST`.
    pub name: String,
    /// Rises with every change a user would notice.
    pub version: u32,
    /// What it is for.
    pub kind: Kind,
    /// Whether it has a root shell on the serial console.
    pub debug: bool,
    /// Debian suite.
    pub suite: String,
    /// Debian packages; what they depend on comes by itself.
    pub packages: Vec<String>,
    /// Packages whose version must begin so.
    #[serde(default)]
    pub expect: BTreeMap<String, String>,
    /// File beside the recipe with the exact version of each package, dependencies with them.
    #[serde(default)]
    pub lock: Option<PathBuf>,
    /// What that file says.
    #[serde(skip)]
    pub locked: Lock,
    /// Paths, directories or patterns with `*` in the last part that are kept of the packages.
    pub keep: Vec<String>,
    /// Symbolic links to make: path to target.
    pub links: BTreeMap<String, String>,
    /// Applets of busybox to link.
    pub applets: Vec<String>,
    /// Kernel modules.
    pub modules: Vec<String>,
    /// Kernel modules of network cards: in the image, and in the initrd that fetches it.
    #[serde(default)]
    pub network: Vec<String>,
    /// dom0: what fetches the image.
    #[serde(default)]
    pub initrd: Initrd,
    /// dom0: command lines of the unified image, which nobody can change once it is signed.
    #[serde(default)]
    pub unified: Unified,
    /// Directory of own files, beside the recipes' directory.
    pub tree: PathBuf,
}

/// dom0's first stage: a small archive that the boot loader hands to the kernel.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Initrd {
    /// Directory of own files, beside the recipes' directory.
    pub tree: PathBuf,
    /// Applets of busybox to link.
    pub applets: Vec<String>,
    /// Kernel modules beside those of network cards.
    pub modules: Vec<String>,
}

/// Command lines that are the same for all hosts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unified {
    /// Xen's.
    pub xen_args: String,
    /// dom0's kernel's.
    pub kernel_args: String,
}

/// A recipe that is another one but for its name, its shell and its console.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    /// The other recipe's file, beside this one.
    extends: PathBuf,
    name: String,
    debug: bool,
    /// In the place of the other's.
    unified: Option<Unified>,
}

/// What an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A host's dom0: Xen, kernel, image with the agent.
    Dom0,
    /// The small test guest: kernel, initrd, and a disk that boots by itself.
    Guest,
    /// A machine of a test's own: kernel and initrd.
    Initrd,
}

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// It cannot be read.
    #[error("reading the recipe {}: {err}", path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        err: io::Error,
    },
    /// It is no recipe.
    #[error("{}: {what}", path.display())]
    Parse {
        /// Where.
        path: PathBuf,
        /// Line, column, key and what was expected.
        what: String,
    },
    /// A value is out of range.
    #[error("{}: {key} is {given:?}, expected {expected}", path.display())]
    Value {
        /// Where.
        path: PathBuf,
        /// Which key.
        key: String,
        /// What was given.
        given: String,
        /// What was expected.
        expected: &'static str,
    },
}

impl Recipe {
    /// Reads and checks a recipe, and the one that it extends.
    pub fn load(path: &Path) -> Result<Self, RecipeError> {
        let read =
            |path: &Path| fs::read_to_string(path).map_err(|err| RecipeError::Read { path: path.to_owned(), err });
        let text = read(path)?;
        let mut recipe = if text.lines().any(|line| line.starts_with("extends:")) {
            let variant = Self::parse_variant(&text, path)?;
            // One step only: a recipe that extends an extension is refused there as one without packages.
            let other = path.with_file_name(&variant.extends);
            let base = Self::parse(&read(&other)?, &other)?;
            let unified = variant.unified.unwrap_or(base.unified);
            Self { name: variant.name, debug: variant.debug, unified, ..base }
        } else {
            Self::parse(&text, path)?
        };
        // Trees lie beside the directory that the recipes are in.
        let base = path.parent().and_then(Path::parent).unwrap_or(Path::new("."));
        recipe.tree = base.join(&recipe.tree);
        recipe.initrd.tree = base.join(&recipe.initrd.tree);
        for (key, tree) in [("tree", &recipe.tree), ("initrd.tree", &recipe.initrd.tree)] {
            if !tree.is_dir() {
                return Err(wrong(path, key, &tree.display().to_string(), "a directory beside recipes/"));
            }
        }
        recipe.read_lock(path)?;
        Ok(recipe)
    }

    fn read_lock(&mut self, path: &Path) -> Result<(), RecipeError> {
        let Some(lock) = &self.lock else { return Ok(()) };
        let path = path.with_file_name(lock);
        let text = fs::read_to_string(&path).map_err(|err| RecipeError::Read { path: path.clone(), err })?;
        self.locked = Lock::parse(&text).map_err(|(line, given)| {
            wrong(&path, &format!("line {line}"), &given, "a package's name, a space, its version")
        })?;
        Ok(())
    }

    fn parse(text: &str, path: &Path) -> Result<Self, RecipeError> {
        let recipe: Self = serde_yaml::from_str(text)
            .map_err(|err| RecipeError::Parse { path: path.to_owned(), what: err.to_string() })?;
        for (key, value) in [("name", &recipe.name), ("suite", &recipe.suite)] {
            if !is_name(value) {
                return Err(wrong(path, key, value, NAME));
            }
        }
        for (at, package) in recipe.packages.iter().enumerate() {
            if !is_name(package) {
                return Err(wrong(path, &format!("packages[{at}]"), package, "a Debian package's name"));
            }
        }
        let inside = |s: &str| !s.starts_with('/') && !s.split('/').any(|part| part.is_empty() || part == "..");
        if let Some(lock) = recipe.lock.as_ref().filter(|lock| lock.components().count() != 1) {
            return Err(wrong(path, "lock", &lock.display().to_string(), "the name of a file beside the recipe"));
        }
        for (at, kept) in recipe.keep.iter().enumerate() {
            if !inside(kept) {
                return Err(wrong(path, &format!("keep[{at}]"), kept, "a path without a leading '/' and without '..'"));
            }
        }
        for (key, args) in [("xen_args", &recipe.unified.xen_args), ("kernel_args", &recipe.unified.kernel_args)] {
            if !args.bytes().all(|b| (b' '..=b'~').contains(&b)) {
                return Err(wrong(path, &format!("unified.{key}"), args, "printable ASCII without line breaks"));
            }
        }
        if let Some(link) = recipe.links.keys().find(|link| !inside(link)) {
            return Err(wrong(path, "links", link, "a path without a leading '/' and without '..'"));
        }
        Ok(recipe)
    }

    fn parse_variant(text: &str, path: &Path) -> Result<Variant, RecipeError> {
        let variant: Variant = serde_yaml::from_str(text)
            .map_err(|err| RecipeError::Parse { path: path.to_owned(), what: err.to_string() })?;
        if !is_name(&variant.name) {
            return Err(wrong(path, "name", &variant.name, NAME));
        }
        if variant.extends.components().count() != 1 || variant.extends.extension().is_none_or(|e| e != "yaml") {
            let given = variant.extends.display().to_string();
            return Err(wrong(path, "extends", &given, "the name of a recipe's file beside this one"));
        }
        Ok(variant)
    }
}

const NAME: &str = "letters a-z, digits, '-', '.' and '+'";

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.+".contains(&b))
}

fn wrong(path: &Path, key: &str, given: &str, expected: &'static str) -> RecipeError {
    RecipeError::Value { path: path.to_owned(), key: key.to_owned(), given: given.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(change: impl Fn(&str) -> String, expect: Expect) {
        let good = "name: a\nversion: 1\nkind: dom0\ndebug: false\nsuite: bookworm\npackages: [bash]\nkeep: [usr/bin/bash]\nlinks: {}\napplets: []\nmodules: []\ntree: dom0\n";
        let result = Recipe::parse(&change(good), Path::new("r.yaml")).map(|_| "good");
        expect.assert_eq(&result.map_or_else(|err| err.to_string(), str::to_owned));
    }

    #[test]
    fn a_wrong_recipe_names_its_place() {
        check(str::to_owned, expect!["good"]);
        check(
            |r| r.replace("name: a", "name: A b"),
            expect![[r#"r.yaml: name is "A b", expected letters a-z, digits, '-', '.' and '+'"#]],
        );
        check(
            |r| r.replace("version: 1", "version: one"),
            expect![[r#"r.yaml: version: invalid type: string "one", expected u32 at line 2 column 10"#]],
        );
        check(
            |r| r.replace("debug:", "debugg:"),
            expect![
                "r.yaml: unknown field `debugg`, expected one of `name`, `version`, `kind`, `debug`, `suite`, `packages`, `expect`, `lock`, `keep`, `links`, `applets`, `modules`, `network`, `initrd`, `unified`, `tree` at line 4 column 1"
            ],
        );
        check(
            |r| r.replace("usr/bin/bash", "../etc/shadow"),
            expect![[r#"r.yaml: keep[0] is "../etc/shadow", expected a path without a leading '/' and without '..'"#]],
        );
        check(
            |r| r.replace("[bash]", "[\"bash; rm\"]"),
            expect![[r#"r.yaml: packages[0] is "bash; rm", expected a Debian package's name"#]],
        );
        check(
            |r| r.replace("kind: dom0", "kind: domu"),
            expect![
                "r.yaml: kind: unknown variant `domu`, expected one of `dom0`, `guest`, `initrd` at line 3 column 7"
            ],
        );
    }

    #[test]
    fn a_recipe_may_extend_another() {
        let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
        let plain = Recipe::load(&recipes.join("dom0.yaml")).expect("good");
        let debug = Recipe::load(&recipes.join("dom0-debug.yaml")).expect("good");
        assert!(!plain.debug && debug.debug);
        assert_eq!(debug.packages, plain.packages);
        let refused = |text: &str| {
            let result = Recipe::parse_variant(text, Path::new("r.yaml"));
            result.map_or_else(|err| err.to_string(), |_| "good".to_owned())
        };
        expect![[r#"r.yaml: extends is "../x.yaml", expected the name of a recipe's file beside this one"#]]
            .assert_eq(&refused("extends: ../x.yaml\nname: a\ndebug: true\n"));
        expect![
            "r.yaml: unknown field `packages`, expected one of `extends`, `name`, `debug`, `unified` at line 4 column 1"
        ]
        .assert_eq(&refused("extends: x.yaml\nname: a\ndebug: true\npackages: []\n"));
    }
}

//! On which line of a file a defect stands.
//!
//! Owns: the way from a defect's path (`vms[web-1].cpu_cores`) to a line. Never does: say what is wrong there. The file has been read once already; it is
//! read again as far as the path, and the reader is then asked where it is.

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// One step into a file.
#[derive(Debug, PartialEq)]
enum Step {
    Key(String),
    Item(usize),
}

/// The line at which a path stands, 1 is the first; that of what is around it when it is not in the file but has its default. `None` when the
/// text cannot be read.
pub(crate) fn line_of(text: &str, is_json: bool, path: &str) -> Option<usize> {
    // JSON is YAML too, but for what is found by key one reader is enough.
    let tree: serde_yaml::Value = serde_yaml::from_str(text).ok()?;
    let steps = steps(path, &tree);
    (0..=steps.len())
        .rev()
        .find_map(|n| if is_json { json_line(text, &steps[..n]) } else { yaml_line(text, &steps[..n]) })
}

fn json_line(text: &str, steps: &[Step]) -> Option<usize> {
    Way(steps).deserialize(&mut serde_json::Deserializer::from_str(text)).err().map(|err| err.line())
}

fn yaml_line(text: &str, steps: &[Step]) -> Option<usize> {
    let err = Way(steps).deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    err.location().map(|at| at.line())
}

/// Parts a path; `[web-1]` becomes the place of the last element that has this id.
fn steps(path: &str, tree: &serde_yaml::Value) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = Some(tree);
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let Some((name, after)) = inside.split_once(']') else { return steps };
            let place = at.and_then(serde_yaml::Value::as_sequence).and_then(|list| {
                let has_id =
                    |item: &serde_yaml::Value| item.get("id").and_then(serde_yaml::Value::as_str) == Some(name);
                list.iter().rposition(has_id).or_else(|| name.parse().ok())
            });
            let Some(place) = place else { return steps };
            at = at.and_then(|list| list.get(place));
            steps.push(Step::Item(place));
            rest = after.strip_prefix('.').unwrap_or(after);
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            at = at.and_then(|map| map.get(&rest[..end]));
            steps.push(Step::Key(rest[..end].to_owned()));
            rest = rest[end..].strip_prefix('.').unwrap_or(&rest[end..]);
        }
    }
    steps
}

/// Reads along a path and fails at its end, so that the reader says where that is. Reads on to the end of the file when the path is not in it.
struct Way<'a>(&'a [Step]);

impl<'de> DeserializeSeed<'de> for Way<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Way<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the way to a defect")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.0.split_first() else {
            // Its first value says more exactly where it is.
            if map.next_key::<IgnoredAny>()?.is_some() {
                map.next_value_seed(Way(&[]))?;
            }
            return Err(A::Error::custom("here"));
        };
        while let Some(key) = map.next_key::<String>()? {
            if *step == Step::Key(key) {
                map.next_value_seed(Way(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.0.split_first() else {
            list.next_element_seed(Way(&[]))?;
            return Err(A::Error::custom("here"));
        };
        for place in 0.. {
            let here = *step == Step::Item(place);
            let more = if here {
                list.next_element_seed(Way(rest))?.is_some()
            } else {
                list.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str =
        "quantile: 2\nvms:\n  - {id: a, host: x}\n  - id: b\n    cpu_history:\n      - 1\n      - -2\n  - {id: a}\n";

    #[test]
    fn lines_in_yaml() {
        for (path, line) in [
            ("quantile", 1),
            ("vms[b].cpu_history[1]", 7),
            ("vms[b].cpu_history", 6),
            ("vms[a].id", 8),
            ("vms[1].id", 4),
            ("vms[b].priority", 4),
            ("thresholds.leave", 1),
        ] {
            assert_eq!(line_of(YAML, false, path), Some(line), "{path}");
        }
    }

    #[test]
    fn lines_in_json() {
        let text = "{\n \"vms\": [\n  {\"id\": \"a\",\n   \"cpu_cores\": -1}\n ]\n}\n";
        assert_eq!(line_of(text, true, "vms[a].cpu_cores"), Some(4));
        assert_eq!(line_of("{", true, "vms"), None);
    }
}

//! Finds the line of a key, for errors that serde does not see because two values are at odds.

/// The line, counted from 1, on which the last key of `path` (parted by `/`) stands; if it is not written in the file
/// (a default), that of the nearest key above it that is. `None` when even the first is not there.
pub(super) fn line_of(text: &str, path: &str) -> Option<usize> {
    let (mut at, mut found) = (0, None);
    for key in path.split('/') {
        match find_key(&text[at..], key) {
            Some(offset) => {
                at += offset;
                found = Some(at);
                at += key.len();
            }
            None => break,
        }
    }
    found.map(|offset| text[..offset].matches('\n').count() + 1)
}

/// The first place where `key` stands as a key: not within a word, not in a comment, and with a colon after it.
fn find_key(text: &str, key: &str) -> Option<usize> {
    if key.is_empty() {
        return None;
    }
    let mut from = 0;
    while let Some(found) = text[from..].find(key) {
        let start = from + found;
        let end = start + key.len();
        from = start + key.chars().next().map_or(1, char::len_utf8);
        let before = text[..start].trim_end_matches(['"', '\'']).chars().next_back();
        let after = text[end..].trim_start_matches(['"', '\'']).trim_start_matches(' ');
        let line = text[..start].rsplit('\n').next().unwrap_or_default();
        let begins = before.is_none_or(|c| c.is_whitespace() || matches!(c, '{' | ','));
        if begins && after.starts_with(':') && !line.trim_start().starts_with('#') && !line.contains(" #") {
            return Some(start);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = "state: x # pool: y\nsubnet: { network: a,\n  pool: b }\nreservations:\n  \"52:54:00:aa:bb:01\": c\nlisten:\n  boot_port: 1\n";
        let check = |path, line| assert_eq!(line_of(text, path), line, "{path}");
        check("state", Some(1));
        check("subnet", Some(2));
        check("subnet/network", Some(2));
        check("subnet/pool", Some(3));
        check("subnet/gateway", Some(2));
        check("reservations/52:54:00:aa:bb:01", Some(5));
        check("listen/boot_port", Some(7));
        check("timing/lost_ms", None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}", path in "[a-zé/]{0,12}") {
            line_of(&text, &path);
        }
    }
}

//! The file names that a pattern matches, as Go's `filepath.Glob` has it: `*`, `?`, `[a-z]`, `[^a]`, `\*`.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the paths that an absolute pattern matches, sorted folder by folder, at most `most` of them. What cannot be read
/// matches nothing.
pub(super) fn glob(pattern: &Path, most: usize) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for component in pattern.components().skip(1) {
        let Some(part) = component.as_os_str().to_str() else { return Vec::new() };
        found = found.iter().flat_map(|folder| below(folder, part)).take(most).collect();
    }
    found
}

fn below(folder: &Path, part: &str) -> Vec<PathBuf> {
    if !part.contains(['*', '?', '[', '\\']) {
        return Some(folder.join(part)).filter(|path| path.symlink_metadata().is_ok()).into_iter().collect();
    }
    let pattern: Vec<char> = part.chars().collect();
    let names =
        fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let matching = names.filter(|name| matches(&pattern, &name.chars().collect::<Vec<_>>()));
    let mut paths: Vec<PathBuf> = matching.map(|name| folder.join(name)).collect();
    paths.sort();
    paths
}

/// Whether a name is one that the pattern means. A star is tried with the shortest first, and only the last one again, so
/// that no pattern takes longer than its length times the name's.
fn matches(pattern: &[char], name: &[char]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while let Some(c) = name.get(n) {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some(length) = pattern.get(p..).and_then(|rest| one(rest, *c)) {
            p += length;
            n += 1;
        } else if let Some((at, from)) = star {
            (p, n) = (at + 1, from + 1);
            star = Some((at, n));
        } else {
            return false;
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|c| *c == '*'))
}

/// Returns how long the beginning of a pattern is that stands for one character, when it stands for this one.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => Some(1),
        ['\\', literal, ..] => (*literal == c).then_some(2),
        ['[', rest @ ..] => {
            let (not, set) = match rest {
                ['^', set @ ..] => (true, set),
                set => (false, set),
            };
            let end = set.iter().position(|c| *c == ']')?;
            let is_in = is_in(set.get(..end)?, c);
            (is_in != not).then_some(end + 2 + usize::from(not))
        }
        [literal, ..] => (*literal == c).then_some(1),
        [] => None,
    }
}

fn is_in(set: &[char], c: char) -> bool {
    match set {
        [from, '-', to, rest @ ..] => (*from..=*to).contains(&c) || is_in(rest, c),
        [one, rest @ ..] => *one == c || is_in(rest, c),
        [] => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chars(text: &str) -> Vec<char> {
        text.chars().collect()
    }

    #[test]
    fn names_are_matched_as_go_matches_them() {
        for (pattern, name, is) in [
            ("*.toml", "a.toml", true),
            ("*.toml", ".toml", true),
            ("*.toml", "a.tom", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbY", false),
            ("?[0-9].x", "a7.x", true),
            ("?[^0-9].x", "a7.x", false),
            ("\\*.x", "*.x", true),
            ("\\*.x", "a.x", false),
            ("[a", "a", false),
            ("", "", true),
        ] {
            assert_eq!(matches(&chars(pattern), &chars(name)), is, "{pattern} {name}");
        }
        let many = "*a".repeat(40);
        assert!(!matches(&chars(&many), &chars(&"a".repeat(39))), "and it comes to an end");
    }

    #[test]
    fn folders_are_walked_in_order_and_to_a_limit() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().canonicalize().unwrap();
        for file in ["b/1.toml", "a/2.toml", "a/1.toml", "a/1.txt", "c.toml"] {
            fs::create_dir_all(base.join(file).parent().unwrap()).unwrap();
            fs::write(base.join(file), "").unwrap();
        }
        let found = |pattern: &str, most| glob(&base.join(pattern), most);
        assert_eq!(found("*/*.toml", 9), ["a/1.toml", "a/2.toml", "b/1.toml"].map(|file| base.join(file)));
        assert_eq!(found("*/*.toml", 2).len(), 2);
        assert_eq!(found("c.toml", 9), [base.join("c.toml")]);
        assert_eq!(found("none/*", 9), [] as [PathBuf; 0]);
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in "[\\[\\]*?\\\\^a-c-]{0,12}", name in "[a-c]{0,12}") {
            let _ = matches(&chars(&pattern), &chars(&name));
            let around = format!("*{name}*");
            prop_assert!(matches(&chars(&around), &chars(&name)));
        }
    }
}

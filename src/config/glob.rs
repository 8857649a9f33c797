//! Which files does a pattern name? Patterns as Go's `filepath.Glob` reads them.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Most files that one pattern may name.
const MAX_FILES: usize = 100_000;

/// The files and directories that `pattern` names, sorted. `*` and `?` do not
/// cross `/`; `[a-z]` and `[^a-z]` match one character; `\` takes the next
/// character as it is. What cannot be read is left out, as no match.
#[must_use]
pub fn glob(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let text = component.as_os_str().to_string_lossy();
        let is_pattern = text.contains(['*', '?', '[', '\\']);
        match component {
            Component::Normal(_) if is_pattern => {
                found = found.iter().flat_map(|dir| matching(dir, &text)).collect();
            }
            _ => found.iter_mut().for_each(|path| path.push(component)),
        }
        found.truncate(MAX_FILES);
    }
    found.retain(|path| !path.as_os_str().is_empty() && fs::symlink_metadata(path).is_ok());
    found.sort();
    found
}

fn matching(directory: &Path, pattern: &str) -> Vec<PathBuf> {
    let listed = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let Ok(entries) = fs::read_dir(listed) else { return Vec::new() };
    let matches = |name: &std::ffi::OsStr| name.to_str().is_some_and(|n| is_match(pattern, n));
    entries
        .flatten()
        .map(|entry| entry.file_name())
        .filter(|name| matches(name))
        .map(|name| directory.join(name))
        .collect()
}

/// Whether `name` is matched by `pattern` as a whole. A broken pattern
/// matches nothing.
#[must_use]
pub fn is_match(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    // Position after the last `*` in both, to come back to.
    let mut star: Option<(usize, usize)> = None;
    let (mut p, mut n) = (0, 0);
    loop {
        if pattern.get(p) == Some(&'*') {
            p += 1;
            star = Some((p, n));
            continue;
        }
        let step = match (pattern.get(p), name.get(n)) {
            (None, None) => return true,
            (Some(_), Some(c)) => one(&pattern[p..], *c),
            _ => None,
        };
        match (step, &mut star) {
            (Some(length), _) => {
                p += length;
                n += 1;
            }
            (None, Some((after, from))) if *from < name.len() && name[*from] != '/' => {
                *from += 1;
                (p, n) = (*after, *from);
            }
            _ => return false,
        }
    }
}

/// Matches one character; the length of the pattern's part if it does.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern {
        ['?', ..] => (c != '/').then_some(1),
        ['\\', escaped, ..] => (*escaped == c).then_some(2),
        ['[', rest @ ..] => class(rest, c).map(|length| length + 1),
        [literal, ..] => (*literal == c).then_some(1),
        [] => None,
    }
}

/// Matches what follows a `[`; the length up to and including the `]`.
fn class(pattern: &[char], c: char) -> Option<usize> {
    let negated = pattern.first() == Some(&'^');
    let mut at = usize::from(negated);
    let mut hit = false;
    let mut ranges = 0;
    let bound = |at: &mut usize| {
        let escaped = pattern.get(*at) == Some(&'\\');
        *at += usize::from(escaped);
        let bound = pattern.get(*at).copied()?;
        *at += 1;
        (escaped || (bound != '-' && bound != ']')).then_some(bound)
    };
    while ranges == 0 || pattern.get(at) != Some(&']') {
        let low = bound(&mut at)?;
        let mut high = low;
        if pattern.get(at) == Some(&'-') {
            at += 1;
            high = bound(&mut at)?;
        }
        hit |= (low..=high).contains(&c);
        ranges += 1;
    }
    (hit != negated).then_some(at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_in_go() {
        let yes = [
            ("abc", "abc"),
            ("*", "abc"),
            ("*c", "abc"),
            ("a*", "a"),
            ("a*b*c", "aXbYbZc"),
            ("ab[c]", "abc"),
            ("ab[b-d]", "abc"),
            ("ab[^e-g]", "abc"),
            ("a\\*b", "a*b"),
            ("a?b", "a☺b"),
            ("a[^a]b", "a☺b"),
            ("[a-ζ]*", "α"),
            ("[\\]a]", "]"),
            ("[\\-]", "-"),
            ("*x", "xxx"),
            ("", ""),
        ];
        let no = [
            ("a*", "b"),
            ("ab[e-g]", "abc"),
            ("ab[^c]", "abc"),
            ("a???b", "a☺b"),
            ("*", "a/b"),
            ("a?b", "a/b"),
            ("[", "a"),
            ("[^", "a"),
            ("[]a]", "]"),
            ("[-]", "-"),
            ("[a-", "a"),
            ("*a*b", "xxx"),
            ("a", ""),
            ("", "a"),
            ("\\", "a"),
        ];
        for (pattern, name) in yes {
            assert!(is_match(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in no {
            assert!(!is_match(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn files_are_found_and_sorted() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for name in ["b.yml", "a.yml", "c.txt"] {
            fs::write(dir.path().join(name), "").expect("written");
        }
        let names = |pattern: &str| -> Vec<String> {
            let found = glob(&dir.path().join(pattern));
            found.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names("*.yml"), ["a.yml", "b.yml"]);
        assert_eq!(names("c.txt"), ["c.txt"]);
        assert!(
            names("d*").is_empty() && names("no/*.yml").is_empty() && names("no.yml").is_empty()
        );
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in "[a*?\\[\\]\\\\^/☺-]{0,12}", name in "[ab/☺]{0,12}") {
            let _ = is_match(&pattern, &name);
        }
    }
}

//! What does `$1_${name}` become? Templates as RE2's `Expand` reads them.
//!
//! An unbraced name is the longest run of letters, digits and `_`, so that
//! `$1x` is the group called `1x`. A group that is unknown or took no part is
//! empty; a `$` that starts no reference stands for itself; `$$` is `$`.

use regex::{Captures, Regex};

/// A template whose references are resolved against one expression.
#[derive(Debug, Clone)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Group(usize),
    /// Several groups may not share a name, so one index is enough.
    Nothing,
}

impl Template {
    /// Reads a template for the groups of `regex`. Every text is a template.
    pub fn new(text: &str, regex: &Regex) -> Self {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            literal.push_str(before);
            if let Some(after_dollar) = after.strip_prefix('$') {
                literal.push('$');
                rest = after_dollar;
                continue;
            }
            let Some((name, after_name)) = reference(after) else {
                literal.push('$');
                rest = after;
                continue;
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(group(name, regex));
            rest = after_name;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Self { parts }
    }

    /// The text, if there is no reference in it.
    pub fn as_text(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the template with its groups filled in.
    pub fn expand(&self, captures: &Captures<'_>, out: &mut String) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Group(i) => out.push_str(captures.get(*i).map_or("", |m| m.as_str())),
                Part::Nothing => {}
            }
        }
    }
}

/// Splits the name off what follows a `$`; `None` if it is no reference.
fn reference(text: &str) -> Option<(&str, &str)> {
    let (braced, text) = match text.strip_prefix('{') {
        Some(inner) => (true, inner),
        None => (false, text),
    };
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return None;
    }
    if braced { rest.strip_prefix('}').map(|rest| (name, rest)) } else { Some((name, rest)) }
}

/// The group of a name: a number without leading zeros, or the name of one.
fn group(name: &str, regex: &Regex) -> Part {
    let is_number = name.bytes().all(|b| b.is_ascii_digit())
        && name.len() <= 9
        && (name == "0" || !name.starts_with('0'));
    let index = if is_number {
        name.parse().ok().filter(|i| *i < regex.captures_len())
    } else {
        regex.capture_names().position(|n| n == Some(name))
    };
    index.map_or(Part::Nothing, Part::Group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_re2_reads_them() {
        let regex = Regex::new("^(?s:(r)-(\\d)@(?P<ns>.*)(?<opt>x)?)$").expect("valid");
        let captures = regex.captures("r-1@default").expect("matches");
        let cases = [
            ("${ns}/$1$2/${2}x/$2x/$$", "default/r1/1x//$"),
            ("$0", "r-1@default"),
            ("$", "$"),
            ("a$-b", "a$-b"),
            ("${", "${"),
            ("${1", "${1"),
            ("${}", "${}"),
            ("$01", ""),
            ("$9", ""),
            ("$opt.", "."),
            ("$ns-", "default-"),
            ("$ns_", ""),
            ("$$1", "$1"),
            ("$$$1", "$r"),
            ("$1é", ""),
            ("${1}é", "ré"),
            ("$999999999999", ""),
        ];
        for (template, expected) in cases {
            let mut out = String::new();
            Template::new(template, &regex).expand(&captures, &mut out);
            assert_eq!(out, expected, "{template:?}");
        }
    }
}

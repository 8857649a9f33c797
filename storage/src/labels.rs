//! Labels, label sets and matchers: how series are named and found.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use regex::Regex;

/// The label that holds the metric name.
pub const METRIC_NAME: &str = "__name__";

/// A label set: sorted by name, names unique, no empty values.
///
/// One allocation, shared between clones; equal sets have equal bytes, so
/// comparing and hashing touch one slice. A label with an empty value is the
/// same as no label, as in Prometheus.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels(Arc<[u8]>);

impl Labels {
    /// The set without labels.
    #[must_use]
    pub fn empty() -> Self {
        Self(Arc::from([]))
    }

    /// A set of `pairs` in any order. Of a name given twice the last value
    /// counts; empty values are left out.
    pub fn from_pairs<N, V>(pairs: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: AsRef<str>,
        V: AsRef<str>,
    {
        let mut builder = LabelsBuilder::new();
        for (name, value) in pairs {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.build()
    }

    /// A set of pairs that are already sorted by name, unique and not empty.
    ///
    /// # Panics
    ///
    /// In debug builds, if they are not.
    pub fn from_sorted<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut bytes = Vec::with_capacity(256);
        let mut previous: Option<&str> = None;
        for (name, value) in pairs {
            debug_assert!(previous.is_none_or(|p| p < name), "BUG: {previous:?} before {name:?}");
            debug_assert!(!value.is_empty(), "BUG: label {name:?} is empty");
            previous = Some(name);
            push_string(&mut bytes, name);
            push_string(&mut bytes, value);
        }
        Self(bytes.into())
    }

    /// The labels, ascending by name.
    #[must_use]
    pub fn iter(&self) -> LabelsIter<'_> {
        LabelsIter { rest: &self.0 }
    }

    /// The value of a label; `None` if there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        for pair in self.pairs() {
            match pair.name.cmp(name.as_bytes()) {
                Ordering::Less => {}
                Ordering::Equal => return Some(text(pair.value)),
                Ordering::Greater => return None,
            }
        }
        None
    }

    /// The labels as bytes: most callers only compare and copy them.
    fn pairs(&self) -> Pairs<'_> {
        Pairs { rest: &self.0 }
    }

    /// The labels for which `keep` holds of the name's bytes.
    fn filtered(&self, keep: impl Fn(&[u8]) -> bool) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len());
        self.push_filtered(keep, &mut bytes);
        if bytes.len() == self.0.len() { self.clone() } else { Self(bytes.into()) }
    }

    fn push_filtered(&self, keep: impl Fn(&[u8]) -> bool, out: &mut Vec<u8>) {
        for pair in self.pairs().filter(|p| keep(p.name)) {
            out.extend_from_slice(pair.whole);
        }
    }

    /// The metric name, if there is one.
    #[must_use]
    pub fn metric_name(&self) -> Option<&str> {
        self.get(METRIC_NAME)
    }

    /// Number of labels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is no label.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The set's bytes: for each label the lengths and texts of name and
    /// value. Equal for equal sets; not ordered as the sets are.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A 64-bit hash of the set, the same in every process (XXH3).
    #[must_use]
    pub fn stable_hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&self.0)
    }

    /// The labels whose names are in `names` (`by`, `on`).
    #[must_use]
    pub fn keep(&self, names: &[impl AsRef<str>]) -> Self {
        self.filtered(|n| names.iter().any(|k| k.as_ref().as_bytes() == n))
    }

    /// The labels whose names are not in `names` (`without`, `ignoring`).
    /// The metric name stays unless it is named.
    #[must_use]
    pub fn drop(&self, names: &[impl AsRef<str>]) -> Self {
        self.filtered(|n| !names.iter().any(|k| k.as_ref().as_bytes() == n))
    }

    /// Appends the bytes of what [`Labels::keep`] gives; see
    /// [`Labels::as_bytes`]. A map by label sets finds its entry by them.
    pub fn push_kept(&self, names: &[impl AsRef<str>], out: &mut Vec<u8>) {
        self.push_filtered(|n| names.iter().any(|k| k.as_ref().as_bytes() == n), out);
    }

    /// Appends the bytes of what [`Labels::drop`] gives, as
    /// [`Labels::push_kept`].
    pub fn push_undropped(&self, names: &[impl AsRef<str>], out: &mut Vec<u8>) {
        self.push_filtered(|n| !names.iter().any(|k| k.as_ref().as_bytes() == n), out);
    }

    /// A builder that starts with these labels.
    #[must_use]
    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }
}

impl Borrow<[u8]> for Labels {
    /// [`Labels::as_bytes`]: equal and hashed as the set is.
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

impl Ord for Labels {
    /// By name, value, name, ...; a set that is a prefix of another is less.
    fn cmp(&self, other: &Self) -> Ordering {
        // Texts are ordered as their bytes are.
        self.pairs().map(|p| (p.name, p.value)).cmp(other.pairs().map(|p| (p.name, p.value)))
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Labels {
    /// `{a="b", c="d"}`, as Prometheus writes label sets; the metric name is
    /// an ordinary label here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            if is_legacy_label_name(name) {
                write!(f, "{name}=")?;
            } else {
                write_quoted(f, name)?;
                f.write_str("=")?;
            }
            write_quoted(f, value)?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = LabelsIter<'a>;
    fn into_iter(self) -> LabelsIter<'a> {
        self.iter()
    }
}

/// Whether `name` is a label name of the classic kind,
/// `[a-zA-Z_][a-zA-Z0-9_]*`; others are written in quotes.
#[must_use]
pub fn is_legacy_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether `name` is a metric name of the classic kind,
/// `[a-zA-Z_:][a-zA-Z0-9_:]*`.
#[must_use]
pub fn is_legacy_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_' || b == b':')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':')
}

/// Writes `text` in double quotes with Go's escapes (`%q`).
///
/// # Errors
///
/// Those of the writer.
pub fn write_quoted(f: &mut impl fmt::Write, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            '\u{7}' => f.write_str("\\a")?,
            '\u{8}' => f.write_str("\\b")?,
            '\u{b}' => f.write_str("\\v")?,
            '\u{c}' => f.write_str("\\f")?,
            c if (c as u32) < 0x20 || c == '\u{7f}' => write!(f, "\\x{:02x}", c as u32)?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// Lengths below 255 take one byte, longer ones 255 and four bytes.
fn push_string(out: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(short) if short < u8::MAX => out.push(short),
        _ => {
            out.push(u8::MAX);
            let len =
                u32::try_from(text.len()).expect("labels are below 4 GiB by the input limits");
            out.extend_from_slice(&len.to_le_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

fn split_string(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (len, rest) = match bytes {
        [u8::MAX, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        [short, rest @ ..] => (usize::from(*short), rest),
        [] => unreachable!("BUG: label set ends within a label"),
    };
    rest.split_at(len)
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("label sets are built from strings")
}

/// One label as bytes.
struct Pair<'a> {
    name: &'a [u8],
    value: &'a [u8],
    /// Both with their lengths.
    whole: &'a [u8],
}

struct Pairs<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Pair<'a>;
    fn next(&mut self) -> Option<Pair<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let (name, rest) = split_string(self.rest);
        let (value, rest) = split_string(rest);
        let (whole, _) = self.rest.split_at(self.rest.len() - rest.len());
        self.rest = rest;
        Some(Pair { name, value, whole })
    }
}

/// Iterates over the labels of a set, ascending by name.
#[derive(Debug, Clone)]
pub struct LabelsIter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for LabelsIter<'a> {
    type Item = (&'a str, &'a str);
    fn next(&mut self) -> Option<Self::Item> {
        let mut pairs = Pairs { rest: self.rest };
        let pair = pairs.next()?;
        self.rest = pairs.rest;
        Some((text(pair.name), text(pair.value)))
    }
}

/// Builds and changes label sets.
#[derive(Debug, Clone, Default)]
pub struct LabelsBuilder {
    /// Sorted by name, unique; values may be empty until `build`.
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// An empty builder.
    #[must_use]
    pub const fn new() -> Self {
        Self { pairs: Vec::new() }
    }

    /// Sets a label, or removes it if `value` is empty.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            Ok(i) if value.is_empty() => {
                self.pairs.remove(i);
            }
            Ok(i) => value.clone_into(&mut self.pairs[i].1),
            Err(_) if value.is_empty() => {}
            Err(i) => self.pairs.insert(i, (name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Forgets all labels.
    pub fn clear(&mut self) {
        self.pairs.clear();
    }

    /// Removes a label.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.set(name, "")
    }

    /// The value of a label; empty if there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.pairs
            .binary_search_by(|(n, _)| n.as_str().cmp(name))
            .map_or("", |i| self.pairs[i].1.as_str())
    }

    /// The labels so far, ascending by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// Keeps the labels for which `keep(name, value)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        self.pairs.retain(|(n, v)| keep(n, v));
    }

    /// The label set.
    #[must_use]
    pub fn build(&self) -> Labels {
        Labels::from_sorted(self.iter())
    }
}

/// How a matcher compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// The operator as written in PromQL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }
}

/// A condition on one label. A label that a series lacks has the value "".
#[derive(Debug, Clone)]
pub struct Matcher {
    /// The label's name.
    pub name: String,
    /// How to compare.
    pub op: MatchOp,
    /// Text or regular expression, as written.
    pub value: String,
    test: Test,
}

/// How a value is compared with a matcher's.
#[derive(Debug, Clone)]
enum Test {
    /// With the text.
    Equal,
    /// With literals between bars, as lists of hosts or pods are: their places
    /// in the text, sorted, each once.
    Literals(Vec<(u32, u32)>),
    Regex(Regex),
}

/// Largest compiled size of one regular expression, in bytes.
const REGEX_SIZE_LIMIT: usize = 4 << 20;

/// Longest regular expression that is more than literals, in bytes: reading
/// one takes some hundred times its length.
const MAX_REGEX_BYTES: usize = 64 << 10;

/// A regular expression that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct MatcherError(String);

impl Matcher {
    /// A matcher; regular expressions are compiled fully anchored, `.` matches
    /// line ends.
    ///
    /// # Errors
    ///
    /// [`MatcherError`] if the expression is not valid or too large.
    pub fn new(
        op: MatchOp,
        name: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, MatcherError> {
        let value = value.into();
        let test = match op {
            MatchOp::Equal | MatchOp::NotEqual => Test::Equal,
            MatchOp::Regex | MatchOp::NotRegex => match literals(&value) {
                Some(places) => Test::Literals(places),
                None => Test::Regex(anchored(&value)?),
            },
        };
        Ok(Self { name: name.into(), op, value, test })
    }

    /// The matcher `name="value"`.
    #[must_use]
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), op: MatchOp::Equal, value: value.into(), test: Test::Equal }
    }

    /// Whether a label value (empty for a missing label) satisfies this.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        let found = match &self.test {
            Test::Equal => self.value == value,
            Test::Literals(places) => {
                places.binary_search_by(|place| literal(&self.value, *place).cmp(value)).is_ok()
            }
            Test::Regex(regex) => regex.is_match(value),
        };
        found == matches!(self.op, MatchOp::Equal | MatchOp::Regex)
    }

    /// Whether series without the label satisfy this.
    #[must_use]
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (self.op, &self.name, &self.value) == (other.op, &other.name, &other.value)
    }
}

impl Eq for Matcher {}

impl fmt::Display for Matcher {
    /// `name="value"`, as in PromQL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_legacy_label_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            write_quoted(f, &self.name)?;
        }
        f.write_str(self.op.as_str())?;
        write_quoted(f, &self.value)
    }
}

/// The alternatives of an expression that is nothing but literals between
/// bars, one of which may be empty.
fn literals(expression: &str) -> Option<Vec<(u32, u32)>> {
    let plain =
        |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '/' | '-' | ' ' | '|' | ',');
    if !expression.chars().all(plain) {
        return None;
    }
    let mut places = Vec::new();
    let mut start = 0;
    for alternative in expression.split('|') {
        let end = start + u32::try_from(alternative.len()).ok()?;
        places.push((start, end));
        start = end.checked_add(1)?;
    }
    places.sort_unstable_by_key(|place| literal(expression, *place));
    places.dedup_by_key(|place| literal(expression, *place));
    Some(places)
}

fn literal(expression: &str, (start, end): (u32, u32)) -> &str {
    &expression[start as usize..end as usize]
}

/// Compiles an expression of RE2 as Prometheus does: `^(?s:...)$`.
///
/// # Errors
///
/// [`MatcherError`] in Go's words if it is not valid or too large.
pub fn anchored(expression: &str) -> Result<Regex, MatcherError> {
    check_length(expression)?;
    let translated = crate::re2::translate(expression).map_err(|e| MatcherError(e.to_string()))?;
    compile(&format!("^(?s:{translated})$"), expression)
}

/// Compiles an expression of RE2 that may match anywhere.
///
/// # Errors
///
/// As [`anchored`].
pub fn unanchored(expression: &str) -> Result<Regex, MatcherError> {
    check_length(expression)?;
    let translated = crate::re2::translate(expression).map_err(|e| MatcherError(e.to_string()))?;
    compile(&translated, expression)
}

fn check_length(expression: &str) -> Result<(), MatcherError> {
    if expression.len() <= MAX_REGEX_BYTES {
        return Ok(());
    }
    let shown: String = expression.chars().take(100).collect();
    Err(MatcherError(format!("error parsing regexp: expression too large: `{shown}...`")))
}

fn compile(translated: &str, expression: &str) -> Result<Regex, MatcherError> {
    regex::RegexBuilder::new(translated).size_limit(REGEX_SIZE_LIMIT).build().map_err(|e| {
        let what = match e {
            regex::Error::CompiledTooBig(_) => "expression too large".to_owned(),
            e => e.to_string().lines().last().unwrap_or_default().to_owned(),
        };
        MatcherError(format!("error parsing regexp: {what}: `{expression}`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn empty_values_are_no_labels() {
        let labels = Labels::from_pairs([("b", "2"), ("a", "1"), ("c", "")]);
        assert_eq!(labels.to_string(), r#"{a="1", b="2"}"#);
        assert_eq!(labels.get("c"), None);
    }

    #[test]
    fn regular_expressions_are_anchored_and_dot_matches_line_ends() {
        let m = Matcher::new(MatchOp::Regex, "a", "x.y|z").expect("valid");
        assert!(m.matches("x\ny") && m.matches("z") && !m.matches("zz"));
    }

    #[test]
    fn long_expressions_are_lists_or_refused() {
        let regex = |value: String| Matcher::new(MatchOp::Regex, "a", value);
        let list = regex("pod-1|".repeat(1 << 17)).expect("a list");
        assert!(list.matches("pod-1") && list.matches("") && !list.matches("pod-"));
        let error = regex("x.|".repeat(1 << 17)).expect_err("too long").to_string();
        assert!(error.contains("too large") && error.len() < 200, "{error}");
    }

    proptest! {
        #[test]
        fn literals_match_as_the_expression_does(
            alternatives in proptest::collection::vec("[ab-]{0,2}", 1..5),
            value in "[ab-]{0,2}",
        ) {
            let text = alternatives.join("|");
            let regex = anchored(&text).expect("valid").is_match(&value);
            for (op, expected) in [(MatchOp::Regex, regex), (MatchOp::NotRegex, !regex)] {
                let matcher = Matcher::new(op, "a", text.as_str()).expect("valid");
                prop_assert_eq!(matcher.matches(&value), expected);
            }
        }

        #[test]
        fn a_set_gives_back_its_labels(pairs in proptest::collection::btree_map(".{1,300}", ".{1,300}", 0..8)) {
            let labels = Labels::from_pairs(&pairs);
            prop_assert!(labels.iter().eq(pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))));
        }

        #[test]
        fn order_is_that_of_the_pairs(
            a in proptest::collection::btree_map("[a-c]{1,2}", "[a-c]{1,2}", 0..4),
            b in proptest::collection::btree_map("[a-c]{1,2}", "[a-c]{1,2}", 0..4),
        ) {
            let (x, y) = (Labels::from_pairs(&a), Labels::from_pairs(&b));
            prop_assert_eq!(x.cmp(&y), a.iter().cmp(b.iter()));
        }
    }
}

//! What stands in the file, and where? YAML as a tree with positions.
//!
//! This is the raw side of the configuration: nothing is checked but syntax
//! and limits. Scalars keep their text as written, because only the field
//! knows whether `1.50` is a number or a name. Aliases and merge keys are
//! already resolved.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, NonFiniteFloatPolicy, Spanned};

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 16 << 20;
/// Deepest nesting; Prometheus' own configuration needs 9.
const MAX_DEPTH: usize = 64;
/// Most nodes, after aliases were replaced by what they stand for.
const MAX_NODES: usize = 1_000_000;

/// A place in a file; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    pub at: Position,
    pub value: Value,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    /// Text as written, without quotes.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key of a mapping, where it stands, and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: String,
    pub at: Position,
    pub value: Node,
}

impl PartialEq for Node {
    /// Positions do not count.
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// Text that is not YAML, or too much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    pub at: Position,
    pub message: String,
}

/// Reads one document.
pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file is larger than {MAX_FILE_BYTES} bytes");
        return Err(SyntaxError { at: Position::default(), message });
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_documents: 1,
        },
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    };
    let raw: Option<Spanned<Raw>> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let at = error.location().map_or_else(Position::default, |l| position(&l));
            SyntaxError { at, message: plain_message(&error) }
        })?;
    Ok(raw.map_or(Node { at: Position { line: 1, column: 1 }, value: Value::Null }, |raw| {
        node(raw, text)
    }))
}

/// The parser's message without the position, which we write ourselves.
fn plain_message(error: &serde_saphyr::Error) -> String {
    let message = error.without_snippet().to_string();
    let first = message.lines().next().unwrap_or_default();
    match first.rfind(" at line ") {
        Some(i) => first[..i].to_owned(),
        None => {
            first.trim_end_matches(", set DuplicateKeyPolicy in Options if acceptable").to_owned()
        }
    }
}

fn position(location: &Location) -> Position {
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Position { line: small(location.line()), column: small(location.column()) }
}

/// What the parser hands over; the text of what it takes for numbers is cut
/// from the source afterwards.
enum Raw {
    Null,
    Text(String),
    /// A plain scalar that the parser gave a type.
    Typed,
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Typed)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

fn node(raw: Spanned<Raw>, source: &str) -> Node {
    let at = position(&raw.referenced);
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(text) => Value::Scalar(text),
        Raw::Typed => Value::Scalar(slice(source, &raw.defined)),
        Raw::List(items) => Value::List(items.into_iter().map(|i| node(i, source)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| Entry {
                    at: position(&key.referenced),
                    key: key.value,
                    value: node(value, source),
                })
                .collect(),
        ),
    };
    Node { at, value }
}

/// The text of a plain scalar, as it stands in the file.
fn slice(source: &str, location: &Location) -> String {
    let span = location.span();
    let bytes = span.byte_offset().zip(span.byte_len()).and_then(|(offset, len)| {
        let start = usize::try_from(offset).ok()?;
        source.get(start..start.checked_add(usize::try_from(len).ok()?)?)
    });
    bytes.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(node: &Node) -> String {
        let value = match &node.value {
            Value::Null => "null".to_owned(),
            Value::Scalar(text) => format!("{text:?}"),
            Value::List(items) => {
                format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "))
            }
            Value::Map(entries) => {
                let entry = |e: &Entry| format!("{}={}", e.key, show(&e.value));
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(" "))
            }
        };
        format!("{value}@{}:{}", node.at.line, node.at.column)
    }

    #[test]
    fn scalars_keep_their_text_and_every_node_its_place() {
        let text = "ä: 1.50\nb: [yes, true, 0x1F, ~, '~', \"1\", 1e3]\nc:\n  d: 0123\n";
        assert_eq!(
            show(&parse(text).unwrap()),
            "{ä=\"1.50\"@1:4 b=[\"yes\"@2:5 \"true\"@2:10 \"0x1F\"@2:16 null@2:22 \"~\"@2:25 \
             \"1\"@2:30 \"1e3\"@2:35]@2:4 c={d=\"0123\"@4:6}@4:3}@1:1"
        );
        let text = "a: &x 2.0\nb: *x\nc: |\n  l\n  m\nd: {<<: {k: 1}, l: 2}\n";
        assert_eq!(
            show(&parse(text).unwrap()),
            "{a=\"2.0\"@1:7 b=\"2.0\"@2:4 c=\"l\\nm\\n\"@4:3 \
             d={l=\"2\"@6:20 k=\"1\"@6:9}@6:4}@1:1"
        );
        assert_eq!(parse("").unwrap().value, Value::Null);
        assert_eq!(parse("# nothing\n").unwrap().value, Value::Null);
    }

    #[test]
    fn broken_text_is_refused_with_its_place() {
        let at = |text: &str| parse(text).map_err(|e| (e.at.line, e.at.column)).unwrap_err();
        assert_eq!(at("a: 1\nb: [x"), (2, 4));
        assert_eq!(at("a: 1\na: 2"), (2, 1));
        assert_eq!(at("a: *x"), (1, 4));
        assert_eq!(at("a: 1\n---\nb: 1"), (2, 1));
    }

    #[test]
    fn depth_and_aliases_are_limited() {
        assert!(parse(&"[".repeat(100_000)).is_err());
        let deep = format!("{}a", "- ".repeat(1000));
        assert!(parse(&deep).is_err());
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..10 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
        }
        assert!(parse(&bomb).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}", structure in "[ \\-:\\[\\]{}&*!|>'\"#%@,?a1~\\n\\t<]{0,60}") {
            let _ = parse(&text);
            let _ = parse(&structure);
        }
    }
}

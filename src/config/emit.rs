//! How is YAML written? As Prometheus' library does: lists not indented, texts
//! quoted only where they would otherwise be read as something else.

use std::fmt::Write as _;

/// Something to write.
pub enum Out {
    /// A number or truth value, as it is.
    Plain(String),
    /// A text, quoted if needed.
    Text(String),
    /// A list of texts on one line.
    Flow(Vec<String>),
    /// A list.
    List(Vec<Out>),
    /// A mapping.
    Map(Fields),
}

/// The fields of a mapping, in order.
#[derive(Default)]
pub struct Fields(Vec<(String, Out)>);

impl Fields {
    pub fn put(&mut self, name: &str, value: Out) {
        self.0.push((name.to_owned(), value));
    }

    pub fn text(&mut self, name: &str, value: impl Into<String>) {
        self.put(name, Out::Text(value.into()));
    }

    pub fn plain(&mut self, name: &str, value: impl ToString) {
        self.put(name, Out::Plain(value.to_string()));
    }

    /// A text unless it is empty.
    pub fn some_text(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    /// `true`, or nothing.
    pub fn if_true(&mut self, name: &str, value: bool) {
        if value {
            self.plain(name, true);
        }
    }

    /// A number unless it is 0.
    pub fn if_not_zero(&mut self, name: &str, value: u64) {
        if value > 0 {
            self.plain(name, value);
        }
    }

    /// A list unless it is empty.
    pub fn list(&mut self, name: &str, items: impl IntoIterator<Item = Out>) {
        let items: Vec<Out> = items.into_iter().collect();
        if !items.is_empty() {
            self.put(name, Out::List(items));
        }
    }

    /// A list of texts unless it is empty.
    pub fn texts<T: Into<String>>(&mut self, name: &str, items: impl IntoIterator<Item = T>) {
        self.list(name, items.into_iter().map(|t| Out::Text(t.into())));
    }

    /// A mapping unless it is empty.
    pub fn map(&mut self, name: &str, fields: Self) {
        if !fields.0.is_empty() {
            self.put(name, Out::Map(fields));
        }
    }

    /// The document.
    pub fn to_yaml(&self) -> String {
        let mut out = String::new();
        write_fields(&mut out, self, 0, false);
        out
    }
}

fn write_fields(out: &mut String, fields: &Fields, indent: usize, in_line: bool) {
    if fields.0.is_empty() {
        out.push_str("{}\n");
    }
    for (i, (name, value)) in fields.0.iter().enumerate() {
        if i > 0 || !in_line {
            push_indent(out, indent);
        }
        write_scalar(out, name);
        out.push(':');
        match value {
            Out::Plain(_) | Out::Text(_) | Out::Flow(_) => {
                out.push(' ');
                write_value(out, value, indent);
            }
            Out::Map(inner) if inner.0.is_empty() => out.push_str(" {}\n"),
            Out::List(items) if items.is_empty() => out.push_str(" []\n"),
            Out::Map(inner) => {
                out.push('\n');
                write_fields(out, inner, indent + 2, false);
            }
            Out::List(_) => {
                out.push('\n');
                write_value(out, value, indent);
            }
        }
    }
}

fn write_value(out: &mut String, value: &Out, indent: usize) {
    match value {
        Out::Plain(text) => {
            let _ = writeln!(out, "{text}");
        }
        Out::Text(text) => {
            write_scalar(out, text);
            out.push('\n');
        }
        Out::Flow(texts) => {
            out.push('[');
            for (i, text) in texts.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                write_scalar(out, text);
            }
            out.push_str("]\n");
        }
        Out::List(items) => {
            for item in items {
                push_indent(out, indent);
                out.push_str("- ");
                write_value(out, item, indent + 2);
            }
        }
        Out::Map(fields) => write_fields(out, fields, indent, true),
    }
}

fn push_indent(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn write_scalar(out: &mut String, text: &str) {
    if text.is_empty() || is_other_type(text) || text.chars().any(char::is_control) {
        write_escaped(out, text);
    } else if needs_quotes(text) {
        let _ = write!(out, "'{}'", text.replace('\'', "''"));
    } else {
        out.push_str(text);
    }
}

fn write_escaped(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Whether YAML 1.1 reads it as a truth value, null or a number.
fn is_other_type(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let words = ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "~", ".nan", ".inf"];
    if words.contains(&lower.as_str()) {
        return true;
    }
    let number = text.trim_start_matches(['-', '+']);
    let starts_as_number = number.starts_with(|c: char| c.is_ascii_digit())
        || (number.starts_with('.') && number[1..].starts_with(|c: char| c.is_ascii_digit()));
    let digits = number.replace('_', "");
    let in_base = |prefix: &str, base: u32| {
        digits.strip_prefix(prefix).is_some_and(|rest| rest.chars().all(|c| c.is_digit(base)))
    };
    starts_as_number
        && (digits.parse::<f64>().is_ok()
            || in_base("0x", 16)
            || in_base("0o", 8)
            || in_base("0b", 2)
            || (digits.contains(':') && digits.bytes().all(|b| b.is_ascii_digit() || b == b':')))
}

fn needs_quotes(text: &str) -> bool {
    let first = text.chars().next().unwrap_or(' ');
    let is_indicator = "&*!|>'\"%@`#{}[],".contains(first);
    let dash = ["-", "?", ":"].iter().any(|p| text == *p || text.starts_with(&format!("{p} ")));
    is_indicator
        || dash
        || text.starts_with("---")
        || text.starts_with("...")
        || text == "<<"
        || text == "="
        || text.starts_with(' ')
        || text.ends_with([' ', ':'])
        || text.contains(": ")
        || text.contains(" #")
        || text.contains(['[', ']', '{', '}', ','])
        || text.contains('\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::{self, Value};
    use proptest::prelude::*;

    #[test]
    fn texts_are_quoted_as_prometheus_does() {
        let cases = [
            ("1.5", "\"1.5\""),
            ("yes", "\"yes\""),
            ("y", "\"y\""),
            ("", "\"\""),
            ("a: b", "'a: b'"),
            ("#c", "'#c'"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            (";", ";"),
            ("$1", "$1"),
            ("<secret>", "<secret>"),
            ("(.*)x", "(.*)x"),
            ("it's", "it's"),
            ("12:30", "\"12:30\""),
            ("0x1f", "\"0x1f\""),
            ("0x\"", "0x\""),
        ];
        for (text, expected) in cases {
            let mut out = String::new();
            write_scalar(&mut out, text);
            assert_eq!(out, expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(
            key in "[a-z]{1,3}|\\PC{1,6}",
            texts in proptest::collection::vec("[-a-z0-9 :#'\"\\[\\]{},&*!|>%@`?~=.\\\\\n\t_+]{0,8}|\\PC{0,8}", 0..4),
        ) {
            let mut inner = Fields::default();
            inner.text(&key, "v");
            inner.put("flow", Out::Flow(texts.clone()));
            let mut fields = Fields::default();
            fields.list("list", texts.iter().map(|t| Out::Text(t.clone())));
            fields.put("m", Out::List(vec![Out::Map(inner)]));
            let text = fields.to_yaml();
            prop_assume!(key != "flow");
            let node = yaml::parse(&text).map_err(|e| TestCaseError::fail(format!("{e:?}\n{text}")))?;
            let Value::Map(entries) = node.value else { panic!("a mapping") };
            let scalars = |v: &Value| -> Vec<String> {
                let Value::List(items) = v else { panic!("a list") };
                items.iter().map(|i| match &i.value {
                    Value::Scalar(t) => t.clone(),
                    other => panic!("{other:?}"),
                }).collect()
            };
            if !texts.is_empty() {
                prop_assert_eq!(scalars(&entries[0].value.value), texts.clone());
            }
            let Value::List(maps) = &entries[entries.len() - 1].value.value else { panic!("a list") };
            let Value::Map(inner) = &maps[0].value else { panic!("a mapping") };
            prop_assert_eq!(&inner[0].key, &key);
            prop_assert_eq!(scalars(&inner[1].value.value), texts);
        }
    }
}

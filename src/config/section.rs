//! How is one section read? Field by field; what nobody asked for is an error.
//!
//! A [`Section`] hands out the fields of a mapping with their type checked,
//! and remembers which were asked for. [`Section::finish`] refuses the rest,
//! so that nothing in the file is ever silently ignored. A field that is null
//! counts as absent.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::ConfigError;
use super::units::{parse_duration, parse_size};
use super::yaml::{Entry, Node, Position, Value};

/// The file that sections come from.
pub struct Source<'a> {
    /// As it is named in messages.
    pub file: &'a str,
    /// What relative file names are resolved against.
    pub directory: &'a Path,
    /// What is accepted but has no meaning here.
    pub warnings: RefCell<Vec<String>>,
}

/// A value of the file with its place.
#[derive(Clone)]
pub struct Field<'a> {
    source: &'a Source<'a>,
    path: String,
    node: &'a Node,
}

/// A mapping of the file.
pub struct Section<'a> {
    source: &'a Source<'a>,
    path: String,
    at: Position,
    entries: &'a [Entry],
    taken: Vec<bool>,
}

type Read<T> = Result<T, ConfigError>;

impl<'a> Source<'a> {
    /// The whole document.
    pub fn root(&'a self, node: &'a Node) -> Field<'a> {
        Field { source: self, path: String::new(), node }
    }
}

impl<'a> Field<'a> {
    /// An error at this place.
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError::new(self.source.file, self.node.at, &self.path, message)
    }

    /// Whether nothing stands there.
    pub fn is_null(&self) -> bool {
        self.node.value == Value::Null
    }

    /// The text of a scalar; null is the empty text.
    pub fn text(&self) -> Read<String> {
        match &self.node.value {
            Value::Scalar(text) => Ok(text.clone()),
            Value::Null => Ok(String::new()),
            Value::List(_) => Err(self.error("expected a text, found a list")),
            Value::Map(_) => Err(self.error("expected a text, found a mapping")),
        }
    }

    fn parsed<T>(&self, parse: impl Fn(&str) -> Result<T, String>) -> Read<T> {
        parse(&self.text()?).map_err(|message| self.error(message))
    }

    pub fn bool(&self) -> Read<bool> {
        self.parsed(|text| match text {
            "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => {
                Ok(true)
            }
            "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n"
            | "N" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        })
    }

    pub fn uint(&self) -> Read<u64> {
        self.parsed(|text| {
            let digits = text.replace('_', "");
            digits.parse().map_err(|_| format!("{text:?} is not a whole number of 0 or more"))
        })
    }

    pub fn int(&self) -> Read<i64> {
        self.parsed(|text| {
            let digits = text.replace('_', "");
            digits.parse().map_err(|_| format!("{text:?} is not a whole number"))
        })
    }

    pub fn float(&self) -> Read<f64> {
        self.parsed(|text| {
            let number: Option<f64> = text.parse().ok();
            number.filter(|n| n.is_finite()).ok_or_else(|| format!("{text:?} is not a number"))
        })
    }

    pub fn duration(&self) -> Read<Duration> {
        self.parsed(parse_duration)
    }

    /// A duration above zero.
    pub fn positive_duration(&self) -> Read<Duration> {
        let duration = self.duration()?;
        if duration.is_zero() { Err(self.error("must be above zero")) } else { Ok(duration) }
    }

    pub fn size(&self) -> Read<u64> {
        self.parsed(parse_size)
    }

    /// A file name, resolved against the directory of the file; empty stays.
    pub fn path(&self) -> Read<PathBuf> {
        let text = self.text()?;
        if text.is_empty() || Path::new(&text).is_absolute() {
            return Ok(PathBuf::from(text));
        }
        Ok(self.source.directory.join(text))
    }

    /// The items of a list; null is the empty one.
    pub fn list(&self) -> Read<Vec<Field<'a>>> {
        match &self.node.value {
            Value::List(items) => Ok(items
                .iter()
                .enumerate()
                .map(|(i, node)| Field {
                    source: self.source,
                    path: format!("{}[{i}]", self.path),
                    node,
                })
                .collect()),
            Value::Null => Ok(Vec::new()),
            Value::Scalar(_) => Err(self.error("expected a list, found a text")),
            Value::Map(_) => Err(self.error("expected a list, found a mapping")),
        }
    }

    pub fn texts(&self) -> Read<Vec<String>> {
        self.list()?.iter().map(Field::text).collect()
    }

    /// A mapping whose keys are the user's; null is the empty one.
    pub fn map(&self) -> Read<Vec<(&'a Entry, Field<'a>)>> {
        Ok(self
            .entries()?
            .iter()
            .map(|entry| {
                let path = join(&self.path, &entry.key);
                (entry, Field { source: self.source, path, node: &entry.value })
            })
            .collect())
    }

    pub fn text_map(&self) -> Read<BTreeMap<String, String>> {
        self.map()?.into_iter().map(|(e, f)| Ok((e.key.clone(), f.text()?))).collect()
    }

    /// Label names and values.
    pub fn labels(&self) -> Read<BTreeMap<String, String>> {
        let label = |(entry, field): (&Entry, Field<'_>)| {
            if entry.key.is_empty() {
                return Err(field.error("a label name must not be empty"));
            }
            Ok((entry.key.clone(), field.text()?))
        };
        self.map()?.into_iter().map(label).collect()
    }

    fn entries(&self) -> Read<&'a [Entry]> {
        match &self.node.value {
            Value::Map(entries) => Ok(entries),
            Value::Null => Ok(&[]),
            Value::Scalar(_) => Err(self.error("expected a mapping, found a text")),
            Value::List(_) => Err(self.error("expected a mapping, found a list")),
        }
    }

    /// A mapping whose keys are fields; null is the empty one.
    pub fn section(&self) -> Read<Section<'a>> {
        let entries = self.entries()?;
        Ok(Section {
            source: self.source,
            path: self.path.clone(),
            at: self.node.at,
            entries,
            taken: vec![false; entries.len()],
        })
    }

    /// Reads each item of a list as a section; null items are errors.
    pub fn sections<T>(&self, mut read: impl FnMut(Section<'a>) -> Read<T>) -> Read<Vec<T>> {
        let one = |item: Field<'a>| {
            if item.is_null() {
                return Err(item.error("the section is empty"));
            }
            read(item.section()?)
        };
        self.list()?.into_iter().map(one).collect()
    }
}

impl<'a> Section<'a> {
    /// An error about the section as a whole.
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError::new(self.source.file, self.at, &self.path, message)
    }

    /// An error about one field, at its place if it is written.
    pub fn field_error(&self, name: &str, message: impl Into<String>) -> ConfigError {
        let at = self.entries.iter().find(|e| e.key == name).map_or(self.at, |e| e.value.at);
        ConfigError::new(self.source.file, at, join(&self.path, name), message)
    }

    /// The field even if it is null.
    pub fn written(&mut self, name: &str) -> Option<Field<'a>> {
        let i = self.entries.iter().position(|e| e.key == name)?;
        self.taken[i] = true;
        let node = &self.entries[i].value;
        Some(Field { source: self.source, path: join(&self.path, name), node })
    }

    /// The field, if it is written and not null.
    pub fn field(&mut self, name: &str) -> Option<Field<'a>> {
        self.written(name).filter(|f| !f.is_null())
    }

    /// Reads a field by one of [`Field`]'s methods.
    pub fn get<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Field<'a>) -> Read<T>,
    ) -> Read<Option<T>> {
        self.field(name).map(|f| read(&f)).transpose()
    }

    /// A text that is not empty.
    pub fn text(&mut self, name: &str) -> Read<Option<String>> {
        Ok(self.get(name, Field::text)?.filter(|t| !t.is_empty()))
    }

    /// A file name that is not empty.
    pub fn path(&mut self, name: &str) -> Read<Option<PathBuf>> {
        Ok(self.get(name, Field::path)?.filter(|p| !p.as_os_str().is_empty()))
    }

    pub fn bool_or(&mut self, name: &str, default: bool) -> Read<bool> {
        Ok(self.get(name, Field::bool)?.unwrap_or(default))
    }

    /// A list of sections; empty if absent.
    pub fn sections<T>(
        &mut self,
        name: &str,
        read: impl FnMut(Section<'a>) -> Read<T>,
    ) -> Read<Vec<T>> {
        self.field(name).map_or_else(|| Ok(Vec::new()), |f| f.sections(read))
    }

    /// Refuses a field that narthex does not have.
    pub fn refuse(&mut self, name: &str, message: &str) -> Read<()> {
        self.field(name).map_or(Ok(()), |f| Err(f.error(message)))
    }

    /// Refuses a section unless there is nothing in it.
    pub fn refuse_filled(&mut self, name: &str, message: &str) -> Read<()> {
        let Some(field) = self.field(name) else { return Ok(()) };
        match &field.node.value {
            Value::List(items) if items.is_empty() => Ok(()),
            Value::Map(entries) if entries.is_empty() => Ok(()),
            _ => Err(field.error(message)),
        }
    }

    /// Accepts a field that has no meaning here, with a warning.
    pub fn ignore(&mut self, name: &str, why: &str) {
        if let Some(field) = self.field(name) {
            self.source.warnings.borrow_mut().push(field.error(why).to_string());
        }
    }

    /// Refuses what was not asked for.
    pub fn finish(self) -> Read<()> {
        let unknown = self.entries.iter().zip(&self.taken).find(|(_, taken)| !**taken);
        unknown.map_or(Ok(()), |(entry, _)| {
            let path = join(&self.path, &entry.key);
            Err(ConfigError::new(self.source.file, entry.at, path, "unknown field"))
        })
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

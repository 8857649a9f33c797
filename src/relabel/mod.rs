//! How are labels rewritten? Compiles relabel rules, rewrites label sets.
//!
//! [`Rules`] are compiled once and applied to many label sets: targets,
//! samples, alerts. Semantics are Prometheus': expressions are anchored, a
//! missing label is empty, setting a label to the empty text removes it.

mod case;
mod expand;

use md5::{Digest, Md5};
use narthex_storage::labels::{Labels, LabelsBuilder, anchored};
use regex::Regex;

use crate::config::{NameValidation, RelabelAction, RelabelConfig};
use expand::Template;

/// Compiled relabel rules. Cloning copies them.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    rules: Vec<Rule>,
}

/// A rule that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("relabel rule {index}: {field}: {message}")]
pub struct RelabelError {
    /// Position of the rule in its list, from 0.
    pub index: usize,
    /// The field at fault, as written in the file.
    pub field: &'static str,
    /// What is wrong.
    pub message: String,
}

/// What one rule did to a label set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The labels after the rule; empty once they are dropped.
    pub output: Labels,
    /// Whether they are still kept.
    pub keep: bool,
}

#[derive(Debug, Clone)]
struct Rule {
    source_labels: Vec<String>,
    separator: String,
    action: Action,
}

/// An action with what it needs.
#[derive(Debug, Clone)]
enum Action {
    /// Replace without references and with an expression that matches all.
    Set {
        target: String,
        value: String,
    },
    Replace {
        regex: Regex,
        target: Template,
        replacement: Template,
        names: NameValidation,
    },
    Keep(Regex),
    Drop(Regex),
    KeepEqual(String),
    DropEqual(String),
    HashMod {
        target: String,
        modulus: u64,
    },
    LabelMap {
        regex: Regex,
        replacement: Template,
    },
    LabelDrop(Regex),
    LabelKeep(Regex),
    Lowercase(String),
    Uppercase(String),
}

impl Rules {
    /// Compiles rules; any non-empty text is a label name.
    ///
    /// # Errors
    ///
    /// [`RelabelError`] names the first rule and field that do not fit.
    pub fn compile(configs: &[RelabelConfig]) -> Result<Self, RelabelError> {
        Self::compile_for(configs, NameValidation::Utf8)
    }

    /// Compiles rules that may only make names valid by `names`.
    ///
    /// # Errors
    ///
    /// [`RelabelError`] names the first rule and field that do not fit.
    pub fn compile_for(
        configs: &[RelabelConfig],
        names: NameValidation,
    ) -> Result<Self, RelabelError> {
        let compile = |(index, config): (usize, &RelabelConfig)| {
            config.validate(names).map_err(|e| RelabelError {
                index,
                field: e.field,
                message: e.message,
            })?;
            Rule::compile(config, names).map_err(|message| RelabelError {
                index,
                field: "regex",
                message,
            })
        };
        Ok(Self { rules: configs.iter().enumerate().map(compile).collect::<Result<_, _>>()? })
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Number of rules.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Rewrites `labels`; `false` means that they are dropped, and then their
    /// content has no meaning. Allocates for values that are written.
    #[must_use]
    pub fn apply(&self, labels: &mut LabelsBuilder) -> bool {
        self.rules.iter().all(|rule| rule.apply(labels))
    }

    /// The label set after each rule, for those who ask why.
    #[must_use]
    pub fn steps(&self, labels: &Labels) -> Vec<Step> {
        let mut builder = labels.to_builder();
        let mut keep = true;
        let step = |rule: &Rule| {
            keep = keep && rule.apply(&mut builder);
            Step { output: if keep { builder.build() } else { Labels::empty() }, keep }
        };
        self.rules.iter().map(step).collect()
    }
}

impl Rule {
    fn compile(config: &RelabelConfig, names: NameValidation) -> Result<Self, String> {
        use RelabelAction as A;
        let regex = || anchored(&config.regex).map_err(|e| e.to_string());
        let target = || config.target_label.clone();
        let action = match config.action {
            A::Replace => replace(config, regex()?, names),
            A::Keep => Action::Keep(regex()?),
            A::Drop => Action::Drop(regex()?),
            A::KeepEqual => Action::KeepEqual(target()),
            A::DropEqual => Action::DropEqual(target()),
            A::HashMod => Action::HashMod { target: target(), modulus: config.modulus },
            A::LabelMap => {
                let regex = regex()?;
                let replacement = Template::new(&config.replacement, &regex);
                Action::LabelMap { regex, replacement }
            }
            A::LabelDrop => Action::LabelDrop(regex()?),
            A::LabelKeep => Action::LabelKeep(regex()?),
            A::Lowercase => Action::Lowercase(target()),
            A::Uppercase => Action::Uppercase(target()),
        };
        let (source_labels, separator) = (config.source_labels.clone(), config.separator.clone());
        Ok(Self { source_labels, separator, action })
    }

    fn apply(&self, labels: &mut LabelsBuilder) -> bool {
        match &self.action {
            Action::Set { target, value } => {
                labels.set(target, value);
            }
            Action::Replace { regex, target, replacement, names } => {
                self.replace(labels, regex, target, replacement, *names);
            }
            Action::Keep(regex) => return self.with_value(labels, |v| regex.is_match(v)),
            Action::Drop(regex) => return !self.with_value(labels, |v| regex.is_match(v)),
            Action::KeepEqual(target) => {
                return self.with_value(labels, |v| v == labels.get(target));
            }
            Action::DropEqual(target) => {
                return self.with_value(labels, |v| v != labels.get(target));
            }
            Action::HashMod { target, modulus } => {
                let n = self.with_value(labels, hash) % modulus;
                labels.set(target, &n.to_string());
            }
            Action::LabelMap { regex, replacement } => map_names(labels, regex, replacement),
            Action::LabelDrop(regex) => labels.retain(|name, _| !regex.is_match(name)),
            Action::LabelKeep(regex) => labels.retain(|name, _| regex.is_match(name)),
            Action::Lowercase(target) => {
                let value = self.with_value(labels, case::to_lower);
                labels.set(target, &value);
            }
            Action::Uppercase(target) => {
                let value = self.with_value(labels, case::to_upper);
                labels.set(target, &value);
            }
        }
        true
    }

    fn replace(
        &self,
        labels: &mut LabelsBuilder,
        regex: &Regex,
        target: &Template,
        replacement: &Template,
        names: NameValidation,
    ) {
        let written = self.with_value(labels, |value| {
            let captures = regex.captures(value)?;
            let (mut name, mut text) = (String::new(), String::new());
            target.expand(&captures, &mut name);
            replacement.expand(&captures, &mut text);
            names.is_valid_label_name(&name).then_some((name, text))
        });
        if let Some((name, text)) = written {
            labels.set(&name, &text);
        }
    }

    /// Hands the joined source values to `f`; one value is not copied.
    fn with_value<T>(&self, labels: &LabelsBuilder, f: impl FnOnce(&str) -> T) -> T {
        match self.source_labels.as_slice() {
            [] => f(""),
            [one] => f(labels.get(one)),
            [first, rest @ ..] => {
                let mut joined = labels.get(first).to_owned();
                for name in rest {
                    joined.push_str(&self.separator);
                    joined.push_str(labels.get(name));
                }
                f(&joined)
            }
        }
    }
}

fn replace(config: &RelabelConfig, regex: Regex, names: NameValidation) -> Action {
    let target = Template::new(&config.target_label, &regex);
    let replacement = Template::new(&config.replacement, &regex);
    let matches_all = config.regex == RelabelConfig::default().regex;
    match (target.as_text(), replacement.as_text()) {
        (Some(target), Some(value)) if matches_all && names.is_valid_label_name(target) => {
            Action::Set { target: target.to_owned(), value: value.to_owned() }
        }
        _ => Action::Replace { regex, target, replacement, names },
    }
}

/// The last 8 of the 16 bytes of the value's MD5.
fn hash(value: &str) -> u64 {
    let digest: [u8; 16] = Md5::digest(value.as_bytes()).into();
    let [.., a, b, c, d, e, f, g, h] = digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Copies labels whose name matches to the name that the template makes of
/// it; looks at the labels as they were before.
fn map_names(labels: &mut LabelsBuilder, regex: &Regex, replacement: &Template) {
    let mut copies = Vec::new();
    for (name, value) in labels.iter() {
        let Some(captures) = regex.captures(name) else { continue };
        let mut target = String::new();
        replacement.expand(&captures, &mut target);
        if !target.is_empty() {
            copies.push((target, value.to_owned()));
        }
    }
    for (target, value) in copies {
        labels.set(&target, &value);
    }
}

#[cfg(test)]
mod tests;

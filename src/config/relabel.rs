//! Is this relabel rule one that Prometheus accepts?

use narthex_storage::labels::is_legacy_label_name;

use super::{NameValidation, RelabelAction, RelabelConfig};

/// What is wrong with one field of a relabel rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RelabelFieldError {
    /// The field, as written in the file.
    pub field: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl RelabelAction {
    /// All actions.
    pub const ALL: [Self; 11] = [
        Self::Replace,
        Self::Keep,
        Self::Drop,
        Self::KeepEqual,
        Self::DropEqual,
        Self::HashMod,
        Self::LabelMap,
        Self::LabelDrop,
        Self::LabelKeep,
        Self::Lowercase,
        Self::Uppercase,
    ];

    /// The name in the file; any case is accepted there.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Keep => "keep",
            Self::Drop => "drop",
            Self::KeepEqual => "keepequal",
            Self::DropEqual => "dropequal",
            Self::HashMod => "hashmod",
            Self::LabelMap => "labelmap",
            Self::LabelDrop => "labeldrop",
            Self::LabelKeep => "labelkeep",
            Self::Lowercase => "lowercase",
            Self::Uppercase => "uppercase",
        }
    }

    /// The action of this name in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.as_str().eq_ignore_ascii_case(name))
    }
}

impl NameValidation {
    /// Whether `name` may be the name of a label.
    #[must_use]
    pub fn is_valid_label_name(self, name: &str) -> bool {
        match self {
            Self::Utf8 => !name.is_empty(),
            Self::Legacy => is_legacy_label_name(name),
        }
    }

    /// Whether `template` may become the name of a label once its references
    /// to groups are filled in.
    fn is_valid_label_template(self, template: &str) -> bool {
        match self {
            Self::Utf8 => !template.is_empty(),
            Self::Legacy => is_legacy_template(template),
        }
    }
}

/// Letters, digits, `_`, and `$name` or `${name}`; no digit in front.
fn is_legacy_template(template: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = template.as_bytes();
    if bytes.first().is_none_or(u8::is_ascii_digit) {
        return false;
    }
    let mut at = 0;
    while let Some(&b) = bytes.get(at) {
        at += 1;
        if b == b'$' {
            let braced = bytes.get(at) == Some(&b'{');
            let start = at + usize::from(braced);
            let length =
                bytes[start.min(bytes.len())..].iter().take_while(|b| is_word(**b)).count();
            at = start + length;
            if length == 0 || (braced && bytes.get(at) != Some(&b'}')) {
                return false;
            }
            at += usize::from(braced);
        } else if !is_word(b) {
            return false;
        }
    }
    true
}

impl RelabelConfig {
    /// Checks the rule as Prometheus does when it loads a file. The regular
    /// expression is not looked at.
    ///
    /// # Errors
    ///
    /// [`RelabelFieldError`] names the first field that does not fit.
    pub fn validate(&self, names: NameValidation) -> Result<(), RelabelFieldError> {
        use RelabelAction as A;
        let action = self.action.as_str();
        let error = |field, message: String| Err(RelabelFieldError { field, message });
        let defaults = Self::default();
        if self.action == A::HashMod && self.modulus == 0 {
            return error("modulus", "hashmod needs a modulus above zero".to_owned());
        }
        let has_target =
            !matches!(self.action, A::Keep | A::Drop | A::LabelMap | A::LabelDrop | A::LabelKeep);
        if has_target && self.target_label.is_empty() {
            return error("target_label", format!("{action} needs a target_label"));
        }
        let target_is_valid = if self.action == A::Replace && self.target_label.contains('$') {
            names.is_valid_label_template(&self.target_label)
        } else {
            names.is_valid_label_name(&self.target_label)
        };
        if has_target && !target_is_valid {
            return error("target_label", format!("{:?} is not a label name", self.target_label));
        }
        let fixed_replacement =
            matches!(self.action, A::Lowercase | A::Uppercase | A::KeepEqual | A::DropEqual);
        if fixed_replacement && self.replacement != defaults.replacement {
            return error("replacement", format!("{action} takes no replacement"));
        }
        if self.action == A::LabelMap && !names.is_valid_label_template(&self.replacement) {
            return error(
                "replacement",
                format!("{:?} cannot become a label name", self.replacement),
            );
        }
        let foreign = |field| {
            let allowed = match self.action {
                A::KeepEqual | A::DropEqual => "source_labels and target_label",
                _ => "regex",
            };
            error(field, format!("{action} takes only {allowed}"))
        };
        let is_equal = matches!(self.action, A::KeepEqual | A::DropEqual);
        let is_name = matches!(self.action, A::LabelDrop | A::LabelKeep);
        if is_equal && self.regex != defaults.regex {
            return foreign("regex");
        }
        if (is_equal || is_name) && self.modulus != 0 {
            return foreign("modulus");
        }
        if (is_equal || is_name) && self.separator != defaults.separator {
            return foreign("separator");
        }
        if is_name && self.replacement != defaults.replacement {
            return foreign("replacement");
        }
        if is_name && !self.source_labels.is_empty() {
            return foreign("source_labels");
        }
        if is_name && !self.target_label.is_empty() {
            return foreign("target_label");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(config: RelabelConfig) -> Option<&'static str> {
        config.validate(NameValidation::Utf8).err().map(|e| e.field)
    }

    #[test]
    fn each_action_refuses_what_it_does_not_take() {
        use RelabelAction as A;
        let rule = |action| RelabelConfig { action, ..RelabelConfig::default() };
        let target = |action| RelabelConfig { target_label: "t".into(), ..rule(action) };
        assert_eq!(field(rule(A::Keep)), None);
        assert_eq!(field(rule(A::Replace)), Some("target_label"));
        assert_eq!(field(target(A::Replace)), None);
        assert_eq!(field(target(A::HashMod)), Some("modulus"));
        assert_eq!(field(RelabelConfig { modulus: 3, ..target(A::HashMod) }), None);
        for action in [A::Lowercase, A::Uppercase, A::KeepEqual, A::DropEqual] {
            assert_eq!(field(target(action)), None);
            let with = RelabelConfig { replacement: "x".into(), ..target(action) };
            assert_eq!(field(with), Some("replacement"));
        }
        let regex = RelabelConfig { regex: "x".into(), ..target(A::KeepEqual) };
        assert_eq!(field(regex), Some("regex"));
        assert_eq!(field(target(A::LabelDrop)), Some("target_label"));
        let source = RelabelConfig { source_labels: vec!["a".into()], ..rule(A::LabelKeep) };
        assert_eq!(field(source), Some("source_labels"));
        let map = RelabelConfig { replacement: String::new(), ..rule(A::LabelMap) };
        assert_eq!(field(map), Some("replacement"));
    }

    #[test]
    fn legacy_names_may_hold_references_only() {
        let ok = ["a$1", "${1}_b", "x_${name}", "$x", "a1"];
        let bad = ["", "1a", "a-b", "$", "${}", "${1", "a$-", "a b", "é$1"];
        assert!(ok.iter().all(|t| is_legacy_template(t)));
        for template in bad {
            assert!(!is_legacy_template(template), "{template:?}");
        }
        let rule = RelabelConfig { target_label: "a.b".into(), ..RelabelConfig::default() };
        assert!(rule.validate(NameValidation::Utf8).is_ok());
        assert!(rule.validate(NameValidation::Legacy).is_err());
    }
}

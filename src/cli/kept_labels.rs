//! Which labels can the result of an expression have? As far as the text of
//! the expression says.

use std::collections::BTreeSet;

use narthex_query::ast::{AggregateOp, BinaryOp, Cardinality, Expr, ExprKind, ValueType};
use narthex_storage::labels::MatchOp;

/// A set of labels, by its members or by those that are not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kept {
    /// These at most.
    Only(BTreeSet<String>),
    /// Whatever the data have, but not these.
    AllBut(BTreeSet<String>),
}

impl Kept {
    fn all() -> Self {
        Self::AllBut(BTreeSet::new())
    }

    fn none() -> Self {
        Self::Only(BTreeSet::new())
    }

    /// Whether a result can have this label.
    pub(super) fn may_have(&self, label: &str) -> bool {
        match self {
            Self::Only(labels) => labels.contains(label),
            Self::AllBut(labels) => !labels.contains(label),
        }
    }

    fn with(mut self, label: &str) -> Self {
        match &mut self {
            Self::Only(labels) => {
                labels.insert(label.to_owned());
            }
            Self::AllBut(labels) => {
                labels.remove(label);
            }
        }
        self
    }

    fn without(mut self, label: &str) -> Self {
        match &mut self {
            Self::Only(labels) => {
                labels.remove(label);
            }
            Self::AllBut(labels) => {
                labels.insert(label.to_owned());
            }
        }
        self
    }

    /// Those of these labels that are in the set.
    fn among(&self, labels: &[String]) -> Self {
        Self::Only(labels.iter().filter(|label| self.may_have(label)).cloned().collect())
    }

    /// What either may have.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Only(a), Self::Only(b)) => Self::Only(a.union(&b).cloned().collect()),
            (Self::AllBut(a), Self::AllBut(b)) => {
                Self::AllBut(a.intersection(&b).cloned().collect())
            }
            (Self::Only(some), Self::AllBut(not)) | (Self::AllBut(not), Self::Only(some)) => {
                Self::AllBut(not.difference(&some).cloned().collect())
            }
        }
    }
}

/// The labels that the result of `expr` can have.
pub(super) fn kept_labels(expr: &Expr) -> Kept {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => Kept::none(),
        ExprKind::Vector(selector) => {
            // `{pod=""}` selects what has no such label.
            let absent =
                selector.matchers.iter().filter(|m| m.op == MatchOp::Equal && m.value.is_empty());
            absent.fold(Kept::all(), |kept, matcher| kept.without(&matcher.name))
        }
        ExprKind::Matrix(_) => Kept::all(),
        ExprKind::Subquery(subquery) => kept_labels(&subquery.expr),
        ExprKind::Paren(inner) | ExprKind::Unary(_, inner) => kept_labels(inner),
        ExprKind::Aggregate(aggregate) => {
            let inner = kept_labels(&aggregate.expr);
            let labels = &aggregate.grouping.labels;
            let grouped = if aggregate.grouping.without {
                labels.iter().fold(inner.clone(), |kept, label| kept.without(label))
            } else {
                inner.among(labels)
            };
            match aggregate.op {
                AggregateOp::Topk
                | AggregateOp::Bottomk
                | AggregateOp::Limitk
                | AggregateOp::LimitRatio => inner,
                AggregateOp::CountValues => match aggregate.param.as_deref().map(|p| &p.kind) {
                    Some(ExprKind::String(label)) => grouped.with(label),
                    _ => Kept::all(),
                },
                _ => grouped,
            }
        }
        ExprKind::Call(call) => called(call.function, &call.args),
        ExprKind::Binary(binary) => {
            let (lhs, rhs) = (kept_labels(&binary.lhs), kept_labels(&binary.rhs));
            let Some(matching) = &binary.matching else {
                let is_vector = binary.lhs.value_type() == ValueType::Vector;
                return if is_vector { lhs } else { rhs };
            };
            match (binary.op, matching.cardinality) {
                (BinaryOp::Or, _) => lhs.or(rhs),
                (BinaryOp::And | BinaryOp::Unless, _) => lhs,
                (_, Cardinality::ManyToOne) => {
                    matching.include.iter().fold(lhs, |kept, label| kept.with(label))
                }
                (_, Cardinality::OneToMany) => {
                    matching.include.iter().fold(rhs, |kept, label| kept.with(label))
                }
                _ if matching.on => lhs.among(&matching.labels),
                _ => matching.labels.iter().fold(lhs, |kept, label| kept.without(label)),
            }
        }
    }
}

fn called(function: &str, args: &[Expr]) -> Kept {
    let text = |i: usize| match args.get(i).map(|arg| &arg.kind) {
        Some(ExprKind::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let vector = args
        .iter()
        .find(|arg| matches!(arg.value_type(), ValueType::Vector | ValueType::Matrix))
        .map_or_else(Kept::none, kept_labels);
    match function {
        "absent" | "absent_over_time" => match args.first().map(|arg| &arg.kind) {
            Some(ExprKind::Vector(selector)) => equal_labels(&selector.matchers),
            Some(ExprKind::Matrix(matrix)) => equal_labels(&matrix.selector.matchers),
            _ => Kept::none(),
        },
        "label_replace" | "label_join" => text(1).map_or_else(Kept::all, |name| vector.with(name)),
        "histogram_quantile" | "histogram_fraction" => vector.without("le"),
        // These add labels of other series.
        "info" => Kept::all(),
        "scalar" | "time" | "vector" => Kept::none(),
        _ => vector,
    }
}

fn equal_labels(matchers: &[narthex_storage::labels::Matcher]) -> Kept {
    let equal = matchers.iter().filter(|m| m.op == MatchOp::Equal && m.name != "__name__");
    Kept::Only(equal.map(|matcher| matcher.name.clone()).collect())
}

#[cfg(test)]
mod tests {
    use narthex_query::parse::{ParseOptions, parse};

    use super::*;

    #[test]
    fn labels_are_followed_through_expressions() {
        for (text, has, lacks) in [
            ("up", "pod", ""),
            ("up{pod=''} == 0", "job", "pod"),
            ("sum by (job) (x) > 1", "job", "pod"),
            ("1 - sum by (job) (x)", "job", "pod"),
            ("sum without (pod) (x)", "job", "pod"),
            ("sum(sum by (job, le) (x)) by (job, pod)", "job", "pod"),
            ("topk(1, sum by (job) (x))", "job", "pod"),
            ("count_values by (job) ('v', x)", "v", "pod"),
            ("a / on (job) b", "job", "pod"),
            ("a / ignoring (pod) b", "job", "pod"),
            ("sum by (job) (a) * on (job) group_left (team) b", "team", "pod"),
            ("sum by (job) (a) and on (job) b", "job", "pod"),
            ("sum by (job) (a) or sum by (team) (b)", "team", "pod"),
            ("sum without (pod) (a) or sum by (team) (b)", "x", "pod"),
            ("absent(up{job='a', pod=~'b.*'})", "job", "pod"),
            ("label_replace(sum by (job) (x), 'pod', '$1', 'job', '(.*)')", "pod", "node"),
            ("histogram_quantile(0.9, sum by (le, job) (rate(x[5m])))", "job", "le"),
            ("vector(1)", "", "pod"),
            ("max_over_time(sum by (job) (x)[5m:1m])", "job", "pod"),
        ] {
            let expr = parse(text, &ParseOptions::default()).expect(text);
            let kept = kept_labels(&expr);
            assert!(has.is_empty() || kept.may_have(has), "{text} has {has}: {kept:?}");
            assert!(lacks.is_empty() || !kept.may_have(lacks), "{text} lacks {lacks}: {kept:?}");
        }
    }
}

//! The kinds of tokens, and what error messages call them.

use std::fmt::Write as _;

use crate::quote::quoted;

/// A word of a query: its kind and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Byte offset of its first character.
    pub start: usize,
    /// Byte offset behind its last character.
    pub end: usize,
}

/// Kinds of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is named as what it stands for")]
pub enum Kind {
    Eof,
    Identifier,
    MetricIdentifier,
    Number,
    Duration,
    String,
    Comma,
    Colon,
    Eql,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    // Operators.
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    EqlC,
    Neq,
    EqlRegex,
    NeqRegex,
    Gte,
    Gtr,
    Lte,
    Lss,
    TrimUpper,
    TrimLower,
    At,
    And,
    Or,
    Unless,
    Atan2,
    // Aggregators.
    Avg,
    Bottomk,
    Count,
    CountValues,
    Group,
    Max,
    Min,
    Quantile,
    Stddev,
    Stdvar,
    Sum,
    Topk,
    Limitk,
    LimitRatio,
    // Keywords.
    Bool,
    By,
    GroupLeft,
    GroupRight,
    Fill,
    FillLeft,
    FillRight,
    Ignoring,
    Offset,
    Smoothed,
    Anchored,
    On,
    Without,
    // Functions that are also words of modifiers.
    Start,
    End,
    Step,
    Range,
    MaxOf,
    MinOf,
}

/// Words with a meaning of their own; case does not matter.
const KEYWORDS: [(&str, Kind); 39] = [
    ("and", Kind::And),
    ("or", Kind::Or),
    ("unless", Kind::Unless),
    ("atan2", Kind::Atan2),
    ("sum", Kind::Sum),
    ("avg", Kind::Avg),
    ("count", Kind::Count),
    ("min", Kind::Min),
    ("max", Kind::Max),
    ("group", Kind::Group),
    ("stddev", Kind::Stddev),
    ("stdvar", Kind::Stdvar),
    ("topk", Kind::Topk),
    ("bottomk", Kind::Bottomk),
    ("count_values", Kind::CountValues),
    ("quantile", Kind::Quantile),
    ("limitk", Kind::Limitk),
    ("limit_ratio", Kind::LimitRatio),
    ("offset", Kind::Offset),
    ("smoothed", Kind::Smoothed),
    ("anchored", Kind::Anchored),
    ("by", Kind::By),
    ("without", Kind::Without),
    ("on", Kind::On),
    ("ignoring", Kind::Ignoring),
    ("group_left", Kind::GroupLeft),
    ("group_right", Kind::GroupRight),
    ("fill", Kind::Fill),
    ("fill_left", Kind::FillLeft),
    ("fill_right", Kind::FillRight),
    ("bool", Kind::Bool),
    ("start", Kind::Start),
    ("end", Kind::End),
    ("step", Kind::Step),
    ("range", Kind::Range),
    ("max_of", Kind::MaxOf),
    ("min_of", Kind::MinOf),
    ("inf", Kind::Number),
    ("nan", Kind::Number),
];

/// Longest keyword, in bytes.
const LONGEST_KEYWORD: usize = 12;

impl Kind {
    /// The keyword that `word` is, if it is one.
    #[must_use]
    pub fn keyword(word: &str) -> Option<Self> {
        if word.len() > LONGEST_KEYWORD {
            return None;
        }
        KEYWORDS.iter().find(|(text, _)| text.eq_ignore_ascii_case(word)).map(|(_, kind)| *kind)
    }

    /// Whether it is an aggregation operator.
    #[must_use]
    pub const fn is_aggregator(self) -> bool {
        use Kind::{
            Avg, Bottomk, Count, CountValues, Group, LimitRatio, Limitk, Max, Min, Quantile,
            Stddev, Stdvar, Sum, Topk,
        };
        matches!(
            self,
            Avg | Bottomk
                | Count
                | CountValues
                | Group
                | Max
                | Min
                | Quantile
                | Stddev
                | Stdvar
                | Sum
                | Topk
                | Limitk
                | LimitRatio
        )
    }

    /// Whether error messages call it an operator.
    const fn is_operator(self) -> bool {
        use Kind::{
            Add, And, At, Atan2, Div, EqlC, EqlRegex, Gte, Gtr, Lss, Lte, Mod, Mul, Neq, NeqRegex,
            Or, Pow, Sub, TrimLower, TrimUpper, Unless,
        };
        matches!(
            self,
            Add | Sub
                | Mul
                | Div
                | Mod
                | Pow
                | EqlC
                | Neq
                | EqlRegex
                | NeqRegex
                | Gte
                | Gtr
                | Lte
                | Lss
                | TrimUpper
                | TrimLower
                | At
                | And
                | Or
                | Unless
                | Atan2
        )
    }

    /// Whether error messages call it a keyword.
    const fn is_keyword(self) -> bool {
        use Kind::{
            Anchored, Bool, By, Fill, FillLeft, FillRight, GroupLeft, GroupRight, Ignoring, Offset,
            On, Smoothed, Without,
        };
        matches!(
            self,
            Bool | By
                | GroupLeft
                | GroupRight
                | Fill
                | FillLeft
                | FillRight
                | Ignoring
                | Offset
                | Smoothed
                | Anchored
                | On
                | Without
        )
    }

    /// Whether the word may name a metric where an expression begins.
    #[must_use]
    pub const fn is_metric_name(self) -> bool {
        use Kind::{
            Anchored, And, By, End, Fill, FillLeft, FillRight, Identifier, MaxOf, MetricIdentifier,
            MinOf, Offset, Or, Range, Smoothed, Start, Step, Unless, Without,
        };
        self.is_aggregator()
            || matches!(
                self,
                By | Fill
                    | FillLeft
                    | FillRight
                    | Identifier
                    | And
                    | Or
                    | Unless
                    | MetricIdentifier
                    | Offset
                    | Without
                    | Start
                    | End
                    | Step
                    | Range
                    | Anchored
                    | Smoothed
                    | MaxOf
                    | MinOf
            )
    }

    /// Whether the word may name a label in `by (...)` and the like.
    #[must_use]
    pub const fn is_label_name(self) -> bool {
        use Kind::{Atan2, Bool, GroupLeft, GroupRight, Ignoring, On};
        self.is_metric_name()
            || matches!(self, Bool | GroupLeft | GroupRight | Ignoring | On | Atan2)
    }
}

impl Token {
    /// The token's text.
    #[must_use]
    pub fn text<'a>(&self, query: &'a str) -> &'a str {
        query.get(self.start..self.end).unwrap_or("")
    }

    /// What messages call it: `identifier "up"`, `<op:+>`, `end of input`.
    #[must_use]
    pub fn describe(&self, query: &str) -> String {
        let text = self.text(query);
        match self.kind {
            Kind::Eof => "end of input".to_owned(),
            Kind::Identifier => format!("identifier {}", quoted(text)),
            Kind::MetricIdentifier => format!("metric identifier {}", quoted(text)),
            Kind::Number => format!("number {}", shortened(text)),
            Kind::Duration => format!("duration {}", shortened(text)),
            Kind::String => format!("string {}", shortened(text)),
            kind if kind.is_keyword() => format!("<{text}>"),
            kind if kind.is_operator() => format!("<op:{text}>"),
            kind if kind.is_aggregator() => format!("<aggr:{text}>"),
            _ => shortened(text),
        }
    }
}

/// In quotes; of more than ten bytes, the first ten characters.
pub(crate) fn shortened(text: &str) -> String {
    if text.len() <= 10 {
        return quoted(text);
    }
    let first: String = text.chars().take(10).collect();
    let mut out = quoted(&first);
    let _ = write!(out, "...");
    out
}

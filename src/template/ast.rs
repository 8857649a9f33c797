//! What was written? The tree of a template, every node with its position.
//!
//! Printing a node gives the text that errors show, as Go prints it.

use std::collections::BTreeMap;
use std::fmt;

use super::gofmt;

/// A parsed text with the templates that it defines.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tree {
    /// Name of the outermost template.
    pub(super) name: String,
    /// The whole text, for line and column of errors.
    pub(super) text: String,
    /// The templates by name, the outermost included.
    pub(super) templates: BTreeMap<String, Vec<Statement>>,
}

/// Something that stands between other statements.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Statement {
    Text(String),
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    Template(TemplateCall),
    Break,
    Continue,
}

/// `{{if}}`, `{{with}}` or `{{range}}` with its bodies.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Branch {
    pub(super) pipe: Pipe,
    pub(super) body: Vec<Statement>,
    pub(super) otherwise: Option<Vec<Statement>>,
}

/// `{{template "name" pipeline}}`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TemplateCall {
    pub(super) pos: usize,
    pub(super) name: String,
    pub(super) pipe: Option<Pipe>,
}

/// Commands, each getting the value of the one before as last argument.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pipe {
    pub(super) pos: usize,
    /// `=` instead of `:=`.
    pub(super) is_assign: bool,
    /// Variables that are set, with their `$`.
    pub(super) variables: Vec<String>,
    pub(super) commands: Vec<Command>,
}

/// A word and its arguments; never empty.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Command {
    pub(super) pos: usize,
    pub(super) args: Vec<Operand>,
}

/// One word of a command.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Operand {
    pub(super) pos: usize,
    pub(super) kind: OperandKind,
}

/// The kinds of words.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum OperandKind {
    Bool(bool),
    Dot,
    Nil,
    Number(Number),
    Text {
        quoted: String,
        text: String,
    },
    /// `.a.b`
    Field(Vec<String>),
    /// `$a.b`; the first has its `$`.
    Variable(Vec<String>),
    /// The name of a function.
    Function(String),
    /// `(pipeline).a` or `function.a`.
    Chain(Box<Operand>, Vec<String>),
    Pipe(Box<Pipe>),
}

/// A number literal under each type that can hold it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Number {
    pub(super) text: String,
    pub(super) int: Option<i64>,
    pub(super) uint: Option<u64>,
    pub(super) float: Option<f64>,
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, variable) in self.variables.iter().enumerate() {
            write!(f, "{}{variable}", if i > 0 { ", " } else { "" })?;
        }
        if !self.variables.is_empty() {
            f.write_str(if self.is_assign { " = " } else { " := " })?;
        }
        for (i, command) in self.commands.iter().enumerate() {
            write!(f, "{}{command}", if i > 0 { " | " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, arg) in self.args.iter().enumerate() {
            let space = if i > 0 { " " } else { "" };
            match &arg.kind {
                OperandKind::Pipe(pipe) => write!(f, "{space}({pipe})")?,
                _ => write!(f, "{space}{arg}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            OperandKind::Bool(value) => write!(f, "{value}"),
            OperandKind::Dot => f.write_str("."),
            OperandKind::Nil => f.write_str("nil"),
            OperandKind::Number(number) => f.write_str(&number.text),
            OperandKind::Text { quoted, .. } => f.write_str(quoted),
            OperandKind::Field(names) => names.iter().try_for_each(|name| write!(f, ".{name}")),
            OperandKind::Variable(names) => f.write_str(&names.join(".")),
            OperandKind::Function(name) => f.write_str(name),
            OperandKind::Chain(operand, names) => {
                match &operand.kind {
                    OperandKind::Pipe(pipe) => write!(f, "({pipe})")?,
                    _ => write!(f, "{operand}")?,
                }
                names.iter().try_for_each(|name| write!(f, ".{name}"))
            }
            OperandKind::Pipe(pipe) => write!(f, "{pipe}"),
        }
    }
}

impl fmt::Display for TemplateCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{{template {}", gofmt::quote(&self.name))?;
        if let Some(pipe) = &self.pipe {
            write!(f, " {pipe}")?;
        }
        f.write_str("}}")
    }
}

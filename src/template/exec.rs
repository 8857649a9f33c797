//! What comes out? Runs a tree over its data.
//!
//! Follows Go's text/template/exec step by step, so that the place an error
//! names is the one Go would name. Everything is counted: steps, output,
//! depth and queries end with an error, never with the process.

use std::fmt;

use super::ast::{
    Branch, Command, Number, Operand, OperandKind, Pipe, Statement, TemplateCall, Tree,
};
use super::function::{self, Param, Signature};
use super::gofmt;
use super::method;
use super::value::Value;
use super::{Environment, Limits};

/// How a list of statements was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

type Eval<T> = Result<T, String>;

/// One execution.
pub(super) struct Machine<'t, 'e, 'q> {
    tree: &'t Tree,
    /// Name of the template that runs.
    template: &'t str,
    /// The node that errors name: position and text.
    at: (usize, &'t dyn fmt::Display),
    variables: Vec<(&'t str, Value)>,
    out: String,
    depth: usize,
    steps_left: usize,
    queries_left: usize,
    pub(super) limits: Limits,
    pub(super) env: &'e mut Environment<'q>,
}

/// Runs the outermost template of a tree.
pub(super) fn execute(
    tree: &Tree,
    data: Value,
    limits: Limits,
    env: &mut Environment<'_>,
) -> Eval<String> {
    let Some(root) = tree.templates.get(&tree.name) else {
        return Ok(String::new());
    };
    let mut machine = Machine {
        tree,
        template: &tree.name,
        at: (0, &""),
        variables: vec![("$", data.clone())],
        out: String::new(),
        depth: 0,
        steps_left: limits.steps,
        queries_left: limits.queries,
        limits,
        env,
    };
    machine.walk(&data, root)?;
    Ok(machine.out)
}

impl<'t> Machine<'t, '_, '_> {
    /// An error at the current node.
    fn error<T>(&self, message: impl fmt::Display) -> Eval<T> {
        let (pos, node) = self.at;
        let before = &self.tree.text[..pos.min(self.tree.text.len())];
        let line = 1 + before.matches('\n').count();
        let column = pos - before.rfind('\n').map_or(0, |at| at + 1);
        let (parsed, running) = (&self.tree.name, gofmt::quote(self.template));
        Err(format!(
            "template: {parsed}:{line}:{column}: executing {running} at <{node}>: {message}"
        ))
    }

    /// Counts work: one step and what was produced.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), String> {
        match self.steps_left.checked_sub(1 + bytes / 64) {
            Some(left) => {
                self.steps_left = left;
                Ok(())
            }
            None => Err(format!("exceeded maximum of {} steps", self.limits.steps)),
        }
    }

    /// Counts a query.
    pub(super) fn spend_query(&mut self) -> Result<(), String> {
        match self.queries_left.checked_sub(1) {
            Some(left) => {
                self.queries_left = left;
                Ok(())
            }
            None => Err(format!("exceeded maximum of {} queries", self.limits.queries)),
        }
    }

    fn step(&mut self) -> Eval<()> {
        self.spend(0).or_else(|message| self.error(message))
    }

    fn enter(&mut self) -> Eval<()> {
        if self.depth >= self.limits.depth {
            return self.error(format!("exceeded maximum template depth ({})", self.limits.depth));
        }
        self.depth += 1;
        Ok(())
    }

    fn write(&mut self, text: &str) -> Eval<()> {
        if self.out.len() + text.len() > self.limits.output_bytes {
            return self
                .error(format!("exceeded maximum output of {} bytes", self.limits.output_bytes));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn walk(&mut self, dot: &Value, list: &'t [Statement]) -> Eval<Flow> {
        self.enter()?;
        for statement in list {
            self.step()?;
            let flow = match statement {
                Statement::Text(text) => {
                    self.write(text)?;
                    Flow::Next
                }
                Statement::Action(pipe) => {
                    let value = self.pipeline(dot, pipe)?;
                    if pipe.variables.is_empty() {
                        self.print(&value)?;
                    }
                    Flow::Next
                }
                Statement::If(branch) => self.branch(dot, branch, false)?,
                Statement::With(branch) => self.branch(dot, branch, true)?,
                Statement::Range(branch) => {
                    self.range(dot, branch)?;
                    Flow::Next
                }
                Statement::Template(call) => {
                    self.template_call(dot, call)?;
                    Flow::Next
                }
                Statement::Break => Flow::Break,
                Statement::Continue => Flow::Continue,
            };
            if flow != Flow::Next {
                self.depth -= 1;
                return Ok(flow);
            }
        }
        self.depth -= 1;
        Ok(Flow::Next)
    }

    fn print(&mut self, value: &Value) -> Eval<()> {
        if let Value::Text(text) = value {
            return self.write(text);
        }
        let Ok(text) =
            gofmt::sprint_pointees(std::slice::from_ref(value), self.limits.output_bytes)
        else {
            return self
                .error(format!("exceeded maximum output of {} bytes", self.limits.output_bytes));
        };
        self.write(&text)
    }

    fn branch(&mut self, dot: &Value, branch: &'t Branch, sets_dot: bool) -> Eval<Flow> {
        let mark = self.variables.len();
        let value = self.pipeline(dot, &branch.pipe)?;
        let flow = if value.is_true() {
            self.walk(if sets_dot { &value } else { dot }, &branch.body)?
        } else if let Some(otherwise) = &branch.otherwise {
            self.walk(dot, otherwise)?
        } else {
            Flow::Next
        };
        self.variables.truncate(mark);
        Ok(flow)
    }

    fn range(&mut self, dot: &Value, branch: &'t Branch) -> Eval<()> {
        let before = self.variables.len();
        let over = self.pipeline(dot, &branch.pipe)?;
        let ran = match &over {
            Value::Nil => false,
            Value::Int(count) => {
                if branch.pipe.variables.len() > 1 {
                    return self.error(format!(
                        "can't use {count} to iterate over more than one variable"
                    ));
                }
                let mut items = (0..*count).map(|i| (Value::Nil, Value::Int(i)));
                self.iterate(branch, &mut items)?
            }
            Value::Vector(samples) => {
                let samples = samples.borrow().clone();
                let mut items = samples
                    .into_iter()
                    .zip(0..)
                    .map(|(sample, i)| (Value::Int(i), Value::Sample(sample)));
                self.iterate(branch, &mut items)?
            }
            Value::Labels(labels) => {
                let mut items = labels.iter().map(|(n, v)| (Value::text(n), Value::text(v)));
                self.iterate(branch, &mut items)?
            }
            Value::Args(args) => {
                let mut items = args.iter().map(|(n, v)| (Value::text(n), v.clone()));
                self.iterate(branch, &mut items)?
            }
            other => {
                let shown = gofmt::sprint(std::slice::from_ref(other), self.limits.output_bytes);
                return self
                    .error(format!("range can't iterate over {}", shown.unwrap_or_default()));
            }
        };
        if let (false, Some(otherwise)) = (ran, &branch.otherwise) {
            self.walk(dot, otherwise)?;
        }
        self.variables.truncate(before);
        Ok(())
    }

    /// Runs the body for each pair of index and element; whether there was one.
    fn iterate(
        &mut self,
        branch: &'t Branch,
        items: &mut dyn Iterator<Item = (Value, Value)>,
    ) -> Eval<bool> {
        let mark = self.variables.len();
        let mut ran = false;
        for (index, element) in items {
            ran = true;
            self.step()?;
            match (branch.pipe.variables.as_slice(), branch.pipe.is_assign) {
                ([], _) => {}
                ([name], true) => self.assign(name, &element)?,
                ([name, element_name, ..], true) => {
                    self.assign(name, &index)?;
                    self.assign(element_name, &element)?;
                }
                (names, false) => {
                    self.variables[mark - 1].1 = element.clone();
                    if names.len() > 1 {
                        self.variables[mark - 2].1 = index;
                    }
                }
            }
            let flow = self.walk(&element, &branch.body)?;
            self.variables.truncate(mark);
            if flow == Flow::Break {
                break;
            }
        }
        Ok(ran)
    }

    fn template_call(&mut self, dot: &Value, call: &'t TemplateCall) -> Eval<()> {
        self.at = (call.pos, call);
        let Some((name, body)) = self.tree.templates.get_key_value(&call.name) else {
            return self.error(format!("template {} not defined", gofmt::quote(&call.name)));
        };
        let dot = match &call.pipe {
            Some(pipe) => self.pipeline(dot, pipe)?,
            None => Value::Nil,
        };
        self.run_template(name, body, &dot)
    }

    /// Runs another template with its own variables.
    fn run_template(&mut self, name: &'t str, body: &'t [Statement], dot: &Value) -> Eval<()> {
        let variables = std::mem::replace(&mut self.variables, vec![("$", dot.clone())]);
        let template = std::mem::replace(&mut self.template, name);
        self.walk(dot, body)?;
        self.variables = variables;
        self.template = template;
        Ok(())
    }

    /// The function `tmpl`: a template by name, as a value.
    pub(super) fn template_by_name(&mut self, name: &str, dot: &Value) -> Result<String, String> {
        let Some((name, body)) = self.tree.templates.get_key_value(name) else {
            let name = gofmt::quote(name);
            return Err(format!("html/template: {name} is undefined"));
        };
        let before = std::mem::take(&mut self.out);
        self.run_template(name, body, dot)?;
        Ok(std::mem::replace(&mut self.out, before))
    }

    fn assign(&mut self, name: &str, value: &Value) -> Eval<()> {
        match self.variables.iter_mut().rev().find(|(n, _)| *n == name) {
            Some((_, slot)) => {
                *slot = value.clone();
                Ok(())
            }
            None => self.error(format!("undefined variable: {name}")),
        }
    }

    fn pipeline(&mut self, dot: &Value, pipe: &'t Pipe) -> Eval<Value> {
        self.at = (pipe.pos, pipe);
        self.enter()?;
        let mut value = None;
        for command in &pipe.commands {
            self.step()?;
            value = Some(self.command(dot, command, value)?);
        }
        let value = value.unwrap_or(Value::Nil);
        for name in &pipe.variables {
            if pipe.is_assign {
                self.assign(name, &value)?;
            } else {
                self.variables.push((name, value.clone()));
            }
        }
        self.depth -= 1;
        Ok(value)
    }

    fn not_a_function(&self, args: &[Operand], last: Option<&Value>) -> Eval<()> {
        if args.len() > 1 || last.is_some() {
            return self.error(format!("can't give argument to non-function {}", args[0]));
        }
        Ok(())
    }

    fn command(&mut self, dot: &Value, command: &'t Command, last: Option<Value>) -> Eval<Value> {
        let first = &command.args[0];
        match &first.kind {
            OperandKind::Field(names) => {
                self.at = (first.pos, first);
                self.fields(dot, dot.clone(), names, &command.args, last)
            }
            OperandKind::Chain(inner, names) => {
                let receiver = self.chain_start(dot, first, inner)?;
                self.fields(dot, receiver, names, &command.args, last)
            }
            OperandKind::Function(name) => {
                self.at = (first.pos, first);
                let node = (command.pos, command as &'t dyn fmt::Display);
                self.call(dot, node, name, &command.args[1..], last)
            }
            OperandKind::Pipe(pipe) => {
                self.not_a_function(&command.args, last.as_ref())?;
                self.pipeline(dot, pipe)
            }
            OperandKind::Variable(names) => self.variable(dot, first, names, &command.args, last),
            OperandKind::Bool(_)
            | OperandKind::Dot
            | OperandKind::Nil
            | OperandKind::Number(_)
            | OperandKind::Text { .. } => {
                self.at = (first.pos, first);
                self.not_a_function(&command.args, last.as_ref())?;
                match &first.kind {
                    OperandKind::Nil => self.error("nil is not a command"),
                    _ => self.constant(dot, first),
                }
            }
        }
    }

    /// A literal, or the dot.
    fn constant(&mut self, dot: &Value, operand: &'t Operand) -> Eval<Value> {
        self.at = (operand.pos, operand);
        match &operand.kind {
            OperandKind::Bool(value) => Ok(Value::Bool(*value)),
            OperandKind::Text { text, .. } => Ok(Value::text(text)),
            OperandKind::Number(number) => self.ideal_constant(number),
            OperandKind::Nil => Ok(Value::Nil),
            _ => Ok(dot.clone()),
        }
    }

    /// A number where no type is asked for.
    fn ideal_constant(&self, number: &Number) -> Eval<Value> {
        let text = &number.text;
        let is_rune = text.starts_with('\'');
        let is_hex_int = text.len() > 2
            && (text.starts_with("0x") || text.starts_with("0X"))
            && !text.contains(['p', 'P']);
        if let (Some(float), false, false) = (number.float, is_rune, is_hex_int)
            && text.contains(['.', 'e', 'E', 'p', 'P'])
        {
            return Ok(Value::Float(float));
        }
        match number.int {
            Some(int) => Ok(Value::Int(int)),
            None => self.error(format!("{text} overflows int")),
        }
    }

    fn chain_start(&mut self, dot: &Value, chain: &'t Operand, inner: &'t Operand) -> Eval<Value> {
        self.at = (chain.pos, chain);
        if let OperandKind::Nil = inner.kind {
            return self.error(format!("indirection through explicit nil in {chain}"));
        }
        self.operand(dot, inner)
    }

    fn variable(
        &mut self,
        dot: &Value,
        operand: &'t Operand,
        names: &'t [String],
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Eval<Value> {
        self.at = (operand.pos, operand);
        let found = self.variables.iter().rev().find(|(n, _)| *n == names[0]);
        let Some(value) = found.map(|(_, value)| value.clone()) else {
            return self.error(format!("undefined variable: {}", names[0]));
        };
        if names.len() == 1 {
            if !args.is_empty() {
                self.not_a_function(args, last.as_ref())?;
            }
            return Ok(value);
        }
        self.fields(dot, value, &names[1..], args, last)
    }

    /// `.X.Y.Z`, the last with arguments if it is a method.
    fn fields(
        &mut self,
        dot: &Value,
        mut receiver: Value,
        names: &'t [String],
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Eval<Value> {
        let Some((name, before)) = names.split_last() else {
            return Ok(receiver);
        };
        // The type that errors name is that of the field, not of its content.
        let mut is_any = false;
        for name in before {
            let next = self.field(dot, (&receiver, is_any), name, &[], None)?;
            is_any = match receiver {
                Value::Args(_) => true,
                Value::Data(_) | Value::Sample(_) => name == "Value",
                _ => false,
            };
            receiver = next;
        }
        self.field(dot, (&receiver, is_any), name, args, last)
    }

    fn field(
        &mut self,
        dot: &Value,
        (receiver, is_any): (&Value, bool),
        name: &str,
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Eval<Value> {
        if let Value::Nil = receiver {
            if is_any {
                return self.error(format!("nil pointer evaluating interface {{}}.{name}"));
            }
            return Ok(Value::Nil);
        }
        if let Some(arity) = method::arity(receiver, name) {
            let args = args.get(1..).unwrap_or_default();
            let given = args.len() + usize::from(last.is_some());
            if given != arity {
                return self
                    .error(format!("wrong number of args for {name}: want {arity} got {given}"));
            }
            let mut values = Vec::with_capacity(given);
            for arg in args {
                values.push(self.argument(dot, Param::Text, arg)?);
            }
            if let Some(last) = last {
                values.push(self.check(last, Param::Text)?);
            }
            return Ok(method::call(receiver, name, &values));
        }
        let has_args = args.len() > 1 || last.is_some();
        if let Some(value) = method::field(receiver, name) {
            if has_args {
                return self
                    .error(format!("{name} has arguments but cannot be invoked as function"));
            }
            return Ok(value);
        }
        match receiver {
            Value::Labels(_) | Value::Args(_) if has_args => {
                self.error(format!("{name} is not a method but has arguments"))
            }
            Value::Labels(labels) => Ok(Value::text(labels.get(name).unwrap_or_default())),
            Value::Args(args) => Ok(args.get(name).cloned().unwrap_or(Value::Nil)),
            _ => {
                let type_name = receiver.type_name().filter(|_| !is_any);
                let type_name = type_name.unwrap_or("interface {}");
                self.error(format!("can't evaluate field {name} in type {type_name}"))
            }
        }
    }

    /// The value of an operand where anything is allowed.
    fn operand(&mut self, dot: &Value, operand: &'t Operand) -> Eval<Value> {
        self.step()?;
        self.at = (operand.pos, operand);
        match &operand.kind {
            OperandKind::Field(names) => self.fields(dot, dot.clone(), names, &[], None),
            OperandKind::Variable(names) => self.variable(dot, operand, names, &[], None),
            OperandKind::Pipe(pipe) => self.pipeline(dot, pipe),
            OperandKind::Function(name) => {
                let node = (operand.pos, operand as &'t dyn fmt::Display);
                self.call(dot, node, name, &[], None)
            }
            OperandKind::Chain(inner, names) => {
                let receiver = self.chain_start(dot, operand, inner)?;
                self.fields(dot, receiver, names, &[], None)
            }
            OperandKind::Bool(_)
            | OperandKind::Dot
            | OperandKind::Nil
            | OperandKind::Number(_)
            | OperandKind::Text { .. } => self.constant(dot, operand),
        }
    }

    /// The value of an argument, of the type that is asked for.
    fn argument(&mut self, dot: &Value, param: Param, operand: &'t Operand) -> Eval<Value> {
        self.at = (operand.pos, operand);
        match (&operand.kind, param) {
            (OperandKind::Nil, Param::Text) => self.error("cannot assign nil to string"),
            (OperandKind::Nil, _) => Ok(Value::Nil),
            (OperandKind::Bool(_) | OperandKind::Number(_), Param::Text) => {
                self.error(format!("expected string; found {operand}"))
            }
            (
                OperandKind::Bool(_) | OperandKind::Number(_) | OperandKind::Text { .. },
                Param::Vector | Param::Sample,
            ) => {
                self.error(format!("can't handle {operand} for arg of type {}", param.type_name()))
            }
            _ => {
                let value = self.operand(dot, operand)?;
                self.check(value, param)
            }
        }
    }

    /// Whether a value is of the type that is asked for.
    fn check(&self, value: Value, param: Param) -> Eval<Value> {
        match (&value, param) {
            (_, Param::Any)
            | (Value::Text(_), Param::Text)
            | (Value::Vector(_) | Value::Nil, Param::Vector)
            | (Value::Sample(_) | Value::Nil, Param::Sample) => Ok(value),
            (Value::Nil, Param::Text) => self.error("invalid value; expected string"),
            _ => self.error(format!(
                "wrong type for value; expected {}; got {}",
                param.type_name(),
                value.type_name().unwrap_or("nil")
            )),
        }
    }

    fn call(
        &mut self,
        dot: &Value,
        node: (usize, &'t dyn fmt::Display),
        name: &'t str,
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Eval<Value> {
        let Some(signature) = function::signature(name) else {
            return self.error(format!("{} is not a defined function", gofmt::quote(name)));
        };
        let given = args.len() + usize::from(last.is_some());
        let Signature { params, variadic } = signature;
        if variadic.is_some() && given < params.len() {
            return self.error(format!(
                "wrong number of args for {name}: want at least {} got {}",
                params.len(),
                args.len()
            ));
        }
        if variadic.is_none() && given != params.len() {
            return self.error(format!(
                "wrong number of args for {name}: want {} got {given}",
                params.len()
            ));
        }
        if matches!(name, "and" | "or") {
            return self.short_circuit(dot, name == "or", args, last);
        }
        let param = |i: usize| params.get(i).copied().or(variadic).unwrap_or(Param::Any);
        let mut values = Vec::with_capacity(given);
        for (i, arg) in args.iter().enumerate() {
            values.push(self.argument(dot, param(i), arg)?);
        }
        if let Some(last) = last {
            values.push(self.check(last, param(args.len()))?);
        }
        let called = args.first().map(ToString::to_string);
        let result = function::call(self, name, called.as_deref(), values);
        let produced = match &result {
            Ok(Value::Text(text) | Value::Html(text)) => text.len(),
            _ => 0,
        };
        // Go leaves the last argument as the current node unless there is an error.
        match result.map_err(|message| format!("error calling {name}: {message}")) {
            Ok(value) => match self.spend(produced) {
                Ok(()) => Ok(value),
                Err(message) => self.error(message),
            },
            Err(message) => {
                self.at = node;
                self.error(message)
            }
        }
    }

    /// `and` and `or` evaluate no more arguments than needed.
    fn short_circuit(
        &mut self,
        dot: &Value,
        wanted: bool,
        args: &'t [Operand],
        last: Option<Value>,
    ) -> Eval<Value> {
        let mut value = Value::Nil;
        for arg in args {
            value = self.argument(dot, Param::Any, arg)?;
            if value.is_true() == wanted {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }
}

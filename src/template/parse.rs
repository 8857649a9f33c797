//! How do the tokens hang together? Tokens to a tree.
//!
//! The grammar, the order of checks and the messages are those of Go's
//! text/template/parse; nesting is limited.

use std::collections::BTreeMap;

use super::ast::{
    Branch, Command, Number, Operand, OperandKind, Pipe, Statement, TemplateCall, Tree,
};
use super::function;
use super::gofmt;
use super::lex::{Kind, Token, tokens};

/// Deepest nesting of blocks and parentheses.
const MAX_DEPTH: usize = 100;

/// Longest text of a template, in bytes.
const MAX_TEXT_BYTES: usize = 1 << 20;

/// How a list of statements ended.
enum Ending {
    End,
    Else,
}

impl Ending {
    fn as_str(&self) -> &'static str {
        match self {
            Self::End => "{{end}}",
            Self::Else => "{{else}}",
        }
    }
}

/// What one action gave.
enum Parsed {
    Statement(Statement),
    Ending(Ending),
}

struct Parser<'a> {
    name: &'a str,
    tokens: Vec<Token>,
    next: usize,
    /// How many tokens were looked at.
    seen: usize,
    /// Line of the action that is being parsed; 0 is none.
    action_line: usize,
    variables: Vec<String>,
    range_depth: usize,
    depth: usize,
    console: bool,
    templates: BTreeMap<String, Vec<Statement>>,
}

type Parse<T> = Result<T, String>;

/// Parses a template; `console` allows the functions of console templates.
pub(super) fn parse(name: &str, text: &str, console: bool) -> Parse<Tree> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(format!("template: {name}: longer than {MAX_TEXT_BYTES} bytes"));
    }
    let mut parser = Parser {
        name,
        tokens: tokens(text),
        next: 0,
        seen: 0,
        action_line: 0,
        variables: vec!["$".to_owned()],
        range_depth: 0,
        depth: 0,
        console,
        templates: BTreeMap::new(),
    };
    let root = parser.root()?;
    parser.add(name.to_owned(), root)?;
    Ok(Tree { name: name.to_owned(), text: text.to_owned(), templates: parser.templates })
}

/// Whether there is nothing but white space.
fn is_empty(list: &[Statement]) -> bool {
    list.iter().all(|s| matches!(s, Statement::Text(text) if text.trim().is_empty()))
}

impl Parser<'_> {
    fn error<T>(&self, message: impl std::fmt::Display) -> Parse<T> {
        let line = self.tokens[self.seen.saturating_sub(1)].line;
        Err(format!("template: {}:{line}: {message}", self.name))
    }

    fn take(&mut self) -> Token {
        let last = self.tokens.len() - 1;
        let token = self.tokens[self.next.min(last)].clone();
        self.next += 1;
        self.seen = self.seen.max(self.next.min(last + 1));
        token
    }

    fn back(&mut self) {
        self.next -= 1;
    }

    fn peek(&mut self) -> Token {
        let token = self.take();
        self.back();
        token
    }

    fn take_non_space(&mut self) -> Token {
        loop {
            let token = self.take();
            if token.kind != Kind::Space {
                return token;
            }
        }
    }

    fn peek_non_space(&mut self) -> Token {
        let token = self.take_non_space();
        self.back();
        token
    }

    fn unexpected<T>(&self, token: &Token, context: &str) -> Parse<T> {
        if token.kind == Kind::Error {
            let mut extra = String::new();
            if self.action_line != 0 && self.action_line != token.line {
                extra = format!(" in action started at {}:{}", self.name, self.action_line);
                if token.text.ends_with(" action") {
                    extra = extra[" in action".len()..].to_owned();
                }
            }
            return self.error(format!("{token}{extra}"));
        }
        self.error(format!("unexpected {token} in {context}"))
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Parse<Token> {
        let token = self.take_non_space();
        if token.kind == kind { Ok(token) } else { self.unexpected(&token, context) }
    }

    /// Adds a template; an empty one never replaces another.
    fn add(&mut self, name: String, list: Vec<Statement>) -> Parse<()> {
        match self.templates.get(&name) {
            Some(before) if !is_empty(before) => {
                if is_empty(&list) {
                    return Ok(());
                }
                let name = gofmt::quote(&name);
                self.error(format!("template: multiple definition of template {name}"))
            }
            _ => {
                self.templates.insert(name, list);
                Ok(())
            }
        }
    }

    fn root(&mut self) -> Parse<Vec<Statement>> {
        let mut list = Vec::new();
        while self.peek().kind != Kind::Eof {
            if self.peek().kind == Kind::LeftDelim {
                let start = self.next;
                self.take();
                if self.take_non_space().kind == Kind::Define {
                    self.definition()?;
                    continue;
                }
                self.next = start;
            }
            match self.text_or_action()? {
                Parsed::Statement(statement) => list.push(statement),
                Parsed::Ending(ending) => {
                    return self.error(format!("unexpected {}", ending.as_str()));
                }
            }
        }
        Ok(list)
    }

    fn definition(&mut self) -> Parse<()> {
        const CONTEXT: &str = "define clause";
        let name = self.take_non_space();
        if !matches!(name.kind, Kind::String | Kind::RawString) {
            return self.unexpected(&name, CONTEXT);
        }
        let name = self.unquote(&name)?;
        self.expect(Kind::RightDelim, CONTEXT)?;
        let list = self.separate_body(CONTEXT)?;
        self.add(name, list)
    }

    /// The body of a definition: knows none of the variables around it.
    fn separate_body(&mut self, context: &str) -> Parse<Vec<Statement>> {
        let variables = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let range_depth = std::mem::take(&mut self.range_depth);
        let action_line = std::mem::take(&mut self.action_line);
        let (list, ending) = self.list()?;
        if let Ending::Else = ending {
            return self.error(format!("unexpected {} in {context}", ending.as_str()));
        }
        self.variables = variables;
        self.range_depth = range_depth;
        self.action_line = action_line;
        Ok(list)
    }

    fn unquote(&self, token: &Token) -> Parse<String> {
        gofmt::unquote(&token.text).map_or_else(|| self.error("invalid syntax"), Ok)
    }

    fn list(&mut self) -> Parse<(Vec<Statement>, Ending)> {
        if self.depth >= MAX_DEPTH {
            return self.error("blocks are nested too deeply");
        }
        self.depth += 1;
        let mut list = Vec::new();
        while self.peek_non_space().kind != Kind::Eof {
            match self.text_or_action()? {
                Parsed::Statement(statement) => list.push(statement),
                Parsed::Ending(ending) => {
                    self.depth -= 1;
                    return Ok((list, ending));
                }
            }
        }
        self.error("unexpected EOF")
    }

    fn text_or_action(&mut self) -> Parse<Parsed> {
        let token = self.take_non_space();
        match token.kind {
            Kind::Text => Ok(Parsed::Statement(Statement::Text(token.text))),
            Kind::LeftDelim => {
                self.action_line = token.line;
                let parsed = self.action()?;
                self.action_line = 0;
                Ok(parsed)
            }
            _ => self.unexpected(&token, "input"),
        }
    }

    fn action(&mut self) -> Parse<Parsed> {
        let token = self.take_non_space();
        let statement = match token.kind {
            Kind::Block => self.block()?,
            Kind::Break => self.leave("break", Statement::Break)?,
            Kind::Continue => self.leave("continue", Statement::Continue)?,
            Kind::Else => {
                let peeked = self.peek_non_space();
                if !matches!(peeked.kind, Kind::If | Kind::With) {
                    self.expect(Kind::RightDelim, "else")?;
                }
                return Ok(Parsed::Ending(Ending::Else));
            }
            Kind::End => {
                self.expect(Kind::RightDelim, "end")?;
                return Ok(Parsed::Ending(Ending::End));
            }
            Kind::If => Statement::If(self.branch("if")?),
            Kind::Range => Statement::Range(self.branch("range")?),
            Kind::With => Statement::With(self.branch("with")?),
            Kind::Template => self.template_call()?,
            _ => {
                self.back();
                self.peek();
                Statement::Action(self.pipeline("command", Kind::RightDelim)?)
            }
        };
        Ok(Parsed::Statement(statement))
    }

    fn leave(&mut self, word: &str, statement: Statement) -> Parse<Statement> {
        let token = self.take_non_space();
        if token.kind != Kind::RightDelim {
            return self.unexpected(&token, &format!("{{{{{word}}}}}"));
        }
        if self.range_depth == 0 {
            return self.error(format!("{{{{{word}}}}} outside {{{{range}}}}"));
        }
        Ok(statement)
    }

    fn branch(&mut self, context: &str) -> Parse<Branch> {
        let variables = self.variables.len();
        let pipe = self.pipeline(context, Kind::RightDelim)?;
        let is_range = context == "range";
        self.range_depth += usize::from(is_range);
        let (body, ending) = self.list()?;
        self.range_depth -= usize::from(is_range);
        let otherwise = match ending {
            Ending::End => None,
            Ending::Else => Some(self.otherwise(context)?),
        };
        self.variables.truncate(variables);
        Ok(Branch { pipe, body, otherwise })
    }

    /// What follows `{{else}}`; `else if` and `else with` share the end.
    fn otherwise(&mut self, context: &str) -> Parse<Vec<Statement>> {
        // `action` has skipped the space after `else`.
        let chained =
            matches!((context, self.peek().kind), ("if", Kind::If) | ("with", Kind::With));
        if chained {
            if self.depth >= MAX_DEPTH {
                return self.error("blocks are nested too deeply");
            }
            self.depth += 1;
            self.take();
            let branch = self.branch(context)?;
            self.depth -= 1;
            let statement =
                if context == "if" { Statement::If(branch) } else { Statement::With(branch) };
            return Ok(vec![statement]);
        }
        let (list, ending) = self.list()?;
        match ending {
            Ending::End => Ok(list),
            Ending::Else => self.error("expected end; found {{else}}"),
        }
    }

    fn template_name(&mut self, context: &str) -> Parse<(usize, String)> {
        let token = self.take_non_space();
        match token.kind {
            Kind::String | Kind::RawString => Ok((token.pos, self.unquote(&token)?)),
            _ => self.unexpected(&token, context),
        }
    }

    fn block(&mut self) -> Parse<Statement> {
        const CONTEXT: &str = "block clause";
        let (pos, name) = self.template_name(CONTEXT)?;
        let pipe = self.pipeline(CONTEXT, Kind::RightDelim)?;
        let list = self.separate_body(CONTEXT)?;
        self.add(name.clone(), list)?;
        Ok(Statement::Template(TemplateCall { pos, name, pipe: Some(pipe) }))
    }

    fn template_call(&mut self) -> Parse<Statement> {
        const CONTEXT: &str = "template clause";
        let (pos, name) = self.template_name(CONTEXT)?;
        let pipe = if self.take_non_space().kind == Kind::RightDelim {
            None
        } else {
            self.back();
            Some(self.pipeline(CONTEXT, Kind::RightDelim)?)
        };
        Ok(Statement::Template(TemplateCall { pos, name, pipe }))
    }

    fn pipeline(&mut self, context: &str, end: Kind) -> Parse<Pipe> {
        let mut pipe = Pipe {
            pos: self.peek_non_space().pos,
            is_assign: false,
            variables: Vec::new(),
            commands: Vec::new(),
        };
        self.declarations(&mut pipe, context)?;
        loop {
            let token = self.take_non_space();
            match token.kind {
                kind if kind == end => {
                    self.check_pipeline(&pipe, context)?;
                    return Ok(pipe);
                }
                Kind::Bool
                | Kind::CharConstant
                | Kind::Complex
                | Kind::Dot
                | Kind::Field
                | Kind::Identifier
                | Kind::Number
                | Kind::Nil
                | Kind::RawString
                | Kind::String
                | Kind::Variable
                | Kind::LeftParen => {
                    self.back();
                    let command = self.command()?;
                    pipe.commands.push(command);
                }
                _ => return self.unexpected(&token, context),
            }
        }
    }

    /// `$x :=`, `$x =` or, in a range, `$i, $x :=`.
    fn declarations(&mut self, pipe: &mut Pipe, context: &str) -> Parse<()> {
        loop {
            let variable = self.peek_non_space();
            if variable.kind != Kind::Variable {
                return Ok(());
            }
            self.take_non_space();
            let after = self.next;
            let next = self.peek_non_space();
            let is_comma = next.kind == Kind::Char && next.text == ",";
            if !matches!(next.kind, Kind::Assign | Kind::Declare) && !is_comma {
                self.next = after - 1;
                return Ok(());
            }
            self.take_non_space();
            pipe.variables.push(variable.text.clone());
            self.variables.push(variable.text);
            if !is_comma {
                pipe.is_assign = next.kind == Kind::Assign;
                return Ok(());
            }
            if context == "range" && pipe.variables.len() < 2 {
                match self.peek_non_space().kind {
                    Kind::Variable | Kind::RightDelim | Kind::RightParen => continue,
                    _ => return self.error("range can only initialize variables"),
                }
            }
            return self.error(format!("too many declarations in {context}"));
        }
    }

    fn check_pipeline(&self, pipe: &Pipe, context: &str) -> Parse<()> {
        if pipe.commands.is_empty() {
            return self.error(format!("missing value for {context}"));
        }
        for (i, command) in pipe.commands.iter().enumerate().skip(1) {
            if let OperandKind::Bool(_)
            | OperandKind::Dot
            | OperandKind::Nil
            | OperandKind::Number(_)
            | OperandKind::Text { .. } = command.args[0].kind
            {
                return self.error(format!("non executable command in pipeline stage {}", i + 1));
            }
        }
        Ok(())
    }

    fn command(&mut self) -> Parse<Command> {
        let mut command = Command { pos: self.peek_non_space().pos, args: Vec::new() };
        loop {
            self.peek_non_space();
            if let Some(operand) = self.operand()? {
                command.args.push(operand);
            }
            let token = self.take();
            match token.kind {
                Kind::Space => continue,
                Kind::RightDelim | Kind::RightParen => self.back(),
                Kind::Pipe => {}
                _ => return self.unexpected(&token, "operand"),
            }
            break;
        }
        if command.args.is_empty() {
            return self.error("empty command");
        }
        Ok(command)
    }

    /// A term with fields; `None` if the next token is no term.
    fn operand(&mut self) -> Parse<Option<Operand>> {
        let Some(mut operand) = self.term()? else {
            return Ok(None);
        };
        let first = self.peek();
        if first.kind != Kind::Field {
            return Ok(Some(operand));
        }
        let mut fields = Vec::new();
        while self.peek().kind == Kind::Field {
            fields.push(self.take().text[1..].to_owned());
        }
        match &mut operand.kind {
            OperandKind::Field(names) | OperandKind::Variable(names) => {
                names.extend(fields);
                operand.pos = first.pos;
            }
            OperandKind::Bool(_)
            | OperandKind::Text { .. }
            | OperandKind::Number(_)
            | OperandKind::Nil
            | OperandKind::Dot => {
                let shown = gofmt::quote(&operand.to_string());
                return self.error(format!("unexpected . after term {shown}"));
            }
            _ => {
                let kind = OperandKind::Chain(Box::new(operand), fields);
                operand = Operand { pos: first.pos, kind };
            }
        }
        Ok(Some(operand))
    }

    fn term(&mut self) -> Parse<Option<Operand>> {
        let token = self.take_non_space();
        let kind = match token.kind {
            Kind::Identifier => {
                if !function::exists(&token.text, self.console) {
                    let name = gofmt::quote(&token.text);
                    return self.error(format!("function {name} not defined"));
                }
                OperandKind::Function(token.text)
            }
            Kind::Dot => OperandKind::Dot,
            Kind::Nil => OperandKind::Nil,
            Kind::Variable => {
                if !self.variables.contains(&token.text) {
                    let name = gofmt::quote(&token.text);
                    return self.error(format!("undefined variable {name}"));
                }
                OperandKind::Variable(vec![token.text])
            }
            Kind::Field => OperandKind::Field(vec![token.text[1..].to_owned()]),
            Kind::Bool => OperandKind::Bool(token.text == "true"),
            Kind::CharConstant | Kind::Complex | Kind::Number => match number(&token) {
                Ok(number) => OperandKind::Number(number),
                Err(message) => return self.error(message),
            },
            Kind::LeftParen => {
                if self.depth >= MAX_DEPTH {
                    return self.error("max expression depth exceeded");
                }
                self.depth += 1;
                let pipe = self.pipeline("parenthesized pipeline", Kind::RightParen)?;
                self.depth -= 1;
                let pos = pipe.pos;
                return Ok(Some(Operand { pos, kind: OperandKind::Pipe(Box::new(pipe)) }));
            }
            Kind::String | Kind::RawString => {
                let text = self.unquote(&token)?;
                OperandKind::Text { quoted: token.text, text }
            }
            _ => {
                self.back();
                return Ok(None);
            }
        };
        Ok(Some(Operand { pos: token.pos, kind }))
    }
}

/// A literal under each type that can hold it, by Go's rules.
#[allow(clippy::cast_precision_loss, reason = "as Go converts")]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked after")]
fn number(token: &Token) -> Result<Number, String> {
    let text = &token.text;
    let mut out = Number { text: text.clone(), int: None, uint: None, float: None };
    if token.kind == Kind::CharConstant {
        let inner = gofmt::unquote(text).filter(|c| !c.is_empty()).ok_or("invalid syntax")?;
        let mut chars = inner.chars();
        let (Some(c), None) = (chars.next(), chars.next()) else {
            return Err(format!("malformed character constant: {text}"));
        };
        let code = u32::from(c);
        return Ok(Number {
            int: Some(i64::from(code)),
            uint: Some(u64::from(code)),
            float: Some(f64::from(code)),
            ..out
        });
    }
    if token.kind == Kind::Complex || text.ends_with('i') {
        return Err(format!("complex numbers are not supported: {}", gofmt::quote(text)));
    }
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text.as_str()),
    };
    if let Some(magnitude) = gofmt::parse_uint(digits) {
        if !text.starts_with(['+', '-']) {
            out.uint = Some(magnitude);
        }
        out.int = if negative {
            0_i64.checked_sub_unsigned(magnitude)
        } else {
            i64::try_from(magnitude).ok()
        };
        if out.int == Some(0) {
            out.uint = Some(0);
        }
    }
    if let Some(int) = out.int {
        out.float = Some(int as f64);
    } else if let Some(uint) = out.uint {
        out.float = Some(uint as f64);
    } else if let Some(float) = gofmt::parse_float(text) {
        if !text.contains(['.', 'e', 'E', 'p', 'P']) {
            return Err(format!("integer overflow: {}", gofmt::quote(text)));
        }
        out.float = Some(float);
        if float as i64 as f64 == float {
            out.int = Some(float as i64);
        }
        if float as u64 as f64 == float {
            out.uint = Some(float as u64);
        }
    }
    if out.float.is_none() {
        return Err(format!("illegal number syntax: {}", gofmt::quote(text)));
    }
    Ok(out)
}

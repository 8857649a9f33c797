//! Expressions: operands, what follows them, and operators between them.

use super::{Fail, MAX_DEPTH, Parsed, Parser, merge, span_of};
use crate::ast::{
    Aggregate, AggregateOp, AtModifier, Binary, BinaryOp, Call, Cardinality, DurationExpr, Expr,
    ExprKind, Extension, Grouping, MatrixSelector, NumberLiteral, Span, Subquery, UnaryOp,
    VectorMatching,
};
use crate::functions;
use crate::lex::{Kind, Token};
use crate::quote::quoted;

const RANGE: &str = "number, duration, step(), or range()";

/// An expression and the height of its tree.
struct Operand {
    expr: Expr,
    depth: usize,
}

/// How tight an operator binds, and its right side's level.
struct Binding {
    op: BinaryOp,
    level: u8,
    right_level: u8,
}

/// The level of unary operators: as tight as `*`, so that `-a^2` is `-(a^2)`.
const UNARY_OPERAND_LEVEL: u8 = 6;

const fn binding(kind: Kind) -> Option<Binding> {
    let (op, level) = match kind {
        Kind::Or => (BinaryOp::Or, 1),
        Kind::And => (BinaryOp::And, 2),
        Kind::Unless => (BinaryOp::Unless, 2),
        Kind::EqlC => (BinaryOp::Eq, 3),
        Kind::Neq => (BinaryOp::Ne, 3),
        Kind::Gte => (BinaryOp::Ge, 3),
        Kind::Gtr => (BinaryOp::Gt, 3),
        Kind::Lte => (BinaryOp::Le, 3),
        Kind::Lss => (BinaryOp::Lt, 3),
        Kind::TrimUpper => (BinaryOp::TrimUpper, 3),
        Kind::TrimLower => (BinaryOp::TrimLower, 3),
        Kind::Add => (BinaryOp::Add, 4),
        Kind::Sub => (BinaryOp::Sub, 4),
        Kind::Mul => (BinaryOp::Mul, 5),
        Kind::Div => (BinaryOp::Div, 5),
        Kind::Mod => (BinaryOp::Mod, 5),
        Kind::Atan2 => (BinaryOp::Atan2, 5),
        // The only one that groups to the right.
        Kind::Pow => return Some(Binding { op: BinaryOp::Pow, level: 6, right_level: 6 }),
        _ => return None,
    };
    Some(Binding { op, level, right_level: level + 1 })
}

impl Parser<'_> {
    /// A whole query.
    pub(super) fn query(&mut self) -> Parsed<Expr> {
        if self.peek_kind()? == Kind::Eof {
            return Err(self.told("no expression found in input", Span::default()));
        }
        Ok(self.expr(0)?.expr)
    }

    /// An expression of operators that bind at least as tight as `level`.
    fn expr(&mut self, level: u8) -> Parsed<Operand> {
        let mut left = self.operand()?;
        loop {
            let Some(binding) = binding(self.peek_kind()?).filter(|b| b.level >= level) else {
                return Ok(left);
            };
            self.next()?;
            let (return_bool, matching) = self.modifiers()?;
            let right = self.nested(|p| p.expr(binding.right_level))?;
            let span = merge(left.expr.span, right.expr.span);
            let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
            if fills && !self.options.fill_modifiers {
                return Err(
                    self.told("binop fill modifiers are experimental and not enabled", span)
                );
            }
            let depth = left.depth.max(right.depth);
            let kind = ExprKind::Binary(Binary {
                op: binding.op,
                lhs: Box::new(left.expr),
                rhs: Box::new(right.expr),
                return_bool,
                matching: Some(matching),
            });
            left = self.above(depth, kind, span)?;
        }
    }

    /// A node above others, of which the highest is `depth` high.
    fn above(&self, depth: usize, kind: ExprKind, span: Span) -> Parsed<Operand> {
        if depth >= MAX_DEPTH {
            let message = format!("syntax tree is more than {MAX_DEPTH} levels high");
            return Err(self.told(message, span));
        }
        Ok(Operand { expr: Expr { kind, span }, depth: depth + 1 })
    }

    /// `bool`, `on`, `ignoring`, `group_left`, `group_right`, `fill`.
    fn modifiers(&mut self) -> Parsed<(bool, VectorMatching)> {
        let mut matching = VectorMatching {
            cardinality: Cardinality::OneToOne,
            on: false,
            labels: Vec::new(),
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        let return_bool = self.accept(Kind::Bool)?.is_some();
        let kind = self.peek_kind()?;
        if matches!(kind, Kind::On | Kind::Ignoring) {
            self.next()?;
            matching.on = kind == Kind::On;
            matching.labels = self.grouping_labels()?;
            let cardinality = match self.peek_kind()? {
                Kind::GroupLeft => Some(Cardinality::ManyToOne),
                Kind::GroupRight => Some(Cardinality::OneToMany),
                _ => None,
            };
            if let Some(cardinality) = cardinality {
                self.next()?;
                matching.cardinality = cardinality;
                if self.peek_kind()? == Kind::LeftParen {
                    matching.include = self.grouping_labels()?;
                }
            }
        }
        match self.peek_kind()? {
            Kind::Fill => {
                self.next()?;
                matching.fill_left = Some(self.fill_value()?);
                matching.fill_right = matching.fill_left;
            }
            Kind::FillLeft => {
                self.next()?;
                matching.fill_left = Some(self.fill_value()?);
                if self.accept(Kind::FillRight)?.is_some() {
                    matching.fill_right = Some(self.fill_value()?);
                }
            }
            Kind::FillRight => {
                self.next()?;
                matching.fill_right = Some(self.fill_value()?);
                if self.accept(Kind::FillLeft)?.is_some() {
                    matching.fill_left = Some(self.fill_value()?);
                }
            }
            _ => {}
        }
        Ok((return_bool, matching))
    }

    fn fill_value(&mut self) -> Parsed<f64> {
        self.expect(Kind::LeftParen)?;
        let value = self.signed_number()?;
        self.expect(Kind::RightParen)?;
        Ok(value)
    }

    /// A number or duration, perhaps with a sign.
    fn signed_number(&mut self) -> Parsed<f64> {
        let negative = match self.peek_kind()? {
            kind @ (Kind::Add | Kind::Sub) => {
                self.next()?;
                kind == Kind::Sub
            }
            _ => false,
        };
        let (literal, _) = self.number_or_duration_literal()?;
        Ok(if negative { -literal.value } else { literal.value })
    }

    /// `(a, b)` behind `by`, `on` and the like.
    fn grouping_labels(&mut self) -> Parsed<Vec<String>> {
        self.or("grouping opts", "\"(\"", |p| p.expect(Kind::LeftParen))?;
        let mut labels = Vec::new();
        if self.accept(Kind::RightParen)?.is_some() {
            return Ok(labels);
        }
        loop {
            labels.push(self.or("grouping opts", "label", Self::grouping_label)?);
            let closed = self.or("grouping opts", "\",\" or \")\"", |p| {
                if p.accept(Kind::Comma)?.is_some() {
                    return Ok(false);
                }
                p.expect(Kind::RightParen).map(|_| true)
            })?;
            if closed || self.accept(Kind::RightParen)?.is_some() {
                return Ok(labels);
            }
        }
    }

    fn grouping_label(&mut self) -> Parsed<String> {
        let token = self.peek()?;
        let label = match token.kind {
            Kind::String => {
                self.next()?;
                self.string_value(token)?
            }
            kind if kind.is_label_name() => {
                self.next()?;
                token.text(self.text).to_owned()
            }
            _ => return Err(Fail::Unexpected),
        };
        if label.is_empty() {
            let message = format!("invalid label name for grouping: {}", quoted(&label));
            return Err(self.told(message, span_of(token)));
        }
        Ok(label)
    }

    /// An operand with its signs before and modifiers behind.
    fn operand(&mut self) -> Parsed<Operand> {
        let token = self.peek()?;
        let op = match token.kind {
            Kind::Add => UnaryOp::Plus,
            Kind::Sub => UnaryOp::Minus,
            _ => {
                let primary = self.primary()?;
                return self.postfix(primary);
            }
        };
        self.next()?;
        let operand = self.nested(|p| p.expr(UNARY_OPERAND_LEVEL))?;
        let span = Span { start: token.start, end: operand.expr.span.end };
        if let ExprKind::Number(literal) = operand.expr.kind {
            let value = if op == UnaryOp::Minus { -literal.value } else { literal.value };
            let kind = ExprKind::Number(NumberLiteral { value, ..literal });
            return Ok(Operand { expr: Expr { kind, span }, depth: operand.depth });
        }
        self.above(operand.depth, ExprKind::Unary(op, Box::new(operand.expr)), span)
    }

    fn primary(&mut self) -> Parsed<Operand> {
        let token = self.peek()?;
        match token.kind {
            Kind::Number | Kind::Duration => {
                let (literal, span) = self.number_or_duration_literal()?;
                self.above(0, ExprKind::Number(literal), span)
            }
            Kind::String => {
                self.next()?;
                let text = self.string_value(token)?;
                self.above(0, ExprKind::String(text), span_of(token))
            }
            Kind::LeftParen => {
                self.next()?;
                let inner = self.nested(|p| p.expr(0))?;
                let close = self.expect(Kind::RightParen)?;
                let span = merge(span_of(token), span_of(close));
                self.above(inner.depth, ExprKind::Paren(Box::new(inner.expr)), span)
            }
            Kind::LeftBrace => {
                let (selector, span) = self.vector_selector()?;
                self.above(0, ExprKind::Vector(selector), span)
            }
            kind if kind.is_metric_name() => {
                self.next()?;
                let next = self.peek_kind()?;
                match (aggregate_op(kind), next) {
                    (Some(op), Kind::LeftParen | Kind::By | Kind::Without) => {
                        self.aggregate(op, token)
                    }
                    (None, Kind::LeftParen) if names_function(kind) => self.call(token),
                    _ => {
                        let (selector, span) = self.named_selector(token)?;
                        self.above(0, ExprKind::Vector(selector), span)
                    }
                }
            }
            _ => Err(Fail::Unexpected),
        }
    }

    /// `(a, b)` behind a function or aggregation; and the highest argument.
    fn arguments(&mut self) -> Parsed<(Vec<Expr>, usize)> {
        self.expect(Kind::LeftParen)?;
        let mut args = Vec::new();
        let mut depth = 0;
        if self.accept(Kind::RightParen)?.is_some() {
            return Ok((args, depth));
        }
        loop {
            let arg = self.nested(|p| p.expr(0))?;
            depth = depth.max(arg.depth);
            args.push(arg.expr);
            let Some(comma) = self.accept(Kind::Comma)? else {
                self.expect(Kind::RightParen)?;
                return Ok((args, depth));
            };
            if !starts_expr(self.peek_kind()?) {
                let message = "trailing commas not allowed in function call args";
                return Err(self.told(message, span_of(comma)));
            }
        }
    }

    fn call(&mut self, name: Token) -> Parsed<Operand> {
        let (args, depth) = self.arguments()?;
        let text = name.text(self.text);
        let Some(function) = functions::find(text) else {
            let message = format!("unknown function with name {}", quoted(text));
            return Err(self.told(message, span_of(name)));
        };
        if function.experimental && !self.options.experimental_functions {
            let message = format!("function {} is not enabled", quoted(text));
            return Err(self.told(message, span_of(name)));
        }
        let span = Span { start: name.start, end: self.last_closing };
        self.above(depth, ExprKind::Call(Call { function: function.name, args }), span)
    }

    fn aggregate(&mut self, op: AggregateOp, name: Token) -> Parsed<Operand> {
        let (grouping, args, depth, end) = self.or("aggregation", "", |p| {
            let before = p.grouping()?;
            let (args, depth) = p.arguments()?;
            let end = p.last_closing;
            match before {
                Some(grouping) => Ok((grouping, args, depth, end)),
                None => match p.grouping()? {
                    Some(grouping) => Ok((grouping, args, depth, p.last_closing)),
                    None => Ok((Grouping::default(), args, depth, end)),
                },
            }
        })?;
        let span = Span { start: name.start, end };
        if args.is_empty() {
            return Err(self.told("no arguments for aggregate expression provided", span));
        }
        let takes_param = op.takes_param();
        let experimental = matches!(op, AggregateOp::Limitk | AggregateOp::LimitRatio);
        if experimental && !self.options.experimental_functions {
            let message = format!(
                "{op}() is experimental and must be enabled with \
                 --enable-feature=promql-experimental-functions"
            );
            return Err(self.told(message, span));
        }
        let (desired, got) = (1 + usize::from(takes_param), args.len());
        let mut args = args.into_iter();
        let param = if takes_param { args.next().map(Box::new) } else { None };
        let (Some(expr), None) = (args.next(), args.next()) else {
            let message = format!(
                "wrong number of arguments for aggregate expression provided, \
                 expected {desired}, got {got}"
            );
            return Err(self.told(message, span));
        };
        let aggregate = Aggregate { op, expr: Box::new(expr), param, grouping };
        self.above(depth, ExprKind::Aggregate(aggregate), span)
    }

    /// `by (...)` or `without (...)`, if it is there.
    fn grouping(&mut self) -> Parsed<Option<Grouping>> {
        let without = match self.peek_kind()? {
            Kind::By => false,
            Kind::Without => true,
            _ => return Ok(None),
        };
        self.next()?;
        let labels = self.grouping_labels()?;
        Ok(Some(Grouping { without, labels }))
    }

    /// Ranges, `offset`, `@`, `anchored`, `smoothed`, in any order.
    fn postfix(&mut self, mut operand: Operand) -> Parsed<Operand> {
        loop {
            match self.peek_kind()? {
                Kind::LeftBracket => operand = self.brackets(operand)?,
                Kind::Offset => {
                    self.next()?;
                    let offset = self.or("offset", RANGE, Self::offset_duration)?;
                    self.set_offset(&mut operand.expr, offset)?;
                }
                Kind::At => {
                    self.next()?;
                    let at = self.or("@", "timestamp", Self::at_time)?;
                    self.set_at(&mut operand.expr, at)?;
                }
                Kind::Anchored => {
                    self.next()?;
                    self.set_extension(&mut operand.expr, Extension::Anchored)?;
                }
                Kind::Smoothed => {
                    self.next()?;
                    self.set_extension(&mut operand.expr, Extension::Smoothed)?;
                }
                _ => return Ok(operand),
            }
        }
    }

    fn brackets(&mut self, operand: Operand) -> Parsed<Operand> {
        let open = self.next()?;
        let range = self.or("subquery or range selector", RANGE, Self::positive_duration)?;
        let next = self.peek()?;
        match next.kind {
            Kind::RightBracket => {
                self.next()?;
                self.matrix(operand, range, merge(span_of(open), span_of(next)))
            }
            Kind::Colon => {
                self.next()?;
                self.subquery(operand, range)
            }
            _ => Err(self.unexpected("subquery or range", "\":\" or \"]\"")),
        }
    }

    fn matrix(&self, operand: Operand, range: DurationExpr, brackets: Span) -> Parsed<Operand> {
        let ExprKind::Vector(selector) = operand.expr.kind else {
            return Err(self.told("ranges only allowed for vector selectors", brackets));
        };
        if selector.offset.is_some() {
            return Err(self.told("no offset modifiers allowed before range", brackets));
        }
        if selector.at.is_some() {
            return Err(self.told("no @ modifiers allowed before range", brackets));
        }
        let selector_span = operand.expr.span;
        let span = Span { start: selector_span.start, end: self.last_closing };
        let kind = ExprKind::Matrix(MatrixSelector { selector, selector_span, range });
        self.above(operand.depth, kind, span)
    }

    /// Behind the colon of a subquery.
    fn subquery(&mut self, operand: Operand, range: DurationExpr) -> Parsed<Operand> {
        let (step, close) = if let Some(close) = self.accept(Kind::RightBracket)? {
            (None, close)
        } else {
            let expected =
                format!("{RANGE}, or \"]\"").replace("step(), or range()", "step(), range()");
            let step = self.or("subquery selector", &expected, Self::positive_duration)?;
            let close = self.or("subquery selector", "\"]\"", |p| p.expect(Kind::RightBracket))?;
            (Some(step), close)
        };
        let span = Span { start: operand.expr.span.start, end: close.end };
        let expr = Box::new(operand.expr);
        let kind = ExprKind::Subquery(Subquery { expr, range, step, offset: None, at: None });
        self.above(operand.depth, kind, span)
    }

    fn at_time(&mut self) -> Parsed<At> {
        let kind = self.peek_kind()?;
        let at = match kind {
            Kind::Start => AtModifier::Start,
            Kind::End => AtModifier::End,
            _ => return self.signed_number().map(At::Seconds),
        };
        self.next()?;
        self.expect(Kind::LeftParen)?;
        self.expect(Kind::RightParen)?;
        Ok(At::Edge(at))
    }

    fn set_at(&self, expr: &mut Expr, at: At) -> Parsed<()> {
        let span = expr.span;
        let at = match at {
            At::Edge(at) => at,
            #[expect(clippy::cast_precision_loss, reason = "the bound is a power of two")]
            At::Seconds(s) if !s.is_finite() || s.abs() >= i64::MAX as f64 => {
                let seconds = fixed_float(s);
                let message = format!("timestamp out of bounds for @ modifier: {seconds}");
                return Err(self.told(message, span));
            }
            #[expect(clippy::cast_possible_truncation, reason = "saturates")]
            At::Seconds(s) => AtModifier::At((s * 1000.0).round() as i64),
        };
        let known = match &mut expr.kind {
            ExprKind::Vector(selector) => &mut selector.at,
            ExprKind::Matrix(matrix) => &mut matrix.selector.at,
            ExprKind::Subquery(subquery) => &mut subquery.at,
            _ => {
                let message = "@ modifier must be preceded by an instant vector selector or range \
                               vector selector or a subquery";
                return Err(self.told(message, span));
            }
        };
        if known.is_some() {
            return Err(self.told("@ <timestamp> may not be set multiple times", span));
        }
        *known = Some(at);
        expr.span.end = self.last_closing;
        Ok(())
    }

    fn set_offset(&self, expr: &mut Expr, offset: DurationExpr) -> Parsed<()> {
        let span = expr.span;
        let known = match &mut expr.kind {
            ExprKind::Vector(selector) => &mut selector.offset,
            ExprKind::Matrix(matrix) => &mut matrix.selector.offset,
            ExprKind::Subquery(subquery) => &mut subquery.offset,
            _ => {
                let message = "offset modifier must be preceded by an instant vector selector or \
                               range vector selector or a subquery";
                return Err(self.told(message, span));
            }
        };
        if known.is_some() {
            return Err(self.told("offset may not be set multiple times", span));
        }
        // An offset of zero is none.
        *known = Some(offset).filter(|offset| *offset != DurationExpr::Literal(0));
        expr.span.end = self.last_closing;
        Ok(())
    }

    fn set_extension(&self, expr: &mut Expr, extension: Extension) -> Parsed<()> {
        let word = if extension == Extension::Anchored { "anchored" } else { "smoothed" };
        let told = |what: String| Err(self.told(what, expr.span));
        if !self.options.extended_range_selectors {
            return told(format!("{word} modifier is experimental and not enabled"));
        }
        let known = match &mut expr.kind {
            ExprKind::Vector(selector) => &mut selector.extension,
            ExprKind::Matrix(matrix) => &mut matrix.selector.extension,
            ExprKind::Subquery(_) => {
                return told(format!("{word} modifier is not supported for subqueries"));
            }
            _ => return told(format!("{word} modifier not implemented")),
        };
        if *known != Extension::None && *known != extension {
            return told("anchored and smoothed modifiers cannot be used together".to_owned());
        }
        *known = extension;
        Ok(())
    }
}

/// What stands behind `@`.
enum At {
    Seconds(f64),
    Edge(AtModifier),
}

/// With six decimals (`%f`).
fn fixed_float(value: f64) -> String {
    if value.is_finite() { format!("{value:.6}") } else { crate::quote::plain_float(value) }
}

const fn names_function(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Identifier
            | Kind::Start
            | Kind::End
            | Kind::Step
            | Kind::Range
            | Kind::MaxOf
            | Kind::MinOf
    )
}

fn starts_expr(kind: Kind) -> bool {
    kind.is_metric_name()
        || matches!(
            kind,
            Kind::Number
                | Kind::Duration
                | Kind::String
                | Kind::LeftParen
                | Kind::LeftBrace
                | Kind::Add
                | Kind::Sub
        )
}

const fn aggregate_op(kind: Kind) -> Option<AggregateOp> {
    Some(match kind {
        Kind::Sum => AggregateOp::Sum,
        Kind::Avg => AggregateOp::Avg,
        Kind::Count => AggregateOp::Count,
        Kind::Min => AggregateOp::Min,
        Kind::Max => AggregateOp::Max,
        Kind::Group => AggregateOp::Group,
        Kind::Stddev => AggregateOp::Stddev,
        Kind::Stdvar => AggregateOp::Stdvar,
        Kind::Topk => AggregateOp::Topk,
        Kind::Bottomk => AggregateOp::Bottomk,
        Kind::CountValues => AggregateOp::CountValues,
        Kind::Quantile => AggregateOp::Quantile,
        Kind::Limitk => AggregateOp::Limitk,
        Kind::LimitRatio => AggregateOp::LimitRatio,
        _ => return None,
    })
}

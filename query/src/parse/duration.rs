//! Ranges, steps and offsets: durations, and arithmetic on them.

use super::{Parsed, Parser, merge, span_of};
use crate::ast::{BinaryOp, DurationExpr, DurationNode, NumberLiteral, Span, UnaryOp};
use crate::duration;
use crate::lex::{Kind, Token};

/// Seconds in the longest duration of 64-bit nanoseconds.
const MAX_DURATION_S: f64 = 9_223_372_036.854_776;

/// A duration expression and where it stands.
type Spanned = (DurationNode, Span);

impl Parser<'_> {
    /// Between brackets: a range or step, above zero as far as can be said.
    pub(super) fn positive_duration(&mut self) -> Parsed<DurationExpr> {
        let (node, span) = self.duration_expr(0)?;
        if matches!(&node, DurationNode::Number(literal, _) if literal.value <= 0.0) {
            return Err(self.told("duration must be greater than 0", span));
        }
        Ok(finished(node, span))
    }

    /// Behind `offset`: arithmetic needs parentheses here, so that
    /// `a offset 5m + b` adds `b` to the selector.
    pub(super) fn offset_duration(&mut self) -> Parsed<DurationExpr> {
        let first = self.peek()?;
        let sign = match first.kind {
            Kind::Add => Some((UnaryOp::Plus, self.next()?)),
            Kind::Sub => Some((UnaryOp::Minus, self.next()?)),
            _ => None,
        };
        let (node, span) = match (self.peek_kind()?, sign) {
            (Kind::Number | Kind::Duration, _) => {
                let (mut literal, span) = self.number_or_duration_literal()?;
                if matches!(sign, Some((UnaryOp::Minus, _))) {
                    literal.value = -literal.value;
                }
                let span = Span { start: first.start, end: span.end };
                self.check_range(&literal, span)?;
                return Ok(literal_duration(literal));
            }
            (Kind::Step | Kind::Range | Kind::MaxOf | Kind::MinOf, _) => self.duration_primary()?,
            (Kind::LeftParen, Some(_)) => self.duration_paren()?,
            // Behind two signs and in parentheses, operators count.
            (_, Some((op, token))) => {
                let operand = self.duration_unary(op, token)?;
                let (node, span) = self.duration_rest(operand, 0)?;
                return Ok(finished(node, span));
            }
            (_, None) => self.duration_expr(0)?,
        };
        match sign {
            Some((op, token)) => {
                let span = Span { start: token.start, end: span.end };
                Ok(finished(signed(op, node), span))
            }
            None => Ok(finished(node, span)),
        }
    }

    /// An expression of operators that bind at least as tight as `level`.
    fn duration_expr(&mut self, level: u8) -> Parsed<Spanned> {
        let first = self.duration_primary()?;
        self.duration_rest(first, level)
    }

    fn duration_rest(&mut self, mut left: Spanned, level: u8) -> Parsed<Spanned> {
        let mut links = 0;
        loop {
            let (op, binds, right_level) = match self.peek_kind()? {
                Kind::Add => (BinaryOp::Add, 4, 5),
                Kind::Sub => (BinaryOp::Sub, 4, 5),
                Kind::Mul => (BinaryOp::Mul, 5, 6),
                Kind::Div => (BinaryOp::Div, 5, 6),
                Kind::Mod => (BinaryOp::Mod, 5, 6),
                Kind::Pow => (BinaryOp::Pow, 6, 6),
                _ => return Ok(left),
            };
            if binds < level {
                return Ok(left);
            }
            let operator = self.next()?;
            let right = self.nested(|p| p.duration_expr(right_level))?;
            self.experimental_duration(left.1)?;
            let zero = matches!(&right.0, DurationNode::Number(n, _) if n.value == 0.0);
            if zero && op == BinaryOp::Div {
                return Err(self.told("division by zero", span_of(operator)));
            }
            if zero && op == BinaryOp::Mod {
                return Err(self.told("modulo by zero", span_of(operator)));
            }
            links += 1;
            if links > super::MAX_NESTING {
                return Err(self.told("duration expression is too long", span_of(operator)));
            }
            let span = merge(left.1, right.1);
            let node = DurationNode::Binary(op, Box::new(left.0), Box::new(right.0), span);
            left = (node, span);
        }
    }

    fn duration_primary(&mut self) -> Parsed<Spanned> {
        let token = self.peek()?;
        match token.kind {
            Kind::Number | Kind::Duration => {
                let (literal, span) = self.number_or_duration_literal()?;
                self.check_range(&literal, span)?;
                Ok((DurationNode::Number(literal, span), span))
            }
            Kind::Add | Kind::Sub => {
                self.next()?;
                let op = if token.kind == Kind::Sub { UnaryOp::Minus } else { UnaryOp::Plus };
                self.duration_unary(op, token)
            }
            Kind::Step | Kind::Range => {
                self.next()?;
                self.expect(Kind::LeftParen)?;
                let close = self.expect(Kind::RightParen)?;
                let span = merge(span_of(token), span_of(close));
                self.experimental_duration(span)?;
                let node =
                    if token.kind == Kind::Step { DurationNode::Step } else { DurationNode::Range };
                Ok((node, span))
            }
            Kind::MaxOf | Kind::MinOf => {
                self.next()?;
                self.expect(Kind::LeftParen)?;
                let (first, _) = self.nested(|p| p.duration_expr(0))?;
                self.expect(Kind::Comma)?;
                let (second, _) = self.nested(|p| p.duration_expr(0))?;
                let close = self.expect(Kind::RightParen)?;
                let span = merge(span_of(token), span_of(close));
                self.experimental_duration(span)?;
                let (first, second) = (Box::new(first), Box::new(second));
                let node = if token.kind == Kind::MaxOf {
                    DurationNode::MaxOf(first, second)
                } else {
                    DurationNode::MinOf(first, second)
                };
                Ok((node, span))
            }
            Kind::LeftParen => self.duration_paren(),
            _ => Err(super::Fail::Unexpected),
        }
    }

    fn duration_paren(&mut self) -> Parsed<Spanned> {
        let open = self.expect(Kind::LeftParen)?;
        let (inner, span) = self.nested(|p| p.duration_expr(0))?;
        let close = self.expect(Kind::RightParen)?;
        self.experimental_duration(span)?;
        // Several parentheses count as one; only those around a number have a
        // place of their own.
        Ok(match inner {
            DurationNode::Paren(_) => (inner, span),
            DurationNode::Number(..) => {
                let span = merge(span_of(open), span_of(close));
                (DurationNode::Paren(Box::new(inner)), span)
            }
            _ => (DurationNode::Paren(Box::new(inner)), span),
        })
    }

    /// The operand of a sign that was read; it binds like `*`.
    fn duration_unary(&mut self, op: UnaryOp, sign: Token) -> Parsed<Spanned> {
        let (node, span) = self.nested(|p| p.duration_expr(6))?;
        let span = Span { start: sign.start, end: span.end };
        match node {
            DurationNode::Number(mut literal, _) => {
                if op == UnaryOp::Minus {
                    literal.value = -literal.value;
                }
                self.check_range(&literal, span_of(sign))?;
                Ok((DurationNode::Number(literal, span), span))
            }
            node => Ok((signed(op, node), span)),
        }
    }

    pub(super) fn number_or_duration_literal(&mut self) -> Parsed<(NumberLiteral, Span)> {
        let token = self.next()?;
        let span = span_of(token);
        let text = token.text(self.text);
        let (value, is_duration) = match token.kind {
            Kind::Number => (super::number::number(text), false),
            Kind::Duration => (duration::parse(text).map(seconds), true),
            _ => {
                self.lookahead = Some(token);
                return Err(super::Fail::Unexpected);
            }
        };
        let value = value.map_err(|message| self.told(message, span))?;
        Ok((NumberLiteral { value, duration: is_duration }, span))
    }

    fn check_range(&self, literal: &NumberLiteral, span: Span) -> Parsed<()> {
        if literal.value > MAX_DURATION_S || literal.value < -MAX_DURATION_S {
            return Err(self.told("duration out of range", span));
        }
        Ok(())
    }

    fn experimental_duration(&self, span: Span) -> Parsed<()> {
        if self.options.duration_expressions {
            return Ok(());
        }
        Err(self.told("experimental duration expression is not enabled", span))
    }
}

fn finished(node: DurationNode, span: Span) -> DurationExpr {
    match node {
        DurationNode::Number(literal, _) => literal_duration(literal),
        node => DurationExpr::Expr(node, span),
    }
}

fn signed(op: UnaryOp, node: DurationNode) -> DurationNode {
    match op {
        UnaryOp::Plus => node,
        UnaryOp::Minus => DurationNode::Unary(op, Box::new(node)),
    }
}

/// Seconds to milliseconds, by way of whole nanoseconds, as Go does.
fn literal_duration(literal: NumberLiteral) -> DurationExpr {
    #[expect(clippy::cast_possible_truncation, reason = "saturates; the range was checked")]
    let nanoseconds = (literal.value * 1e9).round() as i64;
    DurationExpr::Literal(nanoseconds / 1_000_000)
}

/// Milliseconds as seconds: whole ones and the rest apart, as Go does.
#[expect(clippy::cast_precision_loss, reason = "seconds are floats in PromQL")]
pub(super) fn seconds(duration_ms: i64) -> f64 {
    (duration_ms / 1000) as f64 + ((duration_ms % 1000) * 1_000_000) as f64 / 1e9
}

//! Functions and operators that look at one value of one series at a time.

use std::collections::HashSet;
use std::sync::Arc;

use crate::ast::{BinaryOp, ValueType};
use crate::plan::{Binary, Call, Node};

use super::lanes::{ABSENT, Frame, Series, drop_reserved, index, is_present, merge_equal};
use super::scalar::Scalar;
use super::select::Take;
use super::{Eval, QueryError, Sink, arith, matching, time};

/// What a function does with a float; `None` if it is no such function.
fn float_function(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "ceil" => f64::ceil,
        "floor" => f64::floor,
        "exp" => f64::exp,
        "sqrt" => f64::sqrt,
        "ln" => f64::ln,
        "log2" => f64::log2,
        "log10" => f64::log10,
        "sin" => f64::sin,
        "cos" => f64::cos,
        "tan" => f64::tan,
        "asin" => f64::asin,
        "acos" => f64::acos,
        "atan" => f64::atan,
        "sinh" => f64::sinh,
        "cosh" => f64::cosh,
        "tanh" => f64::tanh,
        "asinh" => f64::asinh,
        "acosh" => f64::acosh,
        "atanh" => f64::atanh,
        "rad" => |v| v * std::f64::consts::PI / 180.0,
        "deg" => |v| v * 180.0 / std::f64::consts::PI,
        "sgn" => |v| {
            if v < 0.0 {
                -1.0
            } else if v > 0.0 {
                1.0
            } else {
                v
            }
        },
        _ => return time::function(name),
    })
}

/// Whether a function works on elements and drops the metric name.
pub(crate) fn drops_name(function: &str) -> bool {
    float_function(function).is_some()
        || matches!(
            function,
            "clamp" | "clamp_min" | "clamp_max" | "round" | "timestamp" | "start_timestamp"
        )
        || is_histogram_function(function)
}

fn is_histogram_function(function: &str) -> bool {
    matches!(
        function,
        "histogram_count"
            | "histogram_sum"
            | "histogram_avg"
            | "histogram_stddev"
            | "histogram_stdvar"
    )
}

impl Eval<'_> {
    /// Whether a call can be streamed.
    pub(super) fn streams_call(&self, call: &Call) -> bool {
        drops_name(call.function) && !call.args.is_empty()
    }

    pub(super) fn stream_call(
        &mut self,
        call: &Call,
        frame: Frame,
        sink: Sink<'_>,
    ) -> Result<(), QueryError> {
        match call.function {
            "timestamp" | "start_timestamp" => self.stream_timestamp(call, frame, sink),
            name if is_histogram_function(name) => {
                self.stream_renamed(&call.args[0], frame, sink, &mut |_, series| {
                    series.floats.clear();
                    for (step, h) in std::mem::take(&mut series.histograms) {
                        let value = super::native::float_of(name, &h);
                        series.set_float(step as usize, frame.count, value);
                    }
                    Ok(())
                })
            }
            "clamp" | "clamp_min" | "clamp_max" | "round" => {
                let mut params = Vec::new();
                for arg in &call.args[1..] {
                    params.push(self.scalar(arg, frame)?);
                }
                self.stream_renamed(&call.args[0], frame, sink, &mut |_, series| {
                    series.histograms.clear();
                    adjust(call.function, &params, &mut series.floats);
                    Ok(())
                })
            }
            name => {
                let f = float_function(name)
                    .ok_or_else(|| QueryError::execution(format!("unknown function {name}")))?;
                self.stream_renamed(&call.args[0], frame, sink, &mut |_, series| {
                    series.histograms.clear();
                    for value in series.floats.iter_mut().filter(|v| is_present(**v)) {
                        *value = f(*value);
                    }
                    Ok(())
                })
            }
        }
    }

    /// Streams `node`'s series, changed by `change` and without their names.
    pub(super) fn stream_renamed(
        &mut self,
        node: &Node,
        frame: Frame,
        sink: Sink<'_>,
        change: Sink<'_>,
    ) -> Result<(), QueryError> {
        let delayed = self.delayed();
        let mut renamed = |ev: &mut Eval<'_>, series: &mut Series| -> Result<bool, QueryError> {
            change(ev, series)?;
            if series.is_vacant() {
                return Ok(false);
            }
            series.drop_name = true;
            series.nameless = !delayed;
            Ok(true)
        };
        if !self.may_collide(node)? {
            return self.stream(node, frame, &mut |ev, series| {
                if renamed(ev, series)? { sink(ev, series) } else { Ok(()) }
            });
        }
        // Series that become equal join if they do not overlap.
        let mut batch = Vec::new();
        self.stream(node, frame, &mut |ev, series| {
            if renamed(ev, series)? {
                series.settle_name();
                ev.hold(series)?;
                batch.push(std::mem::take(series));
            }
            Ok(())
        })?;
        for series in &batch {
            self.release(series);
        }
        for mut series in merge_equal(batch, frame.count)? {
            sink(self, &mut series)?;
        }
        Ok(())
    }

    /// `timestamp(v)`: of a selector the samples' own times, else the steps'.
    fn stream_timestamp(
        &mut self,
        call: &Call,
        frame: Frame,
        sink: Sink<'_>,
    ) -> Result<(), QueryError> {
        let start = call.function == "start_timestamp";
        if let Node::Select(selector) = &call.args[0] {
            if start && !self.options.use_start_timestamps {
                return Ok(());
            }
            let take = if start { Take::Start } else { Take::Time };
            let own = Node::Select(std::sync::Arc::clone(selector));
            let delayed = self.delayed();
            if self.may_collide(&own)? {
                let mut batch = Vec::new();
                self.stream_newest(selector, frame, take, &mut |ev, series| {
                    series.drop_name = true;
                    if !delayed {
                        series.labels = drop_reserved(&series.labels);
                    }
                    ev.hold(series)?;
                    batch.push(std::mem::take(series));
                    Ok(())
                })?;
                for mut series in merge_equal(batch, frame.count)? {
                    self.release(&series);
                    sink(self, &mut series)?;
                }
                return Ok(());
            }
            return self.stream_newest(selector, frame, take, &mut |ev, series| {
                series.drop_name = true;
                series.nameless = !delayed;
                sink(ev, series)
            });
        }
        if start {
            return Ok(());
        }
        self.stream_renamed(&call.args[0], frame, sink, &mut |_, series| {
            for (step, _) in std::mem::take(&mut series.histograms) {
                series.set_float(step as usize, frame.count, 0.0);
            }
            for (value, time) in series.floats.iter_mut().zip(frame.times()) {
                if is_present(*value) {
                    *value = super::rollup_float::seconds(time);
                }
            }
            Ok(())
        })
    }

    /// `-v`. Series that become equal are refused even if they do not overlap:
    /// Prometheus looks at the whole range here.
    pub(super) fn stream_negate(
        &mut self,
        inner: &Node,
        frame: Frame,
        sink: Sink<'_>,
    ) -> Result<(), QueryError> {
        let delayed = self.delayed();
        let may_collide = self.may_collide(inner)?;
        let mut seen = HashSet::new();
        self.stream(inner, frame, &mut |ev, series| {
            for value in series.floats.iter_mut().filter(|v| is_present(**v)) {
                *value = -*value;
            }
            for (_, h) in &mut series.histograms {
                Arc::make_mut(h).mul(-1.0);
            }
            if series.is_vacant() {
                return Ok(());
            }
            series.drop_name = true;
            series.nameless = !delayed;
            if may_collide {
                series.settle_name();
                if !seen.insert(series.labels.clone()) {
                    return Err(QueryError::same_labelset());
                }
            }
            sink(ev, series)
        })
    }

    /// A binary operation between a vector and a scalar.
    pub(super) fn stream_with_scalar(
        &mut self,
        b: &Binary,
        frame: Frame,
        sink: Sink<'_>,
    ) -> Result<(), QueryError> {
        let scalar_left = b.lhs_type == ValueType::Scalar;
        let (vector, scalar) = if scalar_left { (&b.rhs, &b.lhs) } else { (&b.lhs, &b.rhs) };
        // Prometheus evaluates the left side first; annotations may depend on it.
        let scalar = self.scalar(scalar, frame)?;
        let mut change = |ev: &mut Eval<'_>, series: &mut Series| -> Result<(), QueryError> {
            if !series.floats.is_empty() {
                with_scalar(b, &scalar, scalar_left, &mut series.floats, ev);
            }
            if !series.histograms.is_empty() {
                histograms_with_scalar(b, &scalar, scalar_left, frame, series, ev);
            }
            Ok(())
        };
        if arith::changes_schema(b.op) || b.return_bool {
            return self.stream_renamed(vector, frame, sink, &mut change);
        }
        self.stream(vector, frame, &mut |ev, series| {
            change(ev, series)?;
            if series.is_vacant() { Ok(()) } else { sink(ev, series) }
        })
    }
}

impl Binary {
    /// Whether exactly one side is a scalar.
    pub(crate) fn has_scalar_side(&self) -> bool {
        (self.lhs_type == ValueType::Scalar) != (self.rhs_type == ValueType::Scalar)
    }

    /// Whether both sides are vectors.
    pub(crate) fn is_between_vectors(&self) -> bool {
        self.lhs_type == ValueType::Vector && self.rhs_type == ValueType::Vector
    }
}

/// Combines a float lane with a scalar, in place.
fn with_scalar(
    b: &Binary,
    scalar: &Scalar,
    scalar_left: bool,
    floats: &mut [f64],
    ev: &mut Eval<'_>,
) {
    if arith::is_trim(b.op) {
        for value in floats.iter_mut().filter(|v| is_present(**v)) {
            *value = ABSENT;
            matching::note_types(&mut ev.notes, b, "float", "float");
        }
        return;
    }
    if arith::is_comparison(b.op) {
        for (step, value) in floats.iter_mut().enumerate() {
            if !is_present(*value) {
                continue;
            }
            let other = scalar.at(step);
            let (x, y) = if scalar_left { (other, *value) } else { (*value, other) };
            let holds = arith::compare(b.op, x, y);
            *value = match (b.return_bool, holds) {
                (true, holds) => f64::from(u8::from(holds)),
                (false, true) => *value,
                (false, false) => ABSENT,
            };
        }
        return;
    }
    match (b.op, scalar) {
        (BinaryOp::Add, Scalar::Constant(c)) => apply(floats, |v| v + c),
        (BinaryOp::Sub, Scalar::Constant(c)) if !scalar_left => apply(floats, |v| v - c),
        (BinaryOp::Sub, Scalar::Constant(c)) => apply(floats, |v| c - v),
        (BinaryOp::Mul, Scalar::Constant(c)) => apply(floats, |v| v * c),
        (BinaryOp::Div, Scalar::Constant(c)) if !scalar_left => apply(floats, |v| v / c),
        _ => {
            for (step, value) in floats.iter_mut().enumerate() {
                if is_present(*value) {
                    let other = scalar.at(step);
                    let (x, y) = if scalar_left { (other, *value) } else { (*value, other) };
                    *value = arith::compute(b.op, x, y);
                }
            }
        }
    }
}

#[inline]
fn apply(floats: &mut [f64], f: impl Fn(f64) -> f64) {
    for value in floats {
        *value = if is_present(*value) { f(*value) } else { ABSENT };
    }
}

/// Combines a histogram lane with a scalar.
fn histograms_with_scalar(
    b: &Binary,
    scalar: &Scalar,
    scalar_left: bool,
    frame: Frame,
    series: &mut Series,
    ev: &mut Eval<'_>,
) {
    for (step, h) in std::mem::take(&mut series.histograms) {
        let float = super::lanes::Point::Float(scalar.at(step as usize));
        let histogram = super::lanes::Point::Histogram(Arc::clone(&h));
        let (x, y) = if scalar_left { (float, histogram) } else { (histogram, float) };
        let Some((value, keep)) = matching::combine(b, x, y, &mut ev.notes) else { continue };
        if b.return_bool {
            series.set_float(step as usize, frame.count, f64::from(u8::from(keep)));
        } else if keep {
            match value {
                super::lanes::Point::Float(v) => series.set_float(step as usize, frame.count, v),
                super::lanes::Point::Histogram(h) => {
                    series.histograms.push((index(step as usize), h));
                }
            }
        }
    }
}

/// clamp, clamp_min, clamp_max and round.
fn adjust(function: &str, params: &[Scalar], floats: &mut [f64]) {
    for (step, value) in floats.iter_mut().enumerate() {
        if !is_present(*value) {
            continue;
        }
        let (low, high) = match function {
            "clamp" => (params[0].at(step), params[1].at(step)),
            "clamp_min" => (params[0].at(step), f64::INFINITY),
            "clamp_max" => (f64::NEG_INFINITY, params[0].at(step)),
            _ => {
                // Ties go up; the inverse is less prone to rounding.
                let inverse = 1.0 / params.first().map_or(1.0, |p| p.at(step));
                *value = (*value * inverse + 0.5).floor() / inverse;
                continue;
            }
        };
        *value = if high < low { ABSENT } else { arith::go_max(low, arith::go_min(high, *value)) };
    }
}

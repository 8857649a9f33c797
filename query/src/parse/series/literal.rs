//! Histogram literals: `{{schema:1 count:3 sum:4 buckets:[1 2]}}`.

use narthex_storage::histogram::{CounterResetHint, Histogram, Span};

use super::{Items, Read};

/// A literal and whether it names its counter-reset hint.
pub(super) struct HistogramLiteral {
    pub(super) histogram: Histogram,
    pub(super) hint_written: bool,
}

impl Items<'_> {
    /// A literal, from its opening braces on.
    pub(super) fn histogram(&mut self) -> Read<HistogramLiteral> {
        if !self.accept("{{") {
            return Err(self.error("expected a histogram description, e.g. {{sum:1 count:1}}"));
        }
        let mut histogram = Histogram::default();
        let mut hint_written = false;
        let (mut offset, mut negative_offset) = (0, 0);
        let mut seen: Vec<&str> = Vec::new();
        loop {
            self.skip_spaces();
            if self.accept("}}") {
                break;
            }
            let rest = self.rest();
            let letters =
                rest.bytes().take_while(|b| b.is_ascii_alphabetic() || *b == b'_').count();
            let key = &rest[..letters];
            if seen.contains(&key) {
                return Err(self.error(format!("duplicate key \"{key}\" in histogram")));
            }
            self.pos += letters;
            if !self.accept(":") {
                return Err(self.error("missing `:` for histogram descriptor"));
            }
            match key.to_ascii_lowercase().as_str() {
                "schema" => histogram.schema = self.integer()?,
                "sum" => histogram.sum = self.signed_number()?,
                "count" => histogram.count = self.signed_number()?,
                "z_bucket" => histogram.zero_count = self.signed_number()?,
                "z_bucket_w" => histogram.zero_threshold = self.signed_number()?,
                "offset" => offset = self.integer()?,
                "n_offset" => negative_offset = self.integer()?,
                "buckets" => histogram.positive_buckets = self.numbers()?,
                "n_buckets" => histogram.negative_buckets = self.numbers()?,
                "custom_values" => histogram.custom_values = self.numbers()?.into(),
                "counter_reset_hint" => {
                    histogram.counter_reset_hint = self.hint()?;
                    hint_written = true;
                }
                _ => {
                    let message = format!("bad histogram descriptor found: {key:?}");
                    return Err(self.error(message));
                }
            }
            seen.push(key);
        }
        histogram.positive_spans = one_span(offset, histogram.positive_buckets.len());
        histogram.negative_spans = one_span(negative_offset, histogram.negative_buckets.len());
        Ok(HistogramLiteral { histogram, hint_written })
    }

    fn integer(&mut self) -> Read<i32> {
        let negative = self.accept("-");
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        let number: i32 = self.rest()[..digits]
            .parse()
            .map_err(|_| self.error("expected an integer in histogram description"))?;
        self.pos += digits;
        Ok(if negative { -number } else { number })
    }

    fn numbers(&mut self) -> Read<Vec<f64>> {
        if !self.accept("[") {
            return Err(self.error("expected \"[\" in histogram description"));
        }
        let mut numbers = Vec::new();
        loop {
            self.skip_spaces();
            if self.accept("]") {
                return Ok(numbers);
            }
            numbers.push(self.signed_number()?);
        }
    }

    fn hint(&mut self) -> Read<CounterResetHint> {
        for (word, hint) in [
            ("unknown", CounterResetHint::Unknown),
            ("reset", CounterResetHint::Reset),
            ("not_reset", CounterResetHint::NotReset),
            ("gauge", CounterResetHint::Gauge),
        ] {
            if self.accept(word) {
                return Ok(hint);
            }
        }
        Err(self.error("expected unknown, reset, not_reset or gauge"))
    }
}

fn one_span(offset: i32, buckets: usize) -> Vec<Span> {
    match u32::try_from(buckets) {
        Ok(length) if length > 0 => vec![Span { offset, length }],
        _ => Vec::new(),
    }
}

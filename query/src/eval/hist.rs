//! What is noted about histograms, in Prometheus' words.

use crate::ast::Span;
use crate::histogram::{Findings, Level};

use super::notes::{Notes, quoted};
use super::rollup_float::note_overlap;

/// Notes what was found while the histograms of the metric `name` were
/// combined.
pub(super) fn note_findings(notes: &mut Notes, span: Span, name: &str, findings: &Findings) {
    if findings.is_empty() {
        return;
    }
    for (level, text) in findings.texts(name) {
        match level {
            Level::Warning => notes.warn(span, text),
            Level::Info => notes.info(span, text),
        }
    }
    for _ in 0..findings.start_overlaps {
        note_overlap(notes, span, name);
    }
}

pub(super) fn note_mixed(notes: &mut Notes, span: Span, name: &str) {
    notes.warn(
        span,
        format!("encountered a mix of histograms and floats for metric name {}", quoted(name)),
    );
}

pub(super) fn note_ignored_in_range(notes: &mut Notes, span: Span, name: &str) {
    notes.info(
        span,
        format!(
            "ignored histograms in a range containing both floats and histograms for metric name {}",
            quoted(name)
        ),
    );
}

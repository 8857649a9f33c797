//! In which rows a column is present: runs of rows.
//!
//! ```text
//! varint      number of runs
//! per run:    varint  rows absent before it
//!             varint  rows present, less 1
//! ```

use std::ops::Range;

use super::CodecError;
use super::input::{Input, push_varint};

/// Appends runs of rows to `out`. A run is not empty, and starts after the end
/// of the one before it.
///
/// # Panics
///
/// If the runs are not so.
pub fn encode_runs(runs: &[Range<u32>], out: &mut Vec<u8>) {
    push_varint(runs.len() as u64, out);
    let mut end = None;
    for run in runs {
        let after = end.is_none_or(|end| run.start > end);
        assert!(after && run.start < run.end, "BUG: run {run:?} after {end:?}");
        push_varint(u64::from(run.start - end.unwrap_or(0)), out);
        push_varint(u64::from(run.end - run.start - 1), out);
        end = Some(run.end);
    }
}

/// Appends the runs at the start of `bytes`, all within `0..rows`, to `out`;
/// says how many bytes they had.
///
/// # Errors
///
/// [`CodecError`]; `out` is then as it was.
pub fn decode_runs(
    bytes: &[u8],
    rows: u32,
    out: &mut Vec<Range<u32>>,
) -> Result<usize, CodecError> {
    let start = out.len();
    let mut input = Input::new(bytes);
    read_runs(&mut input, rows, out).inspect_err(|_| out.truncate(start))?;
    Ok(input.offset())
}

fn read_runs(
    input: &mut Input<'_>,
    rows: u32,
    out: &mut Vec<Range<u32>>,
) -> Result<(), CodecError> {
    let total = input.varint()?;
    let mut end = None;
    for _ in 0..total {
        let gap = input.varint()?;
        if gap == 0 && end.is_some() {
            return Err(input.invalid("gap between runs"));
        }
        let first = gap.saturating_add(end.unwrap_or(0));
        let last = first.saturating_add(input.varint()?);
        if last >= u64::from(rows) {
            return Err(input.invalid("run of rows"));
        }
        out.push(first as u32..last as u32 + 1);
        end = Some(last + 1);
    }
    Ok(())
}

//! Is everything on disk what it should be?

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Db, Inner};
use crate::day::catalog::Stripe;
use crate::day::stripe::DecodedColumn;

/// What a check of a data directory found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VerifyReport {
    /// Stripes that were read.
    pub stripes: u64,
    /// Columns of them that were decoded.
    pub chunks: u64,
    /// Samples in these.
    pub samples: u64,
    /// Series whose labels were read.
    pub series: u64,
    /// What is wrong: file, relative to the data directory, offset, and how.
    pub problems: Vec<Problem>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: byte {offset}: {what}", file.display())]
pub struct Problem {
    /// Relative to the data directory.
    pub file: PathBuf,
    /// Where in the file.
    pub offset: u64,
    /// How it is wrong.
    pub what: String,
}

impl Db {
    /// Reads and decodes all that is in the days, and the labels of every series
    /// there; `progress` is told how many stripes of how many are done. Changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// What the system says; damage is in the report.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> io::Result<VerifyReport> {
        self.inner.verify(progress)
    }
}

impl Inner {
    fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> io::Result<VerifyReport> {
        let catalog = Arc::clone(&self.snapshot().view.catalog);
        let total = catalog.stripes().count() as u64;
        let mut report = VerifyReport::default();
        let mut ids = roaring::RoaringBitmap::new();
        for stripe in catalog.stripes() {
            verify_stripe(stripe, &mut report)?;
            report.stripes += 1;
            progress(report.stripes, total);
        }
        for damage in self.series.verify()? {
            report.problems.push(Problem {
                file: PathBuf::from(damage.file),
                offset: damage.offset,
                what: damage.what,
            });
        }
        catalog.days.iter().for_each(|day| day.add_ids(&mut ids));
        for id in ids {
            report.series += 1;
            if self.series.labels(id)?.is_empty() {
                report.problems.push(Problem {
                    file: PathBuf::from(crate::series::file::DIRECTORY),
                    offset: 0,
                    what: format!("series {id} has samples, but no labels"),
                });
            }
        }
        Ok(report)
    }
}

fn verify_stripe(stripe: &Stripe, report: &mut VerifyReport) -> io::Result<()> {
    let problem = |at: u64, what: String| {
        let (file, offset) = stripe.volume.place(stripe, at);
        Problem { file: PathBuf::from(file), offset, what }
    };
    let header = match stripe.read_header() {
        Ok(header) => header,
        Err(e) if is_damage(&e) => {
            report.problems.push(problem(0, e.to_string()));
            return Ok(());
        }
        Err(e) => return Err(e),
    };
    let mut decoded = DecodedColumn::default();
    for run in header.runs() {
        let at = stripe.payload_at(run.bytes.start);
        let bytes = match stripe.read_run(&run) {
            Ok(bytes) => bytes,
            Err(e) if is_damage(&e) => {
                report.problems.push(problem(at, e.to_string()));
                continue;
            }
            Err(e) => return Err(e),
        };
        for column in run.columns.clone() {
            match header.decode_column(column, &run, &bytes, &mut decoded) {
                Ok(()) => {
                    report.chunks += 1;
                    report.samples += decoded.floats.len() as u64;
                }
                Err(e) => report.problems.push(problem(at, e.to_string())),
            }
        }
    }
    Ok(())
}

fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

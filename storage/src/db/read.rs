//! How does a query see the storage?
//!
//! A [`DbQuerier`] holds the stripes there were when it was opened. How the
//! samples of a series are put together is told in [`scan`](super::scan).

use std::collections::HashMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, OnceLock};

use roaring::RoaringBitmap;

use super::scan::{Need, Scan};
use super::tombstones::Tombstones;
use super::{Damage, Inner, View, lock};
use crate::axis::{AxisTable, Layout};
use crate::day::catalog::Stripe;
use crate::day::stripe::{Header, RunRange};
use crate::head::open::{OpenRows, OpenStripe};
use crate::labels::{Labels, Matcher};
use crate::read::{Axis, Column, Querier, ReadError, SeriesRef, SeriesSet, Version};
use crate::sample::{Exemplar, Metadata};

/// Most scans that wait for the next series: a query reads few selectors, each
/// over a range of its own.
const MAX_IDLE_SCANS: usize = 4;

/// A snapshot of a time range.
pub(super) struct DbQuerier {
    pub(super) inner: Arc<Inner>,
    pub(super) view: Arc<View>,
    pub(super) commit: u64,
    /// When it was opened.
    epoch: u64,
    floor_ms: i64,
    start_ms: i64,
    end_ms: i64,
    open: OnceLock<Vec<OpenPart>>,
    ids: OnceLock<RoaringBitmap>,
    axes: Mutex<AxisTable>,
    /// What reading series after series keeps.
    #[allow(clippy::vec_box, reason = "taken out and put back for each series; a scan is large")]
    scans: Mutex<Vec<Box<Scan>>>,
    tombstones: Arc<Tombstones>,
}

/// An open stripe as this snapshot sees it.
pub(super) struct OpenPart {
    pub(super) stripe: Arc<OpenStripe>,
    pub(super) layout: Arc<Layout>,
    rows: OnceLock<Arc<OpenRows>>,
}

/// The series with columns in open stripes.
pub(super) fn series_of_head(view: &View) -> RoaringBitmap {
    let mut ids = RoaringBitmap::new();
    for open in &view.open {
        open.lock().layout().add_ids(&mut ids);
    }
    ids
}

/// What reading the series' files said.
pub(super) fn series_error(source: io::Error) -> ReadError {
    ReadError::Io { file: crate::series::file::DIRECTORY.to_owned(), source }
}

impl DbQuerier {
    pub(super) fn new(inner: Arc<Inner>, start_ms: i64, end_ms: i64) -> Self {
        // Before anything else: what changes from now on begins another one.
        let epoch = inner.changes.epoch();
        let snapshot = inner.snapshot();
        let floor_ms = inner.retention_floor_ms();
        let tombstones = inner.tombstones();
        Self {
            inner,
            view: snapshot.view,
            commit: snapshot.commit,
            epoch,
            floor_ms,
            start_ms: start_ms.max(floor_ms),
            end_ms,
            open: OnceLock::new(),
            ids: OnceLock::new(),
            axes: Mutex::default(),
            scans: Mutex::default(),
            tombstones,
        }
    }

    /// The open stripes that may have samples in the range.
    pub(super) fn open(&self) -> &[OpenPart] {
        self.open.get_or_init(|| {
            let mut parts = Vec::new();
            for stripe in &self.view.open {
                let mut rows = stripe.lock();
                let (Some(&first), Some(&last)) = (rows.times.first(), rows.times.last()) else {
                    continue;
                };
                if first <= self.end_ms && last >= self.start_ms {
                    let layout = rows.layout();
                    drop(rows);
                    let stripe = Arc::clone(stripe);
                    parts.push(OpenPart { stripe, layout, rows: OnceLock::new() });
                }
            }
            parts
        })
    }

    /// All series that may have samples in the range.
    pub(super) fn ids(&self) -> &RoaringBitmap {
        self.ids.get_or_init(|| {
            let mut ids = RoaringBitmap::new();
            for day in self.view.catalog.days_in(self.start_ms, self.end_ms) {
                for list in &day.layouts {
                    let overlaps = list.min_ms <= self.end_ms && list.max_ms >= self.start_ms;
                    if overlaps && list.stripes_in(self.start_ms, self.end_ms).next().is_some() {
                        list.layout.add_ids(&mut ids);
                    }
                }
            }
            self.open().iter().for_each(|part| part.layout.add_ids(&mut ids));
            ids
        })
    }

    fn matching(&self, matchers: &[Matcher]) -> Result<RoaringBitmap, ReadError> {
        self.inner.series.select(matchers, self.ids()).map_err(series_error)
    }

    /// The one axis with these timestamps.
    pub(super) fn intern(&self, times: &[i64]) -> Axis {
        lock(&self.axes).intern(times)
    }

    fn read_lanes(
        &self,
        series: SeriesRef,
        range_ms: RangeInclusive<i64>,
        need: Need,
        out: &mut Column,
    ) -> Result<(), ReadError> {
        out.clear();
        let start_ms = self.start_ms.max(*range_ms.start());
        let end_ms = self.end_ms.min(*range_ms.end());
        if start_ms > end_ms {
            return Ok(());
        }
        let mut scan = self.scan(start_ms, end_ms);
        let read = scan.read(self, series.0, need, out);
        self.put_back(scan);
        read?;
        if !self.tombstones.is_empty() {
            self.tombstones.apply(series.0, out);
        }
        Ok(())
    }

    /// A scan of this range that nobody uses.
    fn scan(&self, start_ms: i64, end_ms: i64) -> Box<Scan> {
        let mut idle = lock(&self.scans);
        match idle.iter().position(|s| s.is_of(start_ms, end_ms)) {
            Some(at) => idle.swap_remove(at),
            None => Box::new(Scan::new(self, start_ms, end_ms)),
        }
    }

    fn put_back(&self, scan: Box<Scan>) {
        let mut idle = lock(&self.scans);
        if idle.len() >= MAX_IDLE_SCANS {
            idle.remove(0);
        }
        idle.push(scan);
    }
}

impl OpenPart {
    /// Its rows up to a commit, which is always the same.
    pub(super) fn rows(&self, commit: u64) -> &OpenRows {
        self.rows.get_or_init(|| self.stripe.snapshot(commit))
    }
}

impl Querier for DbQuerier {
    fn select(&self, matchers: &[Matcher], sorted: bool) -> Result<Vec<SeriesRef>, ReadError> {
        let found = self.matching(matchers)?;
        let ids = self.inner.series.listed(&found, sorted).map_err(series_error)?;
        Ok(ids.into_iter().map(SeriesRef).collect())
    }

    fn series(&self, matchers: &[Matcher]) -> Result<Arc<SeriesSet>, ReadError> {
        self.inner.select_sorted(matchers, self.ids()).map_err(series_error)
    }

    fn labels(&self, series: SeriesRef) -> Result<Labels, ReadError> {
        self.inner.series.labels(series.0).map_err(series_error)
    }

    fn read(
        &self,
        series: SeriesRef,
        start_ms: i64,
        end_ms: i64,
        out: &mut Column,
    ) -> Result<(), ReadError> {
        self.read_lanes(series, start_ms..=end_ms, Need::Values, out)
    }

    fn read_presence(
        &self,
        series: SeriesRef,
        start_ms: i64,
        end_ms: i64,
        out: &mut Column,
    ) -> Result<(), ReadError> {
        self.read_lanes(series, start_ms..=end_ms, Need::Presence, out)
    }

    fn label_names(&self, matchers: &[Matcher], limit: usize) -> Result<Vec<String>, ReadError> {
        let found = self.matching(matchers)?;
        self.inner.series.label_names(&found, limit).map_err(series_error)
    }

    fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        limit: usize,
    ) -> Result<Vec<String>, ReadError> {
        let found = self.matching(matchers)?;
        self.inner.series.label_values(name, &found, limit).map_err(series_error)
    }

    fn exemplars(
        &self,
        matchers: &[Vec<Matcher>],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, ReadError> {
        let mut by_series: HashMap<u32, Vec<Exemplar>> = HashMap::new();
        {
            let ring = lock(&self.inner.exemplars);
            for (series, exemplar) in ring.iter() {
                if (start_ms..=end_ms).contains(&exemplar.timestamp_ms) {
                    by_series.entry(*series).or_default().push(exemplar.clone());
                }
            }
        }
        let with_labels = by_series.into_iter().map(|(id, e)| {
            self.inner.series.labels(id).map(|labels| (labels, e)).map_err(series_error)
        });
        let mut found = with_labels.collect::<Result<Vec<(Labels, Vec<Exemplar>)>, _>>()?;
        found.retain(|(labels, _)| {
            let matches = |set: &Vec<Matcher>| {
                set.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or("")))
            };
            matchers.iter().any(matches)
        });
        found.sort_by(|a, b| a.0.cmp(&b.0));
        for (_, exemplars) in &mut found {
            exemplars.sort_by_key(|e| e.timestamp_ms);
        }
        Ok(found)
    }

    fn metadata(&self) -> Vec<(String, Vec<Metadata>)> {
        lock(&self.inner.metadata).all()
    }

    fn version(&self) -> Option<Version> {
        Some(Version { epoch: self.epoch, commit: self.commit, floor_ms: self.floor_ms })
    }

    fn unchanged_since(&self, version: &Version) -> Option<RangeInclusive<i64>> {
        if version.epoch != self.epoch {
            return None;
        }
        let before_ms = self.inner.changes.unchanged_before(version.commit);
        let last_ms = if before_ms == i64::MAX { before_ms } else { before_ms.checked_sub(1)? };
        Some(self.floor_ms.max(version.floor_ms)..=last_ms)
    }
}

impl Inner {
    /// The header of a stripe; `None` if it is damaged.
    pub(super) fn header_of(&self, stripe: &Stripe) -> Result<Option<Arc<Header>>, ReadError> {
        let key = stripe.key();
        if let Some(header) = self.headers.get(key) {
            return Ok(Some(header));
        }
        match stripe.read_header() {
            Ok(header) => {
                let header = Arc::new(header);
                self.headers.insert(key, Arc::clone(&header), header.heap_bytes());
                Ok(Some(header))
            }
            Err(e) => {
                let bytes = u64::from(stripe.header_bytes);
                self.quarantine(stripe, 0, bytes, e).map(|()| None)
            }
        }
    }

    /// The bytes of a run of chunks; `None` if they are damaged.
    pub(super) fn load_run(
        &self,
        stripe: &Stripe,
        run: &RunRange,
    ) -> Result<Option<Arc<Vec<u8>>>, ReadError> {
        let (volume, offset) = stripe.key();
        let key = (volume, offset, run.bytes.start);
        if let Some(bytes) = self.runs.get(key) {
            return Ok(Some(bytes));
        }
        match stripe.read_run(run) {
            Ok(bytes) => {
                let bytes = Arc::new(bytes);
                self.runs.insert(key, Arc::clone(&bytes), bytes.len());
                Ok(Some(bytes))
            }
            Err(e) => {
                let bytes = u64::from(run.bytes.end - run.bytes.start);
                self.quarantine(stripe, stripe.payload_at(run.bytes.start), bytes, e).map(|()| None)
            }
        }
    }

    /// Reports damage; other errors are the reader's.
    fn quarantine(
        &self,
        stripe: &Stripe,
        at: u64,
        bytes: u64,
        error: io::Error,
    ) -> Result<(), ReadError> {
        match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                self.report(damage_of(stripe, at, bytes, &error.to_string()));
                Ok(())
            }
            _ => Err(ReadError::Io { file: stripe.volume.place(stripe, at).0, source: error }),
        }
    }
}

/// Damage of so many bytes from the byte `at` of a stripe.
pub(super) fn damage_of(stripe: &Stripe, at: u64, bytes: u64, what: &str) -> Damage {
    let (file, offset) = stripe.volume.place(stripe, at);
    Damage { file, offset, bytes, what: what.to_owned() }
}

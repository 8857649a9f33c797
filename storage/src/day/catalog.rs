//! What is where in the days?
//!
//! A [`Catalog`] is never changed: a seal makes a new one that shares all but
//! the list that grew, so that a reader's snapshot is one reference.

use std::io;
use std::sync::Arc;

use super::day_of;
use super::stripe::{Encoded, Header, PREFIX_BYTES, RunRange};
use crate::axis::Layout;
use crate::engine::sealed::{Volume, Volumes};

/// All sealed stripes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalog {
    /// Ascending by day.
    pub(crate) days: Vec<Arc<Day>>,
}

/// The stripes of one day (UTC).
#[derive(Debug, Clone)]
pub(crate) struct Day {
    pub(crate) day: i64,
    /// By layout, in order of their first stripe.
    pub(crate) layouts: Vec<Arc<LayoutStripes>>,
    pub(crate) samples: u64,
    pub(crate) chunks: u64,
    pub(crate) bytes: u64,
}

/// The stripes of one day that have the same columns.
#[derive(Debug, Clone)]
pub(crate) struct LayoutStripes {
    pub(crate) layout: Arc<Layout>,
    pub(crate) min_ms: i64,
    pub(crate) max_ms: i64,
    /// Ascending by first timestamp.
    pub(crate) stripes: Vec<Stripe>,
}

/// Where one stripe is.
#[derive(Debug, Clone)]
pub(crate) struct Stripe {
    pub(crate) id: u64,
    pub(crate) volume: Arc<dyn Volume>,
    /// Where the volume has it: unique there.
    pub(crate) offset: u64,
    pub(crate) header_bytes: u32,
    pub(crate) payload_bytes: u32,
    /// First and last timestamp.
    pub(crate) min_ms: i64,
    pub(crate) max_ms: i64,
    pub(crate) samples: u32,
}

impl Stripe {
    /// What the catalog says of a stripe that was written at `offset`.
    pub(crate) fn of(encoded: &Encoded, id: u64, volume: Arc<dyn Volume>, offset: u64) -> Self {
        let payload = encoded.bytes.len() - PREFIX_BYTES;
        Self {
            id,
            volume,
            offset,
            header_bytes: encoded.header_bytes,
            payload_bytes: payload as u32 - encoded.header_bytes,
            min_ms: encoded.times.first().copied().unwrap_or(i64::MAX),
            max_ms: encoded.times.last().copied().unwrap_or(i64::MIN),
            samples: u32::try_from(encoded.samples).unwrap_or(u32::MAX),
        }
    }

    /// What the catalog says of a stripe that was found at `offset`.
    pub(crate) fn found(
        header: &Header,
        volume: Arc<dyn Volume>,
        offset: u64,
        header_bytes: u32,
    ) -> Self {
        Self {
            id: header.stripe_id,
            volume,
            offset,
            header_bytes,
            payload_bytes: header.payload_bytes,
            min_ms: header.times.first().copied().unwrap_or(i64::MAX),
            max_ms: header.times.last().copied().unwrap_or(i64::MIN),
            samples: header.samples(),
        }
    }

    /// Reads and checks its header; see [`Volume::read_header`].
    pub(crate) fn read_header(&self) -> io::Result<Header> {
        self.volume.read_header(self)
    }

    /// Reads and checks a run of its chunks; see [`Volume::read_run`].
    pub(crate) fn read_run(&self, run: &RunRange) -> io::Result<Vec<u8>> {
        self.volume.read_run(self, run)
    }

    /// Its name among all stripes.
    pub(crate) fn key(&self) -> (u64, u64) {
        (self.volume.number(), self.offset)
    }

    /// Where a byte of the payload is, from the first byte of the stripe.
    pub(crate) fn payload_at(&self, offset: u32) -> u64 {
        PREFIX_BYTES as u64 + u64::from(self.header_bytes) + u64::from(offset)
    }

    /// Bytes in all.
    pub(crate) const fn bytes(&self) -> u64 {
        PREFIX_BYTES as u64 + self.header_bytes as u64 + self.payload_bytes as u64
    }
}

impl Catalog {
    /// Adds a stripe.
    pub(crate) fn add(&mut self, stripe: Stripe, layout: Layout) {
        let day = day_of(stripe.min_ms);
        let at = match self.days.binary_search_by_key(&day, |d| d.day) {
            Ok(at) => at,
            Err(at) => {
                let empty = Day { day, layouts: Vec::new(), samples: 0, chunks: 0, bytes: 0 };
                self.days.insert(at, Arc::new(empty));
                at
            }
        };
        Arc::make_mut(&mut self.days[at]).add(stripe, layout);
    }

    /// The stripes.
    pub(crate) fn stripes(&self) -> impl Iterator<Item = &Stripe> {
        self.days.iter().flat_map(|d| d.layouts.iter().flat_map(|l| &l.stripes))
    }

    /// The greatest series id that is named.
    pub(crate) fn max_series(&self) -> Option<u32> {
        let layouts = self.days.iter().flat_map(|d| d.layouts.iter().map(|l| &l.layout));
        layouts.filter_map(|l| l.max_id()).max()
    }

    /// The volumes that stripes are in, each once.
    pub(crate) fn volumes(&self) -> Volumes {
        self.days.iter().flat_map(|d| d.volumes()).collect()
    }

    /// Takes a stripe out.
    pub(crate) fn remove(&mut self, stripe: &Stripe) {
        let Some(at) = self.days.iter().position(|d| d.has(stripe)) else { return };
        let day = Arc::make_mut(&mut self.days[at]);
        day.remove(stripe);
        if day.layouts.is_empty() {
            self.days.remove(at);
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.days.iter().map(|d| d.heap_bytes()).sum()
    }

    /// The days with samples in `start_ms..=end_ms`.
    pub(crate) fn days_in(&self, start_ms: i64, end_ms: i64) -> &[Arc<Day>] {
        let from = self.days.partition_point(|d| d.day < day_of(start_ms));
        let to = self.days.partition_point(|d| d.day <= day_of(end_ms));
        self.days.get(from..to).unwrap_or(&[])
    }

    /// The newest time up to which a series may have samples.
    pub(crate) fn newest_of(&self, id: u32) -> Option<i64> {
        let newest = |d: &Day| {
            let with = d.layouts.iter().filter(|l| l.layout.contains(id));
            with.map(|l| l.max_ms).max()
        };
        self.days.iter().rev().find_map(|d| newest(d))
    }
}

impl Day {
    fn add(&mut self, stripe: Stripe, layout: Layout) {
        self.samples += u64::from(stripe.samples);
        self.chunks += layout.len() as u64;
        self.bytes += stripe.bytes();
        // The newest layouts first: an axis keeps its columns for hours.
        let same = self.layouts.iter_mut().rev().find(|l| *l.layout == layout);
        let Some(list) = same else {
            return self.layouts.push(Arc::new(LayoutStripes {
                layout: Arc::new(layout),
                min_ms: stripe.min_ms,
                max_ms: stripe.max_ms,
                stripes: vec![stripe],
            }));
        };
        let list = Arc::make_mut(list);
        list.min_ms = list.min_ms.min(stripe.min_ms);
        list.max_ms = list.max_ms.max(stripe.max_ms);
        let at = list.stripes.partition_point(|s| s.min_ms <= stripe.min_ms);
        list.stripes.insert(at, stripe);
    }

    fn has(&self, stripe: &Stripe) -> bool {
        self.layouts.iter().any(|l| l.stripes.iter().any(|s| s.key() == stripe.key()))
    }

    fn remove(&mut self, stripe: &Stripe) {
        let is_in = |l: &Arc<LayoutStripes>| l.stripes.iter().any(|s| s.key() == stripe.key());
        let Some(at) = self.layouts.iter().position(is_in) else { return };
        let list = Arc::make_mut(&mut self.layouts[at]);
        list.stripes.retain(|s| s.key() != stripe.key());
        self.samples -= u64::from(stripe.samples);
        self.chunks -= list.layout.len() as u64;
        self.bytes -= stripe.bytes();
        if list.stripes.is_empty() {
            self.layouts.remove(at);
        }
    }

    /// The smallest and largest timestamp.
    pub(crate) fn bounds(&self) -> Option<(i64, i64)> {
        let min_ms = self.layouts.iter().map(|l| l.min_ms).min()?;
        let max_ms = self.layouts.iter().map(|l| l.max_ms).max()?;
        Some((min_ms, max_ms))
    }

    /// The volumes that stripes are in, each once.
    pub(crate) fn volumes(&self) -> Volumes {
        let mut volumes: Volumes = Vec::new();
        for stripe in self.layouts.iter().flat_map(|l| &l.stripes) {
            if volumes.iter().all(|v| v.number() != stripe.volume.number()) {
                volumes.push(Arc::clone(&stripe.volume));
            }
        }
        volumes
    }

    /// Whether all stripes are in one volume that a merge wrote.
    pub(crate) fn is_merged(&self) -> bool {
        let volumes = self.volumes();
        volumes.len() == 1 && volumes[0].is_merged()
    }

    fn heap_bytes(&self) -> usize {
        let of_list = |l: &Arc<LayoutStripes>| {
            let stripes = l.stripes.capacity() * size_of::<Stripe>();
            l.layout.heap_bytes() + stripes + size_of::<LayoutStripes>() + size_of::<Layout>()
        };
        self.layouts.iter().map(of_list).sum()
    }

    /// Adds the series of all stripes.
    pub(crate) fn add_ids(&self, ids: &mut roaring::RoaringBitmap) {
        self.layouts.iter().for_each(|l| l.layout.add_ids(ids));
    }

    /// Whether chunks are far shorter than a full stripe's: series that are
    /// scraped seldom, came and went, or came late.
    pub(crate) const fn is_fragmented(&self) -> bool {
        const SAMPLES_PER_CHUNK: u64 = 90;
        self.samples < self.chunks * SAMPLES_PER_CHUNK
    }

    /// Bytes of the stripes that are not chunks.
    pub(crate) fn header_bytes(&self) -> u64 {
        let stripes = self.layouts.iter().flat_map(|l| &l.stripes);
        stripes.map(|s| s.bytes() - u64::from(s.payload_bytes)).sum()
    }

    /// Stripes and their number.
    pub(crate) fn stripe_count(&self) -> usize {
        self.layouts.iter().map(|l| l.stripes.len()).sum()
    }
}

impl LayoutStripes {
    /// The stripes that may have samples in `start_ms..=end_ms`.
    pub(crate) fn stripes_in(&self, start_ms: i64, end_ms: i64) -> impl Iterator<Item = &Stripe> {
        let to = self.stripes.partition_point(|s| s.min_ms <= end_ms);
        self.stripes[..to].iter().filter(move |s| s.max_ms >= start_ms)
    }
}

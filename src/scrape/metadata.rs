//! Type, help and unit of the families on a page.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use narthex_storage::sample::Metadata;

use super::negotiation::Format;
use super::scanner::{Entry, RawLabels, openmetrics, text, unescape, unescape_help};

/// A family and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FamilyMetadata {
    /// The family's name, as in its `TYPE` and `HELP` lines.
    pub family: String,
    /// Type, help and unit.
    pub metadata: Metadata,
}

/// What the pages of one target say, sorted by family.
pub type TargetMetadata = Arc<[Arc<FamilyMetadata>]>;

/// Equal metadata of many targets are kept once.
#[derive(Debug, Default)]
pub struct Interner(Mutex<HashSet<Arc<FamilyMetadata>>>);

impl Interner {
    fn intern(&self, family: FamilyMetadata) -> Arc<FamilyMetadata> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&family) {
            return Arc::clone(found);
        }
        let family = Arc::new(family);
        known.insert(Arc::clone(&family));
        family
    }

    /// Forgets what no target uses.
    pub fn sweep(&self) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|f| Arc::strong_count(f) > 1);
    }
}

/// Reads the metadata of a page in a text format; lines that are not valid
/// end it, as they do for samples.
#[must_use]
pub fn of_text(page: &[u8], format: Format, interner: &Interner) -> TargetMetadata {
    let mut families: BTreeMap<String, Metadata> = BTreeMap::new();
    let (mut at, mut raw) = (0, RawLabels::default());
    let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    while at < page.len() {
        if page[at] != b'#' {
            // Only a guess where raw line ends stand in label values: such a
            // part is no valid comment, or it is one in a label value.
            at = memchr::memchr(b'\n', &page[at..]).map_or(page.len(), |n| at + n + 1);
            continue;
        }
        let parsed = match format {
            Format::OpenMetrics => openmetrics::entry(page, at, &mut raw),
            _ => text::entry(page, at, &mut raw),
        };
        let Ok((entry, next)) = parsed else { break };
        match entry {
            Entry::Type(family, kind) => families.entry(name(family)).or_default().kind = kind,
            Entry::Help(family, help) => {
                families.entry(name(family)).or_default().help = match format {
                    // Quotes are escaped in OpenMetrics only.
                    Format::OpenMetrics => unescape(&String::from_utf8_lossy(help)).into_owned(),
                    _ => unescape_help(&String::from_utf8_lossy(help)).into_owned(),
                };
            }
            Entry::Unit(family, unit) => {
                families.entry(name(family)).or_default().unit = name(unit);
            }
            Entry::End => break,
            Entry::Comment | Entry::Sample(_) => {}
        }
        at = next;
    }
    collect(families, interner)
}

/// Sorted, interned.
pub fn collect(families: BTreeMap<String, Metadata>, interner: &Interner) -> TargetMetadata {
    families
        .into_iter()
        .map(|(family, metadata)| interner.intern(FamilyMetadata { family, metadata }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_storage::sample::MetricKind;

    #[test]
    fn equal_families_are_one() {
        let interner = Interner::default();
        let page = b"# TYPE a counter\n# HELP a b\\nc\na 1\n# HELP d e\n";
        let (x, y) =
            (of_text(page, Format::Text, &interner), of_text(page, Format::Text, &interner));
        assert!(x.iter().zip(y.iter()).all(|(x, y)| Arc::ptr_eq(x, y)));
        assert_eq!(x[0].metadata.kind, MetricKind::Counter);
        assert_eq!(x[0].metadata.help, "b\nc");
        assert_eq!((x[1].family.as_str(), x[1].metadata.kind), ("d", MetricKind::Unknown));
        drop((x, y));
        interner.sweep();
        assert!(interner.0.lock().expect("lock").is_empty());
    }
}

//! `info()`: adds the labels of info series.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use narthex_storage::labels::{Labels, LabelsBuilder, METRIC_NAME, MatchOp, Matcher};

use crate::ast::{Extension, Span};
use crate::plan::{Call, Node, Selector, Source};

use super::lanes::{Batch, Frame, Series, is_present, merge_equal};
use super::select::Take;
use super::{Eval, QueryError};

/// The labels by which info series belong to others.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

impl Eval<'_> {
    pub(super) fn info(&mut self, call: &Call, frame: Frame) -> Result<Batch, QueryError> {
        let (at_ms, offset_ms) = reference(&call.args[0], None, 0).unwrap_or((None, 0));
        let base = self.eval(&call.args[0], frame)?;
        for series in &base {
            self.release(series);
        }
        let asked: &[Matcher] = match call.args.get(1) {
            Some(Node::Select(selector)) => &selector.matchers,
            _ => &[],
        };
        let (names, data): (Vec<Matcher>, Vec<Matcher>) =
            asked.iter().cloned().partition(|m| m.name == METRIC_NAME);
        let names = name_matchers(names)?;
        // Info series themselves stay as they are.
        let ignored: Vec<bool> = base
            .iter()
            .map(|s| {
                let name = s.labels.metric_name().unwrap_or("");
                names.iter().all(|m| m.matches(name))
            })
            .collect();
        let infos = self.info_series(&base, &ignored, &names, &data, (at_ms, offset_ms), frame)?;
        let mut out = Batch::new();
        let enrich = Enrich { infos: &infos, data: &data, frame };
        enrich.check_conflicts()?;
        for (series, ignored) in base.into_iter().zip(ignored) {
            self.check_alive()?;
            if ignored {
                out.push(series);
            } else {
                enrich.series(series, &mut out)?;
            }
        }
        merge_equal(out, frame.count)
    }

    /// The info series that could belong to the base series; their lanes hold
    /// the times of the samples, in milliseconds.
    fn info_series(
        &mut self,
        base: &[Series],
        ignored: &[bool],
        names: &[Matcher],
        data: &[Matcher],
        (at_ms, offset_ms): (Option<i64>, i64),
        frame: Frame,
    ) -> Result<Batch, QueryError> {
        let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (series, _) in base.iter().zip(ignored).filter(|(_, ignored)| !**ignored) {
            for name in IDENTIFYING {
                if let Some(value) = series.labels.get(name) {
                    values.entry(name).or_default().insert(value);
                }
            }
        }
        if values.is_empty() {
            return Ok(Batch::new());
        }
        let mut matchers = Vec::new();
        for (name, values) in &values {
            let any: Vec<String> = values.iter().map(|v| regex::escape(v)).collect();
            matchers.push(matcher(MatchOp::Regex, name, &any.join("|"))?);
        }
        matchers.extend(data.iter().cloned());
        matchers.extend(names.iter().cloned());
        let selector = Selector {
            matchers,
            at_ms,
            offset_ms,
            extension: Extension::None,
            stats_only: false,
            span: Span::default(),
        };
        let mut infos = Batch::new();
        self.stream_newest(&selector, frame, Take::Millis, &mut |ev, series| {
            ev.budget.check_size(0, series.size_bytes())?;
            infos.push(std::mem::take(series));
            Ok(())
        })?;
        Ok(infos)
    }
}

fn matcher(op: MatchOp, name: &str, value: &str) -> Result<Matcher, QueryError> {
    Matcher::new(op, name, value).map_err(|e| QueryError::Execution(e.to_string()))
}

/// The conditions on the names of info series: `target_info` if there is
/// none, `.+_info` if there are only negative ones.
fn name_matchers(mut given: Vec<Matcher>) -> Result<Vec<Matcher>, QueryError> {
    if given.is_empty() {
        return Ok(vec![Matcher::equal(METRIC_NAME, "target_info")]);
    }
    if !given.iter().any(|m| matches!(m.op, MatchOp::Equal | MatchOp::Regex)) {
        given.insert(0, matcher(MatchOp::Regex, METRIC_NAME, ".+_info")?);
    }
    Ok(given)
}

/// `@` and offset that govern the first selector below a node: those of the
/// selector and of the subqueries around it, up to the first `@`.
fn reference(node: &Node, outer_at: Option<i64>, outer_offset: i64) -> Option<(Option<i64>, i64)> {
    let of_selector = |s: &Selector| match s.at_ms {
        Some(_) => (s.at_ms, s.offset_ms),
        None => (outer_at, s.offset_ms.saturating_add(outer_offset)),
    };
    let of_source = |source: &Source| match source {
        Source::Storage(selector) => Some(of_selector(selector)),
        Source::Subquery(s) => match s.at_ms {
            Some(_) => reference(&s.node, s.at_ms, s.offset_ms),
            None => reference(&s.node, outer_at, s.offset_ms.saturating_add(outer_offset)),
        },
    };
    let walk = |node: &Node| reference(node, outer_at, outer_offset);
    match node {
        Node::Number(_) | Node::String(_) | Node::Time => None,
        Node::Select(selector) => Some(of_selector(selector)),
        Node::Samples(range) => of_source(&range.source),
        Node::Rollup(r) => of_source(&r.range.source).or_else(|| r.params.iter().find_map(walk)),
        Node::Call(c) => c.args.iter().find_map(walk),
        Node::Aggregate(a) => walk(&a.node).or_else(|| a.param.as_ref().and_then(walk)),
        Node::Binary(b) => walk(&b.lhs).or_else(|| walk(&b.rhs)),
        Node::Negate(inner, _) | Node::Invariant(inner) => walk(inner),
        Node::Shared(_, inner) => walk(inner),
    }
}

/// Adds labels of info series to base series.
struct Enrich<'e> {
    infos: &'e [Series],
    data: &'e [Matcher],
    frame: Frame,
}

impl Enrich<'_> {
    /// What info and base series must have in common.
    fn identity(labels: &Labels) -> Labels {
        labels.keep(&IDENTIFYING)
    }

    fn name(series: &Series) -> &str {
        series.labels.metric_name().unwrap_or("")
    }

    /// Two info series of one name and identity must not have their newest
    /// samples at the same time.
    fn check_conflicts(&self) -> Result<(), QueryError> {
        let mut groups: HashMap<(&str, Labels), Vec<&Series>> = HashMap::new();
        for info in self.infos {
            groups.entry((Self::name(info), Self::identity(&info.labels))).or_default().push(info);
        }
        for group in groups.values().filter(|g| g.len() > 1) {
            for step in 0..self.frame.count {
                let mut newest: Option<(&Series, f64)> = None;
                for info in group {
                    let time = info.float(step);
                    if !is_present(time) {
                        continue;
                    }
                    match newest {
                        Some((other, old)) if old == time => {
                            return Err(QueryError::Execution(format!(
                                "found duplicate series for info metric: existing {} @ {old}, new {} @ {time}",
                                other.labels, info.labels
                            )));
                        }
                        Some((_, old)) if old > time => {}
                        _ => newest = Some((info, time)),
                    }
                }
            }
        }
        Ok(())
    }

    /// Splits a base series by the labels it gets at each step.
    fn series(&self, base: Series, out: &mut Batch) -> Result<(), QueryError> {
        let identity = Self::identity(&base.labels);
        let mut by_name: BTreeMap<&str, Vec<&Series>> = BTreeMap::new();
        for info in self.infos.iter().filter(|i| Self::identity(&i.labels) == identity) {
            by_name.entry(Self::name(info)).or_default().push(info);
        }
        let required = self.data.iter().any(|m| !m.matches_empty());
        let mut places: HashMap<Labels, usize> = HashMap::new();
        let mut parts: Batch = Vec::new();
        for step in 0..self.frame.count {
            let Some(point) = base.point(step) else { continue };
            let newest: Vec<&Series> = by_name
                .values()
                .filter_map(|infos| {
                    infos
                        .iter()
                        .copied()
                        .filter(|i| is_present(i.float(step)))
                        .max_by(|a, b| a.float(step).total_cmp(&b.float(step)))
                })
                .collect();
            if newest.is_empty() && required {
                continue;
            }
            let labels = self.labels(&base.labels, &newest)?;
            let place = *places.entry(labels.clone()).or_insert_with(|| {
                parts.push(Series { drop_name: base.drop_name, ..Series::new(labels) });
                parts.len() - 1
            });
            parts[place].set(step, self.frame.count, point);
        }
        out.extend(parts);
        Ok(())
    }

    fn labels(&self, base: &Labels, infos: &[&Series]) -> Result<Labels, QueryError> {
        let wanted: HashSet<&str> = self.data.iter().map(|m| m.name.as_str()).collect();
        let mut added = LabelsBuilder::new();
        for info in infos {
            for (name, value) in &info.labels {
                if name == METRIC_NAME || !(wanted.is_empty() || wanted.contains(name)) {
                    continue;
                }
                let before = added.get(name);
                if !before.is_empty() && before != value {
                    return Err(QueryError::Execution(format!("conflicting label: {name}")));
                }
                if base.get(name).is_none() {
                    added.set(name, value);
                }
            }
        }
        let mut builder = base.to_builder();
        for (name, value) in added.iter() {
            builder.set(name, value);
        }
        Ok(builder.build())
    }
}

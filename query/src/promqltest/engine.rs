//! The engine as scripts ask it.

use super::Evaluator;
use crate::ast::Expr;
use crate::engine::{Engine, EngineOptions, QueryOptions};
use crate::memory::MemoryStorage;
use crate::value::QueryResult;

/// Most samples that a query of a script may hold.
const MAX_SAMPLES: u64 = 10_000;

/// An engine with the settings that scripts are written for: everything
/// experimental is on, and metric names are dropped at the end of a query.
#[must_use]
pub fn script_engine() -> Engine {
    Engine::new(EngineOptions {
        max_samples: MAX_SAMPLES,
        delayed_name_removal: true,
        use_start_timestamps: true,
        warn_sort_in_range: true,
        ..EngineOptions::default()
    })
}

impl Evaluator for Engine {
    fn instant(
        &self,
        storage: &MemoryStorage,
        expr: &Expr,
        text: &str,
        time_ms: i64,
    ) -> Result<QueryResult, String> {
        Self::instant(self, storage, expr, text, time_ms, &QueryOptions::default())
            .map_err(|e| e.to_string())
    }

    fn range(
        &self,
        storage: &MemoryStorage,
        expr: &Expr,
        text: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<QueryResult, String> {
        let options = QueryOptions::default();
        Self::range(self, storage, expr, text, start_ms, end_ms, step_ms, &options)
            .map_err(|e| e.to_string())
    }
}

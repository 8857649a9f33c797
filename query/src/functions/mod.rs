//! Which functions are there, and what do they take? Signatures only, for the
//! parser; what they compute is the engine's, keyed by name.

use crate::ast::ValueType::{self, Matrix, Scalar, String as Text, Vector};

/// What a function takes and gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// Types of the arguments; the last one also of any further ones.
    pub args: &'static [ValueType],
    /// 0: exactly these arguments. Above 0: the last one may be left out, and
    /// there may be `variadic` in its place. Below: it may be repeated at will
    /// or left out.
    pub variadic: i32,
    /// What it gives.
    pub returns: ValueType,
    /// Whether it needs `promql-experimental-functions`.
    pub experimental: bool,
}

/// Functions that share a signature.
struct Family {
    args: &'static [ValueType],
    variadic: i32,
    returns: ValueType,
    stable: &'static [&'static str],
    experimental: &'static [&'static str],
}

const FAMILIES: &[Family] = &[
    Family {
        args: &[Vector],
        variadic: 0,
        returns: Vector,
        stable: &[
            "abs",
            "absent",
            "acos",
            "acosh",
            "asin",
            "asinh",
            "atan",
            "atanh",
            "ceil",
            "cos",
            "cosh",
            "deg",
            "exp",
            "floor",
            "histogram_avg",
            "histogram_count",
            "histogram_stddev",
            "histogram_stdvar",
            "histogram_sum",
            "ln",
            "log10",
            "log2",
            "rad",
            "sgn",
            "sin",
            "sinh",
            "sort",
            "sort_desc",
            "sqrt",
            "tan",
            "tanh",
            "timestamp",
        ],
        experimental: &["start_timestamp"],
    },
    Family {
        args: &[Matrix],
        variadic: 0,
        returns: Vector,
        stable: &[
            "absent_over_time",
            "avg_over_time",
            "changes",
            "count_over_time",
            "delta",
            "deriv",
            "first_over_time",
            "idelta",
            "increase",
            "irate",
            "last_over_time",
            "max_over_time",
            "min_over_time",
            "present_over_time",
            "rate",
            "resets",
            "stddev_over_time",
            "stdvar_over_time",
            "sum_over_time",
        ],
        experimental: &[
            "mad_over_time",
            "ts_of_first_over_time",
            "ts_of_last_over_time",
            "ts_of_max_over_time",
            "ts_of_min_over_time",
        ],
    },
    // Without an argument, of the evaluation time.
    Family {
        args: &[Vector],
        variadic: 1,
        returns: Vector,
        stable: &[
            "day_of_month",
            "day_of_week",
            "day_of_year",
            "days_in_month",
            "hour",
            "minute",
            "month",
            "year",
        ],
        experimental: &[],
    },
    Family {
        args: &[],
        variadic: 0,
        returns: Scalar,
        stable: &["pi", "time"],
        experimental: &["end", "range", "start", "step"],
    },
    Family {
        args: &[Scalar, Scalar],
        variadic: 0,
        returns: Scalar,
        stable: &[],
        experimental: &["max_of", "min_of"],
    },
    Family {
        args: &[Vector],
        variadic: 0,
        returns: Scalar,
        stable: &["scalar"],
        experimental: &[],
    },
    Family {
        args: &[Scalar],
        variadic: 0,
        returns: Vector,
        stable: &["vector"],
        experimental: &[],
    },
    Family {
        args: &[Vector, Scalar],
        variadic: 0,
        returns: Vector,
        stable: &["clamp_max", "clamp_min"],
        experimental: &[],
    },
    Family {
        args: &[Vector, Scalar],
        variadic: 1,
        returns: Vector,
        stable: &["round"],
        experimental: &[],
    },
    Family {
        args: &[Vector, Scalar, Scalar],
        variadic: 0,
        returns: Vector,
        stable: &["clamp"],
        experimental: &[],
    },
    Family {
        args: &[Scalar, Vector],
        variadic: 0,
        returns: Vector,
        stable: &["histogram_quantile"],
        experimental: &[],
    },
    Family {
        args: &[Scalar, Scalar, Vector],
        variadic: 0,
        returns: Vector,
        stable: &["histogram_fraction"],
        experimental: &[],
    },
    Family {
        args: &[Vector, Text, Scalar, Scalar],
        variadic: 9,
        returns: Vector,
        stable: &[],
        experimental: &["histogram_quantiles"],
    },
    Family {
        args: &[Scalar, Matrix],
        variadic: 0,
        returns: Vector,
        stable: &["quantile_over_time"],
        experimental: &[],
    },
    Family {
        args: &[Matrix, Scalar],
        variadic: 0,
        returns: Vector,
        stable: &["predict_linear"],
        experimental: &[],
    },
    Family {
        args: &[Matrix, Scalar, Scalar],
        variadic: 0,
        returns: Vector,
        stable: &[],
        experimental: &["double_exponential_smoothing"],
    },
    Family {
        args: &[Vector, Vector],
        variadic: 1,
        returns: Vector,
        stable: &[],
        experimental: &["info"],
    },
    Family {
        args: &[Vector, Text, Text, Text],
        variadic: -1,
        returns: Vector,
        stable: &["label_join"],
        experimental: &[],
    },
    Family {
        args: &[Vector, Text, Text, Text, Text],
        variadic: 0,
        returns: Vector,
        stable: &["label_replace"],
        experimental: &[],
    },
    Family {
        args: &[Vector, Text],
        variadic: -1,
        returns: Vector,
        stable: &[],
        experimental: &["sort_by_label", "sort_by_label_desc"],
    },
];

/// All functions, in no particular order.
pub fn all() -> impl Iterator<Item = Function> {
    FAMILIES.iter().flat_map(|family| {
        let make = move |experimental: bool| {
            move |name: &&'static str| Function {
                name,
                args: family.args,
                variadic: family.variadic,
                returns: family.returns,
                experimental,
            }
        };
        family.stable.iter().map(make(false)).chain(family.experimental.iter().map(make(true)))
    })
}

/// The function of that name; case matters.
#[must_use]
pub fn find(name: &str) -> Option<Function> {
    all().find(|function| function.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique() {
        let names: HashSet<&str> = all().map(|f| f.name).collect();
        assert_eq!(names.len(), all().count());
        assert_eq!(names.len(), 90);
        assert!(find("rate").is_some() && find("Rate").is_none());
    }
}

//! Relabel rules made by chance, and labels for them to work on.

use std::net::SocketAddr;

/// Target groups of a job; all of them are different targets.
pub const GROUPS: u64 = 3;

/// Numbers that look random and are the same in each run (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

const LABELS: [&str; 6] = ["a", "b", "Camel", "long_label", "t_1", "instance"];
const VALUES: [&str; 14] = [
    "",
    "a",
    "ab",
    "b",
    "a\nb",
    "10.0.0.1:9100",
    "ü",
    "STRASSE",
    "straße",
    "x;y",
    "AbC",
    "$1",
    "1",
    "0123456789",
];
const REGEXES: [&str; 20] = [
    "",
    "(.*)",
    "(.+)",
    "a",
    "a|ab",
    "(a|b)+",
    "(?i)ABC",
    "(.)(.*)",
    "([^:]+):(\\d+)",
    "(?P<n>.)(?P<m>.*)",
    "a.b",
    "^a$",
    "\\w+",
    "(a)?(b)?",
    ".*[0-9]",
    "(?-s)a.b",
    "[[:alpha:]]+",
    "\\pL+",
    "x;(y)",
    "(a(b)?)?;?(.*)",
];
const REPLACEMENTS: [&str; 14] = [
    "$1",
    "${1}",
    "${1}x",
    "$1x",
    "$$1",
    "$0",
    "$2-$1",
    "${n}_${m}",
    "$n",
    "lit",
    "",
    "$",
    "a$-b",
    "${1",
];
const TARGETS: [&str; 7] = ["a", "b", "new", "t_$1", "${1}", "instance", "job"];
const NAME_REGEXES: [&str; 6] = ["a", "(.)", "long_(.*)", "C.*", "t_\\d", "(a|b)"];

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text")
}

fn rule(chance: &mut Chance) -> String {
    let sources: Vec<&str> = (0..chance.below(3)).map(|_| chance.of(&LABELS)).collect();
    let mut out = format!("source_labels: [{}]", sources.join(","));
    if chance.below(3) == 0 {
        out.push_str(&format!(", separator: {}", quoted(chance.of(&["", "@", "$1", "\n"]))));
    }
    let regex = |chance: &mut Chance| format!(", regex: {}", quoted(chance.of(&REGEXES)));
    match chance.below(9) {
        0 => out.push_str(&format!("{}, action: keep", regex(chance))),
        1 => out.push_str(&format!("{}, action: drop", regex(chance))),
        2 => {
            let modulus = [1, 2, 7, 1000, u64::MAX][chance.below(5)];
            out.push_str(&format!(", modulus: {modulus}, target_label: shard, action: hashmod"));
        }
        3 => out.push_str(", target_label: a, action: lowercase"),
        4 => out.push_str(", target_label: b, action: uppercase"),
        5 => {
            let action = chance.of(&["keepequal", "dropequal"]);
            out = format!("source_labels: [a], target_label: b, action: {action}");
        }
        // Two names that become one: either value may win.
        6 => {
            let (names, to) = (chance.of(&NAME_REGEXES), chance.of(&["x_$1", "$1"]));
            out =
                format!("regex: {}, replacement: {}, action: labelmap", quoted(names), quoted(to));
        }
        7 => {
            let names = chance.of(&NAME_REGEXES);
            let keep =
                format!("regex: {}, action: labelkeep", quoted(&format!("__.*|job|{names}")));
            let drop = format!("regex: {}, action: labeldrop", quoted(names));
            out = if chance.below(2) == 0 { keep } else { drop };
        }
        _ => out.push_str(&format!(
            "{}, target_label: {}, replacement: {}, action: Replace",
            regex(chance),
            quoted(chance.of(&TARGETS)),
            quoted(chance.of(&REPLACEMENTS))
        )),
    }
    out
}

/// A job with some groups and rules; nothing listens at `address`.
pub fn job(seed: u64, address: SocketAddr) -> String {
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut out = format!("- job_name: job-{seed}\n  static_configs:\n");
    for group in 0..GROUPS {
        let mut labels = format!("__group: '{group}'");
        for label in LABELS {
            if chance.below(2) == 0 {
                labels.push_str(&format!(", {label}: {}", quoted(chance.of(&VALUES))));
            }
        }
        out.push_str(&format!("  - {{targets: ['{address}'], labels: {{{labels}}}}}\n"));
    }
    out.push_str("  relabel_configs:\n");
    for _ in 0..=chance.below(4) {
        out.push_str(&format!("  - {{{}}}\n", rule(&mut chance)));
    }
    out
}

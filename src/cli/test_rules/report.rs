//! What came of the tests? Results for people and for JUnit readers.

use std::fmt::Write as _;

/// The results of one file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Suite {
    pub(super) name: String,
    pub(super) cases: Vec<Case>,
    /// Why nothing was run.
    pub(super) error: Option<String>,
}

/// The result of one test.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) failures: Vec<String>,
}

impl Suite {
    /// Everything that is wrong.
    pub(super) fn errors(&self) -> impl Iterator<Item = &String> {
        self.error.iter().chain(self.cases.iter().flat_map(|case| &case.failures))
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push_str("&#xA;"),
            '\t' => out.push_str("&#x9;"),
            '\r' => out.push_str("&#xD;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// All results as JUnit XML.
pub(super) fn junit(suites: &[Suite]) -> String {
    let mut out = "<testsuites>".to_owned();
    for suite in suites {
        let failures: usize = suite.cases.iter().map(|case| case.failures.len()).sum();
        let _ = write!(
            out,
            "<testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"{}\" skipped=\"0\">",
            escape(&suite.name),
            suite.cases.len(),
            usize::from(suite.error.is_some()),
        );
        for case in &suite.cases {
            let _ = write!(out, "<testcase name=\"{}\">", escape(&case.name));
            for failure in &case.failures {
                let _ = write!(out, "<failure>{}</failure>", escape(failure));
            }
            out.push_str("</testcase>");
        }
        if let Some(error) = &suite.error {
            let error = escape(error);
            let _ = write!(out, "<testcase name=\"unknown\"><error>{error}</error></testcase>");
        }
        out.push_str("</testsuite>");
    }
    out.push_str("</testsuites>\n");
    out
}

/// Both texts line by line: what is missing with `-`, what is too much with
/// `+`.
pub(super) fn difference(expected: &str, got: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), got.lines().collect());
    // Lengths of common subsequences; the texts are a few lines long.
    let width = new.len() + 1;
    let mut common = vec![0_usize; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for k in (0..new.len()).rev() {
            common[i * width + k] = if old[i] == new[k] {
                common[(i + 1) * width + k + 1] + 1
            } else {
                common[(i + 1) * width + k].max(common[i * width + k + 1])
            };
        }
    }
    let (mut i, mut k) = (0, 0);
    let mut out = String::new();
    while i < old.len() || k < new.len() {
        let same = i < old.len() && k < new.len() && old[i] == new[k];
        let (mark, line) = if same {
            (' ', old[i])
        } else if k == new.len()
            || (i < old.len() && common[(i + 1) * width + k] >= common[i * width + k + 1])
        {
            ('-', old[i])
        } else {
            ('+', new[k])
        };
        i += usize::from(mark != '+');
        k += usize::from(mark != '-');
        let _ = writeln!(out, "        {mark} {line}");
    }
    out
}

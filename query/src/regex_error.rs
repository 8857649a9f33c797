//! What does Prometheus say about a regular expression it cannot read? Go's
//! words for what is wrong, found by looking for the usual mistakes.

/// Go's message for `expression`, of which our engine said `ours`.
#[must_use]
pub fn message(expression: &str, ours: &str) -> String {
    match fault(expression) {
        Some((what, part)) => format!("error parsing regexp: {what}: `{part}`"),
        None => format!(
            "error parsing regexp: {}: `{expression}`",
            ours.lines().last().unwrap_or(ours).trim_start_matches("error: ")
        ),
    }
}

/// What is wrong, and with which part; `None` if it is none of the usual.
fn fault(expression: &str) -> Option<(&'static str, String)> {
    let chars: Vec<char> = expression.chars().collect();
    let text = |from: usize, to: usize| chars[from.min(to)..to].iter().collect::<String>();
    let mut depth = 0_usize;
    // Where the newest atom's repetition would apply from; `None` if nothing
    // can be repeated here.
    let mut repeatable = false;
    let mut repeated: Option<usize> = None;
    let mut i = 0;
    while i < chars.len() {
        let at = i;
        i += 1;
        match chars[at] {
            '\\' => {
                let Some(c) = chars.get(i) else {
                    return Some(("trailing backslash at end of expression", String::new()));
                };
                let known =
                    !c.is_ascii_alphanumeric() || "pPdDwWsSbBAzQECafnrtvx01234567".contains(*c);
                if !known {
                    return Some(("invalid escape sequence", text(at, i + 1)));
                }
                i += 1;
                (repeatable, repeated) = (true, None);
            }
            '[' => {
                let mut end = i;
                if chars.get(end) == Some(&'^') {
                    end += 1;
                }
                if chars.get(end) == Some(&']') {
                    end += 1;
                }
                while chars.get(end).is_some_and(|c| *c != ']') {
                    end += if chars[end] == '\\' { 2 } else { 1 };
                }
                if end >= chars.len() {
                    return Some(("missing closing ]", text(at, chars.len())));
                }
                i = end + 1;
                (repeatable, repeated) = (true, None);
            }
            '(' => {
                if chars.get(i) == Some(&'?') {
                    let end = (i..chars.len()).find(|j| ")=!:>".contains(chars[*j]));
                    let Some(end) = end else {
                        return Some(("missing argument to repetition operator", "?".to_owned()));
                    };
                    let opener = text(at, end + 1);
                    if matches!(opener.as_str(), "(?=" | "(?!" | "(?<=" | "(?<!") {
                        return Some((
                            "invalid or unsupported Perl syntax",
                            text(at, (end + 1).min(at + 3)),
                        ));
                    }
                    i = end + 1;
                    depth += usize::from(chars[end] != ')');
                } else {
                    depth += 1;
                }
                (repeatable, repeated) = (false, None);
            }
            ')' if depth == 0 => return Some(("unexpected )", expression.to_owned())),
            ')' => {
                depth -= 1;
                (repeatable, repeated) = (true, None);
            }
            '|' | '^' => (repeatable, repeated) = (false, None),
            '*' | '+' | '?' => {
                if !repeatable {
                    return Some(("missing argument to repetition operator", text(at, i)));
                }
                if chars.get(i) == Some(&'?') {
                    i += 1;
                }
                if let Some(first) = repeated {
                    return Some(("invalid nested repetition operator", text(first, i)));
                }
                repeated = Some(at);
            }
            _ => (repeatable, repeated) = (true, None),
        }
    }
    (depth > 0).then(|| ("missing closing )", expression.to_owned()))
}

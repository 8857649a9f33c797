//! OpenMetrics text, versions 0.0.1 and 1.0.0.
//!
//! The rules are those of Prometheus' `openmetricslex.l` and
//! `openmetricsparse.go`: exactly one space between parts, timestamps in
//! seconds, exemplars behind a sample, and `# EOF` at the end.

use narthex_storage::sample::MetricKind;

use super::{
    Entry, Lexer, ParseError, RawExemplar, RawLabels, RawSample, State, Token, float::parse_float,
    is_label, is_label_start, is_name, is_name_start, quoted, run, string_end, value,
};

const NO_EOF: &str = "data does not end with # EOF";

/// Parses the entry that starts at `at`; labels and exemplar of a sample go
/// to `labels`. Gives the entry and where the next one starts.
///
/// # Errors
///
/// [`ParseError`] with the line of the entry.
pub fn entry<'a>(
    page: &'a [u8],
    at: usize,
    labels: &mut RawLabels,
) -> Result<(Entry<'a>, usize), ParseError> {
    let mut lexer = Lexer::new(page, at);
    parse(&mut lexer, labels)
        .map(|entry| (entry, lexer.at))
        .map_err(|message| ParseError::at(page, lexer.start, message))
}

fn parse<'a>(lexer: &mut Lexer<'a>, labels: &mut RawLabels) -> Result<Entry<'a>, String> {
    labels.clear();
    let start = lexer.at;
    match lex(lexer) {
        Token::EofWord => match lex(lexer) {
            Token::Eof => Ok(Entry::End),
            _ => Err("unexpected data after # EOF".to_owned()),
        },
        Token::Eof => Err(NO_EOF.to_owned()),
        token @ (Token::Help | Token::Type | Token::Unit) => metadata(lexer, start, token),
        Token::BraceOpen => {
            label_values(lexer, start, labels, false)?;
            let end = lexer.at;
            let token = lex(lexer);
            sample(lexer, start, end, token, labels)
        }
        Token::MetricName => {
            labels.name = Some(start..lexer.at);
            let mut end = lexer.at;
            let mut token = lex(lexer);
            if token == Token::BraceOpen {
                label_values(lexer, start, labels, false)?;
                end = lexer.at;
                token = lex(lexer);
            }
            sample(lexer, start, end, token, labels)
        }
        t => Err(lexer.error(start, "expected a valid start token", t)),
    }
}

fn metadata<'a>(lexer: &mut Lexer<'a>, start: usize, what: Token) -> Result<Entry<'a>, String> {
    let token = lex(lexer);
    if token != Token::MetricName {
        let expected = format!("expected metric name after {}", what.name());
        return Err(lexer.error(start, &expected, token));
    }
    let name = match lexer.text() {
        [b'"', name @ .., b'"'] => name,
        name => name,
    };
    if lex(lexer) != Token::Text {
        return Err(format!("expected text in {}", what.name()));
    }
    let text = match lexer.text() {
        [_, text @ .., b'\n'] => text,
        _ => &[],
    };
    if what == Token::Type {
        return Ok(Entry::Type(
            name,
            match text {
                b"counter" => MetricKind::Counter,
                b"gauge" => MetricKind::Gauge,
                b"histogram" => MetricKind::Histogram,
                b"gaugehistogram" => MetricKind::GaugeHistogram,
                b"summary" => MetricKind::Summary,
                b"info" => MetricKind::Info,
                b"stateset" => MetricKind::StateSet,
                b"unknown" => MetricKind::Unknown,
                other => return Err(format!("invalid metric type {}", quoted(other))),
            },
        ));
    }
    if what == Token::Help {
        if std::str::from_utf8(text).is_err() {
            return Err(format!("help text {} is not a valid utf8 string", quoted(text)));
        }
        return Ok(Entry::Help(name, text));
    }
    let fits =
        text.is_empty() || name.strip_suffix(text).is_some_and(|rest| rest.last() == Some(&b'_'));
    if fits {
        return Ok(Entry::Unit(name, text));
    }
    Err(format!("unit {} not a suffix of metric {}", quoted(text), quoted(name)))
}

fn label_values(
    lexer: &mut Lexer<'_>,
    start: usize,
    labels: &mut RawLabels,
    exemplar: bool,
) -> Result<(), String> {
    let mut token = lex(lexer);
    loop {
        let mut name = lexer.start..lexer.at;
        match token {
            Token::BraceClose => return Ok(()),
            Token::LabelName => {}
            Token::QuotedString => name = name.start + 1..name.end - 1,
            t => return Err(lexer.error(start, "expected label name", t)),
        }
        let is_quoted = token == Token::QuotedString;
        token = lex(lexer);
        // A quoted string without a value is the metric name.
        if is_quoted && matches!(token, Token::Comma | Token::BraceClose) {
            if exemplar {
                return Err(lexer.error(start, "expected label name", token));
            }
            if labels.name.is_some() {
                let parsed = quoted(&lexer.page[start..lexer.at]);
                return Err(format!("metric name already set while parsing: {parsed}"));
            }
            labels.name = Some(name);
            if token == Token::BraceClose {
                return Ok(());
            }
            token = lex(lexer);
            continue;
        }
        if token != Token::Equal {
            return Err(lexer.error(start, "expected equal", token));
        }
        token = lex(lexer);
        if token != Token::LabelValue {
            return Err(lexer.error(start, "expected label value", token));
        }
        if std::str::from_utf8(lexer.text()).is_err() {
            return Err(format!("invalid UTF-8 label value: {}", quoted(lexer.text())));
        }
        let value = lexer.start + 1..lexer.at - 1;
        match &mut labels.exemplar {
            Some(e) if exemplar => e.pairs.push((name, value)),
            _ => labels.pairs.push((name, value)),
        }
        token = lex(lexer);
        if token == Token::Comma {
            token = lex(lexer);
        } else if token != Token::BraceClose {
            return Err(lexer.error(start, "expected comma or brace close", token));
        }
    }
}

fn sample<'a>(
    lexer: &mut Lexer<'a>,
    start: usize,
    end: usize,
    token: Token,
    labels: &mut RawLabels,
) -> Result<Entry<'a>, String> {
    if labels.name.is_none() {
        let parsed = quoted(&lexer.page[start..lexer.at]);
        return Err(format!("metric name not set while parsing: {parsed}"));
    }
    let value = number(lexer, token, start, "metric")?;
    let mut timestamp_ms = None;
    let mut token = lex(lexer);
    if token == Token::Timestamp {
        timestamp_ms = Some(seconds(lexer, start, "timestamp")?);
        token = lex(lexer);
        if !matches!(token, Token::Linebreak | Token::Comment) {
            return Err(lexer.error(start, "expected next entry after timestamp", token));
        }
    }
    match token {
        Token::Linebreak => {}
        Token::Comment => exemplar(lexer, start, labels)?,
        Token::Eof => return Err(NO_EOF.to_owned()),
        t => return Err(lexer.error(start, "expected timestamp or comment", t)),
    }
    Ok(Entry::Sample(RawSample { series: start..end, value, timestamp_ms }))
}

fn exemplar(lexer: &mut Lexer<'_>, start: usize, labels: &mut RawLabels) -> Result<(), String> {
    labels.exemplar = Some(RawExemplar::default());
    label_values(lexer, start, labels, true)?;
    let token = lex(lexer);
    let value = number(lexer, token, start, "exemplar labels")?;
    let timestamp_ms = match lex(lexer) {
        Token::Eof => return Err(NO_EOF.to_owned()),
        Token::Linebreak => None,
        Token::Timestamp => {
            let timestamp_ms = seconds(lexer, start, "exemplar timestamp")?;
            match lex(lexer) {
                Token::Linebreak => Some(timestamp_ms),
                t => {
                    return Err(lexer.error(
                        start,
                        "expected next entry after exemplar timestamp",
                        t,
                    ));
                }
            }
        }
        t => return Err(lexer.error(start, "expected timestamp or comment", t)),
    };
    if let Some(exemplar) = &mut labels.exemplar {
        (exemplar.value, exemplar.timestamp_ms) = (value, timestamp_ms);
    }
    Ok(())
}

fn number(lexer: &Lexer<'_>, token: Token, start: usize, after: &str) -> Result<f64, String> {
    if token != Token::Value {
        return Err(lexer.error(start, &format!("expected value after {after}"), token));
    }
    value(lexer, lexer.text().get(1..).unwrap_or_default(), start)
}

/// Seconds as milliseconds, cut as Go cuts them.
fn seconds(lexer: &Lexer<'_>, start: usize, what: &str) -> Result<i64, String> {
    let text = lexer.text().get(1..).unwrap_or_default();
    let seconds = match parse_float(text) {
        Some(seconds) => seconds,
        None => value(lexer, text, start)?,
    };
    if !seconds.is_finite() {
        return Err(format!("invalid {what} {seconds}"));
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "saturates; far timestamps are refused later"
    )]
    let timestamp_ms = (seconds * 1000.0) as i64;
    Ok(timestamp_ms)
}

fn lex(lexer: &mut Lexer<'_>) -> Token {
    let (page, at) = (lexer.page, lexer.at);
    let Some(&c) = page.get(at) else { return Token::Eof };
    lexer.start = at;
    let string = |lexer: &mut Lexer<'_>, across, state, token| match string_end(page, at, across) {
        Ok(end) => lexer.token(end, state, token),
        Err(end) => lexer.token(end, lexer.state, Token::Invalid),
    };
    match lexer.state {
        State::Init => match c {
            b'#' => keyword(lexer),
            b'{' => lexer.token(at + 1, State::Labels, Token::BraceOpen),
            c if is_name_start(c) => {
                lexer.token(run(page, at, is_name), State::Value, Token::MetricName)
            }
            _ => Token::Invalid,
        },
        State::Meta1 => match c {
            b'"' => string(lexer, true, State::Meta2, Token::MetricName),
            c if is_name_start(c) => {
                lexer.token(run(page, at, is_name), State::Meta2, Token::MetricName)
            }
            _ => Token::Invalid,
        },
        State::Meta2 if c == b' ' => {
            let end = run(page, at, |b| b != b'\n');
            if end == page.len() {
                return lexer.token(end, State::Meta2, Token::Invalid);
            }
            lexer.token(end + 1, State::Init, Token::Text)
        }
        State::Labels | State::Exemplar => {
            let (inside, after_equal) = match lexer.state {
                State::Labels => (State::Labels, State::LabelValue),
                _ => (State::Exemplar, State::ExemplarValue),
            };
            match c {
                b'"' => string(lexer, inside == State::Labels, inside, Token::QuotedString),
                b'}' if inside == State::Labels => {
                    lexer.token(at + 1, State::Value, Token::BraceClose)
                }
                b'}' => lexer.token(at + 1, State::ExemplarValue, Token::BraceClose),
                b'=' => lexer.token(at + 1, after_equal, Token::Equal),
                b',' => lexer.token(at + 1, inside, Token::Comma),
                c if is_label_start(c) => {
                    lexer.token(run(page, at, is_label), inside, Token::LabelName)
                }
                _ => Token::Invalid,
            }
        }
        State::LabelValue if c == b'"' => string(lexer, false, State::Labels, Token::LabelValue),
        State::ExemplarValue if c == b'"' => {
            string(lexer, false, State::Exemplar, Token::LabelValue)
        }
        State::Value if c == b'{' => lexer.token(at + 1, State::Labels, Token::BraceOpen),
        State::Value => word(lexer, State::Timestamp, Token::Value),
        State::ExemplarValue => word(lexer, State::ExemplarTimestamp, Token::Value),
        State::Timestamp | State::ExemplarTimestamp if c == b'\n' => {
            lexer.token(at + 1, State::Init, Token::Linebreak)
        }
        State::Timestamp if page[at..].starts_with(b" # {") => {
            lexer.token(at + 4, State::Exemplar, Token::Comment)
        }
        State::Timestamp | State::ExemplarTimestamp => word(lexer, lexer.state, Token::Timestamp),
        _ => Token::Invalid,
    }
}

/// A space and what follows up to the next one.
fn word(lexer: &mut Lexer<'_>, state: State, token: Token) -> Token {
    let at = lexer.at;
    if lexer.page[at] != b' ' {
        return Token::Invalid;
    }
    match run(lexer.page, at + 1, |b| !matches!(b, b' ' | b'\n')) {
        end if end == at + 1 => lexer.token(end, lexer.state, Token::Invalid),
        end => lexer.token(end, state, token),
    }
}

/// `# HELP `, `# TYPE `, `# UNIT ` or `# EOF`; there are no other comments.
fn keyword(lexer: &mut Lexer<'_>) -> Token {
    let at = lexer.at;
    let rest = &lexer.page[at..];
    for (word, token) in
        [(b"# HELP ", Token::Help), (b"# TYPE ", Token::Type), (b"# UNIT ", Token::Unit)]
    {
        if rest.starts_with(word) {
            lexer.start = at + 2;
            return lexer.token(at + word.len(), State::Meta1, token);
        }
    }
    if rest.starts_with(b"# EOF") {
        let end = at + 5 + usize::from(rest.get(5) == Some(&b'\n'));
        return lexer.token(end, State::Init, Token::EofWord);
    }
    let past = 1 + usize::from(rest.get(1) == Some(&b' '));
    lexer.token((at + past).min(lexer.page.len()), State::Comment, Token::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_storage::labels::LabelsBuilder;

    fn read(page: &[u8]) -> Result<Vec<String>, String> {
        let (mut at, mut raw, mut kind, mut out) =
            (0, RawLabels::default(), MetricKind::Unknown, vec![]);
        loop {
            let (entry, next) = entry(page, at, &mut raw).map_err(|e| e.message)?;
            at = next;
            match entry {
                Entry::End => return Ok(out),
                Entry::Type(_, k) => kind = k,
                Entry::Unit(name, unit) => {
                    out.push(format!("unit {} {}", quoted(name), quoted(unit)))
                }
                Entry::Sample(s) => {
                    let mut labels = LabelsBuilder::new();
                    raw.resolve(page, kind, &mut labels)?;
                    let exemplar = raw.exemplar.as_ref().map(|e| {
                        format!(" {:?} {:?} {:?}", e.labels(page), e.value, e.timestamp_ms)
                    });
                    out.push(format!(
                        "{} {:?} {:?}{}",
                        labels.build(),
                        s.value,
                        s.timestamp_ms,
                        exemplar.unwrap_or_default()
                    ));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn samples_exemplars_and_units_are_read() {
        let page = br#"# TYPE a_seconds histogram
# UNIT a_seconds seconds
# HELP a_seconds help
a_seconds_bucket{le="1"} 1 # {trace_id="x y",b="2"} 0.5 1.25
a_seconds_bucket{le="+Inf"} 2 1.5 # {} 0.25
a_seconds_sum -1.5 1520879607.789
{"u.8",x="1",} NaN
# EOF
"#;
        let expected = [
            r#"unit "a_seconds" "seconds""#,
            r#"{__name__="a_seconds_bucket", le="1.0"} 1.0 None {b="2", trace_id="x y"} 0.5 Some(1250)"#,
            r#"{__name__="a_seconds_bucket", le="+Inf"} 2.0 Some(1500) {} 0.25 None"#,
            r#"{__name__="a_seconds_sum"} -1.5 Some(1520879607789)"#,
            r#"{__name__="u.8", x="1"} NaN None"#,
        ];
        assert_eq!(read(page).expect("valid"), expected);
        assert_eq!(read(b"# EOF").expect("empty"), Vec::<String>::new());
    }

    #[test]
    fn errors_are_worded_as_in_prometheus() {
        for (page, message) in [
            (&b""[..], "data does not end with # EOF"),
            (b"\n", r#"expected a valid start token, got "\n" ("INVALID") while parsing: "\n""#),
            (
                b"metric",
                r#"expected value after metric, got "metric" ("EOF") while parsing: "metric""#,
            ),
            (b"metric 1", "data does not end with # EOF"),
            (b"metric 1\n", "data does not end with # EOF"),
            (b"m_total 1 # {aa=\"bb\"} 4", "data does not end with # EOF"),
            (
                b"a\n#EOF\n",
                r#"expected value after metric, got "\n" ("INVALID") while parsing: "a\n""#,
            ),
            (b" a 1\n", r#"expected a valid start token, got " " ("INVALID") while parsing: " ""#),
            (b"# TYPE u untyped\n", r#"invalid metric type "untyped""#),
            (
                b"#  TYPE c counter\n",
                r##"expected a valid start token, got "#  " ("INVALID") while parsing: "#  ""##,
            ),
            (
                b"#\tTYPE c counter\n",
                r##"expected a valid start token, got "#\t" ("INVALID") while parsing: "#\t""##,
            ),
            (
                b"# TYPE \n",
                r##"expected metric name after TYPE, got "\n" ("INVALID") while parsing: "# TYPE \n""##,
            ),
            (b"# TYPE m\n", "expected text in TYPE"),
            (
                b"# UNIT metricsuffix suffix\n",
                r#"unit "suffix" not a suffix of metric "metricsuffix""#,
            ),
            (
                b"a\t1\n",
                r#"expected value after metric, got "\t" ("INVALID") while parsing: "a\t""#,
            ),
            (
                b"a 1\t2\n",
                r#"strconv.ParseFloat: parsing "1\t2": invalid syntax while parsing: "a 1\t2""#,
            ),
            (
                b"a 1 2 \n",
                r#"expected next entry after timestamp, got " \n" ("INVALID") while parsing: "a 1 2 \n""#,
            ),
            (
                b"a 1 2 #\n",
                r##"expected next entry after timestamp, got " #\n" ("TIMESTAMP") while parsing: "a 1 2 #\n""##,
            ),
            (
                b"a 1 1z\n",
                r#"strconv.ParseFloat: parsing "1z": invalid syntax while parsing: "a 1 1z""#,
            ),
            (b"# EOF\na 1", "unexpected data after # EOF"),
            (b"# EOF\n\n", "unexpected data after # EOF"),
            (
                b"a{,b=\"c\"} 1\n",
                r#"expected label name, got ",b" ("COMMA") while parsing: "a{,b""#,
            ),
            (
                b"a{b=\"c\"d=\"e\"} 1\n",
                r#"expected comma or brace close, got "d=" ("LNAME") while parsing: "a{b=\"c\"d=""#,
            ),
            (
                b"weird{p=\"\n# EOF\n",
                r#"expected label value, got "\"\n" ("INVALID") while parsing: "weird{p=\"\n""#,
            ),
            (b"a 1 NaN\n", "invalid timestamp NaN"),
        ] {
            assert_eq!(read(page).expect_err(message), message);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(page in "([a{}\"=,#\\\\ \t\n01.]|# HELP |# TYPE |# EOF| # \\{|\\PC){0,60}") {
            let _ = read(page.as_bytes());
        }
    }
}

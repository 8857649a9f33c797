//! The text format, versions 0.0.4 and 1.0.0.
//!
//! The rules are those of Prometheus' `promlex.l` and `promparse.go`, oddities
//! included: values may follow a name without white space, label values may
//! hold raw line ends, timestamps have no sign, and a NUL byte where an entry
//! should start ends the page.

use narthex_storage::sample::MetricKind;

use super::{
    Entry, Lexer, ParseError, RawLabels, RawSample, State, Token, is_label, is_label_start,
    is_name, is_name_start, quoted, run, string_end, value,
};

/// Parses the entry that starts at `at`; its labels go to `labels`. Gives the
/// entry and where the next one starts. The page must end with a line end.
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
    loop {
        let start = lexer.at;
        match next(lexer) {
            Token::Eof => return Ok(Entry::End),
            Token::Linebreak => {}
            token @ (Token::Help | Token::Type) => return metadata(lexer, start, token),
            Token::Comment => {
                return match next(lexer) {
                    Token::Linebreak => Ok(Entry::Comment),
                    t => Err(lexer.error(start, "linebreak expected after comment", t)),
                };
            }
            Token::BraceOpen => {
                label_values(lexer, start, labels)?;
                let end = lexer.at;
                let token = next(lexer);
                return sample(lexer, start, end, token, labels);
            }
            Token::MetricName => {
                labels.name = Some(start..lexer.at);
                let mut end = lexer.at;
                let mut token = next(lexer);
                if token == Token::BraceOpen {
                    label_values(lexer, start, labels)?;
                    end = lexer.at;
                    token = next(lexer);
                }
                return sample(lexer, start, end, token, labels);
            }
            t => return Err(lexer.error(start, "expected a valid start token", t)),
        }
    }
}

fn metadata<'a>(lexer: &mut Lexer<'a>, start: usize, what: Token) -> Result<Entry<'a>, String> {
    let token = next(lexer);
    if token != Token::MetricName {
        let expected = format!("expected metric name after {}", what.name());
        return Err(lexer.error(start, &expected, token));
    }
    let name = match lexer.text() {
        [b'"', name @ .., b'"'] => name,
        name => name,
    };
    let token = next(lexer);
    if token != Token::Text {
        return Err(format!("expected text in {}, got {}", what.name(), token.name()));
    }
    let text = lexer.text().get(1..).unwrap_or_default();
    let entry = if what == Token::Type {
        Entry::Type(
            name,
            match text {
                b"counter" => MetricKind::Counter,
                b"gauge" => MetricKind::Gauge,
                b"histogram" => MetricKind::Histogram,
                b"summary" => MetricKind::Summary,
                b"untyped" => MetricKind::Unknown,
                other => return Err(format!("invalid metric type {}", quoted(other))),
            },
        )
    } else {
        if std::str::from_utf8(text).is_err() {
            return Err(format!("help text {} is not a valid utf8 string", quoted(text)));
        }
        Entry::Help(name, text)
    };
    match next(lexer) {
        Token::Linebreak => Ok(entry),
        t => Err(lexer.error(start, "linebreak expected after metadata", t)),
    }
}

fn label_values(lexer: &mut Lexer<'_>, start: usize, labels: &mut RawLabels) -> Result<(), String> {
    let mut token = next(lexer);
    loop {
        let mut name = lexer.start..lexer.at;
        match token {
            Token::BraceClose => return Ok(()),
            Token::LabelName => {}
            Token::QuotedString => name = name.start + 1..name.end - 1,
            t => return Err(lexer.error(start, "expected label name", t)),
        }
        let is_quoted = token == Token::QuotedString;
        token = next(lexer);
        // A quoted string without a value is the metric name.
        if is_quoted && matches!(token, Token::Comma | Token::BraceClose) {
            if labels.name.is_some() {
                let parsed = quoted(&lexer.page[start..lexer.at]);
                return Err(format!("metric name already set while parsing: {parsed}"));
            }
            labels.name = Some(name);
            if token == Token::BraceClose {
                return Ok(());
            }
            token = next(lexer);
            continue;
        }
        if token != Token::Equal {
            return Err(lexer.error(start, "expected equal", token));
        }
        token = next(lexer);
        if token != Token::LabelValue {
            return Err(lexer.error(start, "expected label value", token));
        }
        if std::str::from_utf8(lexer.text()).is_err() {
            return Err(format!("invalid UTF-8 label value: {}", quoted(lexer.text())));
        }
        labels.pairs.push((name, lexer.start + 1..lexer.at - 1));
        token = next(lexer);
        if token == Token::Comma {
            token = next(lexer);
        }
    }
}

fn sample<'a>(
    lexer: &mut Lexer<'a>,
    start: usize,
    end: usize,
    token: Token,
    labels: &RawLabels,
) -> Result<Entry<'a>, String> {
    let parsed = |lexer: &Lexer<'_>| quoted(&lexer.page[start..lexer.at]);
    if labels.name.is_none() {
        return Err(format!("metric name not set while parsing: {}", parsed(lexer)));
    }
    if token != Token::Value {
        return Err(lexer.error(start, "expected value after metric", token));
    }
    let value = value(lexer, lexer.text(), start)?;
    let timestamp_ms = match next(lexer) {
        Token::Linebreak => None,
        Token::Timestamp => {
            let text = std::str::from_utf8(lexer.text()).unwrap_or_default();
            let timestamp_ms = text.parse::<i64>().map_err(|_| {
                let parsed = parsed(lexer);
                format!("strconv.ParseInt: parsing \"{text}\": value out of range while parsing: {parsed}")
            })?;
            match next(lexer) {
                Token::Linebreak => Some(timestamp_ms),
                t => return Err(lexer.error(start, "expected next entry after timestamp", t)),
            }
        }
        t => return Err(lexer.error(start, "expected timestamp or new record", t)),
    };
    Ok(Entry::Sample(RawSample { series: start..end, value, timestamp_ms }))
}

/// The next token that is not white space.
fn next(lexer: &mut Lexer<'_>) -> Token {
    loop {
        match lex(lexer) {
            Token::Whitespace => {}
            token => return token,
        }
    }
}

const fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\t')
}

fn lex(lexer: &mut Lexer<'_>) -> Token {
    let (page, at) = (lexer.page, lexer.at);
    let Some(&c) = page.get(at) else { return Token::Eof };
    lexer.start = at;
    // The rest of a metadata line is one token, unless it is white space only.
    if lexer.state == State::Meta2 {
        let end = run(page, at, |b| b != b'\n');
        if end > at && page[at..end].iter().all(|b| is_space(*b)) {
            return lexer.token(end, State::Meta2, Token::Whitespace);
        }
        return lexer.token(end, State::Init, Token::Text);
    }
    if is_space(c) {
        let end = run(page, at, is_space);
        return lexer.token(end, lexer.state, Token::Whitespace);
    }
    let string = |lexer: &mut Lexer<'_>, state, token| match string_end(page, at, true) {
        Ok(end) => lexer.token(end, state, token),
        Err(end) => lexer.token(end, lexer.state, Token::Invalid),
    };
    match lexer.state {
        State::Init => match c {
            0 => Token::Eof,
            b'\n' => lexer.token(at + 1, State::Init, Token::Linebreak),
            b'#' => {
                let end = run(page, at + 1, is_space);
                if end > at + 1 { keyword(lexer, end) } else { comment(lexer, at + 1, true) }
            }
            b'{' => lexer.token(at + 1, State::Labels, Token::BraceOpen),
            c if is_name_start(c) => {
                lexer.token(run(page, at, is_name), State::Value, Token::MetricName)
            }
            _ => Token::Invalid,
        },
        State::Meta1 => match c {
            b'"' => string(lexer, State::Meta2, Token::MetricName),
            c if is_name_start(c) => {
                lexer.token(run(page, at, is_name), State::Meta2, Token::MetricName)
            }
            _ => Token::Invalid,
        },
        State::Labels => match c {
            b'"' => string(lexer, State::Labels, Token::QuotedString),
            b'}' => lexer.token(at + 1, State::Value, Token::BraceClose),
            b'=' => lexer.token(at + 1, State::LabelValue, Token::Equal),
            b',' => lexer.token(at + 1, State::Labels, Token::Comma),
            c if is_label_start(c) => {
                lexer.token(run(page, at, is_label), State::Labels, Token::LabelName)
            }
            _ => Token::Invalid,
        },
        State::LabelValue if c == b'"' => string(lexer, State::Labels, Token::LabelValue),
        State::Value => match c {
            b'{' => lexer.token(at + 1, State::Labels, Token::BraceOpen),
            b'\n' => Token::Invalid,
            _ => {
                let end = run(page, at, |b| !is_space(b) && !matches!(b, b'{' | b'\n'));
                lexer.token(end, State::Timestamp, Token::Value)
            }
        },
        State::Timestamp => match c {
            b'\n' => lexer.token(at + 1, State::Init, Token::Linebreak),
            b'0'..=b'9' => {
                let end = run(page, at, |b| b.is_ascii_digit());
                lexer.token(end, State::Timestamp, Token::Timestamp)
            }
            _ => Token::Invalid,
        },
        _ => Token::Invalid,
    }
}

/// After `#` and white space: `HELP`, `TYPE` or a comment.
fn keyword(lexer: &mut Lexer<'_>, at: usize) -> Token {
    let rest = &lexer.page[at..];
    for (word, token) in [(&b"HELP"[..], Token::Help), (b"TYPE", Token::Type)] {
        if rest.starts_with(word) && rest.get(4).copied().is_some_and(is_space) {
            lexer.start = at;
            let end = run(lexer.page, at + 4, is_space);
            return lexer.token(end, State::Meta1, token);
        }
    }
    comment(lexer, at, false)
}

fn comment(lexer: &mut Lexer<'_>, at: usize, nul_ends: bool) -> Token {
    let end = run(lexer.page, at, |b| b != b'\n');
    if nul_ends && lexer.page[at..end].contains(&0) {
        return Token::Eof;
    }
    lexer.token(end, State::Init, Token::Comment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_storage::labels::LabelsBuilder;

    /// `series value timestamp` of each sample, or the error.
    fn all(page: &str) -> Result<Vec<String>, String> {
        read(page.as_bytes())
    }

    fn read(page: &[u8]) -> Result<Vec<String>, String> {
        let page = [page, b"\n"].concat();
        let (mut at, mut raw, mut kind, mut out) =
            (0, RawLabels::default(), MetricKind::Unknown, vec![]);
        loop {
            let (entry, next) = entry(&page, at, &mut raw).map_err(|e| e.message)?;
            at = next;
            match entry {
                Entry::End => return Ok(out),
                Entry::Type(_, k) => kind = k,
                Entry::Sample(s) => {
                    let mut labels = LabelsBuilder::new();
                    raw.resolve(&page, kind, &mut labels)?;
                    out.push(format!("{} {:?} {:?}", labels.build(), s.value, s.timestamp_ms));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn samples_are_read_with_all_liberties() {
        let page = r#"
# HELP a  two  spaces
# TYPE h histogram
h_bucket{le="1",} 1
h_bucket { le= "1e3" x="y" } 2 1234
# TYPE s summary
s{quantile="0.50"} NaN
	# a comment
#
#no space
# HELPER is no keyword
a+1
a{}-1e3
a{b="\"\\\n\t"} +Inf
{"utf.8","l.l"="ä"} 0.5
{x="y","z",} 7
# HELP nohelp
# HELP nohelp "#;
        let expected = [
            r#"{__name__="h_bucket", le="1.0"} 1.0 None"#,
            r#"{__name__="h_bucket", le="1000.0", x="y"} 2.0 Some(1234)"#,
            r#"{__name__="s", quantile="0.5"} NaN None"#,
            r#"{__name__="a"} 1.0 None"#,
            r#"{__name__="a"} -1000.0 None"#,
            r#"{__name__="a", b="\"\\\n\\t"} inf None"#,
            r#"{__name__="utf.8", "l.l"="ä"} 0.5 None"#,
            r#"{__name__="z", x="y"} 7.0 None"#,
        ];
        assert_eq!(all(page).expect("valid"), expected);
    }

    #[test]
    fn raw_line_ends_and_nul_bytes_are_as_in_prometheus() {
        assert_eq!(
            all("a{b=\"1\n2\"} 3").expect("valid"),
            [r#"{__name__="a", b="1\n2"} 3.0 None"#]
        );
        assert_eq!(all("a 1\n\0 nothing\nb").expect("ends"), [r#"{__name__="a"} 1.0 None"#]);
        assert_eq!(all("a{b=\"\0\"} 1").expect("valid").len(), 1);
    }

    #[test]
    fn errors_are_worded_as_in_prometheus() {
        for (page, message) in [
            (
                &b"a"[..],
                r#"expected value after metric, got "\n" ("INVALID") while parsing: "a\n""#,
            ),
            (b"a{b='c'} 1", r#"expected label value, got "'" ("INVALID") while parsing: "a{b='""#),
            (b"a{b=", r#"expected label value, got "\n" ("INVALID") while parsing: "a{b=\n""#),
            (
                b"a{\xff=\"foo\"} 1",
                r#"expected label name, got "\xff" ("INVALID") while parsing: "a{\xff""#,
            ),
            (b"a{b=\"\xff\"} 1", r#"invalid UTF-8 label value: "\"\xff\"""#),
            (
                br#"{"a", "b = "c"}"#,
                r#"expected equal, got "c\"" ("LNAME") while parsing: "{\"a\", \"b = \"c\"""#,
            ),
            (
                b"a true",
                r#"strconv.ParseFloat: parsing "true": invalid syntax while parsing: "a true""#,
            ),
            (
                b"weird{p=\"",
                r#"expected label value, got "\"\n" ("INVALID") while parsing: "weird{p=\"\n""#,
            ),
            (b"e{=\"\"} 0", r#"expected label name, got "=\"" ("EQUAL") while parsing: "e{=\"""#),
            (b"{A}0", r#"expected equal, got "}0" ("BCLOSE") while parsing: "{A}0""#),
            (b"foo 1_2", r#"unsupported character in float while parsing: "foo 1_2""#),
            (b"foo 0x1P-3", r#"unsupported character in float while parsing: "foo 0x1P-3""#),
            (
                b"foo 1e999",
                r#"strconv.ParseFloat: parsing "1e999": value out of range while parsing: "foo 1e999""#,
            ),
            (
                b"foo 0 1_2",
                r#"expected next entry after timestamp, got "_" ("INVALID") while parsing: "foo 0 1_""#,
            ),
            (
                b"foo 0 -1",
                r#"expected timestamp or new record, got "-" ("INVALID") while parsing: "foo 0 -""#,
            ),
            (br#"{a="ok"} 1"#, r#"metric name not set while parsing: "{a=\"ok\"} 1""#),
            (
                b"# TYPE #\n#EOF",
                r##"expected metric name after TYPE, got "#" ("INVALID") while parsing: "# TYPE #""##,
            ),
            (b"# TYPE a strange", r#"invalid metric type "strange""#),
            (b"# TYPE a  gauge", r#"invalid metric type " gauge""#),
            (b"# HELP a \xff", r#"help text "\xff" is not a valid utf8 string"#),
            (
                b"a 1\r",
                r#"strconv.ParseFloat: parsing "1\r": invalid syntax while parsing: "a 1\r""#,
            ),
            (br#"a{b="1",b="2"} 1"#, r#"label name "b" is not unique: invalid sample"#),
        ] {
            assert_eq!(read(page).expect_err(message), message);
        }
    }

    #[test]
    fn errors_name_their_line() {
        let error = entry(b"\n\n?", 0, &mut RawLabels::default()).expect_err("no start");
        assert_eq!(error.line, 3);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(page in "([a{}\"=,#\\\\ \t\n01.]|HELP |TYPE |\\PC){0,60}") {
            let _ = all(&page);
        }
    }
}

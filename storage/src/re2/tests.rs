use super::*;
use regex::Regex;

fn matches(expression: &str, text: &str) -> bool {
    let translated = translate(expression).unwrap_or_else(|e| panic!("{expression}: {e}"));
    let whole = format!("^(?s:{translated})$");
    Regex::new(&whole).unwrap_or_else(|e| panic!("{expression}: {e}")).is_match(text)
}

#[test]
fn corners_mean_what_they_mean_in_re2() {
    for (expression, text) in [
        ("a{b", "a{b"),
        ("{path=\"/a\"}", "{path=\"/a\"}"),
        ("a{,2}", "a{,2}"),
        ("a{01}", "a{01}"),
        ("a{2}b{1,}c{0,1}", "aabb"),
        ("[[]", "["),
        ("[a[]+", "a["),
        ("[a&&b]+", "a&b"),
        ("[a&&z~~]+", "az~&"),
        ("[+--]+", "+,-"),
        ("[]a]+", "]a"),
        ("[^]a]", "b"),
        ("[a-]+", "a-"),
        ("[-a]+", "-a"),
        ("[\\d\\-x]+", "0-x"),
        ("[^\\D]+", "12"),
        ("[[:alpha:]_]+", "a_"),
        ("[\\]]", "]"),
        ("\\Qa.b*\\E+", "a.b**"),
        ("\\x41\\x{42}\\103\\0", "ABC\0"),
        ("\\<a\\>\\ \\#", "<a> #"),
        ("(?P<n>a)(?<m>b)(?:c)(?i)D", "abcd"),
        ("(?i:A)b", "ab"),
        ("(?s).", "\n"),
        ("^*a", "a"),
        ("a+?b", "aab"),
        ("\\w+\\W\\s\\S", "a_1! x"),
        ("x\\by?", "x"),
        ("\\pN\\p{^L}\\P{Greek}", "11a"),
        ("a#b c", "a#b c"),
        ("", ""),
        ("(|a)b", "b"),
    ] {
        assert!(matches(expression, text), "{expression} on {text:?}");
    }
    for (expression, text) in
        [("\\d", "\u{663}"), ("\\w", "é"), ("\\s", "\u{a0}"), ("[\\w]", "ß"), ("a{2}", "a")]
    {
        assert!(!matches(expression, text), "{expression} on {text:?}");
    }
}

#[test]
fn what_is_wrong_is_said_in_the_words_of_go() {
    for (expression, message) in [
        ("(a", "missing closing ): `(a`"),
        ("a)", "unexpected ): `a)`"),
        ("*a", "missing argument to repetition operator: `*`"),
        ("a|+", "missing argument to repetition operator: `+`"),
        ("(?:*)", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("a+?+", "invalid nested repetition operator: `+?+`"),
        ("x{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
        ("a{2,1}", "invalid repeat count: `{2,1}`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("[a", "missing closing ]: `[a`"),
        ("[z-a]", "invalid character class range: `z-a`"),
        ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
        ("\\p{Foo}", "invalid character class range: `\\p{Foo}`"),
        ("a\\", "trailing backslash at end of expression: ``"),
        ("\\8", "invalid escape sequence: `\\8`"),
        ("\\1", "invalid escape sequence: `\\1`"),
        ("\\C", "invalid escape sequence: `\\C`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?<=a)", "invalid or unsupported Perl syntax: `(?<`"),
        ("(?z)", "invalid or unsupported Perl syntax: `(?z`"),
        ("(?P<n", "invalid named capture: `(?P<n`"),
        ("(?P<n-m>a)", "invalid named capture: `(?P<n-m>`"),
        ("(?i", "missing closing ): `(?i`"),
    ] {
        let error = translate(expression).expect_err(expression);
        assert_eq!(error.to_string(), format!("error parsing regexp: {message}"), "{expression}");
    }
}

proptest::proptest! {
    #[test]
    fn translations_compile(expression in r"([a-c]|\\[dwsbnQE.]|[\[\](){}|*+?^$-]|:|&&|é|\{2\}|\(\?i\)|\[:word:\]){0,12}") {
        if let Ok(translated) = translate(&expression) {
            let compiled = Regex::new(&translated);
            proptest::prop_assert!(compiled.is_ok(), "{} became {}: {:?}", expression, translated, compiled);
        }
    }
}

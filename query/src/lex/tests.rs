use super::*;

fn kinds(text: &str) -> Vec<Kind> {
    let mut lexer = Lexer::new(text);
    let mut kinds = Vec::new();
    loop {
        match lexer.next_token().expect("valid").kind {
            Kind::Eof => return kinds,
            kind => kinds.push(kind),
        }
    }
}

fn error(text: &str) -> (String, usize) {
    let mut lexer = Lexer::new(text);
    loop {
        match lexer.next_token() {
            Ok(token) if token.kind == Kind::Eof => panic!("no error in {text:?}"),
            Ok(_) => {}
            Err(e) => return (e.message, e.start),
        }
    }
}

#[test]
fn words_mean_different_things_in_braces_and_brackets() {
    use Kind::*;
    assert_eq!(kinds("sum{sum=\"a\"}"), [Sum, LeftBrace, Identifier, Eql, String, RightBrace]);
    assert_eq!(
        kinds("a[5m:step()]"),
        [Identifier, LeftBracket, Duration, Colon, Step, LeftParen, RightParen, RightBracket]
    );
    assert_eq!(kinds("fill + fill (1)"), [Identifier, Add, Fill, LeftParen, Number, RightParen]);
    assert_eq!(kinds("a:b # c\n+ InF"), [MetricIdentifier, Add, Number]);
    assert_eq!(kinds("a </ 1 >/ 2"), [Identifier, TrimUpper, Number, TrimLower, Number]);
}

#[test]
fn what_is_no_word_is_named_with_its_place() {
    assert_eq!(error("(a"), ("unclosed left parenthesis".to_owned(), 2));
    assert_eq!(error("a)"), ("unexpected right parenthesis ')'".to_owned(), 2));
    assert_eq!(error("5mx"), ("bad number or duration syntax: \"5mx\"".to_owned(), 0));
    assert_eq!(error("\"\\q\""), ("unknown escape sequence U+0071 'q'".to_owned(), 0));
    assert_eq!(error("a{b=ä}"), ("unexpected character inside braces: 'ä'".to_owned(), 4));
}

#[test]
fn strings_are_unquoted_as_in_go() {
    assert_eq!(unquote(r#""a\n\x41\101\u00e9\xc3\xa9""#).as_deref(), Some("a\nAAéé"));
    assert_eq!(unquote("`a\\n`").as_deref(), Some("a\\n"));
    assert_eq!(unquote(r#"'\''"#).as_deref(), Some("'"));
    assert_eq!(unquote(r#"'\"'"#), None);
}

proptest::proptest! {
    #[test]
    fn any_text_ends(text in "\\PC{0,60}") {
        let mut lexer = Lexer::new(&text);
        let mut tokens = 0;
        while let Ok(token) = lexer.next_token() {
            if token.kind == Kind::Eof {
                break;
            }
            proptest::prop_assert!(token.start < token.end);
            tokens += 1;
            proptest::prop_assert!(tokens <= text.len());
        }
    }
}

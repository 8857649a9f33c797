//! Each command, from a file of samples to what it prints.

use super::dump::{Form, Request, dump};
use super::{analyze, create, list, open, verify};

const PAGE: &str = "# TYPE requests counter\n\
    requests_total{code=\"200\"} 3 1700000000.000\n\
    requests_total{code=\"200\"} 5.5 1700000015.000\n\
    requests_total{code=\"500\"} 1 1700090000.250\n\
    requests_total{code=\"500\"} 1e+21 1700000001\n\
    # TYPE \"my.requests\" gauge\n\
    {\"my.requests\",\"a.b\"=\"\\\\\\\"\\n\t\"} 7 1700000002\n\
    # EOF\n";

fn imported() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("page.txt");
    std::fs::write(&file, PAGE).expect("written");
    assert_eq!(create::import(&file, &directory.path().join("data")), Ok(5));
    directory
}

fn text(f: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    f(&mut out);
    String::from_utf8(out).expect("text")
}

fn request(form: Form) -> Request {
    Request { form, min_ms: i64::MIN, max_ms: i64::MAX, selectors: Vec::new() }
}

#[test]
fn what_was_imported_is_dumped_and_can_be_imported_again() {
    let directory = imported();
    let data = directory.path().join("data");
    let dumped = {
        let db = open(&data).expect("open");
        let lines = text(|out| dump(&db, &request(Form::Lines), out).expect("dump"));
        let expected = "{__name__=\"my.requests\", \"a.b\"=\"\\\\\\\"\\n\\t\"} 7 1700000002000\n\
            {__name__=\"requests_total\", code=\"200\"} 3 1700000000000\n\
            {__name__=\"requests_total\", code=\"200\"} 5.5 1700000015000\n\
            {__name__=\"requests_total\", code=\"500\"} 1e+21 1700000001000\n\
            {__name__=\"requests_total\", code=\"500\"} 1 1700090000250\n";
        assert_eq!(lines, expected);
        let some = Request {
            min_ms: 1_700_000_000_001,
            max_ms: 1_700_000_100_000,
            selectors: vec![
                narthex_query::parse::parse_selector("{code=\"200\"}").expect("selector"),
                narthex_query::parse::parse_selector("nothing").expect("selector"),
            ],
            ..request(Form::Lines)
        };
        let lines = text(|out| dump(&db, &some, out).expect("dump"));
        assert_eq!(lines, "{__name__=\"requests_total\", code=\"200\"} 5.5 1700000015000\n");
        text(|out| dump(&db, &request(Form::OpenMetrics), out).expect("dump"))
    };
    assert!(dumped.starts_with("{\"my.requests\",\"a.b\"=\"\\\\\\\"\\n\t\"} 7 "), "{dumped}");
    assert!(dumped.ends_with("requests_total{code=\"500\"} 1 1700090000.250\n# EOF\n"), "{dumped}");
    let file = directory.path().join("again.txt");
    std::fs::write(&file, &dumped).expect("written");
    let again = directory.path().join("again");
    assert_eq!(create::import(&file, &again), Ok(5));
    let db = open(&again).expect("open");
    let twice = text(|out| dump(&db, &request(Form::OpenMetrics), out).expect("dump"));
    assert_eq!(twice, dumped);
}

#[test]
fn a_file_with_an_error_is_not_imported() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (file, data) = (directory.path().join("page.txt"), directory.path().join("data"));
    for (page, message) in [
        ("a 1 1700000000\n", "data does not end with # EOF"),
        ("a 1 1700000000\nb 2\n# EOF\n", "expected timestamp for series b"),
    ] {
        std::fs::write(&file, page).expect("written");
        let error = create::import(&file, &data).expect_err("an error");
        assert!(error.contains(message), "{error}");
        assert!(!data.exists());
    }
}

#[test]
fn days_and_labels_are_counted() {
    let directory = imported();
    let db = open(&directory.path().join("data")).expect("open");
    let table = text(|out| list::list(&db, true, out).expect("list"));
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("DAY         MIN TIME"), "{table}");
    assert!(lines[1].starts_with("2023-11-14  2023-11-14 22:13:20 +0000 UTC"), "{table}");
    assert!(lines[2].starts_with("2023-11-15"), "{table}");
    let plain = text(|out| list::list(&db, false, out).expect("list"));
    assert!(plain.contains("1700090000250"), "{plain}");
    let said = text(|out| analyze::analyze(&db, 20, out).expect("analyze"));
    for line in
        ["Total Series: 3", "2 code", "2 requests_total", "1 code=200", "Samples in days: 5"]
    {
        assert!(said.lines().any(|l| l == line), "{line}: {said}");
    }
}

#[test]
fn damage_is_found() {
    let directory = imported();
    let data = directory.path().join("data");
    {
        let db = open(&data).expect("open");
        let said = text(|out| assert!(verify::verify(&db, out).expect("verify")));
        assert!(
            said.ends_with("5 samples, 3 series in days; 0 samples in the log; 0 problems\n"),
            "{said}"
        );
    }
    let day = data.join("days/2023-11-14");
    let file = std::fs::read_dir(day).expect("list").next().expect("a file").expect("entry").path();
    let mut bytes = std::fs::read(&file).expect("read");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).expect("write");
    let db = open(&data).expect("open");
    let said = text(|out| assert!(!verify::verify(&db, out).expect("verify")));
    assert!(said.contains("wrong checksum"), "{said}");
    assert!(open(&directory.path().join("nothing")).is_err());
}

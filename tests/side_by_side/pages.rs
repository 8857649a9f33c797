//! The pages: every format and oddity, each a job of its own.

use std::io::Write as _;

use super::proto::{self, Message, bucket, exemplar, family, metric, span};
use super::target::{Answer, Ask};

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const UTF8: &str = "text/plain; version=1.0.0; escaping=allow-utf-8";
const OM0: &str = "application/openmetrics-text; version=0.0.1; charset=utf-8";
const OM1: &str =
    "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8; charset=utf-8";
const PROTO: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// A page and the job that scrapes it.
pub struct Page {
    pub name: &'static str,
    /// More lines of the scrape configuration; `static_configs` in them
    /// replaces the usual one. `ADDRESS` is the server, `NOBODY` a closed port.
    pub job: &'static str,
    pub answer: fn(&Ask) -> Answer,
}

const fn page(name: &'static str, job: &'static str, answer: fn(&Ask) -> Answer) -> Page {
    Page { name, job, answer }
}

fn text(body: impl Into<Vec<u8>>) -> Answer {
    Answer::ok(TEXT, body)
}

fn simple(_: &Ask) -> Answer {
    text(
        "# TYPE a counter\n# HELP a Help of a.\na{x=\"1\"} 1\na{x=\"2\"} 2\nb 3\nc{x=\"1\",long_label_name=\"a value\"} 4\n",
    )
}

pub const PAGES: &[Page] = &[
    page("text", "", |ask| {
        let n = ask.n;
        text(format!(
            "# HELP requests_total Requests \\\\ with \\n line ends.\n# TYPE requests_total counter\n\
             requests_total{{code=\"200\"}} {}\nrequests_total{{code=\"500\",}} {n}\n\
             # TYPE sizes histogram\nsizes_bucket{{le=\"1\"}} {n}\nsizes_bucket{{le=\"2.50\"}} {n}\n\
             sizes_bucket{{le=\"1e6\"}} {n}\nsizes_bucket{{le=\"+Inf\"}} {n}\nsizes_sum 1.5e3\nsizes_count {n}\n\
             # TYPE lag summary\nlag{{quantile=\"0.5\"}} NaN\nlag{{quantile=\"1\"}} 0.25\nlag_sum 7\nlag_count 3\n\
             # TYPE not_a_histogram gauge\nnot_a_histogram{{le=\"1\",quantile=\"1\"}} 1\n\
             # a comment\n#\n#another\n\n\
             tab\t 1\n  \t  indented 2\nspaces   {{  a  =  \"b\"  ,  c=\"d\"  }}   3  \n\
             escaped{{a=\"q\\\"b\\\\s\\nl\\tt\"}} 4\nunicode{{a=\"äöü 世界\"}} 5\n\
             empty{{a=\"\"}} 6\nnobraces{{}} 7\ncolon:name 8\n_ 9\n\
             inf +Inf\nminus_inf -inf\nnan NaN\nsmall 4.9e-324\nlarge 1.7976931348623157e308\n\
             minus_zero -0\nplus +5\nexponent 1E+3\ninteger 9007199254740993\npoint .5\ntail 5.\n\
             same 1\nsame 2\nsame{{}} 3\nsame_spelled{{a=\"1\",b=\"2\"}} 1\nsame_spelled{{b=\"2\",a=\"1\"}} 1\n\
             scrape_number {n}",
            100 + 7 * n
        ))
    }),
    page("come_and_go", "", |ask| {
        let mut body = String::from("always 1\n");
        if ask.n % 2 == 0 {
            body.push_str("# TYPE even gauge\n# HELP even Only on even pages.\neven 2\n");
        }
        for i in 0..ask.n {
            body.push_str(&format!("growing{{i=\"{i}\"}} {}\n", ask.n));
        }
        body.push_str(&format!("moving{{n=\"{}\"}} 1\n", ask.n / 2));
        text(body)
    }),
    page("no_line_end", "", |_| text("a 1\nb 2")),
    page("empty_page", "", |ask| {
        text(["a 1\nb 2\n", "", "a 1\nb 2\n", "\n", "a 1\n", ""][ask.n % 6])
    }),
    page("only_comments", "", |_| text("# TYPE a counter\n# HELP a nothing to see\n")),
    page("nul", "", |_| text("a 1\n\0 nothing\nb")),
    page("carriage_return", "", |_| text("a 1\r\nb 2\r\n")),
    page("bad_line", "", |_| text("# TYPE a counter\na 1\nb{ 2\nc 3\n")),
    page("bad_value", "", |_| text("a 1\nb 0x10\n")),
    page("bad_utf8", "", |_| text(&b"a 1\nb{x=\"\xff\"} 2\n"[..])),
    page("bad_label_twice", "", |_| text("a{b=\"1\",b=\"1\"} 1\n")),
    page("bad_no_name", "", |_| text("{a=\"1\"} 1\n")),
    page("bad_type", "", |_| text("# TYPE a strange\na 1\n")),
    page("bad_timestamp", "", |_| text("a 1 1.5\n")),
    page("flapping", "", |ask| {
        let good = format!("a 1\nb {}\nnew{{n=\"{}\"}} 1\n", ask.n, ask.n);
        if ask.n % 3 == 1 { text(good + "broken\n") } else { text(good) }
    }),
    page("utf8", "", |ask| {
        Answer::ok(
            UTF8,
            format!(
                "# HELP \"http.requests\" Help.\n# TYPE \"http.requests\" counter\n\
                 {{\"http.requests\",\"status code\"=\"ok\",plain=\"1\"}} {}\n{{\"with space\"}} 1\n\
                 {{\"ünï\",\"ö\"=\"ä\"}} 2\nlegacy_name{{\"quoted.label\"=\"x\"}} 3\n{{x=\"1\",\"late.name\"}} 4\n",
                ask.n
            ),
        )
    }),
    page("utf8_twice", "", |_| Answer::ok(UTF8, "{\"a\",\"b\"} 1\n")),
    page("utf8_underscores", "    metric_name_escaping_scheme: underscores\n", |ask| {
        Answer::ok(TEXT, format!("accepts{{header=\"{}\"}} 1\n", ask.header("accept")))
    }),
    page(
        "legacy_names",
        "    metric_name_validation_scheme: legacy\n    metric_name_escaping_scheme: values\n",
        |ask| Answer::ok(TEXT, format!("accepts{{header=\"{}\"}} 1\n", ask.header("accept"))),
    ),
    page(
        "legacy_names_refuse",
        "    metric_name_validation_scheme: legacy\n    metric_name_escaping_scheme: dots\n",
        |_| Answer::ok(UTF8, "a 1\n{\"b.c\"} 2\n"),
    ),
    page("openmetrics_0", "", |ask| Answer::ok(OM0, openmetrics(ask))),
    page("openmetrics_1", "", |ask| Answer::ok(OM1, openmetrics(ask))),
    page("openmetrics_no_end", "", |_| Answer::ok(OM1, "a 1\n")),
    page("openmetrics_after_end", "", |_| Answer::ok(OM1, "a 1\n# EOF\nb 1\n")),
    page("openmetrics_blank_line", "", |_| Answer::ok(OM1, "a 1\n\nb 1\n# EOF\n")),
    page("openmetrics_comment", "", |_| Answer::ok(OM1, "# hello\na 1\n# EOF\n")),
    page("openmetrics_unit", "", |_| Answer::ok(OM1, "# UNIT a seconds\na 1\n# EOF\n")),
    page("openmetrics_empty", "", |_| Answer::ok(OM1, "# EOF\n")),
    page("openmetrics_exemplar", "", |_| {
        Answer::ok(
            OM1,
            format!("# TYPE a counter\na_total 1 # {{t=\"{}\"}} 1\n# EOF\n", "x".repeat(128)),
        )
    }),
    page("protobuf", "", |ask| Answer::ok(PROTO, protobuf(ask))),
    page("protobuf_classic", "    always_scrape_classic_histograms: true\n", |ask| {
        Answer::ok(PROTO, protobuf(ask))
    }),
    page("protobuf_cut", "", |ask| {
        let mut page = protobuf(ask);
        page.truncate(page.len() - 3);
        Answer::ok(PROTO, page)
    }),
    page("native_bucket_limit", "    native_histogram_bucket_limit: 3\n", |ask| {
        Answer::ok(PROTO, protobuf(ask))
    }),
    page("native_bucket_limit_fails", "    native_histogram_bucket_limit: 1\n", |_| {
        // Far apart: no resolution brings them into one bucket.
        let far = native(&[span(-1_000, 1), span(2_000, 1)], &[1, 0], 2);
        Answer::ok(PROTO, family("far", proto::HISTOGRAM, "", vec![metric(&[]).message(7, far)]))
    }),
    page("native_min_factor", "    native_histogram_min_bucket_factor: 4\n", |ask| {
        Answer::ok(PROTO, protobuf(ask))
    }),
    page("nhcb_text", "    convert_classic_histograms_to_nhcb: true\n", |ask| text(classic(ask))),
    page(
        "nhcb_text_both",
        "    convert_classic_histograms_to_nhcb: true\n    always_scrape_classic_histograms: true\n",
        |ask| text(classic(ask)),
    ),
    page("nhcb_openmetrics", "    convert_classic_histograms_to_nhcb: true\n", |ask| {
        Answer::ok(OM1, openmetrics(ask))
    }),
    page("nhcb_protobuf", "    convert_classic_histograms_to_nhcb: true\n", |ask| {
        Answer::ok(PROTO, protobuf(ask))
    }),
    page("timestamps", "", timestamps),
    page("timestamps_tracked", "    track_timestamps_staleness: true\n", timestamps),
    page("timestamps_ignored", "    honor_timestamps: false\n", timestamps),
    page("honor_labels", "    honor_labels: true\n", conflicts),
    page("exported_labels", "", conflicts),
    page("type_blank", "", |_| Answer::ok("", "a 1\n")),
    page("type_html", "", |_| Answer::ok("text/html; charset=utf-8", "<html>")),
    page("type_broken", "", |_| Answer::ok("text/plain; =", "a 1\n")),
    page("type_upper", "", |_| Answer::ok("TEXT/Plain", "a 1\n")),
    page("fallback_blank", "    fallback_scrape_protocol: PrometheusText0.0.4\n", |_| {
        Answer::ok("", "a 1\n")
    }),
    page("fallback_html", "    fallback_scrape_protocol: OpenMetricsText1.0.0\n", |_| {
        Answer::ok("text/html", "a 1\n# EOF\n")
    }),
    page("fallback_unused", "    fallback_scrape_protocol: PrometheusProto\n", simple),
    page("gzip", "", |ask| gzip(&format!("a {}\nb 2\n", ask.n), 0)),
    page("gzip_cut", "", |_| gzip("a 1\nb 2\n", 4)),
    page("gzip_not", "", |_| {
        let headers =
            vec![("Content-Type", TEXT.to_owned()), ("Content-Encoding", "gzip".to_owned())];
        Answer::Page("200 OK", headers, b"a 1\n".to_vec())
    }),
    page("gzip_too_large", "    body_size_limit: 1KB\n", |_| gzip(&"\n".repeat(100_000), 0)),
    page("uncompressed", "    enable_compression: false\n", |ask| {
        text(format!("asks{{encoding=\"{}\"}} 1\n", ask.header("accept-encoding")))
    }),
    page("body_below_limit", "    body_size_limit: 5B\n", |_| text("a 1\n")),
    page("body_at_limit", "    body_size_limit: 4B\n", |_| text("a 1\n")),
    page("status_503", "", |_| Answer::Page("503 Service Unavailable", vec![], b"sorry".to_vec())),
    page("status_204", "", |_| Answer::Page("204 No Content", vec![], Vec::new())),
    page("redirected", "", |ask| {
        if ask.target.contains("landed") {
            return simple(ask);
        }
        Answer::Page("302 Found", vec![("Location", "/redirected?landed=1".to_owned())], Vec::new())
    }),
    page("not_redirected", "    follow_redirects: false\n", |_| {
        Answer::Page("302 Found", vec![("Location", "/simple".to_owned())], Vec::new())
    }),
    page("down", "    static_configs: [{targets: ['NOBODY'], labels: {page: down}}]\n", simple),
    page("slow", "    scrape_timeout: 300ms\n", |_| Answer::Silence),
    page("now_and_then_slow", "    scrape_timeout: 1500ms\n", |ask| {
        if ask.n % 3 == 1 { Answer::Silence } else { simple(ask) }
    }),
    page("body_cut", "", |_| {
        Answer::Raw(
            format!("HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\nContent-Length: 100\r\n\r\na 1\n")
                .into(),
        )
    }),
    page("body_chunked", "", |_| {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        Answer::Raw(format!("{head}4\r\na 1\n\r\n4\r\nb 2\n\r\n0\r\n\r\n").into())
    }),
    page("body_until_close", "", |_| {
        Answer::Raw(format!("HTTP/1.0 200 OK\r\nContent-Type: {TEXT}\r\n\r\na 1\n").into())
    }),
    page("sample_limit", "    sample_limit: 3\n", simple),
    page("sample_limit_kept", "    sample_limit: 4\n", simple),
    page(
        "sample_limit_relabeled",
        "    sample_limit: 2\n    metric_relabel_configs: [{source_labels: [__name__], regex: a, action: drop}]\n",
        simple,
    ),
    page("label_limit", "    label_limit: 5\n", simple),
    page("label_name_limit", "    label_name_length_limit: 10\n", simple),
    page("label_value_limit", "    label_value_length_limit: 6\n", simple),
    page(
        "target_limit",
        "    target_limit: 1\n    static_configs: [{targets: ['ADDRESS', 'NOBODY'], labels: {page: target_limit}}]\n",
        simple,
    ),
    page(
        "dropped",
        "    keep_dropped_targets: 2\n    static_configs: [{targets: ['ADDRESS', 'b:1', 'c:1', 'd:1'], labels: {page: dropped}}]\n    \
         relabel_configs: [{source_labels: [__address__], regex: '[bcd]:1', action: drop}]\n",
        simple,
    ),
    page("asked", ASKED, |ask| {
        let name = |h: &str| format!("header{{name=\"{h}\",value=\"{}\"}} 1\n", ask.header(h));
        let names = [
            "accept",
            "accept-encoding",
            "x-prometheus-scrape-timeout-seconds",
            "authorization",
            "x-own",
        ];
        let mut body: String = names.iter().map(|h| name(h)).collect();
        body.push_str(&format!("target{{url=\"{}\"}} 1\n", ask.target));
        text(body)
    }),
    page("relabeled", RELABELED, simple),
    page("metric_relabeled", METRIC_RELABELED, |ask| {
        text(format!(
            "keep_me{{a=\"1\",secret=\"x\"}} {}\ndrop_me 1\nupper{{case=\"MiXed\"}} 1\nmapped{{from_a=\"1\",from_b=\"2\"}} 1\n\
             rename_me{{le=\"5\"}} 1\nclash{{i=\"1\"}} 1\nclash{{i=\"2\"}} 2\nhashed{{h=\"10.0.0.1:9100\"}} 1\n",
            ask.n
        ))
    }),
    page(
        "nameless",
        "    metric_relabel_configs: [{regex: __name__, action: labeldrop}]\n",
        simple,
    ),
    page("extra", "    sample_limit: 100\n    scrape_timeout: 1500ms\n", simple),
];

const ASKED: &str = "    params: {z: ['1', '2'], 'a b': ['x&y'], m: ['']}
    basic_auth: {username: u, password: p}
    http_headers: {X-Own: {values: ['v']}}
    scrape_protocols: [PrometheusText1.0.0, OpenMetricsText0.0.1, PrometheusProto]
    scrape_timeout: 1200ms
    relabel_configs: [{target_label: __param_z, replacement: changed}, {target_label: __param_new, replacement: 'n w'}]
";

const RELABELED: &str = "    metrics_path: /elsewhere
    relabel_configs:
    - {target_label: __metrics_path__, replacement: /relabeled}
    - {source_labels: [__address__, job], separator: '@', regex: '(.+):(\\d+)@(.*)', target_label: 'made_$2', replacement: '${3}/$1'}
    - {source_labels: [__address__], target_label: shard, modulus: 8, action: hashmod}
    - {source_labels: [page], target_label: upper, action: uppercase}
    - {regex: 'pa(.)e', replacement: 'mapped_$1', action: labelmap}
    - {target_label: __tmp_internal, replacement: x}
    - {target_label: __scrape_timeout__, replacement: 700ms}
    - {source_labels: [__address__], target_label: instance, regex: '([^:]+):.*', replacement: '$1:0'}
    - {source_labels: [job], target_label: empty, regex: nothing}
";

const METRIC_RELABELED: &str = "    metric_relabel_configs:
    - {source_labels: [__name__], regex: drop_me, action: drop}
    - {regex: secret, action: labeldrop}
    - {source_labels: [case], target_label: case, action: lowercase}
    - {regex: 'from_(.)', replacement: 'to_$1', action: labelmap}
    - {source_labels: [__name__], regex: 'rename_(.*)', target_label: __name__, replacement: 'renamed_$1'}
    - {regex: i, action: labeldrop}
    - {source_labels: [h], modulus: 1000, target_label: h, action: hashmod}
";

fn openmetrics(ask: &Ask) -> String {
    let (n, then) = (ask.n, (ask.base_ms - 60_000) as f64 / 1000.0);
    format!(
        "# TYPE work_seconds histogram\n# UNIT work_seconds seconds\n# HELP work_seconds Time \\\"spent\\\" on\\nwork.\n\
         work_seconds_bucket{{le=\"0.5\"}} {n} # {{trace_id=\"a{n}\"}} 0.25 {:.3}\n\
         work_seconds_bucket{{le=\"1\"}} {n} # {{trace_id=\"fixed\",b=\"2\"}} 0.75\n\
         work_seconds_bucket{{le=\"+Inf\"}} {n} # {{}} 3\n\
         work_seconds_sum 1.5\nwork_seconds_count {n}\nwork_seconds_created {then}\n\
         # TYPE jobs counter\njobs_total{{q=\"}}\"}} {n} # {{trace_id=\"c{n}\"}} {n} {:.3}\njobs_created{{q=\"}}\"}} {then}\n\
         # TYPE build info\nbuild_info{{version=\"1\"}} 1\n\
         # TYPE state stateset\nstate{{state=\"on\"}} 1\nstate{{state=\"off\"}} 0\n\
         # TYPE depths gaugehistogram\ndepths_bucket{{le=\"1\"}} 2\ndepths_bucket{{le=\"+Inf\"}} 3\ndepths_gcount 3\ndepths_gsum 4\n\
         # TYPE quantiles summary\nquantiles{{quantile=\"0\"}} 1\nquantiles_sum 1\nquantiles_count 1\nquantiles_created {then}\n\
         # TYPE something unknown\nsomething NaN\n# TYPE timed gauge\ntimed {n} {:.3}\n\
         # HELP untyped Has help only.\nuntyped -Inf\n# EOF\n",
        then + n as f64,
        then + n as f64,
        then + n as f64,
    )
}

fn native(positive: &[Message], deltas: &[i64], count: u64) -> Message {
    let start = Message::new().uint(1, count).double(2, 12.5).sint(5, 3).double(6, 0.001);
    positive.iter().fold(start, |out, span| out.message(12, span.clone())).sints(13, deltas)
}

fn protobuf(ask: &Ask) -> Vec<u8> {
    let (n, then) = (ask.n as u64, ask.base_ms - 60_000);
    let created = Message::new().uint(1, (then / 1000) as u64);
    let counter = Message::new()
        .double(1, n as f64)
        .message(2, exemplar(&format!("p{n}"), n as f64, Some(then + n as i64)))
        .message(3, created.clone());
    let summary = Message::new()
        .uint(1, 3 + n)
        .double(2, f64::NAN)
        .message(3, Message::new().double(1, 0.5).double(2, f64::INFINITY))
        .message(3, Message::new().double(1, 1.0).double(2, 1.0));
    let classic = Message::new()
        .uint(1, 5 + n)
        .double(2, 7.5)
        .message(3, bucket(2, 1.0).message(3, exemplar("bucket", 0.5, Some(then))))
        .message(3, bucket(4, 2.5).message(3, exemplar("timeless", 2.0, None)))
        .message(15, created);
    let integers = native(&[span(0, 2), span(3, 2)], &[1, n as i64, -1, 0], 4 + 3 * n)
        .uint(7, 1)
        .message(3, bucket(5, 1.0).message(3, exemplar("of_bucket", 0.5, Some(then + n as i64))))
        .message(16, exemplar(&format!("own{n}"), 3.0, Some(then + 1 + n as i64)))
        .message(16, exemplar("timeless", 3.0, None))
        .message(9, span(1, 1))
        .sints(10, &[1]);
    let floats = Message::new()
        .double(2, 1.5)
        .double(4, 3.5 + n as f64)
        .sint(5, 0)
        .double(6, 0.5)
        .double(8, 1.0)
        .message(12, span(-2, 2))
        .doubles(14, &[2.0 + n as f64, 0.5]);
    // Wide enough that limits on buckets have something to do.
    let wide = native(&[span(0, 8)], &[1, 0, 0, 0, 0, 0, 0, 0], 8);
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    [
        family(
            "jobs_total",
            proto::COUNTER,
            "",
            vec![metric(&[("q", "1"), ("none", "")]).message(3, counter)],
        ),
        family(
            "temperature_celsius",
            proto::GAUGE,
            "celsius",
            vec![
                metric(&[("room", "a")]).message(2, Message::new().double(1, -1.5)),
                metric(&[("room", "stale")]).message(2, Message::new().double(1, stale)),
                metric(&[("room", "timed")])
                    .message(2, Message::new().double(1, 2.0))
                    .uint(6, (then + n as i64) as u64),
            ],
        ),
        family("lag", proto::SUMMARY, "", vec![metric(&[("a", "b")]).message(4, summary)]),
        family(
            "odd",
            proto::UNTYPED,
            "",
            vec![metric(&[]).message(5, Message::new().double(1, 3.0))],
        ),
        family(
            "utf.8",
            proto::GAUGE,
            "",
            vec![metric(&[("l.l", "ä")]).message(2, Message::new().double(1, 3.0))],
        ),
        family("classic", proto::HISTOGRAM, "", vec![metric(&[("a", "b")]).message(7, classic)]),
        family("native", proto::HISTOGRAM, "", vec![metric(&[("a", "b")]).message(7, integers)]),
        family("native_float", proto::HISTOGRAM, "", vec![metric(&[]).message(7, floats.clone())]),
        family("native_gauge", proto::GAUGE_HISTOGRAM, "", vec![metric(&[]).message(7, floats)]),
        family("native_wide", proto::HISTOGRAM, "", vec![metric(&[]).message(7, wide)]),
    ]
    .concat()
}

fn classic(ask: &Ask) -> String {
    let n = ask.n;
    format!(
        "# TYPE h histogram\n# HELP h Help of h.\n\
         h_bucket{{a=\"1\",le=\"0.5\"}} {n}\nh_bucket{{a=\"1\",le=\"1\"}} {}\nh_bucket{{a=\"1\",le=\"+Inf\"}} {}\nh_sum{{a=\"1\"}} 2.5\nh_count{{a=\"1\"}} {}\n\
         h_bucket{{a=\"2\",le=\"+Inf\"}} 4\nh_sum{{a=\"2\"}} 1\nh_count{{a=\"2\"}} 4\n\
         # TYPE no_count histogram\nno_count_bucket{{le=\"1\"}} 1\nno_count_bucket{{le=\"+Inf\"}} 2\n\
         # TYPE no_inf histogram\nno_inf_bucket{{le=\"1\"}} 1\nno_inf_sum 1\nno_inf_count 2\n\
         # TYPE falling histogram\nfalling_bucket{{le=\"1\"}} 3\nfalling_bucket{{le=\"2\"}} 2\nfalling_bucket{{le=\"+Inf\"}} 4\nfalling_count 4\n\
         # TYPE not_whole histogram\nnot_whole_bucket{{le=\"1\"}} 0.5\nnot_whole_bucket{{le=\"+Inf\"}} 1.5\nnot_whole_count 1.5\nnot_whole_sum 2\n\
         # TYPE no_buckets histogram\nno_buckets_sum 3\nno_buckets_count 2\n\
         # TYPE g gauge\ng 1\nuntyped_bucket{{le=\"1\"}} 1\nuntyped_count 1\n",
        n + 1,
        n + 2,
        n + 2,
    )
}

fn timestamps(ask: &Ask) -> Answer {
    let (n, base) = (ask.n as i64, ask.base_ms);
    let mut body = format!(
        "moving {n} {}\nstanding 1 {}\nbackwards {n} {}\nfuture 1 {}\nplain {n}\n",
        base - 50_000 + n * 1000,
        base - 40_000,
        base - 30_000 - n * 1000,
        base + 3_600_000 * 24,
    );
    body.push_str(&format!("both {n}\nboth 7 {}\nnegative 1 0\n", base - 20_000 + n));
    if n % 2 == 0 {
        body.push_str(&format!("sometimes {n} {}\n", base - 45_000 + n * 1000));
        body.push_str(&format!("now_timed {n}\n"));
    } else {
        body.push_str(&format!("now_timed {n} {}\n", base - 1000 + n));
    }
    text(body)
}

fn conflicts(_: &Ask) -> Answer {
    text(
        "a{job=\"theirs\",exported_job=\"too\"} 1\nb{instance=\"\"} 2\nc{job=\"x\",exported_job=\"y\",exported_exported_job=\"z\",instance=\"w\"} 3\n\
         d{job=\"\",instance=\"i\"} 4\nup 7\nscrape_samples_scraped{x=\"1\"} 5\n",
    )
}

fn gzip(body: &str, cut: usize) -> Answer {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body.as_bytes()).expect("memory");
    let mut bytes = encoder.finish().expect("memory");
    bytes.truncate(bytes.len() - cut);
    let headers = vec![("Content-Type", TEXT.to_owned()), ("Content-Encoding", "gzip".to_owned())];
    Answer::Page("200 OK", headers, bytes)
}

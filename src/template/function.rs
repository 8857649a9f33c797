//! What can a template call? Go's builtins and Prometheus' own functions.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::rc::Rc;

use narthex_storage::sample;
use regex::{Regex, RegexBuilder};

use super::exec::Machine;
use super::gofmt::{self, TooLong};
use super::humanize;
use super::value::{Sample, Value};

/// Types that parameters ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Param {
    Any,
    Text,
    Vector,
    Sample,
}

impl Param {
    /// The type as Go prints it.
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Self::Any => "interface {}",
            Self::Text => "string",
            Self::Vector => "template.queryResult",
            Self::Sample => "*template.sample",
        }
    }
}

/// What a function takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signature {
    pub(super) params: &'static [Param],
    /// Type of further arguments, if any may follow.
    pub(super) variadic: Option<Param>,
}

/// The parameters of a function; `None` if there is none of that name.
pub(super) fn signature(name: &str) -> Option<Signature> {
    use Param::{Any, Text, Vector};
    let fixed = |params| Some(Signature { params, variadic: None });
    let open = |params| Some(Signature { params, variadic: Some(Any) });
    match name {
        "html" | "js" | "print" | "println" | "urlquery" | "args" => open(&[]),
        "and" | "or" | "call" | "index" | "slice" | "eq" => open(&[Any]),
        "printf" => open(&[Text]),
        "ge" | "gt" | "le" | "lt" | "ne" => fixed(&[Any, Any]),
        "len" | "not" | "humanize" | "humanize1024" | "humanizeDuration" | "humanizePercentage"
        | "humanizeTimestamp" | "toTime" | "toDuration" => fixed(&[Any]),
        "externalURL" | "pathPrefix" | "now" => fixed(&[]),
        "query" | "safeHtml" | "title" | "toUpper" | "toLower" | "graphLink" | "tableLink"
        | "stripPort" | "stripDomain" | "parseDuration" | "urlQueryEscape" => fixed(&[Text]),
        "match" => fixed(&[Text, Text]),
        "reReplaceAll" => fixed(&[Text, Text, Text]),
        "first" => fixed(&[Vector]),
        "sortByLabel" => fixed(&[Text, Vector]),
        "label" => fixed(&[Text, Param::Sample]),
        "value" | "strvalue" => fixed(&[Param::Sample]),
        "tmpl" => fixed(&[Text, Any]),
        _ => None,
    }
}

/// Whether there is a function of that name; `tmpl` is for consoles only.
pub(super) fn exists(name: &str, console: bool) -> bool {
    signature(name).is_some() && (console || name != "tmpl")
}

/// What Go says when a nil pointer is followed.
const NIL_POINTER: &str = "runtime error: invalid memory address or nil pointer dereference";

/// Calls a function with arguments that fit its signature. `called` is the
/// first argument as it was written.
pub(super) fn call(
    machine: &mut Machine<'_, '_, '_>,
    name: &str,
    called: Option<&str>,
    args: Vec<Value>,
) -> Result<Value, String> {
    let limit = machine.limits.output_bytes;
    let text = |i: usize| args.get(i).and_then(Value::as_text).unwrap_or_default();
    let first = args.first().unwrap_or(&Value::Nil);
    let boolean = |result: Result<bool, String>| result.map(Value::Bool);
    Ok(match name {
        "print" => Value::text(bounded(gofmt::sprint(&args, limit))?),
        "println" => Value::text(bounded(gofmt::sprintln(&args, limit))?),
        "printf" => Value::text(bounded(gofmt::sprintf(text(0), &args[1..], limit))?),
        "html" => Value::text(escape_html(&bounded(gofmt::sprint_pointees(&args, limit))?)),
        "js" => Value::text(escape_js(&bounded(gofmt::sprint_pointees(&args, limit))?)),
        "urlquery" => Value::text(escape_query(&bounded(gofmt::sprint_pointees(&args, limit))?)),
        "not" => Value::Bool(!first.is_true()),
        "len" => Value::Int(length(first)?),
        "index" => index(first, &args[1..])?,
        "slice" => slice(first, &args[1..])?,
        "call" => return Err(no_call(called.unwrap_or_default(), first)),
        "eq" => return boolean(equal(first, &args[1..])),
        "ne" => return boolean(equal(first, &args[1..]).map(|equal| !equal)),
        "lt" => return boolean(less(first, &args[1])),
        "le" => return boolean(less_or_equal(first, &args[1])),
        "gt" => return boolean(less_or_equal(first, &args[1]).map(|less| !less)),
        "ge" => return boolean(less(first, &args[1]).map(|less| !less)),

        "query" => query(machine, text(0))?,
        "first" => match first {
            Value::Vector(samples) if !samples.borrow().is_empty() => {
                Value::Sample(samples.borrow()[0].clone())
            }
            _ => return Err("first() called on vector with no elements".to_owned()),
        },
        "label" => Value::text(sample_of(&args[1])?.labels.get(text(0)).unwrap_or_default()),
        "value" => sample_of(first)?.value.clone(),
        "strvalue" => Value::text(sample_of(first)?.labels.get("__value__").unwrap_or_default()),
        "sortByLabel" => sort_by_label(text(0), &args[1]),
        "args" => {
            let named = args.iter().enumerate().map(|(i, arg)| (format!("arg{i}"), arg.clone()));
            Value::Args(Rc::new(named.collect::<BTreeMap<_, _>>()))
        }
        "tmpl" => {
            let name = text(0).to_owned();
            Value::Html(machine.template_by_name(&name, &args[1])?.into())
        }
        "match" => {
            machine.spend(text(0).len() * 64 + text(1).len())?;
            let regex = compile(text(0)).map_err(|e| format!("error parsing regexp: {e}"))?;
            Value::Bool(regex.is_match(text(1)))
        }
        "reReplaceAll" => {
            machine.spend(text(0).len() * 64 + text(2).len())?;
            let regex = compile(text(0)).map_err(|e| {
                format!("regexp: Compile(`{}`): error parsing regexp: {e}", text(0))
            })?;
            Value::text(replace_all(&regex, text(1), text(2), limit)?)
        }
        "safeHtml" => Value::Html(text(0).into()),
        "title" => Value::text(title(text(0))),
        "toUpper" => Value::text(text(0).chars().map(upper).collect::<String>()),
        "toLower" => Value::text(text(0).chars().map(lower).collect::<String>()),
        "graphLink" => Value::text(format!("/graph?g0.expr={}&g0.tab=0", escape_query(text(0)))),
        "tableLink" => Value::text(format!("/graph?g0.expr={}&g0.tab=1", escape_query(text(0)))),
        "urlQueryEscape" => Value::text(escape_query(text(0))),
        "stripPort" => {
            Value::text(split_host_port(text(0)).map_or_else(|| text(0), |(host, _)| host))
        }
        "stripDomain" => Value::text(strip_domain(text(0))),
        "humanize" => Value::text(humanize::humanize(humanize::to_float(first)?)),
        "humanize1024" => Value::text(humanize::humanize1024(humanize::to_float(first)?)),
        "humanizeDuration" => Value::text(humanize::duration(humanize::to_float(first)?)),
        "humanizePercentage" => Value::text(humanize::percentage(humanize::to_float(first)?)),
        "humanizeTimestamp" => Value::text(humanize::timestamp(humanize::to_float(first)?)?),
        "toTime" => Value::Time(humanize::to_time_ms(humanize::to_float(first)?)?),
        "toDuration" => Value::Duration(humanize::to_duration_ns(humanize::to_float(first)?)),
        "parseDuration" => Value::Float(humanize::parse_duration(text(0))?),
        "now" => Value::Float(machine.env.now_s()),
        "externalURL" => Value::text(machine.env.external_url.ok_or(NIL_POINTER)?),
        "pathPrefix" => Value::text(path_of(machine.env.external_url.ok_or(NIL_POINTER)?)),
        _ => return Err(format!("{name} is not a function")),
    })
}

fn bounded(result: Result<String, TooLong>) -> Result<String, String> {
    result.map_err(|TooLong| "output is too large".to_owned())
}

fn no_call(called: &str, value: &Value) -> String {
    match value.type_name() {
        None => "call of nil".to_owned(),
        Some(name) => format!("non-function {called} of type {name}"),
    }
}

fn sample_of(value: &Value) -> Result<&Sample, String> {
    match value {
        Value::Sample(sample) => Ok(sample),
        _ => Err(NIL_POINTER.to_owned()),
    }
}

fn query(machine: &mut Machine<'_, '_, '_>, text: &str) -> Result<Value, String> {
    machine.spend_query()?;
    let samples = (machine.env.query)(text)?;
    machine.spend(samples.len() * 64)?;
    let samples = samples.into_iter().map(|found| {
        let value = match found.value {
            sample::Value::Float(float) => Value::Float(float),
            sample::Value::Histogram(histogram) => Value::Histogram(histogram),
        };
        Rc::new(Sample { labels: found.labels, value })
    });
    Ok(Value::Vector(Rc::new(RefCell::new(samples.collect()))))
}

/// Sorts the vector for everyone who holds it, as Go does.
fn sort_by_label(name: &str, vector: &Value) -> Value {
    if let Value::Vector(samples) = vector {
        let key = |sample: &Rc<Sample>| sample.labels.get(name).unwrap_or_default().to_owned();
        samples.borrow_mut().sort_by_cached_key(key);
    }
    vector.clone()
}

fn length(value: &Value) -> Result<i64, String> {
    let length = match value {
        Value::Text(text) | Value::Html(text) => text.len(),
        Value::Labels(labels) => labels.len(),
        Value::Args(args) => args.len(),
        Value::Vector(samples) => samples.borrow().len(),
        Value::Nil => {
            return Err("reflect: call of reflect.Value.Type on zero Value".to_owned());
        }
        other => {
            let name = other.type_name().unwrap_or("nil").trim_start_matches('*');
            return Err(format!("len of type {name}"));
        }
    };
    Ok(i64::try_from(length).unwrap_or(i64::MAX))
}

/// An index into something of `capacity` elements; the end counts as inside.
fn index_of(index: &Value, capacity: usize) -> Result<usize, String> {
    let number = match index {
        Value::Int(number) => *number,
        Value::Byte(number) => i64::from(*number),
        Value::Named(named) => named.number,
        Value::Nil => return Err("cannot index slice/array with nil".to_owned()),
        other => {
            let name = other.type_name().unwrap_or("nil");
            return Err(format!("cannot index slice/array with type {name}"));
        }
    };
    match usize::try_from(number) {
        Ok(at) if at <= capacity => Ok(at),
        _ => Err(format!("index out of range: {number}")),
    }
}

fn index(item: &Value, indexes: &[Value]) -> Result<Value, String> {
    if let Value::Nil = item {
        return Err("index of untyped nil".to_owned());
    }
    let mut item = item.clone();
    for at in indexes {
        item = match &item {
            Value::Text(text) | Value::Html(text) => {
                let at = index_of(at, text.len())?;
                let byte = text.as_bytes().get(at);
                Value::Byte(*byte.ok_or("reflect: string index out of range")?)
            }
            Value::Vector(samples) => {
                let samples = samples.borrow();
                let at = index_of(at, samples.len())?;
                Value::Sample(samples.get(at).ok_or("reflect: slice index out of range")?.clone())
            }
            Value::Labels(labels) => Value::text(labels.get(map_key(at)?).unwrap_or_default()),
            Value::Args(args) => args.get(map_key(at)?).cloned().unwrap_or(Value::Nil),
            Value::Nil => return Err("index of nil pointer".to_owned()),
            other => {
                let name = other.type_name().unwrap_or("nil").trim_start_matches('*');
                return Err(format!("can't index item of type {name}"));
            }
        };
    }
    Ok(item)
}

fn map_key(key: &Value) -> Result<&str, String> {
    match key {
        Value::Text(text) => Ok(text),
        Value::Nil => Err("value is nil; should be of type string".to_owned()),
        other => {
            let name = other.type_name().unwrap_or("nil");
            Err(format!("value has type {name}; should be string"))
        }
    }
}

fn slice(item: &Value, indexes: &[Value]) -> Result<Value, String> {
    if let Value::Nil = item {
        return Err("slice of untyped nil".to_owned());
    }
    if indexes.len() > 3 {
        return Err(format!("too many slice indexes: {}", indexes.len()));
    }
    let length = match item {
        Value::Text(_) | Value::Html(_) if indexes.len() == 3 => {
            return Err("cannot 3-index slice a string".to_owned());
        }
        Value::Text(text) | Value::Html(text) => text.len(),
        Value::Vector(samples) => samples.borrow().len(),
        other => {
            let name = other.type_name().unwrap_or("nil").trim_start_matches('*');
            return Err(format!("can't slice item of type {name}"));
        }
    };
    let mut ends = [0, length, length];
    for (end, index) in ends.iter_mut().zip(indexes) {
        *end = index_of(index, length)?;
    }
    let [start, end, capacity] = ends;
    if start > end {
        return Err(format!("invalid slice index: {start} > {end}"));
    }
    if end > capacity {
        return Err(format!("invalid slice index: {end} > {capacity}"));
    }
    let cut = |text: &str| String::from_utf8_lossy(&text.as_bytes()[start..end]).into_owned();
    Ok(match item {
        Value::Text(text) => Value::text(cut(text)),
        Value::Html(text) => Value::Html(cut(text).into()),
        Value::Vector(samples) => {
            Value::Vector(Rc::new(RefCell::new(samples.borrow()[start..end].to_vec())))
        }
        other => other.clone(),
    })
}

/// Kinds that can be compared.
#[derive(PartialEq, Eq, Clone, Copy)]
enum Basic {
    Bool,
    Int,
    Uint,
    Float,
    Text,
}

fn basic(value: &Value) -> Option<Basic> {
    Some(match value {
        Value::Bool(_) => Basic::Bool,
        Value::Int(_) | Value::Named(_) => Basic::Int,
        Value::Byte(_) => Basic::Uint,
        Value::Float(_) => Basic::Float,
        Value::Text(_) | Value::Html(_) => Basic::Text,
        _ => return None,
    })
}

fn as_int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        Value::Named(named) => Some(named.number),
        Value::Byte(number) => Some(i64::from(*number)),
        _ => None,
    }
}

fn incompatible(a: &Value, b: &Value) -> String {
    let name = |value: &Value| value.type_name().unwrap_or("nil");
    format!("incompatible types for comparison: {} and {}", name(a), name(b))
}

#[allow(clippy::float_cmp, reason = "the template asks for exactly this")]
fn equal(a: &Value, others: &[Value]) -> Result<bool, String> {
    if others.is_empty() {
        return Err("missing argument for comparison".to_owned());
    }
    for b in others {
        let found = match (a, b) {
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Float(a), Value::Float(b)) => a == b,
            _ => match (as_int(a), as_int(b), a.as_text(), b.as_text()) {
                (Some(a), Some(b), _, _) => a == b,
                (_, _, Some(a), Some(b)) => a == b,
                _ => equal_otherwise(a, b)?,
            },
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Equality of what has no basic kind: identity, or an error.
fn equal_otherwise(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Nil, Value::Nil) => Ok(true),
        (Value::Nil, _) | (_, Value::Nil) => Ok(false),
        _ if basic(a) != basic(b) => Err(incompatible(a, b)),
        (Value::Sample(a), Value::Sample(b)) => Ok(Rc::ptr_eq(a, b)),
        (Value::Time(_), Value::Time(_)) | (Value::Duration(_), Value::Duration(_)) => Ok(false),
        (Value::Labels(_) | Value::Args(_) | Value::Vector(_), _) => {
            let name = b.type_name().unwrap_or("nil");
            let shown = gofmt::sprint(std::slice::from_ref(b), 4096).unwrap_or_default();
            Err(format!("non-comparable type {shown}: {name}"))
        }
        _ => Err(incompatible(a, b)),
    }
}

fn less(a: &Value, b: &Value) -> Result<bool, String> {
    const BAD: &str = "invalid type for comparison";
    let (Some(kind_a), Some(kind_b)) = (basic(a), basic(b)) else {
        return Err(BAD.to_owned());
    };
    if let (Some(a), Some(b)) = (as_int(a), as_int(b)) {
        return Ok(a < b);
    }
    if kind_a != kind_b {
        return Err(incompatible(a, b));
    }
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => Ok(a.partial_cmp(b) == Some(Ordering::Less)),
        _ => match (a.as_text(), b.as_text()) {
            (Some(a), Some(b)) => Ok(a < b),
            _ => Err(BAD.to_owned()),
        },
    }
}

fn less_or_equal(a: &Value, b: &Value) -> Result<bool, String> {
    Ok(less(a, b)? || equal(a, std::slice::from_ref(b))?)
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\0' => out.push('\u{fffd}'),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn escape_js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' | '\0'..' ' => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c if c.is_ascii() || gofmt::is_printable(c) => out.push(c),
            c => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
        }
    }
    out
}

/// Go's `url.QueryEscape`.
#[must_use]
pub fn escape_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// Largest compiled size of a regular expression, in bytes.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// Go takes a brace that begins no repetition for itself.
fn escape_braces(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find(['{', '\\']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let len = if rest.starts_with('\\') {
            // An escape with what it escapes: `\{`, `\p{Greek}`, `\x{41}`.
            let escaped = 1 + rest.chars().nth(1).map_or(0, char::len_utf8);
            let braced = matches!(&rest[1..escaped], "p" | "P" | "x");
            let brace = rest[escaped..].starts_with('{') && braced;
            escaped + rest[escaped..].find('}').filter(|_| brace).map_or(0, |end| end + 1)
        } else if at + out.len() > 0 && repetition(rest) {
            1
        } else {
            out.push('\\');
            1
        };
        out.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    out + rest
}

/// Whether `{n}`, `{n,}` or `{n,m}` stands at the start.
fn repetition(text: &str) -> bool {
    let Some((inner, _)) = text[1..].split_once('}') else { return false };
    let (first, second) = inner.split_once(',').unwrap_or((inner, "0"));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    !first.is_empty() && digits(first) && digits(second)
}

/// Compiles an expression; errors are worded as Go words the usual ones.
fn compile(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(&escape_braces(pattern)).size_limit(REGEX_SIZE_LIMIT).build();
    built.map_err(|error| {
        let text = error.to_string();
        let rest = |from: char| pattern.rfind(from).map_or(pattern, |at| &pattern[at..]);
        if text.contains("unclosed group") {
            format!("missing closing ): `{pattern}`")
        } else if text.contains("unopened group") {
            format!("unexpected ): `{pattern}`")
        } else if text.contains("unclosed character class") {
            format!("missing closing ]: `{}`", rest('['))
        } else if text.contains("repetition operator missing expression") {
            let operator: String = pattern.chars().take(1).collect();
            format!("missing argument to repetition operator: `{operator}`")
        } else if text.contains("escape sequence") || text.contains("backreferences") {
            // The report marks the place with a caret below the pattern.
            let column = text.lines().find_map(|line| line.find('^')).unwrap_or(0);
            let escape: String = pattern.chars().skip(column.saturating_sub(4)).take(2).collect();
            format!("invalid escape sequence: `{escape}`")
        } else {
            let last = text.lines().last().unwrap_or_default();
            format!("{}: `{pattern}`", last.trim_start_matches("error: "))
        }
    })
}

/// Go's `ReplaceAllString`; `$1`, `${1}` and names as there.
fn replace_all(
    regex: &Regex,
    replacement: &str,
    text: &str,
    limit: usize,
) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut end = 0;
    for found in regex.captures_iter(text) {
        let whole = found.get(0).ok_or("no match")?;
        out.push_str(&text[end..whole.start()]);
        expand(&found, replacement, &mut out);
        end = whole.end();
        if out.len() > limit {
            return Err("output is too large".to_owned());
        }
    }
    out.push_str(&text[end..]);
    Ok(out)
}

/// Writes a replacement as Go reads it: `$name`, `${name}`; what is neither
/// stays as it is.
fn expand(found: &regex::Captures<'_>, replacement: &str, out: &mut String) {
    let is_word = |c: char| c == '_' || c.is_alphanumeric();
    let mut rest = replacement;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let (braced, inner) = after.strip_prefix('{').map_or((false, after), |i| (true, i));
        let end = inner.find(|c| !is_word(c)).unwrap_or(inner.len());
        let (name, tail) = inner.split_at(end);
        let tail = if braced { tail.strip_prefix('}') } else { Some(tail) };
        let (false, Some(tail)) = (name.is_empty(), tail) else {
            out.push('$');
            rest = after;
            continue;
        };
        let group = match name.parse::<usize>() {
            Ok(number) => found.get(number),
            Err(_) => found.name(name),
        };
        out.push_str(group.map_or("", |group| group.as_str()));
        rest = tail;
    }
    out.push_str(rest);
}

/// One character for one, as Go maps them: `ß` stays.
fn upper(c: char) -> char {
    let mut mapped = c.to_uppercase();
    match (mapped.next(), mapped.next()) {
        (Some(upper), None) => upper,
        _ => c,
    }
}

fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

/// Characters that do not end a word if letters stand on both sides
/// (Unicode's MidLetter and MidNumLet).
fn is_mid_word(c: char) -> bool {
    matches!(c, '\'' | '.' | ':' | '\u{b7}' | '\u{2018}' | '\u{2019}' | '\u{2024}' | '\u{2027}')
}

/// The first letter of each word in upper case, the others as they are.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_alphabetic() {
            if in_word {
                out.push(c);
            } else {
                // `ß` becomes `Ss`.
                let mut upper = c.to_uppercase();
                out.extend(upper.next());
                out.extend(upper.flat_map(char::to_lowercase));
            }
            in_word = true;
            continue;
        }
        out.push(c);
        let goes_on = c == '_'
            || c.is_numeric()
            || (is_mid_word(c) && chars.peek().is_some_and(|next| next.is_alphabetic()));
        in_word = in_word && goes_on;
    }
    out
}

/// Host and port, as Go's `net.SplitHostPort` takes them apart; `None` where
/// that is an error.
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let colon = text.rfind(':')?;
    let port = &text[colon + 1..];
    if let Some(inner) = text.strip_prefix('[') {
        let end = inner.find(']')? + 1;
        if end + 1 != colon {
            return None;
        }
        let host = &text[1..end];
        return (!host.contains('[') && !port.contains(['[', ']'])).then_some((host, port));
    }
    let host = &text[..colon];
    (!host.contains([':', '[', ']']) && !port.contains(['[', ']'])).then_some((host, port))
}

fn strip_domain(text: &str) -> String {
    let (host, port) = split_host_port(text).unwrap_or((text, ""));
    if host.parse::<IpAddr>().is_ok() {
        return text.to_owned();
    }
    let host = host.split('.').next().unwrap_or_default();
    match (port.is_empty(), host.contains(':')) {
        (true, _) => host.to_owned(),
        (false, true) => format!("[{host}]:{port}"),
        (false, false) => format!("{host}:{port}"),
    }
}

/// The path of a URL.
fn path_of(url: &str) -> String {
    let after = url.split_once("://").map_or(url, |(_, after)| after);
    let path = after.find('/').map_or("", |at| &after[at..]);
    path.split(['?', '#']).next().unwrap_or_default().to_owned()
}

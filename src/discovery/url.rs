//! What is the URL of a target? Written as Go writes it, byte for byte.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use narthex_storage::labels::LabelsBuilder;

/// The URL that the labels of a target and the parameters of its scrape
/// configuration make. `__param_<name>` replaces the first value of a
/// parameter or adds one; names are sorted.
pub fn target_url(params: &BTreeMap<String, Vec<String>>, labels: &LabelsBuilder) -> String {
    let mut url = String::new();
    let scheme = labels.get("__scheme__");
    if !scheme.is_empty() {
        url.push_str(scheme);
        url.push(':');
    }
    url.push_str("//");
    let host = labels.get("__address__");
    escape(&mut url, host, |b| is_unreserved(b) || b"!$&'()*+,;=:[]<>\"".contains(&b));
    let path = labels.get("__metrics_path__");
    if !path.is_empty() && !path.starts_with('/') {
        url.push('/');
    }
    escape(&mut url, path, |b| is_unreserved(b) || b"$&+,/:;=@".contains(&b));
    let mut separator = '?';
    for (name, values) in merged(params, labels) {
        for value in values {
            url.push(separator);
            separator = '&';
            encode(&mut url, name);
            url.push('=');
            encode(&mut url, value);
        }
    }
    url
}

fn merged<'a>(
    params: &'a BTreeMap<String, Vec<String>>,
    labels: &'a LabelsBuilder,
) -> BTreeMap<&'a str, Vec<&'a str>> {
    let mut all: BTreeMap<&str, Vec<&str>> = params
        .iter()
        .map(|(name, values)| (name.as_str(), values.iter().map(String::as_str).collect()))
        .collect();
    for (name, value) in labels.iter() {
        let Some(name) = name.strip_prefix("__param_") else { continue };
        let values = all.entry(name).or_default();
        match values.first_mut() {
            Some(first) => *first = value,
            None => values.push(value),
        }
    }
    all
}

const fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~')
}

fn escape(out: &mut String, text: &str, is_plain: impl Fn(u8) -> bool) {
    for b in text.bytes() {
        if is_plain(b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
    }
}

/// Form encoding: a space is `+`.
fn encode(out: &mut String, text: &str) {
    for (i, part) in text.split(' ').enumerate() {
        if i > 0 {
            out.push('+');
        }
        escape(out, part, is_unreserved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use narthex_storage::labels::Labels;

    #[test]
    fn parameters_are_merged_sorted_and_encoded() {
        let params = [("module", vec!["m1", "m2"]), ("b", vec![]), ("a c", vec!["x y&z"])];
        let params = params
            .into_iter()
            .map(|(n, v)| (n.to_owned(), v.into_iter().map(str::to_owned).collect()))
            .collect();
        let labels = Labels::from_pairs([
            ("__scheme__", "https"),
            ("__address__", "[2001:db8::1]:80"),
            ("__metrics_path__", "probe/%a?b(é"),
            ("__param_module", "first"),
            ("__param_target", "https://x/~"),
        ]);
        assert_eq!(
            target_url(&params, &labels.to_builder()),
            "https://[2001:db8::1]:80/probe/%25a%3Fb%28%C3%A9\
             ?a+c=x+y%26z&module=first&module=m2&target=https%3A%2F%2Fx%2F~"
        );
    }
}

//! What is the other case of a text? Character by character, as Go maps them:
//! one character stays one character (`ß` has no upper case).

/// The text in lower case.
pub fn to_lower(text: &str) -> String {
    // The only character whose full mapping has two: `İ`.
    text.chars().map(|c| c.to_lowercase().next().unwrap_or(c)).collect()
}

/// The text in upper case.
pub fn to_upper(text: &str) -> String {
    text.chars().map(upper).collect()
}

fn upper(c: char) -> char {
    let mut full = c.to_uppercase();
    match (full.next(), full.next()) {
        (Some(one), None) => one,
        _ => single_upper(c),
    }
}

/// The simple mapping where the full one has several characters (Unicode's
/// SpecialCasing.txt): Greek letters with iota below have a single one, all
/// others map to themselves.
fn single_upper(c: char) -> char {
    let offset = match c {
        '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => 8,
        '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => 9,
        _ => 0,
    };
    char::from_u32(u32::from(c) + offset).unwrap_or(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_map_one_to_one() {
        assert_eq!(to_lower("ÄΑΣ İ Ω"), "äας i ω".replace('ς', "σ"));
        assert_eq!(to_upper("straße ﬀ ᾳ ᾀ ÿ"), "STRAßE ﬀ ᾼ ᾈ Ÿ");
    }
}

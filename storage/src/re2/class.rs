//! Classes: `[a-z\d[:alpha:]]`.

use super::{Escape, Read, Translator, push_char};

/// Names of classes within classes.
const NAMES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

impl Translator<'_> {
    /// A class, behind its opening bracket.
    pub(super) fn class(&mut self, start: usize) -> Read<()> {
        self.out.push('[');
        if self.accept('^') {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let at = self.pos();
            let Some(c) = self.peek() else {
                return Self::fail("missing closing ]", &self.text[start..]);
            };
            if c == ']' && !first {
                self.rest.next();
                self.out.push(']');
                return Ok(());
            }
            first = false;
            if self.named_class(at)? {
                continue;
            }
            let Some(low) = self.class_item()? else { continue };
            let range = self.peek() == Some('-')
                && self.text.get(self.pos_after_dash()..).is_some_and(|t| !t.starts_with(']'));
            if !range {
                push_char(&mut self.out, low);
                continue;
            }
            self.rest.next();
            let high = match self.peek() {
                None => return Self::fail("missing closing ]", &self.text[start..]),
                Some(_) => self.class_item()?,
            };
            match high {
                Some(high) if low <= high => {
                    push_char(&mut self.out, low);
                    self.out.push('-');
                    push_char(&mut self.out, high);
                }
                _ => return Self::fail("invalid character class range", self.since(at)),
            }
        }
    }

    fn pos_after_dash(&mut self) -> usize {
        self.pos() + 1
    }

    /// `[:alpha:]`, if it stands here.
    fn named_class(&mut self, at: usize) -> Read<bool> {
        let rest = self.text.get(at..).unwrap_or("");
        let Some(end) = rest.strip_prefix("[:").and_then(|t| t.find(":]")).map(|i| at + i + 4)
        else {
            return Ok(false);
        };
        let whole = &self.text[at..end];
        let name = whole[2..whole.len() - 2].trim_start_matches('^');
        if !NAMES.contains(&name) {
            return Self::fail("invalid character class range", whole);
        }
        self.out.push_str(whole);
        self.skip_to(end);
        Ok(true)
    }

    /// A character, which may begin a range; `None` if it was a class and has
    /// been written.
    fn class_item(&mut self) -> Read<Option<char>> {
        let Some((at, c)) = self.rest.next() else { return Ok(None) };
        if c != '\\' {
            return Ok(Some(c));
        }
        match self.escape(at)? {
            Escape::Char(c) => return Ok(Some(c)),
            Escape::Class(content, false) => self.out.push_str(content),
            Escape::Class(content, true) => {
                self.out.push_str("[^");
                self.out.push_str(content);
                self.out.push(']');
            }
            Escape::Property(property) => self.out.push_str(&property),
        }
        Ok(None)
    }
}

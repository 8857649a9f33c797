//! How far is it? A bar on standard error, if that is a terminal.

use std::io::{IsTerminal as _, Write as _};

/// Characters of the bar.
const WIDTH: u64 = 40;

/// A bar that is drawn anew for each percent.
#[derive(Debug)]
pub(super) struct Bar {
    what: &'static str,
    is_shown: bool,
    percent: Option<u64>,
}

impl Bar {
    /// A bar named so.
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, is_shown: std::io::stderr().is_terminal(), percent: None }
    }

    /// Notes that `done` of `total` is done.
    pub(super) fn set(&mut self, done: u64, total: u64) {
        let percent = (done * 100).checked_div(total).unwrap_or(100).min(100);
        if !self.is_shown || self.percent == Some(percent) {
            return;
        }
        self.percent = Some(percent);
        // If the terminal is gone there is nobody to tell.
        let _ = write!(std::io::stderr(), "\r{}", line(self.what, percent));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.percent.is_some() {
            let _ = writeln!(std::io::stderr());
        }
    }
}

fn line(what: &str, percent: u64) -> String {
    let full = "#".repeat((percent * WIDTH / 100) as usize);
    format!("{what} [{full:<width$}] {percent:3} %", width = WIDTH as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_grows() {
        assert_eq!(line("a", 0), format!("a [{}]   0 %", " ".repeat(40)));
        assert_eq!(line("a", 50), format!("a [{}{}]  50 %", "#".repeat(20), " ".repeat(20)));
        assert_eq!(line("a", 100), format!("a [{}] 100 %", "#".repeat(40)));
    }
}

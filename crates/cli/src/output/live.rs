//! Lines at the bottom of a terminal that change, while others above them stay.

use std::fmt::Write as _;
use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// To the left edge of the line so many lines above.
fn up(lines: usize) -> String {
    if lines == 0 { "\r".to_owned() } else { format!("\r\u{1b}[{lines}A") }
}

/// Erases from here to the end of the line.
const REST_OF_LINE: &str = "\u{1b}[K";
/// Erases from here to the end of the screen.
const REST_OF_SCREEN: &str = "\u{1b}[J";

/// The bottom of a terminal.
#[derive(Debug)]
pub(crate) struct Live<W: Write> {
    terminal: W,
    /// The columns that each line took which stands there now. The cursor is below the last of them.
    drawn: Vec<usize>,
}

impl<W: Write> Live<W> {
    pub(crate) fn new(terminal: W) -> Live<W> {
        Live { terminal, drawn: Vec::new() }
    }

    /// Writes lines that stay, and below them those that change from now on; `columns` is the terminal's width now. All in one piece, so that
    /// nobody sees half of it.
    pub(crate) fn draw(&mut self, staying: &[String], moving: &[String], columns: usize) -> io::Result<()> {
        if staying.is_empty() && moving.is_empty() && self.drawn.is_empty() {
            return Ok(());
        }
        // A terminal that has become narrower has folded what stood there.
        let rows = |width: &usize| width.div_ceil(columns.max(1)).max(1);
        let mut piece = up(self.drawn.iter().map(rows).sum());
        for line in staying.iter().chain(moving) {
            let _ = write!(piece, "{line}{REST_OF_LINE}\r\n");
        }
        piece.push_str(REST_OF_SCREEN);
        self.drawn = moving.iter().map(|line| width(line)).collect();
        self.terminal.write_all(piece.as_bytes())?;
        self.terminal.flush()
    }
}

/// How many columns a text takes; colours take none.
pub(crate) fn width(text: &str) -> usize {
    let mut parts = text.split('\u{1b}');
    let first = parts.next().map_or(0, |part| part.width());
    first + parts.map(|part| part.split_once('m').map_or(0, |(_, rest)| rest.width())).sum::<usize>()
}

/// As much of a text without colours as fits, with `end` where something is missing.
pub(crate) fn cut(text: &str, columns: usize, end: &str) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    // Where there is no room for it the text alone says more.
    let end = if end.width() <= columns { end } else { "" };
    let room = columns - end.width();
    let (mut kept, mut used) = (String::new(), 0);
    for letter in text.chars() {
        used += letter.width().unwrap_or(0);
        if used > room {
            break;
        }
        kept.push(letter);
    }
    kept + end
}

/// What a program wrote as one line of text: without colours and movements of the cursor, and only what it wrote last over the rest.
pub(crate) fn plain(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let line = line.rsplit('\r').next().unwrap_or_default();
    let mut text = String::new();
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' => skip_sequence(&mut letters),
            '\t' => text.push_str("    "),
            letter if letter.is_control() => {}
            letter => text.push(letter),
        }
    }
    text
}

/// Passes over what stands behind an escape.
fn skip_sequence(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match letters.next() {
        // Parameters, then one letter.
        Some('[') => while letters.next().is_some_and(|letter| !('@'..='~').contains(&letter)) {},
        // Anything up to a bell, or to an escape and a backslash.
        Some(']') => {
            while let Some(letter) = letters.next() {
                if letter == '\u{7}' {
                    return;
                }
                if letter == '\u{1b}' {
                    letters.next();
                    return;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_columns() {
        assert_eq!((width("abc"), width("\u{1b}[2mab\u{1b}[0mc"), width("日本"), width("e\u{301}")), (3, 3, 4, 1));
        let cuts = [("abcdef", 6), ("abcdef", 5), ("日本語", 5), ("abc", 1), ("abc", 0)];
        assert_eq!(cuts.map(|(text, columns)| cut(text, columns, "…")), ["abcdef", "abcd…", "日本…", "…", ""]);
        assert_eq!(cut("abcdef", 2, "..."), "ab");
    }

    #[test]
    fn nothing_that_a_program_writes_moves_the_cursor() {
        assert_eq!(plain("10%\r50%\r100%\r"), "100%");
        assert_eq!(plain("\u{1b}[31mred\u{1b}[0m\tx\u{1b}]0;title\u{7}y\u{1b}]8;;u\u{1b}\\z\u{8}\u{1b}"), "red    xyz");
    }

    #[test]
    fn what_moves_is_overwritten_and_what_stays_stays() {
        let mut bytes = Vec::new();
        let mut live = Live::new(&mut bytes);
        let lines = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        live.draw(&[], &[], 80).unwrap();
        live.draw(&lines(&["one"]), &lines(&["a", "long text"]), 80).unwrap();
        // The terminal is narrower now: the second line has become three.
        live.draw(&[], &lines(&["b"]), 4).unwrap();
        live.draw(&[], &[], 80).unwrap();
        let expected = "\rone\u{1b}[K\r\na\u{1b}[K\r\nlong text\u{1b}[K\r\n\u{1b}[J\
                        \r\u{1b}[4Ab\u{1b}[K\r\n\u{1b}[J\r\u{1b}[1A\u{1b}[J";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    proptest::proptest! {
        #[test]
        fn a_cut_fits(text in "\\PC{0,30}", columns in 0_usize..40) {
            assert!(width(&cut(&text, columns, "…")) <= columns);
            assert!(!plain(&text).contains(char::is_control));
        }
    }
}

//! What a build looks like on a terminal, as lines of text: what is done above, what runs below with the end of its output, and the whole
//! in the last line.
//!
//! ```text
//! ✓ [build 2/4] COPY . /src                                     0.2s   1.2MB
//! • [build 3/4] RUN go mod download                           cached  95.1MB
//! ⠹ [build 4/4] RUN go build -o /program .                     12.4s
//!   │ github.com/example/program/internal
//! building: 14.9s, 5 steps done, 3 of them from the cache, 1 running
//! ```

use std::time::Duration;

use super::{Counts, Row};
use crate::output::live::{cut, plain, width};
use crate::output::units;

/// Lines longer than this are hard to follow from their beginning to their end.
const COLUMNS_MAX: usize = 100;
/// Columns of a time, and of a size.
const STATE_COLUMNS: usize = 8;
/// On narrower terminals sizes are left out, and on even narrower ones times.
const COLUMNS_FOR_SIZES: usize = 60;
const COLUMNS_FOR_STATES: usize = 30;
/// Lines of output below a step that runs.
const OUTPUT_LINES: usize = 5;

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ink {
    pub(super) colours: bool,
    /// Letters beyond ASCII.
    pub(super) letters: bool,
}

impl Ink {
    /// What the environment says: `NO_COLOR`, and the locale.
    pub(super) fn of(variable: impl Fn(&str) -> Option<String>) -> Ink {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_lowercase();
        let letters = locale.contains("utf-8") || locale.contains("utf8");
        Ink { colours: set("NO_COLOR").is_none(), letters }
    }

    fn coloured(self, colour: &str, text: &str) -> String {
        if self.colours && !text.is_empty() { format!("\u{1b}[{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn ellipsis(self) -> &'static str {
        if self.letters { "…" } else { "..." }
    }

    fn bar(self) -> &'static str {
        if self.letters { "│" } else { "|" }
    }
}

const FAINT: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const BLUE: &str = "34";
const CYAN: &str = "36";

/// How a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The number says which picture of the moving mark is shown.
    Running(usize),
    Done,
    Cached,
    Failed,
    /// It did not come to its end because another one failed.
    Stopped,
}

impl Standing {
    fn mark(self, ink: Ink) -> String {
        let (colour, letter, plain) = match self {
            Standing::Running(tick) => {
                let mark = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏".chars().nth(tick % 10).unwrap_or_default();
                let plain = "|/-\\".chars().nth(tick % 4).unwrap_or_default();
                (BLUE, mark, plain)
            }
            Standing::Done => (GREEN, '✓', '+'),
            Standing::Cached => (CYAN, '•', '='),
            Standing::Failed => (RED, '✗', 'x'),
            Standing::Stopped => (FAINT, '-', '-'),
        };
        ink.coloured(colour, &(if ink.letters { letter } else { plain }).to_string())
    }
}

/// `0.2s`, `12.4s`, `2m03s`, `1h05m`
pub(super) fn time(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    match seconds {
        0..60 => format!("{:.1}s", (elapsed.as_millis() / 100) as f64 / 10.0),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// A step's line: its mark and title, at the right how long it took and how large its layer is.
pub(super) fn step(row: &Row, standing: Standing, elapsed: Duration, columns: usize, ink: Ink) -> String {
    let columns = columns.min(COLUMNS_MAX);
    let state = match standing {
        Standing::Cached => "cached".to_owned(),
        Standing::Stopped => "stopped".to_owned(),
        _ => time(elapsed),
    };
    let size = if row.size_bytes > 0 { units::size(row.size_bytes) } else { String::new() };
    let mut right = String::new();
    if columns >= COLUMNS_FOR_STATES {
        right = format!("{state:>STATE_COLUMNS$}");
    }
    if columns >= COLUMNS_FOR_SIZES {
        right += &format!("{size:>STATE_COLUMNS$}");
    }
    let room = columns.saturating_sub(2 + right.len());
    let title = cut(&plain(&row.title), room, ink.ellipsis());
    let gap = " ".repeat(room.saturating_sub(width(&title)));
    let title = match standing {
        Standing::Failed => ink.coloured(RED, &title),
        Standing::Stopped => ink.coloured(FAINT, &title),
        _ => title,
    };
    let right = if standing == Standing::Failed { right } else { ink.coloured(FAINT, &right) };
    let line = format!("{} {title}{gap}{right}", standing.mark(ink));
    line.trim_end().to_owned()
}

/// A line below a step's.
pub(super) fn below(text: &str, columns: usize, ink: Ink) -> String {
    let text = cut(&plain(text), columns.saturating_sub(4), ink.ellipsis());
    ink.coloured(FAINT, &format!("  {} {text}", ink.bar()))
}

/// The lines that move: steps that run with the end of their output as far as there is room, and the whole.
pub(super) fn moving(
    running: &[&Row],
    (counts, elapsed): (Counts, Duration),
    tick: usize,
    (rows, columns): (usize, usize),
    ink: Ink,
) -> Vec<String> {
    // The cursor stands below, and the last line tells of the whole.
    let Some(room) = rows.checked_sub(2).filter(|room| *room > 0) else { return Vec::new() };
    let shown = if running.len() > room { room - 1 } else { running.len() };
    let spare = (room - shown).checked_div(shown).unwrap_or(0).min(OUTPUT_LINES);
    let mut lines = Vec::new();
    for row in &running[..shown] {
        lines.push(step(row, Standing::Running(tick), row.begun.elapsed(), columns, ink));
        let output: Vec<&str> = row.tail(spare);
        lines.extend(output.into_iter().map(|line| below(line, columns, ink)));
    }
    if shown < running.len() {
        lines.push(cut(&format!("  and {} more", running.len() - shown), columns, ""));
    }
    let whole = format!(
        "building: {}, {} steps done, {} of them from the cache, {} running",
        time(elapsed),
        counts.made + counts.from_cache,
        counts.from_cache,
        running.len()
    );
    lines.push(ink.coloured(FAINT, &cut(&whole, columns, ink.ellipsis())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Ink = Ink { colours: false, letters: true };

    fn row(title: &str, size_bytes: u64, output: &str) -> Row {
        Row { size_bytes, output: output.to_owned(), ..Row::new(title.to_owned(), true) }
    }

    #[test]
    fn columns_stand_below_one_another_whatever_the_width() {
        let row = row("[build 2/4] COPY . /source/of/the/program", 95_100_000, "");
        let line = |columns| step(&row, Standing::Cached, Duration::ZERO, columns, PLAIN);
        assert_eq!(line(80), format!("• {:<62}  cached  95.1MB", row.title));
        assert_eq!(line(200), line(COLUMNS_MAX));
        assert_eq!(line(40), "• [build 2/4] COPY . /source/of…  cached");
        assert_eq!(line(20), "• [build 2/4] COPY …");
        for columns in 0..120 {
            assert!(width(&line(columns)) <= columns.max(2), "{columns}");
        }
    }

    #[test]
    fn times_are_as_short_as_they_can_be() {
        let shown = [0, 1_260, 59_990, 60_000, 3_599_000, 3_900_000].map(|ms| time(Duration::from_millis(ms)));
        assert_eq!(shown, ["0.0s", "1.2s", "59.9s", "1m00s", "59m59s", "1h05m"]);
    }

    #[test]
    fn what_runs_never_needs_more_room_than_there_is() {
        let output: String = (0..20).map(|line| format!("line {line}\n")).collect();
        let all: Vec<Row> = (0..12).map(|number| row(&format!("RUN {number}"), 0, &output)).collect();
        let counts = Counts { made: 2, from_cache: 1 };
        let lines = |count: usize, rows: usize| {
            let running: Vec<&Row> = all.iter().take(count).collect();
            moving(&running, (counts, Duration::from_secs(5)), 3, (rows, 80), PLAIN)
        };
        assert_eq!(lines(1, 24).len(), 1 + OUTPUT_LINES + 1);
        assert_eq!(lines(1, 24)[OUTPUT_LINES], "  │ line 19");
        assert_eq!(lines(3, 10).len(), 3 + 3 + 1);
        let crowded = lines(12, 8);
        assert_eq!((crowded.len(), crowded[5].as_str()), (7, "  and 7 more"));
        assert_eq!(crowded[6], "building: 5.0s, 3 steps done, 1 of them from the cache, 12 running");
        for (count, rows) in [(0, 24), (12, 24), (12, 3), (1, 2), (1, 1), (1, 0)] {
            assert!(lines(count, rows).len() <= rows.saturating_sub(1), "{count} {rows}");
        }
    }

    #[test]
    fn the_environment_decides_about_colours_and_letters() {
        let ink = |pairs: &[(&str, &str)]| {
            Ink::of(|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(ink(&[("LANG", "C.UTF-8")]), Ink { colours: true, letters: true });
        assert_eq!(
            ink(&[("NO_COLOR", "1"), ("LANG", "de_DE.utf8"), ("LC_ALL", "C")]),
            Ink { colours: false, letters: false }
        );
        let failed = step(&row("RUN x", 0, ""), Standing::Failed, Duration::ZERO, 40, ink(&[("NO_COLOR", "")]));
        assert!(failed.starts_with("\u{1b}[31mx\u{1b}[0m \u{1b}[31mRUN x\u{1b}[0m"), "{failed:?}");
        assert!(step(&row("RUN x", 0, ""), Standing::Done, Duration::ZERO, 40, PLAIN).is_char_boundary(3));
    }
}

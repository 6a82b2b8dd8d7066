//! A build while it runs: steps side by side with their time, sizes and hits of the cache; on a terminal as lines that move, elsewhere as
//! lines that stay, or as JSON.

mod picture;

use std::collections::BTreeMap;
use std::io::{self, Stderr};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use docker_api::progress::BuildStep;

use self::picture::{Ink, Standing};
use super::live::Live;
use super::units;
use crate::commands::print;

/// How a build is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Steps that run move at the bottom of the terminal.
    Screen,
    /// Every line stays.
    Plain,
    /// What the engine says, a document a line.
    Json,
}

/// Whether it is said why steps had to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reasons {
    Told,
    Untold,
}

/// So many lines of a command that failed are shown where its output was not.
const TAIL_LINES: usize = 20;
/// A line of a command that never ends is kept up to here.
const TAIL_BYTES: usize = 64 << 10;
/// How often moving lines move.
const TICK: Duration = Duration::from_millis(100);
/// What nobody wrote into a Dockerfile stays on the screen only when it took so long.
const INTERNAL_SECONDS: f64 = 1.0;
/// Where a terminal does not say how large it is.
const USUAL_SIZE: (usize, usize) = (24, 80);

/// A step that runs.
#[derive(Debug)]
struct Row {
    title: String,
    makes_files: bool,
    cached: bool,
    size_bytes: u64,
    reasons: Vec<String>,
    /// The end of what its command wrote, the last line perhaps unfinished.
    output: String,
    /// What of its parts has come.
    progress: String,
    begun: Instant,
}

/// Steps that are done.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    made: usize,
    from_cache: usize,
}

/// All steps.
#[derive(Debug)]
struct Board {
    form: Form,
    reasons: Reasons,
    rows: BTreeMap<u32, Row>,
    counts: Counts,
    begun: Instant,
    live: Live<Stderr>,
    ink: Ink,
    tick: usize,
}

/// A build as it is shown.
#[derive(Debug)]
pub(crate) struct View {
    board: Arc<Mutex<Board>>,
    /// Moves the lines; it ends when its channel does.
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl View {
    pub(crate) fn new(form: Form, reasons: Reasons) -> View {
        let board = Arc::new(Mutex::new(Board::new(form, reasons)));
        let ticker = (form == Form::Screen).then(|| tick(Arc::clone(&board))).flatten();
        View { board, ticker }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows what happens.
    pub(crate) fn show(&mut self, told: BuildStep) -> io::Result<()> {
        self.board().show(told)
    }

    /// Shows a line of the engine's.
    pub(crate) fn line(&self, text: &str) -> io::Result<()> {
        let mut board = self.board();
        if board.form == Form::Screen {
            board.live.draw(&[], &[], terminal_size().1)?;
        }
        print(&format!("{text}\n"))
    }

    /// What is said when all is over.
    pub(crate) fn summary(&self) -> String {
        let board = self.board();
        let Counts { made, from_cache } = board.counts;
        let (all, took) = (made + from_cache, picture::time(board.begun.elapsed()));
        format!("{all} steps in {took}, {from_cache} of them from the cache")
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.ticker.take() {
            drop(stop);
            let _ = thread.join();
            // What moved is over, and a terminal that is gone shows nothing anyway.
            let _ = self.board().live.draw(&[], &[], terminal_size().1);
        }
    }
}

/// Moves the lines of a board until its channel ends. Without the thread they move when something happens.
fn tick(board: Arc<Mutex<Board>>) -> Option<(Sender<()>, JoinHandle<()>)> {
    let (stop, stopped) = channel();
    let work = move || {
        while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            let mut board = board.lock().unwrap_or_else(PoisonError::into_inner);
            board.tick += 1;
            if board.draw(&[]).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("build-view".to_owned()).spawn(work).ok()?;
    Some((stop, thread))
}

/// Rows and columns of the terminal that shows the build.
fn terminal_size() -> (usize, usize) {
    let found = rustix::termios::tcgetwinsize(rustix::stdio::stderr()).ok();
    let found = found.filter(|size| size.ws_row > 0 && size.ws_col > 0);
    found.map_or(USUAL_SIZE, |size| (usize::from(size.ws_row), usize::from(size.ws_col)))
}

impl Board {
    fn new(form: Form, reasons: Reasons) -> Board {
        Board {
            form,
            reasons,
            rows: BTreeMap::new(),
            counts: Counts::default(),
            begun: Instant::now(),
            live: Live::new(io::stderr()),
            ink: Ink::of(|name| std::env::var(name).ok()),
            tick: 0,
        }
    }

    fn show(&mut self, told: BuildStep) -> io::Result<()> {
        match self.form {
            Form::Json => print(&format!("{}\n", serde_json::to_string(&told)?)),
            Form::Plain => self.lines(told, USUAL_SIZE.1).iter().try_for_each(|line| print(&format!("{line}\n"))),
            Form::Screen => match self.lines(told, terminal_size().1) {
                // What only moves is seen with the next tick.
                lines if lines.is_empty() => Ok(()),
                lines => self.draw(&lines),
            },
        }
    }

    fn draw(&mut self, staying: &[String]) -> io::Result<()> {
        let size = terminal_size();
        let running: Vec<&Row> = self.rows.values().filter(|row| row.makes_files).collect();
        let moving = picture::moving(&running, (self.counts, self.begun.elapsed()), self.tick, size, self.ink);
        self.live.draw(staying, &moving, size.1)
    }

    /// The lines that stay; `columns` is the width of the terminal.
    fn lines(&mut self, told: BuildStep, columns: usize) -> Vec<String> {
        match told {
            BuildStep::Begin { step, title, makes_files } => self.begin(step, title, makes_files),
            BuildStep::Warning { text } => vec![format!("warning: {}", text.trim_end())],
            BuildStep::End { step, seconds, error } => match self.rows.remove(&step) {
                Some(row) => self.end((step, row), seconds, error.as_deref(), columns),
                None => Vec::new(),
            },
            BuildStep::Output { step, text } => self.output(step, &text),
            BuildStep::Cached { step } => self.change(step, |row| row.cached = true),
            BuildStep::Size { step, bytes } => self.change(step, |row| row.size_bytes = bytes),
            BuildStep::Because { step, reasons } => self.change(step, |row| row.reasons = reasons),
            BuildStep::Progress { step, name, current, total } => self.change(step, |row| {
                let whole = total.map(|total| format!("/{}", units::size(total))).unwrap_or_default();
                row.progress = format!("{name} {}{whole}", units::size(current));
            }),
        }
    }

    fn change(&mut self, step: u32, change: impl FnOnce(&mut Row)) -> Vec<String> {
        if let Some(row) = self.rows.get_mut(&step) {
            change(row);
        }
        Vec::new()
    }

    fn begin(&mut self, step: u32, title: String, makes_files: bool) -> Vec<String> {
        let line = format!("#{step} {title}");
        self.rows.insert(step, Row::new(title, makes_files));
        if makes_files && self.form == Form::Plain { vec![line] } else { Vec::new() }
    }

    fn output(&mut self, step: u32, text: &str) -> Vec<String> {
        let Some(row) = self.rows.get_mut(&step) else { return Vec::new() };
        row.output.push_str(text);
        if self.form == Form::Screen {
            row.keep_tail();
            return Vec::new();
        }
        // Only whole lines, so that steps side by side do not share one.
        let Some(end) = row.output.rfind('\n') else { return Vec::new() };
        let rest = row.output.split_off(end + 1);
        let whole = std::mem::replace(&mut row.output, rest);
        whole.lines().map(|line| format!("#{step} | {line}")).collect()
    }

    fn end(&mut self, (step, row): (u32, Row), seconds: f64, error: Option<&str>, columns: usize) -> Vec<String> {
        if !row.makes_files {
            return Vec::new();
        }
        let standing = match error {
            Some(STOPPED) => Standing::Stopped,
            Some(_) => Standing::Failed,
            None if row.cached => Standing::Cached,
            None => Standing::Done,
        };
        match standing {
            Standing::Cached => self.counts.from_cache += 1,
            _ if row.is_internal() => {}
            _ => self.counts.made += 1,
        }
        let mut lines = match self.form {
            Form::Screen => self.ended_on_screen(&row, standing, seconds, columns),
            Form::Plain | Form::Json => ended(step, &row, standing, seconds),
        };
        if let Some(error) = error.filter(|_| standing == Standing::Failed) {
            // Not every failure ends the build, which then says nothing of it: a cache that cannot be read.
            lines.extend(error.lines().map(|line| match self.form {
                Form::Screen => picture::below(line, columns, self.ink),
                Form::Plain | Form::Json => format!("#{step} ERROR: {line}"),
            }));
        }
        if self.reasons == Reasons::Told && !row.reasons.is_empty() {
            let because = row.reasons.join(", ");
            lines.push(match self.form {
                Form::Screen => picture::below(&format!("because {because}"), columns, self.ink),
                Form::Plain | Form::Json => format!("#{step} ran because {because}"),
            });
        }
        lines
    }

    fn ended_on_screen(&self, row: &Row, standing: Standing, seconds: f64, columns: usize) -> Vec<String> {
        let went_well = matches!(standing, Standing::Done | Standing::Cached);
        if went_well && row.is_internal() && seconds < INTERNAL_SECONDS {
            return Vec::new();
        }
        let elapsed = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let mut lines = vec![picture::step(row, standing, elapsed, columns, self.ink)];
        if standing == Standing::Failed {
            lines.extend(row.tail(TAIL_LINES).into_iter().map(|line| picture::below(line, columns, self.ink)));
        }
        lines
    }
}

/// What the engine says of a step that ended because another one failed.
const STOPPED: &str = "build cancelled";

/// A step that is over, as lines among those of others.
fn ended(step: u32, row: &Row, standing: Standing, seconds: f64) -> Vec<String> {
    let mut lines: Vec<String> =
        row.output.lines().filter(|line| !line.is_empty()).map(|line| format!("#{step} | {line}")).collect();
    let size = if row.size_bytes > 0 { format!(" {}", units::size(row.size_bytes)) } else { String::new() };
    lines.push(match standing {
        Standing::Failed => format!("#{step} FAILED {seconds:.1}s"),
        Standing::Stopped => format!("#{step} STOPPED {seconds:.1}s"),
        Standing::Cached => format!("#{step} CACHED{size}"),
        Standing::Done | Standing::Running(_) => format!("#{step} DONE {seconds:.1}s{size}"),
    });
    lines
}

impl Row {
    fn new(title: String, makes_files: bool) -> Row {
        Row {
            title,
            makes_files,
            cached: false,
            size_bytes: 0,
            reasons: Vec::new(),
            output: String::new(),
            progress: String::new(),
            begun: Instant::now(),
        }
    }

    /// Whether nobody wrote it into a Dockerfile.
    fn is_internal(&self) -> bool {
        self.title.starts_with("[internal]")
    }

    /// The last lines of its output that are not empty, or what of its parts has come.
    fn tail(&self, lines: usize) -> Vec<&str> {
        let written = self.output.lines().filter(|line| !line.trim().is_empty());
        let moved = Some(self.progress.as_str()).filter(|text| !text.is_empty());
        let mut tail: Vec<&str> = written.rev().chain(moved).take(lines).collect();
        tail.reverse();
        tail
    }

    fn keep_tail(&mut self) {
        let lines = self.output.matches('\n').count();
        let mut begin = 0;
        if lines > 2 * TAIL_LINES {
            begin = self.output.match_indices('\n').nth(lines - TAIL_LINES - 1).map_or(0, |(at, _)| at + 1);
        }
        if self.output.len() - begin > 2 * TAIL_BYTES {
            begin = self.output.len() - TAIL_BYTES;
            while !self.output.is_char_boundary(begin) {
                begin += 1;
            }
        }
        self.output.drain(..begin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(step: u32, title: &str) -> BuildStep {
        BuildStep::Begin { step, title: title.to_owned(), makes_files: true }
    }

    fn output(step: u32, text: &str) -> BuildStep {
        BuildStep::Output { step, text: text.to_owned() }
    }

    fn end(step: u32, error: Option<&str>) -> BuildStep {
        BuildStep::End { step, seconds: 1.25, error: error.map(str::to_owned) }
    }

    #[test]
    fn steps_side_by_side_share_no_line() {
        let mut board = Board::new(Form::Plain, Reasons::Told);
        let told = vec![
            begin(1, "[a 1/1] RUN x"),
            begin(2, "[b 1/1] COPY y /"),
            output(1, "one\nha"),
            BuildStep::Size { step: 2, bytes: 1500 },
            BuildStep::Cached { step: 2 },
            end(2, None),
            BuildStep::Because { step: 1, reasons: vec!["the command changed".into(), "y is gone".into()] },
            output(1, "lf"),
            end(1, None),
            end(7, None),
            begin(3, "importing cache"),
            end(3, Some("not there")),
        ];
        let lines: Vec<String> = told.into_iter().flat_map(|told| board.lines(told, 80)).collect();
        let expected = [
            "#1 [a 1/1] RUN x",
            "#2 [b 1/1] COPY y /",
            "#1 | one",
            "#2 CACHED 1.5kB",
            "#1 | half",
            "#1 DONE 1.2s",
            "#1 ran because the command changed, y is gone",
            "#3 importing cache",
            "#3 FAILED 1.2s",
            "#3 ERROR: not there",
        ];
        assert_eq!(lines, expected);
        assert_eq!((board.counts.made, board.counts.from_cache), (2, 1));
    }

    #[test]
    fn what_only_configures_is_not_shown_and_a_failure_shows_its_output() {
        let mut board = Board { ink: Ink { colours: false, letters: true }, ..Board::new(Form::Screen, Reasons::Told) };
        let config = BuildStep::Begin { step: 1, title: "ENV a=b".into(), makes_files: false };
        let mut lines: Vec<String> = Vec::new();
        let noise: String = (0..200).map(|number| format!("line {number}\n")).collect();
        let because = BuildStep::Because { step: 2, reasons: vec!["the command changed".into()] };
        for told in [
            config,
            end(1, None),
            begin(2, "RUN x"),
            begin(3, "RUN y"),
            begin(4, "[internal] load build context"),
            because,
            output(2, &noise),
            end(2, Some("exit code 1")),
            end(3, Some(STOPPED)),
            end(4, None),
        ] {
            lines.extend(board.lines(told, 40));
        }
        let mut expected = vec!["✗ RUN x                             1.2s".to_owned()];
        expected.extend((180..200).map(|number| format!("  │ line {number}")));
        expected.push("  │ exit code 1".to_owned());
        expected.push("  │ because the command changed".to_owned());
        expected.push("- RUN y                          stopped".to_owned());
        expected.push("✓ [internal] load build context     1.2s".to_owned());
        assert_eq!(lines, expected);
    }

    #[test]
    fn output_without_end_is_not_kept() {
        let mut board = Board::new(Form::Screen, Reasons::Untold);
        board.lines(begin(1, "RUN x"), 80);
        for _ in 0..10 {
            board.lines(output(1, &"ä".repeat(TAIL_BYTES)), 80);
        }
        assert!(board.rows[&1].output.len() <= 4 * TAIL_BYTES);
    }
}

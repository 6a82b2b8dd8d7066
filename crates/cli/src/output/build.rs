//! A build while it runs: steps side by side with their time, sizes and hits of the cache; on a terminal as lines that move, elsewhere as
//! lines that stay, or as JSON.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use docker_api::progress::BuildStep;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

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
/// How often a moving line moves.
const TICK: Duration = Duration::from_millis(100);
/// A step's title on the screen.
const TITLE_WIDTH: usize = 60;

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
    bar: Option<ProgressBar>,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct View {
    form: Form,
    reasons: Reasons,
    rows: BTreeMap<u32, Row>,
    bars: MultiProgress,
    begun: Instant,
    made: usize,
    from_cache: usize,
}

impl View {
    pub(crate) fn new(form: Form, reasons: Reasons) -> View {
        let target = if form == Form::Screen { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        View {
            form,
            reasons,
            rows: BTreeMap::new(),
            bars: MultiProgress::with_draw_target(target),
            begun: Instant::now(),
            made: 0,
            from_cache: 0,
        }
    }

    /// Shows what happens.
    pub(crate) fn show(&mut self, told: BuildStep) -> io::Result<()> {
        if self.form == Form::Json {
            return self.line(&serde_json::to_string(&told)?);
        }
        let lines = self.lines(told);
        lines.iter().try_for_each(|line| self.line(line))
    }

    /// Shows a line of the engine's.
    pub(crate) fn line(&self, text: &str) -> io::Result<()> {
        self.bars.suspend(|| print(&format!("{text}\n")))
    }

    /// What is said when all is over.
    pub(crate) fn summary(&self) -> String {
        let seconds = self.begun.elapsed().as_secs_f64();
        let all = self.made + self.from_cache;
        format!("{all} steps in {seconds:.1}s, {} of them from the cache", self.from_cache)
    }

    /// The lines that stay; moving ones are changed on the way.
    fn lines(&mut self, told: BuildStep) -> Vec<String> {
        match told {
            BuildStep::Begin { step, title, makes_files } => self.begin(step, title, makes_files),
            BuildStep::Warning { text } => vec![format!("warning: {text}")],
            BuildStep::End { step, seconds, error } => match self.rows.remove(&step) {
                Some(row) => self.end(step, row, seconds, error.is_some()),
                None => Vec::new(),
            },
            BuildStep::Output { step, text } => self.output(step, &text),
            BuildStep::Cached { step } => self.change(step, |row| row.cached = true),
            BuildStep::Size { step, bytes } => self.change(step, |row| row.size_bytes = bytes),
            BuildStep::Because { step, reasons } => self.change(step, |row| row.reasons = reasons),
            BuildStep::Progress { step, name, current, total } => self.change(step, |row| {
                let whole = total.map(|total| format!("/{}", units::size(total))).unwrap_or_default();
                row.move_to(&format!("{name} {}{whole}", units::size(current)));
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
        let moves = makes_files && self.form == Form::Screen;
        let bar = moves.then(|| {
            let style = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}");
            let bar = ProgressBar::new_spinner().with_style(style.expect("the template is well-formed"));
            let bar = self.bars.add(bar.with_prefix(units::ellipsis(&title, TITLE_WIDTH)));
            bar.enable_steady_tick(TICK);
            bar
        });
        let line = format!("#{step} {title}");
        let row =
            Row { title, makes_files, cached: false, size_bytes: 0, reasons: Vec::new(), output: String::new(), bar };
        self.rows.insert(step, row);
        if makes_files && self.form == Form::Plain { vec![line] } else { Vec::new() }
    }

    fn output(&mut self, step: u32, text: &str) -> Vec<String> {
        let Some(row) = self.rows.get_mut(&step) else { return Vec::new() };
        row.output.push_str(text);
        if self.form == Form::Screen {
            row.keep_tail();
            row.move_to(row.output.lines().last().unwrap_or_default());
            return Vec::new();
        }
        // Only whole lines, so that steps side by side do not share one.
        let Some(end) = row.output.rfind('\n') else { return Vec::new() };
        let rest = row.output.split_off(end + 1);
        let whole = std::mem::replace(&mut row.output, rest);
        whole.lines().map(|line| format!("#{step} | {line}")).collect()
    }

    fn end(&mut self, step: u32, row: Row, seconds: f64, failed: bool) -> Vec<String> {
        if let Some(bar) = &row.bar {
            bar.finish_and_clear();
            self.bars.remove(bar);
        }
        if !row.makes_files {
            return Vec::new();
        }
        let own = if self.form == Form::Screen { row.title.clone() } else { format!("#{step}") };
        let mut lines = Vec::new();
        if failed || self.form == Form::Plain {
            let tail: Vec<&str> = row.output.lines().rev().take(TAIL_LINES).collect();
            lines.extend(tail.iter().rev().map(|line| format!("#{step} | {line}")));
        }
        let size = if row.size_bytes > 0 { format!(" {}", units::size(row.size_bytes)) } else { String::new() };
        lines.push(match (failed, row.cached) {
            (true, _) => format!("{own} FAILED {seconds:.1}s"),
            (false, true) => format!("{own} CACHED{size}"),
            (false, false) => format!("{own} DONE {seconds:.1}s{size}"),
        });
        if row.cached {
            self.from_cache += 1;
        } else {
            self.made += 1;
        }
        if self.reasons == Reasons::Told && !row.reasons.is_empty() {
            lines.push(format!("#{step} ran because {}", row.reasons.join(", ")));
        }
        lines
    }
}

impl Row {
    fn move_to(&self, text: &str) {
        if let Some(bar) = &self.bar {
            // Commands that move the cursor must not move it here.
            bar.set_message(text.chars().filter(|letter| !letter.is_control()).collect::<String>());
        }
    }

    fn keep_tail(&mut self) {
        let lines = self.output.matches('\n').count();
        if lines > 2 * TAIL_LINES {
            let begin = self.output.match_indices('\n').nth(lines - TAIL_LINES - 1).map_or(0, |(at, _)| at + 1);
            self.output.drain(..begin);
        }
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
        let mut view = View::new(Form::Plain, Reasons::Told);
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
        ];
        let lines: Vec<String> = told.into_iter().flat_map(|told| view.lines(told)).collect();
        let expected = [
            "#1 [a 1/1] RUN x",
            "#2 [b 1/1] COPY y /",
            "#1 | one",
            "#2 CACHED 1.5kB",
            "#1 | half",
            "#1 DONE 1.2s",
            "#1 ran because the command changed, y is gone",
        ];
        assert_eq!(lines, expected);
        assert!(view.summary().starts_with("2 steps in ") && view.summary().ends_with("1 of them from the cache"));
    }

    #[test]
    fn what_only_configures_is_not_shown_and_a_failure_shows_its_output() {
        let mut view = View::new(Form::Screen, Reasons::Untold);
        let config = BuildStep::Begin { step: 1, title: "ENV a=b".into(), makes_files: false };
        let mut lines: Vec<String> = Vec::new();
        let noise: String = (0..200).map(|number| format!("line {number}\n")).collect();
        for told in [config, end(1, None), begin(2, "RUN x"), output(2, &noise), end(2, Some("exit code 1"))] {
            lines.extend(view.lines(told));
        }
        assert_eq!(lines.len(), TAIL_LINES + 1, "{lines:?}");
        assert_eq!(lines[TAIL_LINES - 1], "#2 | line 199");
        assert_eq!(lines[TAIL_LINES], "RUN x FAILED 1.2s");
    }
}

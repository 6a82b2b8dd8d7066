//! What a bench found: a table for people, JSON for programs.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::measure::Summary;
use super::world::{Contender, Side};
use crate::process::workspace;

/// The result of one bench.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    /// Times of single runs.
    rows: Vec<Row>,
    /// Other figures.
    figures: Vec<Figure>,
    /// What was promised, and what came out.
    promises: Vec<Promise>,
}

#[derive(Debug, Serialize)]
struct Machine {
    kernel: String,
    processors: usize,
    load: String,
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    side: String,
    milliseconds: Summary,
    /// Times the floor's median; none where there is no floor.
    of_floor: Option<f64>,
    /// Times the best peer's median.
    of_best_peer: Option<f64>,
}

/// A figure that is no time of a single run.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// What it is of.
    pub(crate) name: String,
    /// How much.
    pub(crate) value: f64,
    /// Of what.
    pub(crate) unit: &'static str,
}

/// A promise of the specification.
#[derive(Debug, Serialize)]
struct Promise {
    text: String,
    wanted: f64,
    found: f64,
    kept: bool,
}

/// Which way a promised figure is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// No more than this.
    AtMost,
    /// No less than this.
    AtLeast,
}

impl Report {
    /// A report with nothing in it yet.
    pub(crate) fn new() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let machine = Machine { kernel: read("/proc/sys/kernel/osrelease"), processors, load: read("/proc/loadavg") };
        Self { machine, rows: Vec::new(), figures: Vec::new(), promises: Vec::new() }
    }

    /// Adds the times of a contender.
    pub(crate) fn add(&mut self, contender: &Contender, times: &[Duration]) {
        if !times.is_empty() {
            let side = format!("{:?}", contender.side).to_lowercase();
            let milliseconds = Summary::of(times);
            self.rows.push(Row { name: contender.name, side, milliseconds, of_floor: None, of_best_peer: None });
        }
    }

    /// Fills in the ratios, once all rows are there.
    pub(crate) fn compare(&mut self) {
        let side = |side: Side| format!("{side:?}").to_lowercase();
        let best = |rows: &[Row], wanted: Side| {
            let of_side = rows.iter().filter(|row| row.side == side(wanted));
            of_side.map(|row| row.milliseconds.median).min_by(f64::total_cmp)
        };
        let (floor, peer) = (best(&self.rows, Side::Floor), best(&self.rows, Side::Peer));
        for row in &mut self.rows {
            row.of_floor = floor.map(|floor| row.milliseconds.median / floor);
            row.of_best_peer = peer.map(|peer| row.milliseconds.median / peer);
        }
    }

    /// Adds a figure.
    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { name: name.into(), value, unit });
    }

    /// A figure that was added.
    pub(crate) fn figure_of(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }

    /// The summary of a contender's times.
    pub(crate) fn row(&self, name: &str) -> Option<Summary> {
        self.rows.iter().find(|row| row.name == name).map(|row| row.milliseconds)
    }

    /// Adds a promise, if what it is about was measured.
    pub(crate) fn promise(&mut self, text: impl Into<String>, bound: Bound, wanted: f64, found: Option<f64>) {
        let Some(found) = found else { return };
        let (kept, word) = match bound {
            Bound::AtMost => (found <= wanted, "at most"),
            Bound::AtLeast => (found >= wanted, "at least"),
        };
        self.promises.push(Promise { text: format!("{}: {word} {wanted}", text.into()), wanted, found, kept });
    }

    /// Prints the table and writes `target/bench/NAME.json`.
    pub(crate) fn publish(&self, name: &str) -> Result<()> {
        std::io::stdout().write_all(self.table().as_bytes())?;
        let folder = workspace().join("target/bench");
        std::fs::create_dir_all(&folder)?;
        Ok(std::fs::write(folder.join(format!("{name}.json")), serde_json::to_string_pretty(self)?)?)
    }

    fn table(&self) -> String {
        let mut text = String::new();
        let Machine { kernel, processors, load } = &self.machine;
        let _ = writeln!(text, "Linux {kernel}, {processors} processors, load {load}\n");
        if !self.rows.is_empty() {
            let _ = writeln!(
                text,
                "{:<34} {:>5} {:>9} {:>9} {:>9} {:>8} {:>10}",
                "milliseconds", "runs", "min", "median", "p99", "floor ×", "best peer ×"
            );
        }
        for row in &self.rows {
            let Summary { count, min, median, p99 } = row.milliseconds;
            let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            let _ = writeln!(
                text,
                "{:<34} {count:>5} {min:>9.2} {median:>9.2} {p99:>9.2} {:>8} {:>10}",
                row.name,
                ratio(row.of_floor),
                ratio(row.of_best_peer)
            );
        }
        for figure in &self.figures {
            let _ = writeln!(text, "{:<52} {:>12.2} {}", figure.name, figure.value, figure.unit);
        }
        for promise in &self.promises {
            let mark = if promise.kept { "kept  " } else { "BROKEN" };
            let _ = writeln!(text, "{mark} {}, found {:.2}", promise.text, promise.found);
        }
        text
    }
}

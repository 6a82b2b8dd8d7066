//! Starting programs and taking times.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// How long each of several programs took, and all of them together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Times {
    /// From the start of one to its end.
    pub(crate) each: Vec<Duration>,
    /// From the start of the first to the end of the last.
    pub(crate) total: Duration,
}

/// Runs each command line, all at once.
pub(crate) fn run_at_once(commands: &[Vec<String>]) -> Result<Times> {
    let begin = Instant::now();
    let each = std::thread::scope(|scope| {
        let running: Vec<_> = commands.iter().map(|command| scope.spawn(move || run_one(command))).collect();
        running.into_iter().map(|thread| thread.join().expect("it does not panic")).collect::<Result<Vec<_>>>()
    })?;
    Ok(Times { each, total: begin.elapsed() })
}

/// Runs one command line to its end.
pub(crate) fn run_one(command: &[String]) -> Result<Duration> {
    let [program, arguments @ ..] = command else { bail!("an empty command") };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let begin = Instant::now();
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let elapsed = begin.elapsed();
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(elapsed)
}

/// What is told of a series of times.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Summary {
    /// How many there were.
    pub(crate) count: usize,
    /// Milliseconds.
    pub(crate) min: f64,
    /// Milliseconds.
    pub(crate) median: f64,
    /// Milliseconds; of fewer than a hundred, the largest.
    pub(crate) p99: f64,
}

impl Summary {
    /// Summarises at least one time.
    pub(crate) fn of(times: &[Duration]) -> Self {
        let mut sorted: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        let rank = |share: f64| sorted[((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1];
        Self { count: sorted.len(), min: sorted[0], median: rank(0.5), p99: rank(0.99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        let summary = Summary::of(&times);
        assert_eq!((summary.min, summary.median, summary.p99), (1.0, 100.0, 198.0));
        let one = Summary::of(&[Duration::from_millis(7)]);
        assert_eq!((one.count, one.min, one.median, one.p99), (1, 7.0, 7.0, 7.0));
    }

    #[test]
    fn a_failing_program_is_told_with_its_words() {
        let command = ["sh", "-c", "echo broken >&2; exit 3"].map(str::to_owned);
        let error = run_one(&command).unwrap_err().to_string();
        assert!(error.contains("broken") && error.contains('3'), "{error}");
    }

    #[test]
    fn several_run_at_once() {
        let sleep = ["sleep", "0.2"].map(str::to_owned).to_vec();
        let times = run_at_once(&vec![sleep; 5]).unwrap();
        assert_eq!(times.each.len(), 5);
        assert!(times.total < Duration::from_millis(900), "{:?}", times.total);
    }
}

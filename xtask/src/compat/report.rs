//! What a suite found, as a table.

use std::fmt::Write;

/// What became of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) name: String,
    result: Result<Passed, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Passed {
    Really,
    Skipped(String),
}

impl Verdict {
    pub(super) fn passed(name: String) -> Self {
        Self { name, result: Ok(Passed::Really) }
    }

    pub(super) fn skipped(name: String, why: String) -> Self {
        Self { name, result: Ok(Passed::Skipped(why)) }
    }

    pub(super) fn failed(name: String, why: String) -> Self {
        Self { name, result: Err(why) }
    }
}

/// What became of a suite.
#[derive(Debug)]
pub(super) struct Outcome {
    suite: &'static str,
    engine: &'static str,
    verdicts: Vec<Verdict>,
}

impl Outcome {
    pub(super) fn new(suite: &'static str, engine: &'static str, verdicts: Vec<Verdict>) -> Self {
        Self { suite, engine, verdicts }
    }

    /// The numbers, and every test that did not pass with its reason.
    pub(super) fn table(&self) -> String {
        let count = |wanted: fn(&Verdict) -> bool| self.verdicts.iter().filter(|verdict| wanted(verdict)).count();
        let mut text = format!(
            "{} on {}: {} passed, {} failed, {} skipped, of {}\n",
            self.suite,
            self.engine,
            count(|verdict| verdict.result == Ok(Passed::Really)),
            count(|verdict| verdict.result.is_err()),
            count(|verdict| matches!(verdict.result, Ok(Passed::Skipped(_)))),
            self.verdicts.len(),
        );
        for verdict in &self.verdicts {
            let (word, why) = match &verdict.result {
                Ok(Passed::Really) => continue,
                Ok(Passed::Skipped(why)) => ("skipped", why),
                Err(why) => ("FAILED", why),
            };
            // Into a string nothing can fail.
            let _ = writeln!(text, "  {word:<8} {}: {why}", verdict.name);
        }
        text
    }
}

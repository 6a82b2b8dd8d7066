//! The progress of load, import and pull: bars on a terminal, lines elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;

use api_client::Lines;
use docker_api::progress::{Message, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::commands::print;
use crate::error::Failure;

/// Where progress goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Results on standard output, bars on standard error.
    Results,
    /// Everything on standard error.
    Errors,
    /// Nothing but failures.
    Silent,
}

/// Shows every message to the end; a message that tells of a failure is the command's failure.
pub(crate) fn show(messages: Lines<Message>, mode: Mode) -> Result<(), Failure> {
    let mut screen = Screen::new(mode);
    for message in messages {
        let message = message?;
        if let Some(error) = message.error_detail.as_ref().filter(|error| !error.message.is_empty()) {
            return Err(Failure { message: error.message.clone(), code: 1 });
        }
        if !message.error.is_empty() {
            return Err(Failure { message: message.error.clone(), code: 1 });
        }
        screen.show(&message)?;
    }
    Ok(())
}

struct Screen {
    mode: Mode,
    /// Whether anybody sees bars.
    visible: bool,
    bars: MultiProgress,
    by_id: HashMap<String, ProgressBar>,
}

impl Screen {
    fn new(mode: Mode) -> Self {
        let visible = mode != Mode::Silent && std::io::stderr().is_terminal();
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { mode, visible, bars: MultiProgress::with_draw_target(target), by_id: HashMap::new() }
    }

    fn show(&mut self, message: &Message) -> Result<(), Failure> {
        match (&message.progress_detail, message.id.is_empty()) {
            (Some(progress), false) if progress.total > 0 || progress.current > 0 => {
                self.draw(&message.id, &message.status, *progress);
            }
            (Some(_), false) => self.step(&message.id, &message.status)?,
            (None, false) if !message.status.is_empty() => {
                self.line(&format!("{}: {}\n", message.id, message.status))?;
            }
            _ if !message.stream.is_empty() => self.line(&message.stream)?,
            _ if !message.status.is_empty() => self.line(&format!("{}\n", message.status))?,
            _ => {}
        }
        Ok(())
    }

    fn line(&self, text: &str) -> Result<(), Failure> {
        match self.mode {
            Mode::Silent => Ok(()),
            Mode::Results => Ok(self.bars.suspend(|| print(text))?),
            Mode::Errors => {
                self.bars.suspend(|| crate::commands::complain(text.trim_end()));
                Ok(())
            }
        }
    }

    /// A step without a size: where bars are seen it is a bar's text, elsewhere a line.
    fn step(&mut self, id: &str, status: &str) -> Result<(), Failure> {
        match self.by_id.get(id) {
            Some(bar) => {
                bar.set_message(status.to_owned());
                Ok(())
            }
            None => self.line(&format!("{id}: {status}\n")),
        }
    }

    fn draw(&mut self, id: &str, status: &str, progress: Progress) {
        if !self.visible {
            return;
        }
        let bars = &self.bars;
        let bar = self.by_id.entry(id.to_owned()).or_insert_with(|| bars.add(new_bar()));
        bar.set_length(progress.total.max(progress.current).max(0) as u64);
        bar.set_position(progress.current.max(0) as u64);
        bar.set_prefix(id.to_owned());
        bar.set_message(status.to_owned());
        if progress.total > 0 && progress.current >= progress.total {
            bar.finish();
        }
    }
}

fn new_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix}: {msg} [{bar:40}] {decimal_bytes}/{decimal_total_bytes}");
    ProgressBar::new(0).with_style(style.expect("the template is well-formed").progress_chars("=> "))
}

//! The progress of load, import and pull: bars on a terminal, lines elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;

use api_client::Lines;
use docker_api::progress::{Flow, Message, Progress, human_size};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize as _;

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
        if let Some(flow) = message.aux.as_ref().and_then(|aux| Flow::deserialize(aux.get("Flow")?).ok()) {
            return self.flow(&flow);
        }
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

    /// A layer's rate stays where its bar was, that of all layers is a line.
    fn flow(&mut self, flow: &Flow) -> Result<(), Failure> {
        if flow.layer.is_empty() {
            return self.line(&format!("Rate: {}\n", rate(flow)));
        }
        if let Some(bar) = self.by_id.get(&flow.layer) {
            bar.set_style(style("{prefix}: {msg}"));
            bar.set_message(format!("Pull complete, {}", rate(flow)));
        }
        Ok(())
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
    ProgressBar::new(0)
        .with_style(style("{prefix}: {msg} [{bar:40}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}"))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is well-formed").progress_chars("=> ")
}

/// `52.3MB/s (412MB in 7.9s, 1.02GB unpacked), limited by the network`
fn rate(flow: &Flow) -> String {
    let size = |bytes: u64| human_size(i64::try_from(bytes).unwrap_or(i64::MAX));
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "four digits are shown")]
    let per_second = (flow.fetched as f64 / flow.seconds.max(0.001)) as i64;
    let limit = match flow.limit.as_str() {
        limit @ ("network" | "disk") => format!("the {limit}"),
        limit => limit.to_owned(),
    };
    format!(
        "{}/s ({} in {:.1}s, {} unpacked), limited by {limit}",
        human_size(per_second),
        size(flow.fetched),
        flow.seconds,
        size(flow.unpacked)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_says_what_limits_it() {
        let flow = Flow { fetched: 412_000_000, unpacked: 1_020_000_000, seconds: 7.9, ..Flow::default() };
        let text = |limit: &str| rate(&Flow { limit: limit.to_owned(), ..flow.clone() });
        assert_eq!(text("network"), "52.15MB/s (412MB in 7.9s, 1.02GB unpacked), limited by the network");
        assert!(text("CPU").ends_with(", limited by CPU"));
    }
}

//! The file to which errors and warnings go beside standard error: engines read it, in logrus' forms.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use super::arguments::UsageError;
use super::time;

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl LogFormat {
    pub(crate) fn parse(text: &str) -> Result<LogFormat, UsageError> {
        match text {
            "text" | "" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(UsageError::new(format!("invalid log-format: {other:?}"))),
        }
    }
}

/// Where to log, if anywhere.
#[derive(Debug)]
pub(crate) struct Log {
    path: Option<PathBuf>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    pub(crate) fn new(path: Option<PathBuf>, format: LogFormat, debug: bool) -> Log {
        Log { path, format, debug }
    }

    pub(crate) fn error(&self, message: &str) {
        self.write("error", message);
    }

    pub(crate) fn warn(&self, message: &str) {
        self.write("warning", message);
    }

    pub(crate) fn debug(&self, message: &str) {
        if self.debug {
            self.write("debug", message);
        }
    }

    fn write(&self, level: &str, message: &str) {
        let Some(path) = &self.path else { return };
        let line = line(self.format, level, message, &time::now());
        // Who cannot be told about an error cannot be told about that either.
        if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path) {
            let _told_as_well_as_possible = file.write_all(line.as_bytes());
        }
    }
}

fn line(format: LogFormat, level: &str, message: &str, time: &str) -> String {
    match format {
        LogFormat::Json => {
            let line = serde_json::json!({ "level": level, "msg": message, "time": time });
            format!("{line}\n")
        }
        LogFormat::Text => {
            let quoted = serde_json::Value::from(message);
            format!("time=\"{time}\" level={level} msg={quoted}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_logrus_writes_them() {
        let at = "2026-11-21T00:00:00Z";
        assert_eq!(
            line(LogFormat::Json, "error", "a \"b\"", at),
            "{\"level\":\"error\",\"msg\":\"a \\\"b\\\"\",\"time\":\"2026-11-21T00:00:00Z\"}\n"
        );
        assert_eq!(
            line(LogFormat::Text, "warning", "x", at),
            "time=\"2026-11-21T00:00:00Z\" level=warning msg=\"x\"\n"
        );
    }
}

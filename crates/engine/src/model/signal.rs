//! Signals by number or by name.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::EngineError;

/// A signal number between 1 and 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Signal(i32);

impl Signal {
    /// SIGTERM, what `stop` sends unless told otherwise.
    pub const TERM: Signal = Signal(15);
    /// SIGKILL, what ends a container that does not stop.
    pub const KILL: Signal = Signal(9);

    /// Reads `9`, `KILL`, `SIGKILL`, `sigkill` or `RTMIN+3`.
    pub fn parse(text: &str) -> Result<Self, EngineError> {
        let invalid = || EngineError::invalid(format!("invalid signal: {text}"));
        if let Ok(number) = text.parse::<i32>() {
            return if (1..=64).contains(&number) { Ok(Self(number)) } else { Err(invalid()) };
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        NAMES
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, number)| Self(*number))
            .or_else(|| realtime(name))
            .ok_or_else(invalid)
    }

    /// The number that the kernel knows.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => write!(f, "{}", self.0),
        }
    }
}

/// `RTMIN`, `RTMIN+n`, `RTMAX`, `RTMAX-n`, counted as glibc counts.
fn realtime(name: &str) -> Option<Signal> {
    let number = match name {
        "RTMIN" => 34,
        "RTMAX" => 64,
        _ => match (name.strip_prefix("RTMIN+"), name.strip_prefix("RTMAX-")) {
            (Some(plus), _) => 34 + plus.parse::<i32>().ok().filter(|n| (0..=30).contains(n))?,
            (_, Some(minus)) => 64 - minus.parse::<i32>().ok().filter(|n| (0..=30).contains(n))?,
            _ => return None,
        },
    };
    Some(Signal(number))
}

/// Names and numbers of x86-64 and aarch64, which agree.
const NAMES: &[(&str, i32)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

#[cfg(test)]
mod tests {
    use super::Signal;

    #[test]
    fn signals_are_read_as_docker_reads_them() {
        for (text, number) in [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("64", 64)]
        {
            assert_eq!(Signal::parse(text).unwrap().number(), number, "{text}");
        }
        for text in ["", "0", "65", "-1", "BAD", "RTMIN+31", "SIGSIGKILL"] {
            assert_eq!(Signal::parse(text).unwrap_err().message(), format!("invalid signal: {text}"));
        }
    }
}

//! `--storage-budget`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::model::{EngineError, LabelFilter};

/// How much images and the build cache may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageBudget {
    /// They collect when the file system that they are on is fuller than this, whoever filled it; 1 to 100.
    Percent(u8),
    /// They themselves may take so much.
    Bytes(u64),
}

/// What may stay on the disk.
#[derive(Debug, Clone)]
pub struct SpaceOptions {
    /// `--storage-budget`; without it nothing goes by itself.
    pub budget: Option<StorageBudget>,
    /// `--storage-min-age`: what was used or came within this time stays.
    pub min_age: Duration,
    /// `--pin-label`: labels that pin the images that have them.
    pub pin_labels: Vec<LabelFilter>,
}

impl Default for SpaceOptions {
    fn default() -> Self {
        Self { budget: None, min_age: Duration::from_secs(600), pin_labels: Vec::new() }
    }
}

/// Units of sizes: decimal, as Docker writes them, and binary.
const UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("k", 1000),
    ("m", 1000 * 1000),
    ("g", 1000 * 1000 * 1000),
    ("t", 1000 * 1000 * 1000 * 1000),
    ("ki", 1 << 10),
    ("mi", 1 << 20),
    ("gi", 1 << 30),
    ("ti", 1 << 40),
];

impl FromStr for StorageBudget {
    type Err = EngineError;

    /// `80%`, or a size: `500000000`, `20GB`, `20GiB`.
    fn from_str(text: &str) -> Result<Self, EngineError> {
        let refused = || {
            EngineError::invalid(format!(
                "invalid storage budget {text:?}: a percentage from 1% to 100%, or a size such as 20GB or 20GiB, is expected"
            ))
        };
        let text = text.trim();
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.parse().map_err(|_| refused())?;
            return if (1..=100).contains(&percent) { Ok(Self::Percent(percent)) } else { Err(refused()) };
        }
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let unit = unit.trim().to_ascii_lowercase();
        let unit = unit.strip_suffix('b').unwrap_or(&unit);
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refused)?;
        let bytes = match number.parse::<u64>() {
            Ok(whole) => whole.checked_mul(*factor),
            // A whole number that does not fit is no fraction either.
            Err(_) if !number.contains('.') => None,
            Err(_) => number.parse::<f64>().ok().map(|number| (number * *factor as f64) as u64),
        };
        bytes.filter(|bytes| *bytes > 0).map(Self::Bytes).ok_or_else(refused)
    }
}

impl fmt::Display for StorageBudget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(formatter, "{percent}%"),
            Self::Bytes(bytes) => write!(formatter, "{bytes}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_percentages_or_sizes() {
        let cases = [
            ("80%", StorageBudget::Percent(80)),
            ("1000", StorageBudget::Bytes(1000)),
            ("2k", StorageBudget::Bytes(2000)),
            ("1.5GB", StorageBudget::Bytes(1_500_000_000)),
            ("2 GiB", StorageBudget::Bytes(2 << 30)),
            ("10b", StorageBudget::Bytes(10)),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<StorageBudget>().unwrap(), expected, "{text}");
        }
        for text in ["", "0", "0%", "101%", "-1", "x", "5q", "1.2.3", "%", "99999999999999999999"] {
            assert!(text.parse::<StorageBudget>().is_err(), "{text}");
        }
    }
}

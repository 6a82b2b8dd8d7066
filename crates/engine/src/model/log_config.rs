//! `HostConfig.LogConfig`: the drivers, and their options as Docker checks them.

use std::collections::BTreeMap;

use regex_lite::Regex;
use serde::{Deserialize, Serialize};

use super::EngineError;
use super::limits::parse_size;
use super::log_sink::LogSink;

/// `HostConfig.LogConfig`: a driver, and its options as given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LogConfig {
    /// Where output goes.
    pub driver: LogDriver,
    /// Options as given, checked by [`LogConfig::new`].
    pub options: BTreeMap<String, String>,
}

/// The log drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum LogDriver {
    /// Docker's json-file.
    #[default]
    JsonFile,
    /// `local`: kept in the same files, as rotated and compressed as Docker's local driver would.
    Local,
    /// Nothing is kept.
    None,
    /// Kept as `local`, and sent to a syslog server.
    Syslog,
    /// Kept as `local`, and sent to systemd's journal.
    Journald,
    /// Kept as `local`, and sent to a Graylog server.
    Gelf,
    /// Kept as `local`, and sent to a Fluentd server.
    Fluentd,
}

/// Every driver with its name.
const DRIVERS: [(&str, LogDriver); 7] = [
    ("json-file", LogDriver::JsonFile),
    ("local", LogDriver::Local),
    ("none", LogDriver::None),
    ("syslog", LogDriver::Syslog),
    ("journald", LogDriver::Journald),
    ("gelf", LogDriver::Gelf),
    ("fluentd", LogDriver::Fluentd),
];
/// The drivers' names, as Docker sorts them.
pub const LOG_DRIVERS: [&str; 7] = ["fluentd", "gelf", "journald", "json-file", "local", "none", "syslog"];
/// Docker's drivers for services of others.
const FOREIGN_DRIVERS: [&str; 4] = ["awslogs", "splunk", "gcplogs", "etwlogs"];
/// What every driver takes.
const COMMON_OPTIONS: [&str; 2] = ["mode", "max-buffer-size"];
/// What drivers take that keep files for others to read.
const FILE_OPTIONS: [&str; 3] = ["max-file", "max-size", "compress"];
/// What drivers take that send elsewhere: how the local copy is kept.
const CACHE_OPTIONS: [&str; 4] = ["cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"];
/// What drivers take that tell of the container.
const ORIGIN_OPTIONS: [&str; 5] = ["labels", "labels-regex", "env", "env-regex", "tag"];

impl LogConfig {
    /// Checks driver and options as Docker does at create.
    pub fn new(driver: &str, options: BTreeMap<String, String>) -> Result<Self, EngineError> {
        let name = if driver.is_empty() { "json-file" } else { driver };
        if FOREIGN_DRIVERS.contains(&name) {
            return Err(EngineError::not_implemented(format!(
                "HostConfig.LogConfig.Type: log driver \"{name}\" is not built; use one of {}",
                DRIVERS.map(|(name, _)| name).join(", ")
            )));
        }
        let found = DRIVERS.iter().find(|(known, _)| *known == name);
        let (_, driver) = found.ok_or_else(|| {
            EngineError::invalid(format!("error looking up logging plugin {name}: plugin \"{name}\" not found"))
        })?;
        let config = Self { driver: *driver, options };
        config.check_options()?;
        Ok(config)
    }

    /// As [`LogConfig::new`] for a request to an engine with defaults: they are for whoever names no driver, and their options, too, for
    /// whoever names the same one and says nothing of them.
    pub fn of_request(
        driver: &str,
        mut options: BTreeMap<String, String>,
        defaults: &LogConfig,
    ) -> Result<Self, EngineError> {
        let driver = if driver.is_empty() { defaults.driver_name() } else { driver };
        if driver == defaults.driver_name() {
            for (key, value) in &defaults.options {
                options.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        Self::new(driver, options)
    }

    /// Docker's name of the driver.
    pub fn driver_name(&self) -> &'static str {
        DRIVERS.iter().find(|(_, driver)| *driver == self.driver).map_or("", |(name, _)| name)
    }

    /// Where lines are sent beyond the local files; none for drivers that only keep them.
    pub fn sink(&self) -> Result<Option<LogSink>, EngineError> {
        LogSink::parse(self.driver, &self.options)
    }

    /// Whether `logs` may read what is kept.
    pub fn is_readable(&self) -> bool {
        self.driver != LogDriver::None && !matches!(self.flag("cache-disabled"), Ok(Some(true)))
    }

    /// `max-size` (or `cache-max-size`) in bytes; none is without rotation (`-1`).
    pub fn max_size_bytes(&self) -> Result<Option<u64>, EngineError> {
        match self.file_option("max-size").map(String::as_str) {
            None => Ok(Some(DEFAULT_MAX_LOG_SIZE)),
            Some("-1") => Ok(None),
            Some(text) => parse_size(text).map(Some),
        }
    }

    /// `max-file` (or `cache-max-file`), at least 1; at least 2 where something has yet to be sent from a file that is full.
    pub fn max_files(&self) -> Result<u32, EngineError> {
        let least = if self.is_sent() { 2 } else { 1 };
        match self.file_option("max-file") {
            None => Ok(DEFAULT_MAX_LOG_FILES),
            Some(text) => match text.parse::<u32>() {
                Ok(0) => Err(EngineError::invalid("max-file cannot be less than 1")),
                Ok(count) => Ok(count.clamp(least, MAX_LOG_FILES)),
                Err(_) => Err(EngineError::invalid(format!("invalid value for max-file: {text}"))),
            },
        }
    }

    /// Whether rotated files are compressed.
    pub fn compression(&self) -> Result<LogCompression, EngineError> {
        let key = if self.is_sent() { "cache-compress" } else { "compress" };
        match self.flag(key)? {
            None | Some(true) => Ok(LogCompression::Gzip),
            Some(false) => Ok(LogCompression::None),
        }
    }

    /// What happens when the disk is slower than the container (`mode`, `max-buffer-size`).
    pub fn delivery(&self) -> Result<LogDelivery, EngineError> {
        let size = self.options.get("max-buffer-size").map(|text| parse_size(text)).transpose()?;
        match (self.options.get("mode").map(String::as_str), size) {
            (None | Some("" | "blocking"), None) => Ok(LogDelivery::Blocking),
            (None | Some("" | "blocking"), Some(_)) => {
                Err(EngineError::invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'"))
            }
            (Some("non-blocking"), size) => Ok(LogDelivery::NonBlocking { buffer_bytes: size }),
            (Some(mode), _) => Err(EngineError::invalid(format!("logger: logging mode not supported: {mode}"))),
        }
    }

    /// What lines tell beside themselves: labels and variables of the container that `labels`, `labels-regex`, `env` and
    /// `env-regex` choose.
    pub fn chosen(
        &self,
        labels: &BTreeMap<String, String>,
        env: &[String],
    ) -> Result<BTreeMap<String, String>, EngineError> {
        let variables = env.iter().filter_map(|entry| entry.split_once('='));
        let variables = variables.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let mut chosen = BTreeMap::new();
        for (names, pattern, from) in [("labels", "labels-regex", labels), ("env", "env-regex", &variables)] {
            let names: Vec<&str> = self.options.get(names).map(|list| list.split(',').collect()).unwrap_or_default();
            let pattern = self.pattern(pattern)?;
            let is_chosen = |key: &str| names.contains(&key) || pattern.as_ref().is_some_and(|it| it.is_match(key));
            chosen
                .extend(from.iter().filter(|(key, _)| is_chosen(key)).map(|(key, value)| (key.clone(), value.clone())));
        }
        Ok(chosen)
    }

    /// Whether lines go elsewhere as well.
    fn is_sent(&self) -> bool {
        !matches!(self.driver, LogDriver::JsonFile | LogDriver::Local | LogDriver::None)
    }

    fn pattern(&self, key: &str) -> Result<Option<Regex>, EngineError> {
        let Some(text) = self.options.get(key).filter(|text| !text.is_empty()) else { return Ok(None) };
        let wrong = |error| EngineError::invalid(format!("error parsing regexp in log opt '{key}': {error}"));
        Regex::new(text).map(Some).map_err(wrong)
    }

    fn file_option(&self, key: &str) -> Option<&String> {
        if self.is_sent() { self.options.get(&format!("cache-{key}")) } else { self.options.get(key) }
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, EngineError> {
        match self.options.get(key).map(String::as_str) {
            None => Ok(None),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(text) => Err(EngineError::invalid(format!("invalid value for {key}: {text}"))),
        }
    }

    fn check_options(&self) -> Result<(), EngineError> {
        if self.driver == LogDriver::None {
            // It keeps nothing, however it is told to keep it.
            return Ok(());
        }
        let is_known = |key: &str| {
            COMMON_OPTIONS.contains(&key)
                || match self.driver {
                    LogDriver::JsonFile => FILE_OPTIONS.contains(&key) || ORIGIN_OPTIONS.contains(&key),
                    LogDriver::Local => FILE_OPTIONS.contains(&key),
                    LogDriver::None => false,
                    sent => {
                        CACHE_OPTIONS.contains(&key)
                            || ORIGIN_OPTIONS.contains(&key)
                            || LogSink::options(sent).contains(&key)
                    }
                }
        };
        if let Some(key) = self.options.keys().find(|key| !is_known(key)) {
            let driver = self.driver_name();
            // Docker quotes it in Go's way for this one driver.
            let quote = if self.driver == LogDriver::Gelf { '"' } else { '\'' };
            return Err(EngineError::invalid(format!("unknown log opt {quote}{key}{quote} for {driver} log driver")));
        }
        self.delivery()?;
        self.max_size_bytes()?;
        self.max_files()?;
        self.compression()?;
        self.flag("cache-disabled")?;
        self.pattern("labels-regex")?;
        self.pattern("env-regex")?;
        if let Some(tag) = self.options.get("tag") {
            crate::logs::check_tag(tag)?;
        }
        self.sink().map(drop)
    }
}

/// What happens when the disk is slower than the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogDelivery {
    /// The container waits.
    Blocking,
    /// Lines are dropped.
    NonBlocking {
        /// How much may wait; a default when none.
        buffer_bytes: Option<u64>,
    },
}

/// How rotated log files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogCompression {
    /// `.gz`
    Gzip,
    /// As they were.
    None,
}

/// Rotation is on unless said otherwise: a full disk is the worst default.
const DEFAULT_MAX_LOG_SIZE: u64 = 20 << 20;
const DEFAULT_MAX_LOG_FILES: u32 = 5;
/// More files than anybody wants to look through, and a bound on one rotation's renames.
const MAX_LOG_FILES: u32 = 1000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{LogConfig, LogDelivery};

    fn config(driver: &str, options: &[(&str, &str)]) -> Result<LogConfig, String> {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        LogConfig::new(driver, options).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn log_options_are_checked() {
        let with = |key: &str, value: &str| config("json-file", &[(key, value)]);
        assert_eq!(with("max-size", "10m").unwrap().max_size_bytes().unwrap(), Some(10 << 20));
        assert_eq!(with("max-size", "-1").unwrap().max_size_bytes().unwrap(), None);
        assert_eq!(
            with("mode", "non-blocking").unwrap().delivery().unwrap(),
            LogDelivery::NonBlocking { buffer_bytes: None }
        );
        for (driver, key, value, message) in [
            ("json-file", "bogus", "1", "unknown log opt 'bogus' for json-file log driver"),
            ("json-file", "max-file", "0", "max-file cannot be less than 1"),
            ("json-file", "max-buffer-size", "4m", "only supported with 'mode=non-blocking'"),
            ("json-file", "mode", "fast", "logging mode not supported: fast"),
            ("json-file", "labels-regex", "(", "error parsing regexp in log opt 'labels-regex'"),
            ("json-file", "tag", "{{.Nothing}}", "{{.Nothing}}"),
            ("json-file", "tag", "{{", "tag"),
            ("local", "tag", "x", "unknown log opt 'tag' for local log driver"),
            ("syslog", "gelf-address", "x", "unknown log opt 'gelf-address' for syslog log driver"),
            ("syslog", "max-size", "1m", "unknown log opt 'max-size' for syslog log driver"),
            ("gelf", "bogus", "1", "unknown log opt \"bogus\" for gelf log driver"),
            ("journald", "cache-disabled", "maybe", "invalid value for cache-disabled: maybe"),
            ("awslogs", "x", "y", "LogConfig.Type"),
            ("nosuch", "x", "y", "error looking up logging plugin nosuch: plugin \"nosuch\" not found"),
        ] {
            let refused = config(driver, &[(key, value)]).unwrap_err();
            assert!(refused.contains(message), "{driver} {key}: {refused}");
        }
    }

    #[test]
    fn an_engines_defaults_are_for_those_who_name_no_other_driver() {
        let defaults = config("json-file", &[("max-size", "1m"), ("max-file", "3")]).unwrap();
        let of = |driver: &str, options: &[(&str, &str)]| {
            let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            LogConfig::of_request(driver, options, &defaults).unwrap()
        };
        let shown = |config: &LogConfig| format!("{} {:?}", config.driver_name(), config.options);
        assert_eq!(shown(&of("", &[])), r#"json-file {"max-file": "3", "max-size": "1m"}"#);
        let own = of("json-file", &[("max-size", "2m")]);
        assert_eq!(shown(&own), r#"json-file {"max-file": "3", "max-size": "2m"}"#);
        assert_eq!(shown(&of("local", &[])), "local {}");
    }

    #[test]
    fn labels_and_variables_are_chosen_by_name_and_pattern() {
        let labels = ["app", "com.x.one", "com.x.two", "other"].map(|key| (key.to_owned(), format!("of {key}")));
        let env = ["PATH=/bin", "A_1=one", "A_2=two=2"].map(str::to_owned);
        let options = [("labels", "app,missing"), ("labels-regex", "^com\\.x"), ("env-regex", "^A_[0-9]$")];
        let chosen = config("json-file", &options).unwrap().chosen(&BTreeMap::from(labels), &env).unwrap();
        let chosen: Vec<_> = chosen.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(chosen, ["A_1=one", "A_2=two=2", "app=of app", "com.x.one=of com.x.one", "com.x.two=of com.x.two"]);
    }

    #[test]
    fn copies_of_what_is_sent_have_options_of_their_own() {
        let options = [("cache-max-size", "1m"), ("cache-max-file", "1"), ("cache-disabled", "true")];
        let sent = config("journald", &options).unwrap();
        assert_eq!((sent.max_size_bytes().unwrap(), sent.max_files().unwrap()), (Some(1 << 20), 2));
        assert!(!sent.is_readable() && config("journald", &[]).unwrap().is_readable());
    }
}

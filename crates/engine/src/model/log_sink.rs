//! Where log lines are sent, read from a driver's options with Docker's messages.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::limits::parse_size;
use super::{EngineError, LogDriver};

/// A driver's sink with all its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogSink {
    /// A syslog server.
    Syslog(SyslogSink),
    /// systemd's journal on this host.
    Journald,
    /// A Graylog server.
    Gelf(GelfSink),
    /// A Fluentd server.
    Fluentd(FluentdSink),
}

/// Where a sink listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `host:port`
    Udp(String),
    /// `host:port`
    Tcp(String),
    /// `host:port`, and how TLS is spoken there.
    Tls(String, TlsFiles),
    /// A stream socket.
    Unix(PathBuf),
    /// A datagram socket, or a stream one where it is that.
    UnixDatagram(PathBuf),
}

/// How TLS is spoken to a sink.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// Whom to trust.
    pub authority: Option<PathBuf>,
    /// The certificate and key to show.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Trust everybody.
    pub skip_verification: bool,
}

/// `syslog-*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogSink {
    /// Where; none is this host's syslog, wherever it listens.
    pub endpoint: Option<Endpoint>,
    /// 0 to 23.
    pub facility: u8,
    /// What a line looks like.
    pub format: SyslogFormat,
}

/// `syslog-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyslogFormat {
    /// As C libraries write to the local syslog: no host name.
    #[default]
    Local,
    /// RFC 3164.
    Rfc3164,
    /// RFC 5424, times in seconds.
    Rfc5424,
    /// RFC 5424, times in microseconds.
    Rfc5424Micro,
}

/// `gelf-*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GelfSink {
    /// UDP or TCP.
    pub endpoint: Endpoint,
    /// Of UDP messages.
    pub compression: GelfCompression,
    /// -1 to 9.
    pub level: i32,
}

/// `gelf-compression-type`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GelfCompression {
    /// gzip
    Gzip,
    /// zlib
    Zlib,
    /// As it is.
    None,
}

/// `fluentd-*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FluentdSink {
    /// TCP, TLS or a unix socket.
    pub endpoint: Endpoint,
    /// Whether each message must be acknowledged.
    pub request_ack: bool,
    /// Whether times have fractions of seconds.
    pub sub_second: bool,
}

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "", "", "",
    "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];
const DAEMON: u8 = 3;
const SYSLOG_PORT: &str = "514";
const GELF_PORT: &str = "12201";
const FLUENTD_PORT: &str = "24224";

type Options = BTreeMap<String, String>;

impl LogSink {
    /// The options that a driver has of its own.
    pub(super) fn options(driver: LogDriver) -> &'static [&'static str] {
        match driver {
            LogDriver::Syslog => &[
                "syslog-address",
                "syslog-facility",
                "syslog-format",
                "syslog-tls-ca-cert",
                "syslog-tls-cert",
                "syslog-tls-key",
                "syslog-tls-skip-verify",
            ],
            LogDriver::Gelf => &[
                "gelf-address",
                "gelf-compression-type",
                "gelf-compression-level",
                "gelf-tcp-max-reconnect",
                "gelf-tcp-reconnect-delay",
            ],
            LogDriver::Fluentd => &[
                "fluentd-address",
                "fluentd-async",
                "fluentd-async-connect",
                "fluentd-async-reconnect-interval",
                "fluentd-buffer-limit",
                "fluentd-max-retries",
                "fluentd-request-ack",
                "fluentd-retry-wait",
                "fluentd-sub-second-precision",
                "fluentd-write-timeout",
            ],
            LogDriver::Journald | LogDriver::JsonFile | LogDriver::Local | LogDriver::None => &[],
        }
    }

    /// Reads a driver's options.
    pub(super) fn parse(driver: LogDriver, options: &Options) -> Result<Option<Self>, EngineError> {
        match driver {
            LogDriver::JsonFile | LogDriver::Local | LogDriver::None => Ok(None),
            LogDriver::Journald => Ok(Some(Self::Journald)),
            LogDriver::Syslog => syslog(options).map(Self::Syslog).map(Some),
            LogDriver::Gelf => gelf(options).map(Self::Gelf).map(Some),
            LogDriver::Fluentd => fluentd(options).map(Self::Fluentd).map(Some),
        }
    }
}

fn invalid(message: impl Into<String>) -> EngineError {
    EngineError::invalid(message)
}

fn syslog(options: &Options) -> Result<SyslogSink, EngineError> {
    let format = match options.get("syslog-format").map(String::as_str) {
        None | Some("") => SyslogFormat::Local,
        Some("rfc3164") => SyslogFormat::Rfc3164,
        Some("rfc5424") => SyslogFormat::Rfc5424,
        Some("rfc5424micro") => SyslogFormat::Rfc5424Micro,
        Some(_) => return Err(invalid("Invalid syslog format")),
    };
    let endpoint = options.get("syslog-address").filter(|text| !text.is_empty());
    Ok(SyslogSink {
        endpoint: endpoint.map(|text| syslog_endpoint(text, options)).transpose()?,
        facility: facility(options.get("syslog-facility").map_or("", String::as_str))?,
        format,
    })
}

fn facility(text: &str) -> Result<u8, EngineError> {
    if text.is_empty() {
        return Ok(DAEMON);
    }
    let named = FACILITIES.iter().position(|name| *name == text);
    let number = named.or_else(|| text.parse().ok().filter(|number| *number < FACILITIES.len()));
    number.map(|number| number as u8).ok_or_else(|| invalid("invalid syslog facility"))
}

fn syslog_endpoint(text: &str, options: &Options) -> Result<Endpoint, EngineError> {
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| invalid(format!("syslog-address should be in form proto://address, got {text}")))?;
    match scheme {
        "unix" | "unixgram" => {
            let path = PathBuf::from(rest);
            std::fs::metadata(&path).map_err(|error| invalid(format!("stat {rest}: {}", go_words(&error))))?;
            Ok(if scheme == "unix" { Endpoint::Unix(path) } else { Endpoint::UnixDatagram(path) })
        }
        "udp" => Ok(Endpoint::Udp(with_port(rest, SYSLOG_PORT)?)),
        "tcp" => Ok(Endpoint::Tcp(with_port(rest, SYSLOG_PORT)?)),
        "tcp+tls" => Ok(Endpoint::Tls(with_port(rest, SYSLOG_PORT)?, syslog_tls(options)?)),
        _ => Err(invalid(format!("unsupported scheme: '{scheme}'"))),
    }
}

fn syslog_tls(options: &Options) -> Result<TlsFiles, EngineError> {
    let path = |key: &str| options.get(key).filter(|text| !text.is_empty()).map(PathBuf::from);
    let identity = match (path("syslog-tls-cert"), path("syslog-tls-key")) {
        (Some(_), None) => return Err(invalid("log opt 'syslog-tls-cert' needs 'syslog-tls-key' beside it")),
        (None, Some(_)) => return Err(invalid("log opt 'syslog-tls-key' needs 'syslog-tls-cert' beside it")),
        (certificate, key) => certificate.zip(key),
    };
    Ok(TlsFiles {
        authority: path("syslog-tls-ca-cert"),
        identity,
        // Docker looks at whether it is there, not at what it says.
        skip_verification: options.contains_key("syslog-tls-skip-verify"),
    })
}

fn go_words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        _ => error.to_string(),
    }
}

/// `host` or `host:port`, `[::1]:port`; the port may be left out.
fn with_port(text: &str, usual: &str) -> Result<String, EngineError> {
    let text = text.split('/').next().unwrap_or_default();
    let port_at = text.rfind(':').filter(|at| text[*at..].find(']').is_none());
    let (host, port) = match port_at {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, usual),
    };
    let is_bare_ipv6 = host.contains(':') && !host.starts_with('[');
    if is_bare_ipv6 || port.parse::<u16>().is_err() {
        return Err(invalid(format!("address {text}: invalid port or host")));
    }
    Ok(if host.is_empty() { format!("localhost:{port}") } else { format!("{host}:{port}") })
}

fn gelf(options: &Options) -> Result<GelfSink, EngineError> {
    let text = options.get("gelf-address").map_or("", String::as_str);
    if text.is_empty() {
        return Err(invalid("gelf-address is a required parameter"));
    }
    let (scheme, rest) = text
        .split_once("://")
        .ok_or_else(|| invalid(format!("gelf-address should be in form proto://address, got {text}")))?;
    let is_udp = match scheme {
        "udp" => true,
        "tcp" => false,
        _ => return Err(invalid("gelf: endpoint needs to be UDP or TCP")),
    };
    check_gelf_transport(options, is_udp)?;
    let compression = match options.get("gelf-compression-type").map(String::as_str) {
        None | Some("gzip") => GelfCompression::Gzip,
        Some("zlib") => GelfCompression::Zlib,
        Some("none") => GelfCompression::None,
        Some(text) => return Err(unknown_value("gelf-compression-type", text)),
    };
    // gzip's own default is slower than what Docker takes: the fastest.
    let level = match options.get("gelf-compression-level") {
        None => 1,
        Some(text) => match text.parse() {
            Ok(level @ -1..=9) => level,
            _ => return Err(unknown_value("gelf-compression-level", text)),
        },
    };
    let address = with_port(rest, GELF_PORT)?;
    let endpoint = if is_udp { Endpoint::Udp(address) } else { Endpoint::Tcp(address) };
    Ok(GelfSink { endpoint, compression, level })
}

fn check_gelf_transport(options: &Options, is_udp: bool) -> Result<(), EngineError> {
    for key in options.keys() {
        match key.as_str() {
            "gelf-compression-type" | "gelf-compression-level" if !is_udp => {
                return Err(invalid("compression is only supported on UDP"));
            }
            "gelf-tcp-max-reconnect" | "gelf-tcp-reconnect-delay" if is_udp => {
                return Err(invalid(format!("{key:?} is only valid for TCP")));
            }
            "gelf-tcp-max-reconnect" | "gelf-tcp-reconnect-delay" => {
                let text = &options[key];
                text.parse::<u32>().map_err(|_| invalid(format!("{key:?} must be a positive integer")))?;
                refuse_unheeded(std::iter::once(key.as_str()))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn unknown_value(key: &str, value: &str) -> EngineError {
    invalid(format!("unknown value {value:?} for log opt {key:?} for gelf log driver"))
}

fn fluentd(options: &Options) -> Result<FluentdSink, EngineError> {
    let flag = |key: &str| match options.get(key).map(String::as_str) {
        None | Some("" | "0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some(text) => Err(invalid(format!("strconv.ParseBool: parsing {text:?}: invalid syntax"))),
    };
    // A value that Docker refuses is refused in its words; then what would be without effect.
    let mut unheeded = None;
    for key in ["fluentd-async", "fluentd-async-connect"] {
        // Always so: no container waits for a server.
        if options.contains_key(key) && !flag(key)? {
            unheeded = Some(key);
        }
    }
    if let Some(text) = options.get("fluentd-buffer-limit") {
        parse_size(text)?;
    }
    if let Some(text) = options.get("fluentd-max-retries") {
        let wrong = |_| invalid(format!("strconv.ParseUint: parsing {text:?}: invalid syntax"));
        text.parse::<u32>().map_err(wrong)?;
    }
    for key in ["fluentd-retry-wait", "fluentd-write-timeout", "fluentd-async-reconnect-interval"] {
        if let Some(text) = options.get(key) {
            check_duration(text)?;
        }
    }
    let waits = ["fluentd-buffer-limit", "fluentd-max-retries", "fluentd-retry-wait", "fluentd-write-timeout"];
    let waits = waits.into_iter().chain(["fluentd-async-reconnect-interval"]);
    refuse_unheeded(unheeded.into_iter().chain(waits.filter(|key| options.contains_key(*key))))?;
    let address = options.get("fluentd-address").map_or("", String::as_str);
    Ok(FluentdSink {
        endpoint: fluentd_endpoint(address)?,
        request_ack: flag("fluentd-request-ack")?,
        sub_second: flag("fluentd-sub-second-precision")?,
    })
}

fn fluentd_endpoint(text: &str) -> Result<Endpoint, EngineError> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    match scheme {
        "unix" if rest.is_empty() || rest == "/" => Err(invalid("path is empty")),
        "unix" => Ok(Endpoint::Unix(rest.into())),
        "tcp" => Ok(Endpoint::Tcp(with_port(if rest.is_empty() { "127.0.0.1" } else { rest }, FLUENTD_PORT)?)),
        "tls" => Ok(Endpoint::Tls(with_port(rest, FLUENTD_PORT)?, TlsFiles::default())),
        _ => Err(invalid(format!("unsupported scheme: '{scheme}'"))),
    }
}

/// Refuses what says how long or how much is kept for a server that is away: lines wait in the local log, for as long as it keeps them.
fn refuse_unheeded<'a>(mut keys: impl Iterator<Item = &'a str>) -> Result<(), EngineError> {
    match keys.next() {
        Some(key) => Err(EngineError::not_implemented(format!(
            "log opt '{key}' is not built: lines wait in the local log, which cache-max-size and cache-max-file limit, and are sent once the \
             server takes them"
        ))),
        None => Ok(()),
    }
}

/// A Go duration: numbers with units.
fn check_duration(text: &str) -> Result<(), EngineError> {
    let wrong = || invalid(format!("time: invalid duration {text:?}"));
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(wrong)?;
        let (number, after) = rest.split_at(end);
        number.parse::<f64>().map_err(|_| wrong())?;
        let unit = ["ns", "us", "µs", "ms", "s", "m", "h"].into_iter().find(|unit| after.starts_with(unit));
        rest = &after[unit.ok_or_else(wrong)?.len()..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(driver: LogDriver, options: &[(&str, &str)]) -> Result<LogSink, String> {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        LogSink::parse(driver, &options).map(Option::unwrap).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn addresses_have_docker_forms() {
        let syslog = |text: &str| match sink(LogDriver::Syslog, &[("syslog-address", text)]).unwrap() {
            LogSink::Syslog(sink) => sink.endpoint.unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(syslog("udp://1.2.3.4"), Endpoint::Udp("1.2.3.4:514".into()));
        assert_eq!(syslog("tcp://[::1]:1514"), Endpoint::Tcp("[::1]:1514".into()));
        assert_eq!(syslog("tcp+tls://x:1"), Endpoint::Tls("x:1".into(), TlsFiles::default()));
        assert_eq!(syslog("unixgram:///dev/null"), Endpoint::UnixDatagram("/dev/null".into()));
        let fluentd = |text: &str| match sink(LogDriver::Fluentd, &[("fluentd-address", text)]).unwrap() {
            LogSink::Fluentd(sink) => sink.endpoint,
            other => panic!("{other:?}"),
        };
        assert_eq!(fluentd(""), Endpoint::Tcp("127.0.0.1:24224".into()));
        assert_eq!(fluentd("host"), Endpoint::Tcp("host:24224".into()));
        assert_eq!(fluentd("unix:///run/f"), Endpoint::Unix("/run/f".into()));
    }

    #[test]
    fn what_is_wrong_is_told_as_docker_tells_it() {
        use LogDriver::{Fluentd, Gelf, Syslog};
        type Case<'a> = (LogDriver, &'a [(&'a str, &'a str)], &'a str);
        let table: &[Case<'_>] = &[
            (Syslog, &[("syslog-address", "1.2.3.4")], "syslog-address should be in form proto://address, got 1.2.3.4"),
            (Syslog, &[("syslog-address", "ftp://x")], "unsupported scheme: 'ftp'"),
            (Syslog, &[("syslog-address", "unix:///no/such")], "stat /no/such: no such file or directory"),
            (Syslog, &[("syslog-facility", "loud")], "invalid syslog facility"),
            (Syslog, &[("syslog-facility", "24")], "invalid syslog facility"),
            (Syslog, &[("syslog-format", "x")], "Invalid syslog format"),
            (Gelf, &[], "gelf-address is a required parameter"),
            (Gelf, &[("gelf-address", "unix:///x")], "gelf: endpoint needs to be UDP or TCP"),
            (
                Gelf,
                &[("gelf-address", "tcp://x"), ("gelf-compression-type", "none")],
                "compression is only supported on UDP",
            ),
            (
                Gelf,
                &[("gelf-address", "udp://x"), ("gelf-compression-level", "10")],
                "unknown value \"10\" for log opt \"gelf-compression-level\" for gelf log driver",
            ),
            (Fluentd, &[("fluentd-address", "ftp://x")], "unsupported scheme: 'ftp'"),
            (Fluentd, &[("fluentd-retry-wait", "soon")], "time: invalid duration \"soon\""),
            (Fluentd, &[("fluentd-async", "perhaps")], "strconv.ParseBool: parsing \"perhaps\": invalid syntax"),
            (Fluentd, &[("fluentd-request-ack", "maybe")], "strconv.ParseBool: parsing \"maybe\": invalid syntax"),
        ];
        for (driver, options, message) in table {
            assert_eq!(sink(*driver, options).unwrap_err(), *message);
        }
        let tcp = ("gelf-address", "tcp://x");
        for (driver, options) in [
            (Fluentd, &[("fluentd-max-retries", "3")][..]),
            (Fluentd, &[("fluentd-buffer-limit", "1m")]),
            (Fluentd, &[("fluentd-retry-wait", "1s")]),
            (Fluentd, &[("fluentd-write-timeout", "1s")]),
            (Fluentd, &[("fluentd-async", "false")]),
            (Gelf, &[tcp, ("gelf-tcp-max-reconnect", "3")]),
            (Gelf, &[tcp, ("gelf-tcp-reconnect-delay", "3")]),
        ] {
            let refused = sink(driver, options).unwrap_err();
            let key = options.last().unwrap().0;
            assert!(refused.starts_with(&format!("log opt '{key}' is not built")), "{refused}");
        }
        assert!(sink(Fluentd, &[("fluentd-async", "true")]).is_ok(), "it is always so");
    }
}

//! Syslog messages, as Docker writes them; pure.

use jiff::tz::TimeZone;

use super::record::{Origin, Record};
use crate::model::{SyslogFormat, SyslogSink};

/// One message, with its newline.
pub(super) fn message(record: &Record, origin: &Origin, sink: &SyslogSink, zone: &TimeZone, pid: u32) -> Vec<u8> {
    let priority = sink.facility << 3 | record.source.severity();
    let time = record.time.to_zoned(zone.clone());
    let (tag, host, text) = (&origin.tag, &origin.hostname, &record.text);
    let message = match sink.format {
        SyslogFormat::Local => format!("<{priority}>{} {tag}[{pid}]: {text}\n", time.strftime("%b %e %H:%M:%S")),
        SyslogFormat::Rfc3164 => {
            format!("<{priority}>{} {host} {tag}[{pid}]: {text}\n", time.strftime("%b %e %H:%M:%S"))
        }
        SyslogFormat::Rfc5424 | SyslogFormat::Rfc5424Micro => {
            let form = if sink.format == SyslogFormat::Rfc5424 { "%Y-%m-%dT%H:%M:%S" } else { "%Y-%m-%dT%H:%M:%S%.6f" };
            let offset = match time.offset().is_zero() {
                true => "Z".to_owned(),
                false => time.strftime("%:z").to_string(),
            };
            format!("<{priority}>1 {}{offset} {host} {tag} {pid} {tag} - {text}\n", time.strftime(form))
        }
    };
    message.into_bytes()
}

/// RFC 5425's frame, for streams under TLS: the length comes first.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    [format!("{} ", message.len()).as_bytes(), message].concat()
}

#[cfg(test)]
mod tests {
    use super::super::record::Source;
    use super::*;

    #[test]
    fn messages_have_their_formats() {
        let record = Record {
            time: "2026-01-02T03:04:05.123456789Z".parse().unwrap(),
            source: Source::Stderr,
            text: "what happened".into(),
            partial: None,
        };
        let origin = Origin { tag: "tag".into(), hostname: "host".into(), ..Origin::default() };
        let shown = |format, zone: &TimeZone| {
            let sink = SyslogSink { endpoint: None, facility: 3, format };
            String::from_utf8(message(&record, &origin, &sink, zone, 7)).unwrap()
        };
        let utc = TimeZone::UTC;
        assert_eq!(shown(SyslogFormat::Local, &utc), "<27>Jan  2 03:04:05 tag[7]: what happened\n");
        assert_eq!(shown(SyslogFormat::Rfc3164, &utc), "<27>Jan  2 03:04:05 host tag[7]: what happened\n");
        assert_eq!(shown(SyslogFormat::Rfc5424, &utc), "<27>1 2026-01-02T03:04:05Z host tag 7 tag - what happened\n");
        let east = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(
            shown(SyslogFormat::Rfc5424Micro, &east),
            "<27>1 2026-01-02T05:04:05.123456+02:00 host tag 7 tag - what happened\n"
        );
        assert_eq!(framed(b"abc\n"), b"4 abc\n");
    }
}

//! Fluentd's forward protocol, message mode, in MessagePack; pure.

use super::record::{Origin, Record};
use crate::model::FluentdSink;

/// One message: `[tag, time, record, option]`. The option asks for `chunk` to be acknowledged.
pub(super) fn message(record: &Record, origin: &Origin, sink: &FluentdSink, chunk: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(record.text.len() + 256);
    out.push(0x94);
    string(&origin.tag, &mut out);
    time(record, sink.sub_second, &mut out);
    let container_name = format!("/{}", origin.name);
    let mut fields = vec![
        ("container_id", origin.id.as_str()),
        ("container_name", &container_name),
        ("source", record.source.as_str()),
        ("log", &record.text),
    ];
    fields.extend(origin.extra.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let ordinal = record.partial.as_ref().map(|partial| partial.ordinal.to_string()).unwrap_or_default();
    if let Some(partial) = &record.partial {
        fields.push(("partial_message", "true"));
        fields.push(("partial_id", &partial.id));
        fields.push(("partial_ordinal", &ordinal));
        fields.push(("partial_last", if partial.last { "true" } else { "false" }));
    }
    map(&fields, &mut out);
    let options: Vec<(&str, &str)> = chunk.map(|chunk| ("chunk", chunk)).into_iter().collect();
    map(&options, &mut out);
    out
}

/// Whole seconds, or an EventTime: extension type 0 of seconds and nanoseconds.
fn time(record: &Record, sub_second: bool, out: &mut Vec<u8>) {
    let seconds = record.time.as_second();
    match (u32::try_from(seconds), sub_second) {
        (Ok(seconds), true) => {
            out.extend_from_slice(&[0xd7, 0x00]);
            out.extend_from_slice(&seconds.to_be_bytes());
            out.extend_from_slice(&record.time.subsec_nanosecond().unsigned_abs().to_be_bytes());
        }
        _ => {
            out.push(0xd3);
            out.extend_from_slice(&seconds.to_be_bytes());
        }
    }
}

fn map(fields: &[(&str, &str)], out: &mut Vec<u8>) {
    match u8::try_from(fields.len()) {
        Ok(count @ 0..16) => out.push(0x80 | count),
        _ => {
            out.push(0xde);
            out.extend_from_slice(&u16::try_from(fields.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    for (key, value) in fields.iter().take(usize::from(u16::MAX)) {
        string(key, out);
        string(value, out);
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    let length = text.len() as u32;
    match length {
        0..32 => out.push(0xa0 | length as u8),
        32..0x100 => out.extend_from_slice(&[0xd9, length as u8]),
        0x100..0x1_0000 => {
            out.push(0xda);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(0xdb);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::record::Source;
    use super::*;
    use crate::model::Endpoint;

    #[test]
    fn messages_are_message_pack() {
        let record = Record {
            time: "1970-01-01T00:00:01.000000002Z".parse().unwrap(),
            source: Source::Stdout,
            text: "hi".into(),
            partial: None,
        };
        let origin = Origin { id: "i".into(), name: "n".into(), tag: "t".into(), ..Origin::default() };
        let mut sink = FluentdSink { endpoint: Endpoint::Tcp("x:1".into()), request_ack: true, sub_second: true };
        let fields = b"\x84\xaccontainer_id\xa1i\xaecontainer_name\xa2/n\xa6source\xa6stdout\xa3log\xa2hi";
        let fine = [b"\x94\xa1t\xd7\x00\0\0\0\x01\0\0\0\x02", &fields[..], b"\x81\xa5chunk\xa2c1"].concat();
        assert_eq!(message(&record, &origin, &sink, Some("c1")), fine);
        sink.sub_second = false;
        let whole = [b"\x94\xa1t\xd3\0\0\0\0\0\0\0\x01", &fields[..], b"\x80"].concat();
        assert_eq!(message(&record, &origin, &sink, None), whole);
        let mut out = Vec::new();
        string(&"x".repeat(70_000), &mut out);
        assert_eq!((&out[..5], out.len()), (&b"\xdb\0\x01\x11\x70"[..], 70_005));
    }
}

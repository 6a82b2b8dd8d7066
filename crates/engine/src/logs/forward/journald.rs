//! Entries in the journal's native protocol; pure.

use super::record::{Origin, Record};

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// One entry: fields by line, or with their length where they have more than one line.
pub(super) fn entry(record: &Record, origin: &Origin) -> Vec<u8> {
    let mut out = Vec::with_capacity(record.text.len() + 512);
    field("MESSAGE", &record.text, &mut out);
    field("PRIORITY", &record.source.severity().to_string(), &mut out);
    field("CONTAINER_ID", origin.short_id(), &mut out);
    field("CONTAINER_ID_FULL", &origin.id, &mut out);
    field("CONTAINER_NAME", &origin.name, &mut out);
    field("CONTAINER_TAG", &origin.tag, &mut out);
    field("IMAGE_NAME", &origin.image_name, &mut out);
    field("SYSLOG_IDENTIFIER", &origin.tag, &mut out);
    field("SYSLOG_TIMESTAMP", &record.time.to_string(), &mut out);
    if let Some(partial) = &record.partial {
        if !partial.last {
            field("CONTAINER_PARTIAL_MESSAGE", "true", &mut out);
        }
        field("CONTAINER_PARTIAL_ID", &partial.id, &mut out);
        field("CONTAINER_PARTIAL_ORDINAL", &partial.ordinal.to_string(), &mut out);
        field("CONTAINER_PARTIAL_LAST", if partial.last { "true" } else { "false" }, &mut out);
    }
    for (key, value) in &origin.extra {
        field(&field_name(key), value, &mut out);
    }
    out
}

/// The journal's names have capital letters, digits and underscores, and do not begin with one of the latter.
fn field_name(key: &str) -> String {
    let name: String = key
        .to_uppercase()
        .chars()
        .map(|it| if it.is_ascii_uppercase() || it.is_ascii_digit() { it } else { '_' })
        .collect();
    name.trim_start_matches('_').to_owned()
}

fn field(name: &str, value: &str, out: &mut Vec<u8>) {
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
        return;
    }
    out.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_journals() {
        assert_eq!(field_name("com.example-x"), "COM_EXAMPLE_X");
        assert_eq!(field_name("__cursor"), "CURSOR");
        let mut out = Vec::new();
        field("A", "b\nc", &mut out);
        field("1A", "x", &mut out);
        field("B", "d", &mut out);
        assert_eq!(out, b"A\n\x03\0\0\0\0\0\0\0b\nc\nB=d\n");
    }
}

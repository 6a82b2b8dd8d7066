//! Graylog's messages and their pieces; pure.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Map, Value};

use super::record::{Origin, Record};
use crate::model::{GelfCompression, GelfSink};

/// The largest datagram, as Docker has it.
const CHUNK: usize = 1420;
/// Magic number, message id, number, count.
const CHUNK_HEAD: usize = 12;
const MOST_CHUNKS: usize = 128;

/// One message as JSON.
pub(super) fn message(record: &Record, origin: &Origin) -> Vec<u8> {
    let mut fields = Map::new();
    let mut put = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
    put("version", "1.1".into());
    put("host", origin.hostname.as_str().into());
    put("short_message", record.text.as_str().into());
    let seconds = record.time.as_millisecond() as f64 / 1000.0;
    put("timestamp", seconds.into());
    put("level", record.source.severity().into());
    put("_container_id", origin.id.as_str().into());
    put("_container_name", origin.name.as_str().into());
    put("_image_id", origin.image_id.as_str().into());
    put("_image_name", origin.image_name.as_str().into());
    put("_command", origin.command.as_str().into());
    put("_tag", origin.tag.as_str().into());
    put("_created", origin.created.map(|time| time.to_string()).unwrap_or_default().into());
    for (key, value) in &origin.extra {
        put(&format!("_{key}"), value.as_str().into());
    }
    Value::Object(fields).to_string().into_bytes()
}

/// The datagrams of one message; none where it is too large for any number of them.
pub(super) fn datagrams(message: &[u8], sink: &GelfSink, id: [u8; 8]) -> Option<Vec<Vec<u8>>> {
    let packed = compress(message, sink);
    if packed.len() <= CHUNK {
        return Some(vec![packed]);
    }
    let pieces: Vec<&[u8]> = packed.chunks(CHUNK - CHUNK_HEAD).collect();
    if pieces.len() > MOST_CHUNKS {
        return None;
    }
    let count = pieces.len() as u8;
    let head = |number: usize| [&[0x1e, 0x0f][..], &id, &[number as u8, count]].concat();
    Some(pieces.iter().enumerate().map(|(number, piece)| [&head(number), *piece].concat()).collect())
}

fn compress(message: &[u8], sink: &GelfSink) -> Vec<u8> {
    let level = u32::try_from(sink.level).map_or_else(|_| Compression::default(), Compression::new);
    let packed = match sink.compression {
        GelfCompression::None => return message.to_vec(),
        GelfCompression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(message).and_then(|()| encoder.finish())
        }
        GelfCompression::Zlib => {
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(message).and_then(|()| encoder.finish())
        }
    };
    // Writing to memory does not fail; uncompressed is understood as well.
    packed.unwrap_or_else(|_| message.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Endpoint;

    #[test]
    fn large_messages_go_in_pieces_and_too_large_ones_not_at_all() {
        let sink = GelfSink { endpoint: Endpoint::Udp("x:1".into()), compression: GelfCompression::None, level: 1 };
        assert_eq!(datagrams(b"small", &sink, [0; 8]).unwrap(), [b"small"]);
        let large: Vec<u8> = (0..4000u32).map(|n| n as u8).collect();
        let pieces = datagrams(&large, &sink, *b"12345678").unwrap();
        assert_eq!(pieces.len(), 3);
        assert!(pieces.iter().all(|piece| piece.len() <= CHUNK && piece.starts_with(b"\x1e\x0f12345678")));
        let together: Vec<u8> = pieces.iter().flat_map(|piece| &piece[12..]).copied().collect();
        assert_eq!((together, pieces[2][10], pieces[2][11]), (large, 2, 3));
        assert_eq!(datagrams(&vec![0; 200_000], &sink, [0; 8]), None);
    }
}

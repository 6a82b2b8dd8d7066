//! Doors for the fuzz targets and for tests: what a stranger may say on a connection.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use engine::model::build::SyncedFolders;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use crate::filesync::{Answer, Coming};
use crate::grpc::{Call, Channel, Code, Deframer, Reply, Service, Status, serve};
use crate::messages::BytesMessage;
use crate::messages::session::Packet;

/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Settings without any setting: the least that both sides must say.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// Bytes on their way in one direction.
const PIPE_BYTES: usize = 64 << 10;
/// So often our side may do something before the other one leaves.
const TURNS: u32 = 64;
/// No connection whose other side has ended lives longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Messages of gRPC that come in these pieces: each is as long as it says.
pub fn frames(pieces: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut deframer = Deframer::default();
    let mut messages = Vec::new();
    for piece in pieces {
        deframer.push(piece);
        while let Ok(Some(message)) = deframer.next() {
            messages.push(message.to_vec());
        }
    }
    messages
}

/// A client's folder as it comes in messages of gRPC. Returns the context's texts at these paths, where the client came to an end.
pub fn folder(pieces: &[Vec<u8>], dir: &Path, paths: &[&str]) -> Option<Vec<Option<String>>> {
    let folders = SyncedFolders::open(dir).ok()?;
    let mut receiver = folders.receive("key").ok()?;
    let mut coming = Coming::new(&mut receiver);
    for message in frames(pieces) {
        let packet = Packet::decode(message.as_slice()).ok()?;
        if coming.take(packet).ok()? == Answer::Over {
            let context = receiver.finish().ok()?;
            return Some(paths.iter().map(|path| context.text(path)).collect());
        }
    }
    None
}

/// Says back what it is told.
struct Echo;

impl Service for Echo {
    fn call(self: Arc<Self>, mut call: Call) -> Pin<Box<dyn Future<Output = Reply> + Send>> {
        Box::pin(async move {
            let message = call.message::<BytesMessage>().await;
            match call.header("fail") {
                Some(text) => Reply::Single(Err(Status::new(Code::Unknown, text))),
                None => Reply::of(message),
            }
        })
    }
}

/// A connection on which a client says this after its preface; what we answer until it ends.
pub fn calls(bytes: &[u8]) -> Vec<u8> {
    talk(&[PREFACE, SETTINGS, bytes].concat(), |ours| async {
        let _ = serve(ours, Arc::new(Echo)).await;
    })
}

/// A connection on which we ask a client for a message, and it says this; what we say until it ends.
pub fn answers(bytes: &[u8]) -> Vec<u8> {
    talk(&[SETTINGS, bytes].concat(), |ours| async {
        let Ok((channel, ended)) = Channel::open(ours).await else { return };
        let ended = tokio::spawn(ended);
        if let Ok((sender, mut reader)) = channel.stream("/x/Y", &[("name", "value".to_owned())]) {
            sender.send(&BytesMessage { data: bytes::Bytes::from_static(b"ask") }).await;
            while reader.next::<Packet>().await.is_ok_and(|packet| packet.is_some()) {}
            let _ = reader.outcome();
        }
        drop(channel);
        let _ = ended.await;
    })
}

/// Lets our side talk with one that says its bytes and leaves.
fn talk<F: Future<Output = ()> + Send + 'static>(bytes: &[u8], ours: impl FnOnce(DuplexStream) -> F) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime without I/O");
    runtime.block_on(async {
        let (near, mut far) = tokio::io::duplex(PIPE_BYTES);
        let ours = tokio::spawn(ours(near));
        let mut said = Vec::new();
        let talked = async {
            let (mut from, mut to) = tokio::io::split(&mut far);
            let speak = async {
                let _ = to.write_all(bytes).await;
                // Who leaves at once is not answered.
                for _ in 0..TURNS {
                    tokio::task::yield_now().await;
                }
                let _ = to.shutdown().await;
            };
            let _ = tokio::join!(speak, from.read_to_end(&mut said));
        };
        tokio::time::timeout(PATIENCE, talked).await.expect("a connection whose other side has left ends");
        ours.abort();
        said
    })
}

/// A message as it travels.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), message].concat()
}

/// Packets of a client that has these files, by their paths.
pub fn packets(files: &HashMap<String, Vec<u8>>) -> Vec<Vec<u8>> {
    use crate::messages::session::{PacketKind, Stat};
    let mut packets = Vec::new();
    let described = files.iter().map(|(path, bytes)| Stat {
        path: path.clone(),
        mode: 0o644,
        size: bytes.len() as i64,
        ..Stat::default()
    });
    packets.extend(described.map(|stat| Packet { stat: Some(stat), ..Packet::default() }));
    packets.push(Packet::default());
    for (id, bytes) in files.values().enumerate() {
        let pieces = bytes.chunks(7).chain([&[][..]]);
        let data = |piece: &[u8]| bytes::Bytes::copy_from_slice(piece);
        let packet = |piece| Packet { kind: PacketKind::Data as i32, id: id as u32, data: data(piece), stat: None };
        packets.extend(pieces.map(packet));
    }
    packets.push(Packet { kind: PacketKind::Fin as i32, ..Packet::default() });
    packets.iter().map(|packet| framed(&packet.encode_to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn files() -> impl Strategy<Value = HashMap<String, Vec<u8>>> {
        let path = prop::collection::vec("[a-d]{1,2}", 1..3).prop_map(|parts| parts.join("/"));
        prop::collection::hash_map(path, "[ -~]{0,40}".prop_map(String::into_bytes), 0..8)
    }

    proptest! {
        #[test]
        fn a_folder_comes_as_it_is_or_not_at_all(files in files(), cut in any::<prop::sample::Index>()) {
            let dir = tempfile::tempdir().unwrap();
            let pieces = packets(&files);
            let paths: Vec<&str> = files.keys().map(String::as_str).collect();
            // A directory that is a file as well is no folder.
            let is_one = |path: &&str| paths.iter().any(|other| other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')));
            let came = folder(&pieces, dir.path(), &paths);
            if paths.iter().any(is_one) {
                return Ok(());
            }
            let expected: Vec<Option<String>> =
                files.values().map(|bytes| Some(String::from_utf8_lossy(bytes).into_owned())).collect();
            prop_assert_eq!(came, Some(expected));
            // One whose client leaves early is none.
            prop_assert_eq!(folder(&pieces[..cut.index(pieces.len())], dir.path(), &[]), None);
        }

        #[test]
        fn a_damaged_folder_does_no_harm(
            files in files(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut bytes = packets(&files).concat();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = folder(&[bytes], dir.path(), &["a"]);
        }

        #[test]
        fn messages_are_what_was_sent(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..6), width in 1_usize..70) {
            let bytes: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
            let pieces: Vec<Vec<u8>> = bytes.chunks(width).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(frames(&pieces), messages);
        }

        #[test]
        fn whatever_is_said_a_connection_ends(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            calls(&bytes);
            answers(&bytes);
        }
    }

    /// A frame of HTTP/2.
    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    #[test]
    fn a_call_is_answered() {
        // :method POST and :scheme http by their numbers in the static table, :path and :authority in plain letters.
        let mut headers = vec![0x83, 0x86, 0x04, 2];
        headers.extend(b"/x");
        headers.extend([0x01, 1, b'h']);
        let message = framed(&BytesMessage { data: bytes::Bytes::from_static(b"said back") }.encode_to_vec());
        let said = calls(&[frame(1, 4, 1, &headers), frame(0, 1, 1, &message)].concat());
        assert!(said.windows(9).any(|window| window == b"said back"), "{said:?}");
    }
}

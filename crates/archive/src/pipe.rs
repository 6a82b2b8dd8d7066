//! Streams whose other end is a thread of ours: what it writes here is read there.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes that change threads together.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces between the threads.
const PIECES_QUEUED: usize = 4;

type Piece = io::Result<Vec<u8>>;

/// Runs `produce` on a thread of its own and gives what it writes as a stream. Its error is the stream's error. Who drops the stream
/// makes the next write there fail with `BrokenPipe`.
pub fn produce<F>(thread_name: &str, produce: F) -> io::Result<Produced>
where
    F: FnOnce(&mut Producer) -> io::Result<()> + Send + 'static,
{
    let (sender, pieces) = sync_channel(PIECES_QUEUED);
    std::thread::Builder::new().name(thread_name.to_owned()).spawn(move || {
        let mut producer = Producer { sender, piece: Vec::new() };
        let outcome = produce(&mut producer).and_then(|()| producer.flush());
        if let Err(error) = outcome {
            // Nobody reads any more: then nobody wants to know.
            let _ = producer.sender.send(Err(error));
        }
    })?;
    Ok(Produced { pieces, current: Vec::new(), read: 0, state: State::Open })
}

/// The end that the thread writes to.
#[derive(Debug)]
pub struct Producer {
    sender: SyncSender<Piece>,
    piece: Vec<u8>,
}

impl Write for Producer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.capacity() == 0 {
            self.piece.reserve_exact(PIECE_BYTES);
        }
        let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        self.sender.send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// The end that is read.
#[derive(Debug)]
pub struct Produced {
    pieces: Receiver<Piece>,
    current: Vec<u8>,
    read: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
}

impl Read for Produced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.current.len() && self.state == State::Open {
            match self.pieces.recv() {
                Ok(Ok(piece)) => (self.current, self.read) = (piece, 0),
                Ok(Err(error)) => {
                    self.state = State::Ended;
                    return Err(error);
                }
                Err(_) => self.state = State::Ended,
            }
        }
        let rest = &self.current[self.read..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.read += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_arrives_in_order_and_so_does_the_error() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
        let copy = bytes.clone();
        let mut stream = produce("test", move |output| {
            output.write_all(&copy)?;
            Err(io::Error::other("the end"))
        })
        .unwrap();
        let mut found = vec![0; bytes.len()];
        let error = stream.read_exact(&mut found[..10]).and_then(|()| stream.read_exact(&mut found[10..])).err();
        // The last, unfinished piece of a producer that fails is not passed on.
        assert!(error.is_some_and(|error| error.to_string() == "the end"));
        let whole = bytes.len() / PIECE_BYTES * PIECE_BYTES;
        assert_eq!(found[..whole], bytes[..whole]);
    }

    #[test]
    fn a_dropped_stream_stops_the_producer() {
        let (sender, outcome) = sync_channel(1);
        let stream = produce("test", move |output| {
            let error = io::copy(&mut io::repeat(1), output).map(drop);
            let _ = sender.send(error.as_ref().err().map(io::Error::kind));
            error
        });
        drop(stream);
        assert_eq!(outcome.recv().unwrap(), Some(io::ErrorKind::BrokenPipe));
    }
}

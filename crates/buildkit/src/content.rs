//! Blobs in a folder of the client, which serves it as containerd's content store.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use engine::model::build::HostError;
use engine::model::build_cache::{BlobContents, BlobStore};
use oci::Digest;
use tokio::sync::mpsc;

use crate::grpc::{Code, Sender, Status};
use crate::messages::content::{
    InfoRequest, InfoResponse, ReadRequest, ReadResponse, WriteAction, WriteRequest, WriteResponse,
};
use crate::session::Session;

const INFO: &str = "/containerd.services.content.v1.Content/Info";
const READ: &str = "/containerd.services.content.v1.Content/Read";
const WRITE: &str = "/containerd.services.content.v1.Content/Write";
/// The header that names one of the client's folders.
const STORE_ID: &str = "buildkit-attachable-store-id";
/// Bytes in one message.
const PIECE: usize = 1 << 20;
/// Messages that wait to be read.
const QUEUE: usize = 8;

/// A folder of a client's.
#[derive(Debug)]
pub(crate) struct ClientFolder {
    session: Arc<Session>,
    id: String,
}

impl ClientFolder {
    /// The folder that the client serves under this path.
    pub(crate) fn new(session: Arc<Session>, path: &str) -> ClientFolder {
        ClientFolder { session, id: format!("local:{path}") }
    }

    fn headers(&self) -> [(&str, String); 1] {
        [(STORE_ID, self.id.clone())]
    }
}

impl BlobStore for ClientFolder {
    fn has(&self, digest: &Digest) -> Result<bool, HostError> {
        let request = InfoRequest { digest: digest.to_string() };
        let headers = self.headers();
        let asked = self.session.channel().unary_with::<InfoResponse>(INFO, &headers, &request);
        match self.session.runtime.block_on(asked) {
            Ok(_) => Ok(true),
            Err(status) if status.code == Code::NotFound => Ok(false),
            Err(status) => Err(told(status)),
        }
    }

    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send>, HostError> {
        let (sender, mut reader) = self.session.channel().stream(READ, &self.headers()).map_err(told)?;
        sender.send_blocking(&ReadRequest { digest: digest.to_string() });
        drop(sender);
        let (into, pieces) = mpsc::channel(QUEUE);
        self.session.runtime.spawn(async move {
            loop {
                let piece = match reader.next::<ReadResponse>().await {
                    Ok(Some(response)) => Ok(response.data),
                    Ok(None) => match reader.outcome() {
                        Ok(()) => return,
                        Err(status) => Err(status),
                    },
                    Err(status) => Err(status),
                };
                let last = piece.is_err();
                if into.send(piece).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Box::new(Pieces { pieces, piece: Bytes::new() }))
    }

    fn write(&self, contents: BlobContents<'_>) -> Result<(), HostError> {
        let (sender, mut reader) = self.session.channel().stream(WRITE, &self.headers()).map_err(told)?;
        // One that nobody has begun.
        let reference = format!("conex-{}", jiff::Timestamp::now().as_nanosecond());
        let mut upload = Upload { sender, reference, offset: 0, waiting: Vec::new() };
        let written = contents(&mut upload).and_then(|digest| upload.commit(&digest));
        drop(upload);
        let ended = self.session.runtime.block_on(async {
            while reader.next::<WriteResponse>().await?.is_some() {}
            reader.outcome()
        });
        match ended {
            // What is there already is what was to be written.
            Err(status) if status.code == Code::AlreadyExists => Ok(()),
            Err(status) => Err(told(status)),
            Ok(()) => written.map_err(|error| HostError(error.to_string())),
        }
    }
}

/// A blob on its way to the client.
struct Upload {
    sender: Sender,
    reference: String,
    offset: i64,
    waiting: Vec<u8>,
}

impl Upload {
    fn send(&mut self, action: WriteAction, expected: String) -> io::Result<()> {
        let data = Bytes::from(std::mem::take(&mut self.waiting));
        let (offset, length) = (self.offset, data.len() as i64);
        let total = if action == WriteAction::Commit { offset + length } else { 0 };
        let reference = self.reference.clone();
        let request = WriteRequest { action: action as i32, reference, total, expected, offset, data };
        self.offset += length;
        if self.sender.send_blocking(&request) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    fn commit(&mut self, digest: &Digest) -> io::Result<()> {
        self.send(WriteAction::Commit, digest.to_string())
    }
}

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(PIECE - self.waiting.len());
        self.waiting.extend_from_slice(&bytes[..length]);
        if self.waiting.len() == PIECE {
            self.send(WriteAction::Write, String::new())?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blob on its way here.
struct Pieces {
    pieces: mpsc::Receiver<Result<Bytes, Status>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                None => return Ok(0),
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(status)) => return Err(io::Error::other(status)),
            }
        }
        let length = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

fn told(status: Status) -> HostError {
    match status.code {
        Code::Unimplemented => HostError(format!("the client serves no folder of blobs: {}", status.message)),
        _ => HostError(status.message),
    }
}

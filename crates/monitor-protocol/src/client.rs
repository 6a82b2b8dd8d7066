//! A blocking client: one request at a time, events put aside. For tests and tools; the daemon has its own.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::frame::{DecodeError, Decoder, EncodeError};
use crate::message::{Event, Failure, FromMonitor, Hello, Request, RequestId, Response, ToMonitor};
use crate::outbox::Outbox;
use crate::socket::{self, Waiting};

/// A connection to a monitor.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    decoder: Decoder,
    outbox: Outbox,
    next_id: u64,
    events: VecDeque<Event>,
    /// What the monitor said when the connection was made.
    hello: Hello,
}

/// A request did not get through, or was refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket failed.
    #[error("cannot talk to the monitor")]
    Io(#[from] io::Error),
    /// The monitor is gone.
    #[error("the monitor has hung up")]
    Closed,
    /// A message of ours cannot be written.
    #[error("cannot write a message to the monitor")]
    Encode(#[from] EncodeError),
    /// The monitor's bytes are no frames.
    #[error("cannot read the monitor's messages")]
    Decode(#[from] DecodeError),
    /// The monitor's message is not JSON that this version knows.
    #[error("cannot understand the monitor's message")]
    Json(#[from] serde_json::Error),
    /// The first message was not a greeting.
    #[error("the monitor did not say hello")]
    NoHello,
    /// The monitor refused.
    #[error("{0}")]
    Refused(Failure),
}

/// A message and its descriptors.
type Received = (FromMonitor, Vec<OwnedFd>);

impl Client {
    /// Connects to a monitor's socket.
    pub fn connect(path: &Path) -> Result<Client, ClientError> {
        Client::over(socket::connect(path)?)
    }

    /// Speaks over a socket that is connected already. Waits for the monitor's greeting.
    pub fn over(socket: UnixStream) -> Result<Client, ClientError> {
        let (mut decoder, mut events) = (Decoder::new(), VecDeque::new());
        loop {
            match receive(&socket, &mut decoder)?.0 {
                FromMonitor::Hello(hello) => {
                    return Ok(Client { socket, decoder, outbox: Outbox::new(), next_id: 1, events, hello: *hello });
                }
                FromMonitor::Event(event) => events.push_back(event),
                FromMonitor::Reply(_) => return Err(ClientError::NoHello),
            }
        }
    }

    /// What the monitor said when the connection was made.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Asks for something and waits for the answer.
    pub fn request(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<Response, ClientError> {
        self.request_with_fds(request, fds).map(|(response, _)| response)
    }

    /// Asks for something that is answered with descriptors.
    pub fn request_with_fds(
        &mut self,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(Response, Vec<OwnedFd>), ClientError> {
        let id = self.send(request, fds)?;
        loop {
            match receive(&self.socket, &mut self.decoder)? {
                (FromMonitor::Reply(reply), fds) if reply.id == id => {
                    return reply.result.map(|response| (response, fds)).map_err(ClientError::Refused);
                }
                (FromMonitor::Event(event), _) => self.events.push_back(event),
                _ => {}
            }
        }
    }

    /// Asks for something without waiting.
    pub fn send(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<RequestId, ClientError> {
        let id = RequestId(self.next_id);
        self.next_id += 1;
        self.outbox.push(&ToMonitor { id, request }, fds)?;
        self.outbox.flush(self.socket.as_fd(), Waiting::Block)?;
        Ok(id)
    }

    /// The next event; waits for it.
    pub fn next_event(&mut self) -> Result<Event, ClientError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if let (FromMonitor::Event(event), _) = receive(&self.socket, &mut self.decoder)? {
                return Ok(event);
            }
        }
    }

    /// Makes every wait end with an error after `timeout`.
    pub fn set_timeout(&self, timeout: Duration) -> Result<(), ClientError> {
        Ok(self.socket.set_read_timeout(Some(timeout))?)
    }
}

fn receive(socket: &UnixStream, decoder: &mut Decoder) -> Result<Received, ClientError> {
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return Ok((FromMonitor::from_json(&frame.body)?, frame.fds));
        }
        if socket::receive(socket.as_fd(), decoder, Waiting::Block)? == 0 {
            return Err(ClientError::Closed);
        }
    }
}

//! The first line of a connection's first request, as people write it.
//!
//! `curl 'http://localhost/containers/json?filters={"name":["x"]}'` sends the quotes as they are. RFC 3986 wants them quoted, Docker takes
//! them, and hyper refuses them before anybody here sees the request. So they are quoted here, where it is certain that a line begins a
//! request: at the beginning of a connection. Clients that keep connections quote by themselves.

use std::borrow::Cow;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// A line that is longer goes on as it is.
const MAX_LINE: usize = 64 * 1024;

/// What has been read of the line, and what goes on to the reader.
#[derive(Debug)]
pub(crate) enum FirstLine {
    /// It has not come whole.
    Coming(Vec<u8>),
    /// It goes on, from here.
    Passing(Vec<u8>, usize),
    /// Gone on.
    Passed,
}

impl FirstLine {
    pub(crate) fn new() -> Self {
        Self::Coming(Vec::new())
    }

    /// Reads the line, quoted, and then whatever comes.
    pub(crate) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self {
                Self::Coming(bytes) => {
                    let mut piece = [0; 4096];
                    let mut piece = ReadBuf::new(&mut piece);
                    ready!(Pin::new(&mut *stream).poll_read(cx, &mut piece))?;
                    bytes.extend_from_slice(piece.filled());
                    if piece.filled().is_empty() || piece.filled().contains(&b'\n') || bytes.len() > MAX_LINE {
                        *self = Self::Passing(quoted(bytes).into_owned(), 0);
                    }
                }
                Self::Passing(bytes, from) if *from < bytes.len() => {
                    let count = buf.remaining().min(bytes.len() - *from);
                    buf.put_slice(&bytes[*from..*from + count]);
                    *from += count;
                    return Poll::Ready(Ok(()));
                }
                Self::Passing(..) => *self = Self::Passed,
                Self::Passed => return Pin::new(&mut *stream).poll_read(cx, buf),
            }
        }
    }

    /// What has been read and has not gone on.
    pub(crate) fn rest(self) -> Vec<u8> {
        match self {
            Self::Coming(bytes) => bytes,
            Self::Passing(bytes, from) => bytes[from..].to_vec(),
            Self::Passed => Vec::new(),
        }
    }
}

/// Bytes that begin with a request, with what RFC 3986 allows in no target quoted in the target of the first line.
fn quoted(bytes: &[u8]) -> Cow<'_, [u8]> {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let (Some(begin), Some(end)) = (line.iter().position(is_space), line.iter().rposition(is_space)) else {
        return bytes.into();
    };
    let target = &bytes[begin..end];
    if !target.iter().any(|byte| needs_quoting(*byte)) {
        return bytes.into();
    }
    let mut all = bytes[..begin].to_vec();
    for byte in target {
        match *byte {
            byte if needs_quoting(byte) => all.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            byte => all.push(byte),
        }
    }
    all.extend_from_slice(&bytes[end..]);
    all.into()
}

fn is_space(byte: &u8) -> bool {
    *byte == b' '
}

/// Not the per cent sign, which quotes already; spaces and control characters stay errors.
fn needs_quoting(byte: u8) -> bool {
    matches!(byte, b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}') || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::tap::{Mute, Tap};

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(quoted(bytes).into_owned()).unwrap()
    }

    #[test]
    fn only_the_target_of_the_first_line_is_quoted() {
        let raw = "GET /containers/json?filters={\"name\":[\"\u{e9}\"]}&a=%22 HTTP/1.1\r\nHost: \"x\"\r\n\r\n";
        let expected =
            "GET /containers/json?filters=%7B%22name%22:[%22%C3%A9%22]%7D&a=%22 HTTP/1.1\r\nHost: \"x\"\r\n\r\n";
        assert_eq!(text(raw.as_bytes()), expected);
        for other in ["", "\"", "GET \"", "GET /a HTTP/1.1\r\n\"", "POST /x HTTP/1.1\r\n\r\nGET /\" HTTP/1.1\r\n"] {
            assert_eq!(text(other.as_bytes()), other);
        }
    }

    /// All that comes through, read in pieces of this size.
    async fn through(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut tap = Tap::new(bytes, Mute::default());
        let (mut all, mut buffer) = (Vec::new(), vec![0; piece]);
        loop {
            match tap.read(&mut buffer).await.unwrap() {
                0 => return all,
                count => all.extend_from_slice(&buffer[..count]),
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost(bytes in proptest::collection::vec(any::<u8>(), 0..20_000), piece in 1_usize..9000) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            prop_assert_eq!(runtime.block_on(through(&bytes, piece)), quoted(&bytes).into_owned());
        }
    }

    #[tokio::test]
    async fn a_line_without_end_goes_on() {
        let endless = vec![b'"'; 3 * MAX_LINE];
        assert_eq!(through(&endless, 1000).await, endless);
    }
}

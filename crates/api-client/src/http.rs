//! The head of an HTTP/1.1 answer; pure.

use crate::error::Error;

/// The longest head that is accepted.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// Status and headers of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    http_1_0: bool,
}

/// How the body's end is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// The rest of the connection.
    UntilClose,
}

impl Head {
    /// Reads a head that ends with an empty line.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(bytes).map_err(|_| Error::Malformed("the head is not text"))?;
        let mut lines = text.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let (version, rest) = status_line.split_once(' ').ok_or(Error::Malformed("the status line has no status"))?;
        if !version.starts_with("HTTP/1.") {
            return Err(Error::Malformed("not HTTP/1"));
        }
        let status = rest.get(..3).and_then(|digits| digits.parse().ok());
        let headers = lines
            .filter(|line| !line.is_empty())
            .map(|line| {
                let (name, value) = line.split_once(':').ok_or(Error::Malformed("a header has no colon"))?;
                Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            status: status.ok_or(Error::Malformed("the status is not a number"))?,
            headers,
            http_1_0: version == "HTTP/1.0",
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn framing(&self, method: &str) -> Result<Framing, Error> {
        if method == "HEAD" || self.status == 204 || self.status == 304 || self.status < 200 {
            return Ok(Framing::Length(0));
        }
        if self.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Ok(Framing::Chunked);
        }
        match self.header("content-length") {
            Some(length) => {
                length.parse().map(Framing::Length).map_err(|_| Error::Malformed("the content length is not a number"))
            }
            None => Ok(Framing::UntilClose),
        }
    }

    /// Whether the connection can be used again once the body is read.
    pub(crate) fn keeps_alive(&self) -> bool {
        !self.http_1_0 && !self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// The position behind the first empty line.
pub(crate) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Head {
        Head::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_head_tells_where_its_body_ends() {
        let chunked = head("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(chunked.framing("GET").unwrap(), Framing::Chunked);
        assert_eq!(chunked.framing("HEAD").unwrap(), Framing::Length(0));
        let length = head("HTTP/1.1 404 Not Found\r\nContent-Length: 12\r\n\r\n");
        assert_eq!((length.status, length.framing("GET").unwrap()), (404, Framing::Length(12)));
        assert_eq!(head("HTTP/1.1 304 Not Modified\r\n\r\n").framing("POST").unwrap(), Framing::Length(0));
        let raw = head("HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n");
        assert_eq!(raw.framing("POST").unwrap(), Framing::UntilClose);
    }

    #[test]
    fn a_connection_lives_unless_it_says_otherwise() {
        assert!(head("HTTP/1.1 200 OK\r\n\r\n").keeps_alive());
        assert!(!head("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").keeps_alive());
        assert!(!head("HTTP/1.0 200 OK\r\n\r\n").keeps_alive());
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for text in [
            "",
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 x\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 200 OK\r\nbad\r\n\r\n",
        ] {
            assert!(Head::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(end_of_head(b"a\r\n\r\nb"), Some(5));
        assert_eq!(end_of_head(b"a\r\n"), None);
    }
}

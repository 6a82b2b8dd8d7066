//! Documents one after the other: events, statistics, progress.

use std::io::{self, BufRead, BufReader};
use std::marker::PhantomData;

use docker_api::json;
use serde::de::DeserializeOwned;

use crate::body::Body;
use crate::error::{Error, Result};

/// The longest single document.
const MAX_LINE: usize = 64 << 20;

/// Documents that arrive one by one, each on a line.
#[derive(Debug)]
pub struct Lines<T> {
    reader: BufReader<Body>,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(crate) fn new(body: Body) -> Self {
        Self { reader: BufReader::new(body), of: PhantomData }
    }

    fn read_line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            let available = self.reader.fill_buf()?;
            let end = available.iter().position(|byte| *byte == b'\n');
            let len = end.map_or(available.len(), |end| end + 1);
            line.extend_from_slice(&available[..len]);
            self.reader.consume(len);
            if end.is_some() || len == 0 {
                return Ok(line);
            }
            if line.len() > MAX_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a document is too long"));
            }
        }
    }
}

impl<T: DeserializeOwned> Iterator for Lines<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        loop {
            let line = match self.read_line() {
                Ok(line) if line.is_empty() => return None,
                Ok(line) => line,
                Err(error) => return Some(Err(Error::io("reading the answer")(error))),
            };
            if !line.trim_ascii().is_empty() {
                return Some(json::from_slice(&line).map_err(Error::Json));
            }
        }
    }
}

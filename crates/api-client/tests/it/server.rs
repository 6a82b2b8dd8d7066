//! A server of a script: for each connection, answers to requests in order.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use api_client::{Client, Host};

/// What the server saw of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) headers: Vec<String>,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Server {
    path: PathBuf,
    seen: mpsc::Receiver<Seen>,
    thread: Option<JoinHandle<()>>,
}

/// One answer, and what becomes of the connection after it.
pub(crate) enum Answer {
    Keep(&'static str),
    Close(&'static str),
    /// Echoes everything behind the head after sending this.
    Echo(&'static str),
}

impl Server {
    /// Gives these answers, whichever connections they are asked on.
    pub(crate) fn start(answers: Vec<Answer>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("conex-client-{}-{number}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let (sender, seen) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut answers = answers.into_iter().peekable();
            while answers.peek().is_some() {
                let (stream, _) = listener.accept().unwrap();
                serve(stream, &mut answers, &sender);
            }
        });
        Self { path, seen, thread: Some(thread) }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(Host::Unix(self.path.clone()))
    }

    pub(crate) fn next(&self) -> Seen {
        self.seen.recv().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        if let Some(thread) = self.thread.take().filter(|thread| thread.is_finished()) {
            thread.join().unwrap();
        }
    }
}

fn serve(stream: UnixStream, answers: &mut impl Iterator<Item = Answer>, seen: &mpsc::Sender<Seen>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(request) = read_request(&mut reader) {
        seen.send(request).unwrap();
        match answers.next() {
            None => return,
            Some(Answer::Keep(text)) => writer.write_all(text.as_bytes()).unwrap(),
            Some(Answer::Close(text)) => return writer.write_all(text.as_bytes()).unwrap(),
            Some(Answer::Echo(text)) => {
                writer.write_all(text.as_bytes()).unwrap();
                let mut input = Vec::new();
                reader.read_to_end(&mut input).unwrap();
                return writer.write_all(&input).unwrap();
            }
        }
    }
}

fn read_request(reader: &mut BufReader<UnixStream>) -> Option<Seen> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let header = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name).map(str::trim));
    let body = if header("Transfer-Encoding:").is_some() {
        read_chunks(reader)
    } else {
        let mut body = vec![0; header("Content-Length:").map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body).unwrap();
        body
    };
    Some(Seen { line: lines.remove(0), headers: lines, body })
}

fn read_chunks(reader: &mut BufReader<UnixStream>) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let len = usize::from_str_radix(line.trim(), 16).unwrap();
        let mut chunk = vec![0; len + 2];
        reader.read_exact(&mut chunk).unwrap();
        body.extend_from_slice(&chunk[..len]);
        if len == 0 {
            return body;
        }
    }
}

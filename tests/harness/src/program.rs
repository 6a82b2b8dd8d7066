//! Programs run to their end, with what they said.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take before the test fails; far more than any needs.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// A program about to be run.
#[derive(Debug)]
pub struct Program {
    command: Command,
    input: Vec<u8>,
}

/// What a program did.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code; 128 + signal where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// The command line, for messages.
    pub command: String,
}

/// A program that `./x test` unpacks at `place` below `target`, or that the environment variable names.
pub fn unpacked(variable: &str, place: &str) -> PathBuf {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target").join(place);
    let program = std::env::var_os(variable).map_or_else(default, PathBuf::from);
    assert!(program.exists(), "{} is missing: ./x test puts it there", program.display());
    program
}

impl Program {
    pub(crate) fn new(name: &OsStr) -> Self {
        let mut command = Command::new(name);
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("LC_ALL", "C.UTF-8");
        Self { command, input: Vec::new() }
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Adds one argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What the program reads from standard input; nothing unless said otherwise.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Runs the program and returns what it did, whatever that was.
    pub fn run(self) -> Output {
        let Self { mut command, input } = self;
        let title = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {title}: {error}"));
        let mut stdin = child.stdin.take().expect("it is piped");
        // A program that does not read its input closes the pipe: no failure of the test.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let stdout = read_all(child.stdout.take().expect("it is piped"));
        let stderr = read_all(child.stderr.take().expect("it is piped"));
        let code = wait(&mut child, &title);
        writer.join().expect("the writer does not panic");
        Output {
            code,
            stdout: stdout.join().expect("the reader does not panic"),
            stderr: stderr.join().expect("the reader does not panic"),
            command: title,
        }
    }

    /// Starts the program and returns at once; standard output is piped, the rest is the test's.
    pub fn spawn(mut self) -> Child {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts")
    }

    /// Runs the program, which must succeed; returns standard output without the last newline.
    #[track_caller]
    pub fn ok(self) -> String {
        self.run().expect_code(0).text()
    }

    /// Runs the program, which must fail with this exit code; returns standard error.
    #[track_caller]
    pub fn fails(self, code: i32) -> String {
        self.run().expect_code(code).error_text()
    }

    /// The command for everything else that `std` can do with it.
    pub fn into_command(self) -> Command {
        self.command
    }
}

impl Output {
    /// Fails the test unless the exit code is this one.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\nstdout: {}\nstderr: {}", self.command, self.text(), self.error_text());
        self
    }

    /// Standard output as text, without the last newline.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }

    /// Standard error as text, without the last newline.
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).trim_end_matches('\n').to_owned()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

fn read_all(mut stream: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("a pipe is readable");
        bytes
    })
}

fn wait(child: &mut Child, title: &str) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let end = Instant::now() + TIME_LIMIT;
    loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            return status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        }
        if Instant::now() > end {
            // The failure is reported either way.
            let _ = child.kill();
            panic!("{title} did not end within {TIME_LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

//! A program on a terminal, as a person would use it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::program::Program;

const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A program whose standard streams are a terminal of 24 rows and 80 columns.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    /// Starts the program on a new terminal, which is its controlling one.
    pub fn start(program: Program) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&controller).expect("it is ours");
        unlockpt(&controller).expect("it is ours");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&controller, size).expect("it is a terminal");
        let name = ptsname(&controller, Vec::new()).expect("it has a name");
        let side = File::options().read(true).write(true).open(name.to_str().expect("ASCII")).expect("it opens");
        let original = program.into_command();
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(original.get_program()).args(original.get_args()).env_clear();
        command.envs(original.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let copy = || Stdio::from(side.try_clone().expect("a descriptor"));
        command.env("TERM", "xterm").stdin(copy()).stdout(copy()).stderr(copy());
        let child = command.spawn().expect("setsid is part of util-linux");
        let screen = read(controller.try_clone().expect("a descriptor"));
        Self { child, keyboard: File::from(controller), screen, seen: String::new() }
    }

    /// Types these bytes.
    pub fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal is open");
    }

    /// Waits until the text stands on the screen, and returns all that came until then.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        let end = Instant::now() + TIME_LIMIT;
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.screen.recv_timeout(left) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(error) => panic!("{text:?} did not come ({error}); the screen shows {:?}", self.seen),
            }
        }
    }

    /// Changes the size of the terminal.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.keyboard, size).expect("it is a terminal");
    }

    /// Waits for the program's end; its exit code.
    pub fn exit_code(mut self) -> i32 {
        let end = Instant::now() + TIME_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < end, "the program on the terminal does not end; it shows {:?}", self.seen);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn read(controller: OwnedFd) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    let mut file = File::from(controller);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        // EIO is how a terminal says that nobody is left on its other side.
        while let Ok(count @ 1..) = file.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

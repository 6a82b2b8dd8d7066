//! A conversation with systemd: over its private socket, or over the system bus.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::SystemdError;
use super::wire::{self, FIXED_LENGTH, Kind, Message, Method, Property, Writer};

/// systemd's own socket is only root's and needs no bus; the bus is there for everybody.
const SOCKETS: [(&str, Peer); 2] =
    [("/run/systemd/private", Peer::Systemd), ("/run/dbus/system_bus_socket", Peer::Bus)];
/// systemd is single-threaded and may be busy with a reload.
const TIMEOUT: Duration = Duration::from_secs(30);
const MESSAGE_LENGTH_MAX: usize = 1 << 20;
const LINE_LENGTH_MAX: usize = 1024;

const BUS: &str = "org.freedesktop.DBus";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// Who is at the other end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Systemd,
    Bus,
}

/// An open conversation.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    serial: u32,
    /// Signals that came while a reply was waited for.
    signals: Vec<Message>,
}

impl Connection {
    /// Connects to whichever socket is there.
    pub(super) fn open() -> Result<Self, SystemdError> {
        if !Path::new("/run/systemd/system").is_dir() {
            return Err(SystemdError::NotRunning);
        }
        let mut refused = None;
        for (path, peer) in SOCKETS {
            match Self::connect(Path::new(path), peer) {
                Ok(connection) => return Ok(connection),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.unwrap_or(SystemdError::NotRunning))
    }

    /// Connects to one socket and says who we are.
    pub(super) fn connect(path: &Path, peer: Peer) -> Result<Self, SystemdError> {
        let stream = UnixStream::connect(path).map_err(SystemdError::Io)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(SystemdError::Io)?;
        stream.set_write_timeout(Some(TIMEOUT)).map_err(SystemdError::Io)?;
        let mut connection = Self { stream, serial: 0, signals: Vec::new() };
        connection.authenticate()?;
        if peer == Peer::Bus {
            let bus = |member| Method { destination: BUS, path: "/org/freedesktop/DBus", interface: BUS, member };
            connection.call(bus("Hello"), "", Vec::new())?;
            let mut rule = Writer::default();
            rule.text(&format!("type='signal',interface='{MANAGER}',member='JobRemoved'"));
            connection.call(bus("AddMatch"), "s", rule.into_bytes())?;
        }
        connection.call(manager("Subscribe"), "", Vec::new())?;
        Ok(connection)
    }

    /// Starts a transient unit and waits until it is there.
    pub(super) fn start_transient_unit(&mut self, unit: &str, properties: &[Property]) -> Result<(), SystemdError> {
        match self.start_once(unit, properties) {
            // What is left of an earlier one may only be its failure.
            Err(SystemdError::Refused { error, .. }) if error == UNIT_EXISTS => {
                self.reset_failed(unit)?;
                self.start_once(unit, properties)
            }
            other => other,
        }
    }

    /// Changes properties of a unit until it ends.
    pub(super) fn set_unit_properties(&mut self, unit: &str, properties: &[Property]) -> Result<(), SystemdError> {
        let mut body = Writer::default();
        body.text(unit);
        // A boolean: at runtime, not for ever.
        body.u32(1);
        body.properties(properties);
        self.call(manager("SetUnitProperties"), "sba(sv)", body.into_bytes()).map(drop)
    }

    /// Stops a unit and waits until it is gone; a unit that is gone already is no error.
    pub(super) fn stop_unit(&mut self, unit: &str) -> Result<(), SystemdError> {
        let mut body = Writer::default();
        body.text(unit);
        body.text("replace");
        match self.call(manager("StopUnit"), "ss", body.into_bytes()) {
            Ok(reply) => self.wait_for_job(unit, &reply)?,
            Err(SystemdError::Refused { error, .. }) if error == NO_SUCH_UNIT => return Ok(()),
            Err(error) => return Err(error),
        }
        self.reset_failed(unit)
    }

    fn start_once(&mut self, unit: &str, properties: &[Property]) -> Result<(), SystemdError> {
        let mut body = Writer::default();
        body.text(unit);
        body.text("replace");
        body.properties(properties);
        // No auxiliary units.
        body.array(8, |_| {});
        let reply = self.call(manager("StartTransientUnit"), "ssa(sv)a(sa(sv))", body.into_bytes())?;
        self.wait_for_job(unit, &reply)
    }

    fn reset_failed(&mut self, unit: &str) -> Result<(), SystemdError> {
        let mut body = Writer::default();
        body.text(unit);
        match self.call(manager("ResetFailedUnit"), "s", body.into_bytes()) {
            // A unit that has not failed is not known any more.
            Ok(_) | Err(SystemdError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Waits for the signal that ends the job whose path a reply holds.
    fn wait_for_job(&mut self, unit: &str, reply: &Message) -> Result<(), SystemdError> {
        let job = wire::body_texts(reply, "o").ok_or(SystemdError::Protocol)?.remove(0);
        loop {
            let signal = if self.signals.is_empty() { self.receive()? } else { self.signals.remove(0) };
            if signal.kind != Kind::Signal || signal.member != "JobRemoved" {
                continue;
            }
            let [_, removed, _, result] = wire::body_texts(&signal, "uoss")
                .and_then(|texts| texts.try_into().ok())
                .ok_or(SystemdError::Protocol)?;
            match (removed == job, result.as_str()) {
                (false, _) => {}
                (true, "done") => return Ok(()),
                (true, _) => return Err(SystemdError::Job { unit: unit.to_owned(), result }),
            }
        }
    }

    fn call(&mut self, method: Method<'_>, signature: &str, body: Vec<u8>) -> Result<Message, SystemdError> {
        self.serial += 1;
        let message = wire::call(self.serial, method, signature, &body);
        self.stream.write_all(&message).map_err(SystemdError::Io)?;
        loop {
            let message = self.receive()?;
            match (message.kind, message.reply_to == Some(self.serial)) {
                (Kind::Return, true) => return Ok(message),
                (Kind::Error, true) => return Err(refused(method.member, &message)),
                (Kind::Signal, _) => self.signals.push(message),
                _ => {}
            }
        }
    }

    fn receive(&mut self) -> Result<Message, SystemdError> {
        let mut fixed = [0; FIXED_LENGTH];
        self.stream.read_exact(&mut fixed).map_err(SystemdError::Io)?;
        let rest =
            wire::rest_length(&fixed).filter(|rest| *rest <= MESSAGE_LENGTH_MAX).ok_or(SystemdError::Protocol)?;
        let mut bytes = fixed.to_vec();
        bytes.resize(FIXED_LENGTH + rest, 0);
        self.stream.read_exact(&mut bytes[FIXED_LENGTH..]).map_err(SystemdError::Io)?;
        wire::parse(&bytes).ok_or(SystemdError::Protocol)
    }

    /// The kernel vouches for the user id: `EXTERNAL` only repeats it.
    fn authenticate(&mut self) -> Result<(), SystemdError> {
        let user = rustix::process::geteuid().as_raw().to_string();
        let hex: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
        self.stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes()).map_err(SystemdError::Io)?;
        if !self.read_line()?.starts_with("OK ") {
            return Err(SystemdError::Protocol);
        }
        self.stream.write_all(b"BEGIN\r\n").map_err(SystemdError::Io)
    }

    /// Reads byte by byte: what follows the line belongs to the first message.
    fn read_line(&mut self) -> Result<String, SystemdError> {
        let mut line = Vec::new();
        while line.len() < LINE_LENGTH_MAX && !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).map_err(SystemdError::Io)?;
            line.push(byte[0]);
        }
        String::from_utf8(line).map_err(|error| SystemdError::Io(io::Error::other(error)))
    }
}

fn manager(member: &str) -> Method<'_> {
    Method { destination: SYSTEMD, path: MANAGER_PATH, interface: MANAGER, member }
}

fn refused(member: &str, message: &Message) -> SystemdError {
    let text = wire::body_texts(message, "s").map(|mut texts| texts.remove(0)).unwrap_or_default();
    SystemdError::Refused { method: member.to_owned(), error: message.error.clone(), text }
}

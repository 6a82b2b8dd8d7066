//! A conversation with systemd, the machine's or a user's own: over its private socket, or over the bus.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::SystemdError;
use super::wire::{self, FIXED_LENGTH, Kind, Message, Method, Property, Writer};

/// systemd is single-threaded and may be busy with a reload.
const TIMEOUT: Duration = Duration::from_secs(30);
const MESSAGE_LENGTH_MAX: usize = 1 << 20;
const LINE_LENGTH_MAX: usize = 1024;

const BUS: &str = "org.freedesktop.DBus";
const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// Who is at the other end of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Systemd,
    Bus,
}

/// Where a systemd can be talked to.
#[derive(Debug)]
struct Place {
    /// A folder that is there while it runs.
    mark: PathBuf,
    /// Its own socket is only its owner's and needs no bus; the bus is there for everybody.
    sockets: [(PathBuf, Peer); 2],
}

impl Place {
    /// Root asks the machine's, others their own, which may make cgroups below what they have been given.
    fn of_caller() -> Option<Place> {
        if rustix::process::geteuid().is_root() {
            let bus = PathBuf::from("/run/dbus/system_bus_socket");
            let own = PathBuf::from("/run/systemd/private");
            return Some(Place {
                mark: "/run/systemd/system".into(),
                sockets: [(own, Peer::Systemd), (bus, Peer::Bus)],
            });
        }
        let folder = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty())?);
        let sockets = [(folder.join("systemd/private"), Peer::Systemd), (folder.join("bus"), Peer::Bus)];
        Some(Place { mark: folder.join("systemd"), sockets })
    }
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
    /// Connects to the caller's systemd by whichever socket is there.
    pub(super) fn open() -> Result<Self, SystemdError> {
        let place = Place::of_caller().filter(|place| place.mark.is_dir()).ok_or(SystemdError::NotRunning)?;
        let mut refused = None;
        for (path, peer) in place.sockets {
            match Self::connect(&path, peer) {
                Ok(connection) => return Ok(connection),
                // What the first has to say counts: there need be no bus.
                Err(error) => refused = refused.or(Some(error)),
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

    /// The cgroup below which this systemd makes its own.
    pub(super) fn control_group(&mut self) -> Result<String, SystemdError> {
        let get = Method { destination: SYSTEMD, path: MANAGER_PATH, interface: PROPERTIES, member: "Get" };
        let mut body = Writer::default();
        body.text(MANAGER);
        body.text("ControlGroup");
        let reply = self.call(get, "ss", body.into_bytes())?;
        wire::body_texts(&reply, "v").map(|mut texts| texts.remove(0)).ok_or(SystemdError::Protocol)
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
    ///
    /// Both lines go in one piece, and nothing more before the answer: systemd does not look again at what it has read together with
    /// the second one, until more comes.
    fn authenticate(&mut self) -> Result<(), SystemdError> {
        let user = rustix::process::geteuid().as_raw().to_string();
        let hex: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
        let lines = format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n");
        self.stream.write_all(lines.as_bytes()).map_err(SystemdError::Io)?;
        if self.read_line()?.starts_with("OK ") { Ok(()) } else { Err(SystemdError::Protocol) }
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

//! What a container is made from: the one message that turns a waiting monitor into a container's owner.

use std::path::PathBuf;

use oci::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::detach_keys::DetachKeys;
use crate::message::{AttachId, Target};

/// The place of a file descriptor among those that travel with a frame, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FdIndex(pub u8);

/// Starts a container. Sent once to a waiting monitor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launch {
    /// The container's id; also the last word of the monitor's command line, for `ps`.
    pub id: String,
    /// The container's configuration; `linux.seccomp` is empty when `seccomp` below is given.
    pub spec: Box<Spec>,
    /// How the root file system is put together.
    pub rootfs: Rootfs,
    /// The compiled seccomp filter for the container and for all its exec sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<SeccompProgram>,
    /// How the first process's user is found.
    #[serde(default)]
    pub identity: Identity,
    /// Who makes the container's cgroup.
    #[serde(default)]
    pub cgroup_driver: CgroupDriver,
    /// Pipes or a terminal.
    pub stdio: Stdio,
    /// Where the output is kept.
    pub log: LogConfig,
    /// The container's folder: `monitor.json`, `exit.json` and `execs/` are written here.
    pub container_dir: PathBuf,
    /// The socket on which the monitor listens for the next daemon; made with mode 0600.
    pub socket: PathBuf,
    /// The network namespace to join, instead of the one the spec names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_namespace: Option<FdIndex>,
    /// The user namespace to join; it has the spec's mappings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_namespace: Option<FdIndex>,
    /// Clients that attached before the start; they miss no byte.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attaches: Vec<Attach>,
    /// Ports of the host whose calls by TCP the monitor passes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<Relay>,
    /// Ports of the host whose datagrams the monitor passes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub datagram_relays: Vec<Relay>,
    /// Who runs the container.
    #[serde(default)]
    pub isolation: Isolation,
}

/// A port of the host that the kernel cannot translate: the monitor passes on what comes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relay {
    /// A socket that never blocks: one that listens, or for datagrams an IPv6 one that is bound.
    pub listener: FdIndex,
    /// Where it goes.
    pub target: std::net::SocketAddr,
}

/// How a root file system is put together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rootfs {
    /// An overlay, mounted detached: it never appears in the host's mount table.
    Overlay {
        /// Read-only layers, topmost first.
        lower: Vec<PathBuf>,
        /// The container's own layer.
        upper: PathBuf,
        /// overlayfs' scratch folder, on the same file system as `upper`.
        work: PathBuf,
        /// Further options of overlayfs, as `volatile`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        options: Vec<String>,
    },
    /// A folder that is the root as it is.
    Directory {
        /// The folder.
        path: PathBuf,
    },
}

/// A compiled seccomp filter: `struct sock_filter` records in this machine's byte order.
///
/// It travels as base64, which serde_json copies in one piece where an array of numbers would be parsed one by one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompProgram {
    /// Flags for `seccomp(SECCOMP_SET_MODE_FILTER, …)`.
    #[serde(default)]
    pub flags: u32,
    /// The instructions, eight bytes each.
    #[serde(with = "base64_bytes")]
    pub instructions: Vec<u8>,
}

impl std::fmt::Debug for SeccompProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SeccompProgram({} instructions, flags {:#x})", self.instructions.len() / 8, self.flags)
    }
}

/// How a process's user and groups are found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Identity {
    /// `process.user` has the numbers, as the runtime specification says.
    #[default]
    Numbers,
    /// `process.user.username` has Docker's form (`name`, `uid`, `name:group`, …), looked up in the container's own
    /// `/etc/passwd` and `/etc/group`. Empty means user and group 0.
    Lookup {
        /// Further groups, by name or number.
        groups: Vec<String>,
    },
}

/// Who makes and removes cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupDriver {
    /// The runtime, through the cgroup file systems.
    #[default]
    Files,
    /// systemd, as a transient scope.
    Systemd,
}

/// A process's standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stdio {
    /// One pipe per stream.
    Pipes {
        /// What the process finds at its standard input.
        stdin: StdinMode,
    },
    /// A pseudo-terminal for all three.
    Terminal {
        /// Whether clients may type.
        stdin: StdinMode,
        /// The size before the first [`Request::Resize`](crate::Request::Resize).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<WindowSize>,
    },
}

/// What a process finds at its standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StdinMode {
    /// `/dev/null`; on a terminal: nobody types.
    Null,
    /// Open until [`Request::CloseStdin`](crate::Request::CloseStdin); clients come and go. One that ends its input stays for
    /// the output, but leaves a terminal, as Docker has it.
    Open,
    /// Open until the first client that was attached to it ends its input (Docker's `StdinOnce`, and every exec).
    Once,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// Where the output is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogConfig {
    /// Nowhere: attached clients see it, then it is gone.
    None,
    /// Docker's `json-file`.
    JsonFile(JsonFile),
}

/// The options of the `json-file` log driver, parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JsonFile {
    /// The live file, `…/<id>-json.log`. Rotated ones are `<path>.1`, `<path>.2`, … or `<path>.1.gz`, ….
    pub path: PathBuf,
    /// Rotate when the live file would grow beyond this; `None` never rotates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size_bytes: Option<u64>,
    /// How many files are kept in all, the live one among them; at least 1.
    pub max_files: u32,
    /// What becomes of rotated files.
    pub rotated: Rotated,
    /// A ready-made JSON object, written as `"attrs"` into every line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attrs: Option<String>,
    /// What happens when the disk is slower than the container.
    #[serde(default)]
    pub delivery: Delivery,
}

impl JsonFile {
    /// Rotation is on unless somebody turns it off: 5 files of 20 MiB, compressed.
    pub const DEFAULT_MAX_SIZE_BYTES: u64 = 20 * 1024 * 1024;
    /// How many files are kept by default.
    pub const DEFAULT_MAX_FILES: u32 = 5;
    /// `max-buffer-size` of the non-blocking mode when it is not given: Docker's 1 MiB.
    pub const DEFAULT_BUFFER_BYTES: u64 = 1024 * 1024;

    /// The defaults for a log at `path`.
    pub fn at(path: PathBuf) -> JsonFile {
        JsonFile {
            path,
            max_size_bytes: Some(JsonFile::DEFAULT_MAX_SIZE_BYTES),
            max_files: JsonFile::DEFAULT_MAX_FILES,
            rotated: Rotated::Compressed,
            attrs: None,
            delivery: Delivery::Blocking,
        }
    }
}

/// What becomes of rotated log files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rotated {
    /// They stay as they are.
    Plain,
    /// They are compressed with gzip, beside the container's work.
    Compressed,
}

/// What happens when the log is slower than the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivery {
    /// The container waits.
    #[default]
    Blocking,
    /// What does not fit is dropped, the newest first, and counted.
    NonBlocking {
        /// `max-buffer-size`: how much may wait.
        buffer_bytes: u64,
    },
}

/// Who runs the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Isolation {
    /// The monitor itself, with the runtime library.
    #[default]
    Native,
    /// Another OCI runtime, started as a program: `create`, `start`, `kill`, `exec`, `delete`.
    Program {
        /// The program.
        path: PathBuf,
        /// Its global arguments, before the command.
        args: Vec<String>,
        /// Its `--root`.
        state_dir: PathBuf,
        /// Where the bundle (`config.json`, `rootfs`) is made; removed at the end.
        bundle: PathBuf,
    },
}

/// Connects a client to a process's streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The daemon's name for this attachment, told again when it ends.
    pub id: AttachId,
    /// Whose streams; ignored in [`Launch`] and [`Exec`](crate::Exec), where it can only be that process.
    #[serde(default)]
    pub target: Target,
    /// The client's socket (or one end of a socket pair) among the frame's descriptors.
    pub socket: FdIndex,
    /// Which streams.
    pub streams: Streams,
    /// How output is written to the socket.
    pub framing: Framing,
    /// Keys that end the attachment; empty for none. Docker looks for them on terminals only.
    #[serde(default, skip_serializing_if = "DetachKeys::is_empty")]
    pub detach_keys: DetachKeys,
    /// Bytes that the client sent behind its request header: they are input.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "base64_bytes")]
    pub early_input: Vec<u8>,
}

/// Which streams a client takes part in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// The client's bytes go to the process.
    pub stdin: bool,
    /// The process's standard output (and everything on a terminal) goes to the client.
    pub stdout: bool,
    /// The process's standard error goes to the client.
    pub stderr: bool,
}

impl Streams {
    /// All three.
    pub const ALL: Streams = Streams { stdin: true, stdout: true, stderr: true };
    /// Output only.
    pub const OUTPUT: Streams = Streams { stdin: false, stdout: true, stderr: true };
}

/// How output is written to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Framing {
    /// Bytes as they come.
    Raw,
    /// Docker's eight-byte headers: `[1 stdout | 2 stderr, 0, 0, 0, length u32 big-endian]`.
    Multiplexed,
}

/// Bytes as a base64 string.
mod base64_bytes {
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a base64 string")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
                decode(text.as_bytes()).ok_or_else(|| E::custom("not base64"))
            }
        }
        deserializer.deserialize_str(Text)
    }

    pub(super) fn encode(bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
        for chunk in bytes.chunks(3) {
            let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            for place in 0..4 {
                let sextet = (group >> (18 - 6 * place)) & 63;
                text.push(if place <= chunk.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
            }
        }
        text
    }

    pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
        if !text.len().is_multiple_of(4) {
            return None;
        }
        let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
        for (index, quad) in text.chunks(4).enumerate() {
            let last = (index + 1) * 4 == text.len();
            let padding = quad.iter().rev().take_while(|byte| **byte == b'=').count();
            if padding > 2 || (padding > 0 && !last) {
                return None;
            }
            let mut group = 0u32;
            for byte in &quad[..4 - padding] {
                group = group << 6 | sextet(*byte)?;
            }
            group <<= 6 * padding;
            bytes.extend_from_slice(&group.to_be_bytes()[1..4 - padding]);
        }
        Some(bytes)
    }

    fn sextet(byte: u8) -> Option<u32> {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        Some(u32::from(value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn base64_is_the_usual_one() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64_bytes::encode(bytes.as_bytes()), text);
            assert_eq!(base64_bytes::decode(text.as_bytes()).as_deref(), Some(bytes.as_bytes()));
        }
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for text in ["Z", "Zg=", "Zg==Zg==", "====", "Z===", "Zm9%"] {
            assert_eq!(base64_bytes::decode(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn base64_comes_back(bytes: Vec<u8>) {
            prop_assert_eq!(base64_bytes::decode(base64_bytes::encode(&bytes).as_bytes()), Some(bytes));
        }
    }
}

//! Files between a client's folder and here: descriptions first, then only the bytes that are missing on the other side.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use archive::trail::Trail;
use bytes::Bytes;
use engine::BuiltTree;
use engine::model::build::{DockerfileText, FolderWanted, HostError, Receiver, SentFile, SentKind};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat as UnixStat};
use tokio::sync::mpsc;

use crate::grpc::{Code, Sender, Status};
use crate::messages::BytesMessage;
use crate::messages::session::{Packet, PacketKind, Stat};
use crate::session::Session;

const RECEIVE: &str = "/moby.filesync.v1.FileSync/DiffCopy";
const SEND: &str = "/moby.filesync.v1.FileSend/DiffCopy";
/// The header that names one of several exporters.
const EXPORTER_ID: &str = "buildkit-attachable-exporter-id";
/// Batches of packets between the connection and the disk.
const BATCHES: usize = 32;
/// Bytes of a file in one packet.
const PIECE: usize = 32 << 10;
/// The largest Dockerfile, its ignore file included.
const TEXT_BYTES_MAX: usize = 4 << 20;
/// A Dockerfile comes with the directories above it and with links to it.
const SMALL_FILES_MAX: u32 = 1000;

/// Go's file modes.
mod go_mode {
    pub(super) const DIR: u32 = 1 << 31;
    pub(super) const SYMLINK: u32 = 1 << 27;
    pub(super) const DEVICE: u32 = 1 << 26;
    pub(super) const NAMED_PIPE: u32 = 1 << 25;
    pub(super) const SOCKET: u32 = 1 << 24;
    pub(super) const SETUID: u32 = 1 << 23;
    pub(super) const SETGID: u32 = 1 << 22;
    pub(super) const CHAR_DEVICE: u32 = 1 << 21;
    pub(super) const STICKY: u32 = 1 << 20;
    pub(super) const IRREGULAR: u32 = 1 << 19;
    pub(super) const TYPE: u32 = DIR | SYMLINK | DEVICE | NAMED_PIPE | SOCKET | CHAR_DEVICE | IRREGULAR;
}

/// Permissions as Unix has them.
fn unix_mode(mode: u32) -> u32 {
    let bit = |go: u32, unix: u32| if mode & go != 0 { unix } else { 0 };
    mode & 0o777 | bit(go_mode::SETUID, 0o4000) | bit(go_mode::SETGID, 0o2000) | bit(go_mode::STICKY, 0o1000)
}

fn go_mode_of(stat: &UnixStat) -> u32 {
    let bit = |unix: u32, go: u32| if stat.st_mode & unix != 0 { go } else { 0 };
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => go_mode::DIR,
        FileType::Symlink => go_mode::SYMLINK,
        FileType::BlockDevice => go_mode::DEVICE,
        FileType::CharacterDevice => go_mode::DEVICE | go_mode::CHAR_DEVICE,
        FileType::Fifo => go_mode::NAMED_PIPE,
        FileType::Socket => go_mode::SOCKET,
        _ => 0,
    };
    let bits = bit(0o4000, go_mode::SETUID) | bit(0o2000, go_mode::SETGID) | bit(0o1000, go_mode::STICKY);
    stat.st_mode & 0o777 | kind | bits
}

/// What a file is, as far as its inode says.
pub(crate) fn stat_of(path: &str, stat: &UnixStat) -> Stat {
    Stat {
        path: path.to_owned(),
        mode: go_mode_of(stat),
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: stat.st_size,
        modified_ns: stat.st_mtime * 1_000_000_000 + stat.st_mtime_nsec as i64,
        ..Stat::default()
    }
}

/// A description, checked: what leaves the folder is refused. Sockets are nothing that an image can have.
fn sent_file(stat: Stat) -> Result<Option<SentFile>, HostError> {
    let path = clean(&stat.path)?;
    let kind = match stat.mode & go_mode::TYPE {
        0 if !stat.linkname.is_empty() => SentKind::HardLink(clean(&stat.linkname)?),
        0 => SentKind::File(u64::try_from(stat.size).map_err(|_| HostError(format!("{path} has a negative size")))?),
        go_mode::DIR => SentKind::Directory,
        go_mode::SYMLINK => SentKind::Symlink(stat.linkname),
        go_mode::NAMED_PIPE => SentKind::Fifo,
        mode if mode & go_mode::DEVICE != 0 => {
            let number = |number: i64| u32::try_from(number).map_err(|_| HostError(format!("{path} is no device")));
            let (major, minor) = (number(stat.devmajor)?, number(stat.devminor)?);
            match mode & go_mode::CHAR_DEVICE {
                0 => SentKind::BlockDevice(major, minor),
                _ => SentKind::CharDevice(major, minor),
            }
        }
        _ => return Ok(None),
    };
    // As with BuildKit, a client's files bring no capabilities along.
    let xattrs = stat.xattrs.into_iter().filter(|(name, _)| !name.starts_with("security."));
    let mut xattrs: Vec<(String, Vec<u8>)> = xattrs.collect();
    xattrs.sort();
    let (mode, modified_ns) = (unix_mode(stat.mode), stat.modified_ns);
    Ok(Some(SentFile { path, kind, mode, uid: stat.uid, gid: stat.gid, modified_ns, xattrs }))
}

fn clean(path: &str) -> Result<String, HostError> {
    let relative = path.trim_start_matches('/');
    let odd = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
    if relative.split('/').any(odd) {
        return Err(HostError(format!("the client sent the file name {path:?}")));
    }
    Ok(relative.to_owned())
}

/// Headers; what is no plain text is encoded, and said to be.
fn metadata(values: &[(&'static str, Vec<String>)]) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    for (name, values) in values {
        let plain = values.iter().all(|value| value.chars().all(|c| matches!(c, ' '..='~')));
        for value in values {
            headers.push((*name, if plain { value.clone() } else { query_escaped(value) }));
        }
        if !plain {
            headers.push((encoded_name(name), "1".to_owned()));
        }
    }
    headers
}

fn encoded_name(name: &str) -> &'static str {
    match name {
        "exclude-patterns" => "exclude-patterns-encoded",
        "include-patterns" => "include-patterns-encoded",
        "followpaths" => "followpaths-encoded",
        _ => "dir-name-encoded",
    }
}

fn query_escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// The packets of a client's folder, as they come.
struct Incoming {
    sender: Sender,
    batches: mpsc::Receiver<Result<Vec<Packet>, Status>>,
}

impl Incoming {
    fn open(session: &Session, values: &[(&'static str, Vec<String>)]) -> Result<Incoming, HostError> {
        if !session.supports(RECEIVE) {
            return Err(HostError("the client serves no folders".to_owned()));
        }
        let headers = metadata(values);
        let (sender, mut reader) = session.channel().stream(RECEIVE, &headers).map_err(told)?;
        let (into, batches) = mpsc::channel(BATCHES);
        session.runtime.spawn(async move {
            loop {
                let batch = reader.some::<Packet>().await;
                let last = match &batch {
                    Ok(packets) if packets.is_empty() => {
                        if let Err(status) = reader.outcome() {
                            let _ = into.send(Err(status)).await;
                        }
                        return;
                    }
                    batch => batch.is_err(),
                };
                if into.send(batch).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Incoming { sender, batches })
    }

    fn next(&mut self) -> Result<Option<Vec<Packet>>, HostError> {
        self.batches.blocking_recv().transpose().map_err(told)
    }

    fn send(&self, kind: PacketKind, id: u32) {
        let packet = Packet { kind: kind as i32, id, ..Packet::default() };
        // Who does not read any more has said why, or will.
        let _ = self.sender.send_blocking(&packet);
    }
}

/// Takes what is wanted of a client's folder into `receiver`.
pub(crate) fn receive(
    session: &Session,
    wanted: &FolderWanted<'_>,
    receiver: &mut Receiver<'_>,
    tell: &mut dyn FnMut(u64),
) -> Result<(), HostError> {
    let mut values = vec![("dir-name", vec![wanted.name.to_owned()])];
    if !wanted.excluded.is_empty() {
        values.push(("exclude-patterns", wanted.excluded.to_vec()));
    }
    if let Some(paths) = wanted.paths {
        values.push(("followpaths", paths.to_vec()));
    }
    let mut incoming = Incoming::open(session, &values)?;
    // Requests wait in a list: sending must never keep us from reading what the client has sent.
    let mut requests = Requests::new(session, incoming.sender.clone());
    let mut coming = Coming::new(receiver);
    let mut told_bytes = 0;
    while let Some(packets) = incoming.next()? {
        for packet in packets {
            match coming.take(packet)? {
                Answer::Nothing => {}
                Answer::Wanted(id) => requests.push(id),
                Answer::Complete => incoming.send(PacketKind::Fin, 0),
                Answer::Over => return Ok(()),
            }
        }
        if coming.receiver.received_bytes() > told_bytes + TELL_BYTES {
            told_bytes = coming.receiver.received_bytes();
            tell(told_bytes);
        }
    }
    Err(HostError("the client left while it sent its folder".to_owned()))
}

/// A client's folder while it comes.
pub(crate) struct Coming<'a, 'b> {
    receiver: &'a mut Receiver<'b>,
    stage: Stage,
}

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Describing,
    /// All files are described.
    Sending,
    /// All that was asked for has come, and the client knows that.
    Ending,
}

/// What a packet is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Nothing,
    /// The bytes of the file of this number are wanted.
    Wanted(u32),
    /// All that was wanted is here.
    Complete,
    /// Nothing: the client has said that it is done.
    Over,
}

impl<'a, 'b> Coming<'a, 'b> {
    pub(crate) fn new(receiver: &'a mut Receiver<'b>) -> Self {
        Coming { receiver, stage: Stage::Describing }
    }

    /// Takes what the client has sent.
    pub(crate) fn take(&mut self, packet: Packet) -> Result<Answer, HostError> {
        match (PacketKind::try_from(packet.kind), self.stage) {
            (Ok(PacketKind::Stat), Stage::Describing) => match packet.stat {
                None => self.stage = Stage::Sending,
                Some(stat) => match sent_file(stat)? {
                    Some(file) => {
                        let wanted = self.receiver.describe(file).map_err(failed)?;
                        return Ok(wanted.map_or(Answer::Nothing, Answer::Wanted));
                    }
                    None => self.receiver.skip(),
                },
            },
            (Ok(PacketKind::Data), _) => self.receiver.bytes(packet.id, &packet.data).map_err(failed)?,
            (Ok(PacketKind::Error), _) => return Err(HostError(String::from_utf8_lossy(&packet.data).into_owned())),
            (Ok(PacketKind::Fin), _) => return Ok(Answer::Over),
            _ => return Err(HostError("the client sent what no client sends".to_owned())),
        }
        if self.stage == Stage::Sending && self.receiver.is_complete() {
            self.stage = Stage::Ending;
            return Ok(Answer::Complete);
        }
        Ok(Answer::Nothing)
    }
}

/// How much comes before it is told of.
const TELL_BYTES: u64 = 1 << 20;

/// Requests for files, sent by a task of their own.
struct Requests {
    queue: mpsc::UnboundedSender<u32>,
}

impl Requests {
    fn new(session: &Session, sender: Sender) -> Requests {
        let (queue, mut wanted) = mpsc::unbounded_channel();
        session.runtime.spawn(async move {
            while let Some(id) = wanted.recv().await {
                let packet = Packet { kind: PacketKind::Request as i32, id, ..Packet::default() };
                if !sender.send(&packet).await {
                    return;
                }
            }
        });
        Requests { queue }
    }

    fn push(&mut self, id: u32) {
        let _ = self.queue.send(id);
    }
}

/// The Dockerfile and its ignore file: from the folder of the one, else of the context.
pub(crate) fn dockerfile(session: &Session, path: &str) -> Result<Option<DockerfileText>, HostError> {
    let own = format!("{path}.dockerignore");
    let mut texts = small_files(session, "dockerfile", &[path.to_owned(), own.clone()])?;
    let Some(text) = texts.remove(path) else { return Ok(None) };
    let ignore = match texts.remove(&own) {
        Some(ignore) => Some(ignore),
        None => small_files(session, "context", &[IGNORE.to_owned()]).unwrap_or_default().remove(IGNORE),
    };
    Ok(Some(DockerfileText { text, ignore }))
}

const IGNORE: &str = ".dockerignore";

/// Small files of a folder, by their paths; symbolic links among them are followed inside the folder.
fn small_files(session: &Session, folder: &str, paths: &[String]) -> Result<HashMap<String, String>, HostError> {
    let values = [("dir-name", vec![folder.to_owned()]), ("followpaths", paths.to_vec())];
    let mut incoming = Incoming::open(session, &values)?;
    let (mut next, mut names, mut links) = (0, HashMap::new(), HashMap::new());
    let (mut bytes, mut open, mut text_bytes) = (HashMap::<u32, Vec<u8>>::new(), 0, 0);
    let (mut described, mut finished) = (false, false);
    while let Some(packets) = incoming.next()? {
        for packet in packets {
            match PacketKind::try_from(packet.kind) {
                Ok(PacketKind::Stat) => match packet.stat {
                    None => described = true,
                    Some(stat) => {
                        let id = next;
                        next += 1;
                        if next > SMALL_FILES_MAX {
                            return Err(HostError("the client sent files that nobody asked for".to_owned()));
                        }
                        let path = clean(&stat.path)?;
                        match stat.mode & go_mode::TYPE {
                            0 => {
                                names.insert(path, id);
                                open += 1;
                                incoming.send(PacketKind::Request, id);
                            }
                            go_mode::SYMLINK => drop(links.insert(path, stat.linkname)),
                            _ => {}
                        }
                    }
                },
                Ok(PacketKind::Data) if packet.data.is_empty() => open -= 1,
                Ok(PacketKind::Data) => {
                    text_bytes += packet.data.len();
                    if text_bytes > TEXT_BYTES_MAX {
                        return Err(HostError("the Dockerfile is too large".to_owned()));
                    }
                    bytes.entry(packet.id).or_default().extend_from_slice(&packet.data);
                }
                Ok(PacketKind::Error) => return Err(HostError(String::from_utf8_lossy(&packet.data).into_owned())),
                Ok(PacketKind::Fin) => return Ok(texts(paths, &names, &links, &bytes)),
                _ => {}
            }
        }
        if described && open <= 0 && !finished {
            finished = true;
            incoming.send(PacketKind::Fin, 0);
        }
    }
    Err(HostError("the client left while it sent the Dockerfile".to_owned()))
}

/// Linux follows at most so many symbolic links in one name.
const LINKS_MAX: usize = 40;

fn texts(
    paths: &[String],
    names: &HashMap<String, u32>,
    links: &HashMap<String, String>,
    bytes: &HashMap<u32, Vec<u8>>,
) -> HashMap<String, String> {
    let mut texts = HashMap::new();
    for path in paths {
        let mut at = path.trim_start_matches('/').to_owned();
        for _ in 0..LINKS_MAX {
            let Some(target) = links.get(&at) else { break };
            let folder = at.rsplit_once('/').map_or("", |(folder, _)| folder);
            let whole = if target.starts_with('/') { target.clone() } else { format!("{folder}/{target}") };
            at = normal(&whole);
        }
        if let Some(id) = names.get(&at) {
            let text = bytes.get(id).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            texts.insert(path.clone(), text.unwrap_or_default());
        }
    }
    texts
}

/// A path without `.` and `..`, which stop at the top.
fn normal(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Sends one stream of bytes to the client: an archive.
pub(crate) fn send_bytes(
    session: &Session,
    exporter: usize,
    write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> Result<(), HostError> {
    let headers = [(EXPORTER_ID, exporter.to_string())];
    let (sender, mut reader) = session.channel().stream(SEND, &headers).map_err(told)?;
    let mut output = io::BufWriter::with_capacity(1 << 20, Chunks(sender));
    let written = write(&mut output).and_then(|()| io::Write::flush(&mut output));
    // The end of our stream is the end of the archive.
    drop(output);
    let ended = session.runtime.block_on(async {
        while reader.next::<BytesMessage>().await?.is_some() {}
        reader.outcome()
    });
    ended.map_err(told)?;
    written.map_err(failed)
}

struct Chunks(Sender);

impl io::Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let message = BytesMessage { data: Bytes::copy_from_slice(bytes) };
        if self.0.send_blocking(&message) { Ok(bytes.len()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends trees of files into a folder of the client, each into its folder there.
pub(crate) fn send_trees(session: &Session, exporter: usize, trees: &[BuiltTree]) -> Result<(), HostError> {
    if trees.iter().all(|tree| !tree.folder().is_empty()) {
        return send_together(session, exporter, trees);
    }
    // A client wants names in their order, so trees that become one are sent one after the other.
    trees.iter().try_for_each(|tree| send_together(session, exporter, std::slice::from_ref(tree)))
}

fn send_together(session: &Session, exporter: usize, trees: &[BuiltTree]) -> Result<(), HostError> {
    let headers = [(EXPORTER_ID, exporter.to_string())];
    let (sender, mut reader) = session.channel().stream(SEND, &headers).map_err(told)?;
    let mut describer =
        Describer { sender: sender.clone(), trees, files: Vec::new(), linked: HashMap::new(), next: 0, tree: 0 };
    for (number, tree) in trees.iter().enumerate() {
        describer.tree = number;
        describer.describe_tree(tree).map_err(failed)?;
    }
    sender.send_blocking(&Packet { kind: PacketKind::Stat as i32, ..Packet::default() });
    loop {
        let packets = session.runtime.block_on(reader.some::<Packet>()).map_err(told)?;
        if packets.is_empty() {
            return reader.outcome().map_err(told);
        }
        for packet in packets {
            match PacketKind::try_from(packet.kind) {
                Ok(PacketKind::Request) => describer.send(packet.id).map_err(failed)?,
                Ok(PacketKind::Error) => return Err(HostError(String::from_utf8_lossy(&packet.data).into_owned())),
                Ok(PacketKind::Fin) => {
                    sender.send_blocking(&Packet { kind: PacketKind::Fin as i32, ..Packet::default() });
                    drop(sender);
                    drop(describer);
                    let ended = session.runtime.block_on(async {
                        while reader.next::<Packet>().await?.is_some() {}
                        reader.outcome()
                    });
                    return ended.map_err(told);
                }
                _ => {}
            }
        }
    }
}

/// Describes files to a client, and sends those that it wants.
struct Describer<'a> {
    sender: Sender,
    trees: &'a [BuiltTree],
    /// Regular files by their number.
    files: Vec<(u32, Source)>,
    linked: HashMap<(u64, u64), String>,
    next: u32,
    /// The tree that is described.
    tree: usize,
}

/// Where the bytes of a file come from: which tree, and then...
enum Source {
    /// A path with the tree's folder.
    File(usize, String),
    /// Which of the files beside what is in its root.
    Beside(usize, usize),
}

impl Describer<'_> {
    fn describe_tree(&mut self, tree: &BuiltTree) -> io::Result<()> {
        // A root that only names its directory cannot be listed.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listed = rustix::fs::openat(tree.root(), ".", flags, Mode::empty())?;
        self.linked.clear();
        let folder = tree.folder();
        if !folder.is_empty() {
            let stat = rustix::fs::fstat(&listed)?;
            self.next += 1;
            self.say(Stat { size: 0, ..stat_of(folder, &stat) })?;
        }
        self.directory(listed, folder, tree.statements())
    }

    fn say(&self, stat: Stat) -> io::Result<()> {
        let packet = Packet { stat: Some(stat), ..Packet::default() };
        if self.sender.send_blocking(&packet) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    /// Describes what is below a directory, and the files beside that, in the order of their names.
    fn directory(&mut self, root: OwnedFd, folder: &str, beside: &[(String, Vec<u8>)]) -> io::Result<()> {
        let names = sorted_names(root.as_fd(), beside)?;
        let mut trail = Trail::new(root, (names, folder.to_owned()));
        while let Some((directory, (names, above))) = trail.lowest() {
            let Some((name, number)) = names.next() else {
                trail.leave()?;
                continue;
            };
            let path = if above.is_empty() { name.clone() } else { format!("{above}/{name}") };
            if let Some(number) = number {
                self.files.push((self.next, Source::Beside(self.tree, number)));
                self.next += 1;
                let size = beside[number].1.len() as i64;
                self.say(Stat { path, mode: 0o600, size, ..Stat::default() })?;
                continue;
            }
            let stat = rustix::fs::statat(directory, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)?;
            let described = self.describe(directory, &name, &path, &stat)?;
            self.say(described)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let below = rustix::fs::openat(directory, name.as_str(), flags, Mode::empty())?;
                let names = sorted_names(below.as_fd(), &[])?;
                trail.enter(below, (names, path))?;
            }
        }
        Ok(())
    }

    fn describe(&mut self, directory: BorrowedFd<'_>, name: &str, path: &str, stat: &UnixStat) -> io::Result<Stat> {
        let id = self.next;
        self.next += 1;
        let mut described = Stat { size: 0, ..stat_of(path, stat) };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let first = self.linked.get(&(stat.st_dev, stat.st_ino)).filter(|_| stat.st_nlink > 1);
                match first {
                    Some(first) => described.linkname.clone_from(first),
                    None => drop(self.linked.insert((stat.st_dev, stat.st_ino), path.to_owned())),
                }
                described.size = stat.st_size;
                self.files.push((id, Source::File(self.tree, path.to_owned())));
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
                described.linkname = target.to_string_lossy().into_owned();
            }
            FileType::BlockDevice | FileType::CharacterDevice => {
                described.devmajor = i64::from(rustix::fs::major(stat.st_rdev));
                described.devminor = i64::from(rustix::fs::minor(stat.st_rdev));
            }
            _ => {}
        }
        Ok(described)
    }

    fn send(&self, id: u32) -> io::Result<()> {
        let at = self.files.binary_search_by_key(&id, |(id, ..)| *id).map_err(|_| io::ErrorKind::NotFound)?;
        match &self.files[at].1 {
            Source::File(number, path) => {
                let tree = &self.trees[*number];
                let path = path.strip_prefix(tree.folder()).unwrap_or(path).trim_start_matches('/');
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                let file = rustix::fs::openat2(tree.root(), path, flags, Mode::empty(), resolve)?;
                self.pieces(id, &mut std::fs::File::from(file))
            }
            Source::Beside(number, beside) => {
                self.pieces(id, &mut self.trees[*number].statements()[*beside].1.as_slice())
            }
        }
    }

    /// Sends a file's bytes and, with none, its end.
    fn pieces(&self, id: u32, bytes: &mut dyn io::Read) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        loop {
            let length = bytes.read(&mut buffer)?;
            let data = Bytes::copy_from_slice(&buffer[..length]);
            let packet = Packet { kind: PacketKind::Data as i32, id, data, ..Packet::default() };
            if !self.sender.send_blocking(&packet) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if length == 0 {
                return Ok(());
            }
        }
    }
}

/// Names in a directory, or the number of a file beside them.
type Names = std::vec::IntoIter<(String, Option<usize>)>;

fn sorted_names(directory: BorrowedFd<'_>, beside: &[(String, Vec<u8>)]) -> io::Result<Names> {
    let mut names: Vec<(String, Option<usize>)> =
        beside.iter().enumerate().map(|(number, (name, _))| (name.clone(), Some(number))).collect();
    for entry in Dir::read_from(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push((name, None));
        }
    }
    names.sort();
    Ok(names.into_iter())
}

fn told(status: Status) -> HostError {
    if status.code == Code::Unimplemented {
        return HostError(format!("the client cannot do that: {}", status.message));
    }
    HostError(status.message)
}

fn failed(error: impl std::error::Error + 'static) -> HostError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    HostError(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for path in ["../x", "a/../../b", "/..", "a//b", "", ".", "a/./b"] {
            assert!(clean(path).is_err(), "{path}");
        }
        assert_eq!(clean("/a/b").unwrap(), "a/b");
        let link = Stat { path: "a".into(), linkname: "../b".into(), ..Stat::default() };
        assert!(sent_file(link).is_err());
    }

    #[test]
    fn modes_are_gos() {
        let stat = |mode| Stat { path: "x".into(), mode, ..Stat::default() };
        let file = sent_file(stat(go_mode::SETUID | 0o755)).unwrap().unwrap();
        assert_eq!((file.kind, file.mode), (SentKind::File(0), 0o4755));
        let directory = sent_file(stat(go_mode::DIR | go_mode::STICKY | 0o777)).unwrap().unwrap();
        assert_eq!((directory.kind, directory.mode), (SentKind::Directory, 0o1777));
        assert!(sent_file(stat(go_mode::SOCKET | 0o777)).unwrap().is_none());
    }

    #[test]
    fn what_is_no_plain_text_is_encoded() {
        let headers = metadata(&[("exclude-patterns", vec!["a".into(), "ä %".into()]), ("dir-name", vec!["x".into()])]);
        assert_eq!(
            headers,
            [
                ("exclude-patterns", "a".to_owned()),
                ("exclude-patterns", "%C3%A4%20%25".to_owned()),
                ("exclude-patterns-encoded", "1".to_owned()),
                ("dir-name", "x".to_owned())
            ]
        );
    }
}

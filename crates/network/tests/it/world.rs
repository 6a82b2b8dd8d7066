//! Hosts, outsides, and speaking between them.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use netlink::address::LinkAddress;
use netlink::link::{self, Change, NewVeth, Power, Target};
use netlink::namespace;
use netlink::route::Route;
use netlink::{Family, Socket};
use network::{Networks, Options};

/// Long enough for a packet between two namespaces of a busy machine; short enough to wait for one that does not come.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A network namespace that stands for a machine.
pub(crate) struct Machine {
    pub(crate) namespace: OwnedFd,
}

impl Machine {
    /// A machine with loopback up.
    pub(crate) fn new() -> Self {
        let machine = Self { namespace: namespace::create().unwrap() };
        machine.configure(&mut [link::change(Target::Name("lo"), &up())]);
        machine
    }

    /// Runs `work` on it.
    pub(crate) fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        within(self.namespace.as_fd(), work)
    }

    pub(crate) fn socket(&self) -> Socket {
        self.run(|| Socket::open(Family::Route).unwrap())
    }

    pub(crate) fn configure(&self, requests: &mut [netlink::Request]) {
        self.socket().execute(requests).unwrap();
    }

    /// A cable between two machines, with an address of 198.51.100.0/24-like networks at each end.
    pub(crate) fn connect(
        &self,
        name: &str,
        address: [u8; 4],
        other: &Machine,
        other_name: &str,
        other_address: [u8; 4],
    ) {
        let pair = NewVeth {
            name,
            mac: [2, address[0], address[1], address[2], address[3], 1],
            mtu: None,
            peer: other_name,
            peer_namespace: other.namespace.as_fd(),
            peer_group: None,
        };
        self.configure(&mut [link::create_veth(&pair)]);
        self.set_up(name, address);
        other.set_up(other_name, other_address);
    }

    fn set_up(&self, name: &str, address: [u8; 4]) {
        let index = self.socket().link_by_name(name).unwrap().unwrap().index;
        let address = LinkAddress { link: index, address: Ipv4Addr::from(address).into(), prefix: 24 };
        self.configure(&mut [address.add(), link::change(Target::Index(index), &up())]);
    }

    pub(crate) fn add_route(&self, destination: [u8; 4], prefix: u8, gateway: [u8; 4]) {
        let mut socket = self.socket();
        let gateway: IpAddr = Ipv4Addr::from(gateway).into();
        let route = Route { destination: Ipv4Addr::from(destination).into(), prefix, ..Route::default_by(gateway, 0) };
        socket.execute(&mut [Route { link: None, ..route }.add()]).unwrap();
    }

    pub(crate) fn link_names(&self) -> Vec<String> {
        self.socket().links().unwrap().into_iter().map(|link| link.name).collect()
    }

    /// What the `nft` program says or does here.
    pub(crate) fn nft(&self, arguments: &[&str]) -> String {
        let output = self.run(|| Command::new("nft").args(arguments).output().expect("nft is installed"));
        assert!(output.status.success(), "nft {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn setting(&self, path: &str) -> String {
        self.run(|| std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap().trim().to_owned())
    }
}

fn up() -> Change<'static> {
    Change { power: Some(Power::Up), ..Change::default() }
}

/// Runs `work` in a namespace.
pub(crate) fn within<R: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> R + Send) -> R {
    namespace::within(namespace, work).unwrap()
}

/// A host with an engine on it.
pub(crate) struct Host {
    pub(crate) machine: Machine,
    pub(crate) run: tempfile::TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self { machine: Machine::new(), run: tempfile::tempdir().unwrap() }
    }

    /// A host whose default route leads to a machine outside: 198.51.100.1 here, 198.51.100.2 there.
    pub(crate) fn with_outside() -> (Self, Machine) {
        let (host, outside) = (Self::new(), Machine::new());
        host.machine.connect("up0", [198, 51, 100, 1], &outside, "eth0", [198, 51, 100, 2]);
        host.machine.add_route([0, 0, 0, 0], 0, [198, 51, 100, 2]);
        (host, outside)
    }

    pub(crate) fn options(&self) -> Options {
        Options { ready: 2, ..Options::new("conex", self.run.path().to_owned()) }
    }

    pub(crate) fn open(&self) -> Networks {
        self.machine.run(|| Networks::open(&self.options(), &[], &[]).unwrap())
    }
}

/// A TCP server that answers one connection with what it receives, and says who called.
pub(crate) fn serve_tcp(namespace: BorrowedFd<'_>, address: SocketAddr) -> Server {
    let listener = within(namespace, || TcpListener::bind(address).unwrap());
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, caller) = listener.accept().unwrap();
        let mut bytes = [0; 5];
        if stream.read_exact(&mut bytes).is_ok() {
            stream.write_all(&bytes).unwrap();
        }
        caller
    });
    Server { address, thread }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    thread: std::thread::JoinHandle<SocketAddr>,
}

impl Server {
    /// Who called, once the one caller has.
    pub(crate) fn caller(self) -> SocketAddr {
        self.thread.join().unwrap()
    }
}

/// Calls a TCP server and checks that it answers with the same bytes.
pub(crate) fn call_tcp(namespace: BorrowedFd<'_>, address: SocketAddr) -> std::io::Result<()> {
    within(namespace, || {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"hello")?;
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes)?;
        assert_eq!(&bytes, b"hello");
        Ok(())
    })
}

/// Sends a datagram from one namespace to another and back.
pub(crate) fn echo_udp(
    client: BorrowedFd<'_>,
    server: BorrowedFd<'_>,
    server_address: Ipv4Addr,
) -> std::io::Result<()> {
    let server = within(server, || UdpSocket::bind((server_address, 7)).unwrap());
    server.set_read_timeout(Some(PATIENCE))?;
    within(client, || {
        let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        client.set_read_timeout(Some(PATIENCE))?;
        client.send_to(b"ping", (server_address, 7))?;
        let mut bytes = [0; 4];
        let (_, from) = server.recv_from(&mut bytes)?;
        server.send_to(&bytes, from)?;
        client.recv_from(&mut bytes)?;
        assert_eq!(&bytes, b"ping");
        Ok(())
    })
}

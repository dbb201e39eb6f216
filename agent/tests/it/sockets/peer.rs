//! Processes that move known numbers of bytes when they are told to: this test binary again, in the role of
//! one ignored test that obeys commands from its standard input.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::fs::OFlags;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shared_model::InstanceId;
use uuid::Uuid;

/// One process. Dropped, it is killed.
pub(crate) struct Peer {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub(crate) instance_id: InstanceId,
}

impl Peer {
    /// In the namespace of the test.
    pub(crate) fn start() -> Self {
        Self::start_by(Command::new(std::env::current_exe().unwrap()))
    }

    /// In the network namespace `name`.
    pub(crate) fn start_in(name: &str) -> Self {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", name]).arg(std::env::current_exe().unwrap());
        Self::start_by(command)
    }

    fn start_by(mut command: Command) -> Self {
        let mut child = command
            .args([
                "--exact",
                "sockets::peer::obey",
                "--ignored",
                "--nocapture",
                "--test-threads=1",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut peer = Self { child, commands, answers, instance_id: InstanceId(0) };
        peer.ask("hello");
        peer.instance_id = instance_of(peer.pid());
        peer
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
    }

    pub(crate) fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "{} is gone", self.pid());
            if let Some((_, answer)) = line.trim_end().split_once('@') {
                return answer.to_owned();
            }
        }
    }

    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.tell(command);
        self.answer()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

/// A running process.
pub(crate) fn instance_of(pid: u32) -> InstanceId {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap();
    let stat = agent::procfs::pid::parse_stat(&stat).unwrap();
    InstanceId::of(Uuid::parse_str(boot_id.trim()).unwrap(), pid, stat.start_ticks)
}

/// `from` sends `bytes` over its last connection to `to`.
pub(crate) fn transfer(from: &mut Peer, to: &mut Peer, bytes: usize) {
    from.tell(&format!("send {bytes}"));
    to.ask(&format!("receive {bytes}"));
    from.answer();
}

#[derive(Default)]
struct Held {
    listener: Option<TcpListener>,
    streams: Vec<TcpStream>,
    datagrams: Option<UdpSocket>,
    files: Vec<File>,
    children: Vec<Child>,
}

#[test]
#[ignore = "not a test: the other end of some"]
fn obey() {
    let mut held = Held::default();
    raise_descriptors(MOST_CONNECTIONS + SPARE_DESCRIPTORS);
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let answer = held.obey(words[0], words.get(1).copied(), words.get(2).copied());
        println!("@{answer}");
    }
}

impl Held {
    fn obey(&mut self, command: &str, argument: Option<&str>, count: Option<&str>) -> String {
        let number = || argument.unwrap().parse::<usize>().unwrap();
        let count = || count.unwrap().parse::<usize>().unwrap();
        let text = || argument.unwrap();
        match command {
            "listen" => {
                let listener = self.listener.insert(TcpListener::bind(text()).unwrap());
                return listener.local_addr().unwrap().to_string();
            }
            "accept" => {
                let (stream, peer) = self.listener.as_ref().unwrap().accept().unwrap();
                self.streams.push(stream);
                return peer.to_string();
            }
            "accept-many" => {
                for _ in 0..number() {
                    self.streams.push(self.listener.as_ref().unwrap().accept().unwrap().0);
                }
            }
            "connect" => {
                self.streams.push(TcpStream::connect(text()).unwrap());
                return self.streams.last().unwrap().local_addr().unwrap().to_string();
            }
            "connect-many" => {
                let connect = |_| TcpStream::connect(text()).unwrap();
                self.streams.extend((0..count()).map(connect));
            }
            "send" => send(self.streams.last_mut().unwrap(), number()),
            "receive" => receive(self.streams.last_mut().unwrap(), number()),
            "receive-all" => {
                let stream = self.streams.last_mut().unwrap();
                let received = std::io::copy(stream, &mut std::io::sink()).unwrap();
                return received.to_string();
            }
            "send-on-each" => self.streams.iter_mut().for_each(|stream| send(stream, number())),
            "receive-on-each" => {
                self.streams.iter_mut().for_each(|stream| receive(stream, number()));
            }
            "close" => drop(self.streams.pop()),
            "share-with-child" => return self.share_with_child(),
            "burst" => {
                let mut stream = TcpStream::connect(text()).unwrap();
                send(&mut stream, count());
                drop(stream);
                std::process::exit(0);
            }
            "udp-bind" => {
                let socket = self.datagrams.insert(UdpSocket::bind(text()).unwrap());
                return socket.local_addr().unwrap().to_string();
            }
            "udp-connect" => self.datagrams.as_ref().unwrap().connect(text()).unwrap(),
            "udp-send" => {
                for _ in 0..count() {
                    self.datagrams.as_ref().unwrap().send(&vec![7; number()]).unwrap();
                }
            }
            "udp-receive" => {
                receive_datagrams(self.datagrams.as_ref().unwrap(), count(), number());
            }
            "give-listener" => give(text(), self.listener.as_ref().unwrap().as_fd()),
            "take-listener" => self.listener = Some(take(text()).into()),
            "give-stream" => give(text(), self.streams.last().unwrap().as_fd()),
            "take-stream" => self.streams.push(take(text()).into()),
            "open-files" => return self.open_files(number()).to_string(),
            "write-disk" => write_past_the_cache(text(), count()),
            "read-disk" => read_past_the_cache(text(), count()),
            "hello" => {}
            other => panic!("no command {other}"),
        }
        String::new()
    }
}

impl Held {
    /// A child that inherits the last connection; it ends when the other end closes it. Returns its pid.
    fn share_with_child(&mut self) -> String {
        let stream = self.streams.last().unwrap().try_clone().unwrap();
        let mut command = Command::new("cat");
        command.stdin(OwnedFd::from(stream)).stdout(Stdio::null()).stderr(Stdio::null());
        self.children.push(command.spawn().unwrap());
        self.children.last().unwrap().id().to_string()
    }

    /// As many as the machine lets a process have. Returns how many.
    fn open_files(&mut self, count: usize) -> usize {
        let limit = raise_descriptors(count as u64 + SPARE_DESCRIPTORS);
        let count = count.min(usize::try_from(limit - SPARE_DESCRIPTORS).unwrap());
        self.files.extend((0..count).map(|_| File::open("/dev/null").unwrap()));
        self.files.len()
    }
}

/// Connections that a peer is told to hold, at most.
pub(crate) const MOST_CONNECTIONS: u64 = 12_500;
/// Descriptors that a peer needs beside those it is told to open.
pub(crate) const SPARE_DESCRIPTORS: u64 = 100;

/// Raises the limit of open files to `count`, or as far as it goes; returns it.
pub(crate) fn raise_descriptors(count: u64) -> u64 {
    let before = getrlimit(Resource::Nofile);
    let (soft, hard) = (before.current.unwrap_or(u64::MAX), before.maximum.unwrap_or(u64::MAX));
    let wanted = count.max(soft);
    let all = Rlimit { current: Some(wanted), maximum: Some(wanted.max(hard)) };
    if setrlimit(Resource::Nofile, all).is_err() {
        // More than the machine's own limit needs a privilege that few containers have.
        let most = Rlimit { current: Some(wanted.min(hard)), maximum: before.maximum };
        setrlimit(Resource::Nofile, most).unwrap();
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn receive_datagrams(socket: &UdpSocket, count: usize, bytes: usize) {
    let mut block = vec![0; 65_536];
    // Looking does not count.
    socket.peek_from(&mut block).unwrap();
    for _ in 0..count {
        assert_eq!(socket.recv_from(&mut block).unwrap().0, bytes);
    }
}

fn send(stream: &mut TcpStream, mut bytes: usize) {
    let block = vec![7; 65_536];
    while bytes > 0 {
        let now = bytes.min(block.len());
        stream.write_all(&block[..now]).unwrap();
        bytes -= now;
    }
}

fn receive(stream: &mut TcpStream, mut bytes: usize) {
    let mut block = vec![0; 65_536];
    while bytes > 0 {
        let now = bytes.min(block.len());
        stream.read_exact(&mut block[..now]).unwrap();
        bytes -= now;
    }
}

/// Bytes of one transfer past the cache.
const BLOCK: usize = 1 << 20;

/// A block at an address that the device takes, in a buffer of twice its size.
fn aligned(buffer: &mut [u8]) -> &mut [u8] {
    let at = buffer.as_ptr().align_offset(4096);
    &mut buffer[at..at + BLOCK]
}

fn open_past_the_cache(path: &str, options: &mut OpenOptions) -> File {
    let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap();
    options.custom_flags(flags).open(path).unwrap()
}

/// Writes blocks so that the device gets them at once.
fn write_past_the_cache(path: &str, blocks: usize) {
    let mut file = open_past_the_cache(path, OpenOptions::new().write(true).create(true));
    let mut buffer = vec![7; 2 * BLOCK];
    for _ in 0..blocks {
        file.write_all(aligned(&mut buffer)).unwrap();
    }
}

fn read_past_the_cache(path: &str, blocks: usize) {
    let mut file = open_past_the_cache(path, OpenOptions::new().read(true));
    let mut buffer = vec![0; 2 * BLOCK];
    for _ in 0..blocks {
        file.read_exact(aligned(&mut buffer)).unwrap();
    }
}

/// Passes a descriptor to whoever waits in [`take`].
fn give(path: &str, descriptor: std::os::fd::BorrowedFd<'_>) {
    let stream = loop {
        match UnixStream::connect(path) {
            Ok(stream) => break stream,
            Err(_) => std::thread::yield_now(),
        }
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    sendmsg(&stream, &[IoSlice::new(&[1])], &mut ancillary, SendFlags::empty()).unwrap();
}

fn take(path: &str) -> OwnedFd {
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(&stream, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::empty())
        .unwrap();
    std::fs::remove_file(path).unwrap();
    let mut descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.next().unwrap().next().unwrap()
}

//! A client program in a namespace and a cgroup of its own: this very test binary, started again, told what to do over
//! its input.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::Duration,
};

use super::namespace::Namespace;

const IS_CLIENT: &str = "FAIRLEAD_TEST_CLIENT";
/// What an answer line starts with; the test harness writes lines of its own.
const ANSWER: &str = "=> ";

/// A process that opens sockets as told over its standard input: sockets of the test itself would be in the wrong
/// cgroup.
pub struct Client {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    /// In `namespace`, and in `cgroup` where one is given.
    pub fn start(namespace: &Namespace, cgroup: Option<&Path>) -> Self {
        let mut command = namespace.command(std::env::current_exe().unwrap());
        if let Some(cgroup) = cgroup {
            let procs = cgroup.join("cgroup.procs");
            // SAFETY: opening and writing a file between fork and exec; nothing else runs in the child.
            unsafe {
                std::os::unix::process::CommandExt::pre_exec(&mut command, move || std::fs::write(&procs, "0"));
            }
        }
        let mut process = command
            .args(["proxy::tests::client::client_process", "--exact", "--nocapture", "--test-threads=1"])
            .env(IS_CLIENT, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), BufReader::new(process.stdout.take().unwrap()));
        Self { process, input, output }
    }

    /// `tcp`, `tcp6`, `udp`, `udp6`, `udp-large`, `udp-connected` with an address: a new socket that asks once. `hold
    /// NAME KIND ADDRESS` keeps the socket, `again NAME` asks over it once more. `flood ADDRESS` connects a hundred
    /// times. `source ADDRESS` connects a UDP socket, sends nothing, and answers `LOCAL peer PEER`. The answer is `ok
    /// BACKEND sees CLIENT peer PEER` or `error KIND`.
    pub fn ask(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the client ended");
            if let Some(at) = line.find(ANSWER) {
                return line[at + ANSWER.len()..].trim_end().to_owned();
            }
        }
    }

    /// The answers to the same command given `times` times.
    pub fn ask_times(&mut self, times: usize, command: &str) -> Vec<String> {
        (0..times).map(|_| self.ask(command)).collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Not a test: what a [`Client`] runs.
#[test]
fn client_process() {
    if std::env::var_os(IS_CLIENT).is_none() {
        return;
    }
    let mut held: std::collections::HashMap<String, Socket> = Default::default();
    for line in io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words[..] {
            ["hold", name, kind, to] => Socket::open(kind, to).and_then(|mut socket| {
                let answer = socket.ask();
                held.insert(name.to_owned(), socket);
                answer
            }),
            ["again", name] => held.get_mut(name).unwrap().ask(),
            ["again", name, to] => {
                let socket = held.get_mut(name).unwrap();
                socket.1 = to.parse().unwrap();
                socket.ask()
            }
            ["source", to] => source(to.parse().unwrap()),
            ["flood", to] => flood(to.parse().unwrap()),
            [kind, to] => Socket::open(kind, to).and_then(|mut socket| socket.ask()),
            _ => panic!("unknown command {line}"),
        };
        match answer {
            Ok(answer) => println!("{ANSWER}ok {answer}"),
            Err(error) => println!("{ANSWER}error {:?}", error.kind()),
        }
    }
}

/// How programs find the address that they have towards another.
fn source(to: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    Ok(format!("{} peer {}", socket.local_addr()?.ip(), socket.peer_addr()?))
}

/// A hundred connections, each asked once. `all`, or the first error.
fn flood(to: SocketAddr) -> io::Result<String> {
    for _ in 0..100 {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        // Closed with a reset, so that no port waits.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        stream.write_all(b"?")?;
        if stream.read(&mut [0; 64])? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok("all".into())
}

enum Kind {
    Tcp(TcpStream),
    Udp(UdpSocket),
    UdpLarge(UdpSocket),
    UdpConnected(UdpSocket),
}

struct Socket(Kind, SocketAddr);

const PATIENCE: Duration = Duration::from_secs(2);

impl Socket {
    fn open(kind: &str, to: &str) -> io::Result<Self> {
        let to: SocketAddr = to.parse().unwrap();
        let mapped = match to {
            SocketAddr::V4(v4) => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
            SocketAddr::V6(_) => to,
        };
        let udp = |to, any: &str| -> io::Result<_> {
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok((socket, to))
        };
        Ok(match kind {
            "tcp" => Self(Kind::Tcp(TcpStream::connect_timeout(&to, PATIENCE)?), to),
            "tcp6" => Self(Kind::Tcp(TcpStream::connect_timeout(&mapped, PATIENCE)?), mapped),
            "udp" => udp(to, "0.0.0.0:0").map(|(socket, to)| Self(Kind::Udp(socket), to))?,
            "udp-large" => udp(to, "0.0.0.0:0").map(|(socket, to)| Self(Kind::UdpLarge(socket), to))?,
            "udp6" => udp(mapped, &format!("[{}]:0", Ipv6Addr::UNSPECIFIED))
                .map(|(socket, to)| Self(Kind::Udp(socket), to))?,
            "udp-connected" => {
                let (socket, to) = udp(to, "0.0.0.0:0")?;
                socket.connect(to)?;
                Self(Kind::UdpConnected(socket), to)
            }
            _ => panic!("unknown kind {kind}"),
        })
    }

    fn ask(&mut self) -> io::Result<String> {
        let mut buffer = [0; 128];
        let (length, peer) = match &mut self.0 {
            Kind::Tcp(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.write_all(b"?")?;
                let length = stream.read(&mut buffer)?;
                (length, stream.peer_addr()?)
            }
            Kind::Udp(socket) => {
                socket.send_to(b"?", self.1)?;
                socket.recv_from(&mut buffer)?
            }
            Kind::UdpLarge(socket) => {
                // In three fragments, on links of 1500 bytes.
                socket.send_to(&[b'?'; 4000], self.1)?;
                socket.recv_from(&mut buffer)?
            }
            Kind::UdpConnected(socket) => {
                socket.send(b"?")?;
                (socket.recv(&mut buffer)?, socket.peer_addr()?)
            }
        };
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let answer = String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned();
        Ok(format!("{answer} peer {peer}"))
    }
}

//! Which TCP sockets listen in this process's network, by sock_diag(7): 40 to 200 µs for all that listen (the kernel walks
//! a table of up to a mebibyte for each family), 3 for who accepts at one address, where `/proc/net/tcp` walks every
//! connection of the machine (milliseconds). That table is read where the kernel has no sock_diag.
//!
//! When to look is what a filter tells that lets listen(2) wait until it was seen
//! ([`crate::sys::install_notifying_filter`]): nothing is polled to find a new socket.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SOCK_DIAG, recv, send, socket_with,
};

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub address: SocketAddr,
    /// The socket's inode, as `/proc/PID/fd` shows it.
    pub inode: u64,
}

// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h.
pub(crate) const SOCK_DIAG_BY_FAMILY: u16 = 20;
pub(crate) const REQUEST_ONE: u16 = 0x1;
const REQUEST_DUMP: u16 = 0x1 | 0x300;
const DONE: u16 = 3;
const ERROR: u16 = 2;
pub(crate) const HEADER: usize = 16;
pub(crate) const REQUEST: usize = HEADER + 56;
/// `struct inet_diag_msg`.
pub(crate) const MESSAGE: usize = 72;
const TCP: u8 = 6;
pub(crate) const TCP_LISTEN: u8 = 10;
const LISTENING: u32 = 1 << TCP_LISTEN;
/// The kernel fills what it is given: some 200 sockets at once.
const BUFFER: usize = 32 * 1024;

/// Asks the kernel what listens in the network namespace that it was made in, also from behind a filter of system calls
/// that would not let it be made.
#[derive(Debug)]
pub struct Diagnosis(io::Result<OwnedFd>);

impl Diagnosis {
    /// That of this process's network.
    pub fn of_this_network() -> Self {
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(SOCK_DIAG));
        Self(socket.map_err(io::Error::from))
    }

    /// All listening TCP sockets.
    pub fn listeners(&self) -> io::Result<Vec<Listener>> {
        match self.dump() {
            Err(error) if is_missing(&error) => tables(),
            other => other,
        }
    }

    /// The socket that would accept a connection to this address; of several that share it, one. `None` if there is
    /// none, or the kernel cannot say.
    pub fn listener_at(&self, address: SocketAddr) -> Option<Listener> {
        let mut found = Vec::new();
        take(&self.ask(&request_at(address))?, &mut found).ok()?;
        found.pop()
    }

    /// The answer to a question about one socket.
    pub(crate) fn ask(&self, request: &[u8; REQUEST]) -> Option<Vec<u8>> {
        let socket = self.idle().ok()?;
        send(socket, request, SendFlags::empty()).ok()?;
        let mut answer = vec![0; 1024];
        let (length, _) = recv(socket, &mut answer[..], RecvFlags::empty()).ok()?;
        answer.truncate(length);
        Some(answer)
    }

    fn dump(&self) -> io::Result<Vec<Listener>> {
        let socket = self.idle()?;
        let mut found = Vec::new();
        let mut buffer = vec![0; BUFFER];
        for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
            send(socket, &request(family), SendFlags::empty())?;
            loop {
                let (length, _) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
                if length == 0 || take(&buffer[..length], &mut found)? {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// The socket, without what an earlier question that failed has left: the kernel refuses another meanwhile.
    fn idle(&self) -> io::Result<&OwnedFd> {
        let errno =
            |error: &io::Error| io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO));
        let socket = self.0.as_ref().map_err(errno)?;
        let mut buffer = [0; 1024];
        while recv(socket, &mut buffer[..], RecvFlags::DONTWAIT).is_ok() {}
        Ok(socket)
    }
}

/// A kernel without sock_diag, or one that does not let this process ask.
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENOENT
                | libc::EPROTONOSUPPORT
                | libc::EAFNOSUPPORT
                | libc::EPERM
                | libc::EACCES
                | libc::EOPNOTSUPP
        )
    )
}

fn request(family: u8) -> [u8; REQUEST] {
    let mut request = [0; REQUEST];
    request[0..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    request[HEADER] = family;
    request[HEADER + 1] = TCP;
    request[HEADER + 4..HEADER + 8].copy_from_slice(&LISTENING.to_ne_bytes());
    request
}

/// `struct inet_diag_req_v2` for one socket: from anywhere to `address`, whatever its cookie.
pub(crate) fn request_at(address: SocketAddr) -> [u8; REQUEST] {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut request = request(family as u8);
    request[6..8].copy_from_slice(&REQUEST_ONE.to_ne_bytes());
    let id = &mut request[HEADER + 8..];
    id[0..2].copy_from_slice(&address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => id[4..8].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => id[4..20].copy_from_slice(&ip.octets()),
    }
    id[40..48].fill(0xff);
    request
}

/// Takes the messages of one datagram; true after the last.
fn take(mut datagram: &[u8], found: &mut Vec<Listener>) -> io::Result<bool> {
    while let Some(header) = datagram.get(..HEADER) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let body = datagram.get(HEADER..length).ok_or(io::ErrorKind::InvalidData)?;
        match u16::from_ne_bytes([header[4], header[5]]) {
            DONE => return Ok(true),
            ERROR => {
                let code = body.first_chunk().map_or(-libc::EIO, |code| i32::from_ne_bytes(*code));
                return Err(io::Error::from_raw_os_error(-code));
            }
            SOCK_DIAG_BY_FAMILY => found.extend(listener(body)),
            _ => {}
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn listener(message: &[u8]) -> Option<Listener> {
    let message = message.get(..MESSAGE).filter(|message| message[1] == TCP_LISTEN)?;
    let port = u16::from_be_bytes([message[4], message[5]]);
    let source = message[8..24].first_chunk::<16>()?;
    let ip: IpAddr = match i32::from(message[0]) {
        libc::AF_INET => Ipv4Addr::from(*source.first_chunk::<4>()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(*source).into(),
        _ => return None,
    };
    let inode = u32::from_ne_bytes(*message[68..72].first_chunk()?);
    Some(Listener { address: SocketAddr::new(ip, port), inode: inode.into() })
}

fn tables() -> io::Result<Vec<Listener>> {
    let mut found = table(&fs::read_to_string("/proc/self/net/tcp")?);
    // Absent where there is no IPv6.
    found.extend(table(&fs::read_to_string("/proc/self/net/tcp6").unwrap_or_default()));
    Ok(found)
}

/// proc_pid_net(5): after a header, `sl local_address rem_address st … inode`, numbers in hexadecimal, an address
/// as 32-bit words in the machine's own order.
fn table(text: &str) -> Vec<Listener> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if *fields.get(3)? != "0A" {
            return None;
        }
        Some(Listener { address: place(fields.get(1)?)?, inode: fields.get(9)?.parse().ok()? })
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// `ADDRESS:PORT` of such a line.
pub(crate) fn place(field: &str) -> Option<SocketAddr> {
    let (ip, port) = field.split_once(':')?;
    let words = ip.as_bytes().chunks(8).map(|word| {
        let word = u32::from_str_radix(str::from_utf8(word).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let bytes = words.collect::<Option<Vec<_>>>()?.concat();
    let ip: IpAddr = match bytes.len() {
        4 => Ipv4Addr::from(*bytes.first_chunk::<4>()?).into(),
        16 => Ipv6Addr::from(*bytes.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsFd};

    use super::*;

    fn inode(socket: &TcpListener) -> u64 {
        rustix::fs::fstat(socket.as_fd()).expect("a socket").st_ino
    }

    #[test]
    fn what_listens_is_found_both_ways_and_what_is_closed_is_not() {
        let diagnosis = Diagnosis::of_this_network();
        for place in ["127.0.0.1:0", "0.0.0.0:0", "127.3.2.1:0", "[::1]:0", "[::]:0"] {
            let socket = TcpListener::bind(place).expect("a free port");
            let expected = Listener { address: socket.local_addr().expect("bound"), inode: inode(&socket) };
            assert!(diagnosis.dump().expect("sock_diag").contains(&expected), "{place}");
            assert!(tables().expect("tables").contains(&expected), "{place}");
            assert_eq!(diagnosis.listener_at(expected.address), Some(expected), "{place}");
            drop(socket);
            assert_eq!(diagnosis.listener_at(expected.address), None, "{place}");
            assert!(!diagnosis.dump().expect("sock_diag").contains(&expected), "{place}");
        }
    }

    #[test]
    fn who_accepts_at_an_address_is_found_wherever_it_is_bound() {
        let diagnosis = Diagnosis::of_this_network();
        for (place, asked) in [("0.0.0.0:0", "127.0.0.1"), ("[::]:0", "127.0.0.1"), ("[::]:0", "::1")] {
            let socket = TcpListener::bind(place).expect("a free port");
            let port = socket.local_addr().expect("bound").port();
            let asked = SocketAddr::new(asked.parse().expect("an address"), port);
            assert_eq!(
                diagnosis.listener_at(asked).expect("there").inode,
                inode(&socket),
                "{place} at {asked}"
            );
            // A connection is nobody who accepts.
            let connected = std::net::TcpStream::connect(asked).expect("it listens");
            assert_eq!(diagnosis.listener_at(connected.local_addr().expect("connected")), None);
        }
    }

    #[test]
    fn a_question_whose_answer_was_not_read_leaves_the_next_one_unharmed() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let expected = Listener { address: socket.local_addr().expect("bound"), inode: inode(&socket) };
        let diagnosis = Diagnosis::of_this_network();
        for round in 0..3 {
            let raw = diagnosis.0.as_ref().expect("sock_diag");
            send(raw, &request(libc::AF_INET as u8), SendFlags::empty()).expect("asked");
            assert_eq!(diagnosis.listener_at(expected.address), Some(expected), "{round}");
            send(raw, &request(libc::AF_INET6 as u8), SendFlags::empty()).expect("asked");
            assert!(diagnosis.dump().expect("sock_diag").contains(&expected), "{round}");
        }
    }

    #[test]
    fn cut_and_senseless_answers_are_no_sockets() {
        let mut found = Vec::new();
        for datagram in [&[][..], &[1, 2, 3], &[0; 16], &[255; 40], &[20; 100]] {
            let _ = take(datagram, &mut found);
        }
        assert!(
            found.is_empty() && listener(&[2; MESSAGE - 1]).is_none() && listener(&[0; MESSAGE]).is_none()
        );
        assert!(table("header\n 0: 0100007F:1F90 00000000:0000 01\nx\n 1: 01:zz a 0A").is_empty());
    }
}

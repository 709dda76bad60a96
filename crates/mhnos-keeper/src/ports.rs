//! Which TCP ports one process tree listens on, and connections to them from within its network.
//!
//! Theory of operation: listen(2) of every program waits, through a system call filter, until its supervisor has
//! seen it (8 to 40 µs). The supervisor notes the socket, lets the call go on, and finds the socket's address in
//! the kernel's list of listening sockets right after. Nothing is polled to find a port; only where the kernel
//! grants no such filter (another one is there already) the list is looked at, ever more seldom. That a port has
//! been closed the kernel tells of a whole network ([`Closings`]): then, and ever more seldom in any case, it is asked
//! whether they are still there, each by its address (3 µs); only when something has changed the list is looked at.
//!
//! What a program does between the look and its call can only make itself look wrong. Connections are another
//! matter, since the network may be the host's: they are made only to sockets that, by their inode, are the tree's: the
//! kernel says whose socket accepts at an address, and the list, of the last second at most, that nobody shares it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use mhnos_sandbox::{
    closings::Closings,
    listening::{Diagnosis, Listener},
    sys,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt::socket_error},
};

use crate::{
    channel::{MAX_PORTS, Port},
    limits::{
        CLOSINGS_PAUSE, LISTED_FOR, LISTEN_PATIENCE, LISTEN_RETRY, LISTEN_RETRY_SLOWEST, PORTS_LOOK,
        PORTS_LOOK_SLOWEST, PORTS_SEARCH_SLOWEST,
    },
    tree::{descendants, proc_is_foreign},
};

/// What a supervisor sees ports with, of one tree after the other.
#[derive(Debug)]
pub(crate) struct Lookout {
    pub(crate) diagnosis: Diagnosis,
    /// Where it is heard that a socket has closed, if the kernel tells.
    pub(crate) closings: Option<Closings>,
    /// Where calls of listen(2) are seen, if the kernel granted that.
    pub(crate) notices: Option<OwnedFd>,
}

/// The ports of one tree.
#[derive(Debug)]
pub(crate) struct Ports<'a> {
    lookout: &'a Lookout,
    /// By the socket's inode.
    ours: BTreeMap<u64, SocketAddr>,
    /// Sockets about to listen.
    expected: BTreeSet<u64>,
    /// Some socket is about to listen, and it is not known which.
    unnamed: bool,
    /// Until when that is believed.
    patience: Instant,
    retry: Duration,
    /// Sockets known to be others'.
    foreign: BTreeSet<u64>,
    /// All that listened when the list was last looked at.
    listed: Option<(Instant, Vec<Listener>)>,
    due: Option<Instant>,
    pace: Duration,
    looked: Instant,
    hearing: Hearing,
}

/// Whether it is heard of sockets that close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hearing {
    /// There is nothing that could close, or the kernel does not tell.
    Nothing,
    Closings,
    /// Some socket has closed: the next look says whether it is the tree's.
    Heard,
}

impl<'a> Ports<'a> {
    pub(crate) fn new(lookout: &'a Lookout) -> Self {
        let now = Instant::now();
        // The tree before this one may have had ports.
        _ = lookout.closings.as_ref().map(|closings| closings.hear(false));
        Self {
            due: lookout.notices.is_none().then_some(now),
            lookout,
            ours: BTreeMap::new(),
            expected: BTreeSet::new(),
            unnamed: false,
            patience: now,
            retry: LISTEN_RETRY,
            foreign: BTreeSet::new(),
            listed: None,
            pace: PORTS_LOOK,
            looked: now,
            hearing: Hearing::Nothing,
        }
    }

    /// What to wait for.
    pub(crate) fn notices(&self) -> Option<&'a OwnedFd> {
        self.lookout.notices.as_ref()
    }

    /// What to wait for beside that, while there is something that could close.
    pub(crate) fn closings(&self) -> Option<&'a OwnedFd> {
        let closings = self.lookout.closings.as_ref().filter(|_| self.hearing == Hearing::Closings);
        closings.map(Closings::socket)
    }

    /// Some socket of this network has closed.
    pub(crate) fn heard(&mut self) {
        self.hearing = Hearing::Heard;
        let soon = self.looked + CLOSINGS_PAUSE;
        self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
    }

    /// Hears of what closes from now on, if there is something that could.
    fn hear(&mut self) {
        let Some(closings) = &self.lookout.closings else { return };
        let wanted = !self.ours.is_empty();
        self.hearing = match self.hearing {
            Hearing::Nothing if wanted && closings.hear(true).is_ok() => Hearing::Closings,
            Hearing::Closings | Hearing::Heard if !wanted => {
                _ = closings.hear(false);
                Hearing::Nothing
            }
            as_before => as_before,
        };
    }

    /// Whether the kernel has not granted that calls of listen(2) are seen.
    fn is_unseen(&self) -> bool {
        self.lookout.notices.is_none()
    }

    /// Until the next look, if one is due.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// A call of listen(2) waits: takes note of the socket and lets it go on.
    pub(crate) fn noticed(&mut self) {
        let Some(notices) = self.notices() else { return };
        // An error: its caller has died.
        let Ok(notice) = sys::next_notice(notices) else { return };
        let link = Path::new("/proc")
            .join(notice.thread.to_string())
            .join("fd")
            .join(notice.arguments[0].to_string());
        let named = notice.thread > 0 && !proc_is_foreign();
        let socket = named.then(|| socket_at(&link)).flatten();
        sys::let_go_on(notices, &notice);
        self.expect(socket, Instant::now());
    }

    /// This socket is about to listen, or one that is not known.
    fn expect(&mut self, socket: Option<u64>, now: Instant) {
        match socket {
            Some(inode) if self.expected.len() < MAX_PORTS => _ = self.expected.insert(inode),
            _ => self.unnamed = true,
        }
        self.patience = now + LISTEN_PATIENCE;
        self.retry = LISTEN_RETRY;
        self.due = Some(now);
    }

    /// Looks, if it is time to. The ports, if they are others than before.
    pub(crate) fn look(&mut self) -> Option<Vec<Port>> {
        if self.left().is_none_or(|left| !left.is_zero()) {
            return None;
        }
        let before = self.ports();
        self.looked = Instant::now();
        if let (Hearing::Heard, Some(closings)) = (self.hearing, &self.lookout.closings) {
            // What closes from now on is heard again.
            closings.forget();
            self.hearing = Hearing::Closings;
        }
        if !self.are_all_there() {
            self.list();
        }
        let ports = self.ports();
        let changed = ports != before;
        self.hear();
        self.plan(changed);
        changed.then_some(ports)
    }

    /// Whether there is nothing new to look for, and what was there still is.
    fn are_all_there(&self) -> bool {
        let searching = self.is_unseen() || self.unnamed || !self.expected.is_empty();
        let is_there = |(inode, address): (&u64, &SocketAddr)| {
            let found = self.lookout.diagnosis.listener_at(*address);
            found.is_some_and(|listener| listener.inode == *inode)
        };
        !searching && self.ours.iter().all(is_there)
    }

    fn list(&mut self) {
        if let Ok(all) = self.lookout.diagnosis.listeners() {
            self.compare(&all);
            self.listed = Some((Instant::now(), all));
        }
    }

    fn plan(&mut self, changed: bool) {
        let now = Instant::now();
        if (self.unnamed || !self.expected.is_empty()) && now < self.patience {
            self.due = Some(now + self.retry);
            self.retry = (self.retry * 2).min(LISTEN_RETRY_SLOWEST);
            return;
        }
        self.unnamed = false;
        self.expected.clear();
        let told = !self.is_unseen() && self.hearing == Hearing::Closings;
        let slowest = if told { PORTS_LOOK_SLOWEST } else { PORTS_SEARCH_SLOWEST };
        self.pace = if changed { PORTS_LOOK } else { (self.pace * 2).min(slowest) };
        self.due = (self.is_unseen() || !self.ours.is_empty()).then_some(now + self.pace);
    }

    /// Sorts what listens into the tree's and others'.
    fn compare(&mut self, all: &[Listener]) {
        let mut ours = BTreeMap::new();
        let mut strange = BTreeMap::new();
        for Listener { address, inode } in all {
            let expected = self.expected.remove(inode);
            let place = if expected || self.ours.contains_key(inode) { &mut ours } else { &mut strange };
            place.insert(*inode, *address);
        }
        let searching = self.unnamed || self.is_unseen();
        if searching && strange.keys().any(|inode| !self.foreign.contains(inode)) {
            for inode in sockets_of_tree() {
                if let Some(address) = strange.remove(&inode) {
                    ours.insert(inode, address);
                    self.unnamed = false;
                }
            }
        }
        self.foreign = if searching { strange.into_keys().collect() } else { BTreeSet::new() };
        while ours.len() > MAX_PORTS {
            ours.pop_last();
        }
        self.ours = ours;
    }

    fn ports(&self) -> Vec<Port> {
        let port = |address: &SocketAddr| Port { port: address.port(), address: address.ip() };
        let ports: BTreeSet<Port> = self.ours.values().map(port).collect();
        ports.into_iter().collect()
    }

    /// A connection to what the tree listens on at `port`: established, or about to be. What has changed since the
    /// last look is told by the next.
    pub(crate) fn dial(&mut self, port: u16) -> io::Result<OwnedFd> {
        let mut outcome = Err(Errno::CONNREFUSED);
        if let Some((at, all)) = &self.listed
            && at.elapsed() < LISTED_FOR
        {
            let is_own = |target| self.is_ours(target, all) && self.accepts(target);
            outcome = self.attempts(port, is_own);
        }
        if outcome.is_err() {
            let all = self.lookout.diagnosis.listeners()?;
            outcome = self.attempts(port, |target| self.is_ours(target, &all));
            self.listed = Some((Instant::now(), all));
        }
        if outcome.is_err() {
            self.due = Some(Instant::now());
        }
        Ok(outcome?)
    }

    fn attempts(&self, port: u16, is_own: impl Fn(SocketAddr) -> bool) -> Result<OwnedFd, Errno> {
        let ours = self.ours.iter().filter(|(_, address)| address.port() == port);
        // Loopback first: servers know those addresses to be theirs.
        let mut targets: Vec<SocketAddr> = ours.flat_map(|(_, address)| targets(*address)).collect();
        targets.sort_by_key(|target| !target.ip().is_loopback());
        let mut outcome = Err(Errno::CONNREFUSED);
        for target in targets.into_iter().filter(|target| is_own(*target)) {
            outcome = attempt(target);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Whether it is a socket of the tree that the kernel finds for a connection to `target` now.
    fn accepts(&self, target: SocketAddr) -> bool {
        self.lookout
            .diagnosis
            .listener_at(target)
            .is_some_and(|listener| self.ours.contains_key(&listener.inode))
    }

    /// Whether a connection to `target` is accepted by a socket of the tree and by none that is not.
    fn is_ours(&self, target: SocketAddr, all: &[Listener]) -> bool {
        let bound_to = |ip: IpAddr| {
            let place = SocketAddr::new(ip, target.port());
            let mut there = all.iter().filter(move |listener| listener.address == place).peekable();
            there.peek()?;
            Some(there.all(|listener| self.ours.contains_key(&listener.inode)))
        };
        let dual = || bound_to(Ipv6Addr::UNSPECIFIED.into());
        let specific = bound_to(target.ip());
        let owner = match target.ip() {
            IpAddr::V4(_) => specific.or_else(|| bound_to(Ipv4Addr::UNSPECIFIED.into())).or_else(dual),
            IpAddr::V6(_) => specific.or_else(dual),
        };
        owner == Some(true)
    }
}

/// Where to connect to reach a socket bound to `address`.
fn targets(address: SocketAddr) -> Vec<SocketAddr> {
    let at = |ip: IpAddr| SocketAddr::new(ip, address.port());
    let (four, six) = (at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into()));
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![four],
        // Accepts IPv4 too, unless it was told otherwise.
        IpAddr::V6(ip) if ip.is_unspecified() => vec![four, six],
        _ => vec![address],
    }
}

/// Connects without waiting. On loopback that is done or refused at once, unless the server is too busy to accept:
/// then whoever gets the socket waits.
fn attempt(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    match connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(errno) => return Err(errno),
    }
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let _ = poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&now));
    socket_error(&socket)??;
    Ok(socket)
}

/// The inodes of all sockets that the tree has open.
fn sockets_of_tree() -> BTreeSet<u64> {
    let tree = descendants();
    let entries = tree.iter().filter_map(|member| fs::read_dir(member.dir.join("fd")).ok());
    entries.flat_map(|entries| entries.flatten().filter_map(|entry| socket_at(&entry.path()))).collect()
}

/// `socket:[INODE]` (proc_pid_fd(5)).
fn socket_at(link: &Path) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::fd::AsFd,
    };

    use super::*;

    fn known(socket: &TcpListener) -> (u64, SocketAddr) {
        (rustix::fs::fstat(socket.as_fd()).expect("a socket").st_ino, socket.local_addr().expect("bound"))
    }

    fn lookout() -> Lookout {
        Lookout { diagnosis: Diagnosis::of_this_network(), closings: None, notices: None }
    }

    fn ports_of<'a>(sockets: &[&TcpListener], lookout: &'a Lookout) -> Ports<'a> {
        Ports { ours: sockets.iter().map(|socket| known(socket)).collect(), ..Ports::new(lookout) }
    }

    #[test]
    fn a_connection_reaches_what_is_the_trees_own_wherever_it_is_bound() {
        let lookout = lookout();
        for place in ["127.0.0.1:0", "0.0.0.0:0", "127.9.8.7:0", "[::1]:0", "[::]:0"] {
            let socket = TcpListener::bind(place).expect("a free port");
            let port = socket.local_addr().expect("bound").port();
            let stream = TcpStream::from(ports_of(&[&socket], &lookout).dial(port).expect(place));
            let (_, peer) = socket.accept().expect("it is there");
            assert_eq!(stream.local_addr().expect("connected").port(), peer.port(), "{place}");
        }
    }

    #[test]
    fn a_port_that_is_not_the_trees_is_refused_although_it_listens() {
        let lookout = lookout();
        let foreign = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = foreign.local_addr().expect("bound").port();
        let refused = ports_of(&[], &lookout).dial(port).expect_err("nothing of ours");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        TcpStream::connect(("127.0.0.1", port)).expect("it does listen");
    }

    #[test]
    fn a_foreign_socket_in_front_of_the_trees_own_is_not_reached() {
        let lookout = lookout();
        let foreign = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = foreign.local_addr().expect("bound").port();
        // On another address of the same port, so that a connection to loopback gets the foreign one.
        let own = TcpListener::bind(("127.0.0.2", port)).expect("a free port");
        let mut ports = ports_of(&[&own], &lookout);
        let (inode, mut address) = known(&own);
        address.set_ip(Ipv4Addr::UNSPECIFIED.into());
        ports.ours.insert(inode, address);
        assert_eq!(ports.dial(port).expect_err("foreign").kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_port_that_changed_hands_since_the_list_was_looked_at_is_refused() {
        let lookout = lookout();
        let own = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = own.local_addr().expect("bound");
        let mut ports = ports_of(&[&own], &lookout);
        ports.dial(address.port()).expect("its own");
        assert!(ports.listed.is_some(), "the list is kept for the next");
        drop(own);
        let foreign = TcpListener::bind(address).expect("free again");
        let refused = ports.dial(address.port()).expect_err("foreign");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        drop(foreign);
    }

    /// Looks as if a socket had been about to listen since `ago`, which listens only after the first look.
    fn told_if_it_listens(ago: Duration) -> Option<Vec<Port>> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let socket = socket.expect("a socket");
        rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let inode = rustix::fs::fstat(&socket).expect("a socket").st_ino;
        let notices = Some(fs::File::open("/dev/null").expect("it is there").into());
        let lookout = Lookout { notices, ..lookout() };
        let mut ports = Ports::new(&lookout);
        ports.expect(Some(inode), Instant::now().checked_sub(ago).expect("the machine runs longer"));
        assert_eq!(ports.look(), None);
        rustix::net::listen(&socket, 1).expect("it listens");
        ports.due = ports.due.map(|_| Instant::now());
        ports.look()
    }

    #[test]
    fn a_socket_whose_caller_had_no_turn_for_seconds_is_told_when_it_listens() {
        let told = told_if_it_listens(LISTEN_PATIENCE * 9 / 10).expect("it is still looked for");
        assert_eq!(told.len(), 1);
        assert!(LISTEN_PATIENCE > Duration::from_secs(5), "such turns take that long");
        assert_eq!(told_if_it_listens(LISTEN_PATIENCE), None, "for ever would be too long");
    }

    /// Nothing is asked of it meanwhile, and the next look of itself is half a minute away.
    #[test]
    fn a_port_that_was_open_for_long_is_told_as_closed_when_it_is() {
        let closings = Some(Closings::of_this_network().expect("the kernel tells"));
        let notices = Some(fs::File::open("/dev/null").expect("it is there").into());
        let lookout = Lookout { closings, notices, ..lookout() };
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut ports = ports_of(&[&socket], &lookout);
        while ports.pace < PORTS_LOOK_SLOWEST {
            ports.due = Some(Instant::now());
            assert_eq!(ports.look(), None);
        }
        drop(socket);
        let told = loop {
            // Other tests' sockets close too; that is heard, and nothing to be told.
            assert!(ports.left() > Some(PORTS_LOOK_SLOWEST / 2));
            let heard = ports.closings().expect("there is something that could close");
            let wait = Timespec { tv_sec: 10, tv_nsec: 0 };
            assert_eq!(poll(&mut [PollFd::new(heard, PollFlags::IN)], Some(&wait)), Ok(1), "it is heard");
            ports.heard();
            assert!(ports.left() <= Some(CLOSINGS_PAUSE));
            ports.due = Some(Instant::now());
            if let Some(told) = ports.look() {
                break told;
            }
        };
        assert_eq!(told, Vec::new());
        assert!(ports.closings().is_none(), "there is nothing left that could close");
    }

    #[test]
    fn what_has_stopped_listening_is_refused() {
        let lookout = lookout();
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = socket.local_addr().expect("bound").port();
        let mut ports = ports_of(&[&socket], &lookout);
        drop(socket);
        assert_eq!(ports.dial(port).expect_err("closed").kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(ports.look(), Some(Vec::new()));
    }
}

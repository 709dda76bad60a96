//! Whether the walls stand: run at start as the last step of a complete setup, in the place of a program.
//!
//! Nothing is concluded from versions or settings. A process that has gone through every step a program goes
//! through tries what a program must not be able to do; a tier is used only if each attempt fails as it
//! should. The attempts are cheap and harm nobody where they succeed.

use std::{
    fs, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

use rustix::{
    fs::{CWD, FileType, Mode as FileMode, OFlags, mknodat, openat},
    io::Errno,
    net::{AddressFamily, SocketType, connect, socket},
    process::{Pid, Resource, getpid, getrlimit, getsid, test_kill_process},
    thread::{CapabilitySet, capabilities, no_new_privs},
};
use serde::{Deserialize, Serialize};

use crate::{Tier, enter::Walls, error::SetupError, landlock, sys};

/// What the self-test must not be able to reach, as the keeper sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outside {
    keeper: i32,
    namespaces: Vec<(String, u64)>,
    ports: Vec<u16>,
    proxy: Option<u16>,
    workspace: String,
    secrets: Vec<PathBuf>,
}

/// The namespaces a sandbox of the upper tiers has for itself.
const NAMESPACES: [&str; 6] = ["user", "mnt", "pid", "ipc", "uts", "cgroup"];

/// One of the ports programs would use to go out by themselves.
const HTTPS_PORT: u16 = 443;

/// Not in every kernel (proc_pid_task_children(5)).
const CHILDREN: &str = "/proc/thread-self/children";

/// One that a network of the sandbox's own leads nowhere on, of any address but the loopback's.
const UNCAPTURED_PORT: u16 = 8443;

/// The one it has besides where it has a network of its own.
const NETWORK: &str = "net";

impl Outside {
    /// To be called by the keeper.
    pub fn look(policy: &crate::Policy) -> Self {
        let numbered = |name: &str| Some((name.to_owned(), fs::metadata(namespace(name)).ok()?.ino()));
        Self {
            keeper: getpid().as_raw_nonzero().get(),
            namespaces: NAMESPACES
                .into_iter()
                .chain(policy.own_network().then_some(NETWORK))
                .filter_map(numbered)
                .collect(),
            ports: policy.own_ports.clone(),
            proxy: policy.proxy,
            secrets: policy.secrets.clone(),
            workspace: policy.workspace.source.inside.to_string_lossy().into_owned(),
        }
    }
}

fn namespace(name: &str) -> String {
    format!("/proc/self/ns/{name}")
}

/// Tries, in a process that is confined like a program with a terminal.
pub(crate) fn check(walls: &Walls, outside: &Outside) -> Result<(), SetupError> {
    privileges()?;
    session()?;
    if walls.filters() {
        filter()?;
    }
    workspace(&outside.workspace, walls.tier())?;
    // By which supervisors know what belongs to a program: to limit it, and to end all of it.
    fs::read(CHILDREN).map_err(|error| failed("read the children of a process", error))?;
    if walls.tier() != Tier::None {
        secrets(&outside.secrets)?;
    }
    match walls.tier() {
        Tier::None => Ok(()),
        Tier::T1 | Tier::T2 => own_namespaces(walls.tier(), outside),
        Tier::T3 | Tier::T3Plus => {
            shared_host(walls.tier(), outside)?;
            if walls.restricts_ports() { ports(outside) } else { Ok(()) }
        }
    }
}

fn privileges() -> Result<(), SetupError> {
    hold("no new privileges", no_new_privs().is_ok_and(|set| set))?;
    let none = CapabilitySet::empty();
    let held = capabilities(None).map_err(|errno| failed("read the capabilities", errno.into()))?;
    let empty = held.effective == none && held.permitted == none && held.inheritable == none;
    hold("no capabilities", empty)?;
    hold("no core files", getrlimit(Resource::Core).maximum == Some(0))
}

/// A session of its own with a terminal, and nothing open that exec would not close.
fn session() -> Result<(), SetupError> {
    hold("a session of its own", getsid(None).is_ok_and(|session| session == getpid()))?;
    openat(CWD, "/dev/tty", OFlags::RDWR | OFlags::CLOEXEC, FileMode::empty())
        .map_err(|errno| failed("open the terminal", errno.into()))?;
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return hold("a readable /proc/self/fd", false) };
    let numbers: Vec<i32> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let inherited = numbers.into_iter().filter(|number| *number > 2).any(sys::is_inheritable);
    hold("no descriptor is inherited", !inherited)
}

fn filter() -> Result<(), SetupError> {
    refuses("a user namespace", sys::try_user_namespace(), &[Errno::PERM])?;
    refuses("clone3", sys::try_clone3(), &[Errno::NOSYS])?;
    let packet = socket(AddressFamily::PACKET, SocketType::RAW, None).map(drop);
    refuses("a packet socket", packet.map_err(Into::into), &[Errno::AFNOSUPPORT])
}

/// The positive control: what programs are for must work. A disk that is full says nothing of walls, and somebody has to
/// make room on it.
fn workspace(path: &str, tier: Tier) -> Result<(), SetupError> {
    let name = format!("{path}/.mhnos-self-test-{}", getpid());
    let made = fs::write(&name, b"x");
    let removed = fs::remove_file(&name);
    match made.and(removed) {
        Err(error) if !is_full(&error) => return Err(failed("write to the workspace", error)),
        _ => {}
    }
    if tier == Tier::None {
        return Ok(());
    }
    for place in ["/", "/usr", "/etc"] {
        let name = format!("{place}/.mhnos-self-test-{}", getpid());
        let made = fs::File::create_new(&name).map(|_| drop(fs::remove_file(&name)));
        refuses("a file outside the workspace", made, &[Errno::ROFS, Errno::ACCESS, Errno::PERM])?;
    }
    Ok(())
}

fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

fn secrets(files: &[PathBuf]) -> Result<(), SetupError> {
    for file in files {
        let unseen = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::ACCESS, Errno::PERM];
        refuses("a file with a secret of the service's", fs::File::open(file).map(drop), &unseen)?;
    }
    Ok(())
}

fn own_namespaces(tier: Tier, outside: &Outside) -> Result<(), SetupError> {
    for (name, number) in &outside.namespaces {
        let own = fs::metadata(namespace(name)).map(|meta| meta.ino());
        hold("namespaces of its own", own.is_ok_and(|own| own != *number))?;
        if name == NETWORK {
            let interfaces = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
            hold("no network interface but the loopback", is_loopback_alone(&interfaces))?;
            own_network()?;
        }
    }
    if tier == Tier::T1 {
        let own = fs::read_link("/proc/self").ok();
        let expected = getpid().to_string();
        hold("a process table of its own", own.is_some_and(|link| link.to_string_lossy() == expected))?;
    }
    if landlock::in_force(tier) {
        // Without the rule the answer would be EPERM, for want of a capability.
        let name = format!("/tmp/.mhnos-self-test-{}", getpid());
        let device =
            mknodat(CWD, &name, FileType::CharacterDevice, FileMode::RUSR, rustix::fs::makedev(1, 3));
        refuses("a device node", device.map_err(Into::into), &[Errno::ACCESS])?;
    }
    Ok(())
}

/// An address outside is nobody's in here but on the ports that are captured. (Those are not tried: a connection to one
/// is made outside, once there is a bridge.)
fn own_network() -> Result<(), SetupError> {
    let somewhere = (Ipv4Addr::new(192, 0, 2, 1), UNCAPTURED_PORT);
    refuses("a connection to the outside", reach(somewhere), &[Errno::NETUNREACH])?;
    // There may be no IPv6 at all.
    let somewhere = (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), UNCAPTURED_PORT);
    let none = [Errno::NETUNREACH, Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT];
    refuses("a connection to the outside over IPv6", reach(somewhere), &none)
}

/// `/proc/net/dev`: two lines of headings, then one for each interface.
fn is_loopback_alone(interfaces: &str) -> bool {
    let mut names = interfaces.lines().skip(2).filter_map(|line| line.split(':').next());
    names.next().map(str::trim) == Some("lo") && names.next().is_none()
}

fn shared_host(tier: Tier, outside: &Outside) -> Result<(), SetupError> {
    // Everybody may list the root directory, were it not for Landlock.
    refuses("the root directory's list", fs::read_dir("/").map(drop), &[Errno::ACCESS])?;
    let Some(keeper) = Pid::from_raw(outside.keeper) else { return hold("the keeper's number", false) };
    let signal = test_kill_process(keeper).map_err(Into::into);
    refuses("a signal to the service", signal, &[Errno::PERM])?;
    let environ = fs::read(format!("/proc/{}/environ", outside.keeper)).map(drop);
    refuses("the service's environment", environ, &[Errno::ACCESS, Errno::PERM])?;
    if tier == Tier::T3 {
        let limit = rustix::process::prlimit(
            Some(keeper),
            Resource::Core,
            rustix::process::Rlimit { current: Some(0), maximum: Some(0) },
        );
        refuses("a limit of the service", limit.map(drop).map_err(Into::into), &[Errno::PERM])?;
    }
    Ok(())
}

/// The service's own ports are out of reach, and what the outside is asked on; the proxy is not.
fn ports(outside: &Outside) -> Result<(), SetupError> {
    for port in &outside.ports {
        refuses("a connection to the service", reach((Ipv4Addr::LOCALHOST, *port)), &[Errno::ACCESS])?;
    }
    let Some(proxy) = outside.proxy else { return Ok(()) };
    refuses("a connection past the proxy", reach((Ipv4Addr::LOCALHOST, HTTPS_PORT)), &[Errno::ACCESS])?;
    let datagrams = socket(AddressFamily::INET, SocketType::DGRAM, None).map(drop);
    refuses("a socket for datagrams", datagrams.map_err(Into::into), &[Errno::AFNOSUPPORT])?;
    // Nobody need accept: the kernel does.
    reach((Ipv4Addr::LOCALHOST, proxy)).map_err(|error| failed("connect to the proxy", error))
}

fn reach(address: impl Into<SocketAddr>) -> io::Result<()> {
    let address = address.into();
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None)?;
    Ok(connect(&socket, &address)?)
}

fn hold(what: &'static str, holds: bool) -> Result<(), SetupError> {
    if holds { Ok(()) } else { Err(failed(what, io::Error::other("the self-test found that it is not so"))) }
}

fn refuses(what: &'static str, attempt: io::Result<()>, errors: &[Errno]) -> Result<(), SetupError> {
    match attempt {
        Ok(()) => Err(failed(what, io::Error::other("was not refused"))),
        Err(error) if errors.iter().any(|errno| Some(errno.raw_os_error()) == error.raw_os_error()) => Ok(()),
        Err(error) => Err(failed(what, error)),
    }
}

fn failed(what: &'static str, source: io::Error) -> SetupError {
    SetupError { step: "self-test:", detail: what.to_owned(), source }
}

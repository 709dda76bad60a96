//! What can be tried, one verb a function. Nothing here does harm where it succeeds: the controls run unconfined.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, chownat, mknodat};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::net::{AddressFamily, RawProtocol, SocketType, socket};
use rustix::process::{
    Pid, PidfdFlags, Resource, Signal, kill_process, pidfd_open, prlimit, test_kill_process,
};
use rustix::thread::{UnshareFlags, set_thread_uid};
use serde_json::{Value, json};

/// A confined network answers at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Enough of a file to show that it can be read.
const READ_SAMPLE: u64 = 256;

type Verb = fn(&str) -> io::Result<Value>;

const VERBS: &[(&str, Verb)] = &[
    ("read", read),
    ("list", list),
    ("write", write),
    ("append", append),
    ("remove", remove),
    ("execute", execute),
    ("chown-root", chown_root),
    ("mknod", make_device),
    ("symlink-read", symlink_read),
    ("mount", mount_tmpfs),
    ("chroot", chroot),
    ("unshare", unshare),
    ("setuid", set_uid),
    ("hostname", set_hostname),
    ("signal-0", signal_zero),
    ("kill", kill),
    ("pidfd", open_pidfd),
    ("prlimit", change_limit),
    ("socket", open_socket),
    ("connect", connect),
    ("connect-unix", connect_unix),
    ("send-udp", send_udp),
    ("listen", listen),
    ("allocate", allocate),
    ("fork", fork_many),
    ("open-many", open_many),
    ("raise-nofile", raise_nofile),
];

/// The function behind a verb.
pub(crate) fn find(verb: &str) -> Option<Verb> {
    VERBS.iter().find(|(name, _)| *name == verb).map(|(_, function)| *function)
}

/// All verbs, for the message about an unknown one.
pub(crate) fn names() -> Vec<&'static str> {
    VERBS.iter().map(|(name, _)| *name).collect()
}

fn invalid(what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("operand: {what}"))
}

fn pid(operand: &str) -> io::Result<Pid> {
    operand.parse().ok().and_then(Pid::from_raw).ok_or_else(|| invalid(operand))
}

fn read(path: &str) -> io::Result<Value> {
    let mut sample = Vec::new();
    fs::File::open(path)?.take(READ_SAMPLE).read_to_end(&mut sample)?;
    Ok(json!(String::from_utf8_lossy(&sample)))
}

fn list(path: &str) -> io::Result<Value> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(json!(names))
}

/// Makes a new file and removes it again.
fn write(path: &str) -> io::Result<Value> {
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(b"mhnos-probe\n")?;
    fs::remove_file(path)?;
    Ok(Value::Null)
}

/// Opens an existing file for writing, and writes nothing.
fn append(path: &str) -> io::Result<Value> {
    OpenOptions::new().append(true).open(path)?;
    Ok(Value::Null)
}

fn remove(path: &str) -> io::Result<Value> {
    fs::remove_file(path)?;
    Ok(Value::Null)
}

fn execute(path: &str) -> io::Result<Value> {
    let status = std::process::Command::new(path).stdout(std::process::Stdio::null()).status()?;
    Ok(json!(status.code()))
}

fn chown_root(path: &str) -> io::Result<Value> {
    chownat(CWD, path, Some(Uid::ROOT), Some(Gid::ROOT), AtFlags::empty())?;
    Ok(Value::Null)
}

/// The kernel's memory device, at a path of the caller's choice.
fn make_device(path: &str) -> io::Result<Value> {
    mknodat(CWD, path, FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 3))?;
    fs::remove_file(path)?;
    Ok(Value::Null)
}

/// Reads through a symbolic link made for the purpose in the current directory.
fn symlink_read(target: &str) -> io::Result<Value> {
    let link = format!(".mhnos-probe-{}", std::process::id());
    std::os::unix::fs::symlink(target, &link)?;
    let result = read(&link);
    fs::remove_file(&link)?;
    result
}

fn mount_tmpfs(directory: &str) -> io::Result<Value> {
    mount("none", directory, "tmpfs", MountFlags::empty(), None)?;
    unmount(directory, UnmountFlags::DETACH)?;
    Ok(Value::Null)
}

fn chroot(directory: &str) -> io::Result<Value> {
    rustix::process::chroot(directory)?;
    Ok(Value::Null)
}

/// Changes this process's namespaces for good: name it last.
fn unshare(kind: &str) -> io::Result<Value> {
    let flag = match kind {
        "user" => UnshareFlags::NEWUSER,
        "mount" => UnshareFlags::NEWNS,
        "net" => UnshareFlags::NEWNET,
        "pid" => UnshareFlags::NEWPID,
        other => return Err(invalid(other)),
    };
    // Deprecated for UnshareFlags::FILES, which this never passes; its replacement is an unsafe function.
    #[allow(deprecated)]
    rustix::thread::unshare(flag)?;
    Ok(Value::Null)
}

fn set_uid(uid: &str) -> io::Result<Value> {
    let uid = uid.parse().map_err(invalid)?;
    set_thread_uid(Uid::from_raw(uid))?;
    Ok(Value::Null)
}

/// Sets the name it has.
fn set_hostname(_: &str) -> io::Result<Value> {
    rustix::system::sethostname(rustix::system::uname().nodename().to_bytes())?;
    Ok(Value::Null)
}

fn signal_zero(target: &str) -> io::Result<Value> {
    test_kill_process(pid(target)?)?;
    Ok(Value::Null)
}

/// SIGCONT, which harms nobody.
fn kill(target: &str) -> io::Result<Value> {
    kill_process(pid(target)?, Signal::CONT)?;
    Ok(Value::Null)
}

fn open_pidfd(target: &str) -> io::Result<Value> {
    pidfd_open(pid(target)?, PidfdFlags::empty())?;
    Ok(Value::Null)
}

/// Sets another process's core limit to what it is here (no core files either way in the tests).
fn change_limit(target: &str) -> io::Result<Value> {
    prlimit(Some(pid(target)?), Resource::Core, rustix::process::getrlimit(Resource::Core))?;
    Ok(Value::Null)
}

fn open_socket(kind: &str) -> io::Result<Value> {
    let (family, socket_type, protocol) = match kind {
        "tcp" => (AddressFamily::INET, SocketType::STREAM, None),
        "tcp6" => (AddressFamily::INET6, SocketType::STREAM, None),
        "udp" => (AddressFamily::INET, SocketType::DGRAM, None),
        "unix" => (AddressFamily::UNIX, SocketType::STREAM, None),
        "raw" => (AddressFamily::INET, SocketType::RAW, RawProtocol::new(1)),
        "packet" => (AddressFamily::PACKET, SocketType::RAW, None),
        "netlink" => (AddressFamily::NETLINK, SocketType::RAW, None),
        "bluetooth" => (AddressFamily::BLUETOOTH, SocketType::RAW, None),
        "alg" => (AddressFamily::from_raw(38), SocketType::SEQPACKET, None),
        "vsock" => (AddressFamily::from_raw(40), SocketType::STREAM, None),
        other => return Err(invalid(other)),
    };
    socket(family, socket_type, protocol.map(rustix::net::Protocol::from_raw))?;
    Ok(Value::Null)
}

fn connect(address: &str) -> io::Result<Value> {
    let address: SocketAddr = address.parse().map_err(invalid)?;
    TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    Ok(Value::Null)
}

fn connect_unix(path: &str) -> io::Result<Value> {
    UnixStream::connect(path)?;
    Ok(Value::Null)
}

fn send_udp(address: &str) -> io::Result<Value> {
    let address: SocketAddr = address.parse().map_err(invalid)?;
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let sent = UdpSocket::bind(any)?.send_to(b"mhnos-probe", address)?;
    Ok(json!(sent))
}

fn listen(address: &str) -> io::Result<Value> {
    Ok(json!(TcpListener::bind(address)?.local_addr()?.to_string()))
}

/// Fills this many MiB of memory, in steps that are reported, until it is done or killed.
fn allocate(mebibytes: &str) -> io::Result<Value> {
    let count: usize = mebibytes.parse().map_err(invalid)?;
    let mut held: Vec<Vec<u8>> = Vec::new();
    for _ in 0..count {
        let mut block = Vec::new();
        block.try_reserve_exact(1 << 20).map_err(|_| io::Error::from(rustix::io::Errno::NOMEM))?;
        block.resize(1 << 20, 1);
        held.push(block);
    }
    Ok(json!(held.len()))
}

/// Starts this many children that live until all are started; the value is how many there were.
fn fork_many(count: &str) -> io::Result<Value> {
    let count: usize = count.parse().map_err(invalid)?;
    let mut children = Vec::new();
    let mut failure = None;
    for _ in 0..count {
        match std::process::Command::new("sleep").arg("1000").spawn() {
            Ok(child) => children.push(child),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    let started = children.len();
    for mut child in children {
        child.kill()?;
        child.wait()?;
    }
    failure.map_or(Ok(json!(started)), Err)
}

fn open_many(count: &str) -> io::Result<Value> {
    let count: usize = count.parse().map_err(invalid)?;
    let files: Vec<_> = (0..count).map(|_| fs::File::open("/dev/null")).collect::<io::Result<_>>()?;
    Ok(json!(files.len()))
}

/// Raises the hard limit of open files by one.
fn raise_nofile(_: &str) -> io::Result<Value> {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.maximum = limit.maximum.map(|most| most + 1);
    rustix::process::setrlimit(Resource::Nofile, limit)?;
    Ok(Value::Null)
}

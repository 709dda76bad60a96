//! Ports are told and dialled, in whatever network a kind of host gives programs.

use std::{
    collections::{BTreeSet, HashSet},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
};

use mhnos_keeper::channel::{DialFailure, FromKeeper, Isolation, Pid, ToKeeper};
use mhnos_sandbox::Stdio;

use crate::bridge::Bridge;

/// Listens, greets who connects, and stops listening when that one has said a byte.
const SERVER: &str = "
import signal, socket, sys
server = socket.create_server((sys.argv[1], 0), family=socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
client, _ = server.accept()
client.sendall(b'hello')
client.recv(1)
server.close()
signal.pause()
";

fn serve(bridge: &mut Bridge, address: &str) -> Pid {
    let argv = ["python3", "-c", SERVER, address];
    let pid = bridge.order(&argv, Stdio::Pipes { stdin: false }, Isolation::Shared);
    bridge.started(pid).expect("starts");
    pid
}

fn ports(bridge: &mut Bridge, pid: Pid) -> Vec<u16> {
    bridge.until(|message| match message {
        FromKeeper::Ports { pid: who, ports } if *who == pid => {
            Some(ports.iter().map(|port| port.port).collect())
        }
        _ => None,
    })
}

fn dial(bridge: &mut Bridge, pid: Pid, port: u16) -> Result<TcpStream, DialFailure> {
    let asked = u32::from(port) << 8;
    bridge.send(&ToKeeper::Dial { pid, token: asked, port });
    bridge.until(|message| match message {
        FromKeeper::Dialed { token, outcome } if *token == asked => Some(*outcome),
        _ => None,
    })?;
    let socket = bridge.dialed.remove(&asked).expect("a socket came with it");
    rustix::io::ioctl_fionbio(&socket, false).expect("blocking");
    Ok(socket.into())
}

pub(crate) fn a_port_is_told_dialled_and_told_to_be_closed(bridge: &mut Bridge) {
    let mut addresses = vec!["127.0.0.1", "0.0.0.0", "127.0.0.5"];
    match TcpListener::bind("[::1]:0") {
        Ok(_) => addresses.extend(["::1", "::"]),
        // A container may have none.
        Err(error) => println!("this host has no IPv6: {error}"),
    }
    for address in addresses {
        let pid = serve(bridge, address);
        let open = ports(bridge, pid);
        assert_eq!(open.len(), 1, "{address}");
        let mut stream = dial(bridge, pid, open[0]).expect(address);
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting).expect("it speaks");
        assert_eq!(&greeting, b"hello");
        stream.write_all(b"x").expect("it listens");
        assert_eq!(ports(bridge, pid), [0; 0], "{address}");
        assert_eq!(dial(bridge, pid, open[0]).expect_err("closed"), DialFailure::Refused);
        bridge.kill(pid);
        bridge.ended(pid);
        assert_eq!(dial(bridge, pid, open[0]).expect_err("ended"), DialFailure::Gone);
    }
}

pub(crate) fn ports_are_told_of_whose_they_are_and_dialled_there_alone(bridge: &mut Bridge) {
    let foreign = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let of_host = foreign.local_addr().expect("bound").port();
    // Each in a descendant, all at the same time.
    let nested = format!("(setsid python3 -c \"$0\" 127.0.0.1 & wait); {}", "exit 0");
    let pids: Vec<Pid> = (0..4)
        .map(|_| {
            let argv = ["sh", "-c", nested.as_str(), SERVER];
            bridge.order(&argv, Stdio::Pipes { stdin: false }, Isolation::Shared)
        })
        .collect();
    let mut all = BTreeSet::new();
    let mut open = Vec::new();
    for pid in &pids {
        bridge.started(*pid).expect("starts");
        let own = ports(bridge, *pid);
        assert_eq!(own.len(), 1, "{own:?}");
        assert!(all.insert(own[0]), "told twice");
        open.push(own[0]);
    }
    for (index, pid) in pids.iter().enumerate() {
        let others = open[(index + 1) % open.len()];
        assert_eq!(dial(bridge, *pid, others).expect_err("another's"), DialFailure::Refused);
        assert_eq!(dial(bridge, *pid, of_host).expect_err("the host's"), DialFailure::Refused);
        dial(bridge, *pid, open[index]).expect("its own");
    }
    for pid in pids {
        bridge.kill(pid);
        bridge.ended(pid);
    }
    TcpStream::connect(foreign.local_addr().expect("bound")).expect("the host's does listen");
}

pub(crate) fn ports_are_told_to_the_next_bridge(bridge: &mut Bridge) {
    if bridge.generation == 1 {
        let pid = serve(bridge, "127.0.0.1");
        assert_eq!(ports(bridge, pid).len(), 1);
        std::process::exit(9);
    }
    let (pid, port) = bridge.adopted_ports[0];
    dial(bridge, pid, port).expect("still there");
    bridge.kill(pid);
    bridge.ended(pid);
}

/// What sees listen(2) is a supervisor's, for one program after the other.
pub(crate) fn each_program_of_a_supervisor_has_its_ports_seen(bridge: &mut Bridge) {
    let marker = bridge.marker();
    let mut supervisors = HashSet::new();
    loop {
        let argv = ["python3", "-c", SERVER, "127.0.0.1", &marker];
        let pid = bridge.order(&argv, Stdio::Pipes { stdin: false }, Isolation::Shared);
        bridge.started(pid).expect("starts");
        let open = ports(bridge, pid);
        let _stream = dial(bridge, pid, open[0]).expect("it listens");
        let again = !supervisors.insert(bridge.supervisor(&marker));
        bridge.kill(pid);
        bridge.ended(pid);
        if again {
            return;
        }
        assert!(supervisors.len() < 32, "no supervisor has another program");
    }
}

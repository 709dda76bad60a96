//! A keeper may have so many descriptors, and its user so many on their way. At either limit nothing is lost but what is
//! refused.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::AsFd,
};

use mhnos_keeper::{
    channel::{FromKeeper, Isolation, Pid, ToKeeper},
    socket::{Blocking, Socket},
};
use mhnos_sandbox::Stdio;
use mhnos_testing::waive;
use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg,
        sendmsg,
    },
};

use crate::bridge::Bridge;

/// Descriptors the keeper may have open at once.
const DESCRIPTORS: u64 = 160;

/// Gives this process, about to be the keeper, no more than [`DESCRIPTORS`].
pub(crate) fn limit() {
    let few = Some(DESCRIPTORS);
    let limit = rustix::process::Rlimit { current: few, maximum: few };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("fewer than there were");
}

/// It orders until nothing more is to be had, and dies. The keeper has kept what it needs for another, which is told of all.
pub(crate) fn the_next_bridge_starts_and_adopts_although_all_descriptors_were_taken(bridge: &mut Bridge) {
    let told =
        std::path::Path::new(&std::env::var("WORKSPACE").expect("workspace")).with_extension("started");
    if bridge.generation == 1 {
        let mut started = 0;
        loop {
            let pid = bridge.order(&["sleep", "1000"], Stdio::Pipes { stdin: false }, Isolation::Shared);
            match bridge.started(pid) {
                Ok(_) => started += 1,
                Err(failure) if failure.errno == libc::EMFILE => break,
                Err(failure) => panic!("{failure:?}"),
            }
        }
        std::fs::write(&told, started.to_string()).expect("write");
        std::process::exit(9);
    }
    let started: usize = std::fs::read_to_string(&told).expect("read").parse().expect("a number");
    std::fs::remove_file(&told).expect("it is there");
    assert!(started > 5, "{started}");
    assert_eq!(bridge.adopted.len(), started);
    // The number of what was refused is not told.
    bridge.next = u32::MAX / 2;
    let all: Vec<Pid> = bridge.adopted.iter().map(|(pid, ..)| *pid).collect();
    for pid in all {
        assert!(bridge.fds.contains_key(&pid), "{pid} has no descriptors");
        bridge.kill(pid);
        bridge.ended(pid);
        bridge.send(&ToKeeper::Forget { pid });
    }
    assert_eq!(bridge.run("echo still here").0, "still here\n");
}

/// What goes with descriptors waits until others of its user have arrived (unix(7), `ETOOMANYREFS`).
pub(crate) fn an_order_waits_while_too_many_descriptors_are_on_their_way(bridge: &mut Bridge) {
    // More than wait ahead, so that some need a new supervisor, and more than once.
    for _ in 0..2 {
        let (ours, theirs) = Socket::pair(Blocking::No).expect("a pair");
        if !fill(&ours, &theirs) {
            return waive(
                "all of it",
                "the bridge of this kind of host may send as many descriptors as it likes",
            );
        }
        let order = |_| bridge.order(&["echo", "x"], Stdio::Pipes { stdin: true }, Isolation::Shared);
        let ordered: Vec<Pid> = (0..6).map(order).collect();
        // Answered when the keeper has dealt with what was ordered before.
        bridge.send(&ToKeeper::Dial { pid: 0, token: 0, port: 80 });
        bridge.until(|message| match message {
            FromKeeper::Dialed { .. } => Some(()),
            FromKeeper::Started { .. } => panic!("descriptors arrive"),
            _ => None,
        });
        drop((ours, theirs));
        for pid in ordered {
            bridge.started(pid).expect("starts");
            assert_eq!(bridge.output(pid), "x\n");
            bridge.ended(pid);
            bridge.send(&ToKeeper::Forget { pid });
        }
    }
}

/// How many go with one message at first.
const FEW: usize = 4;

/// The most that one message may carry: the kernel's `SCM_MAX_FD`.
const MOST: usize = 253;

/// Sends descriptors to nobody who receives them until no more may be sent, however many of others arrive meanwhile: the kernel
/// counts before it adds, so the last message goes far beyond the limit. False if there is no such limit.
fn fill(ours: &Socket, theirs: &Socket) -> bool {
    if (0..2 * DESCRIPTORS).all(|_| attach::<FEW>(ours)) {
        return false;
    }
    // Who sends beside this may have what one that is received gives free: then another.
    while !attach::<MOST>(ours) {
        let (mut space, mut byte) = ([MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FEW))], [0]);
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(theirs, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty());
        assert_eq!(received.expect("one of those sent").bytes, 1);
    }
    true
}

/// Sends so many; false if too many are on their way.
fn attach<const MANY: usize>(channel: &Socket) -> bool {
    let null = std::fs::File::open("/dev/null").expect("it is there");
    let fds = [null.as_fd(); MANY];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    match sendmsg(channel, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL) {
        Ok(_) => true,
        Err(Errno::TOOMANYREFS) => false,
        Err(errno) => panic!("send: {errno}"),
    }
}

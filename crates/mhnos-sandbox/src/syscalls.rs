//! Which system calls a program may make: commented data, compiled by [`filter`](crate::filter).
//!
//! The list was drawn from a census of node, python, workerd, bash, git, gcc, npm and pip at work, and holds
//! what ordinary programs use or probe for. Everything that is not named here fails with ENOSYS, as a call
//! of a newer kernel does on an older one: libraries then fall back, where EPERM would make them give up.

use libc::{
    AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, EAFNOSUPPORT, EINVAL, ENOSYS, EOPNOTSUPP, EPERM, IPPROTO_TCP,
    IPPROTO_UDP, MSG_FASTOPEN, NETLINK_ROUTE, SOCK_DGRAM, SOCK_STREAM,
};

use crate::{
    Mode,
    filter::{Rule, Test},
};

/// `CLONE_NEW*`: a program gets no namespace of its own, where it would have every capability.
const NAMESPACE_FLAGS: u32 = 0x7E02_0000;
/// Types text into another program's terminal.
const TIOCSTI: u32 = 0x5412;
/// The same for a virtual console, and more.
const TIOCLINUX: u32 = 0x541C;
/// Attaches a line discipline: kernel code with a long record of bugs.
const TIOCSETD: u32 = 0x5423;
/// The type of a socket without SOCK_CLOEXEC and SOCK_NONBLOCK.
const SOCKET_TYPE: u32 = 0xF;

/// `PRIO_PROCESS`.
const PRIORITY_OF_PROCESS: u32 = 0;
/// `IOPRIO_WHO_PROCESS`.
const IO_PRIORITY_OF_PROCESS: u32 = 1;

/// Shared memory of System V where nothing counts it: segments below 64 KiB, as many of which as there may be are
/// 256 MiB. What databases and interpreters ask for by this call is a page.
const SEGMENT_BITS: u32 = 16;
/// The same for semaphores of one set; a power of two less one.
const SEMAPHORES: u32 = 255;

/// What the rules depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) mode: Mode,
    /// Programs see the host's processes, files and IPC.
    pub(crate) shares_host: bool,
    /// Datagrams go no further than programs may: not where the network is the host's, because no rule knows their
    /// destination.
    pub(crate) datagrams: bool,
    /// Control groups bound the memory of a tree.
    pub(crate) grouped: bool,
    /// Sockets with a path may be connected to: there are none but the programs' own.
    pub(crate) unix_sockets: bool,
}

/// All rules for these programs, by system call number. Of two for a number the later one holds.
pub(crate) fn rules(profile: Profile) -> Vec<(u32, Rule)> {
    let Profile { mode, .. } = profile;
    let mut rules: Vec<(u32, Rule)> = Vec::new();
    let numbered = |calls: &[Call], rule: &Rule| -> Vec<(u32, Rule)> {
        calls.iter().map(|(number, _)| (*number as u32, rule.clone())).collect()
    };
    rules.extend(numbered(ALLOWED, &Rule::Allow));
    rules.extend(numbered(ALLOWED_BY_NUMBER, &Rule::Allow));
    rules.extend(numbered(LEGACY, &Rule::Allow));
    rules.extend(numbered(PRIVILEGED, &Rule::Errno(EPERM)));
    rules.extend(numbered(PRIVILEGED_LEGACY, &Rule::Errno(EPERM)));
    rules.extend(numbered(DEBUGGING, &if mode == Mode::Relaxed { Rule::Allow } else { Rule::Errno(EPERM) }));
    rules.extend(restricted(profile.unix_sockets, profile.datagrams));
    rules.extend(own_process_only());
    if !profile.grouped {
        // Memory that belongs to no process: only a control group counts it.
        rules.push((libc::SYS_memfd_create as u32, Rule::Errno(ENOSYS)));
        rules.extend(small_objects());
    }
    if profile.shares_host {
        // Objects of the whole host, which no rule for files covers.
        rules.extend(numbered(HOST_IPC, &Rule::Errno(ENOSYS)));
    }
    rules
}

/// What reaches another process of the same user by its number, and is no signal: a program may do it to
/// itself alone, which is number 0. A supervisor that may open no file, or has its turn last, holds nobody to a limit.
fn own_process_only() -> Vec<(u32, Rule)> {
    let first_is_zero = || Rule::only_if(vec![vec![Test::equal(0, 0)]], EPERM);
    let own = |kind| Rule::only_if(vec![vec![Test::equal(0, kind), Test::equal(1, 0)]], EPERM);
    vec![
        (libc::SYS_prlimit64 as u32, first_is_zero()),
        (libc::SYS_sched_setscheduler as u32, first_is_zero()),
        (libc::SYS_sched_setparam as u32, first_is_zero()),
        (libc::SYS_sched_setattr as u32, first_is_zero()),
        (libc::SYS_sched_setaffinity as u32, first_is_zero()),
        (libc::SYS_setpriority as u32, own(PRIORITY_OF_PROCESS)),
        (libc::SYS_ioprio_set as u32, own(IO_PRIORITY_OF_PROCESS)),
    ]
}

/// System V objects, which the kernel keeps when all their processes have ended, as if its own bounds for one were lower.
/// There are at most 4096 segments and 32,000 sets of semaphores in a namespace.
fn small_objects() -> Vec<(u32, Rule)> {
    let segments = Rule::only_if(vec![Test::below_power(1, SEGMENT_BITS).to_vec()], EINVAL);
    let semaphores = Rule::only_if(vec![vec![Test::masked(1, !SEMAPHORES, 0)]], EINVAL);
    vec![(libc::SYS_shmget as u32, segments), (libc::SYS_semget as u32, semaphores)]
}

/// Calls that depend on their arguments.
fn restricted(unix_sockets: bool, datagrams: bool) -> Vec<(u32, Rule)> {
    let socket_kinds =
        [(SOCK_STREAM, 0), (SOCK_STREAM, IPPROTO_TCP), (SOCK_DGRAM, 0), (SOCK_DGRAM, IPPROTO_UDP)];
    let mut sockets = Vec::new();
    if unix_sockets {
        sockets.push(vec![Test::equal(0, AF_UNIX as u32)]);
    }
    for family in [AF_INET, AF_INET6] {
        for (kind, protocol) in socket_kinds.into_iter().filter(|(kind, _)| datagrams || *kind != SOCK_DGRAM)
        {
            sockets.push(vec![
                Test::equal(0, family as u32),
                Test::masked(1, SOCKET_TYPE, kind as u32),
                Test::equal(2, protocol as u32),
            ]);
        }
    }
    // Interface and address lists; no other netlink protocol.
    sockets.push(vec![Test::equal(0, AF_NETLINK as u32), Test::equal(2, NETLINK_ROUTE as u32)]);
    let no_fast_open =
        |argument| Rule::unless(vec![vec![Test::any(argument, MSG_FASTOPEN as u32)]], EOPNOTSUPP);
    let terminals = [TIOCSTI, TIOCLINUX, TIOCSETD].map(|request| vec![Test::equal(1, request)]);
    vec![
        (libc::SYS_clone as u32, Rule::unless(vec![vec![Test::any(0, NAMESPACE_FLAGS)]], EPERM)),
        // Its flags are in memory, which a filter cannot read; libc falls back to clone.
        (libc::SYS_clone3 as u32, Rule::Errno(ENOSYS)),
        (libc::SYS_ioctl as u32, Rule::unless(terminals.to_vec(), EPERM)),
        // The default and the question; other personalities switch protections off.
        (
            libc::SYS_personality as u32,
            Rule::only_if(vec![vec![Test::equal(0, 0)], vec![Test::equal(0, u32::MAX)]], EPERM),
        ),
        (libc::SYS_socket as u32, Rule::only_if(sockets, EAFNOSUPPORT)),
        (
            libc::SYS_socketpair as u32,
            Rule::only_if(vec![vec![Test::equal(0, AF_UNIX as u32)]], EAFNOSUPPORT),
        ),
        // A connection that begins with data passes by every rule for connect.
        (libc::SYS_sendto as u32, no_fast_open(3)),
        (libc::SYS_sendmsg as u32, no_fast_open(2)),
        (libc::SYS_sendmmsg as u32, no_fast_open(3)),
        // The whole machine's disks are not a program's to flush; it may believe that they were.
        (libc::SYS_sync as u32, Rule::Errno(0)),
    ]
}

/// A call's number here, and its name.
type Call = (i64, &'static str);

macro_rules! calls {
    ($($name:ident)*) => { &[$((libc::$name, stringify!($name))),*] };
}

/// Calls both architectures have.
const ALLOWED: &[Call] = calls! {
    SYS_accept SYS_accept4 SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir SYS_clock_getres SYS_clock_gettime
    SYS_clock_nanosleep SYS_close SYS_close_range SYS_connect SYS_copy_file_range SYS_dup SYS_dup3
    SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_execve SYS_execveat SYS_exit
    SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fchdir SYS_fchmod SYS_fchmodat
    SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync SYS_fgetxattr SYS_flistxattr SYS_flock
    SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs SYS_fsync SYS_ftruncate SYS_futex SYS_futex_waitv
    SYS_get_robust_list SYS_getcpu SYS_getcwd SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups
    SYS_getitimer SYS_getpeername SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom SYS_getresgid
    SYS_getresuid SYS_getrlimit SYS_getrusage SYS_getsid SYS_getsockname SYS_getsockopt SYS_gettid
    SYS_gettimeofday SYS_getuid SYS_getxattr SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch
    SYS_ioprio_get SYS_kill SYS_landlock_add_rule SYS_landlock_create_ruleset
    SYS_landlock_restrict_self SYS_lgetxattr SYS_linkat SYS_listen SYS_listxattr SYS_llistxattr SYS_lremovexattr
    SYS_lseek SYS_lsetxattr SYS_madvise SYS_membarrier SYS_memfd_create SYS_mincore SYS_mkdirat SYS_mknodat
    SYS_mlock SYS_mlock2 SYS_mlockall SYS_mmap SYS_mprotect SYS_mq_getsetattr SYS_mq_notify SYS_mq_open
    SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink SYS_mremap SYS_msgctl SYS_msgget SYS_msgrcv SYS_msgsnd
    SYS_msync SYS_munlock SYS_munlockall SYS_munmap SYS_nanosleep SYS_newfstatat SYS_openat SYS_openat2
    SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_pkey_alloc SYS_pkey_free SYS_pkey_mprotect SYS_ppoll
    SYS_prctl SYS_pread64 SYS_preadv SYS_preadv2 SYS_pselect6 SYS_pwrite64 SYS_pwritev SYS_pwritev2
    SYS_read SYS_readahead SYS_readlinkat SYS_readv SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_removexattr
    SYS_renameat SYS_renameat2 SYS_restart_syscall SYS_rseq SYS_rt_sigaction SYS_rt_sigpending SYS_rt_sigprocmask
    SYS_rt_sigqueueinfo SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait SYS_rt_tgsigqueueinfo
    SYS_sched_get_priority_max SYS_sched_get_priority_min SYS_sched_getaffinity SYS_sched_getattr
    SYS_sched_getparam SYS_sched_getscheduler SYS_sched_rr_get_interval
    SYS_sched_yield SYS_seccomp SYS_semctl SYS_semget SYS_semop
    SYS_semtimedop SYS_sendfile SYS_set_robust_list SYS_set_tid_address SYS_setfsgid SYS_setfsuid SYS_setgid
    SYS_setgroups SYS_setitimer SYS_setpgid SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid
    SYS_setrlimit SYS_setsid SYS_setsockopt SYS_setuid SYS_setxattr SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget
    SYS_shutdown SYS_sigaltstack SYS_signalfd4 SYS_splice SYS_statfs SYS_statx SYS_symlinkat SYS_sync_file_range
    SYS_syncfs SYS_sysinfo SYS_tee SYS_tgkill SYS_timer_create SYS_timer_delete SYS_timer_getoverrun
    SYS_timer_gettime SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime SYS_timerfd_settime SYS_times
    SYS_tkill SYS_truncate SYS_umask SYS_uname SYS_unlinkat SYS_utimensat SYS_wait4 SYS_waitid SYS_write SYS_writev
};

/// The same, of those that libc does not name everywhere: from 424 on all architectures have the same numbers.
///
/// cachestat (451) is not among them: until Linux 6.13 it told of any readable file what others had read of it lately, and nothing
/// needs it.
const ALLOWED_BY_NUMBER: &[Call] = &[
    (452, "SYS_fchmodat2"),
    (453, "SYS_map_shadow_stack"),
    (454, "SYS_futex_wake"),
    (455, "SYS_futex_wait"),
    (456, "SYS_futex_requeue"),
    (462, "SYS_mseal"),
    (463, "SYS_setxattrat"),
    (464, "SYS_getxattrat"),
    (465, "SYS_listxattrat"),
    (466, "SYS_removexattrat"),
];

/// System V objects and message queues.
const HOST_IPC: &[Call] = calls! {
    SYS_mq_getsetattr SYS_mq_notify SYS_mq_open SYS_mq_timedreceive SYS_mq_timedsend SYS_mq_unlink SYS_msgctl
    SYS_msgget SYS_msgrcv SYS_msgsnd SYS_semctl SYS_semget SYS_semop SYS_semtimedop SYS_shmat SYS_shmctl SYS_shmdt
    SYS_shmget
};

/// Older forms that only x86_64 has.
#[cfg(target_arch = "x86_64")]
const LEGACY: &[Call] = calls! {
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create SYS_epoll_wait
    SYS_eventfd SYS_fork SYS_futimesat SYS_getdents SYS_getpgrp SYS_inotify_init SYS_lchown SYS_link SYS_lstat
    SYS_mkdir SYS_mknod SYS_open SYS_pause SYS_pipe SYS_poll SYS_readlink SYS_rename SYS_rmdir SYS_select
    SYS_signalfd SYS_stat SYS_symlink SYS_time SYS_unlink SYS_utime SYS_utimes SYS_vfork
};

/// aarch64 never had the older forms.
#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &[Call] = &[];

/// Debuggers' calls: only `relaxed` allows them.
const DEBUGGING: &[Call] = calls! { SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev };

/// Calls that say "not permitted" because programs ask them expecting just that.
const PRIVILEGED: &[Call] = calls! {
    SYS_acct SYS_add_key SYS_adjtimex SYS_bpf SYS_chroot SYS_clock_adjtime SYS_clock_settime SYS_delete_module
    SYS_fanotify_init SYS_fanotify_mark SYS_finit_module SYS_get_mempolicy SYS_init_module SYS_io_cancel
    SYS_io_destroy SYS_io_getevents SYS_io_setup SYS_io_submit SYS_kcmp SYS_kexec_file_load SYS_kexec_load
    SYS_keyctl SYS_mbind SYS_migrate_pages SYS_mount SYS_move_pages SYS_name_to_handle_at
    SYS_open_by_handle_at SYS_perf_event_open SYS_pidfd_getfd SYS_pivot_root SYS_process_madvise SYS_quotactl
    SYS_reboot SYS_remap_file_pages SYS_request_key SYS_set_mempolicy SYS_setdomainname SYS_sethostname SYS_setns
    SYS_settimeofday SYS_swapoff SYS_swapon SYS_syslog SYS_umount2 SYS_unshare SYS_userfaultfd SYS_vhangup
    SYS_vmsplice
};

/// The same, of those that only x86_64 has, or that libc names there only.
#[cfg(target_arch = "x86_64")]
const PRIVILEGED_LEGACY: &[Call] =
    calls! { SYS_ioperm SYS_iopl SYS_memfd_secret SYS_modify_ldt SYS_process_mrelease };

#[cfg(not(target_arch = "x86_64"))]
const PRIVILEGED_LEGACY: &[Call] = &[];

/// The name, without its prefix, of a call that both architectures have and that has a rule here.
#[cfg(test)]
pub(crate) fn common_name(number: u32) -> Option<&'static str> {
    const RESTRICTED: &[Call] = calls! {
        SYS_clone SYS_clone3 SYS_ioctl SYS_ioprio_set SYS_personality SYS_prlimit64 SYS_sched_setaffinity
        SYS_sched_setattr SYS_sched_setparam SYS_sched_setscheduler SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_setpriority
        SYS_socket SYS_socketpair SYS_sync
    };
    let mut all =
        [ALLOWED, ALLOWED_BY_NUMBER, HOST_IPC, DEBUGGING, PRIVILEGED, RESTRICTED].into_iter().flatten();
    let legacy = LEGACY.iter().chain(PRIVILEGED_LEGACY).any(|(own, _)| *own == i64::from(number));
    let found = all.find(|(own, _)| *own == i64::from(number));
    assert!(legacy || found.is_some(), "call {number} has a rule and no name");
    found.and_then(|(_, name)| name.strip_prefix("SYS_"))
}

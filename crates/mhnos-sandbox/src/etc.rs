//! A curated `/etc`: what resolvers, linkers, TLS and shells read, and nothing that says who else lives on
//! the host. Small files are copied, so that a sandbox costs no mount for each; accounts and host names are
//! written new.

use std::{collections::BTreeMap, fs, io, path::Path};

use crate::policy::{HOST_NAME, USER};

/// Directories that are bound as they are.
pub(crate) const DIRECTORIES: [&str; 10] = [
    "alternatives",
    "ca-certificates",
    "fonts",
    "ld.so.conf.d",
    "pki",
    "profile.d",
    "python3",
    "python3.11",
    "ssl",
    "terminfo",
];

/// Files that are copied where they exist.
const FILES: [&str; 20] = [
    "bash.bashrc",
    "ca-certificates.conf",
    "debian_version",
    "environment",
    "gai.conf",
    "gitconfig",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "localtime",
    "lsb-release",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "profile",
    "protocols",
    "resolv.conf",
    "services",
];

/// Everything that programs may read where the host's own `/etc` shows.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    DIRECTORIES.into_iter().chain(FILES).chain(["group", "hostname", "hosts", "passwd"])
}

/// A file larger than this is not copied: none of the list comes near it.
const MAX_FILE: u64 = 256 * 1024;

/// The files of a sandbox's `/etc`.
pub(crate) struct Etc(BTreeMap<&'static str, Vec<u8>>);

/// Reads the host's part and writes the sandbox's own.
pub(crate) fn collect(uid: u32, gid: u32, own_network: bool) -> Etc {
    let mut files: BTreeMap<&'static str, Vec<u8>> = FILES
        .into_iter()
        .filter_map(|name| {
            let path = Path::new("/etc").join(name);
            let small = fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_FILE);
            small.then(|| fs::read(&path).ok()).flatten().map(|content| (name, content))
        })
        .collect();
    files.insert("hostname", format!("{HOST_NAME}\n").into_bytes());
    files.insert(
        "hosts",
        format!("127.0.0.1\tlocalhost {HOST_NAME}\n::1\tlocalhost {HOST_NAME}\n").into_bytes(),
    );
    if own_network {
        // The host's servers are out of reach; the service answers there.
        files.insert("resolv.conf", b"nameserver 127.0.0.1\n".to_vec());
    }
    files.insert("passwd", accounts(uid, gid).into_bytes());
    files.insert("group", groups(gid).into_bytes());
    Etc(files)
}

fn accounts(uid: u32, gid: u32) -> String {
    let own = format!("{USER}:x:{uid}:{gid}:MHNOS:/workspace:/bin/bash\n");
    let root = if uid == 0 { "" } else { "root:x:0:0:root:/root:/usr/sbin/nologin\n" };
    format!("{root}{own}nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n")
}

fn groups(gid: u32) -> String {
    let root = if gid == 0 { "" } else { "root:x:0:\n" };
    format!("{root}{USER}:x:{gid}:\ntty:x:5:\nnogroup:x:65534:\n")
}

impl Etc {
    /// Writes the files below the current directory.
    pub(crate) fn write(&self) -> io::Result<()> {
        fs::create_dir_all("etc")?;
        for (name, content) in &self.0 {
            fs::write(Path::new("etc").join(name), content)?;
        }
        std::os::unix::fs::symlink("/proc/self/mounts", "etc/mtab")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_accounts_do_not_show() {
        let etc = collect(1234, 1234, true);
        let passwd = String::from_utf8(etc.0["passwd"].clone()).expect("text");
        assert!(passwd.contains("mhnos:x:1234:1234:"));
        assert_eq!(passwd.lines().count(), 3);
        assert!(!etc.0.contains_key("shadow"));
        assert_eq!(etc.0["resolv.conf"], b"nameserver 127.0.0.1\n");
    }
}

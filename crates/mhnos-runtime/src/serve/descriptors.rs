//! Open files: a service manager, a container or a shell gives a program 1024 of them unless it asks for more, for the
//! sake of select(2), which nothing here uses. Programs have a limit of their own (`mhnos-sandbox::confine`).

use mhnos_protocol::doctor::Finding;
use mhnos_server::{config::Config, descriptors::needed};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises this process's limit as far as it may; bridges inherit it. Says what is too low for the settings.
pub(super) fn raise(config: &Config) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    if let Finding { reason: Some(reason), remedy: Some(remedy), .. } = examine(config) {
        tracing::warn!("{reason}; {remedy}");
    }
}

/// Whether the hard limit is enough.
pub(crate) fn examine(config: &Config) -> Finding {
    let (given, needed) = (getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX), needed(config));
    let ok = given >= needed;
    let short = |text: String| (!ok).then_some(text);
    Finding {
        name: "open-files".to_owned(),
        ok,
        reason: short(format!(
            "{given} open files are allowed, and all clients, previews and programs' connections that are allowed take {needed}"
        )),
        remedy: short(format!(
            "set the hard limit to {needed} or more (`ulimit -Hn`, `docker run --ulimit nofile={needed}`, LimitNOFILE=), or \
             MHNOS_MAX_CONNECTIONS and MHNOS_MAX_PROCESSES lower: beyond it clients wait, and programs get half as many connections as files"
        )),
    }
}

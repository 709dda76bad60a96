//! The settings of the service: read once, checked as a whole, then never questioned again.
//!
//! [`SETTINGS`] is the one list of them. An environment variable, the flag of `serve` with the same name,
//! the help text and docs/configuration.md all come from a line of that table. Parsing is a pure function
//! of what it is given; every mistake is found in one pass, and a [`Config`] exists only without any.

mod reference;
mod secret;
mod settings;
mod values;

use std::{collections::HashSet, ffi::OsString, fmt, net::IpAddr, path::PathBuf, time::Duration};

pub use reference::reference;
pub use secret::{GivenToken, SecretText};
pub use settings::{SETTINGS, Setting};

use crate::{door::OriginPattern, limits};
use mhnos_network::{Egress, Upstream};
use mhnos_runtimes::ServiceEnvironment;
use mhnos_sandbox::{Mode, Tier};

/// For [`Config::workspace_quota`]: no bound.
pub const NO_QUOTA: u64 = u64::MAX;

/// The effective settings. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// TCP port; 0 lets the kernel choose.
    pub port: u16,
    /// The directory processes work in.
    pub workspace: PathBuf,
    /// What isolation is asked for.
    pub sandbox: Mode,
    /// Whether the `openclaw` process type may be used.
    pub allow_openclaw: bool,
    /// Processes running at once, at least 1.
    pub max_processes: usize,
    /// Memory of one process with its descendants.
    pub max_memory: u64,
    /// The least important lines that are logged.
    pub log_level: LogLevel,
    /// Addresses to listen on, at least one.
    pub hosts: Vec<IpAddr>,
    /// The operator vouches for the network of a non-loopback address.
    pub trust_network: bool,
    /// Web origins let in beside the loopback ones.
    pub allowed_origins: Vec<OriginPattern>,
    /// The names of previews end with this.
    pub preview_domain: String,
    /// The token that clients must show, if it was given in the environment.
    pub auth_token: GivenToken,
    /// A file with tokens.
    pub auth_token_file: Option<PathBuf>,
    /// The certificate chain, in PEM form; there if and only if the key is.
    pub tls_cert: Option<PathBuf>,
    /// Its private key.
    pub tls_key: Option<PathBuf>,
    /// WebSockets open at once.
    pub max_connections: usize,
    /// Those of one address.
    pub max_connections_per_address: usize,
    /// Between two pings of the service.
    pub ping_interval: Duration,
    /// Processes and threads of one process tree.
    pub max_pids: u32,
    /// CPU of one process tree, in thousandths of a core.
    pub max_cpu_millis: u32,
    /// Bytes the workspace may hold, or [`NO_QUOTA`].
    pub workspace_quota: u64,
    /// Output kept per process.
    pub output_log: u64,
    /// Time between the signal and SIGKILL.
    pub kill_grace: Duration,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where who did what is written down.
    pub audit_log: AuditLog,
    /// What programs with a network of their own may reach.
    pub egress: Egress,
    /// Bytes a second of one such network; 0 is no bound.
    pub egress_rate: u64,
    /// The proxy through which this machine reaches what is public, if it needs one.
    pub upstream_proxy: Option<Upstream>,
    /// The weakest isolation tier to start with.
    pub sandbox_min_tier: Tier,
    /// Names that a pull passes over, wherever they stand.
    pub pull_skip: Vec<String>,
    /// Directories in which programs are found, separated by colons.
    pub path: String,
    /// The few other variables that processes get: `LANG`, `LC_ALL`, `TZ`, `DEBUG`, `SHELL`.
    pub children: ServiceEnvironment,
}

/// The least important lines that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Ordinary traffic too.
    Debug,
    /// Events in the life of the service and its processes.
    Info,
    /// What an operator should look into.
    Warn,
    /// What failed.
    Error,
}

impl LogLevel {
    /// The name used in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text if the log goes to a terminal, else JSON.
    ByTerminal,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// The name used in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ByTerminal => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Where who did what is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditLog {
    /// Nowhere.
    Off,
    /// On standard output.
    Stdout,
    /// In a file.
    File(PathBuf),
}

/// A value that stops the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The variable or flag, as the operator wrote it.
    pub name: String,
    /// The value as given.
    pub value: String,
    /// What is accepted instead, as the end of a sentence.
    pub accepts: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?}: expected {}", self.name, self.value, self.accepts)
    }
}

/// Something odd that does not stop the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub String);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Config {
    /// The settings from an environment and from flags of `serve` (name with its dashes, value). A flag
    /// wins over the variable; of two equal flags the last wins. A variable that is set but empty counts as
    /// not set, as compose files leave them. Of variables that do not start with `MHNOS_` only those of
    /// [`Config::children`] are looked at; one that is not UTF-8 counts as not set.
    ///
    /// All mistakes are returned together, in the order of [`SETTINGS`], those of unknown flags last.
    pub fn parse(
        env: impl Iterator<Item = (OsString, OsString)>,
        flags: &[(String, String)],
    ) -> Result<(Self, Vec<Warning>), Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut given = Vec::new();
        let mut warnings = Vec::new();
        let mut config = Self::default();
        for (name, value) in env {
            let Some(name) = name.to_str() else { continue };
            if !name.starts_with("MHNOS_") {
                config.children_get(name, value.to_str());
                continue;
            }
            match SETTINGS.iter().position(|setting| setting.variable == name) {
                None => warnings.push(unknown_variable(name)),
                Some(_) if value.is_empty() => {}
                Some(index) => given.push((index, name.to_owned(), value)),
            }
        }
        for (flag, value) in flags {
            match SETTINGS.iter().position(|setting| setting.flag() == *flag) {
                None => mistakes.push(unknown_flag(flag, value)),
                Some(index) => given.push((index, flag.clone(), value.into())),
            }
        }
        // Stable: a flag stays behind the variable of the same setting and so overwrites it.
        given.sort_by_key(|(index, ..)| *index);

        let mut wrong = Vec::new();
        for (index, name, value) in given {
            let setting = &SETTINGS[index];
            if setting.is_secret() && name.starts_with("--") {
                wrong.push(secret_flag(setting));
                continue;
            }
            let applied = value.to_str().ok_or(()).and_then(|text| (setting.apply)(&mut config, text));
            if applied.is_err() {
                let hidden = setting.is_secret().then(|| secret::HIDDEN.to_owned());
                let value = hidden.unwrap_or_else(|| value.to_string_lossy().into_owned());
                wrong.push(Mistake { name, value, accepts: setting.accepts.to_owned() });
            }
        }
        wrong.extend(config.untrusted_network());
        wrong.extend(config.half_of_tls());
        wrong.append(&mut mistakes);
        if wrong.is_empty() { Ok((config, warnings)) } else { Err(wrong) }
    }

    /// The settings as variables that [`Config::parse`] reads back to the same value (but for
    /// [`Config::children`]), in the order of [`SETTINGS`].
    pub fn effective(&self) -> impl Iterator<Item = (&'static str, String)> {
        SETTINGS.iter().map(|setting| (setting.variable, (setting.show)(self)))
    }

    /// A certificate is of no use without its key, nor a key without its certificate.
    fn half_of_tls(&self) -> Option<Mistake> {
        let (given, path, missing) = match (&self.tls_cert, &self.tls_key) {
            (Some(path), None) => ("MHNOS_TLS_CERT", path, "MHNOS_TLS_KEY"),
            (None, Some(path)) => ("MHNOS_TLS_KEY", path, "MHNOS_TLS_CERT"),
            _ => return None,
        };
        let accepts = format!("{missing} beside it: both, or none for plain HTTP");
        Some(Mistake { name: given.to_owned(), value: path.display().to_string(), accepts })
    }

    /// Whether clients must show a token.
    pub fn asks_for_a_token(&self) -> bool {
        self.auth_token != GivenToken::None || self.auth_token_file.is_some()
    }

    fn children_get(&mut self, name: &str, value: Option<&str>) {
        let children = &mut self.children;
        let field = match name {
            "LANG" => &mut children.lang,
            "LC_ALL" => &mut children.lc_all,
            "TZ" => &mut children.tz,
            "DEBUG" => &mut children.debug,
            "SHELL" => &mut children.shell,
            _ => return,
        };
        *field = value.filter(|value| !value.is_empty()).map(str::to_owned);
    }

    /// The service runs code for whoever reaches it: beyond loopback somebody has to vouch for the network.
    fn untrusted_network(&self) -> Option<Mistake> {
        let open = self.hosts.iter().find(|host| !host.is_loopback())?;
        (!self.trust_network && !self.asks_for_a_token()).then(|| Mistake {
            name: "MHNOS_HOST".to_owned(),
            value: open.to_string(),
            accepts: "a loopback address, unless clients must show a token (MHNOS_AUTH_TOKEN_FILE, \
                      MHNOS_AUTH_TOKEN), or MHNOS_TRUST_NETWORK=true says that everybody who can reach this \
                      address may run programs here (as in a container published on 127.0.0.1)"
                .to_owned(),
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            port: 18790,
            workspace: PathBuf::from("/workspace"),
            sandbox: Mode::Strict,
            allow_openclaw: false,
            max_processes: 50,
            max_memory: 1 << 30,
            log_level: LogLevel::Info,
            hosts: values::LOOPBACK.to_vec(),
            trust_network: false,
            allowed_origins: Vec::new(),
            preview_domain: "localhost".to_owned(),
            auth_token: GivenToken::None,
            auth_token_file: None,
            tls_cert: None,
            tls_key: None,
            max_connections: limits::MAX_CONNECTIONS,
            max_connections_per_address: limits::MAX_CONNECTIONS_PER_ADDRESS,
            ping_interval: limits::PING_INTERVAL,
            max_pids: 512,
            max_cpu_millis: u32::try_from(cores).unwrap_or(1) * 1000,
            workspace_quota: NO_QUOTA,
            output_log: 4 << 20,
            kill_grace: Duration::from_secs(5),
            log_format: LogFormat::ByTerminal,
            audit_log: AuditLog::Off,
            egress: Egress::default(),
            egress_rate: 0,
            upstream_proxy: None,
            sandbox_min_tier: Tier::None,
            pull_skip: mhnos_workspace::PullSettings::default().skip,
            path: "/usr/local/bin:/usr/bin:/bin".to_owned(),
            children: ServiceEnvironment::default(),
        }
    }
}

fn unknown_variable(name: &str) -> Warning {
    Warning(match closest(name, SETTINGS.iter().map(|setting| setting.variable.to_owned())) {
        Some(known) => {
            format!("{name} is not a setting of this service and is ignored; did you mean {known}?")
        }
        None => format!("{name} is not a setting of this service and is ignored"),
    })
}

/// Every account of a machine sees the arguments of every process.
fn secret_flag(setting: &Setting) -> Mistake {
    let variable = setting.variable;
    Mistake {
        name: setting.flag(),
        value: secret::HIDDEN.to_owned(),
        accepts: format!("the variable {variable} or the file {variable}_FILE: others can see flags"),
    }
}

fn unknown_flag(flag: &str, value: &str) -> Mistake {
    let known = closest(flag, SETTINGS.iter().map(Setting::flag));
    let accepts = known.map_or("a flag that --help lists".to_owned(), |known| format!("the flag {known}?"));
    Mistake { name: flag.to_owned(), value: value.to_owned(), accepts }
}

/// The candidate that `word` was meant to be, if there is one: a word of it is left out, or it is within two edits.
fn closest(word: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let words = |name: &str| name.split(['_', '-']).map(str::to_owned).collect::<HashSet<_>>();
    let given = words(word);
    let distance = |known: &str| {
        let edits = edits(word, known);
        if edits > 1 && given.is_subset(&words(known)) { 2 } else { edits * 2 }
    };
    let nearest = candidates.map(|known| (distance(&known), known)).min();
    nearest.filter(|(distance, _)| *distance <= 4).map(|(_, known)| known)
}

/// Insertions, removals and replacements between two words (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;

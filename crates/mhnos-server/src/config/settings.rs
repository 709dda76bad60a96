//! The table of settings. A line is all there is to a setting: its variable, what stands in the reference,
//! how a value is read into the [`Config`] and how it is shown.

use super::{Config, values};

/// One documented setting.
#[derive(Debug)]
pub struct Setting {
    /// The environment variable.
    pub variable: &'static str,
    /// The default, as the reference shows it.
    pub default: &'static str,
    /// What is accepted, as the end of the sentence "expected …".
    pub accepts: &'static str,
    /// What it is for, one sentence or two.
    pub about: &'static str,
    /// Reads a value into the configuration; `Err` if it is none that is accepted.
    pub(super) apply: fn(&mut Config, &str) -> Result<(), ()>,
    /// The value as text that `apply` reads back.
    pub(super) show: fn(&Config) -> String,
}

impl Setting {
    /// The flag of `serve`: `MHNOS_MAX_MEMORY` is `--max-memory`.
    pub fn flag(&self) -> String {
        let name = self.variable.strip_prefix("MHNOS_").unwrap_or(self.variable);
        format!("--{}", name.to_ascii_lowercase().replace('_', "-"))
    }

    /// Whether its value is shown to nobody; it is no flag then.
    pub fn is_secret(&self) -> bool {
        self.variable == "MHNOS_AUTH_TOKEN"
    }
}

/// Reads with a function of `values` into one field.
macro_rules! reads {
    ($field:ident, $read:expr) => {
        |config, text| {
            config.$field = $read(text).ok_or(())?;
            Ok(())
        }
    };
}

/// Every setting, in the order of the reference.
pub const SETTINGS: &[Setting] = &[
    Setting {
        variable: "MHNOS_RUNTIME_PORT",
        default: "18790",
        accepts: "a port, 1 to 65535, or 0 to let the system choose one",
        about: "TCP port for browsers and other clients. With 0 the chosen port is printed at start.",
        apply: reads!(port, values::number),
        show: |config| config.port.to_string(),
    },
    Setting {
        variable: "MHNOS_WORKSPACE",
        default: "/workspace",
        accepts: "an absolute or relative path of a directory",
        about: "The directory processes work in. Created if it is missing; must be writable by the service.",
        apply: reads!(workspace, values::path),
        show: |config| config.workspace.to_string_lossy().into_owned(),
    },
    Setting {
        variable: "MHNOS_SANDBOX",
        default: "strict",
        accepts: "strict, relaxed or none",
        about: "How processes are isolated. `strict` refuses to start where its walls cannot be built.",
        apply: reads!(sandbox, values::mode),
        show: |config| config.sandbox.as_str().to_owned(),
    },
    Setting {
        variable: "MHNOS_ALLOW_OPENCLAW",
        default: "false",
        accepts: "true or false",
        about: "Whether clients may start processes of type `openclaw`.",
        apply: reads!(allow_openclaw, values::boolean),
        show: |config| config.allow_openclaw.to_string(),
    },
    Setting {
        variable: "MHNOS_MAX_PROCESSES",
        default: "50",
        accepts: "a whole number, at least 1",
        about: "Processes that run at once. Counted when a request is admitted, so that a burst cannot pass it.",
        apply: reads!(max_processes, values::at_least_one),
        show: |config| config.max_processes.to_string(),
    },
    Setting {
        variable: "MHNOS_MAX_MEMORY",
        default: "1g",
        accepts: "a size of at least 64m: bytes, or a number with k, m, g or t (also kb, kib, …), any case",
        about: "Memory of one process together with its descendants.",
        apply: reads!(max_memory, |text| values::size(text).filter(|size| *size >= 64 << 20)),
        show: |config| config.max_memory.to_string(),
    },
    Setting {
        variable: "MHNOS_LOG_LEVEL",
        default: "info",
        accepts: "debug, info, warn or error",
        about: "The least important lines that are logged. Ordinary traffic is `debug`.",
        apply: reads!(log_level, values::log_level),
        show: |config| config.log_level.as_str().to_owned(),
    },
    Setting {
        variable: "MHNOS_HOST",
        default: "127.0.0.1,::1",
        accepts: "IP addresses separated by commas, or `localhost`",
        about: "Addresses to listen on. One that is not loopback needs a token (MHNOS_AUTH_TOKEN_FILE), or \
                MHNOS_TRUST_NETWORK=true.",
        apply: reads!(hosts, values::addresses),
        show: |config| values::joined(&config.hosts),
    },
    Setting {
        variable: "MHNOS_TRUST_NETWORK",
        default: "false",
        accepts: "true or false",
        about: "Says on purpose that everybody who can reach the addresses of MHNOS_HOST may run programs \
                here, as in a container whose port is published on 127.0.0.1 only.",
        apply: reads!(trust_network, values::boolean),
        show: |config| config.trust_network.to_string(),
    },
    Setting {
        variable: "MHNOS_ALLOWED_ORIGINS",
        default: "",
        accepts: "origins separated by commas, each `scheme://host[:port]` or, for the subdomains of a host, \
                  `https://*.example.org`",
        about: "Web pages that may connect, beside those of localhost, 127.0.0.1 and [::1] on any port.",
        apply: reads!(allowed_origins, values::origins),
        show: |config| values::joined(&config.allowed_origins),
    },
    Setting {
        variable: "MHNOS_PREVIEW_DOMAIN",
        default: "localhost",
        accepts: "a host name of which this service serves all subdomains",
        about: "Previews are served at `http://p<pid>-<port>.<domain>:<port of the service>/`. Browsers know that \
                every name below `localhost` is this machine; another domain needs a wildcard record in DNS, and HTTPS (of this \
                service's own or of a proxy in front): by plain HTTP one preview can ask another with its cookies.",
        apply: reads!(preview_domain, values::domain),
        show: |config| config.preview_domain.clone(),
    },
    Setting {
        variable: "MHNOS_AUTH_TOKEN",
        default: "",
        accepts: "16 to 512 of the characters A-Z a-z 0-9 - . _ ~ + / =, such as `openssl rand -hex 32` prints",
        about: "A token that every client must show, for everything but the short answer to `GET /health`: see \
                docs/protocol.md. Not a flag, since others can see those. Prefer the file.",
        apply: reads!(auth_token, |text| Some(values::token(text))),
        show: |config| config.auth_token.to_string(),
    },
    Setting {
        variable: "MHNOS_AUTH_TOKEN_FILE",
        default: "",
        accepts: "a file with lines of the form `NAME SCOPE TOKEN`, the scope being `control` or `view`; or with one \
                  token alone",
        about: "Tokens that clients must show, beside that of MHNOS_AUTH_TOKEN. Read again when it changes; \
                connections whose token is gone are closed.",
        apply: reads!(auth_token_file, values::optional_path),
        show: |config| values::show_path(config.auth_token_file.as_deref()),
    },
    Setting {
        variable: "MHNOS_TLS_CERT",
        default: "",
        accepts: "a PEM file with the certificate, then those it is signed by; MHNOS_TLS_KEY must be set too",
        about: "Serves https and wss on the same port. Read again when it changes; a wrong new one is told in the \
                log and the old one stays.",
        apply: reads!(tls_cert, values::optional_path),
        show: |config| values::show_path(config.tls_cert.as_deref()),
    },
    Setting {
        variable: "MHNOS_TLS_KEY",
        default: "",
        accepts: "a PEM file with the private key of MHNOS_TLS_CERT",
        about: "The certificate's key. Read before root is given up; if the service's account cannot read it, a \
                new one needs a restart.",
        apply: reads!(tls_key, values::optional_path),
        show: |config| values::show_path(config.tls_key.as_deref()),
    },
    Setting {
        variable: "MHNOS_MAX_CONNECTIONS",
        default: "4096",
        accepts: "a whole number, at least 1",
        about: "WebSockets open at once. More are answered 503.",
        apply: reads!(max_connections, values::at_least_one),
        show: |config| config.max_connections.to_string(),
    },
    Setting {
        variable: "MHNOS_MAX_CONNECTIONS_PER_ADDRESS",
        default: "1024",
        accepts: "a whole number, at least 1",
        about: "WebSockets of one address at once, of one /64 network for IPv6. More are answered 429. Behind a proxy all \
                clients have its address.",
        apply: reads!(max_connections_per_address, values::at_least_one),
        show: |config| config.max_connections_per_address.to_string(),
    },
    Setting {
        variable: "MHNOS_PING_INTERVAL",
        default: "30s",
        accepts: "a duration of 1s to 10m, such as 30s",
        about: "How often a WebSocket is pinged. One that has given no sign of life for two to three such intervals is closed. \
                To be set below the time after which a proxy in front cuts idle connections.",
        apply: reads!(ping_interval, |text| values::duration(text)
            .filter(|interval| (1..=600).contains(&interval.as_secs()))),
        show: |config| format!("{}ms", config.ping_interval.as_millis()),
    },
    Setting {
        variable: "MHNOS_MAX_PIDS",
        default: "512",
        accepts: "a whole number, at least 1",
        about: "Processes and threads of one process tree.",
        apply: reads!(max_pids, |text| values::number(text).filter(|pids| *pids >= 1)),
        show: |config| config.max_pids.to_string(),
    },
    Setting {
        variable: "MHNOS_MAX_CPU",
        default: "number of cores",
        accepts: "a number of cores, at least 0.01, such as 2 or 0.5",
        about: "CPU time of one process tree per second, where there are control groups (`cgroup` among the layers told: systemd, root). \
                Elsewhere (containers as a rule, ordinary users) it limits nothing: programs run at nice 10, behind the service.",
        apply: reads!(max_cpu_millis, values::cores),
        show: |config| values::show_cores(config.max_cpu_millis),
    },
    Setting {
        variable: "MHNOS_WORKSPACE_QUOTA",
        default: "off",
        accepts: "off, or a size of at least 1m: bytes, or a number with k, m, g or t",
        about: "Bytes the workspace's files may take. Beyond it a push is refused, file by file; and when programs make \
                the workspace grow further, or keep the service from reading it, all running programs are ended by SIGKILL, with \
                `reason` `quota`. Files are counted \
                every second or less often, so a program can be ahead of the count; a bound that nothing passes is a file \
                system of its own.",
        apply: reads!(workspace_quota, values::quota),
        show: |config| values::show_quota(config.workspace_quota),
    },
    Setting {
        variable: "MHNOS_EGRESS",
        default: "public",
        accepts: "public, off, or a list, separated by commas, of names (registry.example.org, *.example.com), \
                  addresses and networks (10.0.0.0/8, [fd00::]/8), each with :PORT or :FIRST-LAST if only \
                  those are meant, and public",
        about: "What programs may reach (`strict`; in T3 and T3+ from Linux 6.7 on, see docs/network.md). `public` is \
                every public address, without port 25. A private address is reached by a rule for its network, or for \
                its host's full name; one of this machine, of a loopback or of a cloud's metadata by a rule for that \
                very address; the service's own port never.",
        apply: reads!(egress, mhnos_network::Egress::parse),
        show: |config| config.egress.to_string(),
    },
    Setting {
        variable: "MHNOS_EGRESS_RATE",
        default: "off",
        accepts: "off, or a size of at least 64k: bytes, or a number with k, m or g",
        about: "Bytes a second that the programs of one sandbox move to and from the outside, all together. Whoever is \
                ahead waits.",
        apply: reads!(egress_rate, values::rate),
        show: |config| values::show_rate(config.egress_rate),
    },
    Setting {
        variable: "MHNOS_UPSTREAM_PROXY",
        default: "",
        accepts: "the proxy's address as http://HOST:PORT, without user and password",
        about: "Where this machine reaches the outside through an HTTP proxy only: programs' connections to public \
                addresses go through it, after MHNOS_EGRESS has judged them. Names that this machine cannot resolve are \
                judged as names (docs/network.md).",
        apply: reads!(upstream_proxy, values::upstream_proxy),
        show: |config| config.upstream_proxy.as_ref().map(ToString::to_string).unwrap_or_default(),
    },
    Setting {
        variable: "MHNOS_OUTPUT_LOG",
        default: "4m",
        accepts: "a size of 64k to 1g: bytes, or a number with k, m or g",
        about: "Output kept per process, for clients that attach later or were away. The newest bytes stay.",
        apply: reads!(output_log, |text| values::size(text)
            .filter(|size| (64 << 10..=1 << 30).contains(size))),
        show: |config| config.output_log.to_string(),
    },
    Setting {
        variable: "MHNOS_KILL_GRACE",
        default: "5s",
        accepts: "a duration of at most 1h, such as 5s, 500ms or 2m",
        about: "Time a process has between SIGTERM and SIGKILL. Whoever stops the service must wait longer (`stop_grace_period` of Compose); systemd is asked to.",
        apply: reads!(kill_grace, |text| values::duration(text).filter(|grace| grace.as_secs() <= 3600)),
        show: |config| format!("{}ms", config.kill_grace.as_millis()),
    },
    Setting {
        variable: "MHNOS_LOG_FORMAT",
        default: "auto",
        accepts: "text, json, or auto: text on a terminal, json otherwise",
        about: "How log lines look.",
        apply: reads!(log_format, values::log_format),
        show: |config| config.log_format.as_str().to_owned(),
    },
    Setting {
        variable: "MHNOS_AUDIT_LOG",
        default: "none",
        accepts: "the absolute path of a file outside the workspace, `stdout`, or `none`",
        about: "Where who connected, started, ended and changed what is written down, a JSON object a line.",
        apply: reads!(audit_log, values::audit_log),
        show: |config| values::show_audit_log(&config.audit_log),
    },
    Setting {
        variable: "MHNOS_SANDBOX_MIN_TIER",
        default: "none",
        accepts: "T1, T2, T3+, T3 or none",
        about: "The weakest isolation tier to start with; what the host cannot give is told by `doctor`.",
        apply: reads!(sandbox_min_tier, values::tier),
        show: |config| config.sandbox_min_tier.as_str().to_owned(),
    },
    Setting {
        variable: "MHNOS_PULL_SKIP",
        default: "node_modules,.git,dist,.cache",
        accepts: "names of files or directories separated by commas, or `none`",
        about: "What a pull passes over, wherever it stands, with all that is in it. The default is what the \
                Web OS passes over when it pushes.",
        apply: reads!(pull_skip, values::names),
        show: |config| values::show_names(&config.pull_skip),
    },
    Setting {
        variable: "MHNOS_PATH",
        default: "/usr/local/bin:/usr/bin:/bin",
        accepts: "absolute directories separated by colons",
        about: "Where programs are found, by the service and by the processes it starts. `strict` shows programs what they need there, read-only: all of `X` for `X/bin` and `X/node_modules` for `X/node_modules/.bin`; of a home and of its `.local` no more than `bin` and `lib`.",
        apply: reads!(path, values::search_path),
        show: |config| config.path.clone(),
    },
];

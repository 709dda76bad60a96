//! What becomes of a page that wants to connect, told to a person: the service's own decision, and what browsers do
//! before the service hears of it. The facts about browsers are those of 2026: Chromium asks the person before a page
//! reaches loopback (fetch since 142, WebSockets since 147), recent Firefox too; Safari counts loopback as insecure.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::{Door, Origin, Refusal, Visitor};
use crate::config::Config;

/// One thing to know, with what to do about it where it stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// What it is about: `service`, or browsers by name.
    pub about: &'static str,
    /// Whether the page gets through.
    pub ok: bool,
    /// What happens.
    pub what: String,
    /// What would change it.
    pub remedy: Option<String>,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<16}{:<4}{}", self.about, if self.ok { "yes" } else { "NO" }, self.what)?;
        self.remedy.iter().try_for_each(|remedy| write!(f, "\n                    to get it: {remedy}"))
    }
}

/// Explains what happens to pages of `origin`, the service first.
pub fn explain(config: &Config, origin: &str) -> Vec<Remark> {
    let door = Door::new(config.hosts.clone(), config.allowed_origins.clone())
        .but_for_previews_of(&config.preview_domain);
    let judged = door.judge(&[b"localhost"], &[origin.as_bytes()]);
    let mut remarks = vec![service(origin, &judged)];
    if config.asks_for_a_token() {
        remarks.push(Remark {
            about: "service",
            ok: true,
            what: "pages must show a token: new WebSocket(url, [\"mhnos.v1\", \"mhnos.token.TOKEN\"])"
                .to_owned(),
            remedy: None,
        });
    }
    if let Some(page) = Origin::parse(origin) {
        browsers(&page, config, &mut remarks);
    }
    remarks
}

fn service(origin: &str, judged: &Result<Visitor, Refusal>) -> Remark {
    match judged {
        Ok(_) => {
            Remark { about: "service", ok: true, what: format!("pages of {origin} are let in"), remedy: None }
        }
        Err(refusal) => {
            // What is no origin cannot be allowed either.
            let hint = Origin::parse(origin).is_none() && origin != "null";
            let remedy = if hint {
                "an origin is http://host[:port] or https://host[:port]".to_owned()
            } else {
                refusal.remedy()
            };
            Remark { about: "service", ok: false, what: refusal.to_string(), remedy: Some(remedy) }
        }
    }
}

fn browsers(page: &Origin, config: &Config, remarks: &mut Vec<Remark>) {
    let tls = config.tls_cert.is_some();
    let scheme = if tls { "wss" } else { "ws" };
    // Where a page of this machine finds the service: at localhost, unless it listens elsewhere alone.
    let at_localhost = config.hosts.iter().any(|host| host.is_loopback() || host.is_unspecified());
    let elsewhere = config.hosts.first().filter(|_| !at_localhost);
    let there = elsewhere.map_or_else(
        || format!("{scheme}://localhost:{}", config.port),
        |host| format!("{scheme}://{}", SocketAddr::new(*host, config.port)),
    );
    // What browsers ask the person for.
    let permission = match elsewhere {
        None => Some("loopback-network"),
        Some(host) => is_private(host).then_some("local-network"),
    };
    let mut say = |about, ok, what: String, remedy: Option<&str>| {
        remarks.push(Remark { about, ok, what, remedy: remedy.map(str::to_owned) });
    };
    let trusted = "a certificate that the browser trusts (MHNOS_TLS_CERT, MHNOS_TLS_KEY), and wss://";
    match (page.is_loopback(), page.is_secure()) {
        (false, false) if permission.is_some() => {}
        _ if tls => say("browsers", true, format!("{there} is reached if its certificate is trusted"), None),
        (_, false) => {
            say("browsers", true, format!("nothing stands between this page and {there}"), None);
        }
        // Told below, with all addresses that are not loopback.
        _ if elsewhere.is_some() => {}
        (true, true) => {
            say("Chrome, Firefox", true, format!("an https page of loopback may use {there}"), None);
            say("Safari", false, format!("{there} is blocked as mixed content"), Some(trusted));
        }
        (false, true) => {
            say("Safari", false, format!("{there} is blocked as mixed content"), Some(trusted));
        }
    }
    if let Some(permission) = permission.filter(|_| !page.is_loopback()) {
        if !page.is_secure() {
            let what = format!("a page without https may not ask for {there}, and fails in silence");
            say("Chrome", false, what, Some("serve the page with https, or from http://localhost"));
        } else if tls || elsewhere.is_none() {
            let what = format!(
                "the person is asked whether this site may reach {there}: the prompt must be allowed"
            );
            let framed = format!(
                "in a frame, allow=\"{permission}\" too; policy LocalNetworkAccessAllowedForUrls for many machines"
            );
            say("Chrome, Firefox", true, what, Some(&framed));
        }
    }
    for host in config.hosts.iter().filter(|host| !host.is_loopback() && page.is_secure() && !tls) {
        let address = SocketAddr::new(*host, config.port);
        let what = format!("ws://{address} is blocked as mixed content by every browser");
        say("browsers", false, what, Some(trusted));
    }
}

/// Whether browsers count it to a local network.
fn is_private(host: &IpAddr) -> bool {
    match host.to_canonical() {
        IpAddr::V4(address) => address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(config: &Config, origin: &str) -> String {
        explain(config, origin).iter().map(|remark| format!("{remark}\n")).collect()
    }

    #[test]
    fn the_decision_and_its_setting_come_first() {
        let config = Config::default();
        assert!(told(&config, "http://localhost:8080").starts_with("service         yes pages of"));
        let refused = told(&config, "https://os.example.org");
        assert!(refused.starts_with("service         NO  Pages of"), "{refused}");
        assert!(refused.contains("MHNOS_ALLOWED_ORIGINS=https://os.example.org"), "{refused}");
        assert!(told(&config, "null").contains("serve the page over http"));
        assert!(told(&config, "os.example.org").contains("an origin is http://host"));
    }

    #[test]
    fn what_browsers_do_depends_on_the_page_and_on_tls() {
        let plain = Config::default();
        let path = Some(std::path::PathBuf::from("/x"));
        let tls = Config { tls_cert: path.clone(), tls_key: path, ..Config::default() };
        assert!(told(&plain, "http://localhost:8080").contains("nothing stands between"));
        let public = told(&plain, "https://os.example.org");
        assert!(
            public.contains("Safari") && public.contains("mixed content") && public.contains("is asked"),
            "{public}"
        );
        let secured = told(&tls, "https://os.example.org");
        assert!(!secured.contains("mixed content") && secured.contains("wss://localhost:18790"), "{secured}");
        assert!(told(&plain, "http://os.example.org").contains("fails in silence"));
        let open = Config { hosts: vec!["192.0.2.7".parse().expect("address")], ..Config::default() };
        assert!(told(&open, "https://os.example.org").contains("ws://192.0.2.7:18790 is blocked"));
    }

    #[test]
    fn a_certificate_stands_between_a_page_of_this_machine_and_a_service_with_tls() {
        let path = Some(std::path::PathBuf::from("/x"));
        let tls = Config { tls_cert: path.clone(), tls_key: path, ..Config::default() };
        let secured = told(&tls, "http://localhost:8080");
        assert!(
            !secured.contains("nothing stands") && secured.contains("certificate is trusted"),
            "{secured}"
        );
        let refused = told(&tls, "http://os.example.org");
        assert!(refused.contains("fails in silence") && !refused.contains("is trusted"), "{refused}");
    }

    #[test]
    fn a_service_that_does_not_listen_on_loopback_is_not_sought_there() {
        for page in ["http://localhost:8080", "https://os.example.org", "http://os.example.org"] {
            for host in ["192.0.2.7", "10.0.0.7", "fd00::7"] {
                let config = Config { hosts: vec![host.parse().expect("address")], ..Config::default() };
                let told = told(&config, page);
                assert!(!told.contains("://localhost:18790") && !told.contains("is asked"), "{told}");
                assert!(
                    told.contains(&format!("ws://{}", SocketAddr::new(config.hosts[0], 18790))),
                    "{told}"
                );
            }
        }
        let both = ["192.0.2.7", "127.0.0.1"].map(|host| host.parse().expect("address"));
        let config = Config { hosts: both.to_vec(), ..Config::default() };
        assert!(told(&config, "http://localhost:8080").contains("ws://localhost:18790"));
    }

    #[test]
    fn a_token_is_mentioned() {
        let config = Config { auth_token_file: Some("/x".into()), ..Config::default() };
        assert!(told(&config, "http://localhost").contains("mhnos.token."));
    }
}

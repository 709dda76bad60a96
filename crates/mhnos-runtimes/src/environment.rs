//! The environment programs get: a small base, then `options.env` on top.

use crate::{Context, Proxy, RecipeError};

/// The variables of the service's own environment that programs get. Read once, at start; everything else
/// the service was started with stays with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEnvironment {
    /// `LANG`; without it, or with `C` or `POSIX`, which say no more, programs get `C.UTF-8`.
    pub lang: Option<String>,
    /// `LC_ALL`.
    pub lc_all: Option<String>,
    /// `TZ`.
    pub tz: Option<String>,
    /// `DEBUG`.
    pub debug: Option<String>,
    /// `SHELL`: what a `shell` without a command starts. `None` if the file is not there: then bash.
    pub shell: Option<String>,
}

/// What programs get when the service has no `LANG`: UTF-8 without any language's own rules.
const DEFAULT_LANG: &str = "C.UTF-8";

/// What service managers set where nobody chose a language; terminals would lose all but ASCII.
const NO_LANGS: [&str; 3] = ["", "C", "POSIX"];

/// The environment every program gets, whatever it is.
pub(crate) fn base(context: &Context) -> Vec<(String, String)> {
    let service = &context.service;
    let lang = service.lang.as_deref().filter(|lang| !NO_LANGS.contains(lang)).unwrap_or(DEFAULT_LANG);
    let always = [
        ("PATH", context.path.as_str()),
        ("HOME", &context.workspace),
        ("USER", "mhnos"),
        ("LOGNAME", "mhnos"),
        ("NODE_ENV", "production"),
        ("TERM", "xterm-256color"),
        ("LANG", lang),
    ];
    let if_set = [("LC_ALL", &service.lc_all), ("TZ", &service.tz), ("DEBUG", &service.debug)];
    always
        .into_iter()
        .chain(if_set.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .chain(context.proxy.map(proxy).into_iter().flatten())
        .collect()
}

/// What tells programs of the proxy, in the spellings that are in use. The one for everything else is no SOCKS URL: to
/// some libraries that is an error at their start.
///
/// `NODE_USE_ENV_PROXY` is among them only where it must be: with it every start of Node.js loads its HTTP client and all
/// certificates, which doubles the time it takes, and what it connects to mostly (ports 80 and 443) may be caught without.
fn proxy(Proxy { port, catches }: Proxy) -> Vec<(String, String)> {
    let url = format!("http://127.0.0.1:{port}");
    let urls = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
        .into_iter()
        .flat_map(|name| [name.to_owned(), name.to_ascii_lowercase()].map(|name| (name, url.clone())));
    let own = "localhost,127.0.0.1,::1,.localhost".to_owned();
    let node = (!catches).then(|| ("NODE_USE_ENV_PROXY".to_owned(), "1".to_owned()));
    urls.chain(["NO_PROXY", "no_proxy"].map(|name| (name.to_owned(), own.clone()))).chain(node).collect()
}

/// Sets variables; the last of the same name counts, and keeps the place of the first.
pub(crate) fn set(
    environment: &mut Vec<(String, String)>,
    variables: impl IntoIterator<Item = (String, String)>,
) {
    for (name, value) in variables {
        match environment.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => environment.push((name, value)),
        }
    }
}

/// What execve(2) could not carry, or would carry as something else.
pub(crate) fn check(variables: &[(String, String)]) -> Result<(), RecipeError> {
    for (name, value) in variables {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(RecipeError::VariableName { name: name.clone() });
        }
        if value.contains('\0') {
            return Err(RecipeError::Nul { what: format!("env {name}") });
        }
    }
    Ok(())
}

//! What is secret among the settings, and its way to the bridge.
//!
//! `serve` reads tokens, certificate and key while it still may (root gives itself up later), checks them, seals what
//! it read into a memory file, and executes itself anew with nothing but that descriptor. So the keeper, and all it
//! forks, never had a secret in its memory, environment or arguments; the bridge reads the descriptor it inherits.
//!
//! Files are looked at again and again while the service runs. What was sealed counts where a file cannot be read by
//! the account the service runs as; there a change needs a restart, which is said once.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::{
    config::{Config, GivenToken, Mistake},
    door::Tokens,
    limits,
    tls::{self, TlsMistake},
};

/// The secrets as they were at the start. [`Debug`] shows none.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    token: Option<String>,
    token_file: Option<String>,
    tls_cert: Option<String>,
    tls_key: Option<String>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

impl Secrets {
    /// Reads and checks what the settings name.
    pub fn gather(config: &Config) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let token = match &config.auth_token {
            GivenToken::None => None,
            GivenToken::Here(text) => Some(text.reveal().to_owned()),
            GivenToken::Sealed => Some(GivenToken::SEALED.to_owned()),
        };
        let mut secrets = Self { token, ..Self::default() };
        if let Some(path) = &config.auth_token_file {
            match read(path) {
                Ok(text) => secrets.token_file = Some(text),
                Err(error) => mistakes.push(unreadable("MHNOS_AUTH_TOKEN_FILE", path, &error)),
            }
        }
        if let Err((variable, mistake)) = secrets.tokens(secrets.token_file.as_deref()) {
            let path = config.auth_token_file.as_deref().filter(|_| variable.ends_with("_FILE"));
            let value = path.map_or("(not shown)".to_owned(), |path| path.display().to_string());
            let accepts = format!("other content: {mistake}");
            mistakes.push(Mistake { name: variable.to_owned(), value, accepts });
        }
        secrets.gather_tls(config, &mut mistakes);
        if mistakes.is_empty() { Ok(secrets) } else { Err(mistakes) }
    }

    fn gather_tls(&mut self, config: &Config, mistakes: &mut Vec<Mistake>) {
        let (Some(cert), Some(key)) = (&config.tls_cert, &config.tls_key) else { return };
        for (variable, path, place) in
            [("MHNOS_TLS_CERT", cert, &mut self.tls_cert), ("MHNOS_TLS_KEY", key, &mut self.tls_key)]
        {
            match read(path) {
                Ok(text) => *place = Some(text),
                Err(error) => mistakes.push(unreadable(variable, path, &error)),
            }
        }
        if let Some(Err(error)) = self.tls().map(|(cert, key)| tls::server_config(cert, key)) {
            let name = if matches!(error, TlsMistake::Key) { "MHNOS_TLS_KEY" } else { "MHNOS_TLS_CERT" };
            let path = if matches!(error, TlsMistake::Key) { key } else { cert };
            let accepts = format!("other content: {error}");
            mistakes.push(Mistake { name: name.to_owned(), value: path.display().to_string(), accepts });
        }
    }

    /// Certificate chain and key, as PEM.
    pub(crate) fn tls(&self) -> Option<(&str, &str)> {
        Some((self.tls_cert.as_deref()?, self.tls_key.as_deref()?))
    }

    /// Whether there is nothing to hide.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As a memory file that nobody can change. It is inherited by whatever this process executes.
    pub fn seal(&self) -> io::Result<OwnedFd> {
        let fd = memfd_create(c"mhnos-secrets", MemfdFlags::ALLOW_SEALING)?;
        serde_json::to_writer(io::BufWriter::new(File::from(fd.try_clone()?)), self)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
        Ok(fd)
    }

    /// Reads what was sealed.
    pub fn open(sealed: impl AsFd) -> io::Result<Self> {
        let mut file = File::from(sealed.as_fd().try_clone_to_owned()?);
        file.rewind()?;
        Ok(serde_json::from_reader(io::BufReader::new(file))?)
    }

    /// All tokens, with this text as the file's. An error names the variable.
    fn tokens(&self, file: Option<&str>) -> Result<Tokens, (&'static str, crate::door::TokenMistake)> {
        let mut tokens = Tokens::default();
        if let Some(token) = &self.token {
            tokens.add_alone(token).map_err(|mistake| ("MHNOS_AUTH_TOKEN", mistake))?;
        }
        if let Some(text) = file {
            tokens.add_file(text).map_err(|mistake| ("MHNOS_AUTH_TOKEN_FILE", mistake))?;
        }
        Ok(tokens)
    }
}

fn unreadable(variable: &str, path: &Path, error: &io::Error) -> Mistake {
    Mistake {
        name: variable.to_owned(),
        value: path.display().to_string(),
        accepts: format!("a file that can be read: {error}"),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(limits::MAX_SECRET_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limits::MAX_SECRET_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it has more than 1 MiB"));
    }
    Ok(text)
}

/// A file that may change.
pub(crate) struct Watched {
    path: PathBuf,
    /// What it looked like when it was last read.
    seen: Option<Look>,
    /// What it looked like when that was last tried: a failure may pass without a change, and is told once.
    tried: Option<Look>,
}

/// Device, inode, size, time of change: another look is another content.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look([i64; 5]);

impl Watched {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, seen: None, tried: None }
    }

    fn look(&self) -> io::Result<Look> {
        let meta = std::fs::metadata(&self.path)?;
        Ok(Look([meta.dev() as i64, meta.ino() as i64, meta.size() as i64, meta.ctime(), meta.ctime_nsec()]))
    }

    /// Whether it looks otherwise than when it was last read.
    pub(crate) fn has_changed(&self) -> bool {
        self.look().ok() != self.seen
    }

    /// Whether it looks otherwise than when it was last tried to read it.
    pub(crate) fn is_new(&self) -> bool {
        self.look().ok() != self.tried
    }

    /// Its text.
    pub(crate) fn read(&mut self) -> io::Result<String> {
        self.read_by(read)
    }

    /// Looked at before it is read, so that no change is missed.
    fn read_by(&mut self, read: impl FnOnce(&Path) -> io::Result<String>) -> io::Result<String> {
        let look = self.look();
        self.tried = look.as_ref().ok().copied();
        let text = look.and_then(|_| read(&self.path));
        self.seen = self.tried.filter(|_| text.is_ok());
        text
    }

    /// Its text if it has changed since it was last read; why it cannot be read, once for each change.
    fn changed(&mut self) -> Option<io::Result<String>> {
        self.changed_by(read)
    }

    fn changed_by(&mut self, read: impl FnOnce(&Path) -> io::Result<String>) -> Option<io::Result<String>> {
        if !self.has_changed() {
            return None;
        }
        let is_new = self.is_new();
        Some(self.read_by(read)).filter(|text| is_new || text.is_ok())
    }
}

/// Has `keeper` look at its files again and again, where waiting for a disk holds up nobody.
pub(crate) async fn look_again<K: Send + 'static>(mut keeper: K, look: fn(&mut K), files: &str) {
    let mut looks = tokio::time::interval(limits::SECRET_POLL);
    loop {
        looks.tick().await;
        let once = move || {
            look(&mut keeper);
            keeper
        };
        match tokio::task::spawn_blocking(once).await {
            Ok(same) => keeper = same,
            Err(error) => return error!(%error, "changes of {files} are no longer seen"),
        }
    }
}

/// The tokens in force, kept up to date with their file.
pub(crate) struct TokenKeeper {
    secrets: Secrets,
    file: Option<Watched>,
    tokens: watch::Sender<Arc<Tokens>>,
}

impl TokenKeeper {
    /// The tokens as they are now. What stands in the file goes before what was sealed; a file that is wrong now lets
    /// nobody in, since what was sealed may have been taken back since.
    pub(crate) fn new(config: &Config, secrets: Secrets) -> Self {
        let mut file = config.auth_token_file.clone().map(Watched::new);
        let text = match file.as_mut().and_then(Watched::changed) {
            Some(Ok(text)) => Some(text),
            other => {
                if let Some(path) = &config.auth_token_file {
                    let uid = rustix::process::geteuid().as_raw();
                    let error =
                        other.and_then(Result::err).map(|error| error.to_string()).unwrap_or_default();
                    warn!(path = %path.display(), uid, error, "changes of the token file are not seen before a restart: \
                        the service's account cannot read it");
                }
                secrets.token_file.clone()
            }
        };
        let tokens = secrets.tokens(text.as_deref()).unwrap_or_else(|(variable, mistake)| {
            error!(%mistake, "{variable} is wrong: the tokens in it are not accepted until it is mended");
            secrets.tokens(None).unwrap_or_default()
        });
        Self { secrets, file, tokens: watch::Sender::new(Arc::new(tokens)) }
    }

    pub(crate) fn tokens(&self) -> watch::Receiver<Arc<Tokens>> {
        self.tokens.subscribe()
    }

    /// Looks again and again; returns when there is nothing to look at.
    pub(crate) async fn keep(self) {
        if self.file.is_some() {
            look_again(self, Self::look, "the token file").await;
        }
    }

    /// Takes up a change of the file. A wrong file changes nothing and is told.
    pub(crate) fn look(&mut self) {
        let Some(changed) = self.file.as_mut().and_then(Watched::changed) else { return };
        let text = match changed {
            Ok(text) => text,
            Err(error) => {
                return error!(%error, "the token file can no longer be read; the tokens stay as they were");
            }
        };
        match self.secrets.tokens(Some(&text)) {
            Ok(tokens) => {
                info!(names = ?tokens.names(), "the tokens have been read again");
                self.tokens.send_if_modified(|now| {
                    let changed = **now != tokens;
                    *now = Arc::new(tokens);
                    changed
                });
            }
            Err((_, mistake)) => error!(%mistake, "the token file is wrong; the tokens stay as they were"),
        }
    }
}

#[cfg(test)]
mod tests {
    use mhnos_testing::Scratch;

    use super::*;

    const ONE: &str = "0123456789abcdef";
    const TWO: &str = "fedcba9876543210";

    fn config(path: &Path) -> Config {
        Config { auth_token_file: Some(path.to_owned()), ..Config::default() }
    }

    #[test]
    fn what_is_sealed_is_read_as_often_as_one_likes() {
        let secrets = Secrets { token: Some(ONE.into()), token_file: Some(TWO.into()), ..Secrets::default() };
        let sealed = secrets.seal().expect("sealed");
        for _ in 0..2 {
            assert!(Secrets::open(&sealed).expect("readable") == secrets);
        }
        rustix::io::write(&sealed, b"x").expect_err("nobody can change it");
        assert!(!format!("{secrets:?}").contains(ONE));
    }

    #[test]
    fn what_is_wrong_stops_the_start_and_is_not_shown() {
        let scratch = Scratch::new();
        let path = scratch.path().join("tokens");
        let check = |expected: &str| {
            let mistakes = Secrets::gather(&config(&path)).expect_err("refused");
            let text = mistakes[0].to_string();
            assert!(text.contains(expected) && text.contains("MHNOS_AUTH_TOKEN_FILE"), "{text}");
            assert!(!text.contains("secret"), "{text}");
        };
        check("No such file");
        std::fs::write(&path, "secret").expect("written");
        check("line 1: a token has 16");
        std::fs::write(&path, ONE).expect("written");
        assert!(!Secrets::gather(&config(&path)).expect("accepted").is_empty());
        assert!(Secrets::gather(&Config::default()).expect("accepted").is_empty());
    }

    /// Want of a descriptor, say.
    #[test]
    fn a_change_that_could_not_be_read_is_read_later() {
        let scratch = Scratch::new();
        let path = scratch.path().join("tokens");
        let knows = |keeper: &TokenKeeper, token| keeper.tokens().borrow().find(token).is_some();
        std::fs::write(&path, ONE).expect("written");
        let secrets = Secrets::gather(&config(&path)).expect("accepted");
        let mut keeper = TokenKeeper::new(&config(&path), secrets);
        std::fs::write(&path, format!("{TWO}\n")).expect("written");
        let file = keeper.file.as_mut().expect("a file");
        let mut fail = || file.changed_by(|_| Err(rustix::io::Errno::MFILE.into()));
        assert!(fail().expect("told").is_err());
        assert!(fail().is_none(), "told once");
        keeper.look();
        assert!(knows(&keeper, TWO) && !knows(&keeper, ONE));
    }

    #[test]
    fn a_change_of_the_file_counts_unless_it_is_wrong() {
        let scratch = Scratch::new();
        let path = scratch.path().join("tokens");
        let knows = |keeper: &TokenKeeper, token| keeper.tokens().borrow().find(token).is_some();
        std::fs::write(&path, ONE).expect("written");
        let secrets = Secrets::gather(&config(&path)).expect("accepted");
        let mut keeper = TokenKeeper::new(&config(&path), secrets.clone());
        assert!(knows(&keeper, ONE));
        std::fs::write(&path, "wrong").expect("written");
        keeper.look();
        assert!(knows(&keeper, ONE), "a wrong file changes nothing");
        assert!(
            !knows(&TokenKeeper::new(&config(&path), secrets.clone()), ONE),
            "but it revives nothing either"
        );
        let new = scratch.path().join("new");
        std::fs::write(&new, TWO).expect("written");
        std::fs::rename(&new, &path).expect("renamed");
        keeper.look();
        assert!(!knows(&keeper, ONE) && knows(&keeper, TWO), "replaced");
        std::fs::remove_file(&path).expect("removed");
        keeper.look();
        assert!(knows(&keeper, TWO), "a file that is gone changes nothing");
        assert!(knows(&TokenKeeper::new(&config(&path), secrets), ONE), "what was sealed is what there is");
    }
}

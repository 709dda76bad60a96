//! TLS on the service's own port: the certificate and its key, which may change while the service runs.

use std::{path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::{
    config::Config,
    secrets::{Secrets, Watched, look_again},
};

/// What is wrong with a certificate or its key. Never shows any of them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsMistake {
    /// No certificate.
    #[error("the certificate file has no certificate in PEM form")]
    Certificate,
    /// A file cannot be read.
    #[error("a file cannot be read: {0}")]
    Unreadable(#[source] std::io::Error),
    /// No key.
    #[error("the key file has no private key in PEM form")]
    Key,
    /// They do not belong together, or are of a kind that is not known.
    #[error("the certificate and the key cannot be used: {0}")]
    Pair(#[source] rustls::Error),
}

/// What connections are accepted with: TLS 1.2 and 1.3 with the library's own choice of ciphers.
pub(crate) fn server_config(certificates: &str, key: &str) -> Result<Arc<ServerConfig>, TlsMistake> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates.as_bytes()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(TlsMistake::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| TlsMistake::Key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(TlsMistake::Pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The certificate in force, kept up to date with its files.
pub(crate) struct TlsKeeper {
    files: [Watched; 2],
    config: watch::Sender<Arc<ServerConfig>>,
}

impl TlsKeeper {
    /// The certificate as it is now, or as it was at the start where the files cannot be read or are wrong. `None`
    /// without TLS.
    pub(crate) fn new(settings: &Config, secrets: &Secrets) -> Option<Self> {
        let (certificate, key) = (settings.tls_cert.as_deref()?, settings.tls_key.as_deref()?);
        let mut files = [certificate, key].map(|path: &Path| Watched::new(path.to_owned()));
        let now = read(&mut files);
        if let Err(error) = &now {
            let uid = rustix::process::geteuid().as_raw();
            warn!(%error, uid, "the certificate stays as it was at the start; if the service's account cannot read the \
                files, a new one needs a restart");
        }
        let config = now.or_else(|_| {
            let (certificate, key) = secrets.tls().ok_or(TlsMistake::Certificate)?;
            server_config(certificate, key)
        });
        match config {
            Ok(config) => Some(Self { files, config: watch::Sender::new(config) }),
            // Checked at the start, so it cannot be; nobody is let in then, rather than let in without TLS.
            Err(error) => {
                error!(%error, "there is no certificate");
                let empty = ServerConfig::builder_with_provider(Arc::new(default_provider()))
                    .with_protocol_versions(&[&rustls::version::TLS13])
                    .ok()?
                    .with_no_client_auth()
                    .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
                Some(Self { files, config: watch::Sender::new(Arc::new(empty)) })
            }
        }
    }

    pub(crate) fn config(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.config.subscribe()
    }

    /// Looks again and again.
    pub(crate) async fn keep(self) {
        look_again(self, Self::look, "the certificate and its key").await;
    }

    fn look(&mut self) {
        let changed = self.files.each_mut().map(|file| file.has_changed());
        if !changed.contains(&true) {
            return;
        }
        let is_new = self.files.iter().any(Watched::is_new);
        match read(&mut self.files) {
            Ok(config) => {
                self.config.send_replace(config);
                info!("the certificate has been read again");
            }
            // Tried again, and told.
            Err(TlsMistake::Unreadable(_)) if !is_new => {}
            Err(error) => error!(%error, "the new certificate or key is wrong; the old ones stay in force"),
        }
    }
}

fn read(files: &mut [Watched; 2]) -> Result<Arc<ServerConfig>, TlsMistake> {
    let [certificate, key] = files.each_mut().map(|file| file.read().map_err(TlsMistake::Unreadable));
    server_config(&certificate?, &key?)
}

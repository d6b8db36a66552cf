//! What opens the listener: the tokens, and the certificate that it shows. Both are read again when
//! the bridge is asked to.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

use super::{
    auth::Tokens,
    serve::{self, TlsError},
};
use crate::settings::AdminSettings;

/// The tokens and the certificate as they are now.
pub struct Door {
    settings: AdminSettings,
    tokens: ArcSwap<Tokens>,
    tls: Option<ArcSwap<ServerConfig>>,
}

impl Door {
    /// What these settings say, with the certificate read.
    pub(super) fn new(settings: &AdminSettings) -> Result<Self, TlsError> {
        let tls = settings.tls.as_ref().map(serve::tls).transpose()?;
        Ok(Self {
            tokens: ArcSwap::from_pointee(Tokens::new(&settings.tokens)),
            tls: tls.map(ArcSwap::new),
            settings: settings.clone(),
        })
    }

    /// Who may use the API.
    pub(super) fn tokens(&self) -> Arc<Tokens> {
        self.tokens.load_full()
    }

    /// What shakes hands with the next connection; nothing where there is no TLS.
    pub(super) fn tls(&self) -> Option<TlsAcceptor> {
        let tls = self.tls.as_ref()?;
        Some(TlsAcceptor::from(tls.load_full()))
    }

    /// Reads the tokens' files and the certificate again. What is wrong stays as it was, and the log
    /// says so. Reads files, and so blocks. Returns whether another certificate may be shown now.
    pub fn renew(&self) -> bool {
        match self.settings.current_tokens() {
            Ok(tokens) => {
                self.tokens.store(Arc::new(Tokens::new(&tokens)));
                info!(tokens = tokens.len(), "the API's tokens are read again");
            }
            Err(why) => error!("the API's tokens stay as they were: {why}"),
        }
        let (Some(files), Some(tls)) = (&self.settings.tls, &self.tls) else {
            return false;
        };
        match serve::tls(files) {
            Ok(new) => {
                tls.store(new);
                info!("the listener's certificate is read again");
                true
            }
            Err(why) => {
                error!("the listener's certificate stays as it was: {why}");
                false
            }
        }
    }
}

//! When the certificates that the bridge shows end: told as a metric, so that somebody renews them
//! before.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    settings::Settings,
    telemetry::metrics::{Metrics, Shown},
};

/// How often files are read again.
const INTERVAL: Duration = Duration::from_secs(10);

/// The certificates that the settings name.
pub struct Certificates {
    /// The listener takes it over at the start and at a reload, and shows it until the next one.
    admin: Option<PathBuf>,
    /// Told when the listener has taken a certificate over.
    renewed: Notify,
    /// Read whenever a connection is made.
    at_each_connection: Vec<(Shown, PathBuf)>,
    metrics: Arc<Metrics>,
}

/// A certificate that is looked at again and again.
struct Watched {
    shown: Shown,
    file: PathBuf,
    /// What the log says is wrong with it, so that it is said once.
    said: Option<String>,
}

impl Certificates {
    /// Those of these settings.
    pub fn new(settings: &Settings, metrics: Arc<Metrics>) -> Self {
        let named = |shown, file: Option<&PathBuf>| file.map(|file| (shown, file.clone()));
        let admin = settings.admin.tls.as_ref();
        let broker = settings.broker.client_certificate_file.as_ref();
        let targets = settings.targets.client_certificate_file.as_ref();
        Self {
            admin: admin.map(|tls| tls.certificate_file.clone()),
            renewed: Notify::new(),
            at_each_connection: [named(Shown::Broker, broker), named(Shown::Targets, targets)]
                .into_iter()
                .flatten()
                .collect(),
            metrics,
        }
    }

    /// The listener has taken over the certificate that is in its file now.
    pub fn renewed(&self) {
        self.renewed.notify_one();
    }

    /// Tells when they end, until `stop`.
    pub async fn keep(&self, stop: CancellationToken) {
        let watched = |(shown, file)| Watched {
            shown,
            file,
            said: None,
        };
        let mut admin = self.admin.clone().map(|file| watched((Shown::Admin, file)));
        let others = self.at_each_connection.iter().cloned();
        let mut others: Vec<Watched> = others.map(watched).collect();
        self.tell(admin.as_mut()).await;
        loop {
            self.tell(&mut others).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.renewed.notified() => self.tell(admin.as_mut()).await,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Tells when these end, and writes to the log what is newly wrong with one.
    async fn tell(&self, all: impl IntoIterator<Item = &mut Watched>) {
        for watched in all {
            let end = watched.end().await;
            let known = end.as_ref().ok().copied();
            self.metrics.certificates.ends(watched.shown, known);
            if let Some(line) = watched.news(end.err()) {
                warn!("{line}");
            }
        }
    }
}

impl Watched {
    /// When it ends, in seconds since 1970.
    async fn end(&self) -> Result<i64, String> {
        let pem = tokio::fs::read(&self.file).await;
        let end = pem
            .map_err(|error| error.to_string())
            .and_then(|pem| end(&pem));
        end.map_err(|why| format!("cannot tell when {} ends: {why}", self.file.display()))
    }

    /// What is wrong with it and not said yet.
    fn news(&mut self, wrong: Option<String>) -> Option<String> {
        if wrong == self.said {
            return None;
        }
        self.said.clone_from(&wrong);
        wrong
    }
}

/// When the first of these certificates ends, in seconds since 1970.
fn end(pem: &[u8]) -> Result<i64, String> {
    let mut first: Option<i64> = None;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&certificate).map_err(|error| error.to_string())?;
        let end = parsed.validity().not_after.timestamp();
        first = Some(first.map_or(end, |first| first.min(end)));
    }
    first.ok_or_else(|| "it holds no PEM certificate".to_owned())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32) -> String {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 2, 3);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    }

    #[test]
    fn a_chain_ends_with_the_first_of_it() {
        let chain = certificate(2043) + &certificate(2031) + &certificate(2040);
        let expected = date_time_ymd(2031, 2, 3).unix_timestamp();
        assert_eq!(end(chain.as_bytes()), Ok(expected));
        assert!(end(b"nothing").is_err());
        let torn = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        assert!(end(torn.as_bytes()).is_err());
    }

    #[tokio::test]
    async fn what_is_wrong_with_each_is_said_once_and_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let watched = |shown, name: &str| Watched {
            shown,
            file: folder.path().join(name),
            said: None,
        };
        let mut both = [
            watched(Shown::Broker, "one.pem"),
            watched(Shown::Targets, "two.pem"),
        ];
        let mut round = async || {
            let mut said = 0;
            for one in &mut both {
                let wrong = one.end().await.err();
                said += usize::from(one.news(wrong).is_some());
            }
            said
        };
        assert_eq!([round().await, round().await, round().await], [2, 0, 0]);
        let write = |text: &str| std::fs::write(folder.path().join("one.pem"), text).unwrap();
        write("nothing");
        assert_eq!([round().await, round().await], [1, 0]);
        write(&certificate(2040));
        assert_eq!(round().await, 0);
        write("nothing");
        assert_eq!([round().await, round().await], [1, 0]);
    }
}

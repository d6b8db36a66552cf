//! When the certificates that the bridge shows end: told as a metric, so that somebody renews them
//! before.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::pki_types::{CertificateDer, pem::PemObject};
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
    /// Read once, when the bridge starts: a renewed one counts from the next start on.
    at_start: Vec<(Shown, PathBuf)>,
    /// Read whenever a connection is made.
    at_each_connection: Vec<(Shown, PathBuf)>,
    metrics: Arc<Metrics>,
}

impl Certificates {
    /// Those of these settings.
    pub fn new(settings: &Settings, metrics: Arc<Metrics>) -> Self {
        let named = |shown, file: Option<&PathBuf>| file.map(|file| (shown, file.clone()));
        let admin = settings.admin.tls.as_ref();
        let admin = named(Shown::Admin, admin.map(|tls| &tls.certificate_file));
        let broker = settings.broker.client_certificate_file.as_ref();
        let targets = settings.targets.client_certificate_file.as_ref();
        Self {
            at_start: admin.into_iter().collect(),
            at_each_connection: [named(Shown::Broker, broker), named(Shown::Targets, targets)]
                .into_iter()
                .flatten()
                .collect(),
            metrics,
        }
    }

    /// Tells when they end, until `stop`.
    pub async fn keep(&self, stop: CancellationToken) {
        let mut said = String::new();
        for (shown, file) in &self.at_start {
            self.tell(*shown, file, &mut said).await;
        }
        loop {
            for (shown, file) in &self.at_each_connection {
                self.tell(*shown, file, &mut said).await;
            }
            if tokio::time::timeout(INTERVAL, stop.cancelled())
                .await
                .is_ok()
            {
                return;
            }
        }
    }

    /// `said` is what the log says is wrong with one of them, so that it is said once.
    async fn tell(&self, shown: Shown, file: &PathBuf, said: &mut String) {
        let end = match tokio::fs::read(file).await {
            Ok(pem) => end(&pem),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = &end {
            let line = format!("cannot tell when {} ends: {why}", file.display());
            if *said != line {
                warn!("{line}");
                *said = line;
            }
        }
        self.metrics.certificates.ends(shown, end.ok());
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

    use super::end;

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
}

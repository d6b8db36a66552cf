//! What is told of the certificates that the bridge shows.

use prometheus::{IntGaugeVec, Opts, Registry};

use super::registered;

/// A certificate that the bridge shows, by whom it shows it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// To those who ask the admin listener.
    Admin,
    /// To the home broker.
    Broker,
    /// To subscribers' brokers.
    Targets,
}

impl Shown {
    /// The label's value: the section of the settings that names the certificate.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Broker => "broker",
            Self::Targets => "targets",
        }
    }
}

/// The metrics of certificates. One that is not configured, or cannot be read, has no series.
pub struct CertificateMetrics {
    expiry: IntGaugeVec,
}

impl CertificateMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let expiry = Opts::new(
            "hookbridge_certificate_expiry_timestamp_seconds",
            "When the certificate that the bridge shows ends, or one of its chain, in seconds since 1970.",
        );
        let expiry = IntGaugeVec::new(expiry, &["certificate"]);
        Ok(Self {
            expiry: registered(registry, expiry)?,
        })
    }

    /// When a certificate ends, in seconds since 1970; nothing if that is not known.
    pub fn ends(&self, shown: Shown, end: Option<i64>) {
        let labels = [shown.as_str()];
        match end {
            Some(end) => self.expiry.with_label_values(&labels).set(end),
            // An error means that there was none before.
            None => drop(self.expiry.remove_label_values(&labels)),
        }
    }
}

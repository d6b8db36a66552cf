//! Certificates and keys in PEM files, read as whoever shows or trusts them reads them. What is wrong
//! is said without what is in the file.

use std::{path::Path, sync::Arc};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

/// Every certificate in a file; there is at least one.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| error.to_string())?;
    if all.is_empty() {
        return Err("there is none in it".to_owned());
    }
    Ok(all)
}

/// The private key in a file.
pub fn key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| error.to_string())
}

/// Whether a chain and a key can be shown together.
pub fn fit(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<(), String> {
    let fitting = CertifiedKey::from_der(chain, key, &provider());
    fitting.map(drop).map_err(|error| error.to_string())
}

/// How many of these authorities can be trusted, and how many cannot be read.
pub fn trusted(authorities: Vec<CertificateDer<'static>>) -> (usize, usize) {
    RootCertStore::empty().add_parsable_certificates(authorities)
}

/// What TLS computes with.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

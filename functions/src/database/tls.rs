//! Encryption with verification: whose certificates are trusted. There is no encryption without.

use rustls::pki_types::{CertificateDer, pem::PemObject};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use std::sync::Arc;

/// The roots of Amazon RDS, which no list of public ones has.
const RDS: &[u8] = include_bytes!("rds.pem");

/// A client that trusts the certificates of `rds`, of this PEM file, or else the public ones.
pub(crate) fn client(trusted: Option<&str>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match trusted {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some("rds") => add(&mut roots, "rds", RDS)?,
        Some(path) => {
            let pem = std::fs::read(path).map_err(|error| format!("{path} cannot be read: {error}"))?;
            add(&mut roots, path, &pem)?;
        }
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

fn add(roots: &mut RootCertStore, name: &str, pem: &[u8]) -> Result<(), String> {
    let bad =
        |cause: &dyn std::fmt::Display| format!("{name} holds no certificates that can be trusted: {cause}");
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(|error| bad(&error))?).map_err(|error| bad(&error))?;
    }
    if roots.is_empty() { Err(bad(&"it is empty")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::{RDS, add, client};
    use rustls::RootCertStore;

    #[test]
    fn every_root_of_rds_is_one_that_can_be_trusted() {
        let mut roots = RootCertStore::empty();
        add(&mut roots, "rds", RDS).unwrap();
        assert_eq!(roots.len(), 87);
    }

    #[test]
    fn a_file_that_is_away_or_holds_no_certificate_is_named() {
        assert!(client(Some("/nowhere.pem")).unwrap_err().starts_with("/nowhere.pem cannot be read"));
        assert!(client(Some("Cargo.toml")).unwrap_err().starts_with("Cargo.toml holds no certificates"));
    }
}

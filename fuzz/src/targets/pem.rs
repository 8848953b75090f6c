//! Certificates and keys: files with arbitrary bytes are accepted, or refused with a reason. The input begins with two
//! lengths of two bytes: the server's certificate and its key; the rest is the certificates of clients.

use std::cell::OnceCell;
use std::path::PathBuf;

use runzeo::internal::net::tls::{Files, Peers, Tls};

/// The directory of the files.
fn directory() -> PathBuf {
    thread_local!(static DIRECTORY: OnceCell<PathBuf> = const { OnceCell::new() });
    DIRECTORY.with(|directory| directory.get_or_init(|| super::directory("pem")).clone())
}

pub fn run(data: &[u8]) {
    let Some((&[a, b, c, d], rest)) = data.split_first_chunk() else { return };
    let len = usize::from(u16::from_le_bytes([a, b])).min(rest.len());
    let (certificate, rest) = rest.split_at(len);
    let (key, clients) = rest.split_at(usize::from(u16::from_le_bytes([c, d])).min(rest.len()));
    let directory = directory();
    let path = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    };
    let files = Files {
        certificate: path("certificate", certificate),
        key: Some(path("key", key)),
        password: None,
        peers: Peers::Listed(path("clients", clients)),
    };
    match Tls::load(files) {
        Ok(tls) => assert!(tls.begin().is_ok()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let read =
        |name: &str| std::fs::read(crate::root().join("fuzz/seeds/pem.parts").join(name)).unwrap_or_default();
    for (certificate, key, clients) in [
        ("ec.pem", "ec-key.pem", "ec.pem"),
        ("ec.pem", "ec-key.pem", "ed.pem"),
        ("ed.pem", "ed-key.pem", "authority.pem"),
        ("ec.pem", "ed-key.pem", "crl.pem"),
        ("ec.pem", "sec1-key.pem", "ec.pem"),
    ] {
        let (certificate, key, clients) = (read(certificate), read(key), read(clients));
        let len = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or(0).to_le_bytes();
        seeds.push([&len(&certificate)[..], &len(&key), &certificate, &key, &clients].concat());
    }
    seeds
}

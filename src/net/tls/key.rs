//! The private key of the server: PKCS#8, PKCS#1 or SEC1 in PEM, encrypted or not.
//!
//! Encrypted keys come in two forms: PKCS#8, which describes its cipher, and the older form of OpenSSL, which names the
//! cipher in two lines before the key and derives the cipher's key from the password with MD5.

use std::fs;
use std::path::Path;

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, KeyIvInit};
use md5::{Digest, Md5};
use pem::Pem;
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::files::{Password, TlsError, warn_if_public};

/// The first private key among the sections of a file, decrypted.
pub fn find(
    sections: &[Pem],
    password: Option<&Password>,
    path: &Path,
) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file = path.display();
    let is_key = |section: &&Pem| section.tag().ends_with("PRIVATE KEY");
    let Some(section) = sections.iter().find(is_key) else {
        return Err(TlsError(format!("key: {file} has no '-----BEGIN PRIVATE KEY-----'")));
    };
    let is_pkcs8 = section.tag() == "ENCRYPTED PRIVATE KEY";
    let dek_info = section.headers().get("DEK-Info");
    if !is_pkcs8 && dek_info.is_none() {
        return typed(section.tag(), section.contents().to_vec())
            .map_err(|why| TlsError(format!("key: {file}: {why}")));
    }
    let Some(password) = password else {
        return Err(TlsError(format!(
            "key: {file} is encrypted: write its password into a file that only the server can read, and name that \
             with 'password-file'"
        )));
    };
    let password = read_password(password)?;
    let decrypted = match dek_info {
        None => decrypt_pkcs8(section.contents(), &password),
        Some(dek_info) => decrypt_traditional(section, dek_info, &password),
    };
    decrypted.map_err(|why| TlsError(format!("key: {file} cannot be decrypted: {why}")))
}

/// `tag`: the PEM label, which says what the bytes are.
fn typed(tag: &str, der: Vec<u8>) -> Result<PrivateKeyDer<'static>, String> {
    match tag {
        "PRIVATE KEY" => Ok(PrivatePkcs8KeyDer::from(der).into()),
        "RSA PRIVATE KEY" => Ok(PrivateKeyDer::Pkcs1(der.into())),
        "EC PRIVATE KEY" => Ok(PrivateKeyDer::Sec1(der.into())),
        _ => Err(format!("a key of an unknown kind, '{tag}'; RSA, ECDSA and Ed25519 can be used")),
    }
}

fn read_password(password: &Password) -> Result<Vec<u8>, TlsError> {
    match password {
        Password::File(path) => {
            let text = fs::read(path)
                .map_err(|error| TlsError(format!("password-file: {}: {error}", path.display())))?;
            warn_if_public(path);
            let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
            Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
        }
        Password::Text(text) => Ok(text.clone().into_bytes()),
    }
}

const WRONG_PASSWORD: &str = "the password is wrong, or the file is damaged";

fn decrypt_pkcs8(der: &[u8], password: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(der).map_err(|error| {
        format!("an unknown cipher ({error}); 'openssl pkcs8 -topk8 -v2 aes256' writes one that can be used")
    })?;
    let key = encrypted.decrypt(password).map_err(|error| format!("{WRONG_PASSWORD} ({error})"))?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

/// `dek_info` is the name of a cipher and its initialisation vector in hexadecimal.
fn decrypt_traditional(
    section: &Pem,
    dek_info: &str,
    password: &[u8],
) -> Result<PrivateKeyDer<'static>, String> {
    let (cipher, iv) = dek_info.split_once(',').unwrap_or((dek_info, ""));
    let iv = from_hex(iv.trim()).ok_or("no initialisation vector in DEK-Info")?;
    let salt = iv.get(..8).ok_or("an initialisation vector that is too short in DEK-Info")?;
    let mut bytes = section.contents().to_vec();
    let plain = match cipher.trim() {
        "AES-128-CBC" => {
            decrypt::<cbc::Decryptor<aes::Aes128>>(&derive_key(password, salt, 16), &iv, &mut bytes)
        }
        "AES-192-CBC" => {
            decrypt::<cbc::Decryptor<aes::Aes192>>(&derive_key(password, salt, 24), &iv, &mut bytes)
        }
        "AES-256-CBC" => {
            decrypt::<cbc::Decryptor<aes::Aes256>>(&derive_key(password, salt, 32), &iv, &mut bytes)
        }
        "DES-EDE3-CBC" => {
            decrypt::<cbc::Decryptor<des::TdesEde3>>(&derive_key(password, salt, 24), &iv, &mut bytes)
        }
        other => {
            return Err(format!(
                "an unknown cipher '{other}'; 'openssl pkcs8 -topk8 -v2 aes256' writes one that can be used"
            ));
        }
    };
    // With one wrong password in 256 the padding is right by chance.
    let plain = plain.filter(|plain| plain.first() == Some(&0x30)).ok_or(WRONG_PASSWORD)?;
    typed(section.tag(), plain.to_vec())
}

/// `None` if the padding is wrong.
fn decrypt<'a, D: BlockModeDecrypt + KeyIvInit>(
    key: &[u8],
    iv: &[u8],
    bytes: &'a mut [u8],
) -> Option<&'a [u8]> {
    D::new_from_slices(key, iv).ok()?.decrypt_padded::<Pkcs7>(bytes).ok()
}

/// OpenSSL's `EVP_BytesToKey` with MD5 and one round.
fn derive_key(password: &[u8], salt: &[u8], len: usize) -> Vec<u8> {
    let mut key = Vec::new();
    let mut last: Vec<u8> = Vec::new();
    while key.len() < len {
        last = Md5::new().chain_update(&last).chain_update(password).chain_update(salt).finalize().to_vec();
        key.extend_from_slice(&last);
    }
    key.truncate(len);
    key
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    Some(pairs.filter_map(|pair| Some(pair.first()? << 4 | pair.get(1)?)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, password: Option<&str>) -> Result<PrivateKeyDer<'static>, String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/tls/keys").join(name);
        let directory = tempfile::tempdir().expect("a directory");
        let password = password.map(|text| {
            let path = directory.path().join("password");
            fs::write(&path, text).expect("write");
            Password::File(path)
        });
        let sections = super::super::files::read_pem("key", &path).expect("a PEM file");
        find(&sections, password.as_ref(), &path).map_err(|error| error.to_string())
    }

    fn public_key(key: PrivateKeyDer<'static>) -> Vec<u8> {
        let provider = rustls::crypto::ring::default_provider();
        let key = provider.key_provider.load_private_key(key).expect("a key");
        key.public_key().expect("a public key").to_vec()
    }

    #[test]
    fn every_form_that_openssl_writes_is_the_same_key() {
        let expected = public_key(read("plain-sec1.pem", None).expect("readable"));
        for form in [
            "plain-pkcs8",
            "pkcs8-aes256-sha256",
            "pkcs8-aes128-sha1",
            "pkcs8-des3",
            "pkcs8-scrypt",
            "traditional-aes128",
            "traditional-aes192",
            "traditional-aes256",
            "traditional-des3",
        ] {
            let name = format!("{form}.pem");
            let key = read(&name, Some("pass word\r\nmore\n")).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(public_key(key), expected, "{form}");
            if !form.starts_with("plain") {
                let error = read(&name, None).expect_err("no password");
                assert!(error.contains("is encrypted") && error.contains("'password-file'"), "{error}");
                let error = read(&name, Some("another")).expect_err("the wrong password");
                assert!(error.contains("the password is wrong"), "{error}");
            }
        }
    }

    #[test]
    fn what_cannot_be_decrypted_says_what_to_do() {
        for name in ["unknown-camellia128.pem", "unknown-pkcs12-pbe.pem"] {
            let error = read(name, Some("pass word")).expect_err("an unknown cipher");
            assert!(error.contains("'openssl pkcs8 -topk8 -v2 aes256'"), "{error}");
        }
    }

    #[test]
    fn a_damaged_description_of_the_cipher() {
        for dek_info in [
            "",
            "AES-128-CBC",
            "AES-128-CBC,",
            "AES-128-CBC,0011",
            "AES-128-CBC,zz",
            "DES-EDE3-CBC,00112233445566",
        ] {
            let mut section = Pem::new("EC PRIVATE KEY", vec![1; 64]);
            section.headers_mut().add("DEK-Info", dek_info).expect("a header");
            assert!(decrypt_traditional(&section, dek_info, b"x").is_err(), "{dek_info}");
        }
    }
}

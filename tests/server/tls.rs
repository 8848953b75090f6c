//! TLS: which clients are accepted and which are refused, with which log line; that everything works as without TLS,
//! including slow readers and message codes; and peers that begin a handshake and do not continue.

pub mod identities;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::client::{RawClient, Speaks, load_beside_commits, record};
use identities::{Identity, Secured, authority, params};
use rcgen::{
    BasicConstraints, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

#[test]
fn who_gets_in() {
    let root = Identity::self_signed(authority("root"));
    let listed = Identity::self_signed(params("listed"));
    let expired = Identity::self_signed({
        let mut params = params("expired");
        params.not_after = date_time_ymd(2021, 1, 1);
        params
    });
    let for_servers = Identity::self_signed({
        let mut params = params("web");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params
    });
    let trusted = [&root, &listed, &expired, &for_servers].map(Identity::pem).concat();
    let secured = Secured::start(&trusted);

    secured.accepts(&listed);
    secured.server.wait_for_log("TLS 1.2, certificate of 'CN=listed'");
    secured.server.wait_for_log("TLS 1.3, certificate of 'CN=listed'");
    secured.accepts(&root.sign(params("signed")));
    secured.server.wait_for_log("TLS 1.3, certificate of 'CN=signed'");

    secured.refuses(None, "no TLS: the client shows no certificate; its <ssl> needs 'certificate' and 'key'");
    let unknown = "the certificate is not in 'authenticate', and no authority there has signed it";
    secured.refuses(Some(&Identity::self_signed(params("stranger"))), &format!("'CN=stranger': {unknown}"));
    // The same name, another key.
    secured.refuses(Some(&Identity::self_signed(params("listed"))), &format!("'CN=listed': {unknown}"));
    // A listed client is no authority.
    secured.refuses(Some(&listed.sign(params("friend"))), &format!("'CN=friend': {unknown}"));
    secured.refuses(Some(&expired), "'CN=expired': the certificate expired on 2021-01-01");
    secured.refuses(Some(&for_servers), "'CN=web': the certificate is not for clients");
    let mut late = params("late");
    late.not_after = date_time_ymd(2021, 1, 1);
    secured.refuses(
        Some(&root.sign(late)),
        "'CN=late': the certificate, or one that it depends on, has expired",
    );
    // A log line stays one line, without quotes from the certificate.
    secured.refuses(Some(&Identity::self_signed(params("a'\n2026 INFO b"))), "'CN=a?\\0a2026 INFO b': ");
}

#[test]
fn revoked_certificates_and_expired_authorities() {
    let root = Identity::self_signed(authority("root"));
    let old_root = Identity::self_signed({
        let mut params = authority("old root");
        params.not_after = date_time_ymd(2021, 1, 1);
        params
    });
    let other_root = Identity::self_signed(authority("other root"));
    let mut revoked = params("revoked");
    revoked.serial_number = Some(SerialNumber::from(7));
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2999, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(7),
            revocation_time: date_time_ymd(2020, 2, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&root.issuer()).expect("a list").pem().expect("PEM");
    let revoked = root.sign(revoked);
    // A revoked certificate is refused, listed or not.
    let trusted = [root.pem(), other_root.pem(), old_root.pem(), list, revoked.pem()].concat();
    let secured = Secured::start(&trusted);
    secured.accepts(&root.sign(params("good")));
    secured.refuses(Some(&revoked), "'CN=revoked': the certificate was revoked by its authority");
    let uncovered = "'CN=uncovered': no revocation list in 'authenticate' covers the certificate";
    secured.refuses(Some(&other_root.sign(params("uncovered"))), uncovered);
    let unknown = "'CN=old': the certificate is not in 'authenticate', and no authority there has signed it";
    secured.refuses(Some(&old_root.sign(params("old"))), unknown);
}

/// Chains from an authority to a client, and proof of the key of a certificate.
#[test]
fn chains_and_keys() {
    let root = Identity::self_signed(authority("root"));
    let listed = Identity::self_signed(params("listed"));
    let young = Identity::self_signed({
        let mut params = params("young");
        params.not_before = date_time_ymd(2998, 1, 1);
        params
    });
    let secured = Secured::start(&[&root, &listed, &young].map(Identity::pem).concat());
    secured.refuses(Some(&young), "'CN=young': the certificate is not valid before 2998-01-01");

    // Through an intermediate authority, which the client shows too.
    let middle = root.sign(authority("middle"));
    let below = middle.sign(params("below"));
    secured.accepts_chain(&below, &[&middle]);
    secured.refuses(Some(&below), "'CN=below': the certificate is not in 'authenticate'");
    // A certificate that is no authority, or that may not sign others, cannot be the intermediate.
    let client = root.sign(params("client"));
    secured.accepts(&client);
    secured.refuses_chain(&client.sign(params("friend")), &[&client], "'CN=friend': ");
    let last = root.sign({
        let mut params = authority("last");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params
    });
    secured.accepts_chain(&last.sign(params("direct")), &[&last]);
    let beyond = last.sign(authority("beyond"));
    secured.refuses_chain(&beyond.sign(params("deep")), &[&beyond, &last], "'CN=deep': ");
    // Signed by an authority with the same name and another key.
    let false_root = Identity::self_signed(authority("root"));
    secured.refuses_chain(&false_root.sign(params("false")), &[&false_root], "'CN=false': ");
    // The cost of a hundred authorities is bounded.
    let mut chain = vec![root.sign(authority("0"))];
    for n in 1..100 {
        let next = chain.last().expect("one").sign(authority(&n.to_string()));
        chain.push(next);
    }
    let far = chain.last().expect("one").sign(params("far"));
    let shown: Vec<&Identity> = chain.iter().rev().collect();
    let before = secured.server.cpu_time();
    secured.refuses_chain(&far, &shown, "'CN=far': ");
    assert!(secured.server.cpu_time() - before < Duration::from_secs(5));

    // Any client can show a listed certificate; it must prove that it has the key.
    let thief = Identity {
        certificate: listed.certificate.clone(),
        params: listed.params.clone(),
        key: KeyPair::generate().expect("a key"),
    };
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = secured.config_unchecked(&thief, version);
        assert!(RawClient::connect_tls(secured.server.address, Speaks::Z5, &config).is_err());
    }
    secured.accepts(&listed);
}

/// Other kinds of keys than the default.
#[test]
fn kinds_of_keys() {
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let params = params("other");
        let certificate = params.self_signed(&key).expect("a certificate");
        let client = Identity { certificate, params, key };
        Secured::start(&client.pem()).accepts(&client);
    }
}

/// After the handshake only encrypted data is accepted.
#[test]
fn records_that_nobody_encrypted() {
    let known = Identity::self_signed(params("client"));
    let mut secured = Secured::start(&known.pem());
    let mut honest = secured.client(&known);
    let before = secured.server.thread_count();
    let records: [&[u8]; 7] = [
        // A fake encrypted record; one that is too long; and one without a length.
        &[&[23, 3, 3, 0, 64][..], &[7; 64]].concat(),
        &[&[23, 3, 3, 0xff, 0xff][..], &[7; 500]].concat(),
        &[23, 3, 3, 0, 0],
        // Another handshake in plain text.
        &[22, 3, 3, 0, 4, 1, 0, 0, 0],
        // A fatal alert, and close_notify.
        &[21, 3, 3, 0, 2, 2, 40],
        &[21, 3, 3, 0, 2, 1, 0],
        b"\0\0\0\x02Z5 is not TLS",
    ];
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for record in records {
            let config = secured.config(Some(&known), version);
            let mut client =
                RawClient::connect_tls(secured.server.address, Speaks::Z5, &config).expect("connect");
            client.register_now().expect("register");
            let mut stream = client.stream().try_clone().expect("clone");
            stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
            stream.write_all(record).expect("send");
            // The server may wait for the rest of a record; the end makes it an error.
            stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
            let _ = stream.read_to_end(&mut Vec::new());
        }
    }
    assert!(!honest.new_oids(1).expect("connected").is_empty());
    let deadline = Instant::now() + Duration::from_secs(60);
    while secured.server.thread_count() > before {
        assert!(Instant::now() < deadline, "{} threads, {before} before", secured.server.thread_count());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(secured.server.is_alive() && !secured.server.log().contains("panicked"));
}

#[test]
fn a_directory_of_certificates() {
    let (one, two, three) = ("one", "two", "three");
    let [first, second, third] = [one, two, three].map(|name| Identity::self_signed(params(name)));
    let secured = Secured::start(&first.pem());
    // `authenticate` is read again, also after it has changed from a file to a directory.
    let path = secured.file("clients.pem");
    fs::remove_file(&path).expect("remove");
    fs::create_dir(&path).expect("a directory");
    fs::write(path.join("one.pem"), first.pem_with_key()).expect("write");
    fs::write(path.join("two.crt"), second.pem()).expect("write");
    fs::write(path.join("README"), "not a certificate").expect("write");
    secured.reload("one of 2 certificates");
    secured.accepts(&first);
    secured.accepts(&second);
    // If there are names of c_rehash, only those are read, as in OpenSSL.
    fs::write(path.join("9d66eef0.0"), third.pem()).expect("write");
    secured.reload("one of 1 certificates, or one signed by 0 authorities among them");
    secured.accepts(&third);
    secured.refuses(Some(&first), "'CN=one': the certificate is not in 'authenticate'");
}

#[test]
fn renewed_certificates_without_a_restart() {
    let (before, after) = (Identity::self_signed(params("before")), Identity::self_signed(params("after")));
    let mut secured = Secured::start(&before.pem());
    let mut connected = secured.client(&before);
    // An unusable file changes nothing.
    fs::write(secured.file("server.pem"), "nonsense").expect("write");
    secured.server.signal("USR2");
    secured.server.wait_for_log("the renewed certificates cannot be used");
    secured.accepts(&before);

    let own = Identity::self_signed(params("renewed"));
    fs::write(secured.file("server.pem"), own.pem_with_key()).expect("write");
    fs::write(secured.file("clients.pem"), after.pem()).expect("write");
    secured.reload("certificate of 'CN=renewed'");
    secured.own = own;
    secured.accepts(&after);
    secured.refuses(Some(&before), "'CN=before': the certificate is not in 'authenticate'");
    // Existing connections continue.
    assert_eq!(connected.new_oids(1).expect("connected").len(), 1);
}

/// Large replies, invalidations while the socket is full, and a slow reader.
#[test]
fn everything_arrives_in_order() {
    let known = Identity::self_signed(params("client"));
    let secured = Secured::start(&known.pem());
    let mut readers: Vec<RawClient> = (0..3).map(|_| secured.client(&known)).collect();
    load_beside_commits(&mut secured.client(&known), &mut readers, [10, 1000, 3_000_000]);
}

/// Clients before ZEO 5 behind a TLS wrapper: the protocol inside is unchanged, including message codes.
#[test]
fn with_digest_authentication() {
    use crate::support::pickle::{Value, text};
    use sha1::{Digest, Sha1};
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    let secret = hex(&Sha1::digest("foo:r:bar"));

    let known = Identity::self_signed(params("client"));
    let directory = tempfile::tempdir().expect("a directory");
    let passwords = directory.path().join("passwords");
    fs::write(&passwords, format!("realm r\nfoo: {secret}\n")).expect("write");
    let digest = format!(
        "authentication-protocol digest\nauthentication-database {}\nauthentication-realm r",
        passwords.display()
    );
    let secured = Secured::start_with(&known.pem(), &digest);
    let mut client = secured.connect(&known, Speaks::Z4).expect("connect");
    let reply = client.call("auth_get_challenge", vec![]).expect("connected").expect("a challenge");
    let string = |n: usize| String::from_utf8(reply.tuple()[n].bytes().to_vec()).expect("text");
    let (challenge, nonce) = (string(1), string(2));
    let response = hex(&Sha1::digest(format!("{secret}:{challenge}")));
    let response = vec![Value::Tuple(vec![text("foo"), text(&challenge), text(&response)])];
    client.call("auth_response", response).expect("connected").expect("passed");
    let key = [Sha1::digest(format!("{secret}:{nonce}")).to_vec(), secret.clone().into_bytes()].concat();
    client.use_session_key(&key);
    client.register_now().expect("register");
    let oid = client.new_oids(1).expect("new_oids")[0];
    let data = record(&vec![b'x'; 500_000]);
    client.queue_begin(1);
    client.queue_store(oid, 0, &data, 1);
    client.call("vote", vec![Value::Int(1)]).expect("connected").expect("vote");
    client.call("tpc_finish", vec![Value::Int(1)]).expect("connected").expect("finish");
    let load = client.queue_load(oid);
    client.flush().expect("send");
    let loaded = client.answer(load).expect("connected").expect("load");
    assert_eq!(loaded.tuple()[0].bytes(), data);

    // A certificate does not replace the password.
    let mut client = secured.connect(&known, Speaks::Z4).expect("connect");
    assert!(
        client.call("register", vec![text("1"), Value::Bool(false)]).map_or(true, |reply| reply.is_err())
    );
}

/// Unregistered peers hold a thread each for a while; other clients are not affected.
#[test]
fn handshakes_that_do_not_go_on() {
    let known = Identity::self_signed(params("client"));
    let mut secured = Secured::start(&known.pem());
    let mut honest = secured.client(&known);
    let before = secured.server.thread_count();
    let open = || TcpStream::connect(secured.server.address).expect("connect");
    let mut unregistered: Vec<TcpStream> = (0..60).map(|_| open()).collect();
    for (n, connection) in unregistered.iter_mut().enumerate() {
        match n % 3 {
            // Sends nothing.
            0 => {}
            // The beginning of a ClientHello.
            1 => connection.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).expect("send"),
            // Half closed.
            _ => connection.shutdown(std::net::Shutdown::Write).expect("shutdown"),
        }
    }
    for _ in 0..20 {
        let mut connection = open();
        connection.write_all(&[0xff; 10_000]).expect("send");
        // An alert or nothing, then the end.
        let _ = connection.read_to_end(&mut Vec::new());
    }
    secured
        .server
        .wait_for_log("no TLS: this is not TLS; does the client have <ssl>?; the connection is closed");
    for _ in 0..50 {
        assert!(!honest.new_oids(1).expect("connected").is_empty());
    }
    secured.accepts(&known);
    drop(unregistered);
    let deadline = Instant::now() + Duration::from_secs(60);
    while secured.server.thread_count() > before {
        assert!(Instant::now() < deadline, "{} threads, {before} before", secured.server.thread_count());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(secured.server.is_alive());
}

/// A peer that sends its ClientHello byte by byte gets no more time, nor does one that completes TLS and does not
/// register.
#[test]
fn a_handshake_has_a_time_limit_in_all() {
    let known = Identity::self_signed(params("client"));
    let secured = Secured::start_with(&known.pem(), "handshake-timeout 5");
    let mut honest = secured.client(&known);
    let before = secured.server.thread_count();
    let started = Instant::now();
    let mut slow = TcpStream::connect(secured.server.address).expect("connect");
    slow.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).expect("send");
    slow.set_read_timeout(Some(Duration::from_millis(100))).expect("timeout");
    // Some kernels report the end of a connection only to a read.
    while !matches!(slow.read(&mut [0; 16]), Ok(0)) && slow.write_all(&[0]).is_ok() {
        assert!(started.elapsed() < Duration::from_secs(60), "it goes on");
    }
    assert!(started.elapsed() > Duration::from_millis(1500), "{:?}", started.elapsed());
    secured.server.wait_for_log(
        "no TLS: the TLS handshake is not complete after 5 s (handshake-timeout); perhaps the client has no <ssl>; the connection is closed",
    );
    let mut idle = secured.connect(&known, Speaks::Z5).expect("greeted");
    idle.flush().expect("send");
    assert!(idle.frame().is_err(), "closed");
    assert!(!honest.new_oids(1).expect("connected").is_empty());
    let deadline = Instant::now() + Duration::from_secs(60);
    while secured.server.thread_count() > before {
        assert!(Instant::now() < deadline, "{} threads, {before} before", secured.server.thread_count());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs the server with these lines in `<ssl>`; it must not start.
fn does_not_start(directory: &TempDir, ssl: &str) -> String {
    let config = directory.path().join("zeo.conf");
    let text = format!("<zeo>\naddress 127.0.0.1:0\n<ssl>\n{ssl}\n</ssl>\n</zeo>\n<mappingstorage 1/>\n");
    fs::write(&config, text).expect("write");
    let output = Command::new(env!("CARGO_BIN_EXE_runzeo"))
        .arg("-C")
        .arg("zeo.conf")
        .current_dir(directory.path())
        .output()
        .expect("run");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_is_wrong_is_told_with_file_and_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).expect("write");
    let [own, other] = ["own", "other"].map(|name| Identity::self_signed(params(name)));
    write("own.pem", &own.pem());
    write("own-with-key.pem", &own.pem_with_key());
    write("other-key.pem", &other.key.serialize_pem());
    write("empty.pem", "");
    let encrypted = include_str!("tls/keys/traditional-aes128.pem");
    write("encrypted.pem", encrypted);
    write("wrong-password", "wrong\n");
    for (ssl, wanted) in [
        (
            "certificate missing.pem\nauthenticate own.pem",
            "zeo.conf:3: certificate: missing.pem: No such file",
        ),
        (
            "certificate empty.pem\nauthenticate own.pem",
            "certificate: empty.pem has no '-----BEGIN CERTIFICATE-----'",
        ),
        ("certificate own.pem\nauthenticate own.pem", "key: own.pem has no '-----BEGIN PRIVATE KEY-----'"),
        (
            "certificate own.pem\nkey other-key.pem\nauthenticate own.pem",
            "key: other-key.pem is not the key of the certificate in own.pem",
        ),
        (
            "certificate own-with-key.pem\nauthenticate empty.pem",
            "authenticate: empty.pem: has no certificate",
        ),
        ("certificate own-with-key.pem\nauthenticate missing", "authenticate: missing: No such file"),
        (
            "certificate own.pem\nkey encrypted.pem\nauthenticate own.pem",
            "encrypted.pem is encrypted: write its password into a file",
        ),
        (
            "certificate own.pem\nkey encrypted.pem\npassword-file wrong-password\nauthenticate own.pem",
            "encrypted.pem cannot be decrypted: the password is wrong",
        ),
        (
            "certificate own.pem\nauthenticate own.pem\npassword-function os.getcwd",
            "zeo.conf:6: password-function needs Python",
        ),
        (
            "certificate own-with-key.pem\nauthenticate DYNAMIC",
            "zeo.conf:5: authenticate DYNAMIC: the certificates would have to come from a Python program",
        ),
    ] {
        let said = does_not_start(&directory, ssl);
        assert!(said.contains(wanted), "{ssl}: {said}");
    }
}

//! The values of `<network>`.

use runzeo::internal::server::rates::Rates;

use crate::values::read;

const SERVER: &str = "<zeo>\naddress 8100\n</zeo>\n<mappingstorage>\n</mappingstorage>\n";

#[test]
fn every_key() {
    let text = SERVER.to_string()
        + "<network Office>
             addresses 10.1.0.0/16  192.168.0.0/24
             max-requests-per-second 20000
             max-sent-per-second 50MB
           </network>
           <network>
             addresses ::/0
             max-sent-per-second 1KB
           </network>
           <network Host>
             addresses 10.1.2.3
             max-requests-per-second 1
           </network>";
    let config = read(&text, &[], &[]);
    let networks: Vec<_> =
        config.networks.iter().map(|one| (one.name(), one.addresses.to_string(), one.rates)).collect();
    let expected = [
        ("<network office>", "10.1.0.0/16 192.168.0.0/24", Some(20_000), Some(50 << 20)),
        ("<network> ::/0", "::/0", None, Some(1024)),
        ("<network host>", "10.1.2.3", Some(1), None),
    ];
    let expected = expected.map(|(name, addresses, requests, sent)| {
        (name.to_string(), addresses.to_string(), Rates { requests, sent })
    });
    assert_eq!(networks, expected);
    // The command line replaces addresses to listen at, and no networks.
    assert_eq!(read(&text, &["-a", "9000"], &[]).networks.len(), 3);
    assert_eq!(read(SERVER, &[], &[]).networks, []);
}

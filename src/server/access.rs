//! Who may do what with a storage: rules, of which the first that fits a client counts.
//!
//! A client whom no rule fits may do nothing. The storage then looks to it like one that does not exist.

use std::fmt;
use std::net::IpAddr;

use crate::base::network::Network;
use crate::base::untrusted::Untrusted;
use crate::net::peer_process::ProcessId;
use crate::net::tls::layer::CertificateId;
use crate::server::rights::Rights;

/// What is known of a client when it registers.
#[derive(Clone, Debug, Default)]
pub struct ClientIdentity {
    /// Whose password it has given.
    pub user: Option<String>,
    /// The certificate that it has shown.
    pub certificate: Option<CertificateId>,
    /// User and group of a process on this machine, of a Unix socket.
    pub process: Option<ProcessId>,
    /// `None` for a Unix socket.
    pub ip: Option<IpAddr>,
}

impl ClientIdentity {
    /// What it has shown besides its address, as in the log. `None`: nothing.
    pub fn shown(&self) -> Option<String> {
        let shown = ClientIdentity { ip: None, ..self.clone() }.to_string();
        (!shown.is_empty()).then_some(shown)
    }
}

/// Whom a rule is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Who {
    Everyone,
    User(String),
    Subject(String),
    Sha256([u8; 32]),
    Uid(u32),
    Gid(u32),
    Network(Network),
}

/// One rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    pub who: Who,
    /// `None`: not even reading.
    pub rights: Option<Rights>,
}

/// The rules of a storage, in their order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AccessRules(pub Vec<Rule>);

impl AccessRules {
    /// What the first rule that fits permits. `None`: not even reading.
    pub fn rights(&self, identity: &ClientIdentity) -> Option<Rights> {
        self.0.iter().find(|rule| rule.who.fits(identity))?.rights
    }
}

impl Who {
    fn fits(&self, identity: &ClientIdentity) -> bool {
        let certificate = identity.certificate.as_ref();
        match self {
            Who::Everyone => true,
            Who::User(name) => identity.user.as_ref() == Some(name),
            Who::Subject(subject) => certificate.is_some_and(|shown| shown.subject == *subject),
            Who::Sha256(sum) => certificate.is_some_and(|shown| shown.sha256 == *sum),
            Who::Uid(uid) => identity.process.is_some_and(|process| process.uid == *uid),
            Who::Gid(gid) => identity.process.is_some_and(|process| process.gid == *gid),
            Who::Network(network) => identity.ip.is_some_and(|ip| network.contains(ip)),
        }
    }

    /// Whether it fits every client that the other fits.
    pub fn covers(&self, other: &Who) -> bool {
        match (self, other) {
            (Who::Everyone, _) => true,
            (Who::Network(network), Who::Network(other)) => network.covers(other),
            (one, other) => one == other,
        }
    }
}

/// What is known, for the log: `user 'alice', certificate 'CN=a'`.
impl fmt::Display for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(user) = &self.user {
            write!(f, "user '{}'", Untrusted(user))?;
            separator = ", ";
        }
        if let Some(CertificateId { subject, .. }) = &self.certificate {
            write!(f, "{separator}certificate '{}'", Untrusted(subject))?;
            separator = ", ";
        }
        if let Some(ProcessId { uid, gid }) = self.process {
            write!(f, "{separator}uid {uid}, gid {gid}")?;
            separator = ", ";
        }
        match self.ip {
            Some(ip) => write!(f, "{separator}address {ip}"),
            None => Ok(()),
        }
    }
}

/// As in the configuration.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Everyone => f.write_str("everyone"),
            Who::User(name) => write!(f, "user:{name}"),
            Who::Subject(subject) => write!(f, "cert:{subject}"),
            Who::Sha256(sum) => {
                f.write_str("cert-sha256:")?;
                sum.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Who::Uid(uid) => write!(f, "uid:{uid}"),
            Who::Gid(gid) => write!(f, "gid:{gid}"),
            Who::Network(network) => network.fmt(f),
        }
    }
}

/// `10.0.0.0/8: read, write`
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rights {
            Some(rights) => write!(f, "{}: {rights}", self.who),
            None => write!(f, "{}: none", self.who),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Who {
        Who::Network(text.parse().expect("a network"))
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rule = |who, rights| Rule { who, rights };
        let rules = AccessRules(vec![
            rule(Who::User("alice".into()), Some(Rights::ALL)),
            rule(Who::User("mallory".into()), None),
            rule(Who::Uid(7), Some(Rights::ALL)),
            rule(Who::Gid(8), Some(Rights::READING)),
            rule(Who::Subject("CN=a,O=b".into()), Some(Rights::ALL)),
            rule(Who::Sha256([1; 32]), Some(Rights::READING)),
            rule(network("10.0.0.0/8"), Some(Rights::READING)),
        ]);
        let of = |change: &dyn Fn(&mut ClientIdentity)| {
            let mut identity = ClientIdentity::default();
            change(&mut identity);
            rules.rights(&identity)
        };
        let ip = |text: &str| Some(text.parse().expect("an address"));
        let certificate =
            |subject: &str, sum| Some(CertificateId { subject: subject.into(), sha256: [sum; 32] });
        let process = |uid, gid| Some(ProcessId { uid, gid });
        assert_eq!(of(&|_| ()), None, "nothing is known of the client, and no rule is for everyone");
        assert_eq!(of(&|client| client.user = Some("alice".into())), Some(Rights::ALL));
        assert_eq!(of(&|client| client.user = Some("Alice".into())), None);
        assert_eq!(
            of(&|client| (client.user, client.ip) = (Some("mallory".into()), ip("10.0.0.1"))),
            None,
            "an earlier rule refuses what a later one permits"
        );
        assert_eq!(of(&|client| client.process = process(7, 8)), Some(Rights::ALL));
        assert_eq!(of(&|client| client.process = process(8, 8)), Some(Rights::READING));
        assert_eq!(of(&|client| client.process = process(8, 7)), None);
        assert_eq!(of(&|client| client.certificate = certificate("CN=a,O=b", 0)), Some(Rights::ALL));
        assert_eq!(of(&|client| client.certificate = certificate("CN=a", 0)), None, "the whole subject");
        assert_eq!(of(&|client| client.certificate = certificate("CN=c", 1)), Some(Rights::READING));
        assert_eq!(of(&|client| client.ip = ip("::ffff:10.9.9.9")), Some(Rights::READING));
        assert_eq!(of(&|client| client.ip = ip("11.0.0.1")), None);
    }

    #[test]
    fn a_rule_that_is_behind_a_wider_one_never_fits() {
        let user = |name: &str| Who::User(name.into());
        assert!(Who::Everyone.covers(&user("a")) && user("a").covers(&user("a")));
        assert!(!user("a").covers(&user("b")) && !user("a").covers(&Who::Everyone));
        assert!(network("10.0.0.0/8").covers(&network("10.1.2.3")));
        assert!(!network("10.1.2.3").covers(&network("10.0.0.0/8")));
    }
}

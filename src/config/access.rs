//! The rules of `<access>` for each storage, checked: a rule that can never fit a client is a mistake.

use super::schema::access::AccessSection;
use super::zconfig::Location;
use super::zconfig::suggest::nearest;
use super::{AccessConfig, ListenerConfig};
use crate::base::address::Address;
use crate::server::access::{AccessRules, Rule, Who};

/// The rules of each storage that has some. Adds warnings about rules that fit no client.
pub fn access(
    sections: Vec<AccessSection>,
    listeners: &[ListenerConfig],
    storages: &[&str],
    warnings: &mut Vec<String>,
) -> Result<AccessConfig, String> {
    let mut config = AccessConfig::default();
    let mut general: Option<(AccessRules, Location)> = None;
    for AccessSection { storage, rules, start } in sections {
        check_order(&rules)?;
        warnings.extend(rules.iter().filter_map(|(rule, location)| {
            let why = never_fits(&rule.who, storage.as_deref(), listeners)?;
            Some(format!("{location}: the rule for {} never fits a client: {why}", rule.who))
        }));
        let rules = AccessRules(rules.into_iter().map(|(rule, _)| rule).collect());
        match storage {
            Some(storage) if !storages.contains(&storage.as_str()) => {
                let near = nearest(&storage, storages.iter().copied());
                let near = near.map(|near| format!(", did you mean '{near}'?")).unwrap_or_default();
                return Err(format!("{start}: <access {storage}>: there is no storage '{storage}'{near}"));
            }
            Some(storage) => drop(config.0.insert(storage, rules)),
            None => {
                if let Some((_, first)) = &general {
                    return Err(format!(
                        "{start}: there is another <access> for all storages ({first}): write all rules into one"
                    ));
                }
                general = Some((rules, start));
            }
        }
    }
    if let Some((rules, _)) = general {
        for name in storages {
            config.0.entry((*name).to_string()).or_insert_with(|| rules.clone());
        }
    }
    Ok(config)
}

/// Refuses a rule that an earlier one makes useless.
fn check_order(rules: &[(Rule, Location)]) -> Result<(), String> {
    for (index, (rule, location)) in rules.iter().enumerate() {
        let before = rules.iter().take(index).find(|(earlier, _)| earlier.who.covers(&rule.who));
        if let Some((earlier, first)) = before {
            return Err(format!(
                "{location}: the rule for {} never fits a client: the one for {} ({first}) comes first",
                rule.who, earlier.who
            ));
        }
    }
    Ok(())
}

/// Why no client of the storage can be the one that is meant.
fn never_fits(who: &Who, storage: Option<&str>, listeners: &[ListenerConfig]) -> Option<&'static str> {
    let serves = |listener: &&ListenerConfig| match (storage, &listener.storages) {
        (Some(storage), Some(served)) => served.iter().any(|name| name == storage),
        _ => true,
    };
    let any = |has: fn(&ListenerConfig) -> bool| listeners.iter().filter(serves).any(has);
    match who {
        Who::User(_) if !any(|listener| listener.passwords) => Some("no address demands passwords"),
        Who::Subject(_) | Who::Sha256(_) if !any(|listener| listener.ssl.is_some()) => {
            Some("no address has TLS")
        }
        Who::Uid(_) | Who::Gid(_) if !any(|listener| matches!(listener.address, Address::Unix(_))) => {
            Some("there is no Unix socket")
        }
        Who::Network(_) if !any(|listener| matches!(listener.address, Address::Tcp { .. })) => {
            Some("all addresses are Unix sockets")
        }
        _ => None,
    }
}

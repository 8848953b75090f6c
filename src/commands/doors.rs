//! The addresses at which a server accepts clients, and how a reload changes them.
//!
//! Addresses are compared as they are written. One that is there before and after keeps its sockets, and only what
//! holds there changes. Where the service manager has passed sockets, none come or go: they are the manager's.

use std::io;
use std::sync::Weak;

use crate::base::sync::Arc;
use crate::commands::listening::{self, Certificates, OpenListener, UnixSockets};
use crate::config::ListenerConfig;
use crate::net::listen::Listener;
use crate::server::Server;
use crate::server::policy::{Policy, PolicyOptions};

/// An address at which clients are accepted.
struct Door {
    config: ListenerConfig,
    policy: Arc<Policy>,
    /// One for each IP version.
    sockets: Vec<Arc<Listener>>,
    /// Unlinked when this is dropped.
    _files: UnixSockets,
}

/// All of them.
#[derive(Default)]
pub(super) struct Doors {
    /// In the order of the configuration, later ones behind.
    open: Vec<Door>,
    /// The policies of those that have gone, as long as they have clients.
    gone: Vec<(ListenerConfig, Weak<Policy>)>,
}

/// How the addresses of another configuration differ.
pub(super) struct DoorChanges<'a> {
    /// The door of each address that stays.
    kept: Vec<(usize, &'a ListenerConfig)>,
    pub added: Vec<&'a ListenerConfig>,
    gone: Vec<usize>,
}

impl Doors {
    /// Accepts clients at addresses. After an error none of them is there any more.
    pub(super) fn open(
        server: &Arc<Server>,
        listeners: Vec<OpenListener<'_>>,
        policy: impl Fn(&ListenerConfig) -> PolicyOptions,
    ) -> io::Result<Doors> {
        let mut doors = Doors::default();
        for OpenListener { config, sockets, files } in listeners {
            listening::log_listening(config, &sockets);
            let policy = Policy::new(policy(config));
            let mut door = Door { config: config.clone(), policy, sockets: Vec::new(), _files: files };
            for socket in sockets {
                match server.accept_on(socket, Arc::clone(&door.policy)) {
                    Ok(socket) => door.sockets.push(socket),
                    Err(error) => {
                        doors.open.push(door);
                        doors.close(server);
                        return Err(error);
                    }
                }
            }
            doors.open.push(door);
        }
        Ok(doors)
    }

    /// Ends all of them.
    pub(super) fn close(self, server: &Server) {
        self.open.iter().flat_map(|door| &door.sockets).for_each(|socket| server.close_listener(socket));
    }

    /// Whether the service manager has passed sockets.
    pub(super) fn are_inherited(&self) -> bool {
        self.open.iter().any(|door| door.sockets.iter().any(|socket| socket.is_inherited()))
    }

    /// What has to be done for the addresses of another configuration.
    pub(super) fn changes<'a>(&self, wanted: &'a [ListenerConfig]) -> DoorChanges<'a> {
        let are_inherited = self.are_inherited();
        let mut changes = DoorChanges { kept: Vec::new(), added: Vec::new(), gone: Vec::new() };
        let mut left: Vec<usize> = (0..self.open.len()).collect();
        for config in wanted {
            let fits = |index: &usize| {
                self.open.get(*index).is_some_and(|door| match are_inherited {
                    true => door.config.section == config.section,
                    false => door.config.address == config.address,
                })
            };
            match left.iter().position(fits) {
                Some(at) => changes.kept.push((left.remove(at), config)),
                None if are_inherited => {}
                None => changes.added.push(config),
            }
        }
        if !are_inherited {
            changes.gone = left;
        }
        changes
    }

    /// Applies them: `opened` are those that were added. Returns what is said about it.
    pub(super) fn apply(
        &mut self,
        server: &Server,
        changes: DoorChanges<'_>,
        opened: Doors,
        certificates: &Certificates,
        policy: impl Fn(&ListenerConfig) -> PolicyOptions,
    ) -> Vec<String> {
        for (index, config) in changes.kept {
            let Some(door) = self.open.get_mut(index) else { continue };
            door.policy.set(policy(config));
            let tls = certificates.of_listener(config);
            door.sockets.iter().for_each(|socket| socket.set_tls(tls.clone()));
            door.config = config.clone();
        }
        let mut notes = Vec::new();
        self.gone.retain(|(_, policy)| policy.strong_count() > 0);
        let mut index = 0;
        let gone = &mut self.gone;
        self.open.retain(|door| {
            let stays = !changes.gone.contains(&index);
            index += 1;
            if !stays {
                gone.push((door.config.clone(), Arc::downgrade(&door.policy)));
                door.sockets.iter().for_each(|socket| server.close_listener(socket));
                let name = door.config.section.as_ref().map(|section| format!(" ({section})"));
                let address = &door.config.address;
                notes.push(format!("no longer listening on {address}{}", name.unwrap_or_default()));
            }
            stays
        });
        self.open.extend(opened.open);
        // The rules hold for their clients as for others.
        for (config, gone) in &self.gone {
            let options = PolicyOptions { has_gone: true, ..policy(config) };
            gone.upgrade().iter().for_each(|gone| gone.set(options.clone()));
        }
        notes
    }
}

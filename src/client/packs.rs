//! A pack of the server's storage that can be cancelled.

use std::sync::mpsc;

use super::ask::{AskError, understood};
use super::link::Link;
use crate::storage::{PackProgress, Result, StorageError};
use crate::wire::calls::Call;

/// What happens during a pack.
enum PackEvent {
    Answered(std::result::Result<(), AskError>),
    Cancelled,
}

/// Has the server pack to `time`, and waits for the end. `can_cancel`: the server is one of this program.
pub fn pack(link: &Link, time: f64, progress: &PackProgress, can_cancel: bool) -> Result<()> {
    let (sender, events) = mpsc::channel();
    let cancelled = sender.clone();
    // The receiver is gone if the pack has ended.
    let _guard = progress.cancellation().on_cancel(move || _ = cancelled.send(PackEvent::Cancelled));
    link.start(&Call::Pack { time, wait: true }, move |link, answer| {
        let result = answer.map_err(AskError::Link);
        let result = result.and_then(|answer| answer.done().map_err(|error| understood(link, error)));
        _ = sender.send(PackEvent::Answered(result));
    });
    for event in events {
        match event {
            PackEvent::Answered(result) => return Ok(result?),
            // The answer to the pack says how it has ended.
            PackEvent::Cancelled if can_cancel => link.start(&Call::CancelPack, |_, _| ()),
            PackEvent::Cancelled => {}
        }
    }
    // The link calls the function above in any case.
    Err(StorageError::Disconnected("the answer to the pack is lost".into()))
}

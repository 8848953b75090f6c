//! A pack of the server's storage, or the dry run of one, that can be cancelled.

use std::sync::mpsc;

use super::ask::{AskError, understood};
use super::link::Link;
use super::pack_plan::plan_of;
use crate::storage::{PackPlan, PackProgress, Result, StorageError};
use crate::wire::answers::{Answer, AnswerError};
use crate::wire::calls::Call;

/// What happens during a pack.
enum PackEvent<T> {
    Answered(std::result::Result<T, AskError>),
    Cancelled,
}

/// Has the server pack to `time`, and waits for the end. `can_cancel`: the server is one of this program.
pub fn pack(link: &Link, time: f64, progress: &PackProgress, can_cancel: bool) -> Result<()> {
    let cancel = can_cancel.then_some(Call::CancelPack { own_plan: false });
    wait_for(link, &Call::Pack { time, wait: true }, |answer| answer.done(), progress, cancel)
}

/// Has the server, which is one of this program, find what a pack to `time` would remove.
pub fn plan(link: &Link, time: f64, progress: &PackProgress) -> Result<PackPlan> {
    let cancel = Some(Call::CancelPack { own_plan: true });
    let answer = wait_for(link, &Call::PlanPack { time }, |answer| answer.value(), progress, cancel)?;
    let no_plan = || StorageError::Unsupported("the server's answer to runzeo_pack_plan is no plan".into());
    plan_of(&answer).ok_or_else(no_plan)
}

fn wait_for<T: Send + 'static>(
    link: &Link,
    call: &Call<'_>,
    read: fn(&Answer<'_>) -> std::result::Result<T, AnswerError>,
    progress: &PackProgress,
    cancel: Option<Call<'_>>,
) -> Result<T> {
    let (sender, events) = mpsc::channel();
    let cancelled = sender.clone();
    // The receiver is gone if the pack has ended.
    let _guard = progress.cancellation().on_cancel(move || _ = cancelled.send(PackEvent::Cancelled));
    link.start(call, move |link, answer| {
        let result = answer.map_err(AskError::Link);
        let result = result.and_then(|answer| read(&answer).map_err(|error| understood(link, error)));
        _ = sender.send(PackEvent::Answered(result));
    });
    for event in events {
        match event {
            PackEvent::Answered(result) => return Ok(result?),
            // The answer to the pack says how it has ended.
            PackEvent::Cancelled => {
                if let Some(cancel) = &cancel {
                    link.start(cancel, |_, _| ());
                }
            }
        }
    }
    // The link calls the function above in any case.
    Err(StorageError::Disconnected("the answer to the pack is lost".into()))
}

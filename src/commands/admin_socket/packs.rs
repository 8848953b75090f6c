//! `pack` and `cancel-pack`.

use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use super::exchange::{AdminCall, Exchange};
use super::steered::Steered;
use crate::base::clock::{Stopwatch, since_1970};
use crate::base::level::{ERROR, INFO, WARNING};
use crate::base::sync::Arc;
use crate::server::client_log::{PACKS, log_without_peer};
use crate::server::packs::{self, AskedBy, PackFailure};

/// Interval of progress.
const PROGRESS: Duration = Duration::from_millis(500);

/// `{"storage": "1", "time": seconds since 1970}`: packs, to now if no time is given. It goes on if the caller goes.
/// The result has `storage`, `seconds`, and `size_before` and `size_after` in bytes.
pub(super) fn pack(steered: &Steered, call: &AdminCall, exchange: &mut Exchange) -> Result<Value, String> {
    let hosted = steered.storage(call)?;
    let time = call.number("time")?.unwrap_or_else(|| since_1970().as_secs_f64());
    let (begun, before) = (Stopwatch::start(), hosted.storage.size());
    let (packed, outcome) = mpsc::channel();
    let (job, caller) = (Arc::clone(&hosted), call.caller);
    hosted.workers.packs.run(move || {
        let name = &job.name;
        let log = |level, what: std::fmt::Arguments<'_>| {
            log_without_peer(&PACKS, level, format_args!("storage '{name}': pack(time={time:?}) {what}"));
        };
        log(INFO, format_args!("for {caller} started..."));
        let result = packs::pack(&job, time, AskedBy::Other(&caller.to_string())).map_err(
            |PackFailure { error, is_cancelled }| {
                let level = if is_cancelled { WARNING } else { ERROR };
                log(level, format_args!("ended with an error: {error}"));
                error.to_string()
            },
        );
        if result.is_ok() {
            log(INFO, format_args!("complete"));
            packs::announce(&job);
        }
        // The caller may have gone.
        let _ = packed.send(result);
    });
    let result = loop {
        match outcome.recv_timeout(PROGRESS) {
            Ok(result) => break result,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                break Err("internal error: the log of the server has more".into());
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if let Some((done, total)) = hosted.pack.progress() {
                    exchange.progress(json!({ "done": done, "total": total }));
                }
            }
        }
    };
    result.map(|()| {
        json!({
            "storage": hosted.name,
            "seconds": begun.passed().as_secs_f64(),
            "size_before": before,
            "size_after": hosted.storage.size(),
        })
    })
}

/// `{"storage": "1"}`: ends the pack that is running, or the dry run of one. The result has `storage` and `cancelled`:
/// null if nothing was running, false if it was complete all the same.
pub(super) fn cancel(steered: &Steered, call: &AdminCall, _: &mut Exchange) -> Result<Value, String> {
    let hosted = steered.storage(call)?;
    let cancelling = packs::cancel(&hosted, |name| {
        let line = format_args!("storage '{}': the {name} is cancelled for {}", hosted.name, call.caller);
        log_without_peer(&PACKS, INFO, line);
    });
    Ok(json!({ "storage": hosted.name, "cancelled": cancelling.wait(&hosted) }))
}

//! A panic is a bug of this program: it is logged as one entry instead of being printed to stderr only.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};

use super::handler;
use crate::base::untrusted::one_line;

const MESSAGE_LEN_MAX: usize = 2000;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Number of panics since the hook was installed.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// From now on a panic in any thread is logged as CRITICAL by `runzeo`, with its thread and place, and with a backtrace
/// if `RUST_BACKTRACE` is set. Before logging is set up, it is printed to stderr as usual.
pub fn install_panic_hook() {
    let to_stderr = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        // A panic under a handler's lock cannot be logged through that handler.
        if handler::is_busy() || log::max_level() == log::LevelFilter::Off {
            return to_stderr(info);
        }
        report(info);
    }));
}

fn report(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    let place = info.location().map_or("an unknown place".to_string(), ToString::to_string);
    let payload = info.payload();
    let message =
        payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    // It may contain untrusted data.
    let message =
        one_line(MESSAGE_LEN_MAX, format_args!("{}", message.unwrap_or("a payload that is no text")));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        crate::critical!(target: "runzeo", "panic in thread {name} at {place}: {message}\n{backtrace}");
    } else {
        crate::critical!(target: "runzeo", "panic in thread {name} at {place}: {message}");
    }
}

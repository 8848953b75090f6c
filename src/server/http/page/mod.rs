//! The status page: the state of the server for people, in one response. It has what `/status.json` has, from the
//! same [`ServerReport`], the most important first.
//!
//! | file | content |
//! |---|---|
//! | this one | the order of the parts |
//! | [`html`] | text is escaped here |
//! | [`frame`] | what is around the content: style, script, header fields |
//! | [`tables`], [`plots`], [`words`] | what the parts consist of |
//! | [`overview`] | whether all is well, warnings, storages |
//! | [`activity`] | plots of the last hour |
//! | [`locks`], [`clients`], [`conflicts`] | transactions, connections, what clients change at the same time |
//! | [`slow`] | requests that took long |
//! | [`cluster`] | the other servers with the same storages |
//! | [`work`], [`disks`] | packs, checks, backups, and the room for them |
//! | [`process`] | the server itself |
//! | `page.css`, `page.js` | part of the page |
//!
//! It works without JavaScript: the browser loads it again every eight seconds. With it, the script asks for the page
//! every four seconds and changes what differs in place: elements keep their places, and what has an `id` keeps it.
//! No attribute has style or script, so that the `Content-Security-Policy` can refuse both.

mod activity;
mod clients;
mod cluster;
mod conflicts;
mod disks;
pub mod frame;
pub mod html;
mod locks;
mod overview;
pub mod plots;
mod process;
mod slow;
pub mod tables;
pub mod words;
mod work;

use self::html::Html;
use crate::server::status::ServerReport;

/// The page of a report.
pub fn page(report: &ServerReport) -> String {
    let mood = overview::mood(report);
    let mut content = Html::default();
    content.add(&overview::headline(report, mood)).add(&overview::warnings(report));
    if report.started.is_some() {
        content.add(&overview::storages(report));
        content.add(&cluster::cluster(report));
        content.add(&cluster::secondaries(report));
        content.add(&activity::activity(report));
        content.add(&locks::locks(report));
        content.add(&clients::clients(report));
        content.add(&conflicts::conflicts(report));
        content.add(&slow::slow(report));
        content.add(&work::work(report));
        content.add(&disks::disks(report));
    }
    content.add(&process::process(report));
    frame::frame(&overview::title(report, mood), &report.host, mood, &content)
}

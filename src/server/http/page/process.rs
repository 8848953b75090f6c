//! The server itself: version, start, configuration, addresses.

use super::html::Html;
use super::words::{ago, ahead};
use crate::base::numbers::grouped;
use crate::server::status::ServerReport;

/// Listeners that are shown.
const LISTENERS_MAX: usize = 50;

/// A list of what it is, and of what it does.
pub fn process(report: &ServerReport) -> Html {
    let mut html = Html::default();
    html.raw(
        "<section id=\"server\" aria-labelledby=\"server-title\"><h2 id=\"server-title\">Server</h2><dl>",
    );
    html.raw("<div><dt>Version</dt><dd>runzeo ").text(report.version).raw("</dd></div>");
    html.raw("<div><dt>Machine</dt><dd><bdi>").text(&report.host).raw("</bdi></dd></div>");
    html.raw("<div><dt>Process</dt><dd>").text(&report.pid.to_string()).raw("</dd></div>");
    html.raw("<div><dt>Started</dt><dd>");
    match report.started {
        Some(started) => html.add(&ago(started, report.time)),
        None => html.raw("the storages are being opened"),
    };
    html.raw("</dd></div><div><dt>Configuration</dt><dd class=\"path\">");
    match &report.configuration {
        Some(file) => html.raw("<bdi>").text(file).raw("</bdi>"),
        None if report.started.is_none() => html.raw("not known yet"),
        None => html.raw("no file: command line and environment"),
    };
    html.raw("</dd></div><div><dt>Connections since the start</dt><dd>");
    html.text(&grouped(report.connections.accepted)).raw("</dd></div>");
    html.raw("<div><dt>Internal errors</dt><dd>").text(&grouped(report.panics)).raw("</dd></div>");
    html.raw("<div><dt>Lost lines of the log</dt><dd>")
        .text(&grouped(report.log_lines_lost))
        .raw("</dd></div>");
    html.raw("<div><dt>Listens at</dt><dd><ul>");
    for listener in report.listeners.iter().take(LISTENERS_MAX) {
        html.raw("<li>").text(&listener.address);
        if let Some(expires) = listener.certificate_expires {
            html.raw(" (certificate expires ").add(&ahead(expires as f64, report.time)).raw(")");
        }
        html.raw("</li>");
    }
    html.raw("</ul></dd></div></dl></section>");
    html
}

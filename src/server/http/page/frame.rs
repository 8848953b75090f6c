//! What is around the content: head, style, script, and the header fields that keep the browser from running or
//! loading anything else.

use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use super::html::Html;
use crate::base::base64;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// How the server is, at a glance.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mood {
    Good,
    /// Something is to be looked at.
    Attention,
    /// Clients are not served as configured.
    Bad,
}

impl Mood {
    /// The class of elements that show it.
    pub fn class(self) -> &'static str {
        match self {
            Mood::Good => "good",
            Mood::Attention => "attention",
            Mood::Bad => "bad",
        }
    }

    /// A picture for the tab of the browser; the shapes differ as well as the colours.
    fn icon(self) -> &'static str {
        match self {
            Mood::Good => {
                "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' \
                 cy='8' r='7' fill='%231a7f37'/%3E%3C/svg%3E"
            }
            Mood::Attention => {
                "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath \
                 d='M8 1l8 14H0z' fill='%23d29922'/%3E%3C/svg%3E"
            }
            Mood::Bad => {
                "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath \
                 d='M1 1h14v14H1z' fill='%23cf222e'/%3E%3C/svg%3E"
            }
        }
    }
}

/// The page around its content.
pub fn frame(title: &str, host: &str, mood: Mood, content: &Html) -> String {
    let mut html = Html::default();
    html.raw("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>").text(title);
    html.raw("</title><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    html.raw("<meta name=\"color-scheme\" content=\"light dark\"><meta name=\"robots\" content=\"noindex\">");
    html.raw("<link rel=\"icon\" href=\"").raw(mood.icon()).raw("\">");
    html.raw("<noscript><meta http-equiv=\"refresh\" content=\"8\"></noscript>");
    html.raw("<style>").raw(STYLE).raw("</style></head><body>");
    html.raw("<a class=\"skip\" href=\"#state\">Skip to the state of the server</a>");
    html.raw("<header><p class=\"name\">runzeo on <bdi>").text(host);
    html.raw("</bdi></p><nav aria-label=\"Parts of this page\">");
    html.raw(
        "<a href=\"#storages\">Storages</a> <a href=\"#activity\">Activity</a> <a href=\"#locks\">Locks</a> ",
    );
    html.raw("<a href=\"#clients\">Clients</a> <a href=\"#conflicts\">Conflicts</a> <a href=\"#slow\">Slow requests</a> <a href=\"#work\">Packs and backups</a> ");
    html.raw("<a href=\"#disks\">Disks</a> <a href=\"#server\">Server</a></nav>");
    html.raw("<button id=\"pause\" type=\"button\" hidden>Pause</button></header>");
    html.raw("<p id=\"link\" role=\"status\"></p><main id=\"state\" tabindex=\"-1\">")
        .add(content)
        .raw("</main>");
    html.raw("<footer><p>The same for programs: <a href=\"status.json\">status.json</a>, ");
    html.raw("<a href=\"metrics\">metrics</a>. In a terminal: <code>zeoadmin status</code>.</p></footer>");
    html.raw("<script>").raw(SCRIPT).raw("</script></body></html>\n");
    html.into_string()
}

/// Fields of the head of the response: nothing is loaded from elsewhere, nothing runs but the one script, and no other
/// page has this one in a frame.
pub fn fields() -> &'static str {
    static FIELDS: OnceLock<String> = OnceLock::new();
    FIELDS.get_or_init(|| {
        let sum = |text: &str| base64::encode(&Sha256::digest(text.as_bytes()));
        format!(
            "Content-Security-Policy: default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
             X-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n\
             Cross-Origin-Opener-Policy: same-origin\r\n",
            sum(SCRIPT),
            sum(STYLE)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn style_and_script_are_as_their_sums_and_end_where_they_should() {
        for asset in [STYLE, SCRIPT] {
            assert!(!asset.contains("</") && !asset.contains("<!--"), "it would end its element");
            assert!(!asset.contains("http:") && !asset.contains("https:") && !asset.contains("url("));
        }
        let page = frame("a <title>", "a <host>", Mood::Good, &Html::default());
        assert!(
            page.contains("<title>a &lt;title&gt;</title>") && page.contains("<bdi>a &lt;host&gt;<"),
            "{page}"
        );
        assert_eq!(page.matches("<script>").count(), 1);
        assert!(!page.contains(" style=") && !page.contains(" onclick="));
        assert!(fields().lines().all(|line| line.contains(": ")) && fields().ends_with("\r\n"));
    }
}

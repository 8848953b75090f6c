//! The handshake: we announce the newest protocol, the client answers with what it will speak.

use std::io;

use crate::server::Server;
use crate::server::hosted::LOG;
use crate::server::outbox::Outbox;
use crate::wire::frame::{FrameReader, put_frame};
use crate::wire::protocol::{Answer, Generation, negotiate};

/// What the client answered.
pub(super) struct Greeted {
    pub generation: Generation,
    pub msgpack: bool,
}

/// Announce, and read the answer. `None`: there is nothing more to do for this connection.
pub(super) fn greet(
    server: &Server,
    outbox: &std::sync::Arc<Outbox>,
    frames: &mut FrameReader,
    peer: &str,
) -> io::Result<Option<Greeted>> {
    let mut frame = Vec::new();
    put_frame(&server.announcement().bytes(), &mut frame);
    outbox.send_own(outbox.place(), &frame);

    let stream = outbox.sink();
    loop {
        let answer = match frames.next() {
            Ok(Some(frame)) => negotiate(server.announcement(), frame.payload),
            Ok(None) => {
                let received = stream.recv(frames.spare())?;
                if received == 0 {
                    return Ok(None);
                }
                frames.filled(received);
                continue;
            }
            Err(error) => {
                log::error!(target: LOG, "({peer}) bad handshake: {error}");
                return Ok(None);
            }
        };
        return match answer {
            Ok(Answer::Speaks { generation, msgpack }) => {
                let first = if msgpack { "M" } else { "Z" };
                let number = generation.name().trim_start_matches('Z');
                log::info!(target: "ZEO.asyncio.server", "received handshake '{first}{number}'");
                Ok(Some(Greeted { generation, msgpack }))
            }
            Ok(Answer::RuOk) => {
                // No log line: load balancers ask every few seconds.
                let mut frame = Vec::new();
                put_frame(server.ruok().as_bytes(), &mut frame);
                outbox.send_own(outbox.place(), &frame);
                outbox.wait_until_sent();
                Ok(None)
            }
            Err(error) => {
                log::error!(target: "ZEO.asyncio.server", "({peer}) {error}");
                Ok(None)
            }
        };
    }
}

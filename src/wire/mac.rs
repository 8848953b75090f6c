//! Message authentication of connections before Z5, after the client's authentication.
//!
//! Every frame has an HMAC-SHA1 of all payloads sent in its direction since the session key was agreed on, including
//! its own; so a message cannot be changed, left out, repeated or moved. Each direction has its own code.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use subtle::ConstantTimeEq;

use super::frame::{MAC_BIT, MAC_LEN};

/// The code of one direction of a connection, over all payloads so far.
#[derive(Clone)]
pub struct RunningMac(Hmac<Sha1>);

impl std::fmt::Debug for RunningMac {
    /// Shows nothing that could be used to forge messages.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RunningMac")
    }
}

impl RunningMac {
    /// Starts with a session key, before any payload.
    pub fn new(session_key: &[u8]) -> RunningMac {
        RunningMac(Hmac::new_from_slice(session_key).expect("HMAC takes keys of any length"))
    }

    /// The code of the next payload.
    pub fn next(&mut self, payload: &[u8]) -> [u8; MAC_LEN] {
        self.0.update(payload);
        self.0.clone().finalize().into_bytes().into()
    }

    /// Whether `code` is the code of the next payload, compared in constant time.
    #[must_use]
    pub fn check_next(&mut self, payload: &[u8], code: &[u8; MAC_LEN]) -> bool {
        self.next(payload).ct_eq(code).into()
    }

    /// Appends `frames`, which have no codes yet, to `out` with their codes.
    pub fn sign_frames(&mut self, mut frames: &[u8], out: &mut Vec<u8>) {
        while let Some((prefix, rest)) = frames.split_first_chunk::<4>() {
            let len = u32::from_be_bytes(*prefix);
            debug_assert!(len & MAC_BIT == 0, "signed twice");
            let Some((payload, rest)) = rest.split_at_checked(len as usize) else { break };
            out.extend_from_slice(&(len | MAC_BIT).to_be_bytes());
            out.extend_from_slice(&self.next(payload));
            out.extend_from_slice(payload);
            frames = rest;
        }
        debug_assert!(frames.is_empty(), "whole frames are queued");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{FrameReader, put_frame};

    fn read(bytes: &[u8]) -> Vec<([u8; MAC_LEN], Vec<u8>)> {
        let mut reader = FrameReader::new();
        reader.spare().unwrap()[..bytes.len()].copy_from_slice(bytes);
        reader.filled(bytes.len());
        let mut found = Vec::new();
        while let Some(frame) = reader.next().unwrap() {
            found.push((*frame.mac.unwrap(), frame.payload.to_vec()));
        }
        assert_eq!(reader.pending(), 0);
        found
    }

    /// Values from Python: `h = hmac.HMAC(b'k' * 60, digestmod=sha1); h.update(b'one'); h.digest()`, and so on.
    #[test]
    fn the_code_goes_on_from_message_to_message() {
        let hex = |code: [u8; MAC_LEN]| code.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut mac = RunningMac::new(&[b'k'; 60]);
        assert_eq!(hex(mac.next(b"one")), "ab423763b89c953e91a6e58c4420586a205dce4c");
        assert_eq!(hex(mac.next(b"")), "ab423763b89c953e91a6e58c4420586a205dce4c");
        assert_eq!(hex(mac.next(b"two")), "89dd495175743872d7b9b3995400bf6b7861e5e9");
    }

    #[test]
    fn signed_frames_pass_and_altered_ones_do_not() {
        let mut frames = Vec::new();
        for payload in [&b"first"[..], b"second", b"third"] {
            put_frame(payload, &mut frames);
        }
        let mut signed = Vec::new();
        RunningMac::new(b"key").sign_frames(&frames, &mut signed);
        let read = read(&signed);
        assert_eq!(read.iter().map(|(_, payload)| payload.len()).collect::<Vec<_>>(), [5, 6, 5]);

        let passes = |messages: &[&([u8; MAC_LEN], Vec<u8>)]| {
            let mut mac = RunningMac::new(b"key");
            messages.iter().all(|(code, payload)| mac.check_next(payload, code))
        };
        assert!(passes(&[&read[0], &read[1], &read[2]]));
        assert!(!passes(&[&read[0], &read[2]]), "one is left out");
        assert!(!passes(&[&read[0], &read[0]]), "one is repeated");
        assert!(!passes(&[&read[2], &read[0]]), "moved");
        assert!(!passes(&[&(read[0].0, b"First".to_vec())]), "changed");
        assert!(!RunningMac::new(b"another key").check_next(&read[0].1, &read[0].0));
    }
}

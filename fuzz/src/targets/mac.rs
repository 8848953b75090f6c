//! Messages with codes: only the signed messages, unchanged and in their order, are accepted.

use runzeo::internal::wire::frame::{FrameReader, put_frame};
use runzeo::internal::wire::mac::RunningMac;

const KEY: &[u8] = b"a key of a session";

/// The first byte is the number of messages, the second where they are cut; then changes: a position of two bytes and
/// a byte to XOR with the byte there. The rest is the text of the messages.
pub fn run(data: &[u8]) {
    let Some((&[count, changes, cut], rest)) = data.split_first_chunk() else { return };
    let (changes, text) = rest.split_at(rest.len().min(3 * usize::from(changes % 4)));
    let count = usize::from(count % 8) + 1;
    let mut frames = Vec::new();
    let payloads: Vec<&[u8]> = text.chunks(text.len() / count + 1).collect();
    payloads.iter().for_each(|payload| put_frame(payload, &mut frames));
    let mut signed = Vec::new();
    RunningMac::new(KEY).sign_frames(&frames, &mut signed);
    let honest = signed.clone();
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]]));
        if let Some(byte) = signed.get_mut(at) {
            *byte ^= change[2];
        }
    }
    let mut reader = FrameReader::with_limit(1 << 20);
    let mut incoming = RunningMac::new(KEY);
    let mut passed = 0;
    let mut rest = signed.as_slice();
    // the messages at the beginning that are unchanged
    let same = signed.iter().zip(&honest).take_while(|(a, b)| a == b).count();
    let mut end = 0;
    'all: while !rest.is_empty() {
        let spare = reader.spare().expect("memory");
        let len = rest.len().min(spare.len()).min(usize::from(cut) + 1);
        spare[..len].copy_from_slice(&rest[..len]);
        reader.filled(len);
        rest = &rest[len..];
        loop {
            match reader.next() {
                Ok(Some(frame)) => {
                    let Some(code) = frame.mac else { break 'all };
                    if !incoming.check_next(frame.payload, code) {
                        break 'all;
                    }
                    assert_eq!(Some(&frame.payload), payloads.get(passed), "nobody signed this");
                    end += 24 + frame.payload.len();
                    assert!(end <= same, "a changed message passes");
                    passed += 1;
                }
                Ok(None) => break,
                Err(_) => break 'all,
            }
        }
    }
    assert!(passed == payloads.len() || same < honest.len(), "an honest message is refused");
}

pub fn seeds() -> Vec<Vec<u8>> {
    vec![
        b"\x02\x00\xffthree messages, unchanged".to_vec(),
        b"\x03\x01\x05\x00\x06\x01the code of the first is changed".to_vec(),
        b"\x01\x01\x00\x00\x1c\x80a changed payload".to_vec(),
        b"\x01\x02\x10\x00\x00\x80\x00\x20\x01the bit that says there is a code".to_vec(),
    ]
}

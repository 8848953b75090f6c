//! Frames: the same bytes in pieces of any size give the same frames, and memory grows with the received bytes.

use runzeo::internal::wire::frame::{FrameReader, put_frame};

pub fn run(data: &[u8]) {
    let Some((&step, data)) = data.split_first() else { return };
    let small = frames(data, usize::from(step) + 1);
    let large = frames(data, usize::MAX);
    assert_eq!(small, large, "fragmentation changes what is found");
}

/// The frames, and the error if there is one.
fn frames(mut data: &[u8], step: usize) -> (Vec<Vec<u8>>, Option<String>) {
    let mut reader = FrameReader::with_limit(1 << 24);
    let mut found = Vec::new();
    let mut received = 0;
    while !data.is_empty() {
        let spare = reader.spare().expect("memory");
        assert!(!spare.is_empty());
        assert!(spare.len() <= 2 * received + (1 << 18), "{} offered after {received}", spare.len());
        let count = spare.len().min(step).min(data.len());
        spare[..count].copy_from_slice(&data[..count]);
        reader.filled(count);
        data = &data[count..];
        received += count;
        loop {
            match reader.next() {
                Ok(Some(frame)) => found.push(frame.payload.to_vec()),
                Ok(None) => break,
                Err(error) => return (found, Some(error.to_string())),
            }
        }
    }
    (found, None)
}

pub fn seeds() -> Vec<Vec<u8>> {
    let mut one = vec![3];
    put_frame(b"Z5", &mut one);
    put_frame(b"\x80\x03(K\x01\x89X\x04\x00\x00\x00ping)t.", &mut one);
    let with_mac = [&[9, 0x80, 0, 0, 2][..], &[7; 20], b"Z4"].concat();
    vec![one, with_mac, vec![200, 0, 0, 0, 0, 0, 0, 0, 0], vec![0, 0xff, 0xff, 0xff, 0xff]]
}

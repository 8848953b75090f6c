//! Random changes to inputs, repeatable from a seed.

/// Pseudo-random numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `limit`; zero if `limit` is zero.
    pub fn below(&mut self, limit: usize) -> usize {
        if limit == 0 { 0 } else { (self.number() % limit as u64) as usize }
    }
}

/// Upper bound on the length of mutated inputs.
const LEN_MAX: usize = 64 << 10;

/// Bytes that are boundary cases for decoders.
const EDGES: [u8; 12] = [0, 1, 2, 0x7f, 0x80, 0x81, 0xff, b'(', b'.', b'\n', b'h', b'q'];

/// Changes `input` in one to eight ways, with parts of `other`.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(8) {
        let len = input.len();
        let at = random.below(len + 1);
        let count = 1 + random.below(16);
        match random.below(10) {
            0 if at < len => input[at] ^= 1 << random.below(8),
            1 if at < len => input[at] = EDGES[random.below(EDGES.len())],
            2 if at < len => input[at] = random.number() as u8,
            3 => {
                input.drain(at..(at + count).min(len));
            }
            4 => input.truncate(at),
            5 => {
                let byte = EDGES[random.below(EDGES.len())];
                input.splice(at..at, std::iter::repeat_n(byte, count));
            }
            6 => {
                let part = input[at..(at + 4 * count).min(len)].to_vec();
                let to = random.below(len + 1);
                for _ in 0..=random.below(4) {
                    input.splice(to..to, part.iter().copied());
                }
            }
            7 if !other.is_empty() => {
                let from = random.below(other.len());
                let part = &other[from..(from + 8 * count).min(other.len())];
                input.splice(at..at, part.iter().copied());
            }
            8 if at + 4 <= len => {
                let number = [0u32, 1, 0x7f, 0xff, 0x100, 0xffff, 0x7fff_ffff, 0x8000_0000, u32::MAX];
                let number = number[random.below(number.len())];
                let bytes = if random.below(2) == 0 { number.to_le_bytes() } else { number.to_be_bytes() };
                input[at..at + 4].copy_from_slice(&bytes);
            }
            9 if at < len => input[at] = input[at].wrapping_add(random.below(5) as u8).wrapping_sub(2),
            _ => {}
        }
        input.truncate(LEN_MAX);
    }
}

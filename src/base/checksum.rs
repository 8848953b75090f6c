//! The checksum of files that this program makes beside those of Python: CRC-32, as in gzip.

/// The checksum of these bytes, as if they were one behind the other.
pub fn checksum(parts: &[&[u8]]) -> u32 {
    let mut crc = flate2::Crc::new();
    parts.iter().for_each(|part| crc.update(part));
    crc.sum()
}

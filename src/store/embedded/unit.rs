//! The file's form: a header, then units, each of them written and found again as a whole or not at all.
//!
//! ```text
//! header   "parhelio"  format: u32  checksum: u32
//! unit     0x7e11a9d3: u32  length: u32  sequence: u64  checksum: u32  records (length bytes)
//! ```
//! Numbers are little endian; a checksum is CRC-32C over all that stands before it and, in a unit, the
//! records. Units are numbered from 0 in each file.

/// The format that is written, and the newest that is read.
pub const FORMAT: u32 = 1;

const NAME: &[u8; 8] = b"parhelio";
const MARK: u32 = 0x7e11_a9d3;

/// How long the header of a file is, in bytes.
pub const HEADER: usize = 16;
const UNIT_HEADER: usize = 20;

/// CRC-32C (Castagnoli, reflected 0x82f63b78; RFC 3720 appendix B.4), a byte at a time.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            value = (value >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(value & 1));
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
};

fn crc32c(parts: [&[u8]; 2]) -> u32 {
    let bytes = parts.into_iter().flatten();
    !bytes.fold(!0, |sum: u32, byte| {
        (sum >> 8) ^ TABLE[usize::from(sum.to_le_bytes()[0] ^ byte)]
    })
}

/// A file's header.
pub fn header() -> [u8; HEADER] {
    header_of(FORMAT)
}

/// The header of a file of some format.
pub fn header_of(format: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(NAME);
    header[8..12].copy_from_slice(&format.to_le_bytes());
    let sum = crc32c([&header[..12], &[]]);
    header[12..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// The format that a file's header names; None when it has none.
pub fn format_of(file: &[u8]) -> Option<u32> {
    let format = number(file, 8)?;
    (file[..HEADER.min(file.len())] == header_of(format)).then_some(format)
}

/// The unit of some records.
pub fn unit(sequence: u64, records: &[u8]) -> Vec<u8> {
    let length = u32::try_from(records.len()).expect("callers write far less than 4 GiB at once");
    let mut unit = Vec::with_capacity(UNIT_HEADER + records.len());
    unit.extend(MARK.to_le_bytes());
    unit.extend(length.to_le_bytes());
    unit.extend(sequence.to_le_bytes());
    unit.extend(crc32c([&unit, records]).to_le_bytes());
    unit.extend(records);
    unit
}

/// The sequence number and the records of the unit at an offset; None when none is there.
pub fn unit_at(file: &[u8], offset: usize) -> Option<(u64, &[u8])> {
    let rest = file.get(offset..)?;
    if number(rest, 0)? != MARK {
        return None;
    }
    let length = usize::try_from(number(rest, 4)?).ok()?;
    let sequence = u64::from(number(rest, 8)?) | (u64::from(number(rest, 12)?) << 32);
    let records = rest.get(UNIT_HEADER..UNIT_HEADER.checked_add(length)?)?;
    let sum = crc32c([&rest[..16], records]);
    (number(rest, 16)? == sum).then_some((sequence, records))
}

/// How many bytes a unit takes.
pub fn length_of(records: &[u8]) -> usize {
    UNIT_HEADER + records.len()
}

fn number(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset + 4)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        assert_eq!(crc32c([&[0; 32], &[]]), 0x8a91_36aa);
        assert_eq!(crc32c([b"12345", b"6789"]), 0xe306_9283);
    }

    #[test]
    fn any_flipped_bit_of_a_unit_or_header_is_seen() {
        let file = unit(7, b"records");
        assert_eq!(unit_at(&file, 0), Some((7, &b"records"[..])));
        for bit in 0..file.len() * 8 {
            let mut file = file.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unit_at(&file, 0), None, "bit {bit}");
        }
        assert_eq!(format_of(&header()), Some(FORMAT));
        for bit in 0..HEADER * 8 {
            let mut header = header();
            header[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(format_of(&header), None, "bit {bit}");
        }
    }
}

//! What the cache writes to disk: names, the index's header and records. `doc/storage.md` has it byte by byte.
//!
//! Pure functions. Nothing here believes what it reads: every decoder answers `None` for bytes that this code would not
//! have written.

use crate::model::{Ino, Version};

/// The unit that is fetched, checked and dropped: bytes, at multiples of itself.
pub const PIECE: u64 = 64 << 10;
/// The unit of eviction: sixteen pieces.
pub const BLOCK: u64 = 1 << 20;
/// Pieces in a block, bits in a mask.
pub(super) const PIECES: u64 = BLOCK / PIECE;
/// Larger files are not cached, so that block numbers fit 32 bits.
pub(super) const SIZE_MAX: u64 = 1 << 51;

const MAGIC: [u8; 8] = *b"4wCACHE\n";
const FORMAT: u16 = 1;
const HEADER_FIXED: usize = 40;
/// Bytes of one record.
pub(super) const RECORD: usize = 72;

/// Names one pair of files: an inode, and a 32-bit tag of its version.
///
/// Two versions of one inode may share a tag; the header holds the whole version, and the pair holds one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FileKey {
    pub ino: Ino,
    pub tag: u32,
}

/// Which of a pair's two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Data,
    Index,
}

impl FileKey {
    pub fn new(ino: Ino, version: &Version) -> Self {
        FileKey { ino, tag: crc32c::crc32c(version.as_str().as_bytes()) }
    }

    /// The directory that holds the pair, 0 to 255. Inode numbers count up, so files spread evenly.
    pub fn shard(self) -> u8 {
        self.ino.get() as u8
    }

    /// The name of one of the two files, without directory.
    pub fn file_name(self, part: Part) -> String {
        let ending = match part {
            Part::Data => "data",
            Part::Index => "index",
        };
        format!("{:x}-{:08x}.{ending}", self.ino.get(), self.tag)
    }

    /// The reverse of [`FileKey::file_name`]; `None` for a name that it would not give.
    pub fn parse(name: &str) -> Option<(FileKey, Part)> {
        let (stem, ending) = name.split_once('.')?;
        let part = match ending {
            "data" => Part::Data,
            "index" => Part::Index,
            _ => return None,
        };
        let (ino, tag) = stem.split_once('-')?;
        let key =
            FileKey { ino: Ino::new(u64::from_str_radix(ino, 16).ok()?)?, tag: u32::from_str_radix(tag, 16).ok()? };
        (key.file_name(part) == name).then_some((key, part))
    }
}

/// The name of a shard's directory.
pub(super) fn shard_name(shard: u8) -> String {
    format!("{shard:02x}")
}

/// What an index file says of the pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub ino: Ino,
    pub size: u64,
    pub version: Version,
}

impl Header {
    /// Longer versions are not cached: their length is a u16.
    pub const VERSION_MAX: usize = u16::MAX as usize;

    /// The bytes of the header, and the checksum that seeds those of the records.
    pub fn encode(&self) -> (Vec<u8>, u32) {
        let version = self.version.as_str().as_bytes();
        let mut bytes = vec![0; records_at(version.len()) as usize];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[10..12].copy_from_slice(&(version.len() as u16).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.ino.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.size.to_le_bytes());
        bytes[HEADER_FIXED..HEADER_FIXED + version.len()].copy_from_slice(version);
        let sum = header_sum(&bytes[..32], version);
        bytes[32..36].copy_from_slice(&sum.to_le_bytes());
        (bytes, sum)
    }

    /// Reads a header from the start of an index file. `bytes` holds at least the header or the whole file.
    pub fn decode(bytes: &[u8]) -> Option<Header> {
        let fixed = bytes.get(..HEADER_FIXED)?;
        let version_len = u16::from_le_bytes([fixed[10], fixed[11]]) as usize;
        let version = bytes.get(HEADER_FIXED..HEADER_FIXED + version_len)?;
        if fixed[..8] != MAGIC || fixed[8..10] != FORMAT.to_le_bytes() || version.is_empty() {
            return None;
        }
        if u32_at(fixed, 32) != header_sum(&fixed[..32], version) {
            return None;
        }
        let size = u64_at(fixed, 24);
        let version = Version::new(std::str::from_utf8(version).ok()?);
        (size <= SIZE_MAX).then_some(Header { ino: Ino::new(u64_at(fixed, 16))?, size, version })
    }
}

fn header_sum(fixed: &[u8], version: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(fixed), version)
}

/// Where an index's records start, for a version of `version_len` bytes.
pub(super) fn records_at(version_len: usize) -> u64 {
    (HEADER_FIXED + version_len).next_multiple_of(8) as u64
}

/// One block's record: which pieces are there, and what each must sum to. A sum counts only where its bit is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub mask: u16,
    pub sums: [u32; PIECES as usize],
}

impl Record {
    /// The bytes of the record. An empty one is all zeros, as a hole in the index reads.
    pub fn encode(&self, header_sum: u32, block: u32) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        if self.mask == 0 {
            return bytes;
        }
        bytes[..2].copy_from_slice(&self.mask.to_le_bytes());
        for (bit, sum) in self.sums.iter().enumerate().filter(|(bit, _)| self.mask & (1 << bit) != 0) {
            bytes[4 + 4 * bit..8 + 4 * bit].copy_from_slice(&sum.to_le_bytes());
        }
        let sum = record_sum(&bytes[..68], header_sum, block);
        bytes[68..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads a record of a file of `size` bytes. `None`: torn, of another file, or of another place.
    pub fn decode(bytes: &[u8], header_sum: u32, block: u32, size: u64) -> Option<Record> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Some(Record::default());
        }
        let mask = u16::from_le_bytes([bytes[0], bytes[1]]);
        let known = u32_at(bytes, 68) == record_sum(&bytes[..68], header_sum, block);
        if !known || mask & !full_mask(block, size) != 0 {
            return None;
        }
        let mut record = Record { mask, ..Record::default() };
        for (bit, sum) in record.sums.iter_mut().enumerate() {
            *sum = u32_at(bytes, 4 + 4 * bit);
        }
        Some(record)
    }
}

/// Seeded with the header and the place, so that a record cannot be believed in another file or elsewhere in this one.
fn record_sum(body: &[u8], header_sum: u32, block: u32) -> u32 {
    let seed = crc32c::crc32c_append(crc32c::crc32c(&header_sum.to_le_bytes()), &block.to_le_bytes());
    crc32c::crc32c_append(seed, body)
}

/// How many blocks a file of `size` bytes has.
pub(super) fn blocks(size: u64) -> u32 {
    size.div_ceil(BLOCK) as u32
}

/// How many pieces a file of `size` bytes has.
pub(super) fn pieces(size: u64) -> u64 {
    size.div_ceil(PIECE)
}

/// The bits of the pieces that `block` of a file of `size` bytes has.
pub(super) fn full_mask(block: u32, size: u64) -> u16 {
    let count = pieces(size).saturating_sub(u64::from(block) * PIECES).min(PIECES);
    ((1u32 << count) - 1) as u16
}

/// How long piece number `piece` (counted over the file) is.
pub(super) fn piece_len(piece: u64, size: u64) -> u64 {
    size.saturating_sub(piece * PIECE).min(PIECE)
}

/// The block and the bit of piece number `piece`.
pub(super) fn place(piece: u64) -> (u32, u16) {
    ((piece / PIECES) as u32, 1 << (piece % PIECES))
}

/// The piece numbers in `mask` of `block`, in order.
pub(super) fn pieces_in(block: u32, mask: u16) -> impl Iterator<Item = u64> {
    (0..PIECES).filter(move |bit| mask & (1 << bit) != 0).map(move |bit| u64::from(block) * PIECES + bit)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header { ino: Ino::new(7).unwrap(), size: 3 * BLOCK + 5, version: Version::new("W/\"é-1\"") }
    }

    #[test]
    fn a_header_reads_back_and_no_flipped_bit_does() {
        let (bytes, _) = header().encode();
        assert_eq!(Header::decode(&bytes), Some(header()));
        let meaning = HEADER_FIXED + header().version.as_str().len();
        for bit in (0..meaning * 8).filter(|bit| !(36 * 8..40 * 8).contains(bit)) {
            let mut torn = bytes.clone();
            torn[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&torn), None, "bit {bit}");
        }
        for end in 0..meaning {
            assert_eq!(Header::decode(&bytes[..end]), None);
        }
    }

    #[test]
    fn a_record_reads_back_only_whole_and_in_its_place() {
        let (_, seed) = header().encode();
        let record =
            Record { mask: 0b101, sums: std::array::from_fn(|i| if i == 0 || i == 2 { 77 + i as u32 } else { 0 }) };
        let bytes = record.encode(seed, 2);
        assert_eq!(Record::decode(&bytes, seed, 2, 3 * BLOCK), Some(record));
        assert_eq!(Record::decode(&bytes, seed, 1, 3 * BLOCK), None, "another place");
        assert_eq!(Record::decode(&bytes, seed + 1, 2, 3 * BLOCK), None, "another file");
        assert_eq!(Record::decode(&bytes, seed, 2, 2 * BLOCK + PIECE), None, "bits past the end of the file");
        for cut in 1..RECORD {
            let mut torn = [0; RECORD];
            torn[..cut].copy_from_slice(&bytes[..cut]);
            let whole = torn == bytes;
            assert_eq!(Record::decode(&torn, seed, 2, 3 * BLOCK).is_some(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn names_read_back_and_strange_names_do_not() {
        let key = FileKey { ino: Ino::new(0xabc).unwrap(), tag: 0xf };
        assert_eq!(FileKey::parse("abc-0000000f.data"), Some((key, Part::Data)));
        assert_eq!(FileKey::parse(&key.file_name(Part::Index)), Some((key, Part::Index)));
        for name in ["", "abc", "abc-f.data", "ABC-0000000f.data", "0abc-0000000f.data", "0-0000000f.data", "a-b.new"] {
            assert_eq!(FileKey::parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_geometry_holds_at_the_edges() {
        assert_eq!((blocks(0), blocks(1), blocks(BLOCK), blocks(BLOCK + 1)), (0, 1, 1, 2));
        assert_eq!((full_mask(0, 0), full_mask(0, 1), full_mask(0, BLOCK), full_mask(1, BLOCK)), (0, 1, u16::MAX, 0));
        assert_eq!((piece_len(0, 10), piece_len(1, PIECE + 1), piece_len(5, PIECE)), (10, 1, 0));
        assert_eq!(place(17), (1, 2));
        assert_eq!(pieces_in(1, 0b1001).collect::<Vec<_>>(), [16, 19]);
    }
}

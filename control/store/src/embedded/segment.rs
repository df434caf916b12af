//! One file of the write-ahead log: a header, then records, each on blocks of its own, so that no write touches a block
//! that is durable already.
//!
//! A file is used again and again; each use has a **generation**, which is a part of every record's checksum: what an
//! earlier use left behind is no record of this one.

use std::io;

use bytes::Bytes;

use super::disk::Disk;

/// Header and records begin at multiples of this.
const BLOCK: usize = 4096;
const HEADER_MAGIC: [u8; 8] = *b"fl-log\x00\x01";
/// No JSON text has these bytes: the first is not valid UTF-8.
const RECORD_MAGIC: [u8; 4] = *b"\xf5log";
/// Magic (4 bytes), checksum (4), length of the payload (4); then the payload.
const RECORD_HEAD: usize = 12;
/// What a new file has; it doubles until [`MAX_STEP`] is added at once.
const FIRST_LEN: u64 = 1 << 20;
const MAX_STEP: u64 = 4 << 20;
/// At the end of the file, room for writes that make space on a full disk.
const RESERVE: u64 = 256 << 10;
/// A file that a burst of writes made longer is cut to this when it is used again.
const MAX_KEPT_LEN: u64 = 16 << 20;

/// What the first block of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store that it belongs to.
    pub store: u64,
    /// Counts the uses of both files.
    pub generation: u64,
    /// The revision of the last write before its first record.
    pub base: u64,
}

/// What a file holds.
#[derive(Debug)]
pub struct Content {
    /// Nothing where the file was not used yet, or its header is not whole.
    pub header: Option<SegmentHeader>,
    /// The payloads of its records.
    pub records: Vec<Bytes>,
    /// Where the next record goes.
    end: u64,
    /// A record after the end, and its offset in the file: what stood between cannot be read any more. Each record is
    /// durable before the next is written, so this is damage, or what is left of a use whose file was used again, by
    /// a write that was not synced.
    pub stray: Option<(u64, Bytes)>,
}

/// A file that is open for records.
pub struct Segment {
    disk: Box<dyn Disk>,
    header: Option<SegmentHeader>,
    /// Where the next record goes.
    end: u64,
    /// Bytes up to here take space on the disk already.
    len: u64,
}

impl Segment {
    /// Opens a file that was read as `content`.
    pub fn new(disk: Box<dyn Disk>, content: &Content) -> io::Result<Self> {
        let len = disk.len()?;
        Ok(Self { disk, header: content.header, end: content.end, len })
    }

    /// What its first block says; nothing before its first use.
    pub fn header(&self) -> Option<SegmentHeader> {
        self.header
    }

    /// How many bytes its records take.
    pub fn size(&self) -> u64 {
        self.end.saturating_sub(BLOCK as u64)
    }

    /// Begins a new use. It is durable with the first record.
    pub fn begin(&mut self, header: SegmentHeader) -> io::Result<()> {
        if self.len > MAX_KEPT_LEN {
            self.disk.shorten(MAX_KEPT_LEN)?;
            self.len = MAX_KEPT_LEN;
        }
        if self.len < FIRST_LEN {
            self.extend(FIRST_LEN)?;
        }
        self.disk.write(0, &encode_header(header))?;
        (self.header, self.end) = (Some(header), BLOCK as u64);
        Ok(())
    }

    /// Takes space on the disk for a record with a payload of so many bytes, before anything of it is written.
    ///
    /// `frees` says that its writes will make space: on a full disk they may use what is kept back for such.
    pub fn reserve(&mut self, payload: usize, frees: bool) -> io::Result<()> {
        let end = self.end.saturating_add(record_len(payload));
        let wanted = end.saturating_add(RESERVE);
        if wanted <= self.len {
            return Ok(());
        }
        let step = self.len.clamp(FIRST_LEN, MAX_STEP);
        match self.extend(wanted.max(self.len.saturating_add(step))) {
            Err(_) if frees && end <= self.len => Ok(()),
            done => done,
        }
    }

    /// Adds a record. It is durable when this returns.
    pub fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        let Some(header) = self.header else { return Err(io::ErrorKind::InvalidInput.into()) };
        let record = record(header, payload)?;
        self.disk.write(self.end, &record)?;
        self.disk.sync()?;
        self.end = self.end.saturating_add(record.len() as u64);
        self.len = self.len.max(self.end);
        Ok(())
    }

    /// Makes durable what was written before.
    pub fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }

    /// Writes zeros: a file with holes has no space of its own, and makes every sync one of the file system's journal.
    fn extend(&mut self, len: u64) -> io::Result<()> {
        let zeros = vec![0; usize::try_from(len.saturating_sub(self.len)).map_err(io::Error::other)?];
        if let Err(error) = self.disk.write(self.len, &zeros) {
            // The tables may need what a part of it took of a full disk.
            self.disk.shorten(self.len)?;
            return Err(error);
        }
        self.len = len;
        Ok(())
    }
}

/// Reads what a file holds.
pub fn read(bytes: &Bytes) -> Content {
    let Some(header) = read_header(bytes) else {
        return Content { header: None, records: Vec::new(), end: BLOCK as u64, stray: None };
    };
    let records: Vec<Bytes> = records(header, bytes).collect();
    let end = records.iter().fold(BLOCK, |end, payload| end.saturating_add(record_len(payload.len()) as usize));
    let after = (end..bytes.len()).step_by(BLOCK).skip(1);
    // The last one has the latest writes.
    let stray = after.rev().find_map(|at| Some((at as u64, read_record(header, bytes, at)?)));
    Content { header: Some(header), records, end: end as u64, stray }
}

/// Whether no header was ever written.
pub fn has_no_header(bytes: &[u8]) -> bool {
    bytes.iter().take(BLOCK).all(|byte| *byte == 0)
}

/// The records of a use up to the first that is not whole, whatever the file's header says.
pub fn records(header: SegmentHeader, bytes: &Bytes) -> impl Iterator<Item = Bytes> {
    let mut at = BLOCK;
    std::iter::from_fn(move || {
        let payload = read_record(header, bytes, at)?;
        at = at.saturating_add(record_len(payload.len()) as usize);
        Some(payload)
    })
}

fn encode_header(header: SegmentHeader) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK);
    block.extend_from_slice(&HEADER_MAGIC);
    for number in [header.store, header.generation, header.base] {
        block.extend_from_slice(&number.to_be_bytes());
    }
    block.extend_from_slice(&crc32fast::hash(&block).to_be_bytes());
    block.resize(BLOCK, 0);
    block
}

fn read_header(bytes: &[u8]) -> Option<SegmentHeader> {
    let (head, rest) = bytes.split_at_checked(32)?;
    let checksum = u32::from_be_bytes(*rest.first_chunk()?);
    let [magic, store, generation, base] = [0, 8, 16, 24].map(|at| head[at..].first_chunk::<8>());
    if magic? != &HEADER_MAGIC || crc32fast::hash(head) != checksum {
        return None;
    }
    let [store, generation, base] = [store?, generation?, base?].map(|number| u64::from_be_bytes(*number));
    Some(SegmentHeader { store, generation, base })
}

/// Bytes on the disk of a record with a payload of so many bytes.
fn record_len(payload: usize) -> u64 {
    (payload.saturating_add(RECORD_HEAD).div_ceil(BLOCK) as u64).saturating_mul(BLOCK as u64)
}

fn record(header: SegmentHeader, payload: &[u8]) -> io::Result<Vec<u8>> {
    let len = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut record = Vec::with_capacity(record_len(payload.len()) as usize);
    record.extend_from_slice(&RECORD_MAGIC);
    record.extend_from_slice(&checksum(header, payload).to_be_bytes());
    record.extend_from_slice(&len.to_be_bytes());
    record.extend_from_slice(payload);
    record.resize(record_len(payload.len()) as usize, 0);
    Ok(record)
}

fn read_record(header: SegmentHeader, bytes: &Bytes, at: usize) -> Option<Bytes> {
    let (head, rest) = bytes.get(at..)?.split_at_checked(RECORD_HEAD)?;
    let [magic, crc, len] = [0, 4, 8].map(|at| head[at..].first_chunk::<4>());
    let payload = rest.get(..u32::from_be_bytes(*len?) as usize)?;
    (magic? == &RECORD_MAGIC && u32::from_be_bytes(*crc?) == checksum(header, payload))
        .then(|| bytes.slice_ref(payload))
}

fn checksum(header: SegmentHeader, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header.store.to_be_bytes());
    hasher.update(&header.generation.to_be_bytes());
    hasher.update(&(payload.len() as u64).to_be_bytes());
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader { store: 7, generation: 3, base: 40 };

    fn file(header: SegmentHeader, payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = encode_header(header);
        payloads.iter().for_each(|payload| bytes.extend(record(header, payload).unwrap()));
        bytes
    }

    fn payloads(bytes: Vec<u8>) -> (Vec<Bytes>, u64) {
        let content = read(&Bytes::from(bytes));
        assert_eq!(content.stray, None);
        (content.records, content.end)
    }

    #[test]
    fn records_are_read_up_to_the_first_that_is_not_whole() {
        let long = vec![b'x'; BLOCK + 1];
        let whole = file(HEADER, &[b"one", &long, b""]);
        assert_eq!(whole.len(), 5 * BLOCK);
        let (records, end) = payloads(whole.clone());
        assert_eq!((records.len(), &records[1][..], end), (3, &long[..], whole.len() as u64));
        assert_eq!(read(&Bytes::from(whole.clone())).header, Some(HEADER));
        // Cut anywhere in the last record, and with what an earlier use left there.
        let last = 4 * BLOCK;
        for len in [last, last + 1, last + RECORD_HEAD - 1] {
            let mut cut = whole[..len].to_vec();
            assert_eq!(payloads(cut.clone()).1, last as u64, "{len}");
            let earlier = SegmentHeader { generation: 2, ..HEADER };
            cut.truncate(last);
            cut.extend(record(earlier, b"old").unwrap());
            assert_eq!(payloads(cut).0.len(), 2);
        }
    }

    #[test]
    fn a_record_after_one_that_cannot_be_read_is_told() {
        let mut bytes = file(HEADER, &[b"one", b"two", b"three"]);
        bytes[2 * BLOCK + RECORD_HEAD] ^= 1;
        let content = read(&Bytes::from(bytes));
        assert_eq!((content.records.len(), content.end), (1, 2 * BLOCK as u64));
        assert_eq!(content.stray, Some((3 * BLOCK as u64, Bytes::from_static(b"three"))));
    }

    #[test]
    fn a_file_without_a_whole_header_was_not_used() {
        let bytes = file(HEADER, &[b"one"]);
        for len in [0, 1, 35, 36] {
            let content = read(&Bytes::copy_from_slice(&bytes[..len]));
            assert_eq!((content.header.is_some(), content.records.len()), (len == 36, 0), "{len}");
        }
        let mut damaged = bytes;
        damaged[9] ^= 1;
        assert!(read(&Bytes::from(damaged)).header.is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(mut bytes: Vec<u8>, blocks in 0..4_usize) {
            let mut whole = encode_header(HEADER);
            whole.extend(record(HEADER, &bytes).unwrap());
            bytes.resize(bytes.len() + blocks * BLOCK, 0xf5);
            whole.extend(bytes);
            read(&Bytes::from(whole));
        }
    }
}

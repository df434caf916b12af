//! The header of an object in the store's file, beside the object's text: an opening need not parse the text to make it
//! again, which is most of the work of a start.
//!
//! A header is made from the text by the program, and another program may make another one. So its row names the
//! program ([`Decode::mark`]) and the text: its revision and its checksum. Where any of them is not as it is now, the
//! text is parsed, and nothing else comes of it: an older program that knows nothing of these rows leaves them behind.
//!
//! A row is, all numbers big endian: mark (8 bytes), revision (8), CRC-32 of the text (4), the [`Layout`] (3 × 4), the
//! header, and the CRC-32 of all that (4).

use std::sync::Arc;

use redb::TableDefinition;

use crate::{Decode, Draft, EventType, Header, Object, object::Layout, references::References};

use super::row::number;

/// `resource/name`, as in the table of objects → a row as above.
pub const HEADERS: TableDefinition<&str, &[u8]> = TableDefinition::new("headers");

/// The row of an object whose program has this mark.
pub fn row(object: &Object, mark: u64) -> Vec<u8> {
    let (header, layout) = (object.header().bytes(), object.layout());
    let mut row = Vec::with_capacity(header.len().saturating_add(40));
    row.extend_from_slice(&mark.to_be_bytes());
    row.extend_from_slice(&object.revision.to_be_bytes());
    row.extend_from_slice(&crc32fast::hash(&object.json()).to_be_bytes());
    for number in [layout.head_len, layout.metadata_at, layout.managed_len] {
        row.extend_from_slice(&number.to_be_bytes());
    }
    row.extend_from_slice(header);
    row.extend_from_slice(&crc32fast::hash(&row).to_be_bytes());
    row
}

/// What a row says of the text `json`, written at `revision`, if its program had this mark.
fn read<'a>(row: &'a [u8], mark: u64, revision: u64, json: &[u8]) -> Option<(Layout, Header<'a>)> {
    let (row, sum) = row.split_last_chunk::<4>()?;
    if crc32fast::hash(row) != u32::from_be_bytes(*sum) {
        return None;
    }
    let mut rest = row;
    let of = [u64::from_be_bytes(*number(&mut rest)?), u64::from_be_bytes(*number(&mut rest)?)];
    if of != [mark, revision] || u32::from_be_bytes(*number(&mut rest)?) != crc32fast::hash(json) {
        return None;
    }
    let mut place = || Some(u32::from_be_bytes(*number(&mut rest)?));
    let layout = Layout { head_len: place()?, metadata_at: place()?, managed_len: place()? };
    let header = Header::of(rest);
    header.is_whole().then_some((layout, header))
}

/// Makes objects of the rows of the file.
pub struct ObjectMaker<'a> {
    decode: &'a dyn Decode,
    resource: Arc<str>,
    mark: Option<u64>,
    references: References,
}

/// An object that was made of a row.
pub struct Made {
    /// The object.
    pub object: Object,
    /// The file has no header for it that this program can use, and could have.
    pub lacks_header: bool,
}

impl<'a> ObjectMaker<'a> {
    /// Of rows that `decode` can read.
    pub fn new(decode: &'a dyn Decode) -> Self {
        Self { decode, resource: Arc::default(), mark: None, references: References::default() }
    }

    /// The object of `resource` with the key `name` in it, its text and what may be its header.
    pub fn make(
        &mut self,
        (resource, name): (&str, &str),
        (revision, json): (u64, &[u8]),
        header: Option<&[u8]>,
    ) -> Result<Made, serde_json::Error> {
        if *self.resource != *resource {
            self.resource = resource.into();
            self.mark = self.decode.mark(resource);
        }
        let known = self.mark.zip(header).and_then(|(mark, row)| read(row, mark, revision, json));
        let object = known.and_then(|(layout, header)| {
            Object::stored(json, layout, header, revision, (&self.resource, &mut self.references))
        });
        if let Some(object) = object {
            return Ok(Made { object, lacks_header: false });
        }
        let draft: Draft = self.decode.decode(resource, name, json)?;
        let object = Object::kept(draft, revision, EventType::Added, (&self.resource, &mut self.references));
        // An older program's text may have been brought into a newer form, which the file has once it is written again.
        let lacks_header = self.mark.is_some() && *object.json() == *json;
        Ok(Made { object, lacks_header })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HeaderParts, tests::draft};

    fn object() -> Object {
        let labels = vec![("a", "b")];
        let header = HeaderParts { name: "x", labels, ..HeaderParts::default() }.pack();
        Object::new(Draft { header, ..draft("text") }, 17, EventType::Added)
    }

    #[test]
    fn a_header_is_used_for_its_own_text_alone() {
        let object = object();
        let (row, json) = (row(&object, 5), object.json());
        let (layout, header) = read(&row, 5, 17, &json).expect("it is its own");
        assert_eq!((header, layout), (object.header(), object.layout()));
        let mut references = References::default();
        let again = Object::stored(&json, layout, header, 17, (&Arc::from("things"), &mut references)).unwrap();
        assert_eq!((again.json(), again.frame(), again.layout()), (object.json(), object.frame(), object.layout()));
        assert!(read(&row, 6, 17, &json).is_none(), "another program made it");
        assert!(read(&row, 5, 18, &json).is_none(), "the text was written later");
        let other = String::from_utf8(json.to_vec()).unwrap().replace("text", "next");
        assert!(read(&row, 5, 17, other.as_bytes()).is_none(), "the text is another");
    }

    #[test]
    fn a_damaged_header_is_not_used() {
        let object = object();
        let row = row(&object, 5);
        for at in 0..row.len() {
            let mut damaged = row.clone();
            damaged[at] ^= 0x10;
            assert!(read(&damaged, 5, 17, &object.json()).is_none(), "byte {at}");
            assert!(read(&row[..at], 5, 17, &object.json()).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn a_layout_that_the_text_does_not_have_is_refused() {
        let object = object();
        let (json, layout) = (object.json(), object.layout());
        let mut references = References::default();
        for wrong in [
            Layout { head_len: layout.head_len + 1, ..layout },
            Layout { head_len: u32::MAX, ..layout },
            Layout { metadata_at: layout.head_len, ..layout },
            Layout { managed_len: layout.head_len, ..layout },
        ] {
            let resource = Arc::from("things");
            let made = Object::stored(&json, wrong, object.header(), 17, (&resource, &mut references));
            assert!(made.is_none(), "{wrong:?}");
        }
    }
}

//! Certificates whose subject is that of the request, part by part: a user may be in several groups, each an
//! organization, of which `rcgen` writes one.

use rcgen::SigningKey;

/// Puts another subject into a certificate, and signs it anew. `certificate` and `subject` are DER; `None` where they
/// are not, or the key does not sign.
pub(super) fn with_subject(certificate: &[u8], subject: &[u8], key: &impl SigningKey) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let signed = parsed.tbs_certificate.as_ref();
    let old = parsed.subject().as_raw();
    let begin = (old.as_ptr() as usize).checked_sub(signed.as_ptr() as usize)?;
    let (before, after) = (signed.get(..begin)?, signed.get(begin.checked_add(old.len())?..)?);
    let content = before.get(header_len(signed)?..)?;
    let signed = element(SEQUENCE, &[content, subject, after]);
    // Behind what was signed: which algorithm, and the signature.
    let outer = certificate.get(header_len(certificate)?..)?;
    let rest = outer.get(parsed.tbs_certificate.as_ref().len()..)?;
    let algorithm = rest.get(..element_len(rest)?)?;
    let signature = key.sign(&signed).ok()?;
    // Of whole bytes: none of its last bits is unused.
    let signature = element(BIT_STRING, &[&[0], &signature]);
    Some(element(SEQUENCE, &[&signed, algorithm, &signature]))
}

/// Tags of X.690.
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// An element of DER with this content.
fn element(tag: u8, content: &[&[u8]]) -> Vec<u8> {
    let length = content.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => bytes.push(short),
        _ => {
            let long = length.to_be_bytes();
            let long: Vec<u8> = long.into_iter().skip_while(|byte| *byte == 0).collect();
            // A usize has 8 bytes at most.
            bytes.push(0x80 | u8::try_from(long.len()).unwrap_or_default());
            bytes.extend(long);
        }
    }
    content.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// Bytes of an element's tag and length.
fn header_len(element: &[u8]) -> Option<usize> {
    match *element.get(1)? {
        short if short < 0x80 => Some(2),
        long => Some(2_usize.saturating_add(usize::from(long & 0x7f))),
    }
}

/// Bytes of the whole element at the start of these.
fn element_len(bytes: &[u8]) -> Option<usize> {
    let header = header_len(bytes)?;
    let content = match *bytes.get(1)? {
        short if short < 0x80 => usize::from(short),
        _ => bytes
            .get(2..header)?
            .iter()
            .try_fold(0_usize, |sum, byte| sum.checked_mul(0x100)?.checked_add(usize::from(*byte)))?,
    };
    header.checked_add(content)
}

//! Frames of HTTP/2 (RFC 9113, section 4) and the few headers that requests need (RFC 7541), as bytes.

/// Types of frames.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// Flags of HEADERS.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
/// A setting.
pub const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
pub const HEADER_TABLE_SIZE: [u8; 2] = [0, 1];

/// What a client begins with, before its SETTINGS.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// SETTINGS with one setting.
pub fn setting(name: [u8; 2], value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&name[..], &value.to_be_bytes()].concat())
}

/// A text of less than 127 bytes, not compressed.
fn text(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

/// The headers of a request.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    // Indices of the static table: `:method`, `:scheme https`, `:path`, `:authority`.
    [vec![0x02], text(method), vec![0x87], vec![0x04], text(path), vec![0x01], text("server")].concat()
}

/// One more header, which no table keeps.
pub fn header(name: &str, value: &str) -> Vec<u8> {
    [vec![0], text(name), text(value)].concat()
}

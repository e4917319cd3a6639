//! Single lines of a message: request line, header, chunk size, trailer.

use super::Framing;

/// Why a message is not canonical.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Bytes after an earlier refusal.
    #[error("bytes after a refused message")]
    AfterRefusal,
    /// A line ends in a line feed alone.
    #[error("a line ends in a bare line feed")]
    BareLineFeed,
    /// A chunk is longer or shorter than its size.
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    /// Chunk extensions above the limit.
    #[error("chunk extensions are too long")]
    ChunkExtension,
    /// A chunk size that is not plain hexadecimal.
    #[error("a chunk size is not plain hexadecimal")]
    ChunkSize,
    /// `Content-Length` is not a plain number or is given twice.
    #[error("content-length is not one plain number")]
    ContentLength,
    /// A header's name has a character that is not allowed, or a space before the colon.
    #[error("a header name is not a token")]
    HeaderName,
    /// A header's value has a control character.
    #[error("a header value has a control character")]
    HeaderValue,
    /// `Host` is missing or given twice.
    #[error("host is not given exactly once")]
    Host,
    /// Both `Content-Length` and `Transfer-Encoding`.
    #[error("both content-length and transfer-encoding are given")]
    LengthAndCoding,
    /// A line above the limit.
    #[error("a line is too long")]
    LineTooLong,
    /// A header that is folded over two lines.
    #[error("a header is folded over several lines")]
    ObsoleteFold,
    /// The request line is not `METHOD SP target SP HTTP/1.x`.
    #[error("the request line is malformed")]
    RequestLine,
    /// Too many trailers.
    #[error("too many trailers")]
    Trailers,
    /// `Transfer-Encoding` is not exactly `chunked`, once, on HTTP/1.1.
    #[error("transfer-encoding is not exactly chunked")]
    TransferEncoding,
}

impl Refusal {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::AfterRefusal => "after_refusal",
            Self::BareLineFeed => "bare_line_feed",
            Self::ChunkEnd => "chunk_end",
            Self::ChunkExtension => "chunk_extension",
            Self::ChunkSize => "chunk_size",
            Self::ContentLength => "content_length",
            Self::HeaderName => "header_name",
            Self::HeaderValue => "header_value",
            Self::Host => "host",
            Self::LengthAndCoding => "length_and_coding",
            Self::LineTooLong => "line_too_long",
            Self::ObsoleteFold => "obsolete_fold",
            Self::RequestLine => "request_line",
            Self::Trailers => "trailers",
            Self::TransferEncoding => "transfer_encoding",
        }
    }
}

/// What the guard remembers of the head it is in.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) skipped_empty_line: bool,
    minor_version: u8,
    connect: bool,
    upgrade: bool,
    chunked: bool,
    length: Option<u64>,
    hosts: u32,
    trailers: u32,
    extension_bytes: usize,
}

/// The headers that framing depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderKind {
    ContentLength,
    Host,
    Other,
    TransferEncoding,
    Upgrade,
}

impl Head {
    pub(super) fn request_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let mut parts = line.split(|b| *b == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::RequestLine);
        };
        let good_method = !method.is_empty() && method.iter().all(|b| TOKEN[usize::from(*b)]);
        let good_target =
            !target.is_empty() && target.iter().all(|b| (0x21..0x7f).contains(b) && *b != b'#');
        self.minor_version = match version {
            b"HTTP/1.1" => 1,
            b"HTTP/1.0" => 0,
            _ => return Err(Refusal::RequestLine),
        };
        self.connect = method == b"CONNECT";
        if good_method && good_target { Ok(()) } else { Err(Refusal::RequestLine) }
    }

    pub(super) fn header(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let (kind, value) = split_header(line)?;
        match kind {
            HeaderKind::Other => {}
            HeaderKind::Host => self.hosts += 1,
            HeaderKind::Upgrade => self.upgrade = true,
            HeaderKind::ContentLength => {
                let length = plain_number(value).ok_or(Refusal::ContentLength)?;
                if self.length.replace(length).is_some() {
                    return Err(Refusal::ContentLength);
                }
            }
            HeaderKind::TransferEncoding => {
                let good = value.eq_ignore_ascii_case(b"chunked") && self.minor_version == 1;
                if !good || std::mem::replace(&mut self.chunked, true) {
                    return Err(Refusal::TransferEncoding);
                }
            }
        }
        Ok(())
    }

    pub(super) fn trailer(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.trailers += 1;
        if self.trailers > TRAILERS_MAX {
            return Err(Refusal::Trailers);
        }
        split_header(line).map(|_| ())
    }

    /// Checks the head as a whole.
    pub(super) fn finish(&self) -> Result<Framing, Refusal> {
        let host_is_optional = self.minor_version == 0;
        if self.hosts > 1 || (self.hosts == 0 && !host_is_optional) {
            return Err(Refusal::Host);
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Refusal::LengthAndCoding),
            // The proxy closes the connection unless the protocol really changes, so
            // bytes after such a head are never read as a request.
            (false, None | Some(0)) if self.upgrade || self.connect => Ok(Framing::Opaque),
            (true, None) => Ok(Framing::Chunked),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

/// Reads a chunk size; extensions are counted and dropped.
pub(super) fn chunk_size(line: &[u8], head: &mut Head) -> Result<u64, Refusal> {
    let (digits, extension) = match memchr::memchr(b';', line) {
        Some(at) => (&line[..at], &line[at..]),
        None => (line, &line[line.len()..]),
    };
    head.extension_bytes += extension.len();
    if head.extension_bytes > CHUNK_EXTENSION_BYTES_MAX {
        return Err(Refusal::ChunkExtension);
    }
    if extension.iter().any(|b| !is_value_byte(*b)) {
        return Err(Refusal::ChunkExtension);
    }
    if digits.is_empty() || digits.len() > CHUNK_SIZE_DIGITS_MAX {
        return Err(Refusal::ChunkSize);
    }
    digits.iter().try_fold(0u64, |size, digit| {
        let value = char::from(*digit).to_digit(16).ok_or(Refusal::ChunkSize)?;
        Ok(size * 16 + u64::from(value))
    })
}

fn split_header(line: &[u8]) -> Result<(HeaderKind, &[u8]), Refusal> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Refusal::ObsoleteFold);
    }
    let colon = memchr::memchr(b':', line).ok_or(Refusal::HeaderName)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|b| TOKEN[usize::from(*b)]) {
        return Err(Refusal::HeaderName);
    }
    if !value.iter().all(|b| is_value_byte(*b)) {
        return Err(Refusal::HeaderValue);
    }
    Ok((kind(name), value.trim_ascii()))
}

fn kind(name: &[u8]) -> HeaderKind {
    let is = |want: &[u8]| name.eq_ignore_ascii_case(want);
    match name.len() {
        4 if is(b"host") => HeaderKind::Host,
        7 if is(b"upgrade") => HeaderKind::Upgrade,
        14 if is(b"content-length") => HeaderKind::ContentLength,
        17 if is(b"transfer-encoding") => HeaderKind::TransferEncoding,
        _ => HeaderKind::Other,
    }
}

fn plain_number(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > LENGTH_DIGITS_MAX {
        return None;
    }
    value.iter().try_fold(0u64, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    })
}

fn is_value_byte(byte: u8) -> bool {
    byte >= 0x20 && byte != 0x7f || byte == b'\t'
}

/// Which bytes a token may have. Spec: RFC 9110 section 5.6.2.
static TOKEN: [bool; 256] = token_table();

const fn token_table() -> [bool; 256] {
    let mut table = [false; 256];
    let marks = b"!#$%&'*+-.^_`|~0123456789";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    let mut letter = b'a';
    while letter <= b'z' {
        table[letter as usize] = true;
        table[letter.to_ascii_uppercase() as usize] = true;
        letter += 1;
    }
    table
}

/// 18 digits cannot overflow 64 bits and are more than any body has.
const LENGTH_DIGITS_MAX: usize = 18;
/// 15 hexadecimal digits cannot overflow 64 bits, also with the line end added.
const CHUNK_SIZE_DIGITS_MAX: usize = 15;
/// Bytes of chunk extensions in one message.
const CHUNK_EXTENSION_BYTES_MAX: usize = 1024;
/// Trailers in one message.
const TRAILERS_MAX: u32 = 64;

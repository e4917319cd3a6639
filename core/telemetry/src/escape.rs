//! Text that a stranger chose, made safe for one line of a log.
//!
//! A path, a header, a server name or a SPIFFE path may hold a line end, a terminal
//! escape, a quote, a right-to-left override or bytes that are not UTF-8. All of them
//! are written as JSON escapes, in text and JSON logs alike, and every field is cut, so
//! that an event is always one bounded line (security.md A-09).

/// Appends `bytes`, cut to `limit` bytes of input, escaped for the inside of `"…"`.
///
/// A cut is marked by `...`; bytes that are not UTF-8 become `\ufffd`.
pub(crate) fn push_escaped(out: &mut String, bytes: &[u8], limit: usize) {
    let cut = bytes.len() > limit;
    for chunk in bytes[..bytes.len().min(limit)].utf8_chunks() {
        push_valid(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.push_str("\\ufffd");
        }
    }
    if cut {
        out.push_str("...");
    }
}

/// Appends `"<escaped>"`.
pub(crate) fn push_quoted(out: &mut String, bytes: &[u8], limit: usize) {
    out.push('"');
    push_escaped(out, bytes, limit);
    out.push('"');
}

fn push_valid(out: &mut String, text: &str) {
    let mut plain = 0;
    for (at, char) in text.char_indices() {
        if !needs_escape(char) {
            continue;
        }
        out.push_str(&text[plain..at]);
        plain = at + char.len_utf8();
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ => push_unicode(out, char),
        }
    }
    out.push_str(&text[plain..]);
}

/// Control characters, quotes, and the characters that change how a line looks without
/// being seen: bidirectional marks, zero-width characters, separators, tags.
fn needs_escape(char: char) -> bool {
    matches!(char,
        '\0'..='\u{1f}' | '"' | '\\' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}'
        | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

fn push_unicode(out: &mut String, char: char) {
    for unit in char.encode_utf16(&mut [0; 2]) {
        out.push_str("\\u");
        for shift in [12, 8, 4, 0] {
            let digit = (*unit >> shift) & 15;
            out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_on_one_line_and_inside_its_quotes() {
        let check = |input: &[u8], want: &str| {
            let mut out = String::new();
            push_escaped(&mut out, input, 64);
            assert_eq!(out, want);
            let mut quoted = String::new();
            push_quoted(&mut quoted, input, 64);
            let parsed: String = serde_json::from_str(&quoted).unwrap();
            assert!(String::from_utf8_lossy(input).starts_with(parsed.trim_end_matches("...")));
        };
        check(b"plain /path?x=1", "plain /path?x=1");
        check("caf\u{e9} \u{65e5}\u{672c}".as_bytes(), "caf\u{e9} \u{65e5}\u{672c}");
        check(b"a\nb\r\tc", "a\\nb\\r\\tc");
        check(b"\x1b[2J", "\\u001b[2J");
        check(br#"","admin":true,""#, r#"\",\"admin\":true,\""#);
        check(b"back\\slash", "back\\\\slash");
        check("\u{202e}txt".as_bytes(), "\\u202etxt");
        check("\u{9b}31m\u{7f}\0".as_bytes(), "\\u009b31m\\u007f\\u0000");
        check("\u{2028}\u{feff}\u{200b}".as_bytes(), "\\u2028\\ufeff\\u200b");
        check("\u{e0041}".as_bytes(), "\\udb40\\udc41");
        check(b"ok\xff\xfe!", "ok\\ufffd\\ufffd!");
        check(&[b'x'; 65], &format!("{}...", "x".repeat(64)));
    }

    #[test]
    fn a_cut_in_the_middle_of_a_character_is_harmless() {
        let mut out = String::new();
        push_escaped(&mut out, "\u{65e5}\u{672c}".as_bytes(), 4);
        assert_eq!(out, "\u{65e5}\\ufffd...");
    }
}

//! String literals, decoded as the compiler does.

use std::str::Chars;

/// The text of a string literal (plain, raw, byte or C string), given as it is written; `None` for any
/// other literal.
pub(crate) fn text(written: &str) -> Option<String> {
    let body = written.strip_prefix(['b', 'c']).unwrap_or(written);
    if let Some(raw) = body.strip_prefix('r') {
        let inner = raw.trim_start_matches('#').strip_prefix('"')?;
        return inner.rfind('"').and_then(|end| inner.get(..end)).map(str::to_owned);
    }
    let inner = body.strip_prefix('"')?;
    inner.rfind('"').and_then(|end| inner.get(..end)).map(unescape)
}

fn unescape(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        if next != '\\' {
            result.push(next);
            continue;
        }
        match rest.next() {
            // The line goes on below; its indentation does not count.
            Some('\n' | '\r') => rest = rest.as_str().trim_start().chars(),
            Some('n') => result.push('\n'),
            Some('r') => result.push('\r'),
            Some('t') => result.push('\t'),
            Some('0') => result.push('\0'),
            Some('x') => result.extend(hexadecimal(&mut rest, 2)),
            Some('u') => result.extend(unicode(&mut rest)),
            Some(other) => result.push(other),
            None => {}
        }
    }
    result
}

fn hexadecimal(rest: &mut Chars<'_>, digits: usize) -> Option<char> {
    let (code, after) = rest.as_str().split_at_checked(digits)?;
    *rest = after.chars();
    u32::from_str_radix(code, 16).ok().and_then(char::from_u32)
}

fn unicode(rest: &mut Chars<'_>) -> Option<char> {
    let (code, after) = rest.as_str().strip_prefix('{')?.split_once('}')?;
    *rest = after.chars();
    u32::from_str_radix(&code.replace('_', ""), 16).ok().and_then(char::from_u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_all_kinds() {
        for (written, read) in [
            (r#""SELECT 1""#, "SELECT 1"),
            (r##"r#"SELECT "id""#"##, r#"SELECT "id""#),
            (r#"r"a\n""#, r"a\n"),
            (r#"b"bytes""#, "bytes"),
            (r##"br#"bytes"#"##, "bytes"),
            (r#"c"text""#, "text"),
            (r#""a\"b\\c\n\t\0""#, "a\"b\\c\n\t\0"),
            (r#""\x53\u{45}LECT \u{00_4c}""#, "SELECT L"),
            ("\"SELECT 1 \\\n      FROM t\"", "SELECT 1 FROM t"),
            ("\"\"", ""),
        ] {
            assert_eq!(text(written).as_deref(), Some(read), "{written}");
        }
    }

    #[test]
    fn other_literals() {
        for written in ["1", "1.5f64", "'a'", "b'a'", "'\"'", "0b1", "0xcafe"] {
            assert_eq!(text(written), None, "{written}");
        }
    }
}

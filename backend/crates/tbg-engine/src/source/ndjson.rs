//! Events from a file: one envelope or raw log line per line, plain or gzip (contract `mining.md` §2.5).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::dead_letters::DeadLetter;
use crate::decode::{MAX_LINE_BYTES, Reason, Refusal, decode_line};
use crate::event::PoolEvent;

/// A line of the file.
pub struct Line {
    /// The event, or why there is none.
    pub content: Result<PoolEvent, Box<DeadLetter>>,
}

/// Reads events line by line; memory is bounded by one line.
pub struct NdjsonReader {
    reader: Box<dyn BufRead + Send>,
    name: String,
    number: u64,
    position: Arc<AtomicU64>,
    size: u64,
}

impl NdjsonReader {
    /// Opens a file; gzip is recognised by its first bytes.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let position = Arc::new(AtomicU64::new(0));
        let mut raw = BufReader::new(Counting { file, position: Arc::clone(&position) });
        let gzip = raw.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        let reader: Box<dyn BufRead + Send> =
            if gzip { Box::new(BufReader::new(MultiGzDecoder::new(raw))) } else { Box::new(raw) };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("replay:{}", name.chars().take(120).collect::<String>());
        Ok(Self { reader, name, number: 0, position, size })
    }

    /// Bytes of the file that were read, and its size: for a progress bar.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        (self.position.load(Ordering::Relaxed), self.size)
    }

    /// The next line that is not blank. A gzip stream that was cut ends with one malformed line.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        loop {
            self.number += 1;
            let mut line = Vec::new();
            let limit = MAX_LINE_BYTES as u64 + 1;
            let cut = match self.reader.by_ref().take(limit).read_until(b'\n', &mut line) {
                Ok(0) => return Ok(None),
                Ok(_) => false,
                Err(error) if is_damage(&error) => true,
                Err(error) => return Err(error),
            };
            if cut {
                self.reader = Box::new(io::empty());
                let refusal = Refusal::new(Reason::MalformedJson, "the gzip stream is damaged or cut");
                return Ok(Some(self.refused(refusal, &line)));
            }
            if line.last() != Some(&b'\n') && line.len() > MAX_LINE_BYTES {
                self.skip_to_end_of_line()?;
                let refusal = Refusal::new(Reason::BadValue, "a line has at most 65536 bytes");
                return Ok(Some(self.refused(refusal, &line)));
            }
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            return Ok(Some(match decode_line(line) {
                Ok(event) => Line { content: Ok(event) },
                Err(refusal) => self.refused(refusal, line),
            }));
        }
    }

    /// The dead letter of an event of this file that decoded but is refused later.
    #[must_use]
    pub fn letter(&self, refusal: Refusal, event: &PoolEvent) -> DeadLetter {
        let envelope = event.to_envelope();
        DeadLetter::new(&self.name, &self.line_id(envelope.as_bytes()), refusal, envelope.as_bytes())
    }

    fn refused(&self, refusal: Refusal, line: &[u8]) -> Line {
        let letter = DeadLetter::new(&self.name, &self.line_id(line), refusal, line);
        Line { content: Err(Box::new(letter)) }
    }

    /// Identifies a line by its number and content, so that replaying a file again adds no letters.
    fn line_id(&self, line: &[u8]) -> String {
        let digest: String = Sha256::digest(line).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{}:{digest}", self.number)
    }

    fn skip_to_end_of_line(&mut self) -> io::Result<()> {
        loop {
            let buffered = match self.reader.fill_buf() {
                Err(error) if is_damage(&error) => return Ok(()),
                buffered => buffered?,
            };
            if buffered.is_empty() {
                return Ok(());
            }
            let end = buffered.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(buffered.len(), |end| end + 1);
            self.reader.consume(used);
            if end.is_some() {
                return Ok(());
            }
        }
    }
}

/// Damage to the data, in contrast to a failing disk.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
    )
}

/// Counts the bytes that were read.
struct Counting {
    file: File,
    position: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.position.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const GOOD: &str = r#"{"event":"asicboost_detected","ts":1771804800.25,"data":{"user":"x"}}"#;

    fn read(bytes: &[u8]) -> Vec<Result<String, &'static str>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut reader = NdjsonReader::open(file.path()).unwrap();
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            lines.push(match line.content {
                Ok(event) => Ok(event.user),
                Err(letter) => Err(letter.refusal.reason.as_str()),
            });
        }
        lines
    }

    fn gzip(text: &str) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn blank_lines_are_skipped_and_malformed_ones_reported() {
        let text = format!("{GOOD}\n\n  \nnot json\r\n{GOOD}");
        assert_eq!(read(text.as_bytes()), [Ok("x".into()), Err("malformed_json"), Ok("x".into())]);
    }

    #[test]
    fn a_file_cut_in_the_middle_of_a_line_gives_what_was_whole() {
        let text = format!("{GOOD}\n{}", &GOOD[..30]);
        assert_eq!(read(text.as_bytes()), [Ok("x".into()), Err("malformed_json")]);
    }

    #[test]
    fn a_gzip_stream_is_read_and_a_cut_one_reported() {
        let text = format!("{GOOD}\n").repeat(3);
        assert_eq!(read(&gzip(&text)), vec![Ok("x".to_owned()); 3]);
        let whole = gzip(&text);
        let cut = read(&whole[..whole.len() - 9]);
        assert_eq!(cut.last(), Some(&Err("malformed_json")), "{cut:?}");
    }

    #[test]
    fn a_line_beyond_the_limit_is_one_refusal() {
        let long = format!("{}\n{GOOD}\n", "x".repeat(3 * MAX_LINE_BYTES));
        assert_eq!(read(long.as_bytes()), [Err("bad_value"), Ok("x".into())]);
        let exact = format!("{GOOD}{}\n", " ".repeat(MAX_LINE_BYTES - GOOD.len()));
        assert_eq!(read(exact.as_bytes()), [Ok("x".into())]);
    }
}

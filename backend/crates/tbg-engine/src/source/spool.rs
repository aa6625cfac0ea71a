//! Datagrams on disk while Redis is away: NDJSON segments, oldest dropped beyond a cap.
//!
//! A datagram that is valid UTF-8 on one line is kept as it came, so that a segment can also be replayed;
//! anything else is kept as `hex:…`. A line that a crash cut short is skipped when it is read.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};

use tbg_core::metrics::SPOOL_DROPPED_TOTAL;

/// Bytes after which a new segment is begun.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
const HEX_PREFIX: &str = "hex:";
const EXTENSION: &str = "ndjson";

/// The spool of one receiver.
pub struct Spool {
    dir: PathBuf,
    max_bytes: u64,
    segments: VecDeque<Segment>,
    /// The segment that is being written, the last of `segments`.
    open: Option<File>,
    next_number: u64,
    /// A full disk is logged when it begins, not for every event.
    failing: bool,
}

struct Segment {
    path: PathBuf,
    bytes: u64,
    events: u64,
}

impl Spool {
    /// Opens the spool in `dir` and finds what an earlier process left.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(dir: &Path, max_bytes: u64) -> io::Result<Self> {
        // At 0, so that a rate can be taken from the first loss on.
        for reason in ["full", "disk"] {
            metrics::counter!(SPOOL_DROPPED_TOTAL, "reason" => reason).increment(0);
        }
        fs::create_dir_all(dir)?;
        let mut found: Vec<(u64, PathBuf)> = fs::read_dir(dir)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION))
            .filter_map(|path| {
                Some((path.file_stem()?.to_str()?.strip_prefix("spool-")?.parse().ok()?, path))
            })
            .collect();
        found.sort_unstable();
        let next_number = found.last().map_or(0, |(number, _)| number + 1);
        let mut segments = VecDeque::new();
        for (_, path) in found {
            let bytes = fs::metadata(&path)?.len();
            let events = count_lines(&path)?;
            segments.push_back(Segment { path, bytes, events });
        }
        Ok(Self { dir: dir.to_owned(), max_bytes, segments, open: None, next_number, failing: false })
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Events that are kept.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.segments.iter().map(|segment| segment.events).sum()
    }

    /// Keeps a datagram. When the disk refuses, the datagram is dropped and counted: the receiver must go on.
    pub fn append(&mut self, datagram: &[u8]) {
        match self.write(&encode(datagram)) {
            Ok(()) => self.failing = false,
            Err(error) => {
                metrics::counter!(SPOOL_DROPPED_TOTAL, "reason" => "disk").increment(1);
                self.close_broken();
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "the spool cannot be written: events are dropped");
                }
            }
        }
    }

    /// The oldest segment's datagrams, and the token that forgets them.
    ///
    /// # Errors
    /// When the segment cannot be read.
    pub fn oldest(&mut self) -> io::Result<Option<(PathBuf, Vec<Vec<u8>>)>> {
        if self.segments.len() == 1 {
            self.open = None;
        }
        let Some(segment) = self.segments.front() else { return Ok(None) };
        let mut datagrams = Vec::new();
        for line in BufReader::new(File::open(&segment.path)?).split(b'\n') {
            datagrams.extend(decode(&line?));
        }
        Ok(Some((segment.path.clone(), datagrams)))
    }

    /// Forgets a segment that has been delivered.
    pub fn forget(&mut self, path: &Path) {
        self.segments.retain(|segment| segment.path != path);
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(%error, "a delivered spool segment cannot be removed; it will be delivered again");
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let full = self.segments.back().is_none_or(|segment| segment.bytes >= SEGMENT_BYTES);
        if self.open.is_none() || full {
            let path = self.dir.join(format!("spool-{:010}.{EXTENSION}", self.next_number));
            self.open = Some(OpenOptions::new().create_new(true).append(true).open(&path)?);
            self.next_number += 1;
            self.segments.push_back(Segment { path, bytes: 0, events: 0 });
        }
        if let (Some(file), Some(segment)) = (&mut self.open, self.segments.back_mut()) {
            file.write_all(line)?;
            segment.bytes += line.len() as u64;
            segment.events += 1;
        }
        self.keep_under_cap();
        Ok(())
    }

    /// Ends the segment whose last line may be cut short. One that took nothing goes: a disk that stays full must not
    /// be left with a file for each event.
    fn close_broken(&mut self) {
        self.open = None;
        if let Some(empty) = self.segments.pop_back_if(|segment| segment.events == 0) {
            let _ = fs::remove_file(empty.path);
        }
    }

    fn keep_under_cap(&mut self) {
        while self.segments.len() > 1
            && self.segments.iter().map(|segment| segment.bytes).sum::<u64>() > self.max_bytes
        {
            if let Some(oldest) = self.segments.pop_front() {
                metrics::counter!(SPOOL_DROPPED_TOTAL, "reason" => "full").increment(oldest.events);
                tracing::error!(events = oldest.events, "the spool is full: its oldest events are dropped");
                let _ = fs::remove_file(&oldest.path);
            }
        }
    }
}

fn count_lines(path: &Path) -> io::Result<u64> {
    let mut lines = 0;
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        line?;
        lines += 1;
    }
    Ok(lines)
}

fn encode(datagram: &[u8]) -> Vec<u8> {
    let plain = !datagram.is_empty()
        && !datagram.contains(&b'\n')
        && !datagram.starts_with(HEX_PREFIX.as_bytes())
        && std::str::from_utf8(datagram).is_ok();
    let mut line = if plain {
        datagram.to_vec()
    } else {
        let hex: String = datagram.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{HEX_PREFIX}{hex}").into_bytes()
    };
    line.push(b'\n');
    line
}

fn decode(line: &[u8]) -> Option<Vec<u8>> {
    match line.strip_prefix(HEX_PREFIX.as_bytes()) {
        None => (!line.is_empty()).then(|| line.to_vec()),
        Some(hex) => {
            hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(spool: &mut Spool) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some((path, datagrams)) = spool.oldest().unwrap() {
            all.extend(datagrams);
            spool.forget(&path);
        }
        all
    }

    #[test]
    fn what_goes_in_comes_out_in_order_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let datagrams: [&[u8]; 5] = [b"{\"a\":1}", b"", b"two\nlines", b"\xff\xfe", b"hex:zz"];
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        datagrams.iter().take(3).for_each(|datagram| spool.append(datagram));
        drop(spool);
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        datagrams.iter().skip(3).for_each(|datagram| spool.append(datagram));
        assert_eq!(spool.events(), 5);
        assert_eq!(drain(&mut spool), datagrams);
        assert!(spool.is_empty() && fs::read_dir(dir.path()).unwrap().next().is_none());
    }

    #[test]
    fn the_oldest_segments_go_when_the_cap_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 2 * SEGMENT_BYTES).unwrap();
        let datagram = vec![b'x'; 1 << 20];
        for _ in 0..40 {
            spool.append(&datagram);
        }
        let kept = spool.events();
        assert!((8..=17).contains(&kept), "{kept}");
    }

    #[test]
    fn a_disk_that_refuses_stops_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        fs::remove_dir(dir.path()).unwrap();
        spool.append(b"lost");
        fs::create_dir(dir.path()).unwrap();
        spool.append(b"kept");
        assert_eq!(drain(&mut spool), [b"kept".to_vec()]);
    }

    #[test]
    fn a_full_disk_leaves_no_segment_that_took_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        let path = dir.path().join("spool-0000000000.ndjson");
        File::create(&path).unwrap();
        spool.open = Some(File::options().write(true).open("/dev/full").unwrap());
        spool.segments.push_back(Segment { path, bytes: 0, events: 0 });
        spool.append(b"lost");
        assert!(spool.is_empty() && fs::read_dir(dir.path()).unwrap().next().is_none());
    }

    #[test]
    fn new_datagrams_may_arrive_while_the_oldest_segment_is_delivered() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
        spool.append(b"1");
        let (path, first) = spool.oldest().unwrap().unwrap();
        spool.append(b"2");
        spool.forget(&path);
        assert_eq!((first, drain(&mut spool)), (vec![b"1".to_vec()], vec![b"2".to_vec()]));
    }
}

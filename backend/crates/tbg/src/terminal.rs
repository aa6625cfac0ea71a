//! What a command says. `println!` panics when nobody reads or the disk is full; here that is an error like any
//! other, or nothing where something else is the answer.

use std::fmt;
use std::io::{self, Write as _};

use anyhow::Context as _;

/// Writes a line to standard output: the result of a command. Where the exit code is the answer, the line may be
/// lost and the error is dropped.
macro_rules! say {
    ($($text:tt)*) => { $crate::terminal::write_out(format_args!($($text)*)) };
}

/// Writes a line to standard error; one that cannot be written is lost.
macro_rules! tell {
    ($($text:tt)*) => { $crate::terminal::write_error(format_args!($($text)*)) };
}

pub(crate) use {say, tell};

pub(crate) fn write_out(line: fmt::Arguments<'_>) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{line}").context("standard output cannot be written")
}

pub(crate) fn write_error(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{line}");
}
